"""Several processes on one run directory: each chunk is computed once, and whoever comes late changes nothing.

The processes are real ones, stopped and killed by signals. Those of `Process` come from a server that has imported
torch once; what is put around functions of theirs counts, waits or stops, and then calls them.
"""

from __future__ import annotations

import csv
import io
import json
import multiprocessing
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from multiprocessing.context import ForkServerProcess
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from noise import write_noise
from unmeasured import UNMEASURED

from igos_bench import chunk
from igos_bench.errors import UserError
from igos_bench.formats import read_csv
from igos_bench.lease import Lease, LeaseLostError, Leases
from igos_bench.overrides import compose_config
from igos_bench.prepare import prepare
from igos_bench.results import RunDirectory
from igos_bench.runner import execute

IMAGES = 12
CONTEXT = multiprocessing.get_context("forkserver")
CONTEXT.set_forkserver_preload(["igos_bench.runner", "igos_bench.overrides", "timm"])


@pytest.fixture
def words(tmp_path: Path) -> list[str]:
    write_noise(tmp_path / "images", [f"{i:02d}.png" for i in range(IMAGES)])
    return [
        "model=timm", "model.architecture=mobilenetv3_small_050", "model.weights=null", "data=folder",
        f"data.root={tmp_path / 'images'}", f"results_dir={tmp_path / 'out'}", "method=integrated_gradients",
        "method.steps=2", "resolution=224", "protocol.n_steps=2", "chunk_size=1", "device=cpu",
    ]  # fmt: skip


class Process:
    """A process that runs what the words ask for, from the moment on at which the file `go` is there."""

    def __init__(self, folder: Path, words: list[str], **how: Any) -> None:
        self.process: ForkServerProcess = CONTEXT.Process(target=_work, args=(folder, words), kwargs=how, daemon=True)
        self.process.start()

    def signal(self, number: signal.Signals) -> None:
        assert self.process.pid
        os.kill(self.process.pid, number)

    def end(self) -> None:
        self.process.join(60)
        assert self.process.exitcode == 0


@pytest.fixture
def begin(tmp_path: Path, words: list[str]) -> Iterator[Callable[..., Process]]:
    """Makes processes on the run of the words, and ends them in any case."""
    begun: list[Process] = []

    def one(*more: str, **how: Any) -> Process:
        begun.append(Process(tmp_path, [*words, *more], **how))
        return begun[-1]

    yield one
    for process in begun:
        if process.process.is_alive():
            process.process.kill()


def _work(folder: Path, words: list[str], *, stop_before: str = "", hold: bool = False) -> None:
    """Run, and log each image on which work begins; on the way stop once, or wait for a file, where told to."""
    score, replace = chunk.explain_and_score, Path.replace

    def logged(run: Any, evaluate: Any, good: Any, *more: Any) -> Any:
        with (folder / "log").open("a") as log:
            log.write("".join(f"{os.getpid()} {source.image_id}\n" for source, _ in good))
        if hold:
            wait_until((folder / "release").exists)
        time.sleep(0.05)  # so that the others come in between
        return score(run, evaluate, good, *more)

    def stopping(self: Path, target: Path) -> Path:
        if target.parent.name == stop_before and not (folder / f"stopped {stop_before}").exists():
            (folder / f"stopped {stop_before}").touch()
            signal.pthread_kill(threading.get_ident(), signal.SIGSTOP)  # this thread stops before it goes on
        return replace(self, target)

    chunk.explain_and_score = logged  # type: ignore[attr-defined]
    Path.replace = stopping  # type: ignore[method-assign, assignment]
    run = prepare(compose_config(words))
    wait_until((folder / "go").exists)
    with (folder / f"told {os.getpid()}").open("a", buffering=1) as told:
        execute(run, lambda _count, _rows: None, tell=lambda line: print(line, file=told))


def wait_until(happened: Callable[[], object]) -> None:
    deadline = time.monotonic() + 60
    while not happened():
        assert time.monotonic() < deadline, "nothing happened in a minute"
        time.sleep(0.01)


