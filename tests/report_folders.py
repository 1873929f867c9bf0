"""Results folders as runs leave them, with photographs, maps and curves that a report can show."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image

from igos_bench.config import DataConfig, ProtocolConfig
from igos_bench.data import read_manifest
from igos_bench.metrics import Protocol
from igos_bench.results import RunDirectory, short_key

HOSTILE = (
    "3/<script>window.hit = 1</script>.png",  # the slash makes a folder of its first half
    '3/"quo\'ted" & <b>bold<i>.png',
    "7/]]><!--<img src=x onerror=window.hit=2>.png",
    "7/=1+1 ünïcode 写真.png",
)
REASON = "broke </script><img src=x onerror=window.hit=3> & so on\u2028and on"


def leave_photographs(root: Path, names: Sequence[str], size: int = 64) -> None:
    """A smooth coloured picture for each name, all different."""
    y, x = np.mgrid[0:size, 0:size] / size
    for i, name in enumerate(names):
        phases = np.random.default_rng(i).uniform(1, 6, 6)
        waves = [np.sin(phases[c] * x + phases[c + 3] * y + i) for c in range(3)]
        path = root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray((127.5 + 127.5 * np.stack(waves, 2)).astype(np.uint8)).save(path)


def leave_maps(
    results_dir: Path,
    root: Path,
    method: str,
    resolution: int,
    *,
    done: int | None = None,
    failed: Sequence[int] = (),
    chunk_size: int = 4,
    n_steps: int = 200,
    ranking: str = "elements",
    parameters: dict[str, Any] | None = None,
    model: str = "toy",
    network: dict[str, Any] | None = None,
    data_name: str = "images",
) -> RunDirectory:
    """What a run over the images below `root` leaves that did the first `done` of them, those of `failed` in vain.

    `network` is what its configuration says of the model.
    """
    data = DataConfig(name=data_name, layout="folder", root=str(root))
    manifest = read_manifest(data)
    protocol = Protocol.from_config(ProtocolConfig(n_steps=n_steps, ranking=ranking))
    config = {
        "data": asdict(data), "seed": 0, "precision": "fp32", "preprocessing": "plain", "timing": "chunk",
        "method": {"name": method, **(parameters or {})}, "protocol": asdict(protocol),
        **({"model": {"name": model, **network}} if network else {}),
    }  # fmt: skip
    key = short_key({"config": config, "resolution": resolution})
    path = results_dir / "runs" / model / data_name / method / str(resolution) / key
    directory = RunDirectory(path, f"paper-{short_key({'map': key})}")
    directory.write_provenance(
        {
            "map_key": key, "config": config, "method": method, "protocol": "paper", "resolution": resolution,
            "model": model, "data": data_name, "weights_sha256": "f" * 64, "manifest_sha256": manifest.sha256,
            "requested": len(manifest.images), "done": 0, "device": "cpu", "processor": "toy", "threads": 2,
        }
    )  # fmt: skip
    directory.write_listing(manifest.listing(None))
    directory.write_protocol(json.loads(json.dumps(asdict(protocol))))
    random = np.random.default_rng(int(key, 16))
    work = int(key, 16) % 90 + 10  # so that cells differ in time and passes
    hits = protocol.hits((224 if ranking == "pixels" else resolution) ** 2)
    for start in range(0, len(manifest.images) if done is None else done, chunk_size):
        chunk = manifest.images[start : start + chunk_size]
        maps = random.normal(size=(len(chunk), 1, resolution, resolution)).astype(np.float32)
        maps = np.maximum(maps, 0)  # half of it a plateau, as I-GOS's maps have them
        rise = np.linspace(0.02, random.uniform(0.3, 1, (len(chunk), 1)), len(hits), axis=-1)[:, 0].astype(np.float32)
        low, high = rise[:, :1], rise[:, -1:]
        fall = low + (high - low) * ((rise[:, ::-1] - low) / (high - low)) ** 3  # with the ends of the other
        curves = {"deletion": fall, "insertion": rise}
        rows = []
        for i, image in enumerate(chunk):
            row: dict[str, Any] = {"image_id": image.image_id, "status": "failed", "error": REASON}
            if start + i not in failed:
                areas = {
                    f"{kind}_auc": protocol.areas(torch.tensor(c[i : i + 1].copy()), hits)[0]
                    for kind, c in curves.items()
                }
                row |= {
                    "status": "ok", "error": "", "label": image.label, "target": 3, "score_image": float(rise[i, -1]),
                    **areas, "explain_seconds": work / 10, "score_seconds": 50 / work,
                    "forwards": work, "backwards": 100 - work,
                }  # fmt: skip
            rows.append(row)
        ok = [i for i, row in enumerate(rows) if row["status"] == "ok"]
        ids = np.array([rows[i]["image_id"] for i in ok])
        directory.write_maps(start // chunk_size, {"image_id": ids, "saliency_map": maps[ok]})
        arrays = {kind: values[ok] for kind, values in curves.items()}
        directory.commit(start // chunk_size, {"image_id": ids, "hits": hits.numpy(), **arrays}, rows)
    return directory
