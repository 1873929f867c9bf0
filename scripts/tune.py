"""Choose (l1, l2) of a mask method: the pair on a log grid with the largest mean of insertion - deletion.

    python scripts/tune.py method=igos resolution=28 data=folder data.root=FOLDER [factors=[0.1,1,10]] [out=results]

The grid is the method's own (l1, l2) at that resolution times every pair of `factors`; all other words are those of
`igos-bench`. Never tune on images that are reported afterwards: the sample is refused. Two files are written:

    OUT/tuning.csv          every image at every point of the grid, with its areas
    OUT/tuned_lambdas.csv   the choice, keyed by model, method and resolution; `method.lambdas=tuned` reads it

Leave-one-out: each image is scored with the pair that is best on the others. `held_out` is the mean of these scores
(`score` is that on the tuning images themselves, too good by nature), `held_out_low` and `held_out_high` its range when
one image is left out of the mean; `pairs` counts the different pairs that were chosen on the way. `precision=bf16
protocol.n_steps=50` takes a third of the time; both stand in the files.
"""

from __future__ import annotations

import sys
from dataclasses import dataclass, field, replace
from itertools import product
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from options import read_options

from igos_bench.batch import generator
from igos_bench.config import DataConfig
from igos_bench.data import read_manifest
from igos_bench.errors import UserError
from igos_bench.evaluate import Evaluator
from igos_bench.metrics import deletion_insertion
from igos_bench.overrides import compose_config
from igos_bench.perturb import Baselines
from igos_bench.prepare import Run, prepare

KEY = ["model", "method", "resolution"]
HOW = ["precision", "n_steps", "seed"]


@dataclass
class Options:
    """The script's own words."""

    factors: list[float] = field(default_factory=lambda: [0.1, 0.3162, 1.0, 3.162, 10.0])
    out: str = "results"


def main() -> int:
    """Score the grid, then choose."""
    own = [word for word in sys.argv[1:] if word.partition("=")[0] in ("factors", "out")]
    try:
        options = read_options(Options, own)
    except UserError as error:
        print(f"tune: {error} Write factors=[0.1,1,10] and out=FOLDER", file=sys.stderr)
        return 2
    try:
        run = prepare(compose_config([word for word in sys.argv[1:] if word not in own]))
        if not hasattr(run.method, "lambdas"):
            raise UserError(f"method={run.method.name} has no (l1, l2) to tune; choices: igos, mask")
        reported = {image.path.resolve() for image in read_manifest(DataConfig()).images}
        if any(image.path.resolve() in reported for image in run.images):
            raise UserError("the sample is what is reported: tune on other images, data=folder data.root=FOLDER")
        if not options.factors or min(options.factors) <= 0:
            raise UserError(f"factors={options.factors}: write factors above 0, such as factors=[0.1,1,10]")
        scores = score_grid(run, options.factors)
    except UserError as error:
        print(f"tune: {error}", file=sys.stderr)
        return 2
    out = Path(options.out)
    out.mkdir(parents=True, exist_ok=True)
    merge(out / "tuning.csv", scores)
    chosen = choose(scores)
    merge(out / "tuned_lambdas.csv", chosen)
    print(chosen.to_string(index=False))
    return 0


def score_grid(run: Run, factors: list[float]) -> pd.DataFrame:
    """A row an image and point of the grid."""
    config = run.config
    good = [(source, image) for source, image in run.decode(run.images, ahead=4) if isinstance(image, Baselines)]
    if not good:
        raise UserError(f"none of the {len(run.images)} images decodes: look at them with igos-bench check-data")
    baselines = Baselines.joined([image for _, image in good], run.device)
    images = baselines.images
    evaluate = Evaluator(
        run.classifier.network,
        run.classifier.fast_network,
        precision=config.precision,
        float32_network=run.classifier.in_float32,
    )
    targets = evaluate.logits(images).argmax(1)
    tuned: Any = run.method  # Igos or Mask: main looked for its lambdas
    l1, l2 = tuned.lambdas[config.resolution]
    rows: list[dict[str, Any]] = []
    for first, second in product(factors, factors):
        pair = (l1 * first, l2 * second)
        method = replace(tuned, lambdas={config.resolution: pair})
        maps = method(
            evaluate, images, targets, baselines=baselines[tuned.baseline], resolution=config.resolution,
            generators=[generator(config.seed, method.name, source.image_id) for source, _ in good],
            run_generator=generator(config.seed, method.name),
        )  # fmt: skip
        curves = deletion_insertion(evaluate, run.protocol, images, targets, maps, baselines)
        for (source, _), deletion, insertion in zip(good, curves.deletion_auc, curves.insertion_auc, strict=True):
            key = {"model": run.classifier.name, "method": method.name, "resolution": config.resolution}
            areas = {"deletion_auc": float(deletion), "insertion_auc": float(insertion)}
            how = {"precision": config.precision.value, "n_steps": run.protocol.n_steps, "seed": config.seed}
            rows.append({**key, "l1": pair[0], "l2": pair[1], "image_id": source.image_id, **areas, **how})
        mean = float((curves.insertion_auc - curves.deletion_auc).mean())
        print(f"l1 {pair[0]:.4g}, l2 {pair[1]:.4g}: insertion - deletion {mean:.4f}", flush=True)
    return pd.DataFrame(rows)


def choose(scores: pd.DataFrame) -> pd.DataFrame:
    """The best pair of one model, method and resolution, and how far it can be believed."""
    scores = scores.assign(score=scores["insertion_auc"] - scores["deletion_auc"])
    table = scores.pivot_table(index=["l1", "l2"], columns="image_id", values="score")  # pairs x images
    values = table.to_numpy()
    count = values.shape[1]
    best = int(values.mean(1).argmax())
    others = [int(np.delete(values, i, axis=1).mean(1).argmax()) if count > 1 else best for i in range(count)]
    held_out = np.array([values[pair, i] for i, pair in enumerate(others)])
    without = [np.delete(held_out, i).mean() for i in range(count)] if count > 1 else [held_out.mean()]
    first = scores.iloc[0]
    return pd.DataFrame(
        [
            {
                **{key: first[key] for key in KEY},
                "l1": table.index[best][0],
                "l2": table.index[best][1],
                "score": values[best].mean(),
                "held_out": held_out.mean(),
                "held_out_low": min(without),
                "held_out_high": max(without),
                "pairs": len(set(others)),
                "images": count,
                **{key: first[key] for key in HOW},
            }
        ]
    )


def merge(path: Path, rows: pd.DataFrame) -> None:
    """Put the rows in place of those of the same model, method and resolution."""
    if path.exists():
        before = pd.read_csv(path)
        new = {tuple(key) for key in rows[KEY].astype(str).to_numpy()}
        kept = before[[tuple(key) not in new for key in before[KEY].astype(str).to_numpy()]]
        rows = pd.concat([kept, rows])
    rows.sort_values(KEY, kind="stable").to_csv(path, index=False)


if __name__ == "__main__":
    sys.exit(main())
