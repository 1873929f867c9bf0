"""The environment of a process whose lines are not counted, where counting them would change what it does."""

import os
from pathlib import Path

UNMEASURED = {key: value for key, value in os.environ.items() if not key.startswith("COVERAGE_")}
"""Of a process that is sent a signal, and of one that cannot write.

Coverage takes a lock at every call of a function, by code of Python's: where Ctrl-C raises within it the lock stays
taken, and every thread waits for it for ever, the one too that ends a process which does not end.
"""

UNMEASURED["PYTHONPATH"] = str(Path(__file__).parent.parent)
