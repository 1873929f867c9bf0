"""The words of the scripts, and what is said where one is mistyped."""

from __future__ import annotations

import sys
from dataclasses import dataclass, field
from importlib import import_module
from pathlib import Path

import pytest

from igos_bench.errors import UserError

sys.path.insert(0, str(Path(__file__).parent.parent / "scripts"))

from options import read_options


@dataclass
class Options:
    limit: int | None = None
    sizes: list[int] = field(default_factory=lambda: [1, 2])
    out: str = "results"


def test_words_are_read_into_their_types(monkeypatch: pytest.MonkeyPatch) -> None:
    assert read_options(Options, ["limit=3", "sizes=[4]"]) == Options(3, [4], "results")
    monkeypatch.setattr("sys.argv", ["script.py", "out=elsewhere"])
    assert read_options(Options) == Options(out="elsewhere")


@pytest.mark.parametrize(
    ("word", "message"),
    [
        ("limt=3", "unknown key 'limt' (did you mean 'limit'?); choices: limit, sizes, out"),
        ("--quick", "unknown key '--quick'"),
        ("limit=abc", "limit=abc: Value 'abc' "),
        ("sizes=3", "sizes=3: "),
        ("sizes=[1,", "sizes=[1,: "),
    ],
)
def test_a_mistake_is_one_line(word: str, message: str) -> None:
    with pytest.raises(UserError) as raised:
        read_options(Options, [word])
    assert str(raised.value).startswith(message) and "\n" not in str(raised.value)


@pytest.mark.parametrize(
    "script", ["agreement", "attempts", "bench", "bench_scale", "chaos", "plan_check", "simulate_scale"]
)
def test_a_script_says_what_is_mistyped(
    script: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr("sys.argv", [f"{script}.py", "uot=elsewhere"])
    assert import_module(script).main() == 2
    assert capsys.readouterr().err.startswith(f"{script}: unknown key 'uot'")
