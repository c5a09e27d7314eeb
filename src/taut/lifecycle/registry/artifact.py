"""Looking into a model file before anything runs it: ONNX and nothing else, self-contained, standard operators."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, Final

import msgspec

from taut.core.errors import InvalidInput

DOMAINS: Final = frozenset({"", "ai.onnx", "ai.onnx.ml"})
BYTES_MAX: Final = 1 << 30
_NODES_MAX: Final = 1_000_000
# How executable formats begin; ONNX begins with a small protobuf field. For the message only: the parser decides.
_KNOWN: Final = {
    b"\x80\x02": "a pickle", b"\x80\x03": "a pickle", b"\x80\x04": "a pickle", b"\x80\x05": "a pickle",
    b"PK\x03\x04": "a zip (torch, skops or joblib)", b"\x89HDF": "HDF5", b"\x7fELF": "a program", b"#!": "a script",
}  # fmt: skip


class Scan(msgspec.Struct, frozen=True, kw_only=True):
    """What a model file holds. operators: types of its nodes, domain first where it is not the standard one."""

    size_bytes: int
    nodes: int
    operators: tuple[str, ...]
    opsets: dict[str, int]


def scan(data: bytes) -> Scan:
    """Look into a model without running it.

    Raises InvalidInput for anything but a single-file ONNX model of standard operators: another format, weights in
    other files, operators or functions from elsewhere, a size beyond a gigabyte.
    """
    import onnx

    if len(data) > BYTES_MAX:
        raise InvalidInput(f"the model has {len(data):,} bytes, {BYTES_MAX:,} are allowed: make it smaller")
    for start, name in _KNOWN.items():
        if data.startswith(start):
            raise InvalidInput(f"the model file is {name}, which could run code: only ONNX is accepted")
    try:
        model = onnx.load_from_string(data)
        onnx.checker.check_model(model)
    except Exception as error:
        # protobuf and the checker raise classes of their own without a common base
        first = (str(error).strip().splitlines() or [type(error).__name__])[0][:200]
        raise InvalidInput(f"the model file is no valid ONNX model: {first}") from error
    if model.functions:
        raise InvalidInput("the model brings functions of its own: only standard operators are accepted")
    operators: set[str] = set()
    count = 0
    for node in _nodes(model.graph):
        count += 1
        if node.domain not in DOMAINS:
            raise InvalidInput(
                f"the model uses the operator {node.domain}.{node.op_type}, which is code from elsewhere: only "
                "standard ONNX operators are accepted"
            )
        operators.add(f"{node.domain}.{node.op_type}" if node.domain else node.op_type)
        if count > _NODES_MAX:
            raise InvalidInput(f"the model has more than {_NODES_MAX:,} nodes: make it smaller")
    for tensor in _tensors(model.graph):
        if tensor.data_location == onnx.TensorProto.EXTERNAL or tensor.external_data:
            raise InvalidInput(f"the weights {tensor.name!r} lie in another file: save the model as one file")
    opsets = {item.domain or "ai.onnx": int(item.version) for item in model.opset_import}
    return Scan(size_bytes=len(data), nodes=count, operators=tuple(sorted(operators)), opsets=opsets)


def _nodes(graph: Any) -> Iterator[Any]:
    """Yield the nodes of a graph and of the graphs inside its nodes (If, Loop, Scan)."""
    for node in graph.node:
        yield node
        for inner in _inner(node):
            yield from _nodes(inner)


def _tensors(graph: Any) -> Iterator[Any]:
    yield from graph.initializer
    for sparse in graph.sparse_initializer:
        yield from (sparse.values, sparse.indices)
    for node in graph.node:
        for attribute in node.attribute:
            yield from (attribute.t, *attribute.tensors)
        for inner in _inner(node):
            yield from _tensors(inner)


def _inner(node: Any) -> Iterator[Any]:
    for attribute in node.attribute:
        if attribute.HasField("g"):
            yield attribute.g
        yield from attribute.graphs
