"""Open Inference Protocol v2: tensors of a request to rows, outputs to tensors, metadata."""

from __future__ import annotations

import math
import struct
from collections.abc import Sequence
from itertools import chain
from typing import Any, Final, NamedTuple

import msgspec

from taut.core.errors import InvalidInput
from taut.core.schema import Column, DType, ModelSignature
from taut.serving.errors import Malformed, TooLarge
from taut.serving.gateway.binary import column_values, pack, packed_matrix
from taut.serving.gateway.documents import (
    Document,
    FloatRequest,
    Tensor,
    WantedOutput,
    binary_outputs,
    read,
    read_floats,
)
from taut.serving.runtime import Matrix, Outputs
from taut.serving.runtime.rows import INT_MAX, INT_MIN, WANTED, Value, convert_value, unknown_column

MATRIX: Final = "input"
_DATATYPES: Final = {
    DType.BOOL: "BOOL", DType.INT: "INT64", DType.FLOAT: "FP64",
    DType.STRING: "BYTES", DType.DATE: "BYTES", DType.DATETIME: "BYTES",
}  # fmt: skip
_INTS: Final = frozenset({"INT8", "INT16", "INT32", "INT64", "UINT8", "UINT16", "UINT32", "UINT64"})
_PLANS: Final = 256
_PLAN_BYTES: Final = 1024
_FLOATS: Final = frozenset({"FP16", "BF16", "FP32", "FP64"})
_TAKEN: Final[dict[DType, frozenset[str]]] = {
    DType.BOOL: frozenset({"BOOL"}), DType.INT: _INTS, DType.FLOAT: _FLOATS | _INTS,
    DType.STRING: frozenset({"BYTES"}), DType.DATE: frozenset({"BYTES"}), DType.DATETIME: frozenset({"BYTES"}),
}  # fmt: skip


class Batch(msgspec.Struct, frozen=True, gc=False):
    """The rows of a request: values in the order of the request columns, or all of them packed as FP32.

    rows: what the prediction log keeps. packed: whether `rows` are FP32 bytes.
    """

    rows: Any  # bytes or rows: a union would be looked at on every request
    count: int
    packed: bool = False


class InferRequest(msgspec.Struct, frozen=True, gc=False):
    """A decoded v2 request: the batch, the caller's id, the outputs that he wants (None: all), and which of them raw."""

    batch: Batch
    id: str | None
    outputs: tuple[str, ...] | None
    binary: tuple[str, ...] = ()


class _Plan(NamedTuple):
    """What the JSON before a raw matrix was found to say. size: bytes of the matrix."""

    size: int
    rows: int
    outputs: tuple[str, ...] | None
    binary: tuple[str, ...]


