"""A run of the table, by its key: the command that makes it again, and everything that it was made with."""

from __future__ import annotations

import shlex
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from .config import plain
from .errors import UserError
from .formats import read_json
from .marks import MARKS, marks_of_run
from .methods import installed_version
from .paths import is_file
from .results import run_files
from .tuned import tuned_lambdas
from .words import flat, words_for, written

NEEDED = (
    "map_key",
    "config",
    "method",
    "method_version",
    "parameters",
    "device",
    "chunk_size",
    "batch_size",
    "versions",
)

SHOWN = 5  # runs that are named where none is found


def find_run(asked: str, results_dir: Path) -> Path:
    """The folder of a run.

    Args:
        asked: The first digits of its key; or its folder, or one inside it.
        results_dir: Where keys are looked for.

    Raises:
        UserError: There is no such run, or there are several.
    """
    for folder in (Path(asked), Path(asked).parent):
        if is_file(folder / "run.json"):
            return folder.resolve()
    there = [path.parent for path in run_files(results_dir)]
    if not there:
        raise UserError(f"no runs under {results_dir / 'runs'}: say results_dir=FOLDER, or give a run's folder")
    found = [folder for folder in there if folder.name.startswith(asked)]
    if len(found) == 1:
        return found[0]
    what = f"{len(found)} runs have a key that begins with {asked}" if found else f"no run has the key {asked}"
    named = [f"{folder.name} ({'/'.join(folder.parts[-5:-1])})" for folder in found or there]
    some = ", ".join(named[:SHOWN] + [f"and {len(named) - SHOWN} more"] * (len(named) > SHOWN))
    raise UserError(f"{what} under {results_dir / 'runs'}; there are {some}")


def shown(folder: Path) -> str:
    """Everything about the run in a folder; the commands come first, ready to be pasted into a shell."""
    run = read_json(folder / "run.json") or {}
    if lacking := [key for key in NEEDED if key not in run]:
        raise UserError(f"{folder / 'run.json'} lacks {', '.join(lacking)}: it was edited, or is no run's")
    return "\n".join(f"{name:<10}{text}" for name, text in _lines(folder, run))


def _lines(folder: Path, run: Mapping[str, Any]) -> Iterator[tuple[str, object]]:
    used, protocols = _as_used(folder, run), _protocols(folder, run)
    yield "run", f"{run['map_key']} in {folder}"
    for protocol in protocols:
        yield "command", _command({**used, "protocol": protocol}, run)
    for mark in marks_of_run(run):
        yield "mark", f"{MARKS[mark][0]} it {MARKS[mark][1]}"
    installed = installed_version(run["method"])
    yield "method", f"{run['method']} version {run['method_version']}, here {installed or 'there is none of that name'}"
    for protocol in protocols:
        yield "protocol", f"{protocol['name']} version {protocol['version']}"
    yield "images", f"{run['done']:,} of {run['requested']:,} done"
    yield "", f"sha256 of their list {run.get('images_sha256', 'not known before the run ends')}"
    yield "", f"sha256 of all of {run['data']} {run['manifest_sha256']}"
    yield "weights", f"sha256 {run['weights_sha256']}"
    yield "", f"sha256 of the file {run['weights_file_sha256']}, {run['weights_file']}"
    for begun in (run, *run.get("continued", [])):
        yield from _code_and_machine(begun)
    yield "finished", run["finished"] or "not yet"
    yield "sizes", f"{run['chunk_size']} images a chunk, {run['batch_size']} inputs a micro-batch"
    yield "settings", f"in the folder {run.get('folder', 'not known')}"
    for key, value in flat({**used, "method": {"name": run["method"], **run["parameters"]}}):
        yield "", f"{key}={written(value)}"


def _code_and_machine(begun: Mapping[str, Any]) -> Iterator[tuple[str, object]]:
    """Of a run, or of one of the times that it went on elsewhere."""
    git = begun["git"]
    yield "started", begun["started"]
    changes = "uncommitted changes beside it" if git and git["dirty"] else "no uncommitted changes"
    yield (
        "commit",
        f"{git['commit']}, {changes}" if git else "not known: the code was in no repository, or git did not answer",
    )
    yield "versions", ", ".join(f"{name} {version}" for name, version in begun["versions"].items())
    yield "machine", f"{begun['machine']}, {begun['processor']}, {begun['device']}, {begun['threads']} threads"


def _as_used(folder: Path, run: Mapping[str, Any]) -> dict[str, Any]:
    """The configuration with what was decided only when the run began, its paths as they hold from here."""
    config, start = run["config"], Path(run.get("folder", ""))
    data, weights, listing = config["data"], config["model"]["weights"], folder / "images.txt"
    limit = listing.read_text(encoding="utf-8").count("\n") if data["limit"] and listing.exists() else data["limit"]
    paths = {key: data[key] and str(start / data[key]) for key in ("root", "labels", "list")}
    return {
        **config,
        "data": {**data, **paths, "limit": limit},
        "model": {**config["model"], "weights": weights if weights in (None, "pretrained") else str(start / weights)},
        "maps": config["maps"] and str(start / config["maps"]),
        "evaluate": {**config["evaluate"], "batch_size": run["batch_size"]},
        "device": run["device"],
        "chunk_size": run["chunk_size"],
        "results_dir": str(folder.parents[5]) if folder.parts[-6:-5] == ("runs",) else config["results_dir"],
    }


def _protocols(folder: Path, run: Mapping[str, Any]) -> list[dict[str, Any]]:
    """All that the run was scored under, the one that it was started with first."""
    own = run["config"]["protocol"]
    found = [read_json(path) for path in sorted(folder.glob("*-*/protocol.json"))]
    return [own, *(protocol for protocol in found if protocol and protocol != own)]


def _command(config: Mapping[str, Any], run: Mapping[str, Any]) -> str:
    method, config_dir = config["method"], run.get("config_dir")
    is_scored = config["maps"] or config["protocol"] != run["config"]["protocol"]
    try:
        if method.get("lambdas") == "tuned":
            now = plain(tuned_lambdas(config["model"]["name"], method["name"]))
            if now != run["parameters"]["lambdas"]:
                raise UserError(f"method.lambdas=tuned stands for {written(now)} here")
        words = words_for(config, config_dir and str(Path(run.get("folder", ""), config_dir)))
    except UserError as error:
        return f"cannot be said here: {error}"
    return shlex.join(["igos-bench", *["score"] * bool(is_scored), *words])
