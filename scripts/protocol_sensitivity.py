"""How far each choice of the metric moves the numbers, and whether it reorders methods.

    python scripts/protocol_sensitivity.py [results_dir=results] [model=efficientnet_lite0] [data=sample]

Takes the finished runs of one model and data under `protocol=paper` and scores their maps with one choice changed:

    n_steps        10, 20, 50, 100, 200    from the stored curves, exactly: their points are among those of 200 steps
    area           right                   from the stored curves
    protocol       rise, igos_pp           as their YAML has them
    baseline       mean, blur_11_5         of both curves, at 50 steps: ImageNet's mean colour; a blur, 11 taps, sigma 5
    ties           0, 1, 2: a seed         tied elements in random order, at 50 steps; cells whose maps have ties
    preprocessing  antialias               another run, explained anew: reported where it is, else how to make it
    noise          rgb                     another run of the methods that draw noise

Other words: `out=FILE`, `seed=0` of the runs, `limit=N` images, and `choices=[...]`, `methods=[...]`,
`resolutions=[...]` to compute only those. OUT gets a row a choice, value and cell (a method at a resolution); what is
there from the same run over as many images is not computed again. Shifts are means over images against the reference:
`paper`, with 50 steps where the variant has 50. Ranks are among the cells of a resolution, 1 the best, in the variant
and in its reference; a cell that a choice cannot touch (no ties, no noise) has its reference's numbers in both.
"""

from __future__ import annotations

import json
import re
import shlex
import sys
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass, field, replace
from functools import cached_property
from itertools import combinations
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import torch
from omegaconf import OmegaConf
from omegaconf.errors import OmegaConfBaseException
from scipy.stats import kendalltau, rankdata
from torch import Tensor

from igos_bench.batch import generator
from igos_bench.config import plain
from igos_bench.errors import UserError, unknown
from igos_bench.evaluate import Evaluator
from igos_bench.images import stream
from igos_bench.metrics import Protocol, deletion_insertion
from igos_bench.overrides import CONF, compose_config, typed
from igos_bench.perturb import Baseline
from igos_bench.prepare import Run, prepare
from igos_bench.results import Row, RunDirectory, ok_rows, read_csv, read_json, short_key, write_atomically

CHOICES = ("n_steps", "area", "protocol", "baseline", "ties", "preprocessing", "noise")
COLUMNS = (
    "model",
    "data",
    "choice",
    "value",
    "method",
    "resolution",
    "n",
    "deletion_auc",
    "insertion_auc",
    "deletion_shift",
    "insertion_shift",
    "deletion_rank",
    "insertion_rank",
    "deletion_rank_reference",
    "insertion_rank_reference",
    "run_key",
)
KEY = ["choice", "value", "method", "resolution"]
AREAS = ("deletion", "insertion")


@dataclass
class Options:
    """The script's words."""

    results_dir: str = "results"
    out: str = "results/protocol_sensitivity.csv"
    model: str = "efficientnet_lite0"
    data: str = "sample"
    seed: int = 0
    limit: int | None = None
    choices: list[str] = field(default_factory=lambda: list(CHOICES))
    methods: list[str] | None = None
    resolutions: list[int] | None = None


@dataclass(frozen=True)
class Variant:
    """One choice changed: `protocol` beside `reference`. `seed` orders ties at random; None keeps their order."""

    choice: str
    value: str
    protocol: Protocol
    reference: Protocol
    seed: int | None = None