def worked_on(folder: Path) -> list[list[str]]:
    """Process and image of each piece of work that was begun."""
    return [line.split() for line in (folder / "log").read_text().splitlines()]


def the_run(results: Path) -> Path:
    (path,) = results.glob("runs/*/*/*/*/*/run.json")
    return path.parent


def files(run: Path) -> dict[str, bytes]:
    """Maps and curves as they are; rows without their times."""
    found = {str(path.relative_to(run)): path.read_bytes() for path in run.rglob("*.npz")}
    for path in run.rglob("records*/**/*.csv"):
        found[str(path.relative_to(run))] = without_times(path.read_bytes())
    for path in run.rglob("records.csv"):
        found[str(path.relative_to(run))] = without_times(path.read_bytes())
    return found


def without_times(content: bytes) -> bytes:
    rows = [list(row.items()) for row in csv.DictReader(io.StringIO(content.decode(), newline=""))]
    return repr([[pair for pair in row if not pair[0].endswith("_seconds")] for row in rows]).encode()


def alone(words: list[str], tmp_path: Path, chunk_size: int = 1) -> dict[str, bytes]:
    """What a single process leaves."""
    single = [*words, f"results_dir={tmp_path / 'single'}", f"chunk_size={chunk_size}"]
    execute(prepare(compose_config(single)), lambda _count, _rows: None)
    return files(the_run(tmp_path / "single"))


def finish_here(words: list[str]) -> list[str]:
    """Run to the end in this process; return what it told."""
    told: list[str] = []
    outcome = execute(prepare(compose_config(words)), lambda _count, _rows: None, tell=told.append)
    assert [row["status"] for row in outcome.rows] == ["ok"] * IMAGES
    return told


def test_each_chunk_is_computed_once(words: list[str], tmp_path: Path, begin: Callable[..., Process]) -> None:
    """Started at the same moment with sizes of their own: the first to come fixes the size for all."""
    processes = [begin(f"chunk_size={size}") for size in (1, 2, 1)]
    (tmp_path / "go").touch()
    for process in processes:
        process.end()
    begun = worked_on(tmp_path)
    assert sorted(image for _, image in begun) == [f"{i:02d}.png" for i in range(IMAGES)]
    assert len({process for process, _ in begun}) > 1, "one did everything"
    run = the_run(tmp_path / "out")
    described = json.loads((run / "run.json").read_text())
    assert (described["requested"], described["done"]) == (IMAGES, IMAGES)
    found = files(run)
    assert found == alone(words, tmp_path, described["chunk_size"]), "not the bytes of a single process"
    assert len(found) == 3 * IMAGES // described["chunk_size"] + 1
    assert len((run / "timing.csv").read_text().splitlines()) == 1 + IMAGES // described["chunk_size"]
    assert not any((run / "leases").iterdir())


def test_whoever_stood_still_changes_nothing(words: list[str], tmp_path: Path, begin: Callable[..., Process]) -> None:
    """Stopped just before each of a chunk's files is renamed into place, where any check would have been before."""
    moments = ("maps", "curves", "records")
    stopped = [begin("lease_seconds=1", stop_before=moment) for moment in moments]
    (tmp_path / "go").touch()
    wait_until(lambda: all((tmp_path / f"stopped {moment}").exists() for moment in moments))
    run = the_run(tmp_path / "out")
    theirs = sorted(path.parent.parent.name for path in run.glob("leases/0*/*/owner.json"))
    assert len(theirs) == 6, "each holds the chunk that it works on, and its next one"
    told = finish_here(words)
    assert sum("is taken over from" in line and "without a sign of life for 1 s" in line for line in told) == 6
    assert any("waiting for 6 chunks" in line for line in told)
    before = {path: (path.stat().st_ino, path.read_bytes()) for path in run.rglob("0*.*")}

    for process in stopped:
        process.signal(signal.SIGCONT)
    for process in stopped:
        process.end()
    assert {path: (path.stat().st_ino, path.read_bytes()) for path in run.rglob("0*.*")} == before
    dropped = [line for path in tmp_path.glob("told *") for line in path.read_text().splitlines() if "dropped" in line]
    assert len(dropped) == 6
    assert len(worked_on(tmp_path)) == 3, "work was begun under a lease that was lost"
    assert files(run) == alone(words, tmp_path)


