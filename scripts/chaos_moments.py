"""The moments at which `chaos.py` sends a signal to a running command, seen from outside: by its files and in /proc."""

from __future__ import annotations

import os
import random
import signal
import subprocess
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

PATIENCE = 120.0
"""Seconds after which a command counts as hung."""

MOST_FILES = 8
"""`writing`, `between` and `decoding` wait for one of so many files: about as many as two chunks write."""


@dataclass
class Watched:
    """A running command, and what is known of it.

    Attributes:
        process: It.
        images: The folder that its images are in.
        results: The folder that it fills.
        seconds: What it takes undisturbed.
    """

    process: subprocess.Popen[str]
    images: Path
    results: Path
    seconds: float

    def wait_for(self, kind: str, draw: random.Random) -> bool:
        """Wait for a moment of this kind; False where the command ended before. Raises TimeoutError."""
        if kind in ("writing", "between", "decoding"):
            return self._wait_for_file(kind, draw.randint(1, MOST_FILES))
        if kind.startswith("SIG") and not self._until(self._listens):
            return False
        moment = time.monotonic() + draw.uniform(0, self.seconds)
        return self._until(lambda: time.monotonic() >= moment)

    def threads(self) -> list[int]:
        """Its threads but the main one."""
        numbers = [int(path.name) for path in Path(f"/proc/{self.process.pid}/task").iterdir()]
        return [number for number in numbers if number != self.process.pid]

    def _wait_for_file(self, kind: str, wanted: int) -> bool:
        look = self._open_images if kind == "decoding" else lambda: self._files(kind)
        before = set(look())
        seen: set[str] = set()

        def is_there() -> bool:
            now = set(look()) - before
            seen.update(now)
            return bool(now) and len(seen) >= wanted

        return self._until(is_there)

    def _until(self, condition: Callable[[], bool]) -> bool:
        latest = time.monotonic() + PATIENCE
        while self.process.poll() is None:
            if condition():
                return True
            if time.monotonic() > latest:
                raise TimeoutError(f"nothing happened in {PATIENCE:.0f} s")
            time.sleep(0.0003)
        return False

    def _files(self, kind: str) -> Iterator[str]:
        """Path and inode of each file that is being written, or, for `between`, of each that a chunk's rows follow."""
        for folder, _, names in os.walk(self.results):
            for name in names:
                is_temporary = name.startswith(".") and name.endswith(".tmp")
                is_first = folder.endswith(("/maps", "/curves")) and not is_temporary
                if is_temporary if kind == "writing" else is_first:
                    path = os.path.join(folder, name)  # noqa: PTH118 - this has to be quick
                    try:
                        yield f"{path} {os.stat(path).st_ino}"  # noqa: PTH116
                    except FileNotFoundError:  # renamed into its place meanwhile
                        continue

    def _listens(self) -> bool:
        """Whether it handles SIGTERM."""
        try:
            status = Path(f"/proc/{self.process.pid}/status").read_text()
        except OSError:
            return False
        caught = next((line.split()[1] for line in status.splitlines() if line.startswith("SigCgt:")), "0")
        return bool(int(caught, 16) >> (signal.SIGTERM - 1) & 1)

    def _open_images(self) -> Iterator[str]:
        """Name of each image that it has open."""
        try:
            links = list(Path(f"/proc/{self.process.pid}/fd").iterdir())
        except OSError:  # it has ended
            return
        for link in links:
            try:
                path = link.readlink()
            except OSError:  # closed meanwhile
                continue
            if path.is_relative_to(self.images):
                yield path.name