@dataclass
class Stored:
    """A finished run under `paper`, read from its folder."""

    path: Path
    provenance: dict[str, Any]
    protocol: Protocol
    rows: dict[str, Row]

    @property
    def method(self) -> str:
        return str(self.provenance["method"])

    @property
    def resolution(self) -> int:
        return int(self.provenance["resolution"])

    @property
    def run_key(self) -> str:
        return str(self.provenance["map_key"])

    @property
    def config(self) -> dict[str, Any]:
        return dict(self.provenance["config"])

    @property
    def directory(self) -> RunDirectory:
        return RunDirectory(self.path, paper_folder(self.protocol, self.run_key))

    def identity(self, **changes: Any) -> str:
        """What makes this run's maps, with some of it changed."""
        chosen = {key: self.config[key] for key in ("method", "resolution", "preprocessing", "precision", "seed")}
        known = {key: self.provenance[key] for key in ("model", "data", "weights_sha256", "manifest_sha256")}
        return json.dumps({**chosen, **known, **changes}, sort_keys=True)

    def arrays(self, folder: Path) -> Iterator[dict[str, np.ndarray]]:
        """The chunks of `maps` or `curves`."""
        for path in sorted(folder.glob("[0-9]*.npz")):
            with np.load(path, allow_pickle=False) as arrays:
                yield dict(arrays)

    @cached_property
    def curves(self) -> dict[str, tuple[np.ndarray, np.ndarray]]:
        """Deletion and insertion by image."""
        found = {}
        expected = self.protocol.hits(self.resolution**2).numpy()
        for chunk in self.arrays(self.directory.protocol_path / "curves"):
            if len(chunk["image_id"]) and not np.array_equal(chunk["hits"], expected):
                raise UserError(
                    f"{self.directory.protocol_path}: the curves have other steps than {self.protocol.name}"
                )
            for image_id, *pair in zip(chunk["image_id"], chunk["deletion"], chunk["insertion"], strict=True):
                found[str(image_id)] = (pair[0], pair[1])
        return found

    def maps(self, image_ids: Sequence[str]) -> dict[str, Tensor]:
        """The maps (1,r,r) of some images."""
        wanted = set(image_ids)
        found = {
            str(image_id): torch.from_numpy(saliency_map)
            for chunk in self.arrays(self.path / "maps")
            for image_id, saliency_map in zip(chunk["image_id"], chunk["saliency_map"], strict=True)
            if str(image_id) in wanted
        }
        if lost := sorted(wanted - set(found)):
            raise UserError(f"{self.path / 'maps'} has no map of {lost[0]}: start the run again with the same words")
        return found

    def areas(self, protocol: Protocol, image_ids: Sequence[str]) -> np.ndarray:
        """Deletion and insertion areas (2,n), where the points of `protocol` are among those that are stored."""
        stored, wanted = (chosen.hits(self.resolution**2) for chosen in (self.protocol, protocol))
        places = torch.searchsorted(stored, wanted)
        assert torch.equal(stored[places], wanted), "the points are not among those that are stored"
        curves = torch.from_numpy(np.array([self.curves[image_id] for image_id in image_ids]))  # (n,2,points)
        return np.stack([protocol.areas(curves[:, i, places], wanted) for i in range(2)])


def main(words: Sequence[str]) -> int:
    """Compute what is missing in the table, write it, and say what it shows."""
    try:
        options = read_options(words)
        paper = Protocol.from_config(compose_config(["protocol=paper"]).protocol)
        runs = find_runs(options, paper)
        cells = references(runs, options)
        table, missing = fill(options, paper, cells, {run.identity(): run for run in runs})
    except UserError as error:
        print(f"protocol_sensitivity: {error}", file=sys.stderr)
        return 2
    print(summary(compared(table, cells, options)))
    print(f"\nwritten to {options.out}")
    if missing:
        print("\nnot there yet; these make them:")
        for command in missing:
            print(f"  {command}")
    return 0


def read_options(words: Sequence[str]) -> Options:
    """Raises UserError where a word, its type or a choice is not known."""
    known = list(asdict(Options()))
    for word in words:
        if word.partition("=")[0] not in known:
            raise UserError(unknown("key", word.partition("=")[0], known))
    try:
        options = OmegaConf.to_object(OmegaConf.merge(OmegaConf.structured(Options), OmegaConf.from_cli(list(words))))
    except OmegaConfBaseException as error:
        raise UserError(str(error).splitlines()[0]) from None
    assert isinstance(options, Options)
    for choice in options.choices:
        if choice not in CHOICES:
            raise UserError(unknown("choice", choice, list(CHOICES)))
    return options


def paper_folder(paper: Protocol, run_key: str) -> str:
    """Where a run keeps what it has under `paper`; as in `igos_bench.prepare`."""
    return f"{paper.name}-{short_key({'map': run_key, 'protocol': plain(asdict(paper))})}"


