"""Ctrl-C and SIGTERM: a command ends within seconds, keeps what is finished, and says how to go on.

The first signal raises KeyboardInterrupt in the main thread, so that what is open is closed and records.csv is made of
the chunks that are there. The main thread may not come to that: Python handles signals between steps of its own, and
a pass through a large network, or a file system that hangs, is one step; or a library's `except:` may swallow it. So a
thread that the signal wakes up as well ends the process after `GRACE`, as SIGKILL would: no file is ever half written,
and nothing that was finished is lost. A second Ctrl-C does so at once.
"""

from __future__ import annotations

import atexit
import os
import select
import signal
import sys
import threading
import time
from types import FrameType
from typing import NoReturn

GRACE = 3.0
"""Seconds from the signal to the end of the process at the latest."""

SIGNALS = {signal.SIGINT: "interrupted", signal.SIGTERM: "told to end (SIGTERM)"}


class Interruption:
    """What the two signals mean from here to the end of the process; one that was ignored, as under `nohup`, stays so.

    Attributes:
        signum: The signal that came first, or None.
        ending: Whether the process is about to end by itself: then a signal matters only if it does not.
    """

    def __init__(self, command: str) -> None:
        """Watch for them, in the main thread; `command` is what goes on where this one stops."""
        self.command = command
        self.signum: int | None = None
        self.ending = False
        self._told = False
        self._reading, writing = os.pipe()
        os.set_blocking(writing, False)
        for signum in SIGNALS:
            if signal.getsignal(signum) != signal.SIG_IGN:
                signal.signal(signum, self._handle)
                # When its threads have ended, Python puts the default back, which would end as killed what is done.
                atexit.register(signal.signal, signum, signal.SIG_IGN)
        signal.set_wakeup_fd(writing, warn_on_full_buffer=False)
        threading.Thread(target=self._watch, name="interruption", daemon=True).start()

    def end(self) -> NoReturn:
        """End the process from the main thread, which is done with all else: threads that decode are not waited for."""
        try:
            sys.stdout.flush()
        finally:
            self._end()

    def _end(self) -> NoReturn:
        """Say once how to go on; the exit code is that with which a shell reports a process that a signal ended."""
        signum = signal.Signals(self.signum or signal.SIGINT)
        try:
            if not self._told:
                self._told = True
                line = f"igos-bench: {SIGNALS[signum]}: what is finished is kept; to go on: {self.command}"
                print(line, file=sys.stderr, flush=True)
        finally:
            os._exit(128 + signum)

    def _handle(self, signum: int, _frame: FrameType | None) -> None:
        if self.signum is None and not self.ending:
            self.signum = signum
            raise KeyboardInterrupt

    def _watch(self) -> None:
        """Wait for a signal's number on the pipe, and then for a second Ctrl-C or for the time to run out."""
        while (signum := os.read(self._reading, 1)[0]) not in SIGNALS:
            pass
        latest = time.monotonic() + GRACE
        while (left := latest - time.monotonic()) > 0 and select.select([self._reading], [], [], left)[0]:
            if os.read(self._reading, 1)[0] == signal.SIGINT:
                break
        self.signum = signum
        self._end()
