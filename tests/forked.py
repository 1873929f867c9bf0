"""The command line in processes that are forked from one that has imported torch and all else that it needs.

`python -m igos_bench` spends three seconds of its CPU on imports, and the tests start it a hundred times. So each of
pytest's workers has one server, a process that imports and computes nothing (what has computed has threads, which do
not outlive a fork) and forks a child for each command. From there on a child is such a process: arguments, environment,
working folder, output and exit code are its own. It runs `__main__` and ends as Python does, but for taking all modules
apart, which is half a second.

A real process is what tests need that send signals while it starts, say what it imports, or measure it; and all of them
where coverage is measured, so that the true start is tested there. A server whose environment is not the one that is
asked for, which a library may have read when it was imported, makes way for another.
"""

from __future__ import annotations

import atexit
import gc
import io
import json
import os
import runpy
import select
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Mapping, Sequence
from contextlib import suppress
from importlib import import_module
from pathlib import Path
from typing import Any

ROOT = str(Path(__file__).parent.parent)
IMPORTED = (
    *("hydra", "pandas", "scipy.stats", "timm", "torch", "torchvision"),
    *(f"igos_bench.{name}" for name in ("check_data", "cli", "compare", "console", "launch", "plan", "prepare")),
    *(f"igos_bench.{name}" for name in ("runner", "show", "status", "table", "torchrun")),
)
LATE = ("PYTHONPATH", "PYTEST_CURRENT_TEST", "HYDRA_FULL_ERROR", "CUBLAS_WORKSPACE_CONFIG")
"""Of the environment: what no import looks at, or is done anew in a child."""


class Server:
    """A server with an environment, and this end of the socket to it."""

    def __init__(self, environment: Mapping[str, str]) -> None:
        self.environment = environment
        self.connection, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        with theirs:
            self.process = subprocess.Popen(
                [sys.executable, __file__, str(theirs.fileno())], env={**environment, "PYTHONPATH": ROOT},
                stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, pass_fds=[theirs.fileno()], start_new_session=True,
            )  # fmt: skip

    def end(self) -> None:
        """It ends by itself where pytest does."""
        self.connection.close()
        self.process.wait()

    def run(self, command: list[str], request: dict[str, Any], timeout: float) -> subprocess.CompletedProcess[str]:
        """Fork a child, wait for its end, and return what `subprocess.run` would."""
        latest = time.monotonic() + timeout
        (stdout, write_stdout), (stderr, write_stderr) = os.pipe(), os.pipe()
        child, code = 0, self.connection.fileno()
        said = {stdout: b"", stderr: b"", code: b""}
        try:
            try:
                socket.send_fds(self.connection, [json.dumps(request).encode()], [write_stdout, write_stderr])
            finally:
                os.close(write_stdout)
                os.close(write_stderr)
            child = int(self.connection.recv(100) or b"0")
            if not child:
                raise ChildProcessError("the server that forks commands has ended: its stderr is this test's")
            waited_for = set(said)
            while waited_for:
                ready, _, _ = select.select(waited_for, [], [], max(0, latest - time.monotonic()))
                if not ready:
                    raise subprocess.TimeoutExpired(command, timeout, said[stdout] or None, said[stderr] or None)
                for source in ready:
                    part = os.read(source, 2**16)
                    said[source] += part
                    if not part or source == code:
                        waited_for.remove(source)
        finally:
            if not said[code] and child:
                with suppress(ProcessLookupError):
                    os.killpg(child, signal.SIGKILL)
                self.connection.recv(100)
            elif not said[code]:  # what it would answer is not for the next command
                self.process.kill()
                self.process.wait()
            os.close(stdout)
            os.close(stderr)
        return subprocess.CompletedProcess(command, int(said[code]), _text(said[stdout]), _text(said[stderr]))


def _text(said: bytes) -> str:
    return io.TextIOWrapper(io.BytesIO(said)).read()


_servers: list[Server] = []


def run_igos_bench(
    words: Sequence[str], cwd: Path, environment: Mapping[str, str] | None = None, timeout: float = 240
) -> subprocess.CompletedProcess[str]:
    """As `subprocess.run` of `python -m igos_bench` with these words, its output captured as text."""
    command = [sys.executable, "-m", "igos_bench", *words]
    environment = dict(environment or os.environ | {"PYTHONPATH": ROOT})
    if not hasattr(os, "pidfd_open") or any(name.startswith("COVERAGE_") for name in os.environ):
        return subprocess.run(
            command, cwd=cwd, env=environment, capture_output=True, text=True, timeout=timeout, check=False
        )
    imported = {name: value for name, value in environment.items() if name not in LATE}
    if _servers and (_servers[0].environment != imported or _servers[0].process.poll() is not None):
        _servers.pop().end()
    if not _servers:
        _servers.append(Server(imported))
    request = {"words": list(words), "cwd": str(cwd.absolute()), "environment": environment}
    return _servers[0].run(command, request, timeout)


def serve(connection: socket.socket) -> dict[str, Any]:
    """Fork a child for each request; returns in each child, and nowhere else."""
    while True:
        message, written, _, _ = socket.recv_fds(connection, 2**20, 2)
        if not message:
            sys.exit()
        child = os.fork()
        if not child:
            os.setpgid(0, 0)
            connection.close()
            for number, own in zip((1, 2), written, strict=True):
                os.dup2(own, number)
                os.close(own)
            return dict(json.loads(message))
        with suppress(PermissionError, ProcessLookupError):
            os.setpgid(child, child)  # whoever comes first: it may be killed at once
        for own in written:
            os.close(own)
        connection.send(str(child).encode())
        end = os.pidfd_open(child)
        if end not in select.select([connection, end], [], [])[0]:  # pytest has ended
            os.killpg(child, signal.SIGKILL)
            sys.exit()
        os.close(end)
        connection.send(str(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])).encode())


def main() -> None:
    for name in IMPORTED:
        import_module(name)
    gc.freeze()  # what is there is shared with the children as long as nobody looks through it
    request = serve(socket.socket(fileno=int(sys.argv[1])))
    os.chdir(request["cwd"])
    os.environ.clear()
    os.environ.update(request["environment"])
    first = [request["cwd"], *os.environ["PYTHONPATH"].split(os.pathsep)]
    sys.path[:] = [
        *first,
        *(folder for folder in sys.path[1:] if folder not in first),
    ]  # [0] is the folder of this file
    sys.argv[1:] = request["words"]
    try:
        runpy.run_module("igos_bench", run_name="__main__", alter_sys=True)
    except SystemExit as end:
        if not isinstance(end.code, int):
            raise
        threading._shutdown()  # type: ignore[attr-defined]
        atexit._run_exitfuncs()
        sys.stdout.flush()
        os._exit(end.code)


if __name__ == "__main__":
    main()
