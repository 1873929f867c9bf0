"""Who works on what, where several processes, also on several machines, share one run directory.

    leases/000003/<token>/owner.json      chunk 3 belongs to the process that drew this token
    leases/000003/<token>/.000003.csv...  what it is writing

A lease is a folder, made complete under another name and renamed into its place. No folder is ever renamed onto one
that holds anything, so that of several processes one gets it: on a shared file system too, where locks are not to be
relied upon.

The owner sets the time of `owner.json` again and again, and a process that finds the lease watches whether it changes,
by its own monotonic clock. So no two clocks are ever compared, neither of machines nor of a file server. A lease that
does not change for the seconds that its owner promised is stale, and is taken over; at once where the owner ran on the
same machine and is no more. It is the token's folder that is renamed away: whoever comes second, or late, finds none.

What an owner changes elsewhere it writes inside its folder and renames out of it, or renames from its place into it.
A process that stood still while its lease was taken over has no such folder when it comes back, and the file system
itself refuses: nothing of a late writer can arrive, between two files of a chunk as little as between a check and a
write, so that it does not matter whether its numbers would have been the same to the last digit.
"""

from __future__ import annotations

import contextlib
import errno
import json
import os
import platform
import secrets
import shutil
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from types import TracebackType

from .errors import cannot_write

BEATS = 10
"""Signs of life within the seconds after which a lease is stale."""


GONE = (errno.ENOENT, errno.ESTALE)
"""What the system says of a file that is not there, and of one that another client of NFS has removed."""


class LeaseLostError(Exception):
    """Another process has taken the lease over: what was to be written under it is not."""


@dataclass(frozen=True)
class Lease:
    """What this process holds; `taken_over` says from whom it was taken and why, empty where it was free."""

    name: str
    folder: Path
    taken_over: str = ""

    def check(self) -> None:
        """Raise LeaseLostError where it is lost already, before work is done in vain."""
        if not self.folder.exists():
            raise LeaseLostError(self.name)

    def is_lost(self, error: OSError) -> bool:
        """Whether the error of a call on a file inside `folder` comes of the folder being gone."""
        return error.errno in GONE

    def withdraw(self, path: Path) -> None:
        """Remove a file of the run, which may be gone already; raises LeaseLostError."""
        try:
            path.rename(self.folder / path.name)
        except OSError as error:
            if not self.is_lost(error):
                raise cannot_write(path, error) from error
            self.check()


@dataclass(frozen=True)
class Holder:
    """Who holds a lease: `seconds` without a change of `stamp` make it stale."""

    folder: Path
    stamp: int
    host: str = "another machine"
    process: int = 0
    machine: str | None = None
    seconds: float | None = None

    @property
    def is_dead(self) -> bool:
        """Whether it ran on this machine and does so no more; False where that cannot be known."""
        if self.machine is None or self.machine != this_machine():
            return False
        try:
            os.kill(self.process, 0)
        except ProcessLookupError:
            return True
        except OSError:  # it runs, and belongs to somebody else
            pass
        return False

    def __str__(self) -> str:
        """The host and the number of the process."""
        return f"{self.host} (process {self.process})" if self.process else self.host


@dataclass
class _Watch:
    """How long a lease has been seen without a change."""

    token: str
    stamp: int
    looked: float
    still: float = 0.0


