"""The table of protocol sensitivity, on real runs of a small network with random weights; nothing is stubbed."""

from __future__ import annotations

import shlex
import sys
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import timm
import torch
from PIL import Image
from toys import toy_image

from igos_bench.config import ProtocolConfig
from igos_bench.metrics import Protocol
from igos_bench.overrides import compose_config
from igos_bench.prepare import prepare
from igos_bench.runner import Outcome, execute

SCRIPTS = Path(__file__).parent.parent / "scripts"
sys.path.insert(0, str(SCRIPTS))

import protocol_sensitivity  # noqa: E402

MODEL = "mobilenetv3_small_050"
QUICK = {
    "igos": ["method=igos", "method.iterations=2", "method.path_steps=1", "method.smallest_step=10"],
    "mask": ["method=mask", "method.iterations=4"],
}


def execute_words(words: list[str], *, explain: bool = True) -> Outcome:
    return execute(prepare(compose_config(words)), lambda _done, _rows: None, explain=explain)


def column(outcome: Outcome, key: str) -> list[float]:
    return [float(row[key]) for row in outcome.rows]


@dataclass
class Runs:
    """Two methods at 14 on two images, both under `paper`."""

    folder: Path
    words: dict[str, list[str]]
    outcomes: dict[str, Outcome]

    def start(self, out: Path, *more: str) -> int:
        words = [f"results_dir={self.folder / 'out'}", f"model={MODEL}", "data=folder", f"out={out}", *more]
        return protocol_sensitivity.main(words)


@pytest.fixture(scope="module")
def runs(tmp_path_factory: pytest.TempPathFactory) -> Runs:
    folder = tmp_path_factory.mktemp("sensitivity")
    (folder / "it's images").mkdir()
    for i in range(2):
        pixels = toy_image(i, size=48).mul(255).byte().permute(1, 2, 0).numpy()
        Image.fromarray(pixels).save(folder / "it's images" / f"{i}.png")
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        network = timm.create_model(MODEL)
    network.classifier.weight.data *= 5000  # random, and yet confident: otherwise all curves would be flat
    torch.save(network.state_dict(), folder / "weights.pth")
    common = [
        "data=folder", f"data.root='{folder}/it\\'s images'", "model=timm", f"model.architecture={MODEL}",
        f"model.weights={folder / 'weights.pth'}", "resolution=14", f"results_dir={folder / 'out'}",
    ]  # fmt: skip
    words = {method: [*common, *quick] for method, quick in QUICK.items()}
    return Runs(folder, words, {method: execute_words(said) for method, said in words.items()})


def read(out: Path) -> pd.DataFrame:
    return pd.read_csv(out, dtype={"value": str}).set_index(["choice", "value", "method"]).sort_index()


def test_stored_curves_give_what_scoring_again_gives(runs: Runs, tmp_path: Path) -> None:
    out = tmp_path / "table.csv"
    assert runs.start(out, "choices=[n_steps,area]") == 0
    assert tuple(pd.read_csv(out).columns) == protocol_sensitivity.COLUMNS
    table = read(out)
    assert len(table) == 12
    for method, outcome in runs.outcomes.items():
        same = table.loc["n_steps", "200", method]
        assert same["run_key"] == outcome.directory.name
        assert (same["deletion_shift"], same["insertion_shift"], same["n"]) == (0, 0, 2)
        again = execute_words([*runs.words[method], "protocol.n_steps=20"], explain=False)
        (chunk,) = (outcome.directory / outcome.records.parent.name / "curves").glob("*.npz")
        for kind in ("deletion", "insertion"):
            paper = np.mean(column(outcome, f"{kind}_auc"))
            row = table.loc["n_steps", "20", method]
            expected = np.mean(column(again, f"{kind}_auc"))
            assert row[f"{kind}_auc"] == pytest.approx(expected, abs=1e-7)
            assert row[f"{kind}_shift"] == pytest.approx(expected - paper, abs=1e-7)
            assert abs(expected - paper) > 1e-5  # else the comparison would say nothing
            expected = np.load(chunk)[kind].astype(float)[:, 1:].mean()  # 196 equal steps
            assert table.loc["area", "right", method][f"{kind}_auc"] == pytest.approx(expected, abs=1e-12)


