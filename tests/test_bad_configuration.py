"""Whatever words and YAML files say, the answer is one line, exit code 2 and an untouched disk; nothing is executed.

Every command here ends before it computes: its images are in a folder that does not exist. Most run `main` in this
process, some hundredths of a second each.
"""

from __future__ import annotations

import contextlib
import io
import os
import string
import sys
import warnings
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import strategies as st
from omegaconf import OmegaConf

from igos_bench import cli
from igos_bench.config import RunConfig

NOWHERE = ("data=folder", "data.root=no/images/here")
COMMANDS = ("run", "plan", "score", "check-data")


# Running


def ended(*words: str) -> tuple[int, str]:
    """Exit code and stderr of a command, run in this process."""
    errors = io.StringIO()
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(sys, "argv", ["igos-bench", *words])
        patch.setattr(warnings, "showwarning", warnings.showwarning)  # to put it back afterwards
        with contextlib.redirect_stdout(io.StringIO()), contextlib.redirect_stderr(errors):
            code = cli.main()
    return code, errors.getvalue()


def is_refused(*words: str, sweep: bool = False) -> str:
    """The one line of a command that is a mistake; a sweep may have one a mistake and its sum."""
    code, errors = ended(*words)
    assert code == 2, (words, code, errors)
    lines = errors.splitlines()
    assert lines and all(line.startswith("igos-bench: ") for line in lines), (words, errors)
    assert len(lines) == 1 or sweep, (words, errors)
    assert errors.isprintable() or all(line.isprintable() for line in lines), (words, errors)
    assert "Traceback" not in errors, (words, errors)
    assert all(len(line) < 3000 for line in lines), (words, errors)
    return errors


def state(folder: Path) -> dict[str, bytes | None]:
    """Everything below a folder."""
    return {str(path.relative_to(folder)): path.read_bytes() if path.is_file() else None for path in folder.rglob("*")}


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """The working folder, among neighbours that nothing may change; results are in `results`, YAML files in `conf`."""
    around = tmp_path_factory.mktemp("around")
    for name in ("canary", "work/canary", "work/results/canary", "work/results/runs/canary"):
        (around / name).parent.mkdir(parents=True, exist_ok=True)
        (around / name).write_text("alive")
    (around / "work" / "conf").mkdir()
    before = os.getcwd()
    os.chdir(around / "work")
    yield around
    os.chdir(before)


# Words


def names(content: Any, prefix: str = "") -> Iterator[str]:
    for key, value in content.items():
        yield f"{prefix}{key}"
        if isinstance(value, dict):
            yield from names(value, f"{prefix}{key}.")


KEYS = [*names(OmegaConf.to_container(OmegaConf.structured(RunConfig))), "method.iterations", "method.lambdas", "method.lambdas.28", "method.baseline.sigma", "experiment"]  # fmt: skip
NASTY = [
    "", "''", '""', "'", '"', "[", "]", "{", "}", "[[", "{a:", "[1,2", "{a:b}", "[1,[2,{x:y}]]", "null", "true", "???",
    "nan", "inf", "-inf", "-1", "0", "1e400", "1" + "0" * 40, "9" * 5000, "1.5", "-1e-300", "0x1f", "1_000", "$", "${",
    "${}", "${x}", "${method}", "${data.root", "${.}", "${..}", "${oc.env:HOME}", "${oc.env:HOME,x}", "${now:%Y}",
    "${oc.decode:'${oc.env:HOME}'}", "${oc.create:{a:1}}", "${hydra:runtime.cwd}", "${hydra:nothing}", "${nothing:1}",
    "${oc.select:hydra}", "${data}", "${model.name}", "../../x", "/etc/passwd", "/", ".", "..", "~nobody/x", "a\0b",
    "a\nb", "a\r\nb", "\x1b[2J", "\t", "\u202egpj", "é漢😀", "\udcff", "a b", "a,b", "a=b", "a:b", "a@b", "\\", "\\'", "*",
    "glob(*)", "range(3)", "range(0,1,0)", "range(0,1e308)", "range(0,1000000000000)", "shuffle(range(0,10000000000))",
    "interval(0,1)", "choice(a,b)", "sort(3,1)", "int(x)", "float(nan)", "str([1])", "json_str({a:1})", "tag(a,b)",
    "[" * 200 + "]" * 200, "{a:" * 200, "x" * 100_000, "__import__('os').system('touch ran')", "!!python/object:os",
]  # fmt: skip

text = st.text(max_size=12).filter(lambda t: "\0" not in t)
keys = st.one_of(
    st.sampled_from(KEYS),
    st.sampled_from(KEYS).flatmap(lambda key: st.integers(0, len(key)).map(lambda i: key[:i] + key[i + 1 :])),
    st.builds("{}.{}".format, st.sampled_from(KEYS), st.text(string.ascii_letters + "._0", max_size=5)),
    st.sampled_from(["hydra.run.dir", "hydra.callbacks.x", "hydra/callbacks", "hydra.searchpath", "hydra.sweep.dir", "hydra/launcher", "hydra.launcher.x", "hydra.job.name", "hydra", "hydra.", ".", "..", "a/b", "method/x", "_target_", "model._target_"]),
    text,
)  # fmt: skip
values = st.one_of(
    st.sampled_from(NASTY),
    st.integers().map(str),
    st.floats().map(str),
    text,
    st.lists(st.one_of(st.integers(), st.floats(), st.text(string.ascii_letters, max_size=3)), max_size=4).map(str),
)
words = st.one_of(
    st.builds("{}={}".format, st.sampled_from(KEYS), values),
    st.builds("{}={},{}".format, st.sampled_from(KEYS), values, values),
    st.builds("{}{}{}{}".format, st.sampled_from(["", "", "", "+", "++", "~", "-", "--"]), keys, st.sampled_from(["=", "=", "=", "", "@x=", ":="]), values),
    st.builds("{}={},{}".format, keys, values, values),
    text,
)  # fmt: skip


