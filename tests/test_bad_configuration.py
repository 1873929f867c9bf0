"""Whatever words and YAML files say, the answer is one line, exit code 2 and an untouched disk; nothing is executed.

Every command here ends before it computes: its images are in a folder that does not exist. Most run `main` in this
process, some tenths of a second each, all in one working folder among canaries.
"""

from __future__ import annotations

import contextlib
import io
import json
import os
import string
import subprocess
import sys
import warnings
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from hypothesis import Phase, given, settings
from hypothesis import strategies as st
from omegaconf import OmegaConf

from igos_bench import cli
from igos_bench.config import RunConfig

ROOT = Path(__file__).parent.parent
NOWHERE = ("data=folder", "data.root=no/images/here")
COMMANDS = ("run", "plan", "score", "check-data")
READERS = ("table", "compare", "status", "report", "show abc")
TOO_LONG = "x" * 300  # for the name of a file
GROUPS = ("method", "model", "data", "protocol", "experiment")


def ended(*words: str) -> tuple[int, str]:
    """Exit code and stderr of a command, run in this process."""
    errors = io.StringIO()
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(sys, "argv", ["igos-bench", *words])
        patch.setattr(warnings, "showwarning", warnings.showwarning)  # to put it back afterwards
        with contextlib.redirect_stdout(io.StringIO()), contextlib.redirect_stderr(errors):
            code = cli.main()
    return code, errors.getvalue()


def refused(*words: str) -> str:
    """The one line of a command that is a mistake; a sweep has one a mistake, and one that sums up its cells."""
    code, errors = ended(*words)
    lines = errors.splitlines()
    assert code == 2 and errors.endswith("\n"), (words, code, errors)
    assert len(lines) == 1 or "-m" in words, (words, errors)
    for line in lines:
        assert line.startswith("igos-bench: ") and line.isprintable() and len(line) < 2100, (words, errors)
    return errors


def state(folder: Path) -> dict[str, bytes | None]:
    """Everything below a folder."""
    return {str(path.relative_to(folder)): path.read_bytes() if path.is_file() else None for path in folder.rglob("*")}


@pytest.fixture(scope="module")
def around(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """What lies around the working folder `work` and its `results`, canaries among it; `conf` is for YAML files."""
    folder = tmp_path_factory.mktemp("around")
    for name in ("canary", "work/canary", "work/results/canary", "work/results/runs/canary"):
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_text("alive")
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder / "work")
        yield folder


def refused_yaml(around: Path, command: str, group: str, document: str | bytes, *words: str) -> str:
    """The one line about a YAML file of the user's own, which leaves everything as it was."""
    before = state(around)
    file = around / "work" / "conf" / group / "mine.yaml"
    file.parent.mkdir(parents=True)
    file.write_bytes(document if isinstance(document, bytes) else document.encode("utf-8", "surrogatepass"))
    nowhere = NOWHERE[group == "data" :]
    try:
        return refused(command, "--config-dir", "conf", f"{group}=mine", *words, *nowhere)
    finally:
        file.unlink()
        file.parent.rmdir()
        file.parent.parent.rmdir()
        assert state(around) == before, document


# Anything at all


def names(content: dict[Any, Any], prefix: str = "") -> Iterator[str]:
    for key, value in content.items():
        yield f"{prefix}{key}"
        if isinstance(value, dict):
            yield from names(value, f"{prefix}{key}.")