def test_the_network_is_asked_again(runs: Runs, tmp_path: Path) -> None:
    """One image; where igos-bench can score the same, it gives the same."""
    out = tmp_path / "table.csv"
    assert runs.start(out, "choices=[protocol,baseline]", "methods=[mask]", "limit=1") == 0
    table = read(out).droplevel("method")
    assert (table["n"] == 1).all() and len(table) == 4
    mean = "{kind:mean,kernel_size:51,sigma:50.0}"
    short = execute_words([*runs.words["mask"], "data.limit=1", "protocol.n_steps=50"], explain=False)
    for place, reference, *words in (
        (("protocol", "igos_pp"), runs.outcomes["mask"], "protocol=igos_pp"),
        (("baseline", "mean"), short, "protocol.n_steps=50",
         f"protocol.deletion_baseline={mean}", f"protocol.insertion_baseline={mean}"),
    ):  # fmt: skip
        again = execute_words([*runs.words["mask"], "data.limit=1", *words], explain=False)
        for kind in ("deletion", "insertion"):
            (expected,) = column(again, f"{kind}_auc")
            assert table.loc[place, f"{kind}_auc"] == pytest.approx(expected, abs=1e-7)
            moved = expected - column(reference, f"{kind}_auc")[0]
            assert table.loc[place, f"{kind}_shift"] == pytest.approx(moved, abs=1e-7)
            assert abs(moved) > 1e-5


