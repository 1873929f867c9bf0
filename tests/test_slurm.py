"""On a real Slurm, which `make test-slurm` starts: jobs that are killed, cancelled, requeued, out of time, or broken.

Each sweep is disturbed and submitted again; what it leaves must then be what an undisturbed run leaves, byte for byte
but for the seconds.
"""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from noise import write_noise

ROOT = Path(__file__).parent.parent
sys.path.insert(0, str(ROOT / "scripts"))

from chaos_compare import committed, differences, torn  # noqa: E402

pytestmark = pytest.mark.slurm

ENVIRONMENT = {**os.environ, "PYTHONPATH": str(ROOT)}
NETWORK = (
    *("model=timm", "model.architecture=test_resnet", "model.weights=null", "device=cpu", "lease_seconds=5"),
    *("data=folder", "data.root=images", "chunk_size=1", "protocol.n_steps=20"),
    *("method=integrated_gradients", "method.steps=20", "resolution=224"),
)
ON_SLURM = (
    *("hydra/launcher=slurm", "hydra.launcher.partition=debug", "hydra.launcher.gpus_per_node=null"),
    *("hydra.launcher.cpus_per_task=1", "hydra.launcher.mem_gb=2"),
)
PATIENCE = 150.0


@pytest.fixture(autouse=True)
def slurm() -> Iterator[None]:
    """Nothing is left in the queue for the next test."""
    said = subprocess.run(["sinfo", "-h", "-o", "%t"], capture_output=True, text=True, check=True)
    assert said.stdout.split(), said.stderr
    yield
    subprocess.run(["scancel", "--user", "root"], check=True)
    wait_for(lambda: not queue(), "the queue to be empty")


@pytest.fixture
def folder(tmp_path: Path, request: pytest.FixtureRequest) -> Path:
    """With 12 images, or as many as the test says."""
    count = getattr(request, "param", 12)
    write_noise(tmp_path / "images", [f"{i:02d}.png" for i in range(count)])
    return tmp_path


def igos_bench(folder: Path, *words: str, results: str) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [sys.executable, "-m", "igos_bench", *NETWORK, *words, f"results_dir={results}"], cwd=folder,
        env=ENVIRONMENT, text=True, stdout=subprocess.PIPE, stderr=subprocess.PIPE,
    )  # fmt: skip


@contextmanager
def submitted(folder: Path, *words: str, results: str = "broken") -> Iterator[subprocess.Popen[str]]:
    process = igos_bench(folder, "-m", *ON_SLURM, *words, results=results)
    try:
        yield process
    finally:
        process.kill()
        process.wait()


def end(process: subprocess.Popen[str], code: int) -> tuple[str, str]:
    output, errors = process.communicate(timeout=PATIENCE)
    assert process.returncode == code, output + errors
    assert "Traceback" not in errors
    return output, errors


def read(folder: Path, command: str) -> str:
    """What `status` or `table` prints of what the disturbed sweep has left."""
    command_line = [sys.executable, "-m", "igos_bench", command, "results_dir=broken"]
    ended = subprocess.run(command_line, cwd=folder, env=ENVIRONMENT, text=True, capture_output=True, check=False)
    assert ended.returncode == 0, ended.stderr
    return ended.stdout


def queue() -> dict[str, str]:
    """Job -> its state, of those that are not over."""
    said = subprocess.run(["squeue", "-h", "-r", "-o", "%i %T"], capture_output=True, text=True, check=True).stdout
    return {job: state for job, state in map(str.split, said.splitlines())}


def wait_for(happens: Callable[[], object], what: str, seconds: float = PATIENCE) -> None:
    latest = time.monotonic() + seconds
    while not happens():
        assert time.monotonic() < latest, f"waited in vain for {what}"
        time.sleep(0.05)


def cell(folder: Path, seed: int) -> Path:
    """The folder of the run with this seed, once it is there."""
    found: list[Path] = []

    def there() -> bool:
        for path in folder.glob("broken/runs/*/*/*/*/*/run.json"):
            if json.loads(path.read_text(encoding="utf-8"))["config"]["seed"] == seed:
                found.append(path.parent)
        return bool(found)

    wait_for(there, f"the run of seed {seed}")
    return found[0]


def wait_for_chunks(run: Path, count: int) -> None:
    wait_for(lambda: len(list(run.glob("*/records/[0-9]*.csv"))) >= count, f"{count} chunks in {run}")


def worker(run: Path) -> int:
    """The process that computes this run, by its leases, which come and go."""
    found: list[int] = []

    def there() -> bool:
        for path in run.glob("leases/0*/*/owner.json"):
            try:
                found.append(json.loads(path.read_text(encoding="utf-8"))["process"])
            except (OSError, ValueError):
                continue
        return bool(found)

    wait_for(there, f"a lease in {run}")
    return found[0]


def stand_still(run: Path) -> None:
    """After two chunks, so that no machine is fast enough to be done before; Slurm wakes what it means to end.

    Ten more have to take longer than `KillWait` of scripts/local_slurm.sh, for which that goes on.
    """
    wait_for_chunks(run, 2)
    os.kill(worker(run), signal.SIGSTOP)


