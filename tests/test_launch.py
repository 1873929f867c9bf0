"""A launcher that cannot be used is said so in one line; on a real Slurm it is in test_slurm."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest
from conftest import Command
from noise import write_noise

from igos_bench.errors import UserError
from igos_bench.launch import check_launcher_is_there, launcher_of
from igos_bench.overrides import check_overrides, composed_sweep

ROOT = Path(__file__).parent.parent
WITHOUT = "import sys; sys.modules['hydra_plugins.hydra_submitit_launcher'] = None; "
RUN = "import sys; from igos_bench.__main__ import main; sys.exit(main())"


def said(code: str, *words: str) -> str:
    ended = subprocess.run(
        [sys.executable, "-c", code, *words], env={**os.environ, "PYTHONPATH": str(ROOT), "PATH": "/nowhere"},
        capture_output=True, text=True, timeout=120, check=False,
    )  # fmt: skip
    assert ended.returncode == 2, ended.stderr
    assert ended.stderr.count("\n") == 1, ended.stderr
    return ended.stderr


def test_what_is_missing_is_said() -> None:
    assert "pip install 'igos-bench[slurm]'" in said(WITHOUT + RUN, "-m", "seed=0,1", "hydra/launcher=slurm")
    assert "there is no sbatch here" in said(RUN, "-m", "seed=0,1", "hydra/launcher=slurm")


def test_a_launcher_is_for_sweeps() -> None:
    with pytest.raises(UserError, match="hydra/launcher=slurm starts the jobs of a sweep: it needs the flag -m"):
        check_launcher_is_there("slurm", sweep=False)
    assert launcher_of(["seed=0", "hydra/launcher=slurm"]) == "slurm"
    assert launcher_of(["seed=0"]) == "basic"


def test_cells_that_do_not_exist_are_not_submitted(igos_bench: Command, tmp_path: Path) -> None:
    """Real jobs, of the launcher that starts them on this machine."""
    write_noise(tmp_path / "images", ["0.png", "1.png"])
    words = (
        *("model=timm", "model.architecture=mobilenetv3_small_050", "model.weights=null", "device=cpu", "data=folder"),
        *("data.root=images", "chunk_size=1", "protocol.n_steps=2", "resolution=28", "results_dir=out", "shards=2"),
        *("hydra/launcher=submitit_local", "hydra.launcher.timeout_min=3"),
    )
    ended = igos_bench("-m", *words, "method=integrated_gradients,grad_cam,rise")
    line = "integrated_gradients has no resolution 28 on mobilenetv3_small_050; available: 224"
    assert ended.stderr.count(f"not available: {line}") == 1, ended.stderr
    assert ended.stderr.count("not available: rise has no") == 1, ended.stderr
    assert "2 shards of cells without a failure, 4 not available, 0 failed" in ended.stdout
    assert ended.returncode == 0 and len(list(tmp_path.glob("out/sweeps/**/*_submitted.pkl"))) == 2
    ended = igos_bench("-m", *words, "method=integrated_gradients,rise")
    assert ended.returncode == 2 and "no cell of this sweep is available" in ended.stderr
    assert len(list(tmp_path.glob("out/sweeps/**/*_submitted.pkl"))) == 2, "and nothing is submitted"


def test_its_settings_are_checked() -> None:
    words = ["seed=0,1", "hydra/launcher=slurm", "hydra.launcher.timeout_min=30", "results_dir=r"]
    check_overrides(words, sweep=True)
    with composed_sweep(words) as (config, jobs):
        assert config.hydra.launcher.timeout_min == 30
        assert config.hydra.launcher.submitit_folder.startswith(str(Path("r/sweeps").absolute()))
        assert jobs == [["seed=0", "results_dir=r"], ["seed=1", "results_dir=r"]]
    for word in ("hydra.launcher.tasks_per_node=8", "hydra.launcher.nodes=2"):
        with pytest.raises(UserError, match=f"{word}: Hydra hears of the first task of a job alone.+shards=N$"):
            check_overrides([*words, word], sweep=True)
    check_overrides([*words, "hydra.launcher.tasks_per_node=1"], sweep=True)
    with pytest.raises(UserError, match="partitoin"):
        check_overrides(["hydra/launcher=slurm", "hydra.launcher.partitoin=gpu"], sweep=True)
