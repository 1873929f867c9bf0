"""Packing killed, stopped and raced at every moment: nothing is lost, doubled or brought back.

The processes are real ones; an audit hook counts the calls that change the disk, and stops or kills before one of them.
"""

from __future__ import annotations

import io
import itertools
import multiprocessing
import os
import random
import shutil
import signal
import sys
import time
import warnings
from collections import Counter
from collections.abc import Callable
from multiprocessing.process import BaseProcess
from pathlib import Path
from typing import Any
from zipfile import ZipFile

import numpy as np
import pandas as pd
import pytest
from result_folders import leave_run

from igos_bench import packed_rows, packs
from igos_bench.cells import _rows, read_cells
from igos_bench.errors import UserError
from igos_bench.formats import COLUMNS, by_id, read_csv, rows_of
from igos_bench.lease import Lease, Leases
from igos_bench.packing import _kinds, loose_ranges, pack_range, pack_range_if_free
from igos_bench.results import RunDirectory
from igos_bench.status import look
from igos_bench.table import make_table
from igos_bench.tally import Tally, tally

CONTEXT = multiprocessing.get_context("fork")
CHUNKS = 7
EVENTS = ("open", "os.rename", "os.remove", "os.mkdir", "os.rmdir")


@pytest.fixture(autouse=True)
def _short_ranges(monkeypatch: pytest.MonkeyPatch) -> None:
    """Chunks 0 to 2, 3 to 5, and 6 alone."""
    monkeypatch.setattr(packs, "RANGE", 3)


def write_chunk(directory: RunDirectory, chunk: int, value: float = 0.5, **lease: Any) -> None:
    """Two images, of which the second failed in an odd chunk."""
    names = np.array([f"{chunk}a"] if chunk % 2 else [f"{chunk}a", f"{chunk}b"])
    points = np.full((len(names), 3), value, np.float32)
    directory.write_maps(
        chunk, {"image_id": names, "saliency_map": np.full((len(names), 1, 2, 2), value, np.float32)}, **lease
    )
    rows: list[dict[str, Any]] = [
        {"image_id": name, "status": "ok", "deletion_auc": value, "explain_seconds": 1.0, "score_seconds": 0.5}
        for name in names
    ]
    if chunk % 2:
        rows.append({"image_id": f"{chunk}b", "status": "failed", "error": "no, \n'image'"})
    directory.commit(
        chunk, {"image_id": names, "hits": np.arange(3), "deletion": points, "insertion": points}, rows, **lease
    )
    directory.log_timing(chunk, {"chunk": chunk, "images": 2, "notes": "=a"}, **lease)


@pytest.fixture
def directory(tmp_path: Path) -> RunDirectory:
    directory = RunDirectory(tmp_path / "run", "paper-0123")
    for chunk in range(CHUNKS):
        write_chunk(directory, chunk)
    return directory


def contents(directory: RunDirectory) -> dict[str, dict[int, bytes | None]]:
    """What each chunk has, wherever it lies, and what it comes to."""
    kinds = {"maps": directory.maps, "curves": directory.curves, "rows": directory.records, "timing": directory.timing}
    found = {name: {chunk: files.read(chunk) for chunk in files.chunks()} for name, files in kinds.items()}
    found["scan"] = {chunk: repr((stamp, rows_as_objects(rows))).encode() for chunk, stamp, rows in directory.scan()}
    found["tally"] = {0: repr(tally(directory.protocol_path)).encode()}
    found["merged"] = {0: directory.merge().read_bytes(), 1: (directory.path / "timing.csv").read_bytes()}
    return found


def rows_as_objects(rows: Any) -> Any:
    return rows_of(rows) if isinstance(rows, bytes) else rows


def pack(directory: RunDirectory, *firsts: int, seconds: float = 30) -> None:
    with Leases(directory.path / "leases", seconds) as leases:
        for first in firsts or loose_ranges(directory):
            pack_range(directory, leases, first, print)


