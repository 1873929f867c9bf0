"""The loop: image -> saliency map -> curves -> row, chunk by chunk, with resume."""

from __future__ import annotations

import hashlib
import math
import os
import platform
import resource
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass, field
from datetime import UTC, datetime
from importlib.metadata import PackageNotFoundError, version
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from .config import Device, RunConfig
from .data import ImageSource, Manifest, read_manifest
from .errors import ImageError, UserError
from .evaluate import Evaluator
from .images import stream
from .methods import Method, get_method
from .metrics import Protocol, deletion_insertion
from .models import Classifier, load_classifier
from .results import Row, RunDirectory, short_key

TARGET_RULE = "predicted"
Report = Callable[[int, list[Row]], None]


@dataclass
class Outcome:
    """What a run did: `rows` of all requested images, how many were there before, and where they are."""

    directory: Path
    records: Path
    rows: list[Row]
    resumed: int


@dataclass
class Run:
    """A run made ready: everything is loaded and checked, nothing is computed yet."""

    config: RunConfig
    method: Method
    protocol: Protocol
    manifest: Manifest
    classifier: Classifier
    device: torch.device
    directory: RunDirectory = field(init=False)
    map_key: str = field(init=False)

    def __post_init__(self) -> None:
        """Work out the keys and the folder."""
        config, method = self.config, self.method
        self.map_key = short_key(
            {
                "method": method.name,
                "method_version": method.version,
                "parameters": _plain(asdict(method)),  # type: ignore[call-overload]
                "resolution": config.resolution,
                "model": self.classifier.name,
                "weights": self.classifier.weights_sha256,
                "data": self.manifest.sha256,
                "preprocessing": config.preprocessing.value,
                "target": TARGET_RULE,
                "precision": config.precision.value,
                "seed": config.seed,
            }
        )
        protocol_key = short_key({"map": self.map_key, "protocol": _plain(asdict(self.protocol))})
        folder = Path(
            config.results_dir, "runs", self.classifier.name, self.manifest.name, method.name, str(config.resolution)
        )
        self.directory = RunDirectory(folder / self.map_key, f"{self.protocol.name}-{protocol_key}")

    @property
    def images(self) -> Sequence[ImageSource]:
        """The requested images."""
        return self.manifest.take(self.config.data.limit)


def prepare(config: RunConfig) -> Run:
    """Load and check everything that a run needs; raises UserError before anything is computed."""
    parameters = dict(config.method)
    method = get_method(parameters.pop("name"), parameters)
    if config.resolution not in method.resolutions:
        choices = ", ".join(map(str, method.resolutions))
        raise UserError(f"{method.name} has no resolution {config.resolution}; choices: {choices}")
    if config.chunk_size < 1:
        raise UserError(f"chunk_size must be at least 1, found {config.chunk_size}")
    protocol = Protocol.from_config(config.protocol)
    manifest = read_manifest(config.data)
    device = choose_device(config.device)
    forbid_shortcuts()
    return Run(config, method, protocol, manifest, load_classifier(config.model, device, seed=config.seed), device)


def choose_device(device: Device) -> torch.device:
    """The device asked for; `auto` takes CUDA, then MPS, then the CPU. Raises UserError where it is not there."""
    available = {"cuda": torch.cuda.is_available(), "mps": torch.backends.mps.is_available(), "cpu": True}
    if device is Device.auto:
        return torch.device(next(name for name, there in available.items() if there))
    if not available[device.value]:
        there = ", ".join(name for name, is_there in available.items() if is_there)
        raise UserError(f"device={device.value} is not available here; available: {there}")
    return torch.device(device.value)


def forbid_shortcuts() -> None:
    """fp32 means fp32: no TF32, no autotuning, deterministic algorithms where there are any."""
    os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")
    torch.backends.cuda.matmul.allow_tf32 = False
    torch.backends.cudnn.allow_tf32 = False
    torch.backends.cudnn.benchmark = False
    torch.use_deterministic_algorithms(True, warn_only=True)
    # By default every new tensor is then filled with NaN, to catch reads of what was never written: a fifth of the time.
    torch.utils.deterministic.fill_uninitialized_memory = False


