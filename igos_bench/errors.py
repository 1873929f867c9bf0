"""The errors that are written for people, and the words they share."""

from collections.abc import Sequence
from difflib import get_close_matches
from pathlib import Path


class UserError(Exception):
    """Something that the user can mend: what was asked, what was found, what to do next.

    The command line prints the message as it stands, without a traceback, and exits with code 2.
    """


class UnavailableError(UserError):
    """A method has no map at this resolution on this model: a mistake alone, a `-` in a sweep."""


class IncompleteError(Exception):
    """A run ended, and some of its images failed; the message says where their rows are."""


class ImageError(Exception):
    """One image that cannot be read; it becomes a row with this reason and the run goes on."""


def unknown(what: str, found: str, choices: Sequence[str], show: Sequence[str] | None = None) -> str:
    """One line that names the near miss among `choices` and lists them, or only those in `show`."""
    near = get_close_matches(found, choices, n=1)
    hint = f" (did you mean {near[0]!r}?)" if near else ""
    return f"unknown {what} {found!r}{hint}; choices: {', '.join(show or choices)}"


def cannot_write(path: Path, error: OSError) -> UserError:
    """What to raise where a results file cannot be written."""
    return UserError(
        f"cannot write {path}: {error.strerror or error}. What was computed before is kept; "
        f"make room or set results_dir=FOLDER, and start the same command again"
    )


def first_line(error: BaseException) -> str:
    """Of its message; its type's name where it has none."""
    return str(error).strip().split("\n")[0] or type(error).__name__