class TensorDecoder:
    """Decodes v2 requests of one signature.

    columns: the request columns. max_rows: more are refused as TooLarge. packed: give FP32 tensors packed, for a model
    that takes the request as it is. optional: one more column, the last of a row, that FP32 tensors never carry.
    """

    def __init__(
        self,
        columns: Sequence[Column],
        *,
        outputs: Sequence[str],
        max_rows: int,
        packed: bool = False,
        optional: Column | None = None,
    ) -> None:
        self._columns: Final = tuple(columns)
        self._optional: Final = () if optional is None else (optional,)
        self._names: Final = {column.name for column in (*columns, *self._optional)}
        self._outputs: Final = tuple(outputs)
        self._max_rows: Final = max_rows
        self._width: Final = len(self._columns)
        self._numeric: Final = all(column.dtype.numeric for column in columns) and MATRIX not in self._names
        self._floats_only: Final = all(column.dtype is DType.FLOAT for column in columns)
        self._plans: Final[dict[bytes, _Plan]] = {}
        self._pack: Final = Matrix(columns).pack if packed and self._floats_only else None

    def decode(self, body: bytes, json_bytes: int | None = None) -> InferRequest:
        """Return the request's rows. json_bytes: how many bytes of the body are JSON, None for all of them.

        Raises Malformed for what is no v2 document, or for raw tensors of other sizes than the document says; TooLarge
        for too many rows; InvalidInput, naming tensor, row, what was seen and what is wanted, for tensors against the
        signature.
        """
        if json_bytes is None and self._numeric and b'"FP32"' in body:
            try:
                request = read_floats(body)
            except (msgspec.MsgspecError, RecursionError, UnicodeDecodeError):
                pass  # the general reading says what is wrong
            else:
                inputs = request.inputs
                if (
                    len(inputs) == 1
                    and inputs[0].name == MATRIX
                    and inputs[0].datatype == "FP32"
                    and inputs[0].parameters is None
                ):
                    batch = self._matrix(inputs[0].shape, inputs[0].data)
                    if request.outputs is None and request.parameters is None:
                        return InferRequest(batch, request.id, None)
                    return self._request(batch, request)
        if json_bytes is None:
            return self._general(read(body, None), body)
        return self._raw(body, json_bytes)

    def _raw(self, body: bytes, json_bytes: int) -> InferRequest:
        """Return a request with raw tensors. The same JSON before a matrix comes again and again, and is read once."""
        head = body[:json_bytes]
        plan = self._plans.get(head)
        if plan is not None and len(body) - json_bytes == plan.size:
            packed = packed_matrix(body, json_bytes, self._columns, plan.rows)
            return InferRequest(Batch(packed, plan.rows, True), None, plan.outputs, plan.binary)
        request = self._general(read(body, json_bytes), body)
        batch, size = request.batch, len(body) - json_bytes
        # what has an id will not come again; where the rows are in the JSON itself nothing is left after it
        if batch.packed and request.id is None and size and json_bytes <= _PLAN_BYTES:
            if len(self._plans) >= _PLANS:
                self._plans.clear()
            self._plans[head] = _Plan(size, batch.count, request.outputs, request.binary)
        return request

    def _matrix(self, shape: list[int], data: list[float]) -> Batch:
        width = self._width
        if len(shape) != 2 or shape[1] != width or shape[0] * width != len(data) or not data:
            raise InvalidInput(
                f"tensor {MATRIX!r}: saw shape {shape!r:.60} with {len(data)} values, wanted [n, {width}] with n times "
                f"{width} values and n at least 1"
            )
        self._bound(shape[0])
        if self._pack is not None:
            return Batch(self._pack(data), shape[0], True)
        rows: list[list[Value]] = [[*data[at : at + width]] for at in range(0, len(data), width)]
        if not self._floats_only:
            rows = [
                [_narrow(column, value, index) for column, value in zip(self._columns, row, strict=True)]  # type: ignore[arg-type]  # floats, as they came
                for index, row in enumerate(rows)
            ]
        if self._optional:
            for row in rows:
                row.append(None)
        return Batch(rows, len(rows))

    def _raw_matrix(self, tensor: Tensor, body: bytes) -> Batch:
        """Return the one FP32 tensor, which is the only one of the request and thus the end of the body."""
        size, width = len(tensor.data), self._width
        shape = tensor.shape
        if len(shape) != 2 or shape[1] != width or shape[0] < 1 or shape[0] * width * 4 != size:
            raise InvalidInput(
                f"tensor {MATRIX!r}: saw shape {shape!r:.60} with {size} bytes, wanted [n, {width}] with n times {width * 4} "
                "bytes and n at least 1"
            )
        self._bound(shape[0])
        packed = packed_matrix(body, len(body) - size, self._columns, shape[0])
        if self._pack is not None:
            return Batch(packed, shape[0], True)
        return self._matrix(shape, list(struct.unpack(f"<{shape[0] * width}f", packed)))

    def _general(self, request: Document, body: bytes) -> InferRequest:
        only = request.tensors[0] if len(request.tensors) == 1 else None
        if only is not None and only.name == MATRIX and self._numeric:
            if only.datatype != "FP32":
                raise InvalidInput(f"tensor {MATRIX!r}: saw datatype {only.datatype[:20]!r}, wanted FP32")
            if type(only.data) is memoryview:
                return self._request(self._raw_matrix(only, body), request)
            values = [self._float(index, value) for index, value in enumerate(_flatten(only.data))]
            return self._request(self._matrix(only.shape, values), request)
        tensors = {tensor.name: tensor for tensor in request.tensors}
        if len(tensors) != len(request.tensors):
            raise InvalidInput("two tensors have the same name: send each column once")
        rows = self._by_column(tensors)
        return self._request(Batch(rows, len(rows)), request)

    def _request(self, batch: Batch, request: Document | FloatRequest) -> InferRequest:
        wanted = None if request.outputs is None else self._wanted(request.outputs)
        binary = binary_outputs(request.outputs, request.parameters, self._outputs)
        return InferRequest(batch, request.id, wanted, binary)

    def _float(self, index: int, value: object) -> float:
        if isinstance(value, int | float) and not isinstance(value, bool):
            return float(value)
        column = self._columns[index % self._width]
        raise InvalidInput(
            f"row {index // self._width}, column {column.name!r}: saw {value!r:.60}, wanted a finite number"
        )

    def _by_column(self, tensors: dict[str, Tensor]) -> Sequence[Sequence[Value]]:
        unknown = [name for name in tensors if name not in self._names]
        if unknown:
            raise InvalidInput(f"tensor: {unknown_column(unknown[0], list(self._names))}")
        columns: list[Sequence[Value]] = []
        missing: list[Column] = []
        count = -1
        for column in (*self._columns, *self._optional):
            tensor = tensors.get(column.name)
            if tensor is None:
                missing.append(column)
                columns.append(())
                continue
            values = self._tensor(column, tensor)
            if count >= 0 and len(values) != count:
                raise InvalidInput(
                    f"tensor {column.name!r}: saw {len(values)} rows, wanted {count} as in the tensors before it"
                )
            count = len(values)
            columns.append(values)
        required = [column.name for column in missing if not column.nullable]
        if required or count < 0:
            names = ", ".join(required[:20] or [column.name for column in missing][:20])
            raise InvalidInput(f"tensors {names} are missing: send one for each column of the signature")
        return list(zip(*[values or (None,) * count for values in columns], strict=True))

    def _tensor(self, column: Column, tensor: Tensor) -> Sequence[Value]:
        if tensor.datatype not in _TAKEN[column.dtype]:
            raise InvalidInput(
                f"tensor {column.name!r}: saw datatype {tensor.datatype[:20]!r}, wanted {_DATATYPES[column.dtype]}"
            )
        shape = tensor.shape
        if type(tensor.data) is memoryview:
            if not shape or shape[0] < 1 or shape not in ([shape[0]], [shape[0], 1]):
                raise InvalidInput(f"tensor {column.name!r}: saw shape {shape!r:.60}, wanted [n] or [n, 1]")
            self._bound(shape[0])
            return column_values(column, tensor.datatype, tensor.data, shape[0])
        data = _flatten(tensor.data)
        if not data or shape not in ([len(data)], [len(data), 1]):
            raise InvalidInput(
                f"tensor {column.name!r}: saw shape {shape!r:.60} with {len(data)} values, wanted [n] or [n, 1] with n values"
            )
        self._bound(len(data))
        return [convert_value(column, value, row) for row, value in enumerate(data)]

    def _bound(self, rows: int) -> None:
        if rows > self._max_rows:
            raise TooLarge(f"{rows} rows are too many for one request: send at most {self._max_rows}")

    def _wanted(self, outputs: list[WantedOutput]) -> tuple[str, ...]:
        names = tuple(output.name for output in outputs)
        unknown = [name for name in names if name not in self._outputs]
        if unknown or not names or len(set(names)) != len(names):
            said = f"output {unknown[0][:40]!r} is unknown" if unknown else "outputs are empty or named twice"
            raise InvalidInput(f"{said}: choose from {', '.join(self._outputs)}")
        return names