def execute(run: Run, report: Report, *, explain: bool = True) -> Outcome:
    """Compute what is missing of a run.

    Args:
        run: What `prepare` made.
        report: Called with the number of images done and their rows after every chunk.
        explain: False scores stored maps and raises UserError where there are none.
    """
    directory = run.directory
    provenance = _start(run)
    size = provenance["chunk_size"]
    evaluate = Evaluator(
        run.classifier.network, run.classifier.fast_network, provenance["batch_size"], run.config.precision
    )
    images = run.images
    chunks = [images[start : start + size] for start in range(0, len(images), size)]
    rows: dict[int, list[Row]] = {i: directory.read_rows(i) for i in range(len(chunks))}
    missing = [i for i, chunk in enumerate(chunks) if not _is_done(chunk, rows[i])]
    if not explain and (lost := [i for i in missing if not _has_maps(directory, i, chunks[i])]):
        raise UserError(
            f"{len(lost)} of {len(chunks)} chunks have no stored maps in {directory.path / 'maps'}: "
            f"make them first with the same words after `igos-bench run`"
        )
    resumed = sum(len(chunk) for i, chunk in enumerate(chunks) if i not in missing)
    report(resumed, [row for i in range(len(chunks)) if i not in missing for row in rows[i]])
    try:
        decoded = stream(
            [image for i in missing for image in chunks[i]],
            preprocessing=run.config.preprocessing,
            max_pixels=run.config.data.max_pixels,
            workers=run.config.data.workers,
            ahead=2 * size,
        )
        for i in missing:
            rows[i] = _chunk(run, evaluate, i, islice(decoded, len(chunks[i])), explain=explain)
            report(len(chunks[i]), rows[i])
    finally:
        records = directory.merge_records()
    wanted = {image.image_id for image in images}
    found = [row for i in range(len(chunks)) for row in rows[i] if row["image_id"] in wanted]
    provenance |= {
        "finished": _now(),
        "requested": len(images),
        "done": sum(row["status"] == "ok" for row in found),
    }
    directory.write_provenance(provenance)
    return Outcome(directory.path, records, found, resumed)


def _chunk(
    run: Run,
    evaluate: Evaluator,
    index: int,
    decoded: Iterator[tuple[ImageSource, Tensor | ImageError]],
    *,
    explain: bool,
) -> list[Row]:
    """Compute and commit one chunk; `decoded` are its images, which are waited for here."""
    started = time.perf_counter()
    rows: dict[str, Row] = {}
    good: list[tuple[ImageSource, Tensor]] = []
    for source, image in decoded:
        rows[source.image_id] = {"image_id": source.image_id, "label": source.label, "status": "failed"}
        if isinstance(image, ImageError):
            rows[source.image_id]["error"] = str(image)
        else:
            good.append((source, image))
    decode_seconds = time.perf_counter() - started
    stored = None if explain else run.directory.read_maps(index)
    results = _explain_and_score(run, evaluate, good, rows, stored)
    arrays = {key: [result[key] for result in results] for key in ("image_id", "map", "deletion", "insertion")}
    ids = np.array(arrays["image_id"], dtype=np.str_)
    if explain:
        run.directory.write_maps(index, {"image_id": ids, "saliency_map": np.array(arrays["map"], dtype=np.float32)})
    curves = {key: np.array(arrays[key], dtype=np.float32) for key in ("deletion", "insertion")}
    hits = results[0]["hits"] if results else np.zeros(0, dtype=np.int64)
    run.directory.commit(index, {"image_id": ids, "hits": hits, **curves}, list(rows.values()))
    done = max(1, len(good))
    run.directory.log_timing(
        {
            "chunk": index,
            "images": len(rows),
            "decode_seconds": decode_seconds,
            "explain_seconds": sum(row.get("explain_seconds") or 0.0 for row in rows.values()),
            "score_seconds": sum(row.get("score_seconds") or 0.0 for row in rows.values()),
            "forwards": sum(row.get("forwards") or 0.0 for row in rows.values()) / done,
            "backwards": sum(row.get("backwards") or 0.0 for row in rows.values()) / done,
            "peak_memory_mb": peak_memory_mb(run.device),
        }
    )
    return list(rows.values())


