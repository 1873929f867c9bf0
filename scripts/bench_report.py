"""What `bench.py` measured, as CSV, as a printed table beside the required ratios, and as a picture."""

from __future__ import annotations

import platform
from dataclasses import asdict, dataclass
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

import matplotlib
import pandas as pd
import torch

from igos_bench.machine import processor
from igos_bench.provenance import git_state, now
from igos_bench.rates import Rate

matplotlib.use("agg")

import matplotlib.pyplot as plt

COLUMNS = [("efficientnet_lite0", "fp32"), ("efficientnet_lite0", "bf16"), ("vgg19", "fp32"), ("vgg19", "bf16")]
REQUIRED = {  # ratios, of each of COLUMNS
    "igos": (2.4, 2.8, 1.05, 2.0),
    "mask": (2.6, 3.0, 1.05, 2.0),
    "rise": (3.5, 6.0, 1.4, 2.5),
    "integrated_gradients": (2.5, 3.0, 1.2, 2.5),
    "grad_cam": (2.0, 2.0, 1.05, 2.0),
    "excitation_bp": (2.0, 2.0, 1.05, 2.0),
    "deletion_insertion": (2.5, 4.0, 1.1, 2.0),
}
EFFICIENCY = 0.9  # required
PACKAGES = (
    *("torch", "torchvision", "timm", "numpy", "openvino", "onnxruntime"),
    *("captum", "grad-cam", "torchray", "quantus"),
)
COLOURS = {
    "fp32": "#0072B2",
    "bf16": "#E69F00",
    "tf32": "#CC79A7",
}  # Okabe and Ito's: told apart by everybody, and in grey


@dataclass(frozen=True)
class Ceiling:
    """The best raw rate, that way again at the end, and the usual one: as released, NCHW, one at a time."""

    network: str
    precision: str
    backward: bool
    best: Rate
    again: Rate
    usual: Rate

    @property
    def seconds(self) -> float:
        """An input, at best."""
        return min(self.best.seconds, self.again.seconds)


@dataclass(frozen=True)
class RawRate:
    """One cell of the search for the ceiling."""

    network: str
    precision: str
    backward: bool
    rate: Rate


@dataclass
class Result:
    """One method against one peer; seconds and passes are an image's, `ours_in_passes` a share of `ours_seconds`."""

    method: str
    network: str
    precision: str
    peer: str
    setting: str
    images: int
    ours_seconds: float
    theirs_seconds: float
    ratio: float
    ratio_min: float
    ratio_max: float
    pairs: int
    ours_forwards: float
    ours_gradients: float
    theirs_forwards: float
    theirs_gradients: float
    surplus: int
    difference: float
    images_that_agree: int
    ours_forward: str
    ours_micro_batch: int
    ours_in_passes: float
    has_efficiency: bool
    searches_in_float32: bool = False
    efficiency: float | None = None

    def set_efficiency(self, ceilings: list[Ceiling]) -> None:
        """Work it out from the rates; passes in float32 have theirs, and where that was not measured there is none."""
        forwards_in = "fp32" if self.searches_in_float32 else self.precision
        rates = {(one.network, one.precision, one.backward): one for one in ceilings}
        forward = rates.get((self.network, forwards_in, False))
        gradient = rates[self.network, self.precision, True]
        if self.has_efficiency and forward:
            forwards = self.theirs_forwards - self.surplus
            needed = forwards * forward.seconds + self.theirs_gradients * gradient.seconds
            self.efficiency = needed / self.ours_seconds

    @property
    def required(self) -> float | None:
        """The ratio asked for, if one is."""
        column = (self.network, self.precision)
        return REQUIRED[self.method][COLUMNS.index(column)] if column in COLUMNS else None

    def __str__(self) -> str:
        return (
            f"{self.method}, {self.setting}: ours {self.ours_seconds:.3g} s, {self.peer} {self.theirs_seconds:.3g} s "
            f"an image: {self.ratio:.2f}x ({self.ratio_min:.2f} to {self.ratio_max:.2f}), results differ by "
            f"{self.difference:.1g}, {self.images_that_agree} of {self.images} images agree"
        )


