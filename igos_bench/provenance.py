"""Where numbers come from: everything about a run that is not a number of its own, as it stands in run.json."""

from __future__ import annotations

import platform
import subprocess
from collections.abc import Mapping
from dataclasses import asdict, replace
from datetime import UTC, datetime
from importlib.metadata import PackageNotFoundError, packages_distributions, version
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch

from .config import CPU_CHUNK, Forward, plain
from .machine import processor

if TYPE_CHECKING:
    from .prepare import Run


def describe(run: Run) -> dict[str, Any]:
    """The first run.json of a run: configuration, keys, versions, hashes, machine; nothing is done yet."""
    config = run.config
    on_cpu = run.device.type == "cpu"
    return {
        "map_key": run.map_key,
        "config": plain(asdict(replace(config, shard=None))),
        "config_dir": run.config_dir,
        "folder": str(Path.cwd()),  # where relative paths begin
        "method": run.method.name,
        "method_version": run.method.version,
        "parameters": run.parameters,  # lambdas=tuned as the numbers that it stands for
        **({"maps": {"folder": str(run.maps.folder), "sha256": run.maps.sha256}} if run.maps else {}),
        "protocol": run.protocol.name,
        "protocol_version": run.protocol.version,
        "resolution": config.resolution,
        "model": run.classifier.name,
        "data": run.manifest.name,
        "folded": run.classifier.folded,
        "weights_sha256": run.classifier.weights_sha256,
        "weights_file": run.classifier.weights_file,
        "weights_file_sha256": run.classifier.weights_file_sha256,
        "manifest_sha256": run.manifest.sha256,
        **_code_and_machine(run, config.evaluate.forward),
        "precision": config.precision.value,
        "chunk_size": config.chunk_size or (CPU_CHUNK if on_cpu else 50),
        "batch_size": run.choose_batch_size(),
        "forward": (config.evaluate.forward or Forward.torch).value,
        "started": now(),
        "finished": None,
        "requested": len(run.images),
        "done": 0,
    }


def continued(found: Mapping[str, Any], run: Run) -> dict[str, Any]:
    """run.json of a run that goes on; where code or machine are others than before, they stand under `continued`."""
    here = _code_and_machine(run, found.get("forward"))
    known = [found, *found.get("continued", [])]
    if any(here.items() <= one.items() for one in known):
        return dict(found)
    return {**found, "continued": [*known[1:], {"started": now(), **here}]}


def kept_choices(found: Mapping[str, Any], run: Run) -> str | None:
    """What to tell where what is asked for is not what the run of this run.json began with and keeps."""
    config = run.config
    asked = {"evaluate.batch_size": config.evaluate.batch_size, "chunk_size": config.chunk_size}
    began = {"evaluate.batch_size": found["batch_size"], "chunk_size": found["chunk_size"]}
    if config.evaluate.forward:
        asked["evaluate.forward"] = config.evaluate.forward.value
        began["evaluate.forward"] = found.get("forward", Forward.torch.value)
    others = [key for key, value in asked.items() if value not in (None, "auto", began[key])]
    if not others:
        return None
    kept, wanted = (" ".join(f"{key}={values[key]}" for key in others) for values in (began, asked))
    return f"the run in {run.directory.path} began with {kept} and goes on so; for {wanted} set another results_dir"


def _code_and_machine(run: Run, forward: str | None) -> dict[str, Any]:
    return {
        "git": git_state(),
        "versions": _versions(type(run.method).__module__, forward),
        "device": run.device.type,  # without the number of a GPU: the shards of a run have one each
        "machine": platform.platform(),
        "processor": processor(run.device),
        "threads": torch.get_num_threads(),
    }


def now() -> str:
    """The time in UTC, to the second."""
    return datetime.now(UTC).isoformat(timespec="seconds")


def _versions(module: str, forward: str | None) -> dict[str, str]:
    """Of what numbers depend on, and of the package that the method's module comes from."""
    packages = ["igos-bench", "torch", "torchvision", "timm", "hydra-core", "numpy", "pillow", "scipy"]
    packages += ["openvino"] if forward == Forward.openvino else []
    top = module.partition(".")[0]
    if top != __package__:
        packages += sorted(set(packages_distributions().get(top, [])))
    found = {"python": platform.python_version()}
    for package in packages:
        try:
            found[package] = version(package)
        except PackageNotFoundError:
            found[package] = "not installed"
    return found


def git_state() -> dict[str, Any] | None:
    """Commit of this code and whether that is dirty; None where it is in no repository or git does not answer.

    What is written into the tree beside the code, a table that comes of a run among it, changes no number. A tree that
    somebody else owns, as in containers, is asked like one's own: its code is what runs here anyway.
    """
    here = Path(__file__).parent
    code = (":/igos_bench", ":/conf", ":/scripts", ":/pyproject.toml", ":/constraints.txt")

    def ask(*words: str) -> str:
        command = ["git", "-c", f"safe.directory={here.parent}", "-C", str(here), *words]
        return subprocess.run(command, capture_output=True, text=True, check=True, timeout=10).stdout.strip()

    try:
        if Path(ask("rev-parse", "--show-toplevel")) != here.parent:
            return None  # installed somewhere inside another repository
        return {"commit": ask("rev-parse", "HEAD"), "dirty": bool(ask("status", "--porcelain", "--", *code))}
    except (OSError, subprocess.SubprocessError):
        return None
