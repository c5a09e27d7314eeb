"""Other forms of an ONNX model: its graph optimised ahead of time, and quantised to INT8 in two ways.

Source: onnxruntime's documentation, "Graph optimizations" and "Quantize ONNX models".
"""

from __future__ import annotations

import tempfile
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, Final

import numpy as np
import numpy.typing as npt

from taut.core.errors import InvalidInput
from taut.core.ort import load_onnxruntime, load_quantization, session_options
from taut.lifecycle.training.onnx_form import normalise

Feed = Mapping[str, npt.NDArray[Any]]

# Only where the arithmetic is. Quantised additions and sigmoids would round probabilities to 256 values for nothing.
_QUANTISED: Final = ("MatMul", "Gemm", "Conv")
_BATCH: Final = 100
_PER_CHANNEL_OPSET: Final = 13


def graph_optimised(model: bytes) -> tuple[bytes, str]:
    """Return the model as onnxruntime rewrites it, and a note on how far it went.

    The extended level fuses operators; where that gives operators of onnxruntime's own, which no signed version may
    hold, the basic level is taken. Raises InvalidInput where neither gives standard operators or a different graph.
    """
    ort = load_onnxruntime()
    level = ort.GraphOptimizationLevel
    refused = ""
    for name, wanted in (("extended", level.ORT_ENABLE_EXTENDED), ("basic", level.ORT_ENABLE_BASIC)):
        try:
            made = normalise(_parsed(_saved(ort, model, wanted)))
        except InvalidInput as error:
            refused = f"; the extended level is not used: {error}"
            continue
        if _shape(made) == _shape(model):
            raise InvalidInput(f"onnxruntime finds nothing to rewrite{refused}")
        return made, f"{name} level{refused}"
    raise InvalidInput(refused.removeprefix("; "))


def _saved(ort: Any, model: bytes, level: Any) -> bytes:
    with tempfile.TemporaryDirectory(prefix="taut-graph-") as folder:
        path = Path(folder, "model.onnx")
        options = session_options()
        options.graph_optimization_level = level
        options.optimized_model_filepath = str(path)
        ort.InferenceSession(model, options, providers=["CPUExecutionProvider"])
        return path.read_bytes()


def quantised(model: bytes, *, calibration: Feed | None) -> tuple[bytes, str]:
    """Return the model with INT8 weights, and a note.

    calibration: tensors of training rows, by which the range of every activation is fixed; None quantises activations
    as they come. Weights take 7 bits, so that sums do not saturate on processors without VNNI: what is measured here
    then holds there. Raises InvalidInput where the model holds nothing to quantise.
    """
    tools = load_quantization()
    parsed = _parsed(model)
    found = sorted({node.op_type for node in parsed.graph.node} & set(_QUANTISED))
    if not found:
        raise InvalidInput(f"there is nothing to quantise: the model has no {', '.join(_QUANTISED)}")
    # A copy for itself: the tools work on it in place.
    with tempfile.TemporaryDirectory(prefix="taut-int8-") as folder:
        path = Path(folder, "int8.onnx")
        if calibration is None:
            tools.quantize_dynamic(
                parsed, path, op_types_to_quantize=list(_QUANTISED), weight_type=tools.QuantType.QInt8,
                reduce_range=True,
            )  # fmt: skip
        else:
            tools.quantize_static(
                parsed, path, _reader(tools, calibration), quant_format=tools.QuantFormat.QDQ,
                op_types_to_quantize=list(_QUANTISED), per_channel=_opset(parsed) >= _PER_CHANNEL_OPSET,
                reduce_range=True, activation_type=tools.QuantType.QUInt8, weight_type=tools.QuantType.QInt8,
                extra_options={"OpTypesToExcludeOutputQuantization": list(_QUANTISED)},
            )  # fmt: skip
        made = normalise(_parsed(path.read_bytes()))
    if not any("QuantizeLinear" in node.op_type for node in _parsed(made).graph.node):
        raise InvalidInput(f"nothing was quantised: no {' or '.join(found)} has constant weights")
    return made, f"{', '.join(found)} quantised"


def _reader(tools: Any, calibration: Feed) -> Any:
    """Return what the tools read calibration rows from, a hundred at a time."""
    rows = len(next(iter(calibration.values())))
    batches: Iterator[dict[str, npt.NDArray[Any]]] = (
        {name: values[at : at + _BATCH] for name, values in calibration.items()}
        for at in range(0, rows, _BATCH)
    )

    class Reader(tools.CalibrationDataReader):  # type: ignore[misc]  # the class is known once the library is loaded
        def get_next(self) -> dict[str, npt.NDArray[Any]] | None:
            return next(batches, None)

    return Reader()


def head(feed: Feed, rows: int) -> dict[str, npt.NDArray[Any]]:
    """Return so many rows of a feed, repeated where it has fewer."""
    return {name: values[np.arange(rows) % len(values)] for name, values in feed.items()}


def _parsed(model: bytes) -> Any:
    import onnx

    return onnx.load_from_string(model)


def _opset(parsed: Any) -> int:
    return max(
        (int(item.version) for item in parsed.opset_import if item.domain in ("", "ai.onnx")), default=0
    )


def _shape(model: bytes) -> list[tuple[str, tuple[str, ...], tuple[str, ...], bytes]]:
    """What a graph does, whatever its operator sets are called."""
    graph = _parsed(model).graph
    weights = {item.name: item.SerializeToString(deterministic=True) for item in graph.initializer}
    return [
        (
            node.op_type,
            tuple(node.input),
            tuple(node.output),
            b"".join(weights.get(name, b"") for name in node.input),
        )
        for node in graph.node
    ]