def machine(device: torch.device | None = None) -> dict[str, Any]:
    """What stands beside every number; `device`: that of the networks, if not the one that a run has by itself."""
    device = device or torch.device("cuda" if torch.cuda.is_available() else "cpu")
    git = git_state()
    dirty = "-dirty" if git and git["dirty"] else ""
    return {
        "machine": processor(device),
        "threads": torch.get_num_threads(),
        "versions": "; ".join(
            [f"python {platform.python_version()}", *(f"{name} {_version(name)}" for name in PACKAGES)]
        ),
        "date": now(),
        "commit": f"{git['commit'][:12]}{dirty}" if git else "",
    }


def tell_and_write(rows: list[dict[str, Any]], path: Path) -> None:
    """Print a table of what was measured, and write it with what stands beside every number."""
    table = pd.DataFrame(rows)
    print(table.to_string(index=False, float_format="%.2f"))
    path.parent.mkdir(parents=True, exist_ok=True)
    table.assign(**machine()).to_csv(path, index=False, float_format="%.5g")
    print(f"written to {path}")


def write_csv(ceilings: list[Ceiling], results: list[Result], path: Path, device: torch.device) -> None:
    """A row a method and peer; before them, for each network and precision, the two rates of the ceiling."""
    rows: list[dict[str, Any]] = [
        {
            "method": "ceiling: forward + backward" if ceiling.backward else "ceiling: forward",
            "network": ceiling.network,
            "precision": ceiling.precision,
            "peer": "as released, NCHW, one at a time",
            "setting": f"{ceiling.best.way}, micro-batch {ceiling.best.size}; "
            f"{ceiling.best.seconds:.5f} s at the start, {ceiling.again.seconds:.5f} s at the end",
            "images": 1,
            "ours_seconds": ceiling.seconds,
            "theirs_seconds": ceiling.usual.seconds,
            "ratio": ceiling.usual.seconds / ceiling.seconds,
        }
        for ceiling in ceilings
    ]
    for result in results:
        row = asdict(result)
        del row["has_efficiency"]
        agree = row.pop("images_that_agree")
        rows.append({**row, "required_ratio": result.required, "images_that_agree": agree})
    pd.DataFrame(rows).assign(**machine(device)).to_csv(path, index=False, float_format="%.5g")


def write_rates(rates: list[RawRate], path: Path, device: torch.device) -> None:
    """A row a raw rate; seconds an input."""
    rows = [
        {
            "network": raw.network,
            "precision": raw.precision,
            "backward": raw.backward,
            "way": raw.rate.way,
            "micro_batch": raw.rate.size,
            "seconds": raw.rate.seconds,
        }
        for raw in rates
    ]
    pd.DataFrame(rows).assign(**machine(device)).to_csv(path, index=False, float_format="%.5g")


def printed(ceilings: list[Ceiling], results: list[Result]) -> str:
    """The ceilings, the ratios beside the required ones, and the efficiencies; `!` marks what falls short."""
    lines = ["", "raw rates, ms an input: best (the usual way: as released, NCHW, one at a time)"]
    for ceiling in ceilings:
        what = "forward + backward" if ceiling.backward else "forward"
        lines.append(
            f"  {ceiling.network} {ceiling.precision} {what}: {1000 * ceiling.seconds:.1f} "
            f"({1000 * ceiling.usual.seconds:.1f}); {ceiling.best.way}, micro-batch {ceiling.best.size}"
        )
    columns = list(dict.fromkeys((r.network, r.precision) for r in results))
    heads = [f"{network} {precision}" for network, precision in columns]
    cells = {(r.method, r.peer, r.network, r.precision): r for r in results}
    names = list(dict.fromkeys((r.method, r.peer) for r in results))
    width = max((len(f"{method} / {peer}") for method, peer in names), default=0)
    factors = "share of our time in passes x needed passes at the ceiling's rates / time in passes"
    efficiency = f"efficiency ({EFFICIENCY:g}) = {factors}"
    for title, cell in (("ratio, theirs / ours (required)", _ratio), (efficiency, _efficiency)):
        lines += ["", title, " " * width + "".join(f"{head:>28}" for head in heads)]
        for name in names:
            found = [cell(cells.get((*name, *column))) for column in columns]
            if any(found):
                lines.append(f"{' / '.join(name):<{width}}" + "".join(f"{text:>28}" for text in found))
    return "\n".join(lines)


