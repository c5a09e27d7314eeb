"""Declaring graphs: models composed into one endpoint, ensembles among them."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any, Final, Literal

import msgspec

from taut.core.errors import InvalidInput
from taut.core.graphs import Kind, Node
from taut.project import words
from taut.project.declare import declare
from taut.project.manifest import GateSpec, GraphSpec
from taut.project.pipelines import Model, declaration_of
from taut.project.rules import Approval
from taut.project.words import worded

RISKS: Final[tuple[Literal["low", "medium", "high"], ...]] = ("low", "medium", "high")
_EXAMPLE: Final = 'write {"trees": taut.node(train_trees), "blend": taut.average("trees", "linear")}'


class Part(msgspec.Struct, frozen=True, kw_only=True):
    """A node before it has its name: what `taut.node`, `taut.average`, `taut.vote` and `taut.first_confident` return."""

    kind: Kind
    model: Model | None = None
    inputs: dict[str, str] = {}
    of: tuple[str, ...] = ()
    weights: tuple[float, ...] = ()
    at: float | None = None
    tolerate: int = 0


@worded("node")
def node(model: Any, *, inputs: Any = None) -> Part:
    """A model of the project as a node. It gets its request columns and its features by their names.

    inputs: request columns of it that come from other nodes instead of the caller, each as `NODE.OUTPUT`: `probability`
    (of the positive class; for more than two classes `probability.CLASS`), `label`, or `value` of a regressor.
    """
    if isinstance(model, Graph):
        raise InvalidInput(f"node: {model.name!r} is a graph: name its nodes in this one instead")
    found = declaration_of(model)
    if not isinstance(found, Model):
        shown = getattr(model, "__name__", repr(model))
        raise InvalidInput(
            f"node: {shown} is no model: name the function that @taut.model decorates, as an object"
        )
    given = inputs or {}
    if not isinstance(given, Mapping):
        raise InvalidInput(f'node: inputs is {inputs!r}: write {{"p_late": "trees.probability"}}')
    taken = {words.text(key, "node: inputs"): words.text(item, "node: inputs") for key, item in given.items()}
    return Part(kind="model", model=found, inputs=taken)


@worded("average")
def average(*nodes: str, weights: Sequence[float] = (), tolerate: int = 0) -> Part:
    """The mean of what nodes give: probabilities class by class, or values. weights: one a node, else all alike.

    tolerate: so many of the nodes may fail; the others answer then, marked by `taut-fallback`.
    """
    return _combined("average", nodes, weights, tolerate)


@worded("vote")
def vote(*nodes: str, weights: Sequence[float] = (), tolerate: int = 0) -> Part:
    """The label that most nodes give; each class has the share of the votes as its probability. See `taut.average`."""
    return _combined("vote", nodes, weights, tolerate)


@worded("first_confident")
def first_confident(nodes: Sequence[str], *, at: float, tolerate: int = 0) -> Part:
    """For each row the first node whose likeliest class has a probability of `at` or more, the last one otherwise.

    Those behind the first are asked about the remaining rows only: put the cheap ones in front.
    """
    what = "first_confident"
    named = words.texts(nodes, f"{what}: nodes")
    enough = float(words.number(at, f"{what}: at", low=0, high=1))
    return Part(kind="first_confident", of=named, at=enough, tolerate=_tolerate(tolerate, named, what))


def _combined(
    kind: Literal["average", "vote"], nodes: tuple[str, ...], weights: Sequence[float], tolerate: int
) -> Part:
    named = words.texts(nodes, f"{kind}: nodes")
    if not isinstance(weights, list | tuple):
        raise InvalidInput(f"{kind}: weights is {weights!r}: write one a node, weights=(0.7, 0.3)")
    shares = tuple(float(words.number(one, f"{kind}: weights", low=0, high=1e6)) for one in weights)
    return Part(kind=kind, of=named, weights=shares, tolerate=_tolerate(tolerate, named, kind))


def _tolerate(value: int, nodes: tuple[str, ...], what: str) -> int:
    return words.whole(value, f"{what}: tolerate", low=0, high=max(0, len(nodes) - 1))


class Graph:
    """Models composed into one that is versioned, judged, approved and released as a model is."""

    @worded("Graph")
    def __init__(
        self,
        name: str,
        *,
        nodes: Mapping[str, Part],
        output: str,
        gates: Sequence[GateSpec] = (),
        approval: Approval | None = None,
        risk: str | None = None,
        description: str = "",
    ) -> None:
        """nodes: by name, `taut.node(...)` for a model, or what combines others. output: the node whose answer is the graph's.

        risk: that of its riskiest node, unless a higher one is said.
        """
        self.name = words.name(name, "graph")
        what = f"Graph {name!r}"
        parts = {
            words.name(key, f"{what}: node"): _part(item, key, what) for key, item in _mapped(nodes, what)
        }
        if approval is not None and not isinstance(approval, Approval):
            raise InvalidInput(f"{what}: approval is {approval!r}: write taut.approval(1)")
        self.models: Final = tuple(part.model for part in parts.values() if part.model is not None)
        highest = max((RISKS.index(model.spec.risk) for model in self.models), default=0)
        self.spec: Final = GraphSpec(
            name=self.name,
            nodes=tuple(_node(key, part) for key, part in parts.items()),
            output=words.text(output, f"{what}: output"),
            gates=words.instances(gates, GateSpec, f"{what}: gates", "write taut.metric(...)"),
            approvals=0 if approval is None else approval.count,
            risk=RISKS[highest] if risk is None else words.one_of(risk, RISKS, f"{what}: risk"),  # type: ignore[arg-type]  # checked
            description=description,
        )
        self.place = declare("graph", self.name, self)

    def __repr__(self) -> str:
        return f"taut.Graph({self.name!r})"


def _mapped(nodes: object, what: str) -> Iterable[tuple[Any, Any]]:
    if not isinstance(nodes, Mapping) or not nodes:
        raise InvalidInput(f"{what}: nodes is {nodes!r}: {_EXAMPLE}")
    return nodes.items()


def _part(value: object, name: str, what: str) -> Part:
    if not isinstance(value, Part):
        raise InvalidInput(f"{what}: node {name!r} is {getattr(value, '__name__', repr(value))}: {_EXAMPLE}")
    return value


def _node(name: str, part: Part) -> Node:
    return Node(
        name=name, kind=part.kind, model="" if part.model is None else part.model.name, inputs=part.inputs,
        of=part.of, weights=part.weights, at=part.at, tolerate=part.tolerate,
    )  # fmt: skip
