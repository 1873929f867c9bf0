"""torch for the modules that `igos-bench plan` imports: it costs seconds, so it is imported when something first asks.

A method's module says `from ..lazy import torch` and is otherwise written as ever; where a name of torch is only in
annotations, it is imported under TYPE_CHECKING. A method of another package may import torch itself.
"""

from __future__ import annotations

from importlib import import_module
from types import ModuleType
from typing import TYPE_CHECKING, Any

__all__ = ["F", "torch"]

if TYPE_CHECKING:
    import torch
    from torch.nn import functional as F
else:

    class _Lazy(ModuleType):
        """Stands for the module of its name, and imports it at the first look at one of its attributes."""

        def __getattr__(self, name: str) -> Any:
            return getattr(import_module(self.__name__), name)

    torch, F = _Lazy("torch"), _Lazy("torch.nn.functional")