def find_runs(options: Options, paper: Protocol) -> list[Stored]:
    """The finished runs of the model and the data under `paper`; raises UserError where there are none."""
    found = []
    folder = Path(options.results_dir, "runs", options.model, options.data)
    for path in sorted(folder.glob("*/*/*/run.json")):
        provenance = read_json(path) or {}
        run = Stored(path.parent, provenance, paper, {})
        records = run.directory.protocol_path / "records.csv"
        if not provenance.get("finished") or not records.exists():
            print(f"passed over, not finished under {paper.name}: {path.parent}")
            continue
        rows = read_csv(records)
        if rows is None:
            raise UserError(f"{records} is damaged: start its run again with the same words")
        run.rows = {row["image_id"]: row for row in ok_rows(rows)}
        if run.rows:
            found.append(run)
    if not found:
        raise UserError(
            f"no finished runs under {folder}: make them with igos-bench -m experiment=table1 model={options.model} "
            f"data={options.data} results_dir={options.results_dir}"
        )
    return found


def references(runs: Sequence[Stored], options: Options) -> list[Stored]:
    """The cells: one run a method and resolution, preprocessed and with noise as `conf/` has it.

    Of several, the one whose hyper-parameters are those of `conf/method`; raises UserError where that leaves another
    number than one.
    """
    cells: dict[tuple[str, int], list[Stored]] = {}
    for run in runs:
        config = run.config
        usual = config["preprocessing"] == "plain" and config["method"].get("noise", "authors") == "authors"
        if usual and config["seed"] == options.seed and config["precision"] == "fp32":
            cells.setdefault((run.method, run.resolution), []).append(run)
    chosen = []
    for (method, resolution), several in sorted(cells.items(), key=lambda item: (item[0][0], -item[0][1])):
        if len(several) > 1:
            default = plain(compose_config([f"method={method}"]).method)
            several = [run for run in several if run.config["method"] == default] or several
        if len(several) > 1:
            raise UserError(
                f"{len(several)} runs of {method} at {resolution}: {', '.join(str(run.path) for run in several)}; "
                f"move all but one away"
            )
        chosen += several
    if not chosen:
        raise UserError(f"no run of seed={options.seed}, preprocessing=plain and precision=fp32")
    return chosen


def variants(paper: Protocol, choices: Sequence[str]) -> Iterator[Variant]:
    """Those of `choices` that score the same maps again."""
    short = replace(paper, n_steps=50)
    if "n_steps" in choices:
        yield from (Variant("n_steps", str(n), replace(paper, n_steps=n), paper) for n in (10, 20, 50, 100, 200))
    if "area" in choices:
        yield Variant("area", "right", replace(paper, area="right"), paper)
    if "protocol" in choices:
        for name in ("rise", "igos_pp"):
            protocol = Protocol.from_config(compose_config([f"protocol={name}"]).protocol)
            yield Variant("protocol", name, protocol, paper)
    if "baseline" in choices:
        for name, baseline in (("mean", Baseline("mean")), ("blur_11_5", Baseline("blur", 11, 5.0))):
            changed = replace(short, deletion_baseline=baseline, insertion_baseline=baseline)
            yield Variant("baseline", name, changed, short)
    if "ties" in choices:
        yield from (Variant("ties", str(seed), short, short, seed) for seed in range(3))


def fill(
    options: Options, paper: Protocol, cells: Sequence[Stored], runs: dict[str, Stored]
) -> tuple[pd.DataFrame, list[str]]:
    """The table with all its rows, written after every one; and the commands for the runs that are not there."""
    out = Path(options.out)
    table = read_table(out)
    missing = []
    same_maps = list(variants(paper, options.choices))
    for cell in cells:
        wanted = options.methods is None or cell.method in options.methods
        wanted &= options.resolutions is None or cell.resolution in options.resolutions
        if not wanted:
            continue
        image_ids = list(cell.rows)[: options.limit]
        run: Run | None = None
        for variant in same_maps:
            if not touches(variant.choice, cell, options):
                continue
            row = place(options, variant.choice, variant.value, cell, cell.run_key, len(image_ids))
            if is_there(table, row, out):
                continue
            free = variant.choice in ("n_steps", "area")
            if not free and run is None:
                run = prepared(cell, options)
            found = (
                cell.areas(variant.protocol, image_ids)
                if run is None or free
                else rescore(cell, run, variant, image_ids)
            )
            table = add(table, row, found, cell.areas(variant.reference, image_ids), cells, options)
        for choice, value, changes in anew(cell):
            if choice not in options.choices:
                continue
            other = runs.get(cell.identity(**changes))
            if other is None:
                missing.append(command({**cell.config, **changes}, options))
                continue
            both = [image_id for image_id in image_ids if image_id in other.rows]
            row = place(options, choice, value, cell, other.run_key, len(both))
            if both and not is_there(table, row, out):
                table = add(table, row, other.areas(paper, both), cell.areas(paper, both), cells, options)
    return table, missing


