"""What `status` says of results folders, also of processes that run, stopped, or are on a machine that is gone."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
import time
from pathlib import Path

import pytest
from conftest import Command
from result_folders import leave_run

from igos_bench.errors import UserError
from igos_bench.jobs import Jobs
from igos_bench.lease import Leases
from igos_bench.status import look, printed


def test_done_running_failed_and_hours_left(tmp_path: Path) -> None:
    leave_run(tmp_path, "igos", 28, [(0.1, 0.9)] * 4)
    run = leave_run(tmp_path, "igos", 14, [(0.1, 0.9), None, (0.1, 0.9)], requested=10)  # 2.5 and 4.5 s an image
    leave_run(tmp_path, "mask", 14, [(0.1, 0.9), None])
    leave_run(tmp_path, "rise", 224, [], requested=5)
    (tmp_path / "logs").mkdir()
    (tmp_path / "logs" / "2026-01-01 mask.txt").write_text("Traceback\nRuntimeError: burnt\n")

    found = {(cell.method, cell.resolution): cell for cell in look(tmp_path)}
    assert {key: cell.state for key, cell in found.items()} == {
        ("igos", 28): "complete", ("igos", 14): "stopped", ("mask", 14): "failed", ("rise", 224): "stopped",
    }  # fmt: skip
    stopped = found["igos", 14]
    assert (stopped.done, stopped.requested, stopped.left, dict(stopped.failed)) == (2, 10, 8, {"no image": 1})
    assert (stopped.seconds, stopped.work, stopped.rate) == (3.5, 28.0, 0)
    shown = printed(look(tmp_path), tmp_path)
    assert "4 cells: 1 complete, 0 running, 2 stopped, 1 failed; 7 of 21 images done; " in shown
    assert "0.01 hours left for 1 such process, and 1 cells of which no time is known" in shown
    assert "failed: 1 images of mask at 14 on toy, images, under paper: no image" in shown
    assert "broke: 2026-01-01 mask: RuntimeError: burnt (" in shown

    with Leases(run.path / "leases", 300) as leases:
        for name in ("000002", "000003"):
            assert leases.claim(name)
        (running,) = (cell for cell in look(tmp_path) if cell.processes)
        assert (running.method, running.resolution, running.state, running.processes) == ("igos", 14, "running", 1)
        assert running.rate == pytest.approx(1 / 3.5)
        (owner,) = (run.path / "leases").glob("000002/*/owner.json")
        owner.write_text(json.dumps(json.loads(owner.read_text()) | {"host": "node7", "machine": "another"}))
        assert max(cell.processes for cell in look(tmp_path)) == 2
        assert "2 processes, 0.571 images a second" in printed(look(tmp_path), tmp_path)
        os.utime(owner, (time.time() - 301,) * 2)
        assert max(cell.processes for cell in look(tmp_path)) == 1, "a machine that gives no sign of life"
        ended = subprocess.run([sys.executable, "-c", "import os; print(os.getpid())"], capture_output=True, check=True)
        (other,) = (run.path / "leases").glob("000003/*/owner.json")
        other.write_text(json.dumps(json.loads(other.read_text()) | {"process": int(ended.stdout)}))
        assert max(cell.processes for cell in look(tmp_path)) == 0, "a process that is no more"


CANCELLED = """srun: Job step aborted: Waiting up to 7 seconds for job step to finish.
srun: got SIGCONT
slurmstepd-vm: error: *** JOB 2 ON vm CANCELLED AT 2026-11-26T10:18:30 ***
srun: forcing job termination
slurmstepd-vm: error: *** STEP 2.0 ON vm CANCELLED AT 2026-11-26T10:18:30 DUE TO TIME LIMIT ***
srun: error: vm: task 0: Terminated
"""


def leave_log(results: Path, job: str, text: str, moment: float) -> Path:
    """What a job of Slurm's has said, as submitit keeps it."""
    path = results / "sweeps" / "2026-11-26_10-00-00" / job / f"{job}_0_log.err"
    path.parent.mkdir(parents=True)
    path.write_text(text)
    os.utime(path, (moment, moment))
    return path