SCHEMA = OmegaConf.to_container(OmegaConf.structured(RunConfig))
assert isinstance(SCHEMA, dict)
KEYS = [
    *names(SCHEMA),
    "experiment",
    "method.iterations",
    "method.lambdas",
    "method.lambdas.28",
    "method.baseline.kind",
]
HYDRA = [
    "hydra", "hydra.", "hydra.run.dir", "hydra.callbacks.x", "hydra/callbacks", "hydra.searchpath", "hydra/launcher",
    "hydra.launcher.x", "hydra.launcher._target_", "hydra.output_subdir", "hydra.job.env_set", "hydra/job_logging",
    ".", "..", "a/b", "method/x", "../method", "_target_", "model._target_", "method.lambdas.x",
]  # fmt: skip
VALUES = [
    "", "''", '""', "'", '"', "[", "]", "{", "}", "[[", "{a:", "[1,2", "{a:b}", "[1,[2,{x:y}]]", "null", "true", "???",
    "nan", "inf", "-inf", "-1", "0", "1e400", "1" + "0" * 40, "9" * 5000, "1.5", "-1e-300", "0x1f", "1_000", "$", "${",
    "${}", "${x}", "${method}", "${data.root", "${.}", "${..}", "${oc.env:HOME}", "${oc.env:HOME,x}", "${now:%Y}",
    "${oc.decode:'${oc.env:HOME}'}", "${oc.create:{a:1}}", "${hydra:runtime.cwd}", "${hydra:nothing}", "${nothing:1}",
    "${oc.select:hydra}", "${data}", "${model.name}", "../../x", "/etc/passwd", "/", ".", "..", "~nobody/x", "a\x00b",
    "a\nb", "a\r\nb", "\x1b[2J", "\t", "\u202egpj", "é漢😀", "\udcff", "a b", "a,b", "a=b", "a:b", "a@b", "\\", "\\'",
    "*", "glob(*)", "range(3)", "range(0,1,0)", "range(0,1e308)", "range(0,1000000000000)", "interval(0,1)", "sort(3)",
    "shuffle(range(0,10000000000))", "choice(a,b)", "choice(range(3),1)", "int(x)", "float(nan)", "str([1])",
    "json_str({a:1})", "tag(a,b)", "[" * 200 + "]" * 200, "{a:" * 200, TOO_LONG, "x" * 100_000,
]  # fmt: skip

texts = st.text(max_size=12)
known = st.sampled_from(KEYS)
keys = st.one_of(
    known,
    known,
    known.flatmap(lambda key: st.integers(0, len(key)).map(lambda i: key[:i] + key[i + 1 :])),  # a letter is lacking
    st.builds("{}.{}".format, known, st.text(string.ascii_letters + "._0", max_size=5)),
    st.sampled_from(HYDRA),
    texts,
)
numbers = st.integers() | st.floats()
values = st.one_of(
    st.sampled_from(VALUES),
    texts,
    numbers.map(str),
    st.lists(numbers | st.text(string.ascii_letters, max_size=3), max_size=4).map(str),
)
words = st.one_of(
    st.builds("{}={}".format, known, values),
    st.builds("{}={},{}".format, keys, values, values),
    st.builds(
        "{}{}{}{}".format,
        st.sampled_from(["", "+", "++", "~", "-", "--"]),
        keys,
        st.sampled_from(["=", "", "@x=", ":="]),
        values,
    ),
    texts,
)

SCALARS = [
    "", "''", "'", '"', "[", "]", "{", "}", "- x", "? x", "&a", "*a", "&a [*a]", "&a {a: *a}", "<<: *a", "<<", "!x y",
    "!!python/object/apply:os.mkdir [ran]", "!!python/name:os.system", "!!binary x", "!!float x", "!!int x", "|", ">",
    "!!timestamp x", "!!set {a}", "%YAML 9.9", "---", "...", "\t", "@x", "`x`", "null", "~", "???", "true", ".nan",
    ".inf", "-.inf", "-1", "1e400", "0x1f", "1_0", "1:30", "2001-01-01", "${oc.env:HOME}", "'${oc.decode:x}'", "${..}",
    "${data}", "${..data}", "${model.name}", "${", "'${'", "${nothing}", "'${hydra:job.env_set}'", "${hydra:nothing}",
    "../../x", "/etc/passwd", '"a\\0b"', '"a\\nb"', '"\\ud800"', '"\\u202e"', "é漢", "[1, [2, {a: b}]]", "{name: igos}",
    "{a: {b: [c]}}", "{_target_: os.mkdir, path: ran}", "9" * 5000, "[" * 500, "{a: " * 500,
]  # fmt: skip
YAML_KEYS = [
    "name", "layout", "root", "library", "weights", "layers", "lambdas", "baseline", "version", "n_steps", "_target_",
    "_args_", "defaults", "hydra", "method", "model", "data", "protocol", "results_dir", "maps", "seed", "evaluate",
    "'???'", "1", "null", "true", "? [a]", "<<", "'a.b'", "''", "'a\\nb'",
]  # fmt: skip
HEADS = [
    "", "", "", "# @package _global_\n", "# @package hydra\n", "# @package _group_\n", "# @package ??\n", "\ufeff",
    "defaults: [override /hydra/job_logging: default]\n", "defaults: ['/data: ${oc.env:HOME}']\n", "defaults: [1]\n",
    "defaults: [mine]\n", "defaults: [/method@hydra: igos]\n", "defaults: ['../../../../etc/passwd']\n",
]  # fmt: skip
BASES = {
    group: {key: json.dumps(value) for key, value in content.items()}
    for group, file in zip(GROUPS, ("igos", "timm", "folder", "rise", "table1"), strict=True)
    if isinstance(content := OmegaConf.to_container(OmegaConf.load(ROOT / f"conf/{group}/{file}.yaml")), dict)
}

