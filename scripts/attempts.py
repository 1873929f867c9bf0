"""What else could run the network: other engines and torch's compiler beside ours, in one process, alternating.

    pip install --target /tmp/engines openvino onnxruntime onnx onnxscript    # only openvino is a dependency, an extra
    PYTHONPATH=/tmp/engines python scripts/attempts.py [networks=[vgg19]] [precisions=[bf16]] [compile=true]
                                                       [out=results/attempts.csv]

Forward alone and, where the engine has one, with the gradient to the input, each at the fastest of a few micro-batches.
Each engine's logits are compared with those of the network as released in fp32, and how far they are from them stands
beside its time; one that is not installed is left out, by name.
"""

from __future__ import annotations

import copy
import sys
import warnings
from collections.abc import Callable
from dataclasses import dataclass, field
from itertools import product
from pathlib import Path
from tempfile import TemporaryDirectory

import pandas as pd
import torch
from bench_report import machine
from bench_setup import FULL, OURS, QUICK, USUAL, start, ways
from options import read_options
from torch import Tensor, nn

from igos_bench.config import INPUT_SIZE, Device, Precision
from igos_bench.errors import UserError
from igos_bench.openvino_forward import HINT, HINTS, keep_silent
from igos_bench.precision import autocast
from igos_bench.prepare import Run
from igos_bench.rates import Way, measure_rates

SIZES = (2, 8, 32)
FOLDED = ("folded, channels_last", "as released, channels_last")  # the second where there is no batch norm
BF16_WEIGHTS = tuple(f"{name}, bf16 weights" for name in FOLDED)


@dataclass
class Options:
    """`compile`: also torch.compile, which takes minutes and needs a C++ compiler."""

    networks: list[str] = field(default_factory=lambda: list(FULL))
    precisions: list[Precision] = field(default_factory=lambda: [Precision.fp32, Precision.bf16])
    compile: bool = False
    out: str = str(Path(__file__).resolve().parent.parent / "results" / "attempts.csv")


def main() -> int:
    """Measure and write."""
    try:
        options = read_options(Options)
        if unknown := set(options.networks) - FULL.keys():
            raise UserError(f"networks={sorted(unknown)}: choose from {', '.join(FULL)}")
    except UserError as error:
        print(f"attempts: {error}", file=sys.stderr)
        return 2
    rows: list[dict[str, str | int | float]] = []
    with TemporaryDirectory() as folder:
        for network, precision in product(options.networks, options.precisions):
            print(f"{network}, {precision.value}", flush=True)
            run = start(network, precision, QUICK[network], Path(folder), Device.cpu)
            for row in measure(run, Path(folder) / f"{network}.onnx", options.compile):
                rows.append({"network": network, "precision": precision.value, **row})
    pd.DataFrame(rows).assign(**machine(torch.device("cpu"))).to_csv(options.out, index=False, float_format="%.4g")
    return 0


def measure(run: Run, onnx: Path, compiled: bool) -> list[dict[str, str | int | float]]:
    """A row for each engine, forward alone and with the gradient; `onnx` is where its file is or is put."""
    precision, network = run.config.precision, run.classifier.network
    raw = ways(run)
    with_gradient = {name: raw[name] for name in (USUAL, *FOLDED, *BF16_WEIGHTS, OURS) if name in raw}
    if compiled:
        folded = next(raw[name] for name in FOLDED if name in raw)
        compiler = torch.compile(copy.deepcopy(folded.network))
        with_gradient["torch.compile, channels_last"] = Way(compiler, folded.memory_format)
    forward_alone = dict(with_gradient)
    for name, make in (("onnxruntime", _onnxruntime), ("openvino", _openvino)):
        try:
            if engine := make(network, onnx, precision):
                forward_alone[name] = Way(engine)
        except ImportError as error:
            print(f"attempts: {name} is left out: {error}", file=sys.stderr)
    images = torch.rand(4, 3, INPUT_SIZE, INPUT_SIZE, generator=torch.Generator().manual_seed(0))
    with torch.inference_mode():
        expected = network(images)
        with autocast(precision, run.device):
            moved = {name: float((way.network(images) - expected).abs().max()) for name, way in forward_alone.items()}
    rows: list[dict[str, str | int | float]] = []
    for what, considered in (("forward", forward_alone), ("forward + backward", with_gradient)):
        found = measure_rates(
            considered, SIZES, backward=considered is with_gradient, precision=precision, device=run.device
        )
        for name in considered:
            best = min((rate for rate in found if rate.way == name), key=lambda rate: rate.seconds)
            rows.append(
                {
                    "what": what,
                    "engine": name,
                    "milliseconds": 1000 * best.seconds,
                    "micro_batch": best.size,
                    "logits_differ_by": moved[name],
                }
            )
            print(f"{what:>20}  {name:<42} {1000 * best.seconds:7.2f} ms an input", flush=True)
    return rows


Engine = Callable[[Tensor], Tensor]


def _onnx(network: nn.Module, path: Path) -> Path:
    if not path.exists():
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            batch = {0: torch.export.Dim("batch", min=1, max=64)}
            example = (torch.zeros(2, 3, INPUT_SIZE, INPUT_SIZE),)
            torch.onnx.export(network, example, path, dynamo=True, dynamic_shapes=(batch,), verbose=False)
    return path


def _onnxruntime(network: nn.Module, onnx: Path, precision: Precision) -> Engine | None:
    import onnxruntime

    if precision is not Precision.fp32:
        return None  # it has hardly a kernel for bf16 on a CPU
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = torch.get_num_threads()
    session = onnxruntime.InferenceSession(_onnx(network, onnx), options, providers=["CPUExecutionProvider"])
    name = session.get_inputs()[0].name
    return lambda inputs: torch.from_numpy(session.run(None, {name: inputs.numpy()})[0])


def _openvino(network: nn.Module, onnx: Path, precision: Precision) -> Engine:
    keep_silent()
    import openvino

    settings = {HINT: HINTS[precision], "INFERENCE_NUM_THREADS": torch.get_num_threads()}
    compiled = openvino.Core().compile_model(openvino.Core().read_model(_onnx(network, onnx)), "CPU", settings)
    return lambda inputs: torch.from_numpy(compiled(inputs.numpy())[0])


if __name__ == "__main__":
    sys.exit(main())
