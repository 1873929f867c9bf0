"""The table of protocol sensitivity, on real runs of a small network with random weights; nothing is stubbed."""

from __future__ import annotations

import shlex
import shutil
import sys
from dataclasses import asdict, dataclass, replace
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import timm
import torch
from PIL import Image
from toys import toy_image

from igos_bench import cli
from igos_bench.cells import Cell
from igos_bench.config import plain
from igos_bench.errors import UserError
from igos_bench.overrides import compose_config
from igos_bench.prepare import prepare
from igos_bench.results import RunDirectory
from igos_bench.runner import Outcome, execute

SCRIPTS = Path(__file__).parent.parent / "scripts"
sys.path.insert(0, str(SCRIPTS))

import protocol_sensitivity  # noqa: E402
import rerun  # noqa: E402
import stored  # noqa: E402

MODEL = "mobilenetv3_small_050"
QUICK = {
    "igos": ["method=igos", "method.iterations=2", "method.path_steps=1", "method.smallest_step=10"],
    "mask": ["method=mask", "method.iterations=4"],
}
RESNET18 = ("model=timm", "model.architecture=resnet18")


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
        "evaluate.batch_size=1",  # inputs run alone give the same numbers under every number of steps
    ]  # fmt: skip
    words = {method: [*common, *quick] for method, quick in QUICK.items()}
    return Runs(folder, words, {method: execute_words(said) for method, said in words.items()})


def read(out: Path) -> pd.DataFrame:
    return pd.read_csv(out, dtype={"value": str}).set_index(["choice", "value", "method"]).sort_index()


