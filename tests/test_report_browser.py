"""The report in a real browser: Debian's chromium, driven by playwright. `make test-browser` runs it.

Screenshots of every state of the page are left in build/screenshots, for people to look at.
"""

from __future__ import annotations

import io
import json
import os
import re
import shutil
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from report_folders import HOSTILE, REASON, leave_maps, leave_photographs

from igos_bench.data import read_manifest
from igos_bench.images import decode, preprocess
from igos_bench.config import DataConfig, Preprocessing
from igos_bench.metrics import rank
from igos_bench.perturb import Baseline, upsample
from igos_bench.report import write_report
from igos_bench.results import by_id

sync_api = pytest.importorskip("playwright.sync_api")
