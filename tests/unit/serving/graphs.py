"""Small graphs over `x0`, `x1`, `x2`: their plans, their artifacts, and as a snapshot names them."""

from __future__ import annotations

from typing import Any

from taut.core.canonical import digest_bytes
from taut.core.graphs import GraphPlan, Node, Pin, check_shape, graph_signature
from taut.core.schema import Column, DType, ModelInput, ModelSignature
from taut.serving.snapshot import ServedModel
from taut.testing.serving import DataPlane, matrix_model, matrix_signature

ROW = {"x0": 0.5, "x1": 0.25, "x2": -0.25}


def fed_signature() -> ModelSignature:
    """A binary classifier over `x0` and `p`."""
    columns = (Column("x0", DType.FLOAT), Column("p", DType.FLOAT))
    return ModelSignature(
        request=columns, inputs=tuple(ModelInput(column=column) for column in columns), output="probability",
        classes=(0, 1),
    )  # fmt: skip


MODELS: dict[str, tuple[bytes, ModelSignature]] = {
    "steep": (matrix_model(3, weight=3.0), matrix_signature(3)),
    "flat": (matrix_model(3, weight=0.5, bias=0.3), matrix_signature(3)),
    "low": (matrix_model(3, weight=1.0, bias=-1.0), matrix_signature(3)),
    "fed": (matrix_model(2, weight=2.0), fed_signature()),
}


def model(name: str, **more: Any) -> Node:
    return Node(name=name, kind="model", model=name, **more)


def plan_of(*nodes: Node, output: str, models: dict[str, tuple[bytes, ModelSignature]] = MODELS) -> GraphPlan:
    pins = {
        node.name: Pin(version=f"{node.model}@1", artifact=digest_bytes(models[node.model][0]), signature=models[node.model][1])
        for node in nodes
        if node.kind == "model"
    }  # fmt: skip
    return GraphPlan(nodes=tuple(check_shape(nodes, output)), pins=pins, output=output)


def artifacts_of(plan: GraphPlan) -> dict[str, bytes]:
    return {node.name: MODELS[node.model][0] for node in plan.nodes if node.kind == "model"}


def served_graph(plane: DataPlane, plan: GraphPlan, *, version: str = "blend@1") -> ServedModel:
    """Put a plan and its nodes among the artifacts and return the graph as a snapshot names it."""
    nodes = {
        node.name: plane.served(*MODELS[node.model], version=f"{node.model}@1")
        for node in plan.nodes
        if node.kind == "model"
    }
    signature = graph_signature(
        plan.nodes, plan.output, {name: pin.signature for name, pin in plan.pins.items()}
    )
    return plane.served(plan.to_bytes(), signature, version=version, nodes=nodes)
