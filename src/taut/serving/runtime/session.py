"""Loading: an ONNX model becomes a session whose inputs and outputs were checked against the signature."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, Final

import numpy.typing as npt

from taut.core.errors import Corrupt, Denied, InvalidInput, TautError
from taut.core.ort import load_onnxruntime, session_options
from taut.core.schema import DType, ModelSignature
from taut.serving.errors import BadAnswer
from taut.serving.runtime.encode import ACCEPTED, MATRIX, Feed
from taut.serving.runtime.loaded import LoadedModel, check_signature

_PROBABILITY: Final = ("probability", "probabilities", "output_probability")
_FLOAT_TENSORS: Final = ("tensor(float)", "tensor(double)")


class OnnxModel(LoadedModel):
    """An ONNX model in memory. `infer` may be called from several threads."""

    def __init__(
        self, session: Any, signature: ModelSignature, tensors: dict[str, tuple[str, int]], *, output: str,
        counter_s: Callable[[], float] = time.perf_counter,
    ) -> None:  # fmt: skip
        super().__init__(signature, tensors)
        self.counter_s = counter_s
        self._run: Final = session.run
        self._outputs: Final = [output]
        self.cost = self.measure()

    def raw(self, feed: Feed) -> npt.NDArray[Any]:
        try:
            tensor: npt.NDArray[Any] = self._run(self._outputs, feed)[0]
        except Exception as error:
            # onnxruntime raises classes of its own for a model that fails on a value: never passed to a caller
            raise BadAnswer(
                f"the model failed on this input ({type(error).__name__}): see its parity gate"
            ) from error
        return tensor


def on_one_core(data: bytes) -> Any:
    """Return a session of one thread of the CPU."""
    return load_onnxruntime().InferenceSession(data, session_options(), providers=["CPUExecutionProvider"])


def load(
    model: Path | bytes,
    signature: ModelSignature,
    *,
    open_session: Callable[[bytes], Any] = on_one_core,
    counter_s: Callable[[], float] = time.perf_counter,
) -> OnnxModel:
    """Load an ONNX model and check it against its signature.

    model: the file or its bytes. It is always loaded from memory, so that it cannot name other files (onnxruntime
    refuses external data then), and without registered libraries, so that custom operators are refused.
    open_session: on another device; a TautError of it is passed on. counter_s: by what the cost is timed.
    Raises Corrupt when it is no model that this runtime can load; InvalidInput when it is one, but not that of the
    signature; Denied for a model that is code, which `load_apart` runs where it can harm nobody; NotFound is left to whoever
    fetches the file.
    """
    if signature.form != "onnx":
        raise Denied("the model is code, which never runs in this process: it is served by workers")
    data = model if isinstance(model, bytes) else model.read_bytes()
    try:
        session = open_session(data)
    except TautError:
        raise
    except Exception as error:
        # onnxruntime has no base class of its own for a file that it cannot load
        raise Corrupt(f"the model cannot be loaded: {_first_line(error)}") from error
    tensors = {item.name: (str(item.type), len(item.shape)) for item in session.get_inputs()}
    output = _output(session, signature)
    check_signature(signature)
    if signature.tensor == "matrix":
        _check_matrix(session, signature)
    else:
        _check_columns(tensors, signature)
    return OnnxModel(session, signature, tensors, output=output, counter_s=counter_s)


def _check_matrix(session: Any, signature: ModelSignature) -> None:
    found = session.get_inputs()
    if len(found) != 1 or found[0].name != MATRIX or found[0].type != "tensor(float)":
        seen = ", ".join(f"{item.name}: {item.type}" for item in found)
        raise InvalidInput(f"the model takes {seen}; a matrix model takes one tensor(float) named {MATRIX!r}")
    shape, width = found[0].shape, len(signature.inputs)
    if len(shape) != 2 or (isinstance(shape[1], int) and shape[1] != width):
        raise InvalidInput(f"the model takes shape {shape}, the signature has {width} inputs")
    for item in signature.inputs:
        if item.column.dtype in (DType.STRING, DType.DATETIME):
            said = f"input {item.column.name!r} is a {item.column.dtype}"
            raise InvalidInput(f"{said}, which FP32 cannot carry: use tensor mode 'columns'")


def _check_columns(tensors: Mapping[str, tuple[str, int]], signature: ModelSignature) -> None:
    names = {item.column.name for item in signature.inputs}
    if set(tensors) != names:
        odd = ", ".join(sorted(set(tensors) ^ names))
        raise InvalidInput(f"inputs of the model and of the signature differ in {odd}")
    for item in signature.inputs:
        column = item.column
        kind, rank = tensors[column.name]
        if kind not in ACCEPTED[column.dtype] or rank not in (1, 2):
            wanted = " or ".join(sorted(ACCEPTED[column.dtype]))
            raise InvalidInput(
                f"input {column.name!r} is {kind} of rank {rank}; a {column.dtype} needs {wanted}"
            )
        if column.nullable and kind not in (*_FLOAT_TENSORS, "tensor(string)"):
            raise InvalidInput(f"input {column.name!r} is nullable, but {kind} has no null: use a float")


def _output(session: Any, signature: ModelSignature) -> str:
    floats = [item for item in session.get_outputs() if item.type in _FLOAT_TENSORS]
    named = [item for item in floats if item.name in _PROBABILITY]
    if signature.output == "probability" and named:
        floats = named
    if len(floats) != 1:
        seen = ", ".join(f"{item.name}: {item.type}" for item in session.get_outputs())
        raise InvalidInput(f"the model gives {seen}; wanted one float tensor of {signature.output}")
    shape = floats[0].shape
    if signature.output == "probability":
        count = len(signature.classes)
        if count < 2:
            raise InvalidInput("the signature of a classifier must name two classes or more")
        last = shape[-1] if len(shape) == 2 else 1
        if isinstance(last, int) and last != count and not (count == 2 and last == 1):
            raise InvalidInput(f"the model gives {last} probabilities, the signature has {count} classes")
    return str(floats[0].name)


def _first_line(error: Exception) -> str:
    return (str(error).splitlines() or [type(error).__name__])[0][:300]