def touches(choice: str, cell: Stored, options: Options) -> bool:
    """Whether a choice can change anything about a cell."""
    if choice == "ties":
        return any(float(cell.rows[image_id]["ties"]) > 0 for image_id in list(cell.rows)[: options.limit])
    return choice != "noise" or "noise" in cell.config["method"]


def anew(cell: Stored) -> Iterator[tuple[str, str, dict[str, Any]]]:
    """Choices that need other maps: choice, value, and how the configuration changes."""
    yield "preprocessing", "antialias", {"preprocessing": "antialias"}
    if "noise" in cell.config["method"]:
        yield "noise", "rgb", {"method": {**cell.config["method"], "noise": "rgb"}}


# Scoring


def prepared(cell: Stored, options: Options) -> Run:
    """Network and images of a cell, as its run had them; raises UserError where they are others by now."""
    config = typed(OmegaConf.create(with_numbers(cell.config)))
    config.results_dir = options.results_dir
    config.protocol = compose_config(["protocol=paper"]).protocol
    run = prepare(config)
    if run.map_key != cell.run_key:
        raise UserError(
            f"{cell.path}: the same words now make run {run.map_key}, so method, weights or images are others: run anew"
        )
    return run


def with_numbers(value: Any) -> Any:
    """JSON has keys as text: those of `lambdas` and `layers` back to numbers."""
    if not isinstance(value, dict):
        return value
    return {int(key) if key.isdigit() else key: with_numbers(item) for key, item in value.items()}


def rescore(cell: Stored, run: Run, variant: Variant, image_ids: Sequence[str]) -> np.ndarray:
    """Deletion and insertion areas (2,n) of the stored maps under another protocol."""
    sources = {source.image_id: source for source in run.manifest.images}
    maps = cell.maps(image_ids)
    evaluate = Evaluator(
        run.classifier.network, run.classifier.fast_network, cell.provenance["batch_size"], run.config.precision
    )
    decoded = stream(
        [sources[image_id] for image_id in image_ids],
        preprocessing=run.config.preprocessing,
        max_pixels=run.config.data.max_pixels,
        workers=1,
        ahead=2,
    )
    areas = []
    for source, image in decoded:
        if not isinstance(image, Tensor):
            raise UserError(f"{source.image_id} could be read when it was explained, and cannot now: {image}")
        saliency_map = maps[source.image_id]
        if variant.seed is not None:
            saliency_map = without_ties(saliency_map, generator(variant.seed, "ties", source.image_id))
        target = torch.tensor([int(cell.rows[source.image_id]["target"])], device=run.device)
        inputs = (image[None].to(run.device), target, saliency_map[None].to(run.device))
        curves = deletion_insertion(evaluate, variant.protocol, *inputs)
        areas.append([curves.deletion_auc[0], curves.insertion_auc[0]])
    return np.array(areas).T


def without_ties(saliency_map: Tensor, draw: torch.Generator) -> Tensor:
    """A map (1,r,r) of whole numbers from 1 to r*r in the same order, tied elements among themselves at random."""
    values = saliency_map.flatten()
    shuffled = torch.randperm(len(values), generator=draw)
    order = shuffled[values[shuffled].argsort(descending=True, stable=True)]
    ranks = torch.empty_like(values)
    ranks[order] = torch.arange(len(values), 0, -1).to(values)  # float32 holds them all: 224 * 224 < 2 ** 24
    return ranks.view_as(saliency_map)


# The table


def read_table(path: Path) -> pd.DataFrame:
    """The table as it is so far."""
    if not path.exists():
        return pd.DataFrame(columns=list(COLUMNS))
    table = pd.read_csv(path, dtype=str)
    if list(table.columns) != list(COLUMNS):
        raise UserError(f"{path} is no table of this script: name another file, out=FILE")
    numbers: dict[str, type] = {key: float for key in COLUMNS if key.endswith(("_auc", "_shift"))}
    numbers |= {key: int for key in COLUMNS if key in ("resolution", "n") or "_rank" in key}
    for key, number in numbers.items():  # one by one: read_csv's own floats are off by a bit in older versions
        table[key] = [number(value) for value in table[key]]
    return table


