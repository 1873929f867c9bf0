"""A method in somebody else's package: the README's example, really installed, run from the command line."""

from __future__ import annotations

import csv
import json
import os
import re
import shlex
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

import pytest
from forked import run_igos_bench
from omegaconf import OmegaConf
from PIL import Image

from igos_bench.errors import UserError
from igos_bench.methods import get_method, registry
from igos_bench.overrides import typed

ROOT = Path(__file__).resolve().parent.parent
# A network of a tenth of a second, with ReLUs at 14 x 14 for Grad-CAM.
WORDS = (
    *("model=timm", "model.architecture=test_resnet", "model.weights=null"),
    *("data=folder", "data.root=images", "protocol.n_steps=4", "results_dir=out"),
)


@dataclass(frozen=True)
class Example:
    """The README's example: `folder` has its YAML and two images, `packages` what pip made of its package.

    `single` and `sweep` are the words that the README has after `igos-bench`.
    """

    folder: Path
    packages: Path
    single: list[str]
    sweep: list[str]

    def run(self, *words: str, installed: bool = True) -> subprocess.CompletedProcess[str]:
        path = os.pathsep.join(map(str, [*[self.packages] * installed, ROOT]))
        return run_igos_bench(words, self.folder, {**os.environ, "PYTHONPATH": path}, timeout=120)

    def runs(self, method: str) -> list[Path]:
        """Folders of this method's runs."""
        return sorted(self.folder.glob(f"out/runs/*/*/{method}/14/*"))


@pytest.fixture(scope="module")
def example(tmp_path_factory: pytest.TempPathFactory) -> Example:
    _, _, section = (ROOT / "README.md").read_text(encoding="utf-8").partition("\n## Your own method\n")
    section, _, _ = section.partition("\n## ")
    # The source lies apart: nothing may find it in the working directory.
    source, folder, packages = (tmp_path_factory.mktemp(name) for name in ("source", "user", "packages"))
    for path, code in re.findall(r"^```\w+\n# (\S+)\n(.*?)^```$", section, re.MULTILINE | re.DOTALL):
        file = (folder if path.endswith(".yaml") else source) / path
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(code, encoding="utf-8")

    pip = [sys.executable, "-m", "pip", "--disable-pip-version-check", "install", "--no-index", "--no-deps"]
    target = ["--no-build-isolation", "--target", packages, source]
    installed = subprocess.run([*pip, *target], capture_output=True, text=True, timeout=120, check=False)
    assert installed.returncode == 0, installed.stderr

    (folder / "images").mkdir()
    for name, (first, second) in {"a.png": ("red", "green"), "b.png": ("blue", "white")}.items():
        image = Image.new("RGB", (64, 48), first)
        image.paste(second, (8, 8, 40, 30))
        image.save(folder / "images" / name)
    single, sweep = (shlex.split(words) for words in re.findall(r"^    igos-bench (.*)$", section, re.MULTILINE))
    return Example(folder, packages, single, sweep)


def rows(run: Path) -> list[dict[str, str]]:
    (path,) = run.glob("*/records.csv")
    with path.open(newline="") as file:
        return list(csv.DictReader(file))


def test_it_runs_in_a_sweep_and_alone_and_is_a_row_of_the_table(example: Example) -> None:
    swept = example.run(*example.sweep, *WORDS)
    assert swept.returncode == 0, swept.stdout + swept.stderr
    (by_default,) = example.runs("smooth_grad")
    (grad_cam,) = example.runs("grad_cam")
    for run in (by_default, grad_cam):
        assert [row["status"] for row in rows(run)] == ["ok", "ok"]

    alone = example.run(*example.single, *WORDS, "data.limit=1")
    assert alone.returncode == 0, alone.stdout + alone.stderr
    (overridden,) = set(example.runs("smooth_grad")) - {by_default}
    assert "method.samples=8" in example.single
    provenance = json.loads((overridden / "run.json").read_text())
    assert provenance["config"]["method"]["samples"] == 8
    assert provenance["versions"]["smooth-grad"] == "1.0"
    # The method itself saw it: it runs the network once a sample.
    assert {(row["forwards"], row["backwards"]) for row in rows(by_default)} == {("16.0", "16.0")}
    assert {(row["forwards"], row["backwards"]) for row in rows(overridden)} == {("8.0", "8.0")}

    table = example.run("table", "results_dir=out")
    assert table.returncode == 0, table.stderr
    with (example.folder / "out" / "table.csv").open(newline="") as file:
        cells = [(row["method"], row["resolution"], row["n"]) for row in csv.DictReader(file)]
    assert sorted(cells) == [("grad_cam", "14", "2"), ("smooth_grad", "14", "1"), ("smooth_grad", "14", "2")]