def _explain_and_score(
    run: Run,
    evaluate: Evaluator,
    good: list[tuple[ImageSource, Tensor]],
    rows: dict[str, Row],
    stored: dict[str, np.ndarray] | None,
) -> list[dict[str, Any]]:
    """Fill in the rows of images that were decoded; where a batch fails, image by image, so that one fails alone."""
    if not good:
        return []
    try:
        return _batch(run, evaluate, good, rows, stored)
    except UserError:
        raise
    except Exception as error:
        if len(good) == 1:
            rows[good[0][0].image_id]["error"] = f"{type(error).__name__}: {error}".splitlines()[0]
            return []
        return [result for one in good for result in _explain_and_score(run, evaluate, [one], rows, stored)]


def _batch(
    run: Run,
    evaluate: Evaluator,
    good: list[tuple[ImageSource, Tensor]],
    rows: dict[str, Row],
    stored: dict[str, np.ndarray] | None,
) -> list[dict[str, Any]]:
    config, method = run.config, run.method
    images = torch.stack([image for _, image in good]).to(run.device)
    logits = evaluate.logits(images)
    if not logits.isfinite().all():
        raise ImageError("the network's logits are not finite on the unperturbed image")
    targets = logits.argmax(1)
    before = (evaluate.forwards, evaluate.backwards)
    clock = _Clock(run.device)
    if stored is None:
        maps = method(
            evaluate,
            images,
            targets,
            baselines=method.baseline(images),
            resolution=config.resolution,
            generators=[generator(config.seed, method.name, source.image_id) for source, _ in good],
            run_generator=generator(config.seed, method.name),
        )
    else:
        place = {str(image_id): i for i, image_id in enumerate(stored["image_id"])}
        maps = torch.from_numpy(np.stack([stored["saliency_map"][place[source.image_id]] for source, _ in good]))
        maps = maps.to(run.device)
    expected = (len(good), 1, config.resolution, config.resolution)
    if tuple(maps.shape) != expected or maps.dtype != torch.float32 or not maps.isfinite().all():
        raise ImageError(f"{method.name} must return finite float32 maps {expected}, found {tuple(maps.shape)}")
    explain_seconds = clock.lap()
    passes = (evaluate.forwards - before[0], evaluate.backwards - before[1])
    curves = deletion_insertion(evaluate, run.protocol, images, targets, maps)
    if not (curves.deletion.isfinite().all() and curves.insertion.isfinite().all()):
        raise ImageError("the network's probabilities are not finite on perturbed images")
    score_seconds = clock.lap()
    count = len(good)
    results = []
    for b, (source, _) in enumerate(good):
        rows[source.image_id] |= {
            "target": int(targets[b]),
            "score_image": float(curves.deletion[b, 0]),
            "score_baseline": float(curves.deletion[b, -1]),
            "deletion_auc": float(curves.deletion_auc[b]),
            "insertion_auc": float(curves.insertion_auc[b]),
            "ties": float(curves.ties[b]),
            "explain_seconds": explain_seconds / count if stored is None else None,
            "score_seconds": score_seconds / count,
            "forwards": passes[0] / count if stored is None else None,
            "backwards": passes[1] / count if stored is None else None,
            "status": "ok",
        }
        results.append(
            {
                "image_id": source.image_id,
                "map": maps[b].cpu().numpy(),
                "deletion": curves.deletion[b].cpu().numpy(),
                "insertion": curves.insertion[b].cpu().numpy(),
                "hits": curves.hits.numpy(),
            }
        )
    return results


def generator(*seed: object) -> torch.Generator:
    """A CPU generator seeded by the first 8 bytes of sha256("seed|method|image_id"): never by batch or position."""
    digest = hashlib.sha256("|".join(map(str, seed)).encode()).digest()
    return torch.Generator().manual_seed(int.from_bytes(digest[:8], "big"))