yaml_values = st.recursive(
    st.sampled_from(SCALARS) | texts.map(repr) | numbers.map(str),
    lambda inner: st.lists(inner, max_size=3).map(lambda items: f"[{', '.join(items)}]"),
    max_leaves=4,
)


@st.composite
def yaml_files(draw: st.DrawFn, group: str) -> bytes:
    """One of `conf/` with a few keys changed or added; sometimes anything at all."""
    if draw(st.integers(0, 9)) == 0:
        return draw(st.binary(max_size=20) | (yaml_values | texts).map(lambda text: text.encode("utf-8", "replace")))
    changed = st.sampled_from([*BASES[group], *YAML_KEYS])
    content = BASES[group] | draw(st.dictionaries(changed, yaml_values, min_size=1, max_size=2))
    head = draw(st.sampled_from(HEADS)) if group != "experiment" else "# @package _global_\n"
    return (head + "".join(f"{key}: {value}\n" for key, value in content.items())).encode("utf-8", "surrogatepass")


some_words = st.tuples(st.sampled_from(COMMANDS), st.lists(words, min_size=1, max_size=3), st.booleans())
some_yaml = st.tuples(
    st.sampled_from(COMMANDS),
    st.sampled_from(GROUPS).flatmap(lambda group: st.tuples(st.just(group), yaml_files(group))),
    st.booleans(),
)
FEW = settings(max_examples=25, deadline=None, derandomize=True, database=None, phases=[Phase.generate, Phase.shrink])
MANY = settings(FEW, max_examples=300)
HOW_MANY = [FEW, pytest.param(MANY, marks=[pytest.mark.long, pytest.mark.timeout(1800)])]


@pytest.mark.parametrize("how_many", HOW_MANY, ids=["few", "many"])
def test_words(around: Path, how_many: settings) -> None:
    before = state(around)

    @how_many
    @given(some_words)
    def one_line(drawn: tuple[str, list[str], bool]) -> None:
        command, said, sweep = drawn
        if not {"--help", "-h"} & set(said):
            refused(command, *["-m"] * sweep, *said, *NOWHERE)
        assert state(around) == before, drawn

    one_line()


@pytest.mark.parametrize("how_many", HOW_MANY, ids=["few", "many"])
def test_yaml(around: Path, how_many: settings) -> None:
    @how_many
    @given(some_yaml)
    def one_line(drawn: tuple[str, tuple[str, bytes], bool]) -> None:
        command, (group, document), sweep = drawn
        refused_yaml(around, command, group, document, *["-m"] * sweep)

    one_line()


@pytest.mark.parametrize("command", READERS)
def test_folders_to_read(around: Path, command: str) -> None:
    before = state(around)
    for value in VALUES:
        if command != "report" or value not in ("", ".", "..", "/"):  # of a folder without runs there is a page too
            refused(*command.split(), f"results_dir={value}")
        if command == "show abc":
            refused("show", value)
    assert state(around) == before


def test_paths_of_a_run(around: Path) -> None:
    before = state(around)
    network = ("model=timm", "model.architecture=test_resnet")
    assert "no such folder" in refused("run", "--config-dir", TOO_LONG, *NOWHERE)
    assert "no such file" in refused("run", "data=sample", *network, f"model.weights={TOO_LONG}")
    for key in ("data.root", "data.list", "maps"):
        words = ("data=folder", "data.root=images", "name=mine", f"{key}={TOO_LONG}")
        (around / "work" / "images").mkdir()
        (around / "work" / "images" / "a.png").touch()
        try:
            assert "does not exist" in refused("score", *network, "model.weights=null", *words), key
        finally:
            (around / "work" / "images" / "a.png").unlink()
            (around / "work" / "images").rmdir()
    assert state(around) == before