def is_one_line(ended: subprocess.CompletedProcess[str], *parts: str) -> None:
    assert ended.returncode == 2, (ended.returncode, ended.stdout, ended.stderr)
    (line,) = ended.stderr.splitlines()
    for part in parts:
        assert part in line


@pytest.mark.parametrize(
    ("words", "parts"),
    [
        (
            ["method=smooth_grad", "method.sample=8"],
            ["unknown key 'method.sample' (did you mean 'method.samples'?)", "method.sigma"],
        ),
        (
            ["-m", "method=smooth_grad,grad_cam", "method.samples=8"],
            ["unknown key for method=grad_cam 'method.samples'"],
        ),
        (
            ["-m", "method=grad_cam,smooth_grad", "method.samples=8"],
            ["unknown key for method=grad_cam 'method.samples'"],
        ),
    ],
    ids=["unknown", "of another method", "of another method, first"],
)
def test_a_mistyped_hyper_parameter_is_one_line(example: Example, words: list[str], parts: list[str]) -> None:
    is_one_line(example.run("--config-dir", "conf", *words, "resolution=14", *WORDS), *parts)


def test_a_yaml_whose_package_is_not_installed_is_one_line(example: Example) -> None:
    parts = ("unknown method 'smooth_grad'", "install its package", "'igos_bench.methods'")
    is_one_line(example.run(*example.single, *WORDS, installed=False), *parts)


@pytest.fixture
def package(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Where the module of a package with the entry point `mine` goes; its name is new, as Python keeps modules."""
    monkeypatch.setattr(registry, "_registry", dict(registry._registry))
    metadata = tmp_path / "mine-1.0.dist-info"
    metadata.mkdir()
    (metadata / "METADATA").write_text("Metadata-Version: 2.1\nName: mine\nVersion: 1.0\n")
    (metadata / "entry_points.txt").write_text(f"[{registry.ENTRY_POINT_GROUP}]\nmine = {tmp_path.name}:Mine\n")
    monkeypatch.syspath_prepend(tmp_path)
    return tmp_path / f"{tmp_path.name}.py"


@pytest.mark.parametrize(
    ("code", "message"),
    [
        (
            "import no_such_thing",
            "method mine cannot be loaded from .*:Mine: ModuleNotFoundError: No module named 'no_su",
        ),
        (
            "class Yours: ...",
            "method mine cannot be loaded from .*:Mine: AttributeError: module .* has no attribute 'Mine'",
        ),
        ("class Mine: ...", "AttributeError: type object 'Mine' has no attribute 'name'"),
        ("class Mine: name = 'igos'", "ValueError: two methods are named 'igos'"),
        ("class Mine: name = 'yours'", "the entry point mine is the method yours: give both the same name"),
    ],
    ids=["import fails", "no such class", "no name", "a name that is taken", "another name"],
)
def test_an_entry_point_that_is_no_method_is_said_to_be_none(package: Path, code: str, message: str) -> None:
    package.write_text(code)
    with pytest.raises(UserError, match=message):
        get_method("mine", {})


@pytest.mark.parametrize(
    ("method", "key", "value"),
    [("igos", "iterations", "many"), ("igos", "iterations", 1.5), ("rise", "probability", True), ("mask", "noise", 1)],
)
def test_a_value_of_another_type_is_refused(method: str, key: str, value: object) -> None:
    with pytest.raises(UserError, match=f"method.{key}={value!r}: method {method} needs (int|float|str) there"):
        get_method(method, {key: value})
    assert get_method("rise", {"probability": 1}) == get_method("rise", {"probability": 1.0})


def test_a_hyper_parameter_that_is_lacking_is_named(package: Path) -> None:
    package.write_text(
        "from dataclasses import dataclass\n@dataclass\nclass Mine:\n    samples: int\nMine.name = 'mine'"
    )
    with pytest.raises(UserError, match="method mine needs samples: write it into its YAML, or as method.samples="):
        get_method("mine", {})
    assert get_method("mine", {"samples": 3}).samples == 3


def test_a_yaml_without_a_name_is_said_to_be_one() -> None:
    with pytest.raises(UserError, match="the method's YAML has no `name`"):
        typed(OmegaConf.create({"method": {"steps": 20}}))
