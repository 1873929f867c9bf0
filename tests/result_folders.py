"""Results folders as runs leave them, with areas that the test chooses."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from igos_bench.formats import Row
from igos_bench.results import RunDirectory, short_key


def leave_run(
    results_dir: Path,
    method: str,
    resolution: int,
    areas: Sequence[tuple[float, float] | None],
    *,
    requested: int | None = None,
    protocol: str = "paper",
    model: str = "toy",
    data: str = "images",
    chunk_size: int = 2,
    n_steps: int = 4,
    parameters: dict[str, Any] | None = None,
    code: dict[str, Any] | None = None,
    **settings: Any,
) -> RunDirectory:
    """What a run leaves whose image i has the (deletion, insertion) areas[i], or failed where that is None.

    `settings` are keys of its configuration: `seed`, `precision`, `preprocessing`; `code` is more of its run.json.
    """
    requested = len(areas) if requested is None else requested
    config = {
        "seed": 0,
        "precision": "fp32",
        "preprocessing": "plain",
        **settings,
        "method": {"name": method, **(parameters or {})},
    }
    key = short_key({"config": config, "resolution": resolution, "model": model})
    path = results_dir / "runs" / model / data / method / str(resolution) / key
    choices = {"name": protocol, "version": 1, "n_steps": n_steps}
    directory = RunDirectory(path, f"{protocol}-{short_key({'map': key, 'protocol': choices})}")
    directory.write_provenance(
        {
            "map_key": key, "config": {**config, "protocol": choices}, "method": method, "protocol": protocol,
            "resolution": resolution, "model": model, "data": data, "weights_sha256": "f" * 64,
            "manifest_sha256": "e" * 64, "requested": requested, "done": 0, **(code or {}),
        }
    )  # fmt: skip
    directory.write_listing("".join(f"image{i}\n" for i in range(requested)))
    directory.write_protocol(choices)
    for start in range(0, len(areas), chunk_size):
        rows: list[Row] = []
        for i, pair in enumerate(areas[start : start + chunk_size], start):
            row: Row = {"image_id": f"image{i}", "status": "failed", "error": "no image"}
            if pair is not None:
                row |= {"status": "ok", "error": "", "deletion_auc": pair[0], "insertion_auc": pair[1]}
                row |= {"explain_seconds": 2.0 + i, "score_seconds": 0.5}
            rows.append(row)
        directory.commit(start // chunk_size, {"deletion": np.zeros((0, 5))}, rows)
    return directory