def _flatten(data: list[Any]) -> list[Any]:
    """Return data that was sent nested (allowed by the protocol) flat; at most three levels."""
    for _ in range(3):
        if not data or not isinstance(data[0], list):
            return data
        if not all(isinstance(item, list) for item in data):
            break
        data = [value for item in data for value in item]
    raise Malformed("data is nested unevenly or too deeply: send it flat, in row-major order")


def _narrow(column: Column, value: float, row: int) -> Value:
    """Turn an FP32 of the matrix form into the column's type, exactly or not at all."""
    if column.dtype is DType.FLOAT:
        return value
    if column.dtype is DType.BOOL and value in (0.0, 1.0):
        return value == 1.0
    if column.dtype is DType.INT and INT_MIN <= value <= INT_MAX and value == math.floor(value):
        return int(value)
    wanted = "0 or 1" if column.dtype is DType.BOOL else WANTED[column.dtype]
    raise InvalidInput(f"row {row}, column {column.name!r}: saw {value:g}, wanted {wanted}")


def output_names(signature: ModelSignature) -> tuple[str, ...]:
    return ("value",) if signature.output == "value" else ("label", "probability")


def label_datatype(signature: ModelSignature) -> str:
    kinds = {type(label) for label in signature.classes}
    return "BOOL" if kinds == {bool} else "INT64" if kinds == {int} else "BYTES"


