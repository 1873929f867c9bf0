"""One chunk of a run: its images -> maps, curves and rows, on the disk. Whoever computes one holds its lease."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from .batch import explain_and_score
from .clock import peak_memory_mb
from .data import ImageSource
from .errors import ImageError
from .evaluate import Evaluator
from .formats import Row, by_id
from .lease import Lease
from .perturb import Baselines
from .prepare import Run

Decoded = tuple[ImageSource, Baselines | ImageError]


def compute(
    run: Run,
    evaluate: Evaluator,
    lease: Lease,
    decoded: Sequence[Decoded],
    decode_seconds: float,
    *,
    explain: bool,
) -> list[Row]:
    """Compute and commit a chunk, of which these are the images; raises LeaseLostError."""
    index = int(lease.name)
    evaluate.notes.clear()
    rows, results, is_explained = _try(run, evaluate, lease, decoded, explain=explain)
    done = [row for row in rows.values() if row["status"] == "ok"]
    count = max(1, len(done))
    # What was done once is kept where it cannot be done again, or is not asked for this time: a smaller `data.limit`.
    for image_id, once in run.directory.read_results(index).items():
        if image_id not in results:
            results[image_id], rows[image_id] = once, once["row"]
    if is_explained or run.maps:
        maps = {image_id: results[image_id]["map"] for image_id in rows if image_id in results}
        # A map whose image failed this time stays, behind the others.
        before = by_id(run.directory.read_maps(index), "saliency_map")
        maps |= {image_id: one for image_id, one in before.items() if image_id not in maps}
        names = np.array(list(maps), dtype=np.str_)
        saliency_maps = np.array(list(maps.values()), dtype=np.float32)
        run.directory.write_maps(index, {"image_id": names, "saliency_map": saliency_maps}, lease)
    ordered = [results[image_id] for image_id in rows if image_id in results]
    curves = {key: np.array([one[key] for one in ordered], dtype=np.float32) for key in ("deletion", "insertion")}
    names = np.array([one["image_id"] for one in ordered], dtype=np.str_)
    hits = ordered[0]["hits"] if ordered else np.zeros(0, dtype=np.int64)
    run.directory.commit(index, {"image_id": names, "hits": hits, **curves}, list(rows.values()), lease)
    run.directory.log_timing(
        index,
        {
            "chunk": index,
            "images": len(decoded),
            "decode_seconds": decode_seconds,
            "explain_seconds": sum(row["explain_seconds"] or 0.0 for row in done),
            "score_seconds": sum(row["score_seconds"] for row in done),
            "forwards": sum(row["forwards"] or 0.0 for row in done) / count,
            "backwards": sum(row["backwards"] or 0.0 for row in done) / count,
            "peak_memory_mb": peak_memory_mb(run.device),
            "notes": "; ".join(f"{count} {what}" for what, count in evaluate.notes.items()),
        },
        lease,
    )
    return list(rows.values())


def failed_again(
    run: Run, evaluate: Evaluator, lease: Lease, decoded: Sequence[Decoded], *, explain: bool
) -> list[Row]:
    """Try these images of a chunk alone, which failed before; its rows, where each fails again, with the new reasons.

    A row whose reason is still the same stays as it is: the bytes of an image may depend on those beside it. For that
    it is empty where one does not fail again: all are to be computed again then. Raises LeaseLostError.
    """
    rows, results, _ = _try(run, evaluate, lease, decoded, explain=explain)
    if results:
        return []
    renewed = []
    for row in run.directory.read_rows(int(lease.name)):
        again = rows.get(row["image_id"], row)
        renewed.append(again if again["error"] != row["error"] else row)
    if renewed:
        run.directory.commit_rows(int(lease.name), renewed, lease)
    return renewed


def _try(
    run: Run, evaluate: Evaluator, lease: Lease, decoded: Sequence[Decoded], *, explain: bool
) -> tuple[dict[str, Row], dict[str, dict[str, Any]], bool]:
    """Rows of these images of a chunk, by id; results of those that did not fail; and whether these were explained."""
    lease.check()
    index = int(lease.name)
    rows: dict[str, Row] = {}
    good: list[tuple[ImageSource, Baselines]] = []
    for source, image in decoded:
        rows[source.image_id] = {"image_id": source.image_id, "label": source.label, "status": "failed"}
        if isinstance(image, ImageError):
            rows[source.image_id]["error"] = str(image)
        else:
            good.append((source, image))
    ids = [source.image_id for source, _ in good]
    stored = run.maps.read(ids) if run.maps else run.directory.read_maps(index)
    # Maps that rows of another protocol rest on are scored, not made again.
    if explain and not (stored and set(ids) <= set(stored["image_id"]) and run.directory.is_scored_elsewhere(index)):
        stored = None
    if stored is not None:
        there = by_id(stored, "saliency_map")
        for source, _ in good:
            if source.image_id not in there:
                rows[source.image_id]["error"] = "has no stored map: explaining it failed"
        good = [one for one in good if one[0].image_id in there]
    results = explain_and_score(run, evaluate, good, rows, stored)
    return rows, {result["image_id"]: result for result in results}, stored is None