@given(command=st.sampled_from(COMMANDS), said=st.lists(words, min_size=1, max_size=3), sweep=st.booleans())
@settings(
    max_examples=int(os.environ.get("N", 60)),
    deadline=None,
    phases=[Phase.generate, Phase.shrink],
    derandomize="N" not in os.environ,
    suppress_health_check=list(HealthCheck),
)
def test_words(place: Path, command: str, said: list[str], sweep: bool) -> None:
    before = state(place)
    if not {"--help", "-h"} & set(said):
        is_refused(command, *["-m"] * sweep, *said, *NOWHERE, sweep=sweep)
    assert state(place) == before


# YAML files


SCALARS = ["", "''", "'", '"', "[", "]", "{", "}", "- x", "? x", "&a", "*a", "&a [*a]", "<<: *a", "!!python/object/apply:os.system ['touch ran']", "!!python/name:os.system", "!!binary x", "!x y", "!!float x", "!!int x", "!!timestamp x", "%YAML 9.9", "---", "...", "\t", "|", ">", "@x", "`x`", "null", "~", "???", "true", ".nan", ".inf", "-.inf", "-1", "1e400", "0x1f", "1_0", "1:30", "2001-01-01", "'${oc.env:HOME}'", "${oc.env:HOME}", "${oc.decode:x}", "${data}", "${..data}", "${model.name}", "${", "'${'", "${nothing}", "'${hydra:job.env_set}'", "../../x", "/etc/passwd", '"a\\0b"', '"a\\nb"', '"\\ud800"', '"\\u202e"', "é漢", "[1, [2, {a: b}]]", "{a: {b: [c]}}", "{_target_: os.system, command: touch ran}", "{name: igos}", "9" * 5000, "[" * 500]  # fmt: skip
yaml_keys = st.one_of(
    st.sampled_from(["name", "layout", "root", "architecture", "library", "weights", "layers", "iterations", "lambdas", "baseline", "version", "ranking", "n_steps", "_target_", "_args_", "defaults", "hydra", "method", "model", "data", "results_dir", "resolution", "maps", "seed", "'???'", "1", "null", "true", "? [a]", "<<", "'a.b'", "''", "'a\\nb'"]),
    text.map(repr),
)  # fmt: skip
yaml_values = st.recursive(
    st.one_of(st.sampled_from(SCALARS), text.map(repr), st.integers().map(str), st.floats().map(str)),
    lambda inner: st.one_of(
        st.lists(inner, max_size=3).map(lambda items: f"[{', '.join(items)}]"),
        st.dictionaries(yaml_keys, inner, max_size=3).map(
            lambda d: "{" + ", ".join(f"{k}: {v}" for k, v in d.items()) + "}"
        ),
    ),
    max_leaves=5,
)
DEFAULTS = [
    "/method: igos",
    "override /model: vgg19",
    "override /hydra/launcher: basic",
    "override hydra/job_logging: default",
    "override /data: ${oc.env:HOME}",
    "/nothing: x",
    "mine",
    "_self_",
    "optional x: y",
    "igos@_global_",
    "/method@hydra: igos",
    "x: [a, b]",
    "1",
    "{a: {b: c}}",
    "../../../../etc/passwd",
    "/data: ../../../x",
]
documents = st.one_of(
    st.builds(
        lambda package, defaults, lines: "".join(
            [
                f"# @package {package}\n" if package else "",
                f"defaults: [{', '.join(defaults)}]\n" if defaults else "",
                *(f"{key}: {value}\n" for key, value in lines),
            ]
        ),
        st.sampled_from(["", "", "", "_global_", "hydra", "_group_", "a.b", "??"]),
        st.lists(
            st.sampled_from(DEFAULTS).map(
                lambda d: d if ":" in d and " " in d and not d.startswith("{") and False else d
            ),
            max_size=2,
        ),
        st.lists(st.tuples(yaml_keys, yaml_values), max_size=4),
    ),
    yaml_values,
    text,
).map(lambda document: document.encode("utf-8", "surrogatepass")) | st.binary(max_size=20)


@given(
    command=st.sampled_from(COMMANDS),
    group=st.sampled_from(["method", "model", "data", "protocol", "experiment"]),
    document=documents,
    sweep=st.booleans(),
)
@settings(
    max_examples=int(os.environ.get("N", 60)),
    deadline=None,
    derandomize="N" not in os.environ,
    suppress_health_check=list(HealthCheck),
)
def test_yaml(place: Path, command: str, group: str, document: bytes, sweep: bool) -> None:
    check_yaml(place / "work" / "conf", command, group, document, sweep)


def check_yaml(conf: Path, command: str, group: str, document: bytes, sweep: bool) -> None:
    (conf / group).mkdir(exist_ok=True)
    (conf / group / "mine.yaml").write_bytes(document)
    stop = ("data.layout=folder", "data.root=no/images/here") if group == "data" else NOWHERE
    try:
        is_refused(command, "--config-dir", "conf", *["-m"] * sweep, f"{group}=mine", *stop, sweep=sweep)
    finally:
        (conf / group / "mine.yaml").unlink()
        (conf / group).rmdir()
