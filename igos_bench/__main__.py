"""`python -m igos_bench` is `igos-bench`."""

import sys

from .cli import main

sys.exit(main())