@pytest.mark.long
def test_stored_curves_give_what_scoring_again_gives(
    runs: Runs, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    out = tmp_path / "table.csv"
    monkeypatch.delattr(stored, "prepare")  # no network is loaded
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


@pytest.mark.long
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
    commands = [shlex.split(line)[2:] for line in capsys.readouterr().out.splitlines() if "  igos-bench -m " in line]
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


def planned(line: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> set[tuple[str, int]]:
    """The cells that `igos-bench` itself makes of a line."""
    capsys.readouterr()
    program, *words = shlex.split(line)
    monkeypatch.setattr(sys, "argv", [program, "plan", *words])
    assert cli.main() == 0
    lines = capsys.readouterr().out.split("\n\n")[0].splitlines()[1:]
    return {(line.split()[0], int(line.split()[1])) for line in lines}


@pytest.mark.long
def test_commands_are_few_and_igos_bench_takes_them(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    full = {"excitation_bp": (112, 28, 14), "grad_cam": (14,), "igos": (224, 112, 28, 14)}
    full |= {"integrated_gradients": (224,), "mask": (224, 112, 28, 14), "rise": (224,)}
    configs = {method: compose_config([f"method={method}"]) for method in full}

    def lines(wanted: dict[str, tuple[int, ...]]) -> list[str]:
        asked = [replace(configs[method], resolution=r) for method, several in wanted.items() for r in several]
        return list(rerun.commands([(config, "seed=1") for config in asked], str(tmp_path / "no results")))

    (line,) = lines(full)
    assert planned(line, monkeypatch, capsys) == {(method, r) for method, several in full.items() for r in several}
    # Nobody asked for Mask at 28 or for I-GOS at 14, which one line would compute.
    swept = [shlex.split(line)[2:4] for line in lines({"mask": (112, 14), "igos": (112, 28), "grad_cam": (14,)})]
    assert swept == [["method=grad_cam,mask", "resolution=112,14"], ["method=igos", "resolution=112,28"]]
    # Nobody knows whether a network without a YAML has a layer for Grad-CAM at 28.
    configs = {method: compose_config([f"method={method}", *RESNET18]) for method in ("igos", "grad_cam")}
    assert len(lines({"igos": (28,), "grad_cam": (14,)})) == 2


def test_a_command_says_everything_that_is_not_as_in_conf(
    runs: Runs, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    said = ["method.lambdas={28:[2.5,40],14:[1,2]}", "evaluate.batch_size=3"]
    config = compose_config([*runs.words["igos"], *said])
    (line,) = rerun.commands([(config, "method.noise=rgb")], str(runs.folder / "out"))
    assert planned(line, monkeypatch, capsys) == {("igos", 14)}
    config.method["noise"] = "rgb"
    assert compose_config(shlex.split(line)[2:]) == config
    del config.method["lambdas"][28]  # no word takes a key away
    assert list(rerun.commands([(config, "seed=1")], "out")) == ["(what made igos at 14, with seed=1)"]
    config.method["name"] = "of_my_own"
    assert list(rerun.commands([(config, "seed=1")], "out")) == ["(what made of_my_own at 14, with seed=1)"]


def test_a_run_that_was_extended_is_made_as_large(runs: Runs) -> None:
    _, cell = stored.reference_cells(stored.finished_runs(str(runs.folder / "out"), MODEL, "folder"), seed=0)
    run_json = cell.directory.read_provenance()
    assert run_json is not None
    run_json["config"]["data"]["limit"] = 1  # as of its first start
    try:
        before = (cell.directory.path / "run.json").read_bytes()
        cell.directory.write_provenance(run_json)
        assert stored.config_of(cell).data.limit == 2
        assert stored.config_of(cell, 1).data.limit == 1
        assert stored.config_of(cell, 7).data.limit == 2
    finally:
        (cell.directory.path / "run.json").write_bytes(before)


def test_only_finished_runs_count(runs: Runs, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    shutil.copytree(runs.folder / "out", tmp_path / "out")
    (listing,) = tmp_path.glob(f"out/runs/*/*/mask/14/{runs.outcomes['mask'].directory.name}/images.txt")
    listing.write_text(listing.read_text() + "another.png\n")  # asked for later, and killed before it was done
    capsys.readouterr()
    found = stored.finished_runs(str(tmp_path / "out"), MODEL, "folder")
    assert runs.outcomes["igos"].directory.name in (keys := {cell.run_key for cell in found})
    assert runs.outcomes["mask"].directory.name not in keys
    assert f"passed over, 2 of 3 images are done: {listing.parent}" in capsys.readouterr().out


def test_of_several_runs_the_one_as_in_conf_counts(runs: Runs, tmp_path: Path) -> None:
    _, quick = stored.reference_cells(stored.finished_runs(str(runs.folder / "out"), MODEL, "folder"), seed=0)
    config = plain(asdict(compose_config(["method=mask", "resolution=14"])))
    usual = replace(quick, run_key="usual", directory=RunDirectory(tmp_path, "paper-0"))
    usual.directory.write_provenance({"config": config})
    assert stored.reference_cells([quick, usual], seed=0) == [usual]
    with pytest.raises(UserError, match=r"2 runs of mask at 14: .*; move all but one away"):
        stored.reference_cells([quick, quick], seed=0)
    with pytest.raises(UserError, match="no run of seed=1"):
        stored.reference_cells([quick, usual], seed=1)


# By hand


def flat(folder: Path, method: str, deletion: float, insertion: float, ties: float) -> Cell:
    """A cell at 2 on one image, with flat curves."""
    directory = RunDirectory(folder / method, "paper-0")
    names = np.array(["image"])
    curves = {"deletion": np.full((1, 5), deletion, np.float32), "insertion": np.full((1, 5), insertion, np.float32)}
    directory.write_maps(0, {"image_id": names, "saliency_map": np.zeros((1, 1, 2, 2), np.float32)})
    row = {"image_id": "image", "status": "ok", "ties": ties}
    directory.commit(0, {"image_id": names, "hits": np.arange(5), **curves}, [row])
    rows = pd.DataFrame([row]).set_index("image_id")
    return Cell("m", "d", "paper", method, 2, "", method, {}, 1, rows, directory, ())


def test_ranks_and_changed_places(tmp_path: Path) -> None:
    cells = [flat(tmp_path, *cell) for cell in (("a", 0.125, 0.5, 0.9), ("b", 0.25, 0.75, 0.0), ("c", 0.5, 0.25, 0.1))]
    out = tmp_path / "table.csv"
    other = pd.DataFrame(columns=list(protocol_sensitivity.COLUMNS))
    other.loc[0] = ["other", "d", "ties", "0", "a", 2, 1, 0.0, 1.0, 0.0, 0.0, 7, 7, 7, 7, "key"]
    other.to_csv(out, index=False)
    options = protocol_sensitivity.Options(model="m", data="d", out=str(out), choices=[])
    table = protocol_sensitivity.Table(options)
    assert protocol_sensitivity.fill(table, cells, cells, options) == []
    ties = next(variant for variant in protocol_sensitivity.variants() if variant.choice == "ties")
    for cell, deletion, insertion in ((cells[0], 0.375, 0.5), (cells[2], 0.5, 0.25)):  # b is passed: a was 0.125
        before = stored.stored_areas(cell, ties.reference, ["image"])
        table.put(ties, cell, cell.run_key, np.array([[deletion], [insertion]]), before)
    table.put(ties, cells[0], "", np.zeros((2, 1)), np.zeros((2, 1)))  # as if, on fewer images, it had no ties
    table.write()

    ranked = table.ranked()
    found = ranked[(ranked["choice"] == "ties") & (ranked["value"] == "0")].set_index("method").sort_index()
    assert found["deletion_rank"].tolist() == [2, 1, 3]
    assert found["deletion_rank_reference"].tolist() == [1, 2, 3]
    assert found["insertion_rank"].tolist() == found["insertion_rank_reference"].tolist() == [2, 1, 3]
    assert found["run_key"].tolist() == ["a", "", "c"]  # b has no ties
    written = pd.read_csv(out)
    assert written[["model", "method", "deletion_rank"]].to_numpy().tolist() == [
        ["m", "a", 2], ["m", "c", 3], ["other", "a", 7],
    ]  # fmt: skip

    said = protocol_sensitivity.summary(ranked).splitlines()
    deletion, insertion, swap = (line for line in said if line.startswith("ties=0"))
    assert deletion.split()[1:] == ["deletion", "2", "+0.1250", "0.1250", "+0.2500", "0.333", "1", "of", "3"]
    assert insertion.split()[-4:] == ["1.000", "0", "of", "3"]
    assert swap.split(maxsplit=2)[1:] == ["deletion", "a - b at 2: -0.1250 -> +0.1250"]
    assert not any(line.startswith("noise") for line in said)  # nothing draws noise


def test_ties_in_random_order() -> None:
    values = torch.tensor([[[0.0, 0.5, 0.0], [0.0, -1.0, 0.5], [2.0, 0.0, -0.0]]])
    found = [stored.without_ties(values, torch.Generator().manual_seed(seed)).flatten() for seed in range(50)]
    for ranks in found:
        assert sorted(ranks.tolist()) == list(range(1, 10))
        assert values.flatten()[ranks.argsort(descending=True)].tolist() == [2, 0.5, 0.5, 0, 0, 0, 0, 0, -1]
    first_zero = [ranks[values.flatten() == 0].argmax().item() for ranks in found]
    assert set(first_zero) == {0, 1, 2, 3, 4}


def test_what_is_not_stored_is_refused(tmp_path: Path) -> None:
    cell = flat(tmp_path, "a", 0.1, 0.5, 0.0)
    paper = stored.protocol_of("paper")
    assert stored.stored_areas(cell, paper, ["image"]).flatten() == pytest.approx([0.1, 0.5])
    with pytest.raises(AssertionError, match="not among those that are stored"):
        stored.stored_areas(replace(cell, resolution=28), replace(paper, n_steps=30), ["image"])
    with pytest.raises(UserError, match="a has lost the map or the curves of another: start the run again"):
        stored.stored_areas(cell, paper, ["image", "another"])


def test_mistakes_are_named(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert protocol_sensitivity.main(["result_dir=x"]) == 2
    assert "did you mean 'results_dir'" in capsys.readouterr().err
    assert protocol_sensitivity.main(["choices=[steps]"]) == 2
    assert "unknown choice 'steps'" in capsys.readouterr().err
    assert protocol_sensitivity.main(["limit=many"]) == 2
    assert protocol_sensitivity.main(["limit=0"]) == 2
    assert "limit must be at least 1, found 0" in capsys.readouterr().err
    assert protocol_sensitivity.main([f"results_dir={tmp_path}"]) == 2
    assert "no finished runs under" in capsys.readouterr().err