def whole(folder: Path, *words: str) -> None:
    """The same sweep in one process, undisturbed, into `whole`."""
    end(igos_bench(folder, "-m", *words, results="whole"), 0)


def job_of(folder: Path, number: int) -> str:
    """Slurm's number of the so-maniest job of the sweep."""
    (path,) = folder.glob(f"broken/sweeps/*/*_{number}")
    return path.name


def test_killed_cancelled_and_requeued(folder: Path) -> None:
    swept = ("seed=0,1,2", "method.steps=120")
    with submitted(folder, *swept) as process:
        runs = []
        for seed in range(3):
            runs.append(cell(folder, seed))
            stand_still(runs[-1])
        os.kill(worker(runs[0]), signal.SIGKILL)
        subprocess.run(["scancel", job_of(folder, 1)], check=True)
        requeued = job_of(folder, 2)
        subprocess.run(["scancel", "--signal=USR2", requeued], check=True)
        os.kill(worker(runs[2]), signal.SIGCONT)
        wait_for(lambda: queue().get(requeued) == "PENDING", "the job to be requeued")
        assert not list(runs[2].glob("leases/0*")), "it has given its leases back"
        assert len(list(runs[2].glob("*/records.csv"))) == 1, "and made records.csv of what is finished"
        # Slurm holds what is requeued for two minutes.
        subprocess.run(["scontrol", "update", f"jobid={requeued}", "starttime=now"], check=True)
        output, errors = end(process, 1)
    assert "1 cells without a failure, 0 not available, 2 failed" in output
    name = "integrated_gradients at 224 on test_resnet"
    assert re.search(rf"failed with 1: {name}: its job \d+_0 ended with FAILED; its log is .+err", errors), errors
    assert re.search(rf"failed with 1: {name} with seed 1: its job \d+_1 ended with CANCELLED", errors), errors
    said = read(folder, "status")
    cells = f"{name}, folder, under paper with seed"
    assert re.search(rf"killed: .+ job \d+_0, {cells} 0: srun: error: .+: Killed \(.+_log.err\)", said), said
    assert re.search(rf"killed: .+ job \d+_1, {cells} 1: slurmstepd.+ CANCELLED AT ", said), said
    assert said.count("killed: ") == 2, "and not what was requeued and came to its end"
    before = committed(folder / "broken")
    assert 4 + 12 <= len(before) < 36
    assert torn(folder / "broken") == []
    with submitted(folder, *swept) as process:
        output, _ = end(process, 0)
    assert "3 cells without a failure, 0 not available, 0 failed" in output
    assert "killed: " not in read(folder, "status"), "what other jobs have completed since"
    after = committed(folder / "broken")
    assert len(after) == 36
    assert {path: after[path] for path in before} == before, "seconds and all: nothing is computed twice"
    whole(folder, *swept)
    assert differences(folder / "whole", folder / "broken") == []
    assert read(folder, "table")


def is_as_undisturbed(folder: Path, before: dict[Path, bytes], count: int, *words: str) -> None:
    """Nothing of `before` was computed again, there are so many chunks, and all is as an undisturbed run leaves it."""
    after = committed(folder / "broken")
    assert len(after) == count and {path: after[path] for path in before} == before
    whole(folder, *words)
    assert differences(folder / "whole", folder / "broken") == []
    assert read(folder, "table")


@pytest.mark.timeout(900)
@pytest.mark.parametrize("folder", [16], indirect=True)
def test_time_limit(folder: Path) -> None:
    """What is stopped by its limit for the last time is no failed image; the next submission goes on."""
    # Slurm looks every half minute, and half a minute ahead: USR2 comes 15 to 45 s after the start.
    limit = ("hydra.launcher.timeout_min=1", "hydra.launcher.signal_delay_s=15", "hydra.launcher.max_num_timeout=0")
    slow = ("method.steps=80", "seed=0")
    with submitted(folder, *slow, *limit) as process:
        stand_still(cell(folder, 0))
        output, errors = end(process, 143)
    assert "0 cells without a failure, 0 not available, 1 failed" in output
    assert "failed with 143: integrated_gradients at 224 on test_resnet: Job not requeued because: timed-out" in errors
    before = committed(folder / "broken")
    assert 2 <= len(before) < 12
    assert all(b",failed," not in content for content in before.values())
    with submitted(folder, *slow, *limit[:-1], "hydra.launcher.max_num_timeout=9") as process:
        stand_still(cell(folder, 0))  # the limit comes again
        while process.poll() is None:
            for job, state in queue().items():
                if state == "PENDING":
                    subprocess.run(["scontrol", "update", f"jobid={job}", "starttime=now"], check=False)
            time.sleep(1)
        end(process, 0)
    logs = [path.read_text(encoding="utf-8") for path in folder.glob("broken/sweeps/*/*/*_0_log.out")]
    assert any("Requeued job" in log for log in logs), "the limit came again, and was allowed to"
    is_as_undisturbed(folder, before, 16, *slow)


