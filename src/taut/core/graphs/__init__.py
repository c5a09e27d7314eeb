"""Graphs of models: nodes, the plan that pins them, what a graph takes and gives, and what is wrong with one."""

from taut.core.graphs.faces import Face, face_of, faces, fed_output, graph_signature
from taut.core.graphs.plan import (
    NODES_MAX,
    GraphPlan,
    Kind,
    Node,
    Pin,
    check_shape,
    layers,
    lazy_members,
    needs,
    read_plan,
    source_of,
)

__all__ = [
    "NODES_MAX",
    "Face",
    "GraphPlan",
    "Kind",
    "Node",
    "Pin",
    "check_shape",
    "face_of",
    "faces",
    "fed_output",
    "graph_signature",
    "layers",
    "lazy_members",
    "needs",
    "read_plan",
    "source_of",
]