def test_the_chunk_of_a_killed_process(words: list[str], tmp_path: Path, begin: Callable[..., Process]) -> None:
    """On the same machine it is free at once, on another one when it has been stale for as long as its owner said."""
    process = begin("lease_seconds=1", stop_before="curves")
    (tmp_path / "go").touch()
    wait_until((tmp_path / "stopped curves").exists)
    folder = the_run(tmp_path / "out") / "leases"
    with Leases(folder, 300) as leases:
        assert leases.claim("000000") is None
        process.signal(signal.SIGKILL)
        process.process.join(60)
        assert not process.process.is_alive()
        (owner,) = folder.glob("000000/*/owner.json")
        owner.write_text(json.dumps(json.loads(owner.read_text()) | {"host": "node7", "machine": "another"}))
        begun = time.monotonic()
        while (lease := leases.claim("000000")) is None:
            time.sleep(0.02)
        assert 0.9 < time.monotonic() - begun < 10
        assert lease.taken_over.startswith("node7 (process ")
        other = leases.claim("000001")
        assert other and "which has ended" in other.taken_over
    finish_here(words)
    assert files(the_run(tmp_path / "out")) == alone(words, tmp_path)


def test_live_work_is_waited_for_and_ctrl_c_leaves(
    words: list[str], tmp_path: Path, begin: Callable[..., Process]
) -> None:
    slow = begin("lease_seconds=1", hold=True)
    (tmp_path / "go").touch()
    wait_until((tmp_path / "log").exists)
    waiting = subprocess.Popen(
        [sys.executable, "-m", "igos_bench", *words], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
        env=UNMEASURED,
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),  # a shell ignores it in the background
    )  # fmt: skip
    assert waiting.stderr
    line = waiting.stderr.readline()
    assert "igos-bench: waiting for 2 chunks that are being computed by " in line
    assert f"(process {slow.process.pid})" in line
    time.sleep(2)  # twice what makes a lease stale that nobody keeps alive
    assert waiting.poll() is None
    waiting.send_signal(signal.SIGINT)
    output, errors = waiting.communicate(timeout=30)
    assert waiting.returncode == 130 and f"{IMAGES - 2}/{IMAGES} images" in output
    assert "taken over" not in errors
    run = the_run(tmp_path / "out")
    (records,) = run.glob("*/records.csv")
    assert len(read_csv(records) or []) == IMAGES - 2
    assert len(list(run.glob("leases/0*/*/owner.json"))) == 2
    (tmp_path / "release").touch()
    slow.end()
    assert len(read_csv(records) or []) == IMAGES
    assert len(worked_on(tmp_path)) == 2


def test_an_image_that_failed_is_tried_once_by_both(words: list[str], tmp_path: Path) -> None:
    """As by one: what another process has just tried in vain is not tried again, but at the next start."""
    (tmp_path / "images" / "03.png").write_bytes(b"no image")
    one, other = (prepare(compose_config(words)) for _ in range(2))
    seen: list[int] = []

    def report(count: int, _rows: Any) -> None:
        seen.append(count)
        if len(seen) == 1:  # `other` has looked, and done nothing yet
            execute(one, lambda _count, _rows: None)

    rows = execute(other, report).rows
    assert [row["status"] for row in rows].count("failed") == 1
    assert len(rows) == IMAGES
    timing = read_timing(the_run(tmp_path / "out"))
    assert sorted(timing) == sorted(set(timing)), "a chunk was tried twice"