@pytest.mark.parametrize("folder", [16], indirect=True)
def test_preempted(folder: Path) -> None:
    """By a job of a partition that goes first: as Slurm does it by default, with a kill after a while."""
    slow = ("method.steps=80", "seed=0")
    with submitted(folder, *slow) as process:
        stand_still(cell(folder, 0))
        (preempted,) = queue()
        urgent = ["sbatch", "--partition=urgent", "--exclusive", "--output=/dev/null", "--wrap=sleep 1"]
        subprocess.run(urgent, check=True, capture_output=True)
        wait_for(lambda: queue().get(preempted) == "PENDING", "the job to be requeued")
        before = committed(folder / "broken")
        assert 2 <= len(before) < 16
        # Slurm holds what is requeued for two minutes.
        subprocess.run(["scontrol", "update", f"jobid={preempted}", "starttime=now"], check=True)
        output, _ = end(process, 0)
    assert "1 cells without a failure, 0 not available, 0 failed" in output
    is_as_undisturbed(folder, before, 16, *slow)


def kill_the_node() -> None:
    """As a power cut: slurmd, the slurmstepd of every job, and all processes of the jobs, none of which can say so.

    First all stand still, so that none sees another end. Then the youngest go first: a child that stands still may be
    woken by its parent's end, and what srun then sent to slurmctld has killed the step of the next attempt, seen once.
    """
    ours = f"SLURM_CONF={os.environ['SLURM_CONF']}"
    found = []
    for path in Path("/proc").glob("[0-9]*"):
        try:
            environment = (path / "environ").read_bytes().decode(errors="replace").split("\0")
            name = (path / "comm").read_text().strip()
            started = int((path / "stat").read_text().rpartition(")")[2].split()[19])
        except OSError:  # it has ended just now
            continue
        is_of_a_job = any(variable.startswith("SLURM_JOB_ID=") for variable in environment)
        if ours in environment and (is_of_a_job or name in ("slurmd", "slurmstepd")):
            found.append((started, int(path.name)))
    youngest_first = [process for _, process in sorted(found, reverse=True)]
    assert os.getpid() not in youngest_first and len(found) >= 4, found  # slurmd, two steps and the run
    for number in (signal.SIGSTOP, signal.SIGKILL):
        for process in youngest_first:
            os.kill(process, number)


def node() -> str:
    """Its state, such as `mixed`; a star behind it says that it does not answer."""
    return subprocess.run(["sinfo", "-h", "-p", "debug", "-o", "%T"], capture_output=True, text=True, check=True).stdout


def test_lost_node(folder: Path) -> None:
    """It is found to be down, its job is requeued, and goes on when the node is back."""
    slow = ("method.steps=40", "seed=0")
    with submitted(folder, *slow) as process:
        stand_still(cell(folder, 0))
        (job,) = queue()
        kill_the_node()
        try:
            assert queue()[job] == "RUNNING", "as far as slurmctld knows"
            wait_for(lambda: node().startswith("down"), "the node to be down")
            wait_for(lambda: queue().get(job) == "PENDING", "the job to be requeued")
            before = committed(folder / "broken")
            assert 2 <= len(before) < 12 and torn(folder / "broken") == []
        finally:
            path = f"{os.environ['PATH']}:/usr/sbin"
            subprocess.run(["slurmd", "-f", os.environ["SLURM_CONF"]], env={**os.environ, "PATH": path}, check=True)
        wait_for(lambda: node().startswith("idle"), "the node to be back")
        # Slurm holds what is requeued for two minutes. Some time it needs: slurmctld has told the lost node to end this
        # job, which reaches it when it is back, and would end the new attempt, which bears the same number.
        subprocess.run(["scontrol", "update", f"jobid={job}", "starttime=now+10"], check=True)
        output, _ = end(process, 0)
    assert "1 cells without a failure, 0 not available, 0 failed" in output
    is_as_undisturbed(folder, before, 12, *slow)


def test_shards_beside_a_cell_that_always_fails(folder: Path) -> None:
    with submitted(folder, "shards=3", "model.weights=null,no-such.safetensors") as process:
        output, errors = end(process, 2)
    assert "3 shards of cells without a failure, 0 not available, 3 failed" in output
    (line,) = [line for line in errors.splitlines() if "failed with 2" in line]
    assert all(f"shard {i}/3" in line for i in (1, 2, 3)) and "no-such.safetensors" in line
    assert read(folder, "status").count("no-such.safetensors: ") == 3, "without the driver"
    whole(folder)
    assert differences(folder / "whole", folder / "broken") == []
    assert read(folder, "table")


def test_what_sbatch_refuses_is_said(folder: Path) -> None:
    with submitted(folder, "seed=0", "hydra.launcher.partition=nowhere") as process:
        _, errors = end(process, 2)
    told = errors.splitlines()[-1]
    assert told.startswith("igos-bench: hydra/launcher=slurm: ") and "invalid partition specified: nowhere" in told