def _ratio(result: Result | None) -> str:
    if result is None:
        return ""
    if result.required is None:
        return f"{result.ratio:.2f}x  "
    return f"{result.ratio:.2f}x ({result.required:g}){' !' if result.ratio < result.required else '  '}"


def _efficiency(result: Result | None) -> str:
    if result is None or result.efficiency is None:
        return ""
    factors = f"{result.ours_in_passes:.2f} x {result.efficiency / result.ours_in_passes:.2f}"
    return f"{result.efficiency:.2f} = {factors}{' !' if result.efficiency < EFFICIENCY else '  '}"


def draw(results: list[Result], path: Path, device: torch.device) -> None:
    """Bars of ratios with their range, a panel a network; a black mark where the required ratio is."""
    networks = list(dict.fromkeys(result.network for result in results))
    names = list(dict.fromkeys((result.method, result.peer) for result in results))
    precisions = list(dict.fromkeys(result.precision for result in results))
    apart = 0.8 / max(len(precisions), 2)
    figure, axes = plt.subplots(
        1, len(networks), figsize=(4.5 * len(networks) + 2, 0.55 * len(names) + 1.6), sharey=True, squeeze=False
    )
    for axis, network in zip(axes[0], networks, strict=True):
        here = [result for result in results if result.network == network]
        for i, precision in enumerate(precisions):
            shift = (i - (len(precisions) - 1) / 2) * apart
            found = [result for result in here if result.precision == precision]
            if not found:
                continue
            places = [names.index((r.method, r.peer)) + shift for r in found]
            ranges = [[r.ratio - r.ratio_min for r in found], [r.ratio_max - r.ratio for r in found]]
            axis.barh(
                places, [r.ratio for r in found], 0.95 * apart, xerr=ranges, color=COLOURS[precision], label=precision,
                error_kw={"elinewidth": 1, "ecolor": "#555555"},
            )  # fmt: skip
            for place, result in zip(places, found, strict=True):
                ink = "white" if precision == "fp32" else "black"
                axis.text(0.05, place, f"{result.ratio:.1f}", va="center", fontsize=8, color=ink)
                if result.required:
                    axis.plot(
                        [result.required] * 2,
                        [place - 0.475 * apart, place + 0.475 * apart],
                        color="black",
                        linewidth=2,
                    )
        axis.axvline(1, color="#555555", linewidth=1, linestyle=":")
        axis.set_title(network)
        axis.set_xlabel("times as fast as the peer (black: required)")
        axis.margins(x=0.12)
        axis.set_xlim(left=0)
        axis.spines[["top", "right"]].set_visible(False)
    axes[0][0].set_yticks(range(len(names)), [f"{method}\n{peer}" for method, peer in names], fontsize=8)
    axes[0][0].invert_yaxis()
    figure.legend(*axes[0][-1].get_legend_handles_labels(), loc="upper right", ncols=2, frameon=False)
    figure.suptitle(f"{processor(device)}, {torch.get_num_threads()} threads, torch {torch.__version__}", fontsize=9)
    figure.tight_layout()
    figure.savefig(path, dpi=150)
    plt.close(figure)


def _version(package: str) -> str:
    try:
        return version(package)
    except PackageNotFoundError:
        return "not installed"
