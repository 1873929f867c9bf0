"""What was found out once and can be found out again: small files in the user's cache folder."""

from __future__ import annotations

import json
import os
import warnings
from collections.abc import Mapping
from pathlib import Path
from typing import Any


def recall(name: str, described: Mapping[str, object]) -> dict[str, Any] | None:
    """What `keep` wrote under that name, or None where it is not there, damaged, or about something else."""
    try:
        content = json.loads(_file(name).read_bytes())
        if any(content[key] != value for key, value in described.items()):
            return None
    except (OSError, ValueError, KeyError, TypeError):
        return None
    return dict(content)


def keep(name: str, described: Mapping[str, object], content: Mapping[str, object], what: str) -> None:
    """Write `content` beside what it is about; warns, naming it as `what`, where the folder cannot be written."""
    file = _file(name)
    temporary = file.with_name(f".{file.name}.{os.getpid()}.tmp")
    try:
        file.parent.mkdir(parents=True, exist_ok=True)
        try:
            temporary.write_text(json.dumps({**described, **content}), encoding="ascii")
            temporary.replace(file)
        finally:
            temporary.unlink(missing_ok=True)
    except OSError as error:
        warnings.warn(
            f"{what} cannot be kept in {file.parent} ({error.strerror}), so it will be made each time: "
            "set XDG_CACHE_HOME to a folder that can be written",
            stacklevel=2,
        )


def _file(name: str) -> Path:
    folder = os.environ.get("XDG_CACHE_HOME") or os.path.expanduser("~/.cache")  # noqa: PTH111 - never raises
    return Path(folder, "igos-bench", f"{name}.json")
