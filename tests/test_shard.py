"""A run spread over shards: the files of a run by one process, whatever n, and a process of torchrun's that is killed.

The processes of torchrun's are real ones, on a network of seeded random weights.
"""

from __future__ import annotations

import csv
import io
import json
import os
import re
import signal
import socket
import subprocess
import sys
import threading
import time
import warnings
from pathlib import Path
from typing import Any
from zipfile import ZipFile

import pytest
import torch
from conftest import Command
from noise import write_noise

from igos_bench import packs
from igos_bench.config import Device, Precision
from igos_bench.console import print_header, print_summary
from igos_bench.errors import UserError
from igos_bench.lease import Leases
from igos_bench.overrides import compose_config
from igos_bench.prepare import choose_device, prepare
from igos_bench.runner import Outcome, execute
from igos_bench.shard import Place, Shard, asked_or_auto, find_place, find_shard, spread, task_threads
from igos_bench.status import look, printed
from igos_bench.torchrun import end_after_the_others

IMAGES = 7


@pytest.fixture
def words(tmp_path: Path) -> list[str]:
    write_noise(tmp_path / "images", [f"{i:02d}.png" for i in range(IMAGES)])
    return [
        "model=timm", "model.architecture=mobilenetv3_small_050", "model.weights=null", "data=folder",
        f"data.root={tmp_path / 'images'}", "method=grad_cam", "resolution=28", "protocol.n_steps=2", "chunk_size=1",
        "device=cpu",
    ]  # fmt: skip


def run(words: list[str], **how: Any) -> Outcome:
    return execute(prepare(compose_config(words)), lambda _count, _rows: None, **how)


def files(results: Path) -> dict[str, bytes]:
    """Maps, curves and rows of the run, by path inside it; rows without their times."""
    (folder,) = (path.parent for path in results.glob("runs/*/*/*/*/*/run.json"))
    found = {}
    for path in sorted(folder.rglob("*.npz")) + sorted(folder.rglob("*.csv")):
        name = str(path.relative_to(folder))
        if name.endswith(".npz"):
            found[name] = path.read_bytes()
        elif "timing" not in name:
            rows = csv.DictReader(io.StringIO(path.read_text(), newline=""))
            pairs = [[pair for pair in row.items() if not pair[0].endswith("_seconds")] for row in rows]
            found[name] = repr(pairs).encode()
    return found


@pytest.fixture
def whole(words: list[str], tmp_path: Path) -> dict[str, bytes]:
    """What a run without shards leaves."""
    assert len(run([*words, f"results_dir={tmp_path / 'whole'}"]).whole or ()) == IMAGES
    found = files(tmp_path / "whole")
    assert len(found) == 3 * IMAGES + 1
    return found