def copied(directory: RunDirectory, name: str) -> RunDirectory:
    """With the inodes of the original, so to say: stamps in archives are as they were written."""
    path = directory.path.parent / name
    shutil.copytree(directory.path, path)
    return RunDirectory(path, directory.protocol_path.name)


def without_stamps(found: dict[str, dict[int, bytes | None]]) -> dict[str, dict[int, bytes | None]]:
    return {name: chunks for name, chunks in found.items() if name != "scan"}


def packing_process(directory: RunDirectory, number: signal.Signals, calls: int, seconds: float = 30) -> BaseProcess:
    """A process that packs the first range, and gets the signal before one of its calls that change the disk."""

    def work() -> None:
        left = calls

        def hook(event: str, arguments: tuple[Any, ...]) -> None:
            nonlocal left
            is_read = event == "open" and not (arguments[2] or 0) & (os.O_WRONLY | os.O_RDWR)
            if event in EVENTS and not is_read and str(directory.path) in str(arguments[0]):
                left -= 1
                if left == -1:
                    os.kill(os.getpid(), number)

        sys.addaudithook(hook)
        pack(directory, 0, seconds=seconds)

    process = CONTEXT.Process(target=work, daemon=True)
    process.start()
    return process


def test_packed_is_what_loose_was(directory: RunDirectory) -> None:
    before = contents(directory)
    assert loose_ranges(directory) == [0, 3, 6]
    assert not [chunk for chunk, _, rows in directory.scan() if isinstance(rows, bytes)]
    pack(directory)
    assert loose_ranges(directory) == [] and contents(directory) == before
    assert [chunk for chunk, _, rows in directory.scan() if isinstance(rows, bytes)] == [0, 2, 4, 6], "all of them ok"
    assert tally(directory.protocol_path) == Tally(11, Counter({"no, \n'image'": 3}), 11 * 1.5)
    left = {str(path.relative_to(directory.path)) for path in directory.path.rglob("*") if path.is_file()}
    ranges = ("000000-000002", "000003-000005", "000006-000008")
    kinds = ("maps", "timing", "paper-0123/curves", "paper-0123/records")
    expected = {f"{kind}/{name}.zip" for kind in kinds for name in ranges}
    assert left == expected | {"timing.csv", "paper-0123/records.csv"}
    assert not list((directory.path / "leases").iterdir())


@pytest.mark.parametrize("firsts", [(), (0,), (0, 3, 6)])
def test_a_scan_of_some_chunks_opens_nothing_else(directory: RunDirectory, firsts: tuple[int, ...]) -> None:
    for first in firsts:
        pack(directory, first)
    whole = {chunk: (stamp, rows_as_objects(rows)) for chunk, stamp, rows in directory.scan()}
    for wanted in ([0, 2], [1, 4], [6], []):
        found = {chunk: (stamp, rows_as_objects(rows)) for chunk, stamp, rows in directory.scan(wanted)}
        assert found == {chunk: whole[chunk] for chunk in wanted}
    wanted = [0, 2]
    for files in (directory.records, directory.maps, directory.curves):
        for path in files.folder.iterdir():
            if path not in {files.place(chunk) for chunk in wanted}:
                path.write_bytes(b"damaged")
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert [chunk for chunk, _, _ in directory.scan(wanted)] == wanted


@pytest.mark.parametrize("packed", [(), (0, 3)])
def test_ranges_that_have_nothing_of_what_is_wanted_are_not_looked_into(
    directory: RunDirectory, packed: tuple[int, ...]
) -> None:
    for first in packed:
        pack(directory, first)
    for wanted, firsts in (([1, 7], [0]), ([10], []), ([], [])):
        assert [first for first, _ in directory.records.files(iter(wanted))] == firsts