# What could run code, read this machine, or write elsewhere

MKDIR = "_target_: os.mkdir, path: ran"
HOSTILE = {
    "callbacks": ("experiment", f"hydra: {{callbacks: {{x: {{{MKDIR}}}}}}}", "hydra.callbacks.x"),
    "callbacks of a method": ("method", f"name: igos\nhydra: {{callbacks: {{x: {{{MKDIR}}}}}}}", "hydra.callbacks.x"),
    "logging": (
        "experiment",
        "hydra: {job_logging: {version: 1, handlers: {x: {'()': os.mkdir, path: ran}}, root: {handlers: [x]}}}",
        "hydra.job_logging.handlers",
    ),
    "environment": ("experiment", "hydra: {job: {env_set: {LD_PRELOAD: x}}}", "hydra.job.env_set"),
    "copied environment": ("experiment", "hydra: {job: {env_copy: [SECRET]}}", "hydra.job.env_copy"),
    "launcher": ("experiment", f"hydra: {{launcher: {{{MKDIR}}}}}", "hydra.launcher"),
    "other folder": ("experiment", "hydra: {sweep: {dir: ../elsewhere}}", "hydra.sweep.dir is set by a YAML file"),
    "output": ("experiment", "hydra: {output_subdir: ran}", "hydra.output_subdir"),
    "swept callbacks": (
        "experiment",
        "hydra: {sweeper: {params: {+hydra.callbacks.x._target_: 'os.mkdir,os.mkdir'}}}",
        "hydra.sweeper.params.+hydra.callbacks.x._target_ is set by a YAML file",
    ),
    "swept sweep's folder": (
        "experiment",
        "hydra: {sweeper: {params: {seed: '0,1', hydra.sweep.dir: ../elsewhere}}}",
        "hydra.sweeper.params.hydra.sweep.dir is set by a YAML file",
    ),
    "text with NUL": ("experiment", 'results_dir: "a\\0b"', "no text of a configuration can have a NUL"),
    "swept logging": (
        "experiment",
        "hydra: {sweeper: {params: {hydra/job_logging: 'default,none'}}}",
        "hydra.sweeper.params.hydra/job_logging is set by a YAML file",
    ),
    "swept sweep": ("method", "hydra: {sweeper: {params: {seed: 'range(1,1000000000)'}}}", "999,999,999 jobs"),
    "method": ("method", f"name: igos\n{MKDIR.replace(', ', chr(10))}", "unknown key of method igos '_target_'"),
    "model": ("model", f"name: x\n{MKDIR.replace(', ', chr(10))}", "Key '_target_' not in 'ModelConfig'"),
    "protocol": ("protocol", f"name: x\n{MKDIR.replace(', ', chr(10))}", "Key '_target_' not in 'ProtocolConfig'"),
    "layers": ("model", f"name: x\nlayers: {{igos: {{{MKDIR}}}}}", "model.layers.igos"),
    "python": ("method", "name: !!python/object/apply:os.mkdir [ran]", "could not determine a constructor for the tag"),
    "environment read": ("experiment", "seed: ${oc.env:SECRET}", "Unsupported interpolation type oc.env"),
    "environment as text": ("experiment", "results_dir: x${oc.env:SECRET}", "Unsupported interpolation type oc.env"),
    "environment, decoded": ("model", "name: \"${oc.decode:'${oc.env:SECRET}'}\"", "interpolation type oc."),
    "environment, chosen": ("experiment", "defaults: ['override /model: ${oc.env:SECRET}']", "oc.env"),
    "environment, by a name of a name": ("experiment", "name: oc.env\nmaps: '${${name}:SECRET}'", "oc.env"),
    "name up": ("model", "name: ../../x", "model.name='../../x' becomes the name of a folder"),
    "name of a root": ("model", "name: /etc", "model.name='/etc' becomes the name of a folder"),
    "name of a parent": ("protocol", "name: ..", "protocol.name='..' becomes the name of a folder"),
    "name with NUL": ("protocol", 'name: "a\\0b"', "protocol.name='a\\x00b': no text of a configuration"),
    "name with a line end": ("protocol", 'name: "a\\n"', "protocol.name='a\\n' becomes the name of a folder"),
    "name like a flag": ("protocol", "name: -rf", "protocol.name='-rf' becomes the name of a folder"),
    "list as a name": ("method", "name: [a]", "the method's YAML has name: ['a']"),
    "name of a method": ("method", "name: ../../x", "unknown method '../../x'"),
    "name of data": ("data", "layout: folder\nroot: null\nname: ../x", "data.name='../x' becomes the name of a folder"),
}