def test_n_may_change_and_no_row_is_lost_or_doubled(
    words: list[str], whole: dict[str, bytes], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    words = [*words, f"results_dir={tmp_path / 'out'}"]
    key = prepare(compose_config(words)).map_key
    expected: list[int] = []
    first = run([*words, "shard=2/3"], expect=expected.append)
    assert (len(first.rows), first.whole, expected) == (2, None, [2])
    assert print_summary(first, Shard(1, 3)) == 0
    said = capsys.readouterr().out
    assert "2/3 has been through its 2 images" in said and "still missing" in said and "igos-bench table" not in said
    assert not list(first.directory.glob("*/records.csv")), "the rows of a shard are not the run's"
    described = json.loads((first.directory / "run.json").read_text())
    assert (described["finished"], described["done"], described["config"]["shard"]) == (None, 0, None)
    assert first.directory.name == key

    again = run([*words, "shard=1/2", "chunk_size=3"])  # of its 4 chunks one is there
    assert (len(again.rows), again.resumed, again.whole) == (4, 1, None)
    last = run([*words, "shard=2/2"])
    assert (len(last.rows), last.resumed, len(last.whole or ())) == (3, 1, IMAGES)
    assert print_summary(last, Shard(1, 2)) == 0
    said = capsys.readouterr().out
    assert f"so have all other shards: the cell has its {IMAGES} images\n" in said and "igos-bench table" in said
    assert json.loads((first.directory / "run.json").read_text())["done"] == IMAGES
    assert files(tmp_path / "out") == whole
    nothing = run([*words, "shard=9/9"])
    assert (nothing.rows, len(nothing.whole or ())) == ([], IMAGES), "a shard may have no chunk of its own"


def test_who_starts_a_run_fixes_its_micro_batches(words: list[str], tmp_path: Path) -> None:
    words = [*words, "method=integrated_gradients", "method.steps=8", "resolution=224"]
    run([*words, "evaluate.batch_size=2", f"results_dir={tmp_path / 'whole'}"])
    words = [*words, f"results_dir={tmp_path / 'out'}"]
    for others in (["evaluate.batch_size=2", "shard=1/3"], ["evaluate.batch_size=3", "shard=2/3"], ["shard=3/3"]):
        started = prepare(compose_config([*words, *others]))
        seen: list[int] = []
        started.classifier.fast_network.register_forward_pre_hook(
            lambda _module, inputs, n=seen: n.append(len(inputs[0]))
        )
        execute(started, lambda _count, _rows: None)
        assert max(seen) == 2
    (described,) = (tmp_path / "out").glob("runs/*/*/*/*/*/run.json")
    assert json.loads(described.read_text())["batch_size"] == 2
    assert files(tmp_path / "out") == files(tmp_path / "whole")


def test_shards_scored_under_another_protocol(words: list[str], tmp_path: Path) -> None:
    """Their maps are those of an unsharded run, and so are the areas."""
    areas = {}
    for results, shards in (("whole", ["null"]), ("out", ["1/3", "2/3", "3/3"])):
        words = [*words, f"results_dir={tmp_path / results}"]
        for shard in shards:
            run([*words, f"shard={shard}"])
        scored = run([*words, "protocol=rise", "protocol.n_steps=3"], explain=False)
        assert scored.directory == prepare(compose_config(words)).directory.path
        areas[results] = [(row["image_id"], row["deletion_auc"], row["insertion_auc"]) for row in scored.whole or ()]
    assert areas["out"] == areas["whole"]
    assert len({area for _, *pair in areas["out"] for area in pair}) == 2 * IMAGES, "of all images, and no constant"


def test_a_shard_that_starts_opens_no_chunk_of_others(words: list[str], tmp_path: Path) -> None:
    words = [*words, f"results_dir={tmp_path / 'out'}"]
    for i in (1, 2):
        run([*words, f"shard={i}/3"])
    directory = prepare(compose_config(words)).directory
    for files in (directory.maps, directory.curves, directory.records):
        files.loose(4).write_bytes(b"damaged")
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert run([*words, "shard=1/3"]).resumed == 3
    with pytest.warns(UserWarning, match="missing or damaged: chunk 4 is"):
        assert run([*words, "shard=2/3"]).resumed == 1


def test_a_failed_image_is_its_shards(words: list[str], tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    words = [*words, f"results_dir={tmp_path / 'out'}"]
    images = prepare(compose_config(words)).images
    (tmp_path / "images" / images[1].image_id).write_bytes(b"no image")
    one, two = (run([*words, f"shard={i}/2"]) for i in (1, 2))
    assert print_summary(two, Shard(1, 2)) == 3
    assert print_summary(one, Shard(0, 2)) == 0
    assert f"the cell has its {IMAGES} images, of which 1 failed" in capsys.readouterr().out


def test_a_sweep_over_all_shards(
    igos_bench: Command, words: list[str], whole: dict[str, bytes], tmp_path: Path
) -> None:
    ended = igos_bench("-m", *words, "results_dir=out", "shards=3")
    assert ended.returncode == 0, ended.stderr
    assert "3 shards of cells without a failure" in ended.stdout
    assert files(tmp_path / "out") == whole
    assert len(igos_bench("table", "results_dir=out").stdout.splitlines()) > 2


@pytest.fixture
def _short_ranges(monkeypatch: pytest.MonkeyPatch) -> None:
    """Chunks 0 to 2 are packed together, 3 to 5, and 6."""
    monkeypatch.setattr(packs, "RANGE", 3)


def archives(results: Path) -> dict[str, Any]:
    """What each archive has, by path inside the run; rows without their times, and timings not at all."""
    (folder,) = (path.parent for path in results.glob("runs/*/*/*/*/*/run.json"))
    assert not [path for path in folder.rglob("0*") if path.is_file() and path.suffix != ".zip"], "all are packed"
    found: dict[str, Any] = {}
    for path in folder.rglob("*.zip"):
        name = str(path.relative_to(folder))
        if path.parent.name == "records":
            with ZipFile(path) as archive:
                rows = csv.DictReader(io.StringIO(archive.read("rows.csv").decode(), newline=""))
                found[name] = [[pair for pair in row.items() if not pair[0].endswith("_seconds")] for row in rows]
        elif path.parent.name != "timing":
            found[name] = path.read_bytes()
    return found


@pytest.mark.usefixtures("_short_ranges")
def test_archives_are_the_same_whatever_came_first(words: list[str], tmp_path: Path) -> None:
    run([*words, f"results_dir={tmp_path / 'whole'}"])
    expected = archives(tmp_path / "whole")
    assert len(expected) == 9
    for i in (3, 1, 2):
        run([*words, f"results_dir={tmp_path / 'shards'}", f"shard={i}/3"])
    assert archives(tmp_path / "shards") == expected
    for limit in (4, 5, 2, IMAGES):
        run([*words, f"results_dir={tmp_path / 'grown'}", f"data.limit={limit}"])
    assert archives(tmp_path / "grown") == expected
    assert len(list((tmp_path / "grown").glob("runs/*/*/*/*/*/timing.csv"))) == 1


@pytest.mark.usefixtures("_short_ranges")
def test_a_shard_that_ends_packs_what_there_is(words: list[str], tmp_path: Path) -> None:
    """Also while others have not ended, and whatever n they have."""
    whole = run([*words, f"results_dir={tmp_path / 'whole'}"])
    expected = archives(tmp_path / "whole")
    for shard in ("1/2", "2/3", "3/3", "2/2"):
        ended = run([*words, f"results_dir={tmp_path / 'out'}", f"shard={shard}"])
        assert archives(tmp_path / "out").keys() <= expected.keys()
        assert (ended.whole is None) == (shard != "2/2")
    assert archives(tmp_path / "out") == expected
    tables = [csv.DictReader(io.StringIO(outcome.records.read_text(), newline="")) for outcome in (whole, ended)]
    one, other = ([{k: v for k, v in row.items() if not k.endswith("_seconds")} for row in table] for table in tables)
    assert one == other


def test_a_range_is_not_written_anew_for_little(
    words: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(packs, "RANGE", 5)
    words = [*words, f"results_dir={tmp_path / 'out'}"]
    directory = prepare(compose_config(words)).directory
    for shard, loose in (("1/2", set()), ("2/4", {1}), ("4/4", set())):  # 0, 2, 4, 6; then 1, 5; then 3
        run([*words, f"shard={shard}"])
        assert directory.records.listed()[0] == directory.maps.listed()[0] == loose
    assert len(archives(tmp_path / "out")) == 6


@pytest.mark.usefixtures("_short_ranges")
def test_what_an_interrupted_shard_left_is_packed_by_who_starts(words: list[str], tmp_path: Path) -> None:
    """Beside a live shard: what that one works on stays loose, and is not waited for, nor a range that it packs."""
    run([*words, f"results_dir={tmp_path / 'whole'}"])
    words = [*words, f"results_dir={tmp_path / 'out'}"]
    directory = prepare(compose_config(words)).directory

    def run_interrupted(shard: str, after: int) -> None:
        counts: list[int] = []

        def report(count: int, _rows: Any) -> None:
            counts.append(count)
            if sum(counts[1:]) == after:
                raise KeyboardInterrupt

        with pytest.raises(KeyboardInterrupt):
            execute(prepare(compose_config([*words, f"shard={shard}"])), report)

    run_interrupted("1/2", 3)  # 0, 2, 4 of 0, 2, 4, 6
    assert directory.records.listed() == ({0, 2, 4}, set())
    with Leases(directory.path / "leases", 300) as live:
        assert live.claim("000002") and live.claim("000003-000005")
        started = time.monotonic()
        run_interrupted("2/2", 1)
        assert time.monotonic() - started < 30
        assert directory.records.listed() == ({1, 2, 4}, {0}), "1 was done after the packing"
    for first in (1, 2):
        run([*words, f"shard={first}/2"])
    assert archives(tmp_path / "out") == archives(tmp_path / "whole")


@pytest.mark.usefixtures("_short_ranges")
def test_a_packed_run_goes_on_where_it_was(
    words: list[str], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    words = [*words, f"results_dir={tmp_path / 'out'}"]
    first = run(words)
    assert print_summary(first, Shard(0, 1)) == 0
    said, expected = capsys.readouterr().out, archives(tmp_path / "out")

    def stamps() -> dict[Path, int]:
        return {path: path.stat().st_mtime_ns for path in first.directory.rglob("*.zip")}

    before = stamps()
    again = run(words)
    assert (again.resumed, stamps()) == (IMAGES, before)
    assert print_summary(again, Shard(0, 1)) == 0 and capsys.readouterr().out == said
    assert [row["image_id"] for row in again.rows] == [row["image_id"] for row in first.rows]

    damaged = first.directory / "maps" / "000003-000005.zip"
    damaged.write_bytes(damaged.read_bytes()[:-1])
    with pytest.warns(UserWarning, match="maps/000003-000005.zip is missing or damaged"):
        mended = run(words)
    assert (mended.resumed, len(mended.rows), len(mended.whole or ())) == (4, IMAGES, IMAGES)
    assert archives(tmp_path / "out") == expected
    assert {path.name for path, stamp in stamps().items() if stamp != before[path]} == {damaged.name}


@pytest.mark.usefixtures("_short_ranges")
def test_a_failed_image_of_a_packed_chunk_is_tried_again(words: list[str], tmp_path: Path) -> None:
    words = [*words, f"results_dir={tmp_path / 'out'}"]
    path = tmp_path / "images" / prepare(compose_config(words)).images[1].image_id
    content = path.read_bytes()
    path.write_bytes(b"as many bytes".ljust(len(content)))
    failed = run(words)
    assert print_summary(failed, Shard(0, 1)) == 3 and len(archives(tmp_path / "out")) == 9
    path.write_bytes(content)
    mended = run(words)
    assert mended.resumed == IMAGES - 1 and print_summary(mended, Shard(0, 1)) == 0
    run([*words, f"results_dir={tmp_path / 'whole'}"])
    assert archives(tmp_path / "out") == archives(tmp_path / "whole")


def test_a_killed_job_is_known_by_its_first_line(
    words: list[str], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Of a cell that its shards have completed; a cell with another seed is another one."""
    log = tmp_path / "out" / "sweeps" / "now" / "7_0" / "7_0_0_log.err"
    log.parent.mkdir(parents=True)
    log.write_text("srun: error: vm: task 0: Killed\n")
    words = [*words, f"results_dir={tmp_path / 'out'}"]

    def is_listed(*more: str) -> bool:
        capsys.readouterr()
        print_header("run", prepare(compose_config([*words, "shard=2/2", *more])))
        log.with_name("7_0_0_log.out").write_text(capsys.readouterr().out)
        return "killed: " in printed(look(tmp_path / "out"), tmp_path / "out")

    run([*words, "shard=1/2"])
    assert is_listed()
    run([*words, "shard=2/2"])
    assert not is_listed() and is_listed("seed=1") and is_listed("precision=bf16")


def test_what_is_no_shard(igos_bench: Command) -> None:
    for asked in ("0/2", "3/2", "1/0", "1", "-1/2", "a/b", "1/2/3", "1.5/2", "", "²/3"):
        with pytest.raises(UserError, match=f"^shard={re.escape(asked)}: write i/n"):
            find_shard(asked)
    for asked in ("0", "-1", "two", "1.5", "10001"):
        with pytest.raises(UserError, match="from 1 to 10,000"):
            spread([f"shards={asked}"])
    assert spread(["a=1", "shards=2"]) == ["a=1", "shard=1/2,2/2"]
    ended = igos_bench("shard=3/2")
    assert (ended.returncode, len(ended.stderr.splitlines())) == (2, 1)


TORCHRUN = {"RANK": "5", "WORLD_SIZE": "8", "LOCAL_RANK": "1", "LOCAL_WORLD_SIZE": "4"}
BATCH = {"SLURM_JOB_ID": "7", "SLURM_PROCID": "0", "SLURM_NTASKS": "8", "SLURM_LOCALID": "0"}
SRUN = {**BATCH, "SLURM_STEP_ID": "0", "SLURM_STEP_NUM_TASKS": "8", "SLURM_PROCID": "5", "SLURM_LOCALID": "1"}


def test_auto_is_what_the_launcher_says() -> None:
    for environment in (TORCHRUN, SRUN):
        place = find_place(environment)
        assert str(place.shard) == "6/8"
        assert [place._replace(local=i).device(4) for i in range(4)] == [0, 1, 2, 3], "each has its own"
    with pytest.raises(UserError, match="start as many"):
        find_place(TORCHRUN).device(1)
    assert find_place(SRUN).device(1) == 0, "srun shows each task its own device alone"
    for wrong in (
        {},
        {**TORCHRUN, "RANK": "8"},
        {**TORCHRUN, "RANK": "x"},
        {"RANK": "1"},
        {**SRUN, "SLURM_PROCID": "-"},
    ):
        with pytest.raises(UserError, match="^shard=auto"):
            find_place(wrong)


def test_a_process_of_torchruns_is_a_shard_unasked() -> None:
    environment = {**TORCHRUN, "TORCHELASTIC_RUN_ID": "none"}
    assert asked_or_auto(None, environment) == asked_or_auto("auto", environment) == "auto"
    assert asked_or_auto("1/1", environment) == "1/1", "which is how to say that each is to compute all"
    assert asked_or_auto(None, {**environment, "WORLD_SIZE": "1"}) is None
    for other in (TORCHRUN, SRUN, BATCH, {}):
        assert asked_or_auto(None, other) is None, "torchrun alone is sure to have started all of them"


def test_a_batch_script_is_no_task() -> None:
    """It has the variables of one, and would be a shard whose others nobody computes."""
    with pytest.raises(UserError, match="^shard=auto: Slurm runs this process.+write `srun igos-bench"):
        find_place(BATCH)
    assert str(find_place({**SRUN, "SLURM_PROCID": "1", "SLURM_STEP_NUM_TASKS": "2"}).shard) == "2/2", "srun -n2 of 8"


def test_each_process_of_eight_has_a_device_of_its_own(monkeypatch: pytest.MonkeyPatch) -> None:
    """There is no GPU here: what torch says of eight is made up, and nothing else."""
    current: list[torch.device] = []
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 8)
    monkeypatch.setattr(torch.cuda, "set_device", current.append)
    places = [find_place({**TORCHRUN, "RANK": str(i), "LOCAL_RANK": str(i), "LOCAL_WORLD_SIZE": "8"}) for i in range(8)]
    chosen = [choose_device(Device.auto, Precision.fp32, place) for place in places]
    assert [str(device) for device in chosen] == [f"cuda:{i}" for i in range(8)]
    assert current == chosen, "and each is the current one of its process"
    assert choose_device(Device.cpu, Precision.fp32, places[3]) == torch.device("cpu")


@pytest.mark.parametrize("shard", ["null", "auto", "4/8", "1/1"])
def test_whatever_each_process_of_torchruns_computes(
    words: list[str], monkeypatch: pytest.MonkeyPatch, shard: str
) -> None:
    """As above, and the network stays where it is."""
    network = prepare(compose_config(words)).classifier
    monkeypatch.setattr("igos_bench.prepare._classifier", lambda _config, _device: network)
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 8)
    monkeypatch.setattr(torch.cuda, "set_device", lambda _device: None)
    words = [*words, "device=auto", f"shard={shard}"]
    assert str(prepare(compose_config([*words, *["shard=null"] * (shard == "auto")])).device) == "cuda", "one process"
    for name, value in {"TORCHELASTIC_RUN_ID": "none", **TORCHRUN, "LOCAL_WORLD_SIZE": "8"}.items():
        monkeypatch.setenv(name, value)
    devices = []
    for i in range(8):
        monkeypatch.setenv("RANK", str(i))
        monkeypatch.setenv("LOCAL_RANK", str(i))
        devices.append(str(prepare(compose_config(words)).device))
    assert devices == [f"cuda:{i}" for i in range(8)]


def test_all_cores_are_used_and_none_twice() -> None:
    for cores, count in ((64, 8), (7, 3), (2, 2), (1, 1)):
        threads = [Place(Shard(i, count), "torchrun", i, count).threads({}, cores) for i in range(count)]
        assert sum(n or 0 for n in threads) == cores and max(n or 0 for n in threads) - min(n or 0 for n in threads) < 2
    assert Place(Shard(3, 4), "torchrun", 3, 4).threads({}, 2) == 1, "each needs one"
    assert find_place(TORCHRUN).threads({"OMP_NUM_THREADS": "1"}, 8) == 2, "which is torchrun's own"
    assert find_place(TORCHRUN).threads({"OMP_NUM_THREADS": "3"}, 8) is None, "which is the user's"
    assert find_place(SRUN).threads({"SLURM_CPUS_PER_TASK": "4"}, 8) == 4
    assert find_place(SRUN).threads({}, 8) is None
    assert find_place(SRUN).threads({"SLURM_CPUS_PER_TASK": "4", "OMP_NUM_THREADS": "1"}, 8) is None, "the user's"


def test_a_job_of_slurm_has_the_threads_it_asked_for(words: list[str], monkeypatch: pytest.MonkeyPatch) -> None:
    """Also one that is no shard, or shard=i/n: so are those of a sweep. And torchrun's processes share them out."""
    torchruns = {**TORCHRUN, "TORCHELASTIC_RUN_ID": "none"}
    for asked, threads in (("4", 4), ("16", 8), ("0", None), ("", None), ("x", None)):
        assert task_threads({"SLURM_CPUS_PER_TASK": asked}, 8) == threads
    monkeypatch.setattr("igos_bench.prepare._cores", lambda: 8)
    before = torch.get_num_threads()
    try:
        for shard, variables, threads in (
            ("null", {"SLURM_CPUS_PER_TASK": "3"}, 3),
            ("1/2", {"SLURM_CPUS_PER_TASK": "2"}, 2),
            ("1/2", {"SLURM_CPUS_PER_TASK": "3", "OMP_NUM_THREADS": "1"}, 1),
            ("null", {}, 1),
            ("1/2", torchruns, 2),
            ("auto", torchruns, 2),
            ("null", {**torchruns, "OMP_NUM_THREADS": "1"}, 2),
            ("null", {**torchruns, "OMP_NUM_THREADS": "3"}, 1),
        ):
            torch.set_num_threads(1)
            for name in ("SLURM_CPUS_PER_TASK", "OMP_NUM_THREADS", *torchruns):
                monkeypatch.delenv(name, raising=False)
            for name, value in variables.items():
                monkeypatch.setenv(name, value)
            prepare(compose_config([*words, f"shard={shard}"]))
            assert torch.get_num_threads() == threads
    finally:
        torch.set_num_threads(before)


# torchrun itself


@pytest.mark.parametrize("code", [0, 2])
def test_nobody_is_there_to_be_told_of_the_end(monkeypatch: pytest.MonkeyPatch, code: int) -> None:
    """The work is done, and its exit code stays."""
    with socket.socket() as asked:
        asked.bind(("127.0.0.1", 0))
        port = str(asked.getsockname()[1])
    dead = {**TORCHRUN, "TORCHELASTIC_RUN_ID": "none", "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": port}
    for name, value in dead.items():
        monkeypatch.setenv(name, value)
    monkeypatch.setattr("igos_bench.torchrun.PATIENCE", 0.5)
    started = time.monotonic()
    assert end_after_the_others(code, {}) == code
    assert time.monotonic() - started < 20


def torchrun(words: list[str], tmp_path: Path, *flags: str, shard: str = "shard=auto") -> subprocess.Popen[str]:
    environment = {k: v for k, v in os.environ.items() if k != "OMP_NUM_THREADS"}
    environment["PYTHONPATH"] = str(Path(__file__).parent.parent)
    return subprocess.Popen(
        [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node=2", *flags, "-m",
         "igos_bench", *words, f"results_dir={tmp_path / 'out'}", *shard.split()],
        cwd=tmp_path, env=environment, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True,
    )  # fmt: skip


@pytest.mark.long
def test_a_killed_process_is_started_again(words: list[str], whole: dict[str, bytes], tmp_path: Path) -> None:
    agent = torchrun(words, tmp_path, "--max-restarts=1")
    killed: list[int] = []

    def kill_who_has_a_lease() -> None:
        while agent.poll() is None and not killed:
            for path in (tmp_path / "out").glob("runs/*/*/*/*/*/leases/000*/*/owner.json"):
                try:
                    process = json.loads(path.read_text())["process"]
                    os.kill(process, signal.SIGKILL)
                    killed.append(process)
                    return
                except (OSError, ValueError):  # given back just now
                    continue
            time.sleep(0.001)

    killer = threading.Thread(target=kill_who_has_a_lease)
    killer.start()
    output, _ = agent.communicate(timeout=240)
    killer.join()
    assert killed, output
    assert agent.returncode == 0, output
    assert "shard=1/2" in output and "shard=2/2" in output
    assert files(tmp_path / "out") == whole, output
    (described,) = (json.loads(path.read_text()) for path in (tmp_path / "out").glob("runs/*/*/*/*/*/run.json"))
    cores = len(os.sched_getaffinity(0))
    assert described["threads"] in {max(1, cores // 2), max(1, (cores + 1) // 2)}
    assert described["done"] == IMAGES


@pytest.mark.long
@pytest.mark.parametrize("shard", ["shard=auto", "--config-dir own experiment=spread", ""])
def test_a_failed_image_does_not_stop_the_other_process(words: list[str], tmp_path: Path, shard: str) -> None:
    """torchrun stops all processes as soon as one ends with an error, and starts all of them again.

    Said by a word, by a YAML file of one's own, or not at all.
    """
    (tmp_path / "own" / "experiment").mkdir(parents=True)
    (tmp_path / "own" / "experiment" / "spread.yaml").write_text("# @package _global_\nshard: auto\n")
    images = prepare(compose_config(words)).images
    for image in images[1::2]:  # all of one shard's, so that it has done its part at once
        (tmp_path / "images" / image.image_id).write_bytes(b"no image")
    agent = torchrun([*words, "protocol.n_steps=100"], tmp_path, "--max-restarts=1", shard=shard)
    output, _ = agent.communicate(timeout=240)
    assert agent.returncode == 0 and "SIGTERM" not in output, output
    assert [output.count(f"shard={i}/2") for i in (1, 2)] == [1, 1], f"each is started once: {output}"
    (line,) = [line for line in output.splitlines() if "it ends with 0" in line]
    assert "some of its images failed" in line
    (described,) = (json.loads(path.read_text()) for path in (tmp_path / "out").glob("runs/*/*/*/*/*/run.json"))
    assert described["done"] == len(images[::2])
