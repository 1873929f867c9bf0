"""The methods, one file each, and the registry that finds them by name.

A method is a frozen dataclass whose fields are its hyper-parameters and the keys of `conf/method/<name>.yaml`. It knows
nothing of files or of Hydra. Somebody else's package adds one through an entry point in the group `igos_bench.methods`.
"""

from .igos import Igos
from .registry import Method, get_method, method_names, register

__all__ = ["Igos", "Method", "get_method", "method_names", "register"]