def read_timing(run: Path) -> list[str]:
    return [line["chunk"] for line in csv.DictReader(io.StringIO((run / "timing.csv").read_text()))]


# The lease itself


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Iterator[list[float]]:
    """What `time.monotonic` says, in a list of one."""
    now = [1000.0]
    monkeypatch.setattr(time, "monotonic", lambda: now[0])
    yield now


def test_one_of_many_gets_it(tmp_path: Path, clock: list[float]) -> None:
    """Free, or stale: of 8 that claim at the same moment, 30 times, each time one."""
    everybody = [Leases(tmp_path, 100) for _ in range(8)]
    gate = threading.Barrier(len(everybody))
    won: dict[str, list[Lease]] = {}

    def claim(leases: Leases, name: str) -> None:
        gate.wait()
        if lease := leases.claim(name):
            won.setdefault(name, []).append(lease)

    def all_claim(name: str) -> None:
        threads = [threading.Thread(target=claim, args=(leases, name)) for leases in everybody]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()

    for i in range(30):
        all_claim(f"free {i}")
    assert all(len(won[f"free {i}"]) == 1 for i in range(30))
    for _ in range(2):  # nobody keeps them alive
        for leases in everybody:
            for i in range(30):
                assert not leases.claim(f"free {i}")
        clock[0] += 50
    stale = dict(won)
    won.clear()
    for i in range(30):
        all_claim(f"free {i}")
    for i in range(30):
        ((before,), (now,)) = stale[f"free {i}"], won[f"free {i}"]
        assert now.folder.exists() and not before.folder.exists()


def test_only_a_change_is_a_sign_of_life(tmp_path: Path, clock: list[float]) -> None:
    """No clock is believed: neither an old time nor one in the future says anything. The owner's seconds count."""
    owner, reader = Leases(tmp_path, 100), Leases(tmp_path, 10)
    lease = owner.claim("000000")
    assert lease
    for moment in (0.0, time.time() + 1e6, time.time() - 1e6, time.time()):
        os.utime(lease.folder / "owner.json", (moment, moment))
        for _ in range(4):
            assert reader.claim("000000") is None
            clock[0] += 33
    assert reader.claim("000000")


def test_a_suspended_reader_lets_the_owner_wake_up(tmp_path: Path, clock: list[float]) -> None:
    """A machine that slept for an hour: the reader's clock has gone on, and the owner has not had its turn yet."""
    owner, reader = Leases(tmp_path, 100), Leases(tmp_path, 100)
    assert owner.claim("000000")
    for later in (0, 3600, 1):
        clock[0] += later
        assert reader.claim("000000") is None
    clock[0] += 60
    assert reader.claim("000000")


def test_nothing_is_written_or_removed_under_a_lost_lease(tmp_path: Path) -> None:
    directory = RunDirectory(tmp_path / "run", "paper-0")
    row = {"image_id": "a", "status": "ok"}
    maps = {"image_id": np.array(["a"]), "saliency_map": np.zeros((1, 1, 2, 2), np.float32)}
    early, late = Leases(tmp_path / "leases", 1), Leases(tmp_path / "leases", 1)
    lost = early.claim("000000")
    assert lost
    directory.write_maps(0, maps, lost)
    directory.commit(0, {"deletion": np.zeros((1, 3))}, [row], lost)
    early.release(lost)
    assert late.claim("000000")
    before = {path: path.read_bytes() for path in directory.path.rglob("0*.*")}
    other = {**maps, "saliency_map": maps["saliency_map"] + 1}
    for write in (
        lambda: directory.write_maps(0, other, lost),
        lambda: directory.write_maps(1, other, lost),
        lambda: directory.commit(0, {"deletion": np.ones((1, 3))}, [row], lost),
        lambda: directory.log_timing(0, {}, lost),
        lambda: directory.write_provenance({}, lost),
        lambda: directory.write_listing("a\n", lost),
    ):
        with pytest.raises(LeaseLostError, match="000000"):
            write()
    assert {path: path.read_bytes() for path in directory.path.rglob("0*.*")} == before
    assert not list(tmp_path.rglob(".*.tmp"))


