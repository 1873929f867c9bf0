"""What else could run the network: other engines and torch's compiler beside ours, in one process, alternating.

    pip install --target /tmp/engines openvino onnxruntime onnx onnxscript    # none of them is a dependency
    PYTHONPATH=/tmp/engines python scripts/attempts.py [compile=true] [out=results/attempts.csv]

EfficientNet-Lite0 in fp32, forward alone and, where the engine has one, with the gradient to the input, at the
micro-batches that are fastest here. Each engine's logits are compared with the network's before its time counts; one
that is not installed is left out, by name.
"""

from __future__ import annotations

import copy
import sys
import warnings
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory

import pandas as pd
import torch
from bench_report import machine
from options import read_options
from torch import Tensor, nn

from igos_bench.config import INPUT_SIZE, Precision
from igos_bench.errors import UserError
from igos_bench.fold import fold_batch_norms
from igos_bench.network import Normalised
from igos_bench.overrides import compose_config
from igos_bench.prepare import prepare
from igos_bench.rates import Way, measure_rates

SIZES = (2, 8, 32)
CHANNELS_LAST = torch.channels_last


@dataclass
class Options:
    """`compile`: also torch.compile, which takes minutes and needs a C++ compiler."""

    compile: bool = False
    out: str = str(Path(__file__).resolve().parent.parent / "results" / "attempts.csv")


def main() -> int:
    """Measure and write."""
    try:
        options = read_options(Options)
    except UserError as error:
        print(f"attempts: {error}", file=sys.stderr)
        return 2
    run = prepare(compose_config(["method=igos", "resolution=28", "data.limit=1"]))
    network = run.classifier.network
    body, _ = fold_batch_norms(network.body)
    mean, std = (tensor.flatten().tolist() for tensor in (network.mean, network.std))
    folded = Normalised(body, mean, std).eval().requires_grad_(False)
    with_gradient = {
        "as released, NCHW": Way(network),
        "folded, channels_last": Way(copy.deepcopy(folded).to(memory_format=CHANNELS_LAST), CHANNELS_LAST),
        "ours": Way(run.classifier.fast_network, CHANNELS_LAST),
    }
    if options.compile:
        with_gradient["torch.compile of folded, channels_last"] = Way(
            torch.compile(copy.deepcopy(folded).to(memory_format=CHANNELS_LAST)), CHANNELS_LAST
        )
    forward_alone = dict(with_gradient)
    with TemporaryDirectory() as folder:
        for name, make in (("onnxruntime", _onnxruntime), ("openvino", _openvino)):
            try:
                forward_alone[name] = Way(make(network, Path(folder)))
            except ImportError as error:
                print(f"attempts: {name} is left out: {error}", file=sys.stderr)
    rows = []
    images = torch.rand(4, 3, INPUT_SIZE, INPUT_SIZE, generator=torch.Generator().manual_seed(0))
    with torch.inference_mode():
        expected = network(images)
        moved = {name: float((way.network(images) - expected).abs().max()) for name, way in forward_alone.items()}
    for backward, ways in ((False, forward_alone), (True, with_gradient)):
        found = measure_rates(ways, SIZES, backward=backward, precision=Precision.fp32, device=run.device)
        for name in ways:
            best = min((rate for rate in found if rate.way == name), key=lambda rate: rate.seconds)
            rows.append(
                {
                    "what": "forward + backward" if backward else "forward",
                    "engine": name,
                    "milliseconds": 1000 * best.seconds,
                    "micro_batch": best.size,
                    "logits_differ_by": moved[name],
                }
            )
            print(f"{rows[-1]['what']:>18}  {name:<40} {rows[-1]['milliseconds']:.2f} ms an input", flush=True)
    pd.DataFrame(rows).assign(**machine()).to_csv(options.out, index=False, float_format="%.4g")
    return 0


def _onnx(network: nn.Module, folder: Path) -> Path:
    path = folder / "network.onnx"
    if not path.exists():
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            batch = {0: torch.export.Dim("batch", min=1, max=64)}
            example = (torch.zeros(2, 3, INPUT_SIZE, INPUT_SIZE),)
            torch.onnx.export(network, example, path, dynamo=True, dynamic_shapes=(batch,), verbose=False)
    return path


def _onnxruntime(network: nn.Module, folder: Path) -> Callable[[Tensor], Tensor]:
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = torch.get_num_threads()
    session = onnxruntime.InferenceSession(_onnx(network, folder), options, providers=["CPUExecutionProvider"])
    name = session.get_inputs()[0].name
    return lambda inputs: torch.from_numpy(session.run(None, {name: inputs.numpy()})[0])


def _openvino(network: nn.Module, folder: Path) -> Callable[[Tensor], Tensor]:
    import openvino

    settings = {"INFERENCE_PRECISION_HINT": "f32", "INFERENCE_NUM_THREADS": torch.get_num_threads()}
    compiled = openvino.Core().compile_model(openvino.Core().read_model(_onnx(network, folder)), "CPU", settings)
    return lambda inputs: torch.from_numpy(compiled(inputs.numpy())[0])


if __name__ == "__main__":
    sys.exit(main())
