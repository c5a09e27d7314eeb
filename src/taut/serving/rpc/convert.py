"""Messages of gRPC to requests of the gateways' REST face with raw tensors, and their answers back."""

from __future__ import annotations

import struct
from array import array
from collections.abc import Mapping
from typing import Any, Final
from urllib.parse import quote

import msgspec

from taut.core.errors import InvalidInput
from taut.serving.errors import Malformed, TooLarge
from taut.serving.rpc.messages import Messages
from taut.serving.upstream import Answer

MAX_VALUES: Final = 2**20
"""Typed values a request: each one is an object for a moment; raw contents have no such bound."""

# datatype -> field of InferTensorContents, letter of `array`
_TYPED: Final = {
    "BOOL": ("bool_contents", "b"),
    "INT8": ("int_contents", "b"), "INT16": ("int_contents", "h"), "INT32": ("int_contents", "i"),
    "INT64": ("int64_contents", "q"),
    "UINT8": ("uint_contents", "B"), "UINT16": ("uint_contents", "H"), "UINT32": ("uint_contents", "I"),
    "UINT64": ("uint64_contents", "Q"),
    "FP32": ("fp32_contents", "f"), "FP64": ("fp64_contents", "d"), "BYTES": ("bytes_contents", ""),
}  # fmt: skip
_LENGTH: Final = struct.Struct("<I")
_MAX_NAME: Final = 200
MAX_BODY_BYTES: Final = 8 * 2**20
"""What a gateway takes by default. It answers a larger one at once and closes, which its sender may not hear."""


class _Output(msgspec.Struct):
    name: str
    datatype: str
    shape: list[int]
    parameters: dict[str, int]


class _Outputs(msgspec.Struct):
    model_name: str
    model_version: str
    outputs: list[_Output]
    id: str = ""


_decode: Final = msgspec.json.Decoder(_Outputs).decode


def model_path(name: str, version: str) -> str:
    """Return where a model is in the gateways' REST face. Raises Malformed when the name is missing."""
    if not name:
        raise Malformed("the name of the model is missing: give the endpoint's name")
    if len(name) > _MAX_NAME or len(version) > _MAX_NAME:
        raise Malformed(
            f"the model's name or version has more than {_MAX_NAME} characters: give the endpoint's name"
        )
    path = f"/v2/models/{quote(name, safe='')}"
    return f"{path}/versions/{quote(version, safe='')}" if version else path


def infer_body(request: Any) -> tuple[bytes, int]:
    """Return a ModelInferRequest as a body with raw tensors, and how many bytes of it are JSON.

    Raises Malformed for contents that are neither all raw nor all typed, InvalidInput for typed values that their datatype
    does not hold, TooLarge for more of them than MAX_VALUES or a body beyond MAX_BODY_BYTES.
    """
    raw = list(request.raw_input_contents)
    if raw and len(raw) != len(request.inputs):
        raise Malformed(
            f"{len(raw)} raw_input_contents came with {len(request.inputs)} inputs: send one for each, in their order"
        )
    values = 0
    inputs: list[dict[str, Any]] = []
    for index, tensor in enumerate(request.inputs):
        if not raw:
            values += _count(tensor)
            if values > MAX_VALUES:
                raise TooLarge(f"more than {MAX_VALUES} typed values: send them as raw_input_contents")
        elif tensor.HasField("contents"):
            raise Malformed(
                f"input {tensor.name[:40]!r} has contents beside raw_input_contents: send one of them"
            )
        inputs.append(
            {
                "name": tensor.name,
                "datatype": tensor.datatype,
                "shape": list(tensor.shape),
                "parameters": {"binary_data_size": len(raw[index]) if raw else 0},
            }
        )
    if not raw:
        for described, tensor in zip(inputs, request.inputs, strict=True):
            data = _packed(tensor)
            described["parameters"]["binary_data_size"] = len(data)
            raw.append(data)
    document: dict[str, Any] = {"inputs": inputs, "parameters": {"binary_data_output": True}}
    if request.id:
        document["id"] = request.id
    if request.outputs:
        document["outputs"] = [{"name": output.name} for output in request.outputs]
    head = msgspec.json.encode(document)
    body = b"".join([head, *raw])
    if len(body) > MAX_BODY_BYTES:
        raise TooLarge(f"the request is larger than {MAX_BODY_BYTES} bytes: send fewer rows at once")
    return body, len(head)


def _count(tensor: Any) -> int:
    contents = tensor.contents
    return sum(len(getattr(contents, field)) for field in {field for field, _ in _TYPED.values()})


def _packed(tensor: Any) -> bytes:
    """Return typed contents as the raw bytes of their datatype."""
    found = _TYPED.get(tensor.datatype)
    if found is None:
        raise InvalidInput(
            f"input {tensor.name[:40]!r}: datatype {tensor.datatype[:20]!r} has no typed contents: send raw_input_contents"
        )
    field, letter = found
    values = getattr(tensor.contents, field)
    if len(values) != _count(tensor):
        raise InvalidInput(
            f"input {tensor.name[:40]!r}: its values are not in {field}, where {tensor.datatype} has them"
        )
    if tensor.datatype == "BYTES":
        return b"".join([part for text in values for part in (_LENGTH.pack(len(text)), text)])
    try:
        return _little(array(letter, values))
    except OverflowError:
        raise InvalidInput(
            f"input {tensor.name[:40]!r}: a value is beyond what {tensor.datatype} holds"
        ) from None


def _little(values: array[Any]) -> bytes:
    if struct.pack("=H", 1) != b"\x01\x00":
        values.byteswap()
    return values.tobytes()


def infer_response(messages: Messages, answer: Answer, *, typed: bool) -> bytes:
    """Return an answer of a gateway as a ModelInferResponse, serialised; its contents as those of the request came."""
    at = int(answer.headers["inference-header-content-length"])
    document = _decode(memoryview(answer.body)[:at])
    response = messages["ModelInferResponse"](
        model_name=document.model_name, model_version=document.model_version, id=document.id
    )
    for output in document.outputs:
        tensor = response.outputs.add(name=output.name, datatype=output.datatype, shape=output.shape)
        data = answer.body[at : at + output.parameters["binary_data_size"]]
        at += len(data)
        if typed:
            _unpack(tensor.contents, output.datatype, data)
        else:
            response.raw_output_contents.append(data)
    serialised: bytes = response.SerializeToString()
    return serialised


def _unpack(contents: Any, datatype: str, data: bytes) -> None:
    field, letter = _TYPED[datatype]
    into = getattr(contents, field)
    if datatype == "BYTES":
        at = 0
        while at < len(data):
            start = at + _LENGTH.size
            at = start + _LENGTH.unpack_from(data, at)[0]
            into.append(data[start:at])
        return
    values = array(letter, data)
    if struct.pack("=H", 1) != b"\x01\x00":
        values.byteswap()
    into.extend(map(bool, values) if datatype == "BOOL" else values)


def metadata_response(messages: Messages, found: Mapping[str, Any]) -> bytes:
    """Return an endpoint's metadata as a ModelMetadataResponse, serialised."""
    response = messages["ModelMetadataResponse"](
        name=found["name"], versions=found["versions"], platform=found["platform"]
    )
    for side in ("inputs", "outputs"):
        for tensor in found[side]:
            getattr(response, side).add(
                name=tensor["name"], datatype=tensor["datatype"], shape=tensor["shape"]
            )
    serialised: bytes = response.SerializeToString()
    return serialised
