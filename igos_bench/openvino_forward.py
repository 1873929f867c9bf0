"""Forward passes by OpenVINO on a CPU: RISE, line searches in fp32 and the metric need no gradient: most passes.

It compiles the network as a whole, oneDNN's kernels in oneDNN's own layouts, which torch has no gradients in. In bf16
what `leading` names is marked to stay float32, which OpenVINO does in part: of EfficientNet-Lite0's three convolutions
the depthwise one alone runs so, the kernels of the others in bf16.
"""

from __future__ import annotations

import sys
import tempfile
import threading
import warnings
import xml.etree.ElementTree as ET
from math import prod
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from .bounds import may_hide_nan
from .config import INPUT_SIZE, Precision
from .errors import UserError, first_line
from .evaluate import is_out_of_memory
from .fast import largest_normalised, logits_fault
from .fold import fold_batch_norms
from .leading import leading
from .network import Normalised

if TYPE_CHECKING:
    from openvino import CompiledModel, Model

PIECE = 4
"""Inputs of one call, whatever the micro-batch: as fast in fp32 as any, and no input's bytes depend on the others."""

HINT = "INFERENCE_PRECISION_HINT"
HINTS = {Precision.fp32: "f32", Precision.bf16: "bf16"}


class OpenVINOForward:
    """A network compiled by OpenVINO: images (N,3,224,224) in [0, 1] -> logits (N,K) in float32, without a gradient.

    Args:
        network: In eval mode, on the CPU.
        precision: What it computes in, fp32 or bf16; what it gives out is float32.

    Raises:
        UserError: OpenVINO is not installed or cannot read the network; the network's activations are not known to
            stay finite, whose NaN its ReLU would turn into numbers; or its logits are not the network's.
    """

    piece = PIECE  # for `Evaluator`

    def __init__(self, network: Normalised, precision: Precision) -> None:
        _check_bounds(network)
        try:
            compiled = _compiled(network, precision)
        except ImportError:
            raise UserError(
                "evaluate.forward=openvino: OpenVINO is not installed: pip install igos-bench[openvino]"
            ) from None
        except Exception as error:  # of another library, about an arbitrary network
            cause = error.__cause__ or error
            if isinstance(cause, RuntimeError | MemoryError) and is_out_of_memory(cause):
                raise
            raise UserError(f"evaluate.forward=openvino: it cannot read the network: {first_line(cause)}") from error
        if (found := compiled.get_property(HINT).to_string()) != HINTS[precision]:
            raise UserError(
                f"evaluate.forward=openvino computes in {found} on this processor, not in {precision.value}"
            )
        self._request: Any = compiled.create_infer_request()
        self._lock = threading.Lock()  # of the one request
        if fault := logits_fault(network, self, precision):
            raise UserError(f"evaluate.forward=openvino: in it {fault}; leave it out")

    def __call__(self, images: Tensor) -> Tensor:
        """Logits; the last call is filled up with zeros."""
        found = []
        for piece in images.split(PIECE):
            lacking = PIECE - len(piece)
            whole = torch.cat([piece, piece.new_zeros(lacking, *piece.shape[1:])]) if lacking else piece.contiguous()
            with self._lock:
                outputs = self._request.infer([whole.detach().numpy()], share_inputs=True)  # copies what it gives out
            found.append(torch.from_numpy(outputs[0])[: len(piece)])
        return torch.cat(found)


def _check_bounds(network: Normalised) -> None:
    """Raise UserError where an activation may overflow, for all that is known."""
    try:
        folded, _ = fold_batch_norms(network.body)
    except Exception as error:  # torch.fx meets arbitrary Python
        raise UserError(f"evaluate.forward=openvino: the network cannot be traced: {first_line(error)}") from error
    if unknown := may_hide_nan(folded, largest_normalised(network)):
        raise UserError(
            f"evaluate.forward=openvino: what reaches {unknown[0]} of the network is not known to stay finite, and "
            "OpenVINO may make numbers of NaN: leave it out"
        )


def keep_silent() -> None:
    """Have OpenVINO take its own stub for the package by which it tells its makers of every import and conversion."""
    sys.modules.setdefault("openvino_telemetry", None)  # type: ignore[arg-type]


def _compiled(network: Normalised, precision: Precision) -> CompiledModel:
    keep_silent()
    from openvino import Core

    model = _converted(network)
    if precision is Precision.bf16:
        model = _leading_marked_precise(model)
    settings = {
        HINT: HINTS[precision],
        "INFERENCE_NUM_THREADS": torch.get_num_threads(),
        "NUM_STREAMS": 1,
        "ENABLE_CPU_PINNING": False,  # shards on one machine would all be pinned to its first cores
    }
    return Core().compile_model(model, "CPU", settings)


def _converted(network: Normalised) -> Model:
    from openvino.frontend import FrontEndManager
    from openvino.frontend.pytorch.ts_decoder import TorchScriptPythonDecoder

    shape = (PIECE, 3, INPUT_SIZE, INPUT_SIZE)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # torch.jit.trace is deprecated, and what OpenVINO reads
        decoder = TorchScriptPythonDecoder(network, example_input=(torch.zeros(shape),))
    frontend = FrontEndManager().load_by_framework("pytorch")
    model = frontend.convert(frontend.load(decoder))
    model.reshape(list(shape))
    return model


def _leading_marked_precise(model: Model) -> Model:
    """The same, with its first convolutions and all before them marked as `precise`, as far as that is obeyed.

    The mark is of OpenVINO's file format (openvinotoolkit/openvino#20625, obeyed since #21440); its Python has none.
    """
    from openvino import Core, serialize

    operations = {operation.get_friendly_name(): operation for operation in model.get_ordered_ops()}
    multiplications = {
        name: prod(operation.get_input_shape(1)) * prod(operation.get_output_shape(0)[2:])
        for name, operation in operations.items()
        if operation.get_type_name() in ("Convolution", "GroupConvolution")
    }
    precise: set[str] = set()
    kept = leading(multiplications)
    found = list(kept)
    while found:
        name = found.pop()
        if name not in precise:
            precise.add(name)
            inputs = operations[name].input_values()
            found += [value.get_node().get_friendly_name() for value in inputs]
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder, "network.xml")
        serialize(model, path, path.with_suffix(".bin"))
        tree = ET.parse(path)
        layers = [layer for layer in tree.iterfind("layers/layer") if layer.get("name") in precise]
        if not set(kept) <= {layer.get("name") for layer in layers}:
            raise RuntimeError("its file has other names, by which the first convolutions would be marked")
        for layer in layers:
            if layer.get("type") != "Const":
                marks = layer.find("rt_info")
                if marks is None:
                    marks = ET.Element("rt_info")
                    layer.insert(len(layer.findall("data")), marks)
                ET.SubElement(marks, "attribute", name="precise", version="0")
        tree.write(path)
        return Core().read_model(path.read_bytes(), path.with_suffix(".bin").read_bytes())