def test_packed_twice_is_packed_once(directory: RunDirectory) -> None:
    """Whatever came first: one chunk, a range that grew, or all."""
    at_once = copied(directory, "at once")
    pack(at_once)
    for chunk in range(1, CHUNKS):
        shutil.rmtree(directory.path)
        for one in range(CHUNKS):
            write_chunk(directory, (one + chunk) % CHUNKS)
            if one % 2:
                pack(directory)
        pack(directory)
        for path in at_once.path.rglob("*.zip"):
            if path.parent.name in ("maps", "curves"):
                assert (directory.path / path.relative_to(at_once.path)).read_bytes() == path.read_bytes()


@pytest.mark.parametrize("state", ["loose", "packed before"])
def test_killed_before_every_call(directory: RunDirectory, state: str) -> None:
    if state == "packed before":
        pack(directory)
        write_chunk(directory, 1, 0.75)
    expected = without_stamps(contents(directory))
    whole = copied(directory, "whole")
    pack(whole)
    for calls in itertools.count():
        killed = copied(directory, f"killed {calls}")
        process = packing_process(killed, signal.SIGKILL, calls)
        process.join(60)
        assert process.exitcode in (0, -signal.SIGKILL)
        assert without_stamps(contents(killed)) == expected, f"killed before call {calls}"
        pack(killed)
        assert without_stamps(contents(killed)) == expected and not loose_ranges(killed)
        assert len(list((killed.path / "leases").glob("[!.]*"))) <= 2, "those of the range and of its last chunk"
        for kind in ("maps", "paper-0123/curves"):
            name = f"{kind}/000000-000002.zip"
            assert (killed.path / name).read_bytes() == (whole.path / name).read_bytes()
        shutil.rmtree(killed.path)
        if process.exitcode == 0:
            break
    assert calls > 30, "it was killed before every call there is"


@pytest.mark.parametrize("then", ["compute", "compute and pack", "withdraw"])
def test_stopped_and_overtaken(directory: RunDirectory, then: str) -> None:
    """What others do while it stands still stays, when it goes on; so does what they have only withdrawn."""
    for calls in itertools.count(2, 1 if then == "withdraw" else 6):
        stopped = copied(directory, f"stopped {calls}")
        process = packing_process(stopped, signal.SIGSTOP, calls, seconds=0.3)
        assert process.pid
        state = os.waitid(os.P_PID, process.pid, os.WSTOPPED | os.WEXITED | os.WNOWAIT)
        if state and state.si_code == os.CLD_EXITED:
            break
        with Leases(stopped.path / "leases", 0.3) as leases, leases.wait_for("000001", print) as lease:
            if then == "withdraw":
                maps = stopped.read_maps(1)
                assert maps
                stopped.write_maps(1, {**maps, "saliency_map": maps["saliency_map"] + 1}, lease)
            else:
                write_chunk(stopped, 1, 0.75, lease=lease)
        expected = without_stamps(contents(stopped))
        if then == "withdraw":
            assert stopped.read_rows(1) == []
        else:
            assert b"0.75" in (expected["rows"][1] or b"")
        if then == "compute and pack":
            pack(stopped, 0, seconds=0.3)
            assert without_stamps(contents(stopped)) == expected
        os.kill(process.pid, signal.SIGCONT)
        process.join(60)
        assert process.exitcode == 0
        assert without_stamps(contents(stopped)) == expected, f"stopped before call {calls}"
        pack(stopped)
        assert without_stamps(contents(stopped)) == expected
        assert loose_ranges(stopped) == ([0] if then == "withdraw" else [])
    assert calls > 30, "it was stopped before every call there is"


def test_two_pack_and_one_reads(directory: RunDirectory) -> None:
    expected = contents(directory)
    processes = [CONTEXT.Process(target=pack, args=(directory, 0, 3, 6), daemon=True) for _ in range(2)]
    for process in processes:
        process.start()
    looked = 0
    while any(process.is_alive() for process in processes) or looked < 3:
        assert contents(directory) == expected
        looked += 1
    assert [process.exitcode for process in processes] == [0, 0] and not loose_ranges(directory)


