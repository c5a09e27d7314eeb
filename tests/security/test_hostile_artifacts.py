"""Model files that are something else, something else as well, or more than they say: each is refused before it runs."""

from __future__ import annotations

import io
import os
import pickle
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import onnx
import pytest
from onnx import TensorProto, helper

from taut.core.errors import InvalidInput
from taut.lifecycle.registry import scan


class Wicked:
    """What a pickle does to whoever opens it."""

    def __reduce__(self) -> Any:
        return os.mkdir, ("opened",)


def honest(**further: Any) -> Any:
    weights = helper.make_tensor("w", TensorProto.FLOAT, [2], [1.0, 2.0])
    graph = helper.make_graph(
        [helper.make_node("Add", ["x", "w"], ["y"])],
        "g",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, [2])],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, [2])],
        initializer=[weights],
    )
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], **further)


def outside(tensor: Any, path: str) -> None:
    tensor.data_location = TensorProto.EXTERNAL
    tensor.ClearField("float_data")
    entry = tensor.external_data.add()
    entry.key, entry.value = "location", path


def with_archive(name: str) -> bytes:
    """An ONNX model with an archive behind it, in a field that ONNX does not know: readers of both are content."""
    file = io.BytesIO()
    with zipfile.ZipFile(file, "w") as archive:
        archive.writestr(name, b"x")
    held = file.getvalue()
    return bytes(honest().SerializeToString()) + b"\xfa\x3f" + bytes([len(held) % 128 | 128, len(held) // 128]) + held  # fmt: skip


def changed(change: Callable[[Any], None]) -> bytes:
    model = honest()
    change(model)
    return bytes(model.SerializeToString())


def constant(model: Any, *, sparse: bool, path: str) -> None:
    """Weights in an attribute of a node instead of the graph's own list, dense or sparse."""
    node = model.graph.node.add()
    node.op_type = "Constant"
    node.output.append("c")
    attribute = node.attribute.add()
    if sparse:
        attribute.name, attribute.type = "sparse_value", onnx.AttributeProto.SPARSE_TENSOR
        attribute.sparse_tensor.values.CopyFrom(helper.make_tensor("v", TensorProto.FLOAT, [1], [1.0]))
        attribute.sparse_tensor.indices.CopyFrom(helper.make_tensor("i", TensorProto.INT64, [1], [0]))
        attribute.sparse_tensor.dims.append(2)
        outside(attribute.sparse_tensor.values, path)
    else:
        attribute.name, attribute.type = "value", onnx.AttributeProto.TENSOR
        attribute.t.CopyFrom(helper.make_tensor("v", TensorProto.FLOAT, [2], [1.0, 1.0]))
        outside(attribute.t, path)


def foreign(model: Any) -> None:
    model.graph.node[0].domain = "com.microsoft"
    model.opset_import.add(domain="com.microsoft", version=1)


def nested(model: Any) -> None:
    """A foreign operator within a branch, where only who looks into it sees it."""
    inner = helper.make_graph(
        [helper.make_node("Pwn", [], ["z"], domain="evil")],
        "b",
        [],
        [helper.make_tensor_value_info("z", 1, [2])],
    )
    model.graph.node.append(helper.make_node("If", ["k"], ["z"], then_branch=inner, else_branch=inner))


def own_function(model: Any) -> None:
    node = helper.make_node("Identity", ["a"], ["b"])
    model.functions.append(helper.make_function("local", "F", ["a"], ["b"], [node], [helper.make_opsetid("", 18)]))  # fmt: skip


def training(model: Any) -> None:
    model.training_info.add().algorithm.CopyFrom(model.graph)


ATTACKS: dict[str, tuple[Callable[[], bytes], str]] = {
    "pickle, newest": (lambda: pickle.dumps(Wicked(), protocol=5), "a pickle"),
    "pickle, oldest": (lambda: pickle.dumps(Wicked(), protocol=0), "a pickle"),
    "pickle with a model behind it": (
        lambda: pickle.dumps(Wicked(), protocol=0) + bytes(honest().SerializeToString()),
        "a pickle",
    ),
    "archive with a way out": (lambda: with_archive("../../etc/cron.d/x"), "an archive too"),
    "archive of torch": (lambda: with_archive("archive/data.pkl"), "an archive too"),
    "program": (lambda: b"\x7fELF" + bytes(honest().SerializeToString()), "a program"),
    "weights elsewhere": (
        lambda: changed(lambda model: outside(model.graph.initializer[0], "weights.bin")),
        "another file",
    ),
    "weights of somebody else": (
        lambda: changed(lambda model: outside(model.graph.initializer[0], "../../../../etc/shadow")),
        "another file",
    ),
    "weights of an attribute": (
        lambda: changed(lambda model: constant(model, sparse=False, path="/etc/hostname")),
        "another file",
    ),
    "sparse weights of an attribute": (
        lambda: changed(lambda model: constant(model, sparse=True, path="/etc/hostname")),
        "another file",
    ),
    "operator from elsewhere": (lambda: changed(foreign), "com.microsoft.Add"),
    "operator in a branch": (lambda: changed(nested), "evil.Pwn"),
    "function of its own": (lambda: changed(own_function), "functions of its own"),
    "training of its own": (lambda: changed(training), "for its training"),
    "bytes that nobody sees": (
        lambda: bytes(honest().SerializeToString()) + b"\xfa\x3f\x03abc",
        "no reader of ONNX sees",
    ),
    "cut off": (lambda: bytes(honest().SerializeToString())[:-3], "no valid ONNX"),
}


def test_an_honest_model_is_accepted_and_what_it_holds_is_said() -> None:
    found = scan(honest().SerializeToString())

    assert (found.nodes, found.operators, found.opsets) == (1, ("Add",), {"ai.onnx": 18})


@pytest.mark.parametrize("name", ATTACKS)
def test_a_file_that_is_not_only_a_model_is_refused_and_nothing_of_it_runs(
    name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "weights.bin").write_bytes(b"\0" * 64)
    make, said = ATTACKS[name]
    data = make()

    with pytest.raises(InvalidInput, match=said):
        scan(data)
    assert [path.name for path in tmp_path.iterdir()] == ["weights.bin"]


def test_a_file_beyond_the_bound_is_refused_before_it_is_read() -> None:
    data = honest().SerializeToString()

    assert scan(data, bytes_max=len(data)).size_bytes == len(data)
    with pytest.raises(InvalidInput, match="make it smaller"):
        scan(data, bytes_max=len(data) - 1)


def test_the_pickles_planted_here_would_run_something(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    pickle.loads(pickle.dumps(Wicked(), protocol=0) + bytes(honest().SerializeToString()))

    assert (tmp_path / "opened").is_dir()