def place(options: Options, choice: str, value: str, cell: Stored, run_key: str, n: int) -> dict[str, Any]:
    """A row without its numbers."""
    cell_key = {"choice": choice, "value": value, "method": cell.method, "resolution": cell.resolution}
    return {"model": options.model, "data": options.data, **cell_key, "n": n, "run_key": run_key}


def same_place(table: pd.DataFrame, row: dict[str, Any]) -> pd.Series:
    """Which rows of the table are of the same choice, value and cell."""
    return (table[["model", "data", *KEY]] == pd.Series({key: row[key] for key in ["model", "data", *KEY]})).all(axis=1)


def is_there(table: pd.DataFrame, row: dict[str, Any], out: Path) -> bool:
    """Whether the table has this row; raises UserError where it has one over more images, which must not be lost."""
    before = table[same_place(table, row) & (table["run_key"] == row["run_key"])]
    if len(before) and (before["n"] > row["n"]).any():
        raise UserError(
            f"{out} has {row['method']} at {row['resolution']} over {before['n'].iloc[0]} images, this would be over "
            f"{row['n']}: name another file, out=FILE"
        )
    return bool((before["n"] == row["n"]).any())


def add(
    table: pd.DataFrame,
    row: dict[str, Any],
    areas: np.ndarray,
    reference: np.ndarray,
    cells: Sequence[Stored],
    options: Options,
) -> pd.DataFrame:
    """The table with this row in its place, all ranks made anew, written."""
    auc, shift = areas.mean(1), areas.mean(1) - reference.mean(1)
    row = {
        **row,
        "deletion_auc": auc[0],
        "insertion_auc": auc[1],
        "deletion_shift": shift[0],
        "insertion_shift": shift[1],
    }
    print(
        f"{row['choice']}={row['value']} {row['method']} {row['resolution']} ({row['n']} images): "
        f"deletion {auc[0]:.4f} ({shift[0]:+.4f}), insertion {auc[1]:.4f} ({shift[1]:+.4f})",
        flush=True,
    )
    kept = table[~same_place(table, row)]
    rows = sorted([*kept.to_dict("records"), row], key=order)
    table = pd.DataFrame(rows, columns=list(COLUMNS))
    ranked = compared(table, cells, options).dropna(subset="row").set_index("row")
    for kind in AREAS:
        for suffix in ("", "_reference"):
            column = f"{kind}_rank{suffix}"
            table.loc[ranked.index.astype(int), column] = ranked[column].to_numpy()
            table[column] = table[column].astype(int)
    write_atomically(Path(options.out), table.to_csv(index=False).encode())
    return table


def order(row: Any) -> tuple[Any, ...]:
    """Where a row stands: choices as they are listed, values by number, finest first."""
    value = row["value"].zfill(4) if row["value"].isdigit() else row["value"]
    return row["model"], row["data"], CHOICES.index(row["choice"]), value, row["method"], -row["resolution"]


def compared(table: pd.DataFrame, cells: Sequence[Stored], options: Options) -> pd.DataFrame:
    """The rows of this model and data, and the cells that a choice cannot touch, with both areas and both ranks.

    Columns: choice, value, method, resolution; `row` of the table or NaN; `deletion`, `deletion_reference`,
    `deletion_rank`, `deletion_rank_reference`, the same for insertion.
    """
    mine = table[(table["model"] == options.model) & (table["data"] == options.data)]
    rows: list[dict[str, Any]] = []
    for index, row in mine.iterrows():
        now = {kind: row[f"{kind}_auc"] for kind in AREAS}
        before = {f"{kind}_reference": row[f"{kind}_auc"] - row[f"{kind}_shift"] for kind in AREAS}
        rows.append({**row[KEY], "row": index, **now, **before})
    for choice, value in dict.fromkeys(zip(mine["choice"], mine["value"], strict=True)):
        for cell in cells:
            if touches(choice, cell, options):
                continue
            protocol = replace(cell.protocol, n_steps=50) if choice == "ties" else cell.protocol
            means = cell.areas(protocol, list(cell.rows)[: options.limit]).mean(1)
            both = {kind + end: mean for kind, mean in zip(AREAS, means, strict=True) for end in ("", "_reference")}
            name = {"choice": choice, "value": value, "method": cell.method, "resolution": cell.resolution}
            rows.append({**name, "row": None, **both})
    frame = pd.DataFrame(rows, columns=[*KEY, "row", *(kind + end for kind in AREAS for end in ("", "_reference"))])
    for kind, sign in (("deletion", 1), ("insertion", -1)):
        for end in ("", "_reference"):
            # Rounded: a reference is an area less its shift, and equal cells must not be parted by that.
            groups = (sign * frame[kind + end].astype(float).round(12)).groupby(
                [frame[key] for key in ("choice", "value", "resolution")]
            )
            frame[f"{kind}_rank{end}"] = groups.transform(lambda areas: rankdata(areas, method="min")).astype(int)
    return frame