def test_jobs_that_slurm_killed(tmp_path: Path) -> None:
    leave_run(tmp_path, "igos", 28, [(0.1, 0.9)])
    now = time.time()
    limit = leave_log(tmp_path, "2_0", f"igos-bench: a line\n{CANCELLED}srun: error: vm: task 0: Killed\n", now - 10)
    reason = "slurmstepd-vm: error: *** STEP 2.0 ON vm CANCELLED AT 2026-11-26T10:18:30 DUE TO TIME LIMIT ***"
    killed = leave_log(tmp_path, "2_1", "srun: error: vm: task 0: Killed\nsrun: Force Terminated StepId=8.0\n", now)
    memory = "slurmstepd: error: Detected 1 oom_kill event in StepId=2.0. Some of the step tasks have been OOM Killed."
    leave_log(tmp_path, "2_2", "x" * 200_000 + f"\n{memory}\n", now - 20)
    ended = leave_log(tmp_path, "2_3", CANCELLED, now)
    ended.with_name("2_3_0_result.pkl").write_bytes(b"")  # it was preempted, went on, and came to its end
    leave_log(tmp_path, "2_4", "srun: error: vm: task 0: Exited with exit code 1\nigos-bench: Killed by a fly\n", now)
    found = [line for line in printed(look(tmp_path), tmp_path).splitlines() if line.startswith("killed: ")]
    assert [line.partition(" job ")[2] for line in found] == [
        f"2_1: srun: error: vm: task 0: Killed ({killed})",
        f"2_0: {reason}; srun: error: vm: task 0: Killed ({limit})",
        f"2_2: {memory} ({tmp_path}/sweeps/2026-11-26_10-00-00/2_2/2_2_0_log.err)",
    ]
    for i in range(5):
        leave_log(tmp_path, f"1_{i}", CANCELLED, now - 100 - i)
    shown = printed(look(tmp_path), tmp_path).splitlines()
    assert sum(" job " in line for line in shown) == 5
    assert shown[-1] == f"killed: and others before, see {tmp_path / 'sweeps'}"
    with pytest.raises(UserError, match="no runs under .*; killed: .* job 2_1: srun: error: vm: task 0: Killed"):
        elsewhere = tmp_path / "elsewhere"
        elsewhere.mkdir()
        (tmp_path / "sweeps").rename(elsewhere / "sweeps")
        look(elsewhere)


def test_a_killed_jobs_cell(tmp_path: Path) -> None:
    """Named as the job has named it; left out once it is complete, as another job has gone on with it."""
    leave_run(tmp_path, "igos", 28, [(0.1, 0.9)] * 2, requested=4, seed=1)
    complete = leave_run(tmp_path, "igos", 28, [(0.1, 0.9)] * 4, seed=2)
    leave_run(tmp_path, "igos", 28, [(0.1, 0.9)] * 4, seed=2, parameters={"steps": 7})
    words = "model=toy data=images (4 images) protocol=paper device=cpu precision=fp32"
    for seed, shard in ((1, " shard=2/3"), (2, ""), (3, "")):
        log = leave_log(tmp_path, f"5_{seed}", CANCELLED, time.time() - seed)
        header = f"run: method=igos resolution=28 {words} seed={seed}{shard}\n"
        log.with_name(log.name.replace(".err", ".out")).write_text(f"submitit INFO - Loading\n{header}resumed 1/4\n")
    log = leave_log(tmp_path, "5_4", CANCELLED, time.time() - 4)
    log.with_name(log.name.replace(".err", ".out")).write_text("submitit INFO - Loading\nrun: me")

    def killed() -> list[str]:
        return re.findall(
            r"^killed: .* job (.+): slurmstepd-vm: error: ", printed(look(tmp_path), tmp_path), re.MULTILINE
        )

    named = "igos at 28 on toy, images, under paper with seed"
    assert killed() == [f"5_1, {named} 1, shard 2/3", f"5_3, {named} 3", "5_4"]
    # Of two cells that a job's words do not tell apart, one is not complete.
    (complete.protocol_path / "records" / "000001.csv").unlink()
    assert killed() == [f"5_1, {named} 1, shard 2/3", f"5_2, {named} 2", f"5_3, {named} 3", "5_4"]


def test_cells_that_differ_in_settings_alone(tmp_path: Path) -> None:
    """Each has its key, as in the table; and what was not begun is not passed over in silence."""
    runs = [leave_run(tmp_path, "igos", 28, [(0.1, 0.9)], seed=seed) for seed in (0, 1)]
    shown = printed(look(tmp_path), tmp_path)
    assert {line.split()[-1] for line in shown.splitlines() if " complete " in line} == {run.path.name for run in runs}
    assert "\nwhat was not begun is not counted: `igos-bench plan -m ...`" in shown


def test_nothing_there(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="no runs under") as error:
        look(tmp_path)
    assert "broke" not in str(error.value)
    jobs = Jobs(sweep=True)
    jobs.failed = {
        ("no weights", 2): ["igos at 28"],
        ("rows say why", 3): ["mask at 28"],
        ("logged", 1): ["rise at 224"],
    }
    jobs.leave_reasons(str(tmp_path))
    with pytest.raises(UserError, match=r"no runs under .*; broke: .* igos at 28: no weights \([^;]*\)$"):
        look(tmp_path)


def test_the_command_needs_no_torch(igos_bench: Command, tmp_path: Path) -> None:
    leave_run(tmp_path / "results", "igos", 28, [(0.1, 0.9)])
    command = "import sys; sys.argv[1:] = ['status']; from igos_bench import cli; assert cli.main() == 0;"
    command += "assert 'torch' not in sys.modules and 'hydra' not in sys.modules"
    environment = {**os.environ, "PYTHONPATH": str(Path(__file__).parent.parent)}
    subprocess.run([sys.executable, "-c", command], cwd=tmp_path, env=environment, check=True, timeout=60)
    ended = igos_bench("status", "result_dir=x")
    assert ended.returncode == 2 and "did you mean 'results_dir'?" in ended.stderr
