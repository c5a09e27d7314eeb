"""Loading: an ONNX model becomes a session whose inputs and outputs were checked against the signature."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Final

import numpy.typing as npt

from taut.core.errors import Corrupt, InvalidInput
from taut.core.ort import load_onnxruntime, session_options
from taut.core.schema import DType, ModelSignature
from taut.serving.errors import BadAnswer
from taut.serving.runtime.encode import ACCEPTED, MATRIX, Feed
from taut.serving.runtime.form import Cost, ModelForm
from taut.serving.runtime.outputs import Outputs
from taut.serving.runtime.rows import Value

ort: Final = load_onnxruntime()
_PROBABILITY: Final = ("probability", "probabilities", "output_probability")
_FLOAT_TENSORS: Final = ("tensor(float)", "tensor(double)")
_MEASURED_ROWS: Final = 64
_SLOW_US: Final = 2000.0
_SLOW_ROWS: Final = 8


class LoadedModel(ModelForm):
    """A model in memory. `infer` may be called from several threads; it does no input or output."""

    def __init__(
        self, session: Any, signature: ModelSignature, tensors: dict[str, tuple[str, int]], *, output: str
    ) -> None:
        super().__init__(signature, tensors)
        self._run: Final = session.run
        self._outputs: Final = [output]
        self.cost = self._measure()

    def infer(self, columns: Mapping[str, Sequence[Value]]) -> Outputs:
        """Score columns by name, all of one length; others than the model's inputs are ignored.

        Raises InvalidInput for a column that is absent or does not fit; BadAnswer for what the signature rules out.
        """
        missing = [item.column.name for item in self.signature.inputs if item.column.name not in columns]
        if missing:
            raise InvalidInput(f"columns {', '.join(missing)} are missing: the model needs them")
        ordered = [columns[item.column.name] for item in self.signature.inputs]
        counts = {len(values) for values in ordered}
        if len(counts) != 1:
            raise InvalidInput(
                f"columns have {sorted(counts)} rows: send the same number of rows in each column"
            )
        values = list(zip(*ordered, strict=True)) if self.row_major else ordered
        return self.run(self.encode(values), counts.pop())

    def run(self, feed: Feed, count: int) -> Outputs:
        """Run tensors made by `encode` and check what comes back."""
        return self.check(self.raw(feed), count)

    def raw(self, feed: Feed) -> npt.NDArray[Any]:
        """Run tensors made by `encode` and return what comes back, unchecked. Raises BadAnswer."""
        try:
            tensor: npt.NDArray[Any] = self._run(self._outputs, feed)[0]
        except Exception as error:
            # onnxruntime raises classes of its own for a model that fails on a value: never passed to a caller
            raise BadAnswer(
                f"the model failed on this input ({type(error).__name__}): see its parity gate"
            ) from error
        return tensor

    def _measure(self) -> Cost | None:
        """Fit A + B n on neutral values; also warms the session. None when the model refuses neutral values.

        A slow model is measured with a few rows only: loading must not take longer than a moment.
        """
        neutral = [_NEUTRAL[item.column.dtype] for item in self.signature.inputs]
        try:
            one_us = self._best_us([neutral])
            rows = _MEASURED_ROWS if one_us < _SLOW_US else _SLOW_ROWS
            many_us = self._best_us([neutral] * rows)
        except Exception:  # noqa: BLE001 - a model may rightly refuse values that no row has; then no fit
            return None
        row_us = max(0.0, (many_us - one_us) / (rows - 1))
        return Cost(base_us=max(0.0, one_us - row_us), row_us=row_us)

    def _best_us(self, rows: Sequence[Sequence[Value]]) -> float:
        feed = self.encode(rows if self.row_major else list(map(list, zip(*rows, strict=True))))
        best_s = float("inf")
        for _ in range(4):
            start_s = time.perf_counter()
            self._run(self._outputs, feed)
            best_s = min(best_s, time.perf_counter() - start_s)
        return best_s * 1e6


_NEUTRAL: Final[dict[DType, Value]] = {
    DType.BOOL: False, DType.INT: 0, DType.FLOAT: 0.0, DType.STRING: "", DType.DATE: 0, DType.DATETIME: 0,
}  # fmt: skip


def load(model: Path | bytes, signature: ModelSignature) -> LoadedModel:
    """Load an ONNX model and check it against its signature.

    model: the file or its bytes. It is always loaded from memory, so that it cannot name other files (onnxruntime
    refuses external data then), and without registered libraries, so that custom operators are refused.
    Raises Corrupt when it is no model that this runtime can load; InvalidInput when it is one, but not that of the
    signature; NotFound is left to whoever fetches the file.
    """
    data = model if isinstance(model, bytes) else model.read_bytes()
    try:
        session = ort.InferenceSession(data, session_options(), providers=["CPUExecutionProvider"])
    except Exception as error:
        # onnxruntime has no base class of its own for a file that it cannot load
        raise Corrupt(f"the model cannot be loaded: {_first_line(error)}") from error
    tensors = {item.name: (str(item.type), len(item.shape)) for item in session.get_inputs()}
    output = _output(session, signature)
    _check_signature(signature)
    if signature.tensor == "matrix":
        _check_matrix(session, signature)
    else:
        _check_columns(tensors, signature)
    return LoadedModel(session, signature, tensors, output=output)


def _check_signature(signature: ModelSignature) -> None:
    request = {column.name for column in signature.request}
    names = [item.column.name for item in signature.inputs]
    if not names or len(set(names)) != len(names):
        raise InvalidInput("the signature must name at least one input, and each once")
    sets = {lookup.feature_set for lookup in signature.lookups}
    for item in signature.inputs:
        if item.feature_set is None and item.column.name not in request:
            raise InvalidInput(f"input {item.column.name!r} is neither a request column nor a feature")
        if item.feature_set is not None and item.feature_set not in sets:
            raise InvalidInput(
                f"input {item.column.name!r}: feature set {item.feature_set!r} has no lookup in the signature"
            )
    for lookup in signature.lookups:
        unknown = sorted(set(lookup.keys) - request)
        if unknown:
            raise InvalidInput(f"lookup in {lookup.feature_set!r}: {unknown[0]!r} is no request column")


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
