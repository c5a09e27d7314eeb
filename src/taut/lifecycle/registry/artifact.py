"""Looking into a model file before anything runs it: ONNX and nothing else, self-contained, standard operators."""

from __future__ import annotations

import io
import pickletools
import zipfile
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

_CALLING: Final = frozenset(
    {
        "GLOBAL",
        "STACK_GLOBAL",
        "INST",
        "OBJ",
        "REDUCE",
        "BUILD",
        "NEWOBJ",
        "NEWOBJ_EX",
        "EXT1",
        "EXT2",
        "EXT4",
    }
)
"""Opcodes by which a pickle names or calls something."""


class Scan(msgspec.Struct, frozen=True, kw_only=True):
    """What a model file holds. operators: types of its nodes, domain first where it is not the standard one."""

    size_bytes: int
    nodes: int
    operators: tuple[str, ...]
    opsets: dict[str, int]


def scan(data: bytes, *, bytes_max: int = BYTES_MAX) -> Scan:
    """Look into a model without running it.

    Raises InvalidInput for anything but a single-file ONNX model of standard operators: another format, also beneath or
    behind the model, weights in other files, operators or functions from elsewhere, training of its own, bytes that no
    reader of ONNX sees, a size beyond the bound.
    """
    import onnx

    if len(data) > bytes_max:
        raise InvalidInput(f"the model has {len(data):,} bytes, {bytes_max:,} are allowed: make it smaller")
    _refuse_other_formats(data)
    try:
        model = onnx.load_from_string(data)
    except Exception as error:
        # protobuf raises classes of its own without a common base
        raise InvalidInput(f"the model file is no valid ONNX model: {_first_line(error)}") from error
    _refuse_hidden(model)
    operators, count = _operators(model)
    for tensor in _tensors(model.graph):  # before the checker, which looks for the files that they name
        if tensor.data_location == onnx.TensorProto.EXTERNAL or tensor.external_data:
            raise InvalidInput(f"the weights {tensor.name!r} lie in another file: save the model as one file")
    try:
        onnx.checker.check_model(model)
    except Exception as error:
        # as above: the checker's errors have no common base
        raise InvalidInput(f"the model file is no valid ONNX model: {_first_line(error)}") from error
    opsets = {item.domain or "ai.onnx": int(item.version) for item in model.opset_import}
    return Scan(size_bytes=len(data), nodes=count, operators=operators, opsets=opsets)


def _refuse_other_formats(data: bytes) -> None:
    """Refuse what some other program would read as something that runs, whether or not it is ONNX as well."""
    for start, name in _KNOWN.items():
        if data.startswith(start):
            raise InvalidInput(f"the model file is {name}, which could run code: only ONNX is accepted")
    if zipfile.is_zipfile(io.BytesIO(data)):
        raise InvalidInput(
            "the model file is an archive too (torch, skops and joblib read such): only ONNX is accepted"
        )
    if _is_pickle(data):
        raise InvalidInput("the model file is a pickle, which could run code: only ONNX is accepted")


def _is_pickle(data: bytes) -> bool:
    """Whether a reader of pickles would come to an end, and call something on the way. ONNX ends such a reading at once."""
    calls = False
    try:
        for opcode, _, _ in pickletools.genops(data):
            calls = calls or opcode.name in _CALLING
    except (ValueError, UnicodeDecodeError, OverflowError):
        return False
    return calls


def _refuse_hidden(model: Any) -> None:
    """Refuse what a model may carry beside its graph: functions, training, fields that ONNX does not know."""
    if model.functions:
        raise InvalidInput("the model brings functions of its own: only standard operators are accepted")
    if model.training_info:
        raise InvalidInput("the model brings graphs for its training: export it for inference")
    before = model.ByteSize()
    model.DiscardUnknownFields()
    if model.ByteSize() != before:
        raise InvalidInput(
            f"the model holds {before - model.ByteSize():,} bytes that no reader of ONNX sees: export it anew"
        )


def _operators(model: Any) -> tuple[tuple[str, ...], int]:
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
    return tuple(sorted(operators)), count


def _first_line(error: Exception) -> str:
    return (str(error).strip().splitlines() or [type(error).__name__])[0][:200]


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
            for sparse in (attribute.sparse_tensor, *attribute.sparse_tensors):
                yield from (sparse.values, sparse.indices)
        for inner in _inner(node):
            yield from _tensors(inner)


def _inner(node: Any) -> Iterator[Any]:
    for attribute in node.attribute:
        if attribute.HasField("g"):
            yield attribute.g
        yield from attribute.graphs
