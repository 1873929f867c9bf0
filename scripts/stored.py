"""The finished runs under `paper`, and what they have stored, used again: curves, and maps under another protocol."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, replace
from functools import cache, lru_cache
from pathlib import Path

import numpy as np
import torch
from rerun import has_default_method, read_config
from torch import Tensor

from igos_bench.batch import generator
from igos_bench.cells import Cell, find_cells
from igos_bench.config import RunConfig, plain
from igos_bench.errors import ImageError, UserError
from igos_bench.evaluate import Evaluator
from igos_bench.formats import read_json
from igos_bench.metrics import Protocol, deletion_insertion, rank
from igos_bench.overrides import compose_config
from igos_bench.perturb import Baselines
from igos_bench.prepare import Run, prepare
from igos_bench.results import RunDirectory


@cache
def protocol_of(name: str) -> Protocol:
    """The one in `conf/protocol/`."""
    return Protocol.from_config(compose_config([f"protocol={name}"]).protocol)


def finished_runs(results_dir: str, model: str, data: str) -> list[Cell]:
    """Those of the model and the data; raises UserError where there are none."""
    found, paper = [], plain(asdict(protocol_of("paper")))
    for cell in find_cells(Path(results_dir)):
        choices = read_json(cell.directory.protocol_path / "protocol.json")
        if (cell.model, cell.data) != (model, data) or choices not in (None, paper):
            continue
        if choices and cell.n and cell.n + cell.failed == cell.requested:
            found.append(cell)
        else:
            print(f"passed over, {cell.n:,} of {cell.requested:,} images are done: {cell.directory.path}")
    if not found:
        raise UserError(
            f"no finished runs under {Path(results_dir, 'runs', model, data)}: make them with igos-bench -m "
            f"experiment=table1 model={model} data={data} results_dir={results_dir}"
        )
    return found


def reference_cells(runs: Sequence[Cell], seed: int) -> list[Cell]:
    """One run a method and resolution, preprocessed and with noise as `conf/` has it.

    Of several, the one whose hyper-parameters are those of `conf/`; raises UserError where that leaves several.
    """
    usual = {"seed": str(seed), "precision": "fp32", "preprocessing": "plain", "method.noise": "authors"}
    cells: dict[tuple[str, int], list[Cell]] = {}
    for run in runs:
        if all(run.settings.get(key, value) == value for key, value in usual.items()):
            cells.setdefault((run.method, -run.resolution), []).append(run)
    for place, several in cells.items():
        if len(several) > 1:
            cells[place] = [run for run in several if has_default_method(config_of(run))] or several
        if len(cells[place]) > 1:
            raise UserError(
                f"{len(cells[place])} runs of {place[0]} at {-place[1]}: "
                f"{', '.join(str(run.directory.path) for run in cells[place])}; move all but one away"
            )
    if not cells:
        raise UserError(f"no run of seed={seed}, preprocessing=plain and precision=fp32")
    return [cell for _, (cell,) in sorted(cells.items())]


def config_of(cell: Cell, limit: int | None = None) -> RunConfig:
    """The configuration of its run, for as many images as it has, or `limit`."""
    config = read_config((cell.directory.read_provenance() or {})["config"])
    if limit or config.data.limit:  # in run.json is that of the first start
        images = min(limit or cell.requested, cell.requested)
        config = replace(config, data=replace(config.data, limit=images))
    return config


def stored_areas(cell: Cell, protocol: Protocol, image_ids: Sequence[str]) -> np.ndarray:
    """Deletion and insertion areas (2,n) under a protocol whose points are among those of the stored curves."""
    stored, wanted = (choices.hits(cell.resolution**2) for choices in (protocol_of("paper"), protocol))
    places = torch.searchsorted(stored, wanted)
    assert torch.equal(stored[places], wanted), "the points are not among those that are stored"
    found = _curves(cell.directory)
    if lost := [image_id for image_id in image_ids if image_id not in found]:
        raise UserError(
            f"{cell.directory.path} has lost the map or the curves of {lost[0]}: start the run again with the same "
            "words, which computes that chunk again and no other"
        )
    curves = torch.from_numpy(np.stack([found[image_id] for image_id in image_ids]))  # (n,2,n_steps+1)
    return np.stack([protocol.areas(curves[:, i, places], wanted) for i in range(2)])


@cache
def _curves(directory: RunDirectory) -> dict[str, np.ndarray]:
    """Image id -> its deletion and its insertion curve (2,n_steps+1)."""
    found: dict[str, np.ndarray] = {}
    for results in directory.results():
        found |= {image_id: np.stack([one["deletion"], one["insertion"]]) for image_id, one in results.items()}
    return found


def score_again(cell: Cell, protocol: Protocol, image_ids: Sequence[str], *, tie_seed: str | None = None) -> np.ndarray:
    """Deletion and insertion areas (2,n) of the stored maps under another protocol, a chunk of the run at a time.

    `tie_seed` puts tied elements into a random order; without it they keep theirs, as in the metric.
    """
    run, evaluate = _prepared(cell.directory)
    sources = {source.image_id: source for source in run.manifest.images}
    areas: dict[str, tuple[float, float]] = {}
    for results in cell.directory.results():
        if not (chunk := [results[image_id] for image_id in image_ids if image_id in results]):
            continue
        maps = [torch.from_numpy(one["map"]) for one in chunk]
        if tie_seed is not None:
            draws = [generator(tie_seed, "ties", one["image_id"]) for one in chunk]
            maps = [without_ties(one, draw) for one, draw in zip(maps, draws, strict=True)]
        images = []
        for source, image in run.decode([sources[one["image_id"]] for one in chunk], ahead=len(chunk)):
            if isinstance(image, ImageError):
                raise UserError(f"{source.image_id} could be read when it was explained, and cannot now: {image}")
            images.append(image)
        targets = torch.tensor([int(one["row"]["target"]) for one in chunk]).to(run.device)
        baselines = Baselines.joined(images, run.device)
        saliency_maps = torch.stack(maps).to(run.device)
        curves = deletion_insertion(evaluate, protocol, baselines.images, targets, saliency_maps, baselines)
        for one, deletion, insertion in zip(chunk, curves.deletion_auc, curves.insertion_auc, strict=True):
            areas[one["image_id"]] = (deletion, insertion)
    return np.array([areas[image_id] for image_id in image_ids]).T


@lru_cache(maxsize=1)
def _prepared(directory: RunDirectory) -> tuple[Run, Evaluator]:
    """A run as it was, with the size of its micro-batches; raises UserError where something is another by now."""
    provenance = directory.read_provenance() or {}
    run = prepare(read_config(provenance["config"]))
    if run.map_key != provenance["map_key"]:
        raise UserError(
            f"{directory.path}: the same words now make run {run.map_key}, so method, weights or images are others: "
            "run anew"
        )
    networks = (run.classifier.network, run.classifier.fast_network)
    return run, Evaluator(*networks, provenance["batch_size"], run.config.precision)


def without_ties(saliency_map: Tensor, draw: torch.Generator) -> Tensor:
    """A map (1,r,r) of whole numbers from 1 to r*r in the same order, tied elements among themselves at random."""
    values = saliency_map.flatten()
    shuffled = torch.randperm(len(values), generator=draw)
    ranks = torch.empty_like(values)  # float32 holds them all: 224 * 224 < 2 ** 24
    ranks[shuffled] = (len(values) - rank(values[None, shuffled])[0]).to(values)
    return ranks.view_as(saliency_map)