def pack_or_wait(directory: RunDirectory, leases: Leases, first: int) -> None:
    pack_range(directory, leases, first, print)


both = pytest.mark.parametrize("packing", [pack_or_wait, pack_range_if_free])


@both
def test_a_chunk_that_somebody_works_on_stays_loose(directory: RunDirectory, packing: Callable[..., None]) -> None:
    before = contents(directory)
    with Leases(directory.path / "leases", 30) as leases:
        lease = leases.claim("000001")
        assert lease
        packing(directory, leases, 0)
        assert directory.records.listed()[0] == {1, 3, 4, 5, 6} and contents(directory) == before
        leases.release(lease)
        packing(directory, leases, 0)
        assert directory.records.listed()[0] == {3, 4, 5, 6} and contents(directory) == before
        assert not list((directory.path / "leases").glob("[!.]*")), "all are given back at once, not when leaving"


def test_who_packs_a_range_already_is_named_and_waited_for(
    directory: RunDirectory, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(time, "monotonic", itertools.count().__next__)  # each look takes a second
    told: list[str] = []
    with Leases(directory.path / "leases", 10) as owner, Leases(directory.path / "leases", 10) as leases:
        held = owner.claim("000000-000002")
        assert held

        def tell(line: str) -> None:
            told.append(line)
            owner.release(held)

        pack_range(directory, leases, 0, tell)
    assert len(told) == 1 and f"(process {os.getpid()})" in told[0] and "leases/000000-000002" in told[0]
    assert loose_ranges(directory) == [3, 6]


def test_who_packs_a_range_already_need_not_be_waited_for(
    directory: RunDirectory, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(time, "sleep", lambda _seconds: pytest.fail("it waits"))
    with Leases(directory.path / "leases", 30) as owner, Leases(directory.path / "leases", 30) as leases:
        held = owner.claim("000000-000002")
        assert held
        for first in (0, 3):
            pack_range_if_free(directory, leases, first)
        assert loose_ranges(directory) == [0, 6]
        assert [path.name for path in (directory.path / "leases").glob("[!.]*")] == ["000000-000002"]


def overtake(directory: RunDirectory, name: str, monkeypatch: pytest.MonkeyPatch, others: Leases) -> list[Lease | None]:
    """Take a lease over when its owner, who packs the first range, looks at the last chunk; returns what was taken."""
    read_rows, taken = directory.read_rows, []

    def overtaken(chunk: int) -> Any:
        if chunk == 2:
            shutil.rmtree(directory.path / "leases" / name)
            taken.append(others.claim(name))
        return read_rows(chunk)

    monkeypatch.setattr(directory, "read_rows", overtaken)
    return taken


@both
def test_a_range_that_was_taken_over_is_left_to_its_new_owner(
    directory: RunDirectory, monkeypatch: pytest.MonkeyPatch, packing: Callable[..., None]
) -> None:
    before = contents(directory)
    with Leases(directory.path / "leases", 30) as others, Leases(directory.path / "leases", 30) as leases:
        taken = overtake(directory, "000000-000002", monkeypatch, others)
        packing(directory, leases, 0)
        assert taken[0]
        assert [path.name for path in (directory.path / "leases").iterdir()] == ["000000-000002"], "no chunk's is kept"
    assert contents(directory) == before and not list(directory.path.rglob("*.zip"))


def test_a_chunk_that_was_taken_over_keeps_its_loose_files(
    directory: RunDirectory, monkeypatch: pytest.MonkeyPatch
) -> None:
    before = contents(directory)
    with Leases(directory.path / "leases", 30) as others:
        taken = overtake(directory, "000001", monkeypatch, others)
        pack(directory, 0)
        assert taken[0] and [path.name for path in (directory.path / "leases").iterdir()] == ["000001"]
    for files in _kinds(directory):
        assert files.listed() == ({1, 3, 4, 5, 6}, {0}) and list(files.packed(0)) == [0, 1, 2]
    assert contents(directory) == before


@both
def test_an_archive_that_cannot_be_read_now_is_not_replaced(
    directory: RunDirectory, packing: Callable[..., None]
) -> None:
    directory.maps.archive(0).mkdir()
    with Leases(directory.path / "leases", 30) as leases:
        with pytest.raises(UserError, match="cannot write .*maps/000000-000002.zip: Is a directory"):
            packing(directory, leases, 0)
        assert not list((directory.path / "leases").glob("[!.]*")), "all are given back at once, not when leaving"
    assert all(files.listed()[0] == set(range(CHUNKS)) for files in _kinds(directory))


def test_what_is_packed_while_it_is_read_is_read(directory: RunDirectory) -> None:
    before = [(first, [(chunk, file[:2]) for chunk, file in found]) for first, found in directory.records.files()]
    files, summaries = directory.records.files(), directory.records.summaries()
    ranges, said = [next(files)], [next(summaries)]
    pack(directory)
    ranges.extend(files)
    said.extend(summaries)
    assert [(first, [(chunk, file[:2]) for chunk, file in found]) for first, found in ranges] == before
    assert [summary["done"] for summary in said] == [2, 1, 2, 1, 2, 1, 2]


def test_a_file_of_rows_that_cannot_be_read_costs_its_chunk(directory: RunDirectory) -> None:
    directory.records.loose(4).unlink()
    directory.records.loose(4).mkdir()
    with pytest.warns(UserWarning, match=r"records/000004.csv is missing or damaged: chunk 4 is computed again"):
        found = list(directory.scan())
    assert [chunk for chunk, _, rows in found if rows] == [0, 1, 2, 3, 5, 6] and found[4] == (4, (), [])
    assert tally(directory.protocol_path).done == 9
    assert not [row for row in read_csv(directory.merge()) or [{"image_id": "4"}] if row["image_id"].startswith("4")]


@pytest.mark.parametrize("kind", ["maps", "curves"])
def test_a_loose_file_that_is_damaged_does_not_pass_for_what_is_packed(directory: RunDirectory, kind: str) -> None:
    pack(directory)
    getattr(directory, kind).loose(4).write_bytes(b"torn")
    with pytest.warns(UserWarning, match=f"{kind}/000004.npz is missing or damaged: chunk 4 is computed again"):
        assert [chunk for chunk, _, rows in directory.scan() if rows] == [0, 1, 2, 3, 5, 6]
    with pytest.warns(UserWarning, match=f"{kind}/000004.npz is missing or damaged: chunk 4 is computed again"):
        assert directory.read_rows(4) == []


def test_what_else_lies_in_a_folder_is_no_chunk(directory: RunDirectory) -> None:
    pack(directory, 0)
    before = contents(directory)
    for name in ("notes.csv", "000009.txt", "000009-000010.zip", "a-b.zip", "000009.zip", ".000009.csv.0a1b2c3d.tmp"):
        (directory.records.folder / name).write_bytes(b"")
    assert directory.records.listed() == ({3, 4, 5, 6}, {0}) and contents(directory) == before


def test_what_is_not_done_stays_loose(directory: RunDirectory) -> None:
    directory.maps.loose(2).write_bytes(directory.maps.loose(2).read_bytes()[:-3])
    directory.records.loose(1).unlink()
    with pytest.warns(UserWarning, match="maps/000002.npz is missing or damaged: chunk 2 is computed again"):
        pack(directory, 0)
    assert directory.maps.listed() == ({1, 2, 3, 4, 5, 6}, {0}) and directory.maps.chunks() == list(range(7))


def test_maps_that_change_withdraw_packed_rows_under_every_protocol(directory: RunDirectory) -> None:
    other = RunDirectory(directory.path, "rise-4567")
    names = {"image_id": np.array(["1a"]), "hits": np.arange(3)}
    points = np.zeros((1, 3), np.float32)
    other.commit(1, {**names, "deletion": points, "insertion": points}, [{"image_id": "1a", "status": "ok"}])
    pack(directory)
    pack(other)
    assert directory.is_scored_elsewhere(1) and other.read_rows(1) and other.failed_ids(1) == {"1b"}
    same = directory.read_maps(1)
    assert same
    directory.write_maps(1, same)
    assert directory.read_rows(1) and other.read_rows(1)
    directory.write_maps(1, {**same, "saliency_map": same["saliency_map"] + 1})
    for withdrawn in (directory, other):
        assert withdrawn.read_rows(1) == [] and withdrawn.stamp(1) != withdrawn.records.packed(1)[1]["stamp"]
        assert withdrawn.read_rows(0) or withdrawn is other
    assert not directory.is_scored_elsewhere(1) and tally(other.protocol_path).done == 0
    pack(directory)
    assert directory.read_rows(1) == [] and directory.records.listed()[0] == {1}, "until it is computed again"
    write_chunk(directory, 1, 0.75)
    pack(directory)
    assert directory.read_rows(1)[0]["deletion_auc"] == "0.75" and not directory.records.listed()[0]
    assert by_id(directory.read_maps(1), "saliency_map")["1a"].max() == 0.75


def test_a_stamp_outlives_packing_and_not_a_commit(directory: RunDirectory) -> None:
    before = [directory.stamp(chunk) for chunk in range(CHUNKS)]
    pack(directory)
    assert [directory.stamp(chunk) for chunk in range(CHUNKS)] == before and directory.stamp(7) is None
    time.sleep(0.01)
    write_chunk(directory, 0)
    assert directory.stamp(0) not in (None, before[0])


def made_up(members: dict[str, str]) -> bytes:
    content = io.BytesIO()
    with ZipFile(content, "w") as archive:
        for name, text in members.items():
            archive.writestr(name, text)
    return content.getvalue()


DAMAGES: dict[str, Callable[[bytes], bytes]] = {
    "cut off": lambda content: content[:-30],
    "empty": lambda _content: b"",
    "something else": lambda _content: b"PK" * 1000,
    "other members": lambda _content: made_up({"rows.csv": "", "index.json": '{"3": {"bytes": 0}}', "a.npz": ""}),
}


@pytest.mark.parametrize("damage", DAMAGES)
@pytest.mark.parametrize("kind", ["maps", "paper-0123/curves", "paper-0123/records", "timing"])
def test_a_damaged_archive_costs_its_chunks_and_no_others(directory: RunDirectory, kind: str, damage: str) -> None:
    before = contents(directory)
    pack(directory)
    path = directory.path / kind / "000003-000005.zip"
    path.write_bytes(DAMAGES[damage](path.read_bytes()))
    if kind == "timing":
        assert directory.read_rows(3), "nothing rests on it"
    else:
        message = r"3-000005.zip is missing or damaged: what it had of chunks 000003-000005 is computed again"
        with pytest.warns(UserWarning, match=message):
            assert [chunk for chunk in range(CHUNKS) if not directory.read_rows(chunk)] == [3, 4, 5]
        with pytest.warns(UserWarning, match=message):
            assert [chunk for chunk, _, rows in directory.scan() if rows] == [0, 1, 2, 6]
    for chunk in (3, 4, 5):
        write_chunk(directory, chunk)
    pack(directory)
    after = contents(directory)
    kinds = ("maps", "curves", "rows", "tally")
    assert [after[name] for name in kinds] == [before[name] for name in kinds] and not loose_ranges(directory)
    assert after["merged"][0] == before["merged"][0]


@pytest.mark.parametrize("seed", range(8))
def test_any_mixture_gives_the_same_table(tmp_path: Path, seed: int) -> None:
    """Ranges packed and not, some chunks of packed ones loose too, and files as an interrupted packing leaves them."""
    draw = random.Random(seed)
    areas = [None if draw.random() < 0.2 else (draw.random(), draw.random()) for _ in range(19)]
    loose = leave_run(tmp_path / "loose", "igos", 28, areas)
    mixed = leave_run(tmp_path / "mixed", "igos", 28, areas)
    for chunk in range(10):
        for run in (loose, mixed):
            images = {"image_id": np.array([f"image{i}" for i in (2 * chunk, 2 * chunk + 1)])}
            run.write_maps(chunk, {**images, "saliency_map": np.ones((2, 1, 2, 2), np.float32)})
            points = np.zeros((2, 3), np.float32)
            rows = rows_of(run.records.read(chunk) or b"") or []
            run.commit(chunk, {**images, "hits": np.arange(3), "deletion": points, "insertion": points}, rows)
    pack(mixed, *draw.sample([0, 3, 6, 9], draw.randrange(1, 5)))
    for chunk in draw.sample(range(10), 3):
        for kind in draw.sample(["maps", "curves", "records"], 2):
            shutil.copy2(getattr(loose, kind).loose(chunk), getattr(mixed, kind).loose(chunk))
    (one,), (other,) = (read_cells(tmp_path / name, allow_partial=True) for name in ("loose", "mixed"))
    pd.testing.assert_frame_equal(one.rows, other.rows)
    assert (one.failures, one.requested) == (other.failures, other.requested)
    pd.testing.assert_frame_equal(make_table([one]), make_table([other]))
    assert [str(cell) for cell in look(tmp_path / "loose")] == [str(cell) for cell in look(tmp_path / "mixed")]
    assert loose.merge().read_bytes() == mixed.merge().read_bytes() and loose.chunk_of() == mixed.chunk_of()
    assert [list(chunk) for chunk in loose.results()] == [list(chunk) for chunk in mixed.results()]


def test_an_archive_that_is_replaced_while_it_is_read_is_not_damaged(
    directory: RunDirectory, monkeypatch: pytest.MonkeyPatch
) -> None:
    newer = copied(directory, "newer")
    write_chunk(newer, 1, 0.123456789)
    for one in (directory, newer):
        pack(one)
    path = directory.records.archive(0)
    assert directory.read_rows(1)[0]["deletion_auc"] == "0.5" and directory.records.packed(0)
    write_chunk(newer, 1, 0.987654321)
    pack(newer)

    def stamp_and_replace(stamped: Path) -> packs.Stamp | None:
        stamp = packs.file_stamp(stamped)
        if stamped == path and newer.records.archive(0).exists():
            newer.records.archive(0).replace(path)
        return stamp

    packed_rows._cut.cache_clear()
    monkeypatch.setattr(packed_rows, "file_stamp", stamp_and_replace)
    assert directory.read_rows(1)[0]["deletion_auc"] == "0.987654321"


def test_a_damaged_archive_stops_a_table(directory: RunDirectory) -> None:
    pack(directory)
    path = directory.records.archive(3)
    content = path.read_bytes()
    path.write_bytes(content.replace(b"3a,", b"9a,", 1))  # within the rows: their sum tells
    directory.write_provenance({})
    with pytest.raises(UserError, match=r"000003-000005.zip is damaged .* computes those chunks again and no others"):
        _rows(directory.protocol_path, COLUMNS)
    assert tally(directory.protocol_path).done == 11, "which reads no rows"
    with pytest.warns(UserWarning, match=r"records/000003-000005.zip is missing or damaged"):
        assert [chunk for chunk, _, rows in directory.scan() if rows] == [0, 1, 2, 6]


def test_few_files(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.undo()  # ranges as they are
    directory = RunDirectory(tmp_path / "run", "paper-0123")
    chunks = 50_000 // 10
    archives = {files.archive(chunk) for files in _kinds(directory) for chunk in range(chunks)}
    assert len(archives) == 100, "of a cell of 50,000 images, besides run.json and six others"
    for chunk in range(250):
        write_chunk(directory, chunk)
    before = without_stamps(contents(directory))
    pack(directory)
    assert without_stamps(contents(directory)) == before
    assert len([path for path in directory.path.rglob("*") if path.is_file()]) == 2 * 4 + 2
