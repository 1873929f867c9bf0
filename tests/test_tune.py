"""Choosing (l1, l2): the arithmetic on a table made by hand, and what `method.lambdas=tuned` reads."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

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


def test_the_sample_is_refused() -> None:
    command = [sys.executable, str(SCRIPTS / "tune.py"), "method=igos"]
    ended = subprocess.run(command, capture_output=True, text=True, timeout=120, check=False)
    assert ended.returncode == 2
    assert ended.stderr.startswith("tune: the sample is what is reported")
    assert "Traceback" not in ended.stderr
