"""`igos-bench show`: the command that it prints is pasted into a shell."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
import warnings
from pathlib import Path

import numpy as np
import pytest
from conftest import Command
from forked import run_igos_bench
from PIL import Image

from igos_bench import cli
from igos_bench.errors import UserError
from igos_bench.methods import Igos
from igos_bench.show import find_run, shown

MODEL = ("model=timm", "model.architecture=test_resnet", "model.weights=null", "model.std=[0.002,0.002,0.002]")
QUICK = ("method.iterations=1", "method.path_steps=2", "protocol.n_steps=4", "device=cpu")


def paste(line: str, folder: Path) -> str:
    """What a line prints in a shell: into which words it cuts it is found out first."""
    command = folder.absolute() / "bin" / "igos-bench"
    command.parent.mkdir(exist_ok=True)
    command.write_text("#!/bin/sh\nprintf '%s\\0' \"$@\"\n")
    command.chmod(0o755)
    environment = {**os.environ, "PATH": os.pathsep.join([str(command.parent), os.environ["PATH"]])}
    split = subprocess.run(["sh", "-c", line], cwd=folder, env=environment, capture_output=True, text=True, check=True)
    ended = run_igos_bench(split.stdout.split("\0")[:-1], folder)
    assert ended.returncode == 0, ended.stdout + ended.stderr
    return ended.stdout


def said(text: str, name: str) -> list[str]:
    return [line.removeprefix(name).strip() for line in text.splitlines() if line.startswith(f"{name} ")]


def runs(results: Path) -> list[Path]:
    return sorted(path.parent for path in results.glob("runs/*/*/*/*/*/run.json"))


def test_the_command_makes_the_run_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def ask(*words: str) -> None:
        monkeypatch.setattr(sys, "argv", ["igos-bench", *words])
        assert cli.main() == 0

    monkeypatch.setattr(warnings, "showwarning", warnings.showwarning)  # to put it back afterwards
    monkeypatch.chdir(tmp_path)
    images = tmp_path / "it's a, b=c"
    images.mkdir()
    for name in ("one.png", "two.png", "three.png"):
        noise = np.random.default_rng(len(name)).integers(0, 255, (48, 64, 3), dtype=np.uint8)
        Image.fromarray(noise).save(images / name)
    words = (
        *QUICK,
        *MODEL,
        "method.lambdas={28:[0.5,10.0]}",
        "data=folder",
        "data.root='it\\'s a, b=c'",
        "chunk_size=2",
    )
    ask(*words, "data.limit=1", "results_dir='my out'")
    ask(*words, "data.limit=3", "results_dir='my out'")
    ask("score", *words, "protocol=rise", "protocol.n_steps=3", "results_dir='my out'")
    (run,) = runs(Path("my out"))

    explain, score = said(shown(find_run(run.name[:4], Path("my out"))), "command")
    assert explain.startswith("igos-bench method=igos ") and score.startswith("igos-bench score method=igos ")
    for command, protocol in ((explain, "paper"), (score, "rise")):
        printed = paste(command, tmp_path)
        assert "resumed 3/3" in printed and "3/3 images" not in printed, "there was nothing to do"
        assert f"protocol={protocol}" in command
    assert runs(Path("my out")) == [run]

    # From another folder, and with nothing there: the same key, maps and curves.
    Path("elsewhere").mkdir()
    Path("my out").rename("once")
    once = tmp_path / "once" / run.relative_to("my out")
    text = shown(find_run(str(once / "maps"), Path("nowhere")))
    paste(said(text, "command")[0].replace(f"results_dir={tmp_path}/once", "results_dir=new"), Path("elsewhere"))
    (made,) = runs(Path("elsewhere/new"))
    assert made.relative_to("elsewhere/new") == run.relative_to("my out")
    arrays = [path.relative_to(made) for path in made.glob("**/*.npz")]
    assert len(arrays) == 4
    assert all((made / path).read_bytes() == (once / path).read_bytes() for path in arrays)

    # Everything else that the row was made with.
    run_json = json.loads((once / "run.json").read_text())
    for key in ("manifest_sha256", "images_sha256", "weights_sha256", "started", "finished", "machine", "map_key"):
        assert run_json[key] in text
    assert f"{run_json['git']['commit']}, " in text
    assert f"torch {run_json['versions']['torch']}" in text
    assert "3 of 3 done" in text
    assert said(text, "method") == [f"igos version {Igos.version}, here {Igos.version}"]
    assert re.search(r"^ +method\.iterations=1$", text, re.MULTILINE)


def test_what_is_not_there_is_said_in_one_line(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="no runs under .*runs: say results_dir=FOLDER"):
        find_run("abc", tmp_path)
    keys = ["abc0", "abd0", *(f"b{i}" for i in range(6))]
    for key in keys:
        folder = tmp_path / "runs" / "toy" / "images" / "igos" / "28" / key
        folder.mkdir(parents=True)
        (folder / "run.json").write_text("{}")
    with pytest.raises(
        UserError, match=r"2 runs have a key that begins with ab under .*there are abc0 \(toy/images/igos/28\), abd0 "
    ):
        find_run("ab", tmp_path)
    with pytest.raises(UserError, match=r"no run has the key x under .*there are abc0 .*, and 3 more$"):
        find_run("x", tmp_path)
    assert find_run("abd", tmp_path).name == "abd0"
    with pytest.raises(UserError, match="run.json lacks map_key, config, .*: it was edited, or is no run's"):
        shown(find_run("abd", tmp_path))


def test_one_word_is_wanted(igos_bench: Command) -> None:
    for words, found in (([], "none"), (["a", "b"], "a b")):
        ended = igos_bench("show", *words)
        assert ended.returncode == 2 and "Traceback" not in ended.stderr
        assert f"`show` takes one RUN_KEY, the first digits of one or a run's folder, found {found}:" in ended.stderr