def output_tensors(
    signature: ModelSignature, outputs: Outputs, label_type: str, wanted: tuple[str, ...] | None
) -> list[dict[str, object]]:
    """Return the outputs as v2 tensors, in the order that was asked for."""
    if signature.output == "value":
        values = outputs.values
        return [{"name": "value", "datatype": "FP64", "shape": [len(values)], "data": values}]
    rows = outputs.probabilities
    flat = rows[0] if len(rows) == 1 else [value for row in rows for value in row]
    labels = outputs.labels if label_type != "BYTES" else [str(label) for label in outputs.labels]
    label: dict[str, object] = {"name": "label", "datatype": label_type, "shape": [len(rows)], "data": labels}
    probability: dict[str, object] = {
        "name": "probability", "datatype": "FP64", "shape": [len(rows), len(signature.classes)], "data": flat,
    }  # fmt: skip
    if wanted is None:
        return [label, probability]
    return [label if name == "label" else probability for name in wanted]


def raw_outputs(tensors: list[dict[str, object]], names: tuple[str, ...]) -> bytes:
    """Take the data of the named outputs out of their tensors, and return it raw, in their order."""
    parts = []
    for tensor in tensors:
        if tensor["name"] in names:
            raw = pack(str(tensor["datatype"]), tensor.pop("data"))  # type: ignore[arg-type]  # a list, as made above
            tensor["parameters"] = {"binary_data_size": len(raw)}
            parts.append(raw)
    return b"".join(parts)


def raw_output(name: str, outputs: Outputs, label_type: str) -> bytes:
    """Return one output raw, of a datatype with a fixed width."""
    if name == "label":
        return pack(label_type, outputs.labels)
    values = outputs.values if name == "value" else list(chain.from_iterable(outputs.probabilities))
    return pack("FP64", values)


_PLATFORMS: Final = {"onnx": "onnx_onnxv1", "code": "python", "graph": "ensemble"}


def metadata(endpoint: str, version: str, signature: ModelSignature) -> dict[str, object]:
    """Return the v2 metadata of an endpoint: one input tensor a request column."""
    if signature.output == "value":
        outputs: list[dict[str, object]] = [{"name": "value", "datatype": "FP64", "shape": [-1]}]
    else:
        shape = [-1, len(signature.classes)]
        outputs = [
            {"name": "label", "datatype": label_datatype(signature), "shape": [-1]},
            {
                "name": "probability", "datatype": "FP64", "shape": shape,
                "parameters": {"classes": list(signature.classes)},
            },
        ]  # fmt: skip
    inputs = [
        {
            "name": column.name, "datatype": _DATATYPES[column.dtype], "shape": [-1],
            "parameters": {"type": str(column.dtype), "nullable": column.nullable},
        }
        for column in signature.request
    ]  # fmt: skip
    return {
        "name": endpoint,
        "versions": [version.rpartition("@")[2]],
        "platform": _PLATFORMS[signature.form],
        "inputs": inputs,
        "outputs": outputs,
        "parameters": {"model_version": version},
    }
