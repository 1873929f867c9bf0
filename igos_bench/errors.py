"""The errors that are written for people, and the words they share."""

import errno
import os
import sys
from collections.abc import Sequence
from difflib import get_close_matches
from pathlib import Path

REMEDIES = {
    errno.ENOSPC: "make room",
    errno.EDQUOT: "make room in your quota",
    errno.EROFS: "make that file system writable again",
    errno.EACCES: "allow yourself to write there",
    errno.EPERM: "allow yourself to write there",
}

LONGEST_LINE = 2000
"""Characters of a message; of a longer one the middle is left out."""


class UserError(Exception):
    """Something that the user can mend: what was asked, what was found, what to do next.

    The command line prints the message as one line, without a traceback, and exits with `code`.
    """

    code = 2


class WriteError(UserError):
    """A results file cannot be written: no space, no permission. None is left by halves, and what was there stays."""

    code = 4


class UnavailableError(UserError):
    """A method has no map at this resolution on this model: a mistake alone, a `-` in a sweep."""


class IncompleteError(Exception):
    """A run ended, and some of its images failed; the message says where their rows are."""

    code = 3


class ImageError(Exception):
    """One image that cannot be read, explained or scored; it becomes a row with this reason and the run goes on."""


def tell(message: object) -> None:
    """Print one line on stderr, whatever the message quotes."""
    print(f"igos-bench: {one_line(str(message))}", file=sys.stderr)


def say(text: object) -> None:
    """Print on stdout. Where that cannot be written, work goes on without it: `lost_words` knows."""
    try:
        print(text, flush=True)
    except OSError as error:
        lose_words(error)


def lose_words(error: OSError) -> None:
    """Say on stderr why stdout has no more of it, and print into nothing from here on."""
    if not isinstance(error, BrokenPipeError):  # `igos-bench table | head` has seen enough
        tell(f"cannot print any more: {error.strerror}; what is asked for is done all the same")
    os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
    _lost.append(error)


def lost_words() -> int:
    """Exit code of a command that could not print everything: 0 if it could, 1 if nobody listened, 4 else."""
    if not _lost:
        return 0
    return 1 if isinstance(_lost[0], BrokenPipeError) else WriteError.code


_lost: list[OSError] = []


def one_line(text: str) -> str:
    """The text on one line that a terminal shows as it stands: what it could not show is written as its escape."""
    text = "".join(c if c.isprintable() else c.encode("unicode_escape").decode("ascii") for c in text)
    if len(text) <= LONGEST_LINE:
        return text
    return f"{text[: LONGEST_LINE // 2]} ... {text[-LONGEST_LINE // 2 :]}"


def unknown(what: str, found: str, choices: Sequence[str], show: Sequence[str] | None = None) -> str:
    """One line that names the near miss among `choices` and lists them, or only those in `show`."""
    near = get_close_matches(found, choices, n=1)
    hint = f" (did you mean {near[0]!r}?)" if near else ""
    return f"unknown {what} {found!r}{hint}; choices: {', '.join(show or choices)}"


def cannot_write(path: Path, error: OSError) -> WriteError:
    """What to raise where a results file cannot be written."""
    remedy = REMEDIES.get(error.errno or 0, "see to it that it can be written")
    return WriteError(
        f"cannot write {path}: {error.strerror or error}. What was finished before is kept: {remedy} or set "
        "results_dir=FOLDER, and start the same command again"
    )


def first_line(error: BaseException) -> str:
    """Of its message; its type's name where it has none."""
    return str(error).strip().split("\n")[0] or type(error).__name__
