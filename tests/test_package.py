"""The wheel, installed into an environment of its own: the console script works from any folder, `conf/` inside."""

from __future__ import annotations

import os
import subprocess
import sys
import sysconfig
import venv
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent


def run(*command: str | Path, cwd: Path) -> subprocess.CompletedProcess[str]:
    """Runs without the PYTHON* variables, which could put the source tree in the wheel's way."""
    environment = {key: value for key, value in os.environ.items() if not key.startswith("PYTHON")}
    return subprocess.run(command, cwd=cwd, env=environment, capture_output=True, text=True, timeout=120, check=False)


@pytest.fixture(scope="module")
def scripts(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of scripts of a new environment: the wheel in it, its dependencies borrowed from ours."""
    folder = tmp_path_factory.mktemp("package")
    # Without a format asked for, `build` makes the sdist and then the wheel from that: both have to be complete.
    built = run(sys.executable, "-m", "build", "--no-isolation", "--outdir", folder, ROOT, cwd=folder)
    assert built.returncode == 0, built.stdout + built.stderr
    [wheel] = folder.glob("*.whl")

    home = folder / "venv"
    venv.create(home, symlinks=True)
    paths = {"base": str(home), "platbase": str(home)}
    scripts = Path(sysconfig.get_path("scripts", "venv", vars=paths))
    site_packages = Path(sysconfig.get_path("purelib", "venv", vars=paths))
    # Comes after the environment's own packages, and .pth files in there (an editable install) are not read.
    (site_packages / "borrowed.pth").write_text(sysconfig.get_path("purelib"))
    python = scripts / "python"
    install = ("-m", "pip", "--python", python, "install", "--quiet", "--no-deps", "--no-index", wheel)
    installed = run(sys.executable, *install, cwd=folder)
    assert installed.returncode == 0, installed.stderr

    found = run(python, "-c", "import igos_bench; print(igos_bench.__file__)", cwd=folder)
    assert Path(found.stdout.strip()).is_relative_to(home), found.stdout + found.stderr
    return scripts


def test_mistyped_key_is_one_readable_line(scripts: Path, tmp_path: Path) -> None:
    found = run(scripts / "igos-bench", "methodd=igos", cwd=tmp_path)
    assert found.returncode == 2, found.stderr
    [line] = found.stderr.splitlines()
    assert "'methodd'" in line and "'method'" in line


@pytest.mark.long
def test_run_table_and_report(scripts: Path, tmp_path: Path) -> None:
    """The configs, the sample, the tuned lambdas and the paper's numbers are found without the repository."""
    words = ("data.limit=1", "method.iterations=1", "protocol.n_steps=2", "results_dir=out", "method.lambdas=tuned")
    found = run(scripts / "igos-bench", *words, cwd=tmp_path)
    assert found.returncode == 0, found.stdout + found.stderr
    [records] = (tmp_path / "out" / "runs").rglob("records.csv")
    assert len(records.read_text().splitlines()) == 2  # the header and the image

    found = run(scripts / "igos-bench", "table", "results_dir=out", cwd=tmp_path)
    assert found.returncode == 0, found.stdout + found.stderr
    assert ",0.0899,0.5701," in (tmp_path / "out" / "table.csv").read_text()

    found = run(scripts / "igos-bench", "report", "results_dir=out", cwd=tmp_path)
    assert found.returncode == 0 and found.stderr == "", found.stdout + found.stderr
    assert (tmp_path / "out" / "report_files" / "0.js").exists()
    page = (tmp_path / "out" / "report.html").read_text()
    assert "function beginGallery" in page and ".row { " in page  # scripts and style are in the wheel
