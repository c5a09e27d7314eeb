"""What a v2 request looks like on the wire: a JSON document, with or without raw tensor bytes after it."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Final

import msgspec

from taut.core.errors import InvalidInput
from taut.serving.errors import Malformed


class _TensorParameters(msgspec.Struct, gc=False):
    binary_data_size: int | None = None


class _OutputParameters(msgspec.Struct, gc=False):
    binary_data: bool | None = None


class _RequestParameters(msgspec.Struct, gc=False):
    binary_data_output: bool = False


class FloatTensor(msgspec.Struct, gc=False):
    name: str
    shape: list[int]
    datatype: str
    data: list[float]
    parameters: _TensorParameters | None = None


class _AnyTensor(msgspec.Struct, gc=False):
    name: str
    shape: list[int]
    datatype: str
    data: list[Any] | None = None
    parameters: _TensorParameters | None = None


class WantedOutput(msgspec.Struct, gc=False):
    name: str
    parameters: _OutputParameters | None = None


class FloatRequest(msgspec.Struct, gc=False):
    inputs: list[FloatTensor]
    id: str | None = None
    parameters: _RequestParameters | None = None
    outputs: list[WantedOutput] | None = None


class _AnyRequest(msgspec.Struct, gc=False):
    inputs: list[_AnyTensor]
    id: str | None = None
    parameters: _RequestParameters | None = None
    outputs: list[WantedOutput] | None = None


class Tensor(msgspec.Struct, frozen=True, gc=False):
    """One tensor of a request. data: decoded JSON, or raw bytes of the binary extension."""

    name: str
    shape: list[int]
    datatype: str
    data: Any  # list or memoryview: a union would be looked at on every request


class Document(msgspec.Struct, frozen=True, gc=False):
    """A request whose tensors are told apart and not yet looked into."""

    tensors: list[Tensor]
    id: str | None
    outputs: list[WantedOutput] | None
    parameters: _RequestParameters | None


read_floats: Final = msgspec.json.Decoder(FloatRequest).decode
"""Reads the commonest form, JSON with numbers only; raises for any other, which `read` then explains or takes."""
_read_any: Final = msgspec.json.Decoder(_AnyRequest).decode


def read(body: bytes, json_bytes: int | None) -> Document:
    """Return a request. json_bytes: how many bytes of the body are JSON, with raw tensors after it; None for all of them.

    Raises Malformed for what is no v2 document, and for sizes of raw tensors that the body does not have; InvalidInput
    for a number beyond 64 bits.
    """
    try:
        request = _read_any(body if json_bytes is None else memoryview(body)[:json_bytes])
    except RecursionError:
        raise Malformed("the JSON is nested too deeply: send flat tensors") from None
    except (msgspec.MsgspecError, UnicodeDecodeError) as error:
        if "out of range" in str(error):
            raise InvalidInput(f"{error}: send finite numbers that a 64-bit float can hold") from None
        raise Malformed(f"the body is no inference request: {error}") from None
    tensors, end = [], len(body) if json_bytes is None else json_bytes
    for tensor in request.inputs:
        data: Any = tensor.data
        size = None if tensor.parameters is None else tensor.parameters.binary_data_size
        if size is not None:
            data, end = _raw(tensor, size, body, end, json_bytes)
        elif data is None:
            raise Malformed(f"tensor {tensor.name[:40]!r} has neither data nor parameters.binary_data_size")
        tensors.append(Tensor(tensor.name, tensor.shape, tensor.datatype, data))
    if end != len(body):
        raise Malformed(
            f"{len(body) - end} bytes after the JSON belong to no tensor: say each one's size in parameters.binary_data_size"
        )
    return Document(tensors, request.id, request.outputs, request.parameters)


def _raw(
    tensor: _AnyTensor, size: int, body: bytes, start: int, json_bytes: int | None
) -> tuple[memoryview, int]:
    """Return a tensor's raw bytes, and where they end."""
    name = tensor.name[:40]
    if json_bytes is None:
        raise Malformed(
            f"tensor {name!r} has a binary_data_size, and the request no header Inference-Header-Content-Length: send it"
        )
    if tensor.data is not None:
        raise Malformed(f"tensor {name!r} has both data and a binary_data_size: send one of them")
    if not 0 <= size <= len(body) - start:
        raise Malformed(
            f"tensor {name!r}: binary_data_size is {size}, and {len(body) - start} bytes of the body are left for it"
        )
    return memoryview(body)[start : start + size], start + size


def binary_outputs(
    outputs: list[WantedOutput] | None, parameters: _RequestParameters | None, names: Sequence[str]
) -> tuple[str, ...]:
    """Return the outputs that are to be given raw. names: all outputs that there are."""
    default = parameters is not None and parameters.binary_data_output
    if outputs is None:
        return tuple(names) if default else ()
    found = []
    for output in outputs:
        said = None if output.parameters is None else output.parameters.binary_data
        if default if said is None else said:
            found.append(output.name)
    return tuple(found)
