"""What becomes of the jobs of one command line: a single one, or all those of a sweep, of which none stops another."""

from __future__ import annotations

import traceback
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from pathlib import Path
from typing import Any

from .config import RunConfig
from .configured import available_method
from .errors import IncompleteError, UnavailableError, UserError, say, tell
from .overrides import typed


@dataclass
class Jobs:
    """Runs jobs, says what is wrong with each, and sums up.

    Attributes:
        what: What they are, for people.
        sweep: Whether there may be several; then a cell that a method does not have is no mistake.
        done: How many ended well.
        unavailable: How many cells a method does not have.
        failed: What went wrong, with the exit code and the cells to which it happened.
    """

    sweep: bool
    what: str = "cells"
    done: int = 0
    unavailable: int = 0
    failed: dict[tuple[str, int], list[str]] = field(default_factory=dict)

    def attempt(self, config: Any, work: Callable[[RunConfig], int]) -> None:
        """Run `work`, which returns an exit code, on a composed configuration."""
        name = "a cell"
        try:
            checked = typed(config)
            name = _name(checked)
            if code := work(checked):
                self._fail(name, "see what is said of it above", code)
            else:
                self.done += 1
        except UnavailableError as error:
            if self.sweep:
                tell(f"not available: {error}")
                self.unavailable += 1
            else:
                self._complain(name, error)
        except UserError as error:
            self._complain(name, error)
        except IncompleteError as error:
            self._fail(name, str(error), error.code)
        except Exception as error:
            if not self.sweep:
                raise
            where = _log(checked, name)
            tell(f"{name} broke: {error!r}; {where}")
            self._fail(name, f"it broke with {type(error).__name__}; {where}", 1)

    def available(self, configs: Sequence[Any]) -> list[bool]:
        """Which cells there are, as far as `conf/` says; of the others each is told once, however many shards it has.

        What else is wrong with one, its job will say.
        """
        reasons = [_why_unavailable(config) for config in configs]
        for reason in dict.fromkeys(filter(None, reasons)):
            tell(f"not available: {reason}")
        self.unavailable += sum(map(bool, reasons))
        return [not reason for reason in reasons]

    def add(self, other: Jobs) -> None:
        """What became of jobs elsewhere."""
        self.done += other.done
        self.unavailable += other.unavailable
        for (reason, code), names in other.failed.items():
            self.failed.setdefault((reason, code), []).extend(names)

    def lose(self, config: Any, reason: str, code: int) -> None:
        """A job that did not come to its end, and why."""
        try:
            name = _name(typed(config))
        except UserError:
            name = "a cell"
        self._fail(name, reason, code)

    def leave_reasons(self, results_dir: str) -> None:
        """Write why jobs failed where no row and no traceback says so: `status` sees no one's terminal."""
        for (reason, code), names in self.failed.items():
            for name in names if code not in (1, IncompleteError.code) else ():
                _write_log(results_dir, name, f"{reason}\n")

    def end(self) -> int:
        """Sum up a sweep; return the exit code. One of which no cell is available is a mistake."""
        count = sum(map(len, self.failed.values()))
        if self.sweep:
            say(f"\n{self.done} {self.what} without a failure, {self.unavailable} not available, {count} failed")
            for (reason, code), names in self.failed.items():
                tell(f"failed with {code}: {', '.join(names)}: {reason}")
            if self.unavailable and not self.done and not self.failed:
                tell("no cell of this sweep is available: name a method with a resolution that it has")
                return UserError.code
        return max((code for _, code in self.failed), default=0)

    def _complain(self, name: str, error: UserError) -> None:
        """What the user can mend; one that all cells share is told once."""
        if (str(error), error.code) not in self.failed:
            tell(error)
        self._fail(name, str(error), error.code)

    def _fail(self, name: str, reason: str, code: int) -> None:
        self.failed.setdefault((reason, code), []).append(name)


def _why_unavailable(config: Any) -> str:
    try:
        checked = typed(config)
        if checked.maps is None and checked.name is None:
            available_method(checked)
    except UnavailableError as error:
        return str(error)
    except UserError:
        pass
    return ""


def _name(config: RunConfig) -> str:
    what = f"maps={config.maps}" if config.maps else f"{config.method['name']} at {config.resolution}"
    seed = f" with seed {config.seed}" if config.seed else ""
    shard = f", shard {config.shard}" if config.shard else ""
    return f"{what} on {config.model.name}{seed}{shard}"


def _log(config: RunConfig, name: str) -> str:
    """Write the traceback of what just broke, and say where; print it where it cannot be written."""
    path, error = _write_log(config.results_dir, name, traceback.format_exc())
    if error:
        traceback.print_exc()
        return f"the whole story is above, as {path} cannot be written ({error.strerror})"
    return f"the whole story is in {path}"


def _write_log(results_dir: str, name: str, text: str) -> tuple[Path, OSError | None]:
    """Write a file of its own into the logs; its path, and why it could not be written."""
    moment = datetime.now().strftime("%Y-%m-%d_%H-%M-%S.%f")  # a cell may break within a second of another
    path = Path(results_dir, "logs", f"{moment} {name.replace('/', '_')}.txt")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text, encoding="utf-8")
    except OSError as error:
        return path, error
    return path, None
