"""Choosing (l1, l2): the arithmetic on a table made by hand, and what `method.lambdas=tuned` reads."""

from __future__ import annotations

import sys
from pathlib import Path

import foolbox
import pandas as pd
import pytest

from igos_bench.errors import UserError
from igos_bench.tuned import tuned_lambdas

SCRIPTS = Path(__file__).parent.parent / "scripts"
sys.path.insert(0, str(SCRIPTS))

import tune  # noqa: E402


def scores(table: dict[float, list[float]]) -> pd.DataFrame:
    """l1 -> insertion of three images; deletion is 0.1."""
    key = {"model": "m", "method": "igos", "resolution": 28, "l2": 1.0, "deletion_auc": 0.1}
    key |= {"precision": "fp32", "n_steps": 200, "seed": 0}
    return pd.DataFrame(
        [
            {**key, "l1": l1, "image_id": f"i{i}", "insertion_auc": value}
            for l1, values in table.items()
            for i, value in enumerate(values)
        ]
    )


def test_choice_and_leave_one_out() -> None:
    # Without i2 the second pair is the best one, and i2 scores 0.1 with it.
    chosen = tune.choose(scores({1.0: [0.5, 0.5, 0.9], 2.0: [0.6, 0.6, 0.2]})).iloc[0]
    assert (chosen["l1"], chosen["images"], chosen["pairs"]) == (1.0, 3, 2)
    assert chosen["score"] == pytest.approx((0.4 + 0.4 + 0.8) / 3)
    assert chosen["held_out"] == pytest.approx((0.4 + 0.4 + 0.1) / 3)
    assert (chosen["held_out_low"], chosen["held_out_high"]) == pytest.approx((0.25, 0.4))


def test_a_second_tuning_takes_the_place_of_the_first(tmp_path: Path) -> None:
    path = tmp_path / "tuned_lambdas.csv"
    tune.merge(path, tune.choose(scores({1.0: [0.5, 0.5, 0.5]})))
    tune.merge(path, tune.choose(scores({3.0: [0.5, 0.5, 0.5]})).assign(resolution=14))
    tune.merge(path, tune.choose(scores({2.0: [0.5, 0.5, 0.5]})))
    found = pd.read_csv(path)
    assert found[["resolution", "l1"]].to_numpy().tolist() == [[14, 3.0], [28, 2.0]]


def test_nothing_tuned_is_said() -> None:
    with pytest.raises(UserError, match="nothing was tuned for igos on no_such_model, only for"):
        tuned_lambdas("no_such_model", "igos")


SAMPLE = Path(foolbox.__file__).parent / "data"


@pytest.mark.parametrize(
    ("words", "message"),
    [
        ([], "the sample is what is reported"),
        (["data.name=mine"], "the sample is what is reported"),
        (["data=folder", f"data.root={SAMPLE}"], "the sample is what is reported"),
        (["data=folder", "data.root=.", "factors=[]"], "factors=[]: write factors above 0"),
        (
            ["factors=abc"],
            "factors=abc: Invalid value assigned: AnyNode is not a ListConfig, list or tuple. Write factors=[0.1,1,10]",
        ),
        (["data=folder", "data.root=."], "none of the 1 images decodes"),
    ],
)
def test_mistakes_are_one_line(
    words: list[str],
    message: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    (tmp_path / "a.jpg").write_text("no image")
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("sys.argv", ["tune.py", "method=mask", "resolution=14", *words])
    assert tune.main() == 2
    assert capsys.readouterr().err.startswith(f"tune: {message}")


def test_what_was_tuned_is_found() -> None:
    for method in ("igos", "mask"):
        found = tuned_lambdas("efficientnet_lite0", method)
        assert set(found) == {224, 112, 28, 14} and all(l1 > 0 and l2 > 0 for l1, l2 in found.values())
