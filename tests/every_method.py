"""What the tests of all registered methods share."""

from __future__ import annotations

from typing import Any

# Hyper-parameters that make a method quick; one that is not here runs with its defaults.
SHORT: dict[str, dict[str, Any]] = {
    "igos": {"iterations": 2, "path_steps": 2, "smallest_step": 10.0},
    "mask": {"iterations": 2},
    "rise": {"masks": 66},
    "integrated_gradients": {"steps": 3},
}
# Their accept-or-reject steps, and Adam's division by a small number, amplify rounding.
ITERATIVE = ("igos", "mask")
