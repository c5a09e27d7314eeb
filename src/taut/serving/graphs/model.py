"""A graph in memory: its plan, and its nodes here or in workers."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Final

from taut.core.errors import Corrupt
from taut.core.graphs import GraphPlan, read_plan
from taut.serving.runtime import Graph, LoadedGraph, LoadedModel
from taut.serving.runtime.graph import Columns
from taut.serving.runtime.rows import Value
from taut.serving.snapshot import ServedModel
from taut.serving.workers import Lane, WorkerModel


class GraphModel:
    """A graph with its loaded nodes; it comes into memory and leaves it as one.

    local: the graph where all of it runs in this process. versions: node -> how the record names it. lanes: of all nodes that
    run in workers. required_lanes: of those without which there is no answer. inline_rows: node -> how many rows hold
    nobody up, by `inline_us`.
    """

    def __init__(
        self, plan: GraphPlan, nodes: Mapping[str, LoadedModel | WorkerModel], *, inline_us: float
    ) -> None:
        here = {name: model for name, model in nodes.items() if not isinstance(model, WorkerModel)}
        lanes = {name: model.lane for name, model in nodes.items() if isinstance(model, WorkerModel)}
        self.nodes: Final = dict(nodes)
        self.local: Final = LoadedGraph(plan, here) if not lanes else None
        self.graph: Final[Graph] = self.local or Graph(plan, nodes)
        self.versions: Final = {name: f"{name}={pin.version}" for name, pin in plan.pins.items()}
        needed = self.graph.required()
        self.lanes: Final[tuple[Lane, ...]] = tuple(dict.fromkeys(lanes.values()))
        self.required_lanes: Final = tuple(
            dict.fromkeys(lane for name, lane in lanes.items() if name in needed)
        )
        self.inline_rows: Final = {name: model.rows_within(inline_us) for name, model in nodes.items()}
        self._names: Final = [item.column.name for item in self.graph.signature.inputs]

    @property
    def workers(self) -> list[WorkerModel]:
        """Return the nodes that run in workers."""
        return [model for model in self.nodes.values() if isinstance(model, WorkerModel)]

    def rows_within(self, budget_us: float) -> int:
        """Return the largest batch that answers within the budget, node after node."""
        return self.graph.rows_within(budget_us)

    def encode(self, columns: Sequence[Sequence[Value]]) -> Columns:
        """Return columns by name; every node encodes for itself what it takes of them."""
        return dict(zip(self._names, columns, strict=True))


def checked_plan(served: ServedModel, data: bytes) -> GraphPlan:
    """Return the plan in an artifact, whose nodes are those that the snapshot names. Raises Corrupt."""
    plan = read_plan(data)
    if set(plan.pins) != set(served.nodes):
        raise Corrupt(f"{served.version}: the snapshot names other nodes than its plan: issue it again")
    for name, pin in plan.pins.items():
        node = served.nodes[name]
        if (node.version, node.artifact, node.signature) != (pin.version, pin.artifact, pin.signature):
            raise Corrupt(
                f"{served.version}: node {name!r} is {pin.version} of digest {pin.artifact} by its plan, the snapshot has "
                f"{node.version} of {node.artifact}: issue it again"
            )
    return plan
