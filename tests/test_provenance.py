from __future__ import annotations

import json
import shutil
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest
from torchvision.utils import save_image
from toys import toy_image
from unmeasured import UNMEASURED

from igos_bench.config import Device, Precision
from igos_bench.errors import UserError
from igos_bench.marks import marks_of_run
from igos_bench.overrides import compose_config
from igos_bench.prepare import Run, choose_device, prepare
from igos_bench.provenance import describe
from igos_bench.runner import execute

ROOT = Path(__file__).parent.parent


@pytest.fixture
def run(tmp_path: Path) -> Run:
    (tmp_path / "images").mkdir()
    for i in range(3):
        save_image(toy_image(i), tmp_path / "images" / f"{i}.png")
    words = [
        "model=timm", "model.architecture=test_resnet", "model.weights=null", "data=folder", "method=grad_cam",
        f"data.root={tmp_path / 'images'}", f"results_dir={tmp_path / 'out'}", "resolution=14", "protocol.n_steps=1",
        "chunk_size=1", "data.limit=1", "device=cpu",
    ]  # fmt: skip
    return prepare(compose_config(words), config_dir="mine")


def test_code_and_machine_that_a_run_goes_on_with_are_kept(run: Run) -> None:
    def go_on(limit: int) -> None:
        run.config = replace(run.config, data=replace(run.config.data, limit=limit))
        execute(run, lambda _count, _rows: None)

    go_on(1)
    first = run.directory.read_provenance()
    assert first is not None and "continued" not in first
    assert (first["config_dir"], first["folder"]) == ("mine", str(Path.cwd()))

    elsewhere = {**first, "git": {"commit": "0" * 40, "dirty": False}, "versions": {"torch": "0"}}
    run.directory.write_provenance(elsewhere)
    go_on(1)
    assert "continued" not in (run.directory.read_provenance() or {}), "nothing was computed"
    go_on(2)
    go_on(3)
    found = run.directory.read_provenance()
    assert found is not None and (found["git"], found["versions"]) == (elsewhere["git"], elsewhere["versions"])
    (here,) = found["continued"]
    assert (here["git"], here["versions"], here["machine"]) == (first["git"], first["versions"], first["machine"])
    assert ("dirty" in marks_of_run(found)) == bool(first["git"] and first["git"]["dirty"])


def test_sizes_that_a_run_did_not_begin_with_are_told_of(run: Run) -> None:
    def go_on(batch_size: int | str | None, chunk_size: int | None) -> list[str]:
        told: list[str] = []
        evaluate = replace(run.config.evaluate, batch_size=batch_size)
        run.config = replace(run.config, evaluate=evaluate, chunk_size=chunk_size)
        execute(run, lambda _count, _rows: None, tell=told.append)
        return told

    assert go_on(3, 1) == []
    config = (run.directory.read_provenance() or {})["config"]
    for batch_size, chunk_size in ((3, 1), (None, None), ("auto", None), (3, None), (None, 1)):
        assert go_on(batch_size, chunk_size) == [], "nothing that is not there is asked for"
    where = f"the run in {run.directory.path} began with"
    both = "evaluate.batch_size=3 chunk_size=1 and goes on so; for evaluate.batch_size=2 chunk_size=5"
    assert go_on(2, 5) == [f"{where} {both} set another results_dir"]
    one = "chunk_size=1 and goes on so; for chunk_size=5"
    assert go_on(None, 5) == go_on("auto", 5) == go_on(3, 5) == [f"{where} {one} set another results_dir"]
    found = run.directory.read_provenance()
    assert found and (found["batch_size"], found["chunk_size"], found["config"]) == (3, 1, config)


def test_tf32_is_of_cuda_alone_and_a_run_of_its_own(run: Run) -> None:
    with pytest.raises(UserError, match="precision=tf32 is of CUDA devices alone, and the device is cpu"):
        choose_device(Device.cpu, Precision.tf32)
    keys = {}
    for precision in Precision:
        other = replace(run, config=replace(run.config, precision=precision))
        keys[other.map_key] = describe(other)["precision"]
    assert list(keys.values()) == ["fp32", "bf16", "tf32"], "three keys"


def test_only_what_numbers_come_of_makes_a_tree_dirty(tmp_path: Path) -> None:
    for name in ("igos_bench", "conf"):
        shutil.copytree(ROOT / name, tmp_path / name, ignore=shutil.ignore_patterns("__pycache__"))
    (tmp_path / ".gitignore").write_text("__pycache__/\n")
    for words in (["init", "-q"], ["add", "."], ["-c", "user.name=x", "-c", "user.email=x", "commit", "-qm", "x"]):
        subprocess.run(["git", *words], cwd=tmp_path, check=True)

    def is_dirty(**more: str) -> bool:
        code = "import json; from igos_bench.provenance import git_state; print(json.dumps(git_state()))"
        command = [sys.executable, "-c", code]
        said = subprocess.run(
            command, cwd=tmp_path, env=UNMEASURED | {"PYTHONPATH": ""} | more, stdout=subprocess.PIPE, check=True
        )
        return bool(json.loads(said.stdout)["dirty"])

    (tmp_path / "results").mkdir()
    (tmp_path / "results" / "table.csv").write_text("a table that a run left\n")
    (tmp_path / "README.md").write_text("a sentence about it\n")
    assert not is_dirty()
    assert not is_dirty(GIT_TEST_ASSUME_DIFFERENT_OWNER="1"), "as in a container, where git refuses to answer"
    (tmp_path / "conf" / "method" / "mine.yaml").write_text("name: mine\n")
    assert is_dirty()
    assert is_dirty(GIT_TEST_ASSUME_DIFFERENT_OWNER="1")
