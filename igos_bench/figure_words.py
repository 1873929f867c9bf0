"""The words after `figure` and `animate`, checked."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from .cells import GROUP
from .composing import parse, values_of
from .errors import UserError, unknown

KINDS: Mapping[str, tuple[str, ...]] = {
    "scatter": ("methods", "allow_partial"),
    "time": ("methods", "allow_partial"),
    "curves": ("image", "methods", "resolution", "run"),
    "perturbed": ("image", "methods", "resolution", "run", "fraction"),
    "resolutions": ("image", "method", "run"),
}
"""The figures, and the words that each knows beside `kind`, `width`, `dpi`, GROUP and `results_dir`."""
OF_IMAGES = tuple(kind for kind, keys in KINDS.items() if "image" in keys)
SEVERAL = ("methods", "run")
"""Words that a figure may have a list of."""
FILM = ("image", "method", "resolution", "run", "format", "frames", *GROUP, "results_dir")
FORMATS = ("gif", "mp4")
RESOLUTION = 28
"""Where none was asked for, and a method has several."""

# Narrower, and labels meet; beyond 600 dots an inch no journal asks for more.
RANGES = {"width": (2.0, 20.0), "dpi": (72, 600), "fraction": (0.0, 1.0), "resolution": (1, 224), "frames": (2, 200)}
REMEDIES = {
    "width": "inches from 2 to 20; a column has 3.3, a page of two columns 7",
    "dpi": "dots an inch from 72 to 600",
    "fraction": "the share of the pixels that is deleted, from 0 to 1",
    "resolution": "whole numbers from 1 to 224",
    "frames": "from 2 to 200 pictures a film",
}


@dataclass(frozen=True)
class Asked:
    """What is asked for: `methods`, or `method`, and `model`, `data`, `protocol`, `run` choose cells.

    None takes all methods, and the one model, data set and protocol that there is; the one resolution, or RESOLUTION.
    `run` has the first digits of keys.
    """

    kind: str = ""
    methods: Sequence[str] | None = None
    method: str = "igos"
    model: str | None = None
    data: str | None = None
    protocol: str | None = None
    run: Sequence[str] = ()
    image: str = ""
    resolution: int | None = None
    fraction: float = 0.064
    width: float = 7.0
    dpi: int = 300
    format: str = "gif"
    frames: int = 50
    results_dir: str = "results"
    allow_partial: bool = False


def read_figure(words: Sequence[str]) -> Asked:
    """The words after `figure`; raises UserError."""
    found = _read(words, list(Asked.__dataclass_fields__), SEVERAL)
    kind = str(found.get("kind"))
    if kind not in KINDS:
        *others, last = KINDS
        say = f"say which figure, kind={', '.join(others)} or {last}"
        raise UserError(unknown("kind", kind, list(KINDS)) if "kind" in found else say)
    for key in found:
        known = ["kind", *KINDS[kind], *GROUP, "width", "dpi", "results_dir"]
        if key not in known:
            raise UserError(unknown(f"key of kind={kind}", key, known))
    if kind not in OF_IMAGES:
        found.setdefault("width", 3.3)
    if kind == "perturbed" and "run" not in found:
        found.setdefault("methods", [Asked.method])
    return _with_image(found)


def read_film(words: Sequence[str]) -> Asked:
    """The words after `animate`; raises UserError."""
    found = _read(words, list(FILM), ())
    if found.get("format", "gif") not in FORMATS:
        raise UserError(unknown("format", str(found["format"]), FORMATS))
    return _with_image({**found, "kind": "film"})


def _read(words: Sequence[str], keys: Sequence[str], several: Sequence[str]) -> dict[str, Any]:
    found: dict[str, Any] = {}
    # The name of an image may have any signs in it, those of Hydra's grammar too.
    images = [word for word in words if word.startswith("image=")]
    for override in parse([word for word in words if word not in images]):
        key = override.key_or_group
        if key not in keys:
            raise UserError(unknown("key", key, keys))
        values = _keys(override.input_line or "") if key == "run" else _flat(values_of(override))
        if len(values) > 1 and key not in several:
            remedy = f"; only {' and '.join(f'{name}=[...]' for name in several)} may have several" if several else ""
            raise UserError(f"{override.input_line}: give one {key}{remedy}")
        if key in SEVERAL:
            found[key] = [str(value) for value in values]
            continue
        found[key] = _CHECKS[key](key, values[0]) if key in _CHECKS else str(values[0])
    return {**found, "image": images[-1].removeprefix("image=")} if images else found


def _with_image(found: dict[str, Any]) -> Asked:
    if found["kind"] in (*OF_IMAGES, "film") and not found.get("image"):
        raise UserError("say of which image: image=ID, as the column image_id of records.csv has it")
    return Asked(**found)


def _number(key: str, value: Any) -> float:
    low, high = RANGES[key]
    kinds = int if isinstance(low, int) else int | float
    if isinstance(value, bool) or not isinstance(value, kinds) or not low <= value <= high:
        raise UserError(f"{key}={value}: give {REMEDIES[key]}")
    return float(value) if isinstance(low, float) else value


def _flat(values: Sequence[Any]) -> list[Any]:
    """Of `a`, `a,b` and `[a,b]`."""
    return [one for value in values for one in (value if isinstance(value, list) else [value])]


def _keys(word: str) -> list[str]:
    """Of `run=a`, `run=a,b` and `run=[a,b]`, as they stand: to Hydra 12e4 is a number."""
    return re.findall(r"[^\s,'\"\[\]]+", word.partition("=")[2])


def _truth(key: str, value: Any) -> bool:
    if not isinstance(value, bool):
        raise UserError(f"{key}={value}: write true or false")
    return value


_CHECKS: Mapping[str, Callable[[str, Any], Any]] = {
    **dict.fromkeys(RANGES, _number),
    "allow_partial": _truth,
}