class Leases:
    """The leases of one run directory; as a context, keeps those alive that this process gets, and gives them back."""

    def __init__(self, folder: Path, seconds: float) -> None:
        """`seconds` without a sign of life make the leases of this process stale."""
        self.folder = folder
        self.seconds = seconds
        self._held: list[Lease] = []
        self._watched: dict[str, _Watch] = {}
        self._ended = threading.Event()
        self._thread = threading.Thread(target=self._beat, name="heartbeat", daemon=True)

    def __enter__(self) -> Leases:
        """Begin to give signs of life."""
        self._thread.start()
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        """Give back whatever is held."""
        self._ended.set()
        self._thread.join()
        for lease in list(self._held):
            self.release(lease)

    @property
    def pause(self) -> float:
        """Seconds between two looks at what others hold."""
        return min(2.0, self.seconds / BEATS)

    def claim(self, name: str) -> Lease | None:
        """Take a lease that is free, stale or of a process that is no more; None where another process holds it.

        Raises:
            UserError: The folder cannot be written, or the disk is full.
        """
        place = self.folder / name
        try:
            taken_over = ""
            if holder := self.holder(name):
                taken_over = self._over(name, holder)
                if not taken_over:
                    return None
                self._evict(holder.folder)
            return self._take(place, taken_over)
        except OSError as error:
            raise cannot_write(place, error) from error

    @contextlib.contextmanager
    def wait_for(self, name: str, tell: Callable[[str], None]) -> Iterator[Lease]:
        """Hold a lease within a context, for what takes a moment; says after a second for whom it waits."""
        told, started = False, time.monotonic()
        while (lease := self.claim(name)) is None:
            if not told and time.monotonic() - started > 1 and (holder := self.holder(name)):
                tell(f"waiting for {holder}, which has the lease {self.folder / name}; Ctrl-C leaves")
                told = True
            time.sleep(self.pause / 10)
        try:
            yield lease
        finally:
            self.release(lease)

    def holder(self, name: str) -> Holder | None:
        """Who holds a lease; None where it is free."""
        place = self.folder / name
        try:
            folder = next(place.iterdir(), None)
        except FileNotFoundError:
            return None
        if folder is None:
            return None
        stamp = 0
        try:
            # On NFS a file that is opened is asked of the server; the time of one that is not may be remembered.
            with (folder / "owner.json").open(encoding="utf-8") as file:
                stamp = os.fstat(file.fileno()).st_mtime_ns
                return Holder(folder, stamp, **json.load(file))
        except (ValueError, TypeError):  # a power cut took what was in it
            return Holder(folder, stamp)
        except OSError as error:
            if error.errno not in GONE:
                raise
            return Holder(folder, stamp)  # given back just now

    def release(self, lease: Lease) -> None:
        """Give a lease back; one that was taken over stays with its new owner."""
        self._held.remove(lease)
        with contextlib.suppress(OSError):  # what cannot be removed goes stale
            self._evict(lease.folder)

    def _take(self, place: Path, taken_over: str) -> Lease | None:
        token = secrets.token_hex(8)
        prepared = self.folder / f".{token}"
        lease = Lease(place.name, place / token, taken_over)
        owner = {"host": platform.node(), "process": os.getpid(), "machine": this_machine(), "seconds": self.seconds}
        self._held.append(lease)  # first of all, so that it is given back wherever an interruption comes
        try:
            (prepared / token).mkdir(parents=True)
            (prepared / token / "owner.json").write_text(json.dumps(owner), encoding="utf-8")
            prepared.rename(place)
        except OSError as error:
            self._held.remove(lease)
            if error.errno in (errno.ENOTEMPTY, errno.EEXIST):
                return None
            raise
        finally:
            shutil.rmtree(prepared, ignore_errors=True)
        self._watched.pop(place.name, None)
        return lease

    def _evict(self, folder: Path) -> None:
        """Take away the folder of a token, in one step and then for good; it may be gone already."""
        gone = self.folder / f".{folder.name}"
        with contextlib.suppress(FileNotFoundError):  # whoever comes second has nothing to do
            folder.rename(gone)
            # Before anybody else may own it: a client of NFS could still reach what is in it by what it remembers.
            shutil.rmtree(gone, ignore_errors=True)
            with contextlib.suppress(OSError):  # somebody else's by now
                folder.parent.rmdir()

    def _over(self, name: str, holder: Holder) -> str:
        """From whom, and why, a lease may be taken over; empty where it may not."""
        if holder.is_dead:
            return f"{holder}, which has ended"
        seconds = holder.seconds or self.seconds
        now = time.monotonic()
        watch = self._watched.get(name)
        if watch is None or (watch.token, watch.stamp) != (holder.folder.name, holder.stamp):
            self._watched[name] = _Watch(holder.folder.name, holder.stamp, now)
            return ""
        # One long gap alone is no proof: both processes may have been suspended, and the other has to wake up too.
        watch.still += min(now - watch.looked, seconds / 2)
        watch.looked = now
        return f"{holder}, without a sign of life for {seconds:g} s" if watch.still >= seconds else ""

    def _beat(self) -> None:
        while not self._ended.wait(self.seconds / BEATS):
            for lease in list(self._held):
                with contextlib.suppress(OSError):  # lost, which shows when it is written under
                    os.utime(lease.folder / "owner.json")


@cache
def this_machine() -> str | None:
    """What tells this machine since its last start, and its numbers of processes, from any other; None if unknown."""
    try:
        boot = Path("/proc/sys/kernel/random/boot_id").read_text(encoding="ascii").strip()
        return f"{platform.node()} {boot} {Path('/proc/self/ns/pid').readlink()}"
    except OSError:
        return None
