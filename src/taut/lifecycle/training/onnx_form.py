"""ONNX models in one normal form, so that equal models have equal bytes."""

from __future__ import annotations

from typing import Any, Final

from taut.core.errors import InvalidInput

DOMAINS: Final = frozenset({"", "ai.onnx", "ai.onnx.ml"})
"""Operator sets that every onnxruntime has built in; any other would be code from elsewhere."""


def normalise(model: Any) -> bytes:
    """Return the bytes of a model without what does not change its answers: producer, names of nodes, remarks.

    Names of values stay, since they are the model's face; the graph is named `model`. Equal models from the same
    converter give equal bytes. Raises InvalidInput for operators or data from elsewhere.
    """
    import onnx

    copy = onnx.ModelProto()
    copy.CopyFrom(model)
    copy.producer_name, copy.producer_version, copy.domain, copy.doc_string = "taut", "", "", ""
    copy.model_version = 0
    del copy.metadata_props[:]
    copy.graph.name, copy.graph.doc_string = "model", ""
    for index, node in enumerate(copy.graph.node):
        node.name, node.doc_string = f"{node.op_type}_{index}", ""
    for value in (*copy.graph.input, *copy.graph.output, *copy.graph.value_info):
        value.doc_string = ""
    foreign = sorted({item.domain for item in copy.opset_import} - DOMAINS)
    used = sorted({node.domain for node in copy.graph.node} - DOMAINS)
    if used:
        raise InvalidInput(f"the model uses operators of {', '.join(used)}: only standard ONNX is accepted")
    for item in [item for item in copy.opset_import if item.domain in foreign]:
        copy.opset_import.remove(item)
    if any(tensor.data_location == onnx.TensorProto.EXTERNAL for tensor in copy.graph.initializer):
        raise InvalidInput("the model keeps weights in other files: save it as one file")
    return bytes(copy.SerializeToString(deterministic=True))


def rename_input(model: Any, new: str) -> None:
    """Rename the only input of a model, in place."""
    old = model.graph.input[0].name
    model.graph.input[0].name = new
    for node in model.graph.node:
        for index, name in enumerate(node.input):
            if name == old:
                node.input[index] = new
