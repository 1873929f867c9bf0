"""Table 1's fifteen cells, end to end: VGG19 (random weights) on an image in ImageNet's own tar.

Shortened: two iterations, eight masks, four steps. `make test-long` has I-GOS at 28 with all its iterations.
"""

from __future__ import annotations

import imagenets
import pytest
from conftest import Command

from igos_bench.errors import UnavailableError
from igos_bench.formats import Row
from igos_bench.overrides import compose_config
from igos_bench.prepare import prepare
from igos_bench.runner import execute

RESOLUTIONS = (224, 112, 28, 14)
SHORT = {
    "excitation_bp": [],
    "mask": ["method.iterations=2"],
    "grad_cam": [],
    "rise": ["method.masks=8"],
    "integrated_gradients": ["method.steps=2"],
    "igos": ["method.iterations=2", "method.path_steps=2", "method.smallest_step=10"],
}
CELLS = {
    "excitation_bp": RESOLUTIONS,
    "mask": RESOLUTIONS,
    "grad_cam": (14,),
    "rise": (224,),
    "integrated_gradients": (224,),
    "igos": RESOLUTIONS,
}


@pytest.fixture(scope="module")
def words(tmp_path_factory: pytest.TempPathFactory) -> list[str]:
    folder = tmp_path_factory.mktemp("table1")
    imagenets.make_tar(folder)
    return [
        "experiment=table1",
        f"data.root={folder}",
        "data.limit=1",
        "model.weights=null",
        # Without biases, what multiplies the input multiplies the logits; else I-GOS's steps are lost in rounding.
        "model.std=[0.002,0.002,0.002]",
        "protocol.n_steps=4",
        f"results_dir={folder / 'out'}",
    ]


@pytest.mark.long
@pytest.mark.timeout(1800)
def test_fifteen_cells(words: list[str]) -> None:
    done: dict[str, tuple[int, ...]] = dict.fromkeys(SHORT, ())
    for method, short in SHORT.items():
        for resolution in RESOLUTIONS:
            try:
                run = prepare(compose_config([*words, f"method={method}", f"resolution={resolution}", *short]))
            except UnavailableError as error:
                assert f"{method} has no resolution {resolution} on vgg19; available: " in str(error)
                continue
            rows: list[Row] = execute(run, lambda _count, _rows: None).rows
            assert [row["status"] for row in rows] == ["ok"], rows
            assert 0 <= rows[0]["deletion_auc"] <= 1 and 0 <= rows[0]["insertion_auc"] <= 1
            done[method] = (*done[method], resolution)
    assert done == CELLS
    assert sum(map(len, done.values())) == 15


def test_the_sweep_passes_over_what_is_not_available(igos_bench: Command, words: list[str]) -> None:
    ended = igos_bench(*words, "-m", "method=grad_cam")  # the flag anywhere
    assert ended.returncode == 0, ended.stderr
    assert ended.stderr.count("not available: grad_cam has no resolution") == 3
    assert "run: method=grad_cam resolution=14 model=vgg19 data=imagenet (1 images) protocol=paper" in ended.stdout
    assert "1 cells without a failure, 3 not available, 0 failed" in ended.stdout


@pytest.mark.long
@pytest.mark.timeout(1800)
def test_a_cell_at_the_method_s_full_settings(igos_bench: Command, words: list[str]) -> None:
    """Scored with four steps: that 200 are as many passes more is all that they would show."""
    ended = igos_bench(*words, "method=igos", "resolution=28", timeout=1700)
    assert ended.returncode == 0, ended.stderr
    assert "passes    " in ended.stdout and "300.0 backward" in ended.stdout