def test_a_second_start_does_nothing_and_a_lost_row_comes_back(
    runs: Runs, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "table.csv"
    words = ("choices=[n_steps,ties]", "resolutions=[14]", "methods=[igos]", "limit=1")
    assert runs.start(out, *words) == 0
    assert float(runs.outcomes["igos"].rows[0]["ties"]) > 0.1
    assert read(out).loc["ties", "deletion_auc"].nunique() == 3
    first = out.read_text()
    before = out.stat().st_mtime_ns
    capsys.readouterr()
    assert runs.start(out, *words) == 0
    assert (out.stat().st_mtime_ns, out.read_text()) == (before, first)
    assert "images): deletion" not in capsys.readouterr().out

    lines = first.splitlines(keepends=True)
    out.write_text("".join(line for line in lines if ",ties,1," not in line))
    assert runs.start(out, *words) == 0
    assert capsys.readouterr().out.count("images): deletion") == 1
    assert out.read_text() == first


def test_fewer_images_do_not_take_the_place_of_more(
    runs: Runs, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "table.csv"
    assert runs.start(out, "choices=[area]", "limit=1") == 0
    assert runs.start(out, "choices=[area]") == 0
    assert set(read(out)["n"]) == {2}
    assert runs.start(out, "choices=[area]", "limit=1") == 2
    assert "over 2 images, this would be over 1: name another file, out=FILE" in capsys.readouterr().err


def test_runs_that_are_not_there_are_named_and_then_found(
    runs: Runs, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "table.csv"
    words = ("choices=[preprocessing,noise]", "methods=[mask]")
    assert runs.start(out, *words) == 0
    commands = [shlex.split(line)[1:] for line in capsys.readouterr().out.splitlines() if "  igos-bench " in line]
    assert not out.exists()
    asked = [compose_config(words) for words in commands]
    assert [(config.method["name"], config.preprocessing.value, config.method["noise"]) for config in asked] == [
        ("mask", "antialias", "authors"),
        ("mask", "plain", "rgb"),
    ]
    made = compose_config(runs.words["mask"])
    asked[1].method["noise"] = "authors"
    assert asked[1] == made

    anew = execute_words([*commands[0], "data.limit=1"])
    assert runs.start(out, *words) == 0
    (row,) = read(out).to_dict("records")
    assert (row["run_key"], row["n"]) == (anew.directory.name, 1)
    assert row["insertion_auc"] == column(anew, "insertion_auc")[0]
    moved = column(anew, "insertion_auc")[0] - column(runs.outcomes["mask"], "insertion_auc")[0]
    assert row["insertion_shift"] == pytest.approx(moved, abs=1e-12) and abs(moved) > 1e-5


# By hand


def stored(method: str, deletion: float, insertion: float, ties: float) -> protocol_sensitivity.Stored:
    """A run at 2 on one image, with flat curves."""
    paper = Protocol.from_config(ProtocolConfig())
    provenance = {"method": method, "resolution": 2, "map_key": method, "config": {"method": {"name": method}}}
    found = protocol_sensitivity.Stored(Path(method), provenance, paper, {"image": {"ties": str(ties)}})
    found.curves = {"image": (np.full(5, deletion, np.float32), np.full(5, insertion, np.float32))}
    return found


def test_ranks_and_changed_places() -> None:
    cells = [stored("a", 0.125, 0.5, 0.9), stored("b", 0.25, 0.75, 0.0), stored("c", 0.5, 0.25, 0.1)]
    options = protocol_sensitivity.Options(model="m", data="d")
    table = pd.DataFrame(
        [
            ("m", "d", "ties", "0", "a", 2, 1, 0.375, 0.5, 0.25, 0.0),  # b is passed: it was 0.125, b stays at 0.25
            ("m", "d", "ties", "0", "c", 2, 1, 0.5, 0.25, 0.0, 0.0),
            ("other", "d", "ties", "0", "a", 2, 1, 0.0, 1.0, 0.0, 0.0),
        ],
        columns=list(protocol_sensitivity.COLUMNS[:11]),
    )
    found = protocol_sensitivity.compared(table, cells, options).set_index("method").sort_index()
    assert found["deletion_rank"].tolist() == [2, 1, 3]
    assert found["deletion_rank_reference"].tolist() == [1, 2, 3]
    assert found["insertion_rank"].tolist() == found["insertion_rank_reference"].tolist() == [2, 1, 3]
    assert found["row"].isna().tolist() == [False, True, False]  # b has no ties, and so no row
    said = protocol_sensitivity.summary(found.reset_index()).splitlines()
    deletion = next(line for line in said if line.startswith("ties=0") and " deletion " in line)
    assert deletion.split()[2:7] == ["2", "+0.1250", "0.1250", "+0.2500", "0.333"]  # one of three pairs the other way
    assert "a and b at 2 (-0.1250 -> +0.1250)" in deletion
    insertion = next(line for line in said if line.startswith("ties=0") and " insertion " in line)
    assert insertion.split()[-2:] == ["1.000", "-"]


def test_ties_in_random_order() -> None:
    values = torch.tensor([[[0.0, 0.5, 0.0], [0.0, -1.0, 0.5], [2.0, 0.0, -0.0]]])
    found = [
        protocol_sensitivity.without_ties(values, torch.Generator().manual_seed(seed)).flatten() for seed in range(50)
    ]
    for ranks in found:
        assert sorted(ranks.tolist()) == list(range(1, 10))
        assert values.flatten()[ranks.argsort(descending=True)].tolist() == [2, 0.5, 0.5, 0, 0, 0, 0, 0, -1]
    first_zero = [ranks[values.flatten() == 0].argmax().item() for ranks in found]
    assert set(first_zero) == {0, 1, 2, 3, 4}


def test_steps_that_are_not_stored_are_refused() -> None:
    cell = stored("a", 0.1, 0.5, 0.0)
    with pytest.raises(AssertionError, match="not among those that are stored"):
        cell.provenance["resolution"] = 28
        cell.areas(Protocol.from_config(ProtocolConfig(n_steps=30)), ["image"])


def test_mistakes_are_named(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert protocol_sensitivity.main(["result_dir=x"]) == 2
    assert "did you mean 'results_dir'" in capsys.readouterr().err
    assert protocol_sensitivity.main(["choices=[steps]"]) == 2
    assert "unknown choice 'steps'" in capsys.readouterr().err
    assert protocol_sensitivity.main(["limit=many"]) == 2
    assert protocol_sensitivity.main([f"results_dir={tmp_path}"]) == 2
    assert "no finished runs under" in capsys.readouterr().err
