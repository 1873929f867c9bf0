"""The report in a real browser: Debian's chromium, driven by playwright. `make test-browser` runs it.

Screenshots of every state of the page are left in build/screenshots, for people to look at.
"""

from __future__ import annotations

import pytest

sync_api = pytest.importorskip("playwright.sync_api")