class _Clock:
    """Synchronised wall time."""

    def __init__(self, device: torch.device) -> None:
        self.device = device
        self.last = self._now()

    def lap(self) -> float:
        """Seconds since the last lap."""
        now = self._now()
        seconds, self.last = now - self.last, now
        return seconds

    def _now(self) -> float:
        if self.device.type in ("cuda", "mps"):
            getattr(torch, self.device.type).synchronize()
        return time.perf_counter()


def peak_memory_mb(device: torch.device) -> float:
    """Peak memory so far: the device's on CUDA, else the process's."""
    if device.type == "cuda":
        return torch.cuda.max_memory_allocated(device) / 2**20
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak / (2**20 if sys.platform == "darwin" else 2**10)


def _is_done(chunk: Sequence[ImageSource], rows: list[Row]) -> bool:
    ok = {row["image_id"] for row in rows if row["status"] == "ok"}
    return all(image.image_id in ok for image in chunk)


def _has_maps(directory: RunDirectory, index: int, chunk: Sequence[ImageSource]) -> bool:
    stored = directory.read_maps(index)
    return stored is not None and {image.image_id for image in chunk} <= set(map(str, stored["image_id"]))


def _start(run: Run) -> dict[str, Any]:
    """run.json of this run, made by whoever starts it first; sizes stay as they were fixed then."""
    config = run.config
    provenance = run.directory.read_provenance()
    if provenance is not None:
        if provenance.get("map_key") != run.map_key:
            raise UserError(
                f"{run.directory.path / 'run.json'} says map_key={provenance.get('map_key')}, this run has "
                f"{run.map_key}: the folder was copied or edited; it is left untouched, set another results_dir"
            )
        return provenance
    provenance = {
        "map_key": run.map_key,
        "config": _plain(asdict(config)),
        "method": run.method.name,
        "method_version": run.method.version,
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
        "git": _git(),
        "versions": _versions(),
        "device": str(run.device),
        "machine": platform.platform(),
        "processor": platform.processor() or platform.machine(),
        "threads": torch.get_num_threads(),
        "precision": config.precision.value,
        "chunk_size": config.chunk_size,
        "batch_size": config.evaluate.batch_size or (4 if run.device.type == "cpu" else 64),
        "started": _now(),
        "finished": None,
        "requested": len(run.images),
        "done": 0,
    }
    run.directory.write_provenance(provenance)
    return provenance


def _plain(value: Any) -> Any:
    """A value as JSON has it: keys as text, tuples as lists, enums by value."""
    if isinstance(value, dict):
        return {str(key): _plain(item) for key, item in sorted(value.items(), key=lambda pair: str(pair[0]))}
    if isinstance(value, (list, tuple)):
        return [_plain(item) for item in value]
    if isinstance(value, float) and not math.isfinite(value):
        return str(value)
    return value.value if hasattr(value, "value") else value


def _now() -> str:
    return datetime.now(UTC).isoformat(timespec="seconds")


def _versions() -> dict[str, str]:
    found = {"python": platform.python_version()}
    for package in ("igos-bench", "torch", "torchvision", "timm", "hydra-core", "numpy", "pillow", "scipy"):
        try:
            found[package] = version(package)
        except PackageNotFoundError:
            found[package] = "not installed"
    return found


def _git() -> dict[str, Any] | None:
    """Commit of this code and whether its tree is dirty; None where it is not in a repository."""
    here = Path(__file__).parent

    def ask(*words: str) -> str:
        command = ["git", "-C", str(here), *words]
        return subprocess.run(command, capture_output=True, text=True, check=True, timeout=10).stdout.strip()

    try:
        if Path(ask("rev-parse", "--show-toplevel")) != here.parent:
            return None  # installed somewhere inside another repository
        return {"commit": ask("rev-parse", "HEAD"), "dirty": bool(ask("status", "--porcelain"))}
    except (OSError, subprocess.SubprocessError):
        return None