@pytest.mark.parametrize("case", HOSTILE)
def test_a_hostile_yaml_does_nothing(around: Path, case: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SECRET", "hunter2")
    group, document, reason = HOSTILE[case]
    head = "# @package _global_\n" if group == "experiment" or "hydra:" in document else ""
    line = refused_yaml(around, "run", group, f"{head}{document}\n", *["-m"] * ("sweeper" in document))
    assert reason in line and "hunter2" not in line, line


@pytest.mark.parametrize(
    ("word", "reason"),
    [
        ("hydra.callbacks.x={_target_:os.mkdir,path:ran}", "of Hydra's own settings only hydra/launcher"),
        ("hydra.searchpath=[pkg://this]", "of Hydra's own settings only hydra/launcher"),
        ("hydra.output_subdir=ran", "of Hydra's own settings only hydra/launcher"),
        ("hydra.launcher._target_=os.mkdir", "hydra.launcher._target_=os.mkdir: a launcher is a plugin"),
        ("data.list=${oc.env:SECRET}", "Unsupported interpolation type oc.env"),
        ("method=../../../work/canary", "unknown method '../../../work/canary'"),
        ("data.name=../x", "data.name='../x' becomes the name of a folder"),
        ("model.name=/x", "model.name='/x' becomes the name of a folder"),
        ("-m seed=range(0,1000000000000)", "1,000,000,000,000 jobs are more than a sweep can have"),
        ("-m seed=range(5,5)", "a sweep over no value at all"),
        ("-m seed=range(0,1,0)", "no range of values"),
    ],
)
def test_a_hostile_word_does_nothing(around: Path, word: str, reason: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SECRET", "hunter2")
    before = state(around)
    line = refused(*NOWHERE, *word.split())
    assert reason in line and "hunter2" not in line, line
    assert state(around) == before


@pytest.mark.parametrize("name", ["a,b", "it's", "[x]", "back\\slash\\", "a b", "${oc.env:SECRET}", "é漢"])
def test_a_folder_of_ones_own_may_have_any_name(around: Path, name: str) -> None:
    file = around / "folders" / name / "protocol" / "mine.yaml"
    file.parent.mkdir(parents=True)
    file.write_text("name: mine\nn_steps: 0\n")
    line = refused("run", "--config-dir", str(file.parent.parent), "protocol=mine", *NOWHERE)
    assert "protocol.n_steps must be at least 1, found 0" in line


@pytest.mark.parametrize(
    "said", [[""], ["a\nb=1"], ["method=\udcff"], ["-m", "method.lambdas.14=[1,2],[3,4]"], ["--config-dir"]]
)
def test_a_process_of_its_own_says_the_same(tmp_path: Path, said: list[str]) -> None:
    command = [sys.executable, "-m", "igos_bench", *said, *NOWHERE]
    found = subprocess.run(
        command, cwd=tmp_path, env={**os.environ, "PYTHONPATH": str(ROOT)}, capture_output=True, timeout=60
    )
    (line,) = found.stderr.decode().splitlines()
    assert found.returncode == 2 and line.startswith("igos-bench: ") and line.isprintable(), line
    assert not found.stdout and not list(tmp_path.iterdir())


@pytest.mark.parametrize("package", ["hydra.callbacks", "hydra.sweep", "hydra.job"])
def test_a_launcher_of_ones_own_sets_the_launcher_alone(around: Path, package: str) -> None:
    file = around / "launchers" / "hydra" / "launcher" / "mine.yaml"
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_text(f"# @package {package}\nx: {{_target_: os.mkdir, path: ran}}\n")
    line = refused("run", "--config-dir", str(around / "launchers"), "-m", "hydra/launcher=mine", *NOWHERE)
    assert f"{package}.x" in line and "is set by a YAML file" in line


def test_a_seed_that_no_generator_takes(around: Path) -> None:
    for seed in (-1, 2**63):
        assert f"seed must be from 0 to 2^63 - 1, found {seed}" in refused("run", f"seed={seed}", *NOWHERE)