def test_no_rows_arrive_whose_lease_is_lost_after_their_curves(tmp_path: Path) -> None:
    directory = RunDirectory(tmp_path / "run", "paper-0")
    early, late = Leases(tmp_path / "leases", 1), Leases(tmp_path / "leases", 1)
    lost = early.claim("000000")
    assert lost

    def rows() -> Iterator[dict[str, str]]:  # are asked for when the curves are in their place
        assert directory.curves.listed()[0] == {0}
        early.release(lost)
        assert late.claim("000000")
        yield {"image_id": "a", "status": "ok"}

    with pytest.raises(LeaseLostError):
        directory.commit(0, {}, rows(), lost)  # type: ignore[arg-type]
    assert not list(directory.protocol_path.rglob("*.csv"))


def test_rows_that_change_are_withdrawn_through_the_lease(tmp_path: Path) -> None:
    directory = RunDirectory(tmp_path / "run", "paper-0")
    maps = {"image_id": np.array(["a"]), "saliency_map": np.zeros((1, 1, 2, 2), np.float32)}
    directory.write_maps(0, maps)
    directory.commit(0, {}, [{"image_id": "a", "status": "ok"}])
    with Leases(tmp_path / "leases", 1) as leases:
        lease = leases.claim("000000")
        assert lease
        before = directory.stamp(0)
        directory.write_maps(0, {**maps, "saliency_map": maps["saliency_map"] + 1}, lease)
        assert directory.stamp(0) != before and directory.read_rows(0) == []
        for _ in range(2):  # the second time it is gone already
            lease.withdraw(directory.protocol_path / "records" / "000000.csv")
            assert directory.stamp(0) is None
    assert not list((tmp_path / "leases").iterdir())


def test_who_holds_what_takes_a_moment_is_named_where_it_takes_longer(tmp_path: Path) -> None:
    owner, reader, told = Leases(tmp_path, 10), Leases(tmp_path, 10), []
    held = owner.claim("run")
    assert held
    timer = threading.Timer(1.5, owner.release, [held])
    timer.start()
    with reader.wait_for("run", told.append) as lease:
        assert lease.folder.exists() and not held.folder.exists()
    assert len(told) == 1 and f"(process {os.getpid()})" in told[0]
    timer.join()


def test_what_a_power_cut_left_of_an_owner_goes_stale(tmp_path: Path) -> None:
    (tmp_path / "000000" / "token").mkdir(parents=True)
    (tmp_path / "000000" / "token" / "owner.json").touch()
    (tmp_path / "000001" / "token").mkdir(parents=True)
    (tmp_path / "000002").mkdir()
    leases = Leases(tmp_path, 1)
    assert leases.claim("000002"), "nobody's"
    for name in ("000000", "000001"):
        assert leases.claim(name) is None
        wait_until(lambda name=name: leases.claim(name))  # type: ignore[misc]


def test_records_of_two_that_end_at_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """One has read the rows and is about to put them into place, when the other commits, does the same, and ends."""
    directory = RunDirectory(tmp_path, "paper-0")
    directory.commit(0, {}, [{"image_id": "a", "status": "ok"}])
    replace, ended = Path.replace, []

    def late(self: Path, target: Path) -> Path:
        if target.name == "records.csv" and not ended:
            ended.append(True)
            directory.commit(1, {}, [{"image_id": "b", "status": "ok"}])
            directory.merge()
        return replace(self, target)

    monkeypatch.setattr(Path, "replace", late)
    assert [row["image_id"] for row in read_csv(directory.merge()) or []] == ["a", "b"]


def test_lease_seconds_have_a_range(words: list[str]) -> None:
    with pytest.raises(UserError, match=r"lease_seconds must be from 1 to 86400, found 0.5"):
        prepare(compose_config([*words, "lease_seconds=0.5"]))
