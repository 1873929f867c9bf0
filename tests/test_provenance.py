from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
from torchvision.utils import save_image
from toys import toy_image

from igos_bench.config import Device, Precision
from igos_bench.errors import UserError
from igos_bench.marks import marks_of_run
from igos_bench.overrides import compose_config
from igos_bench.prepare import Run, choose_device, prepare
from igos_bench.provenance import describe
from igos_bench.runner import execute


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


def test_tf32_is_of_cuda_alone_and_a_run_of_its_own(run: Run) -> None:
    with pytest.raises(UserError, match="precision=tf32 is of CUDA devices alone, and the device is cpu"):
        choose_device(Device.cpu, Precision.tf32)
    keys = {}
    for precision in Precision:
        other = replace(run, config=replace(run.config, precision=precision))
        keys[other.map_key] = describe(other)["precision"]
    assert list(keys.values()) == ["fp32", "bf16", "tf32"], "three keys"
