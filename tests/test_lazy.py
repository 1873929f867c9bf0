from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import torch
from torch.nn import functional as F

from igos_bench import lazy
from igos_bench.methods import get_method, method_names


def test_it_is_torch() -> None:
    assert lazy.torch.randn is torch.randn
    assert lazy.torch.optim.Adam is torch.optim.Adam
    assert lazy.F.interpolate is F.interpolate


def test_every_method_is_built_and_checked_without_torch() -> None:
    """Its own checks too: they are what `plan` refuses."""
    code = (
        "import sys; from igos_bench.methods import get_method, method_names\n"
        "for name in method_names(): print(get_method(name, {}))\n"
        "assert not {'torch', 'torchvision', 'timm'} & set(sys.modules)\n"
        "from igos_bench.lazy import torch; torch.zeros(1); assert 'torch' in sys.modules"
    )
    command = [sys.executable, "-c", code]
    ended = subprocess.run(command, capture_output=True, text=True, cwd=Path(__file__).parent.parent, timeout=60)
    assert ended.returncode == 0, ended.stderr
    assert ended.stdout.splitlines() == [str(get_method(name, {})) for name in method_names()]