def summary(frame: pd.DataFrame) -> str:
    """A line a choice, value and area: its shifts over the cells it touches, and which cells change places."""
    lines = [
        "",
        f"{'':<41}shift of a cell's mean",
        f"{'choice':<25}area       cells    mean  |mean|  largest     tau  reordered",
    ]
    for (choice, value), group in frame.groupby(["choice", "value"], sort=False):
        touched = group[group["row"].notna()]
        for kind in AREAS:
            shifts = (touched[kind] - touched[f"{kind}_reference"]).to_numpy(dtype=float)
            largest = shifts[np.abs(shifts).argmax()]
            tau = kendalltau(group[kind], group[f"{kind}_reference"]).statistic if len(group) > 1 else float("nan")
            numbers = (
                f"{len(touched):>5} {shifts.mean():>+7.4f} {np.abs(shifts).mean():>7.4f} {largest:>+8.4f} {tau:>7.3f}"
            )
            swaps = "; ".join(changed_places(group, kind)) or "-"
            lines.append(f"{f'{choice}={value}':<24} {kind:<10} {numbers}  {swaps}")
    return "\n".join([*lines, "", "tau: Kendall's, of all cells against their order in the reference"])


def changed_places(group: pd.DataFrame, kind: str) -> Iterator[str]:
    """The pairs at one resolution whose order is the other way round, each by how much, and how much it was."""
    for resolution, cells in group.groupby("resolution", sort=False):
        for (_, a), (_, b) in combinations(cells.iterrows(), 2):
            now, before = a[kind] - b[kind], a[f"{kind}_reference"] - b[f"{kind}_reference"]
            if now * before < 0:
                yield f"{a['method']} and {b['method']} at {resolution} ({before:+.4f} -> {now:+.4f})"


# How to make a run


def command(config: dict[str, Any], options: Options) -> str:
    """The igos-bench command that makes the run with this configuration, as run.json has it."""
    method, model, data = config["method"]["name"], config["model"], config["data"]
    words = [f"method={method}", f"resolution={config['resolution']}", f"data={data['layout']}"]
    if Path(CONF, "model", f"{model['name']}.yaml").exists():
        words.append(f"model={model['name']}")
    else:
        words += [f"model={model['library']}", f"model.architecture={model['architecture']}"]
    asked = {key: value for key, value in config.items() if key not in ("protocol", "results_dir")}
    try:
        words += differences(asked, plain(asdict(compose_config(words))))
        compose_config(words)
    except UserError:  # a method or model with a YAML of its own somewhere
        noise = f" method.noise={config['method']['noise']}" if "noise" in config["method"] else ""
        return f"(what made {method} at {config['resolution']}, with preprocessing={config['preprocessing']}{noise})"
    return shlex.join(["igos-bench", *words, f"results_dir={hydra_value(options.results_dir)}"])


def differences(config: dict[str, Any], base: dict[str, Any], prefix: str = "") -> Iterator[str]:
    """The words that turn `base` into `config`."""
    for key, value in config.items():
        there = base.get(key)
        if isinstance(value, dict) and isinstance(there, dict) and there:
            yield from differences(value, there, f"{prefix}{key}.")
        elif value != there:
            yield f"{prefix}{key}={hydra_value(value)}"


def hydra_value(value: Any) -> str:
    """A value as Hydra's command line reads it."""
    if value is None:
        return "null"
    if isinstance(value, dict):
        return "{" + ",".join(f"{key}:{hydra_value(item)}" for key, item in value.items()) + "}"
    if isinstance(value, list):
        return "[" + ",".join(map(hydra_value, value)) + "]"
    if not isinstance(value, str) or (
        re.fullmatch(r"[A-Za-z/.][\w./-]*", value) and value not in ("null", "true", "false")
    ):
        return str(value)
    return "'" + value.replace("'", r"\'") + "'"


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
