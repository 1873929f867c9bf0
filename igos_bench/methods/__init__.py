"""The methods, one file each, and the registry that finds them by name.

A method is a frozen dataclass whose fields are its hyper-parameters and the keys of `conf/method/<name>.yaml`. It knows
nothing of files or of Hydra. Somebody else's package adds one through an entry point in the group `igos_bench.methods`.
"""

from .excitation_bp import ExcitationBp
from .grad_cam import GradCam
from .igos import Igos
from .integrated_gradients import IntegratedGradients
from .mask import Mask
from .registry import Method, get_method, installed_version, method_names, register
from .rise import Rise

__all__ = [
    "ExcitationBp",
    "GradCam",
    "Igos",
    "IntegratedGradients",
    "Mask",
    "Method",
    "Rise",
    "get_method",
    "installed_version",
    "method_names",
    "register",
]
