"""What a graph is made of, in which order its nodes are asked, and whether they hang together."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Final, Literal

import msgspec

from taut.core.canonical import canonical_json
from taut.core.errors import Corrupt, InvalidInput
from taut.core.schema import ModelSignature
from taut.core.words import nearest

NODES_MAX: Final = 16
"""Nodes of one graph: each has series of its own in the metrics, and all are loaded by every gateway."""

_NAME: Final = re.compile(r"[a-z][a-z0-9_\-]{0,31}")  # it is part of a file's name
FORMAT: Final = "taut.graph/1"
Kind = Literal["model", "average", "vote", "first_confident"]


class Node(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """One node as declared.

    model: of a node that is a model, its name. inputs: request column of that model -> `node.output` that gives it.
    of: the nodes that a combiner combines, in their order. weights: one a node of `of`. at: the confidence that is enough.
    tolerate: how many of `of` may fail.
    """

    name: str
    kind: Kind
    model: str = ""
    inputs: dict[str, str] = {}
    of: tuple[str, ...] = ()
    weights: tuple[float, ...] = ()
    at: float | None = None
    tolerate: int = 0


class Pin(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """The version that a node is: `model@number`, the digest of its artifact, and what it takes and gives."""

    version: str
    artifact: str
    signature: ModelSignature


class GraphPlan(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """A graph whose nodes are fixed; its canonical JSON is the artifact of a graph's version.

    nodes: each after those that it needs. pins: of every node that is a model.
    """

    format: Literal["taut.graph/1"] = FORMAT
    nodes: tuple[Node, ...]
    pins: dict[str, Pin]
    output: str

    def to_bytes(self) -> bytes:
        return canonical_json(self)

    def file(self, node: str) -> str:
        """Return the name of a node's artifact among the files of the graph's version."""
        return f"{node}.{self.pins[node].signature.file}"

    def node(self, name: str) -> Node:
        return next(node for node in self.nodes if node.name == name)


def read_plan(data: bytes) -> GraphPlan:
    """Return the plan in an artifact's bytes, checked. Raises Corrupt for anything else than a plan in its one form."""
    try:
        plan = msgspec.json.decode(data, type=GraphPlan)
    except (msgspec.MsgspecError, RecursionError, UnicodeDecodeError) as error:
        raise Corrupt(f"the plan of the graph cannot be read: {error}") from error
    try:
        ordered = check_shape(plan.nodes, plan.output)
    except InvalidInput as error:
        raise Corrupt(f"the plan of the graph contradicts itself: {error}") from error
    models = {node.name for node in plan.nodes if node.kind == "model"}
    if tuple(ordered) != plan.nodes or models != set(plan.pins) or plan.to_bytes() != data:
        raise Corrupt("the plan of the graph is not in its canonical form: compose it again")
    return plan


def source_of(reference: str) -> str:
    """Return the node that a `node.output` names."""
    return reference.partition(".")[0]


def needs(node: Node) -> tuple[str, ...]:
    """Return the nodes that a node is made from, in their order, each once."""
    return (
        tuple(dict.fromkeys(source_of(one) for one in node.inputs.values()))
        if node.kind == "model"
        else node.of
    )


def lazy_members(node: Node) -> tuple[str, ...]:
    """Return the nodes that are asked only about the rows for which those before them were not enough."""
    return node.of[1:] if node.kind == "first_confident" else ()


def layers(nodes: Sequence[Node], wanted: Iterable[str]) -> list[list[Node]]:
    """Return all that `wanted` always needs, in layers: what is in one needs only what is in those before it."""
    known = {node.name: node for node in nodes}
    depth: dict[str, int] = {}

    def visit(name: str) -> int:
        if name not in depth:
            node = known[name]
            lazy = set(lazy_members(node))
            depth[name] = 1 + max((visit(one) for one in needs(node) if one not in lazy), default=-1)
        return depth[name]

    for name in wanted:
        visit(name)
    found: list[list[Node]] = [[] for _ in range(1 + max(depth.values(), default=-1))]
    for node in nodes:
        if node.name in depth:
            found[depth[node.name]].append(node)
    return found


def check_shape(nodes: Sequence[Node], output: str) -> list[Node]:
    """Return the nodes, each after those that it needs, in the order in which they were given otherwise.

    Raises InvalidInput that names every node that is unknown, in a circle, of no use, or contradicts itself.
    """
    known = {node.name: node for node in nodes}
    faults = list(_faults(nodes, known, output))
    if faults:
        raise InvalidInput("; ".join(faults))
    ordered: dict[str, Node] = {}

    def visit(name: str, path: tuple[str, ...]) -> None:
        if name in path:
            circle = " → ".join([*path[path.index(name) :], name])
            raise InvalidInput(f"nodes need each other in a circle: {circle}")
        if name not in ordered:
            for one in needs(known[name]):
                visit(one, (*path, name))
            ordered[name] = known[name]

    for node in nodes:
        visit(node.name, ())
    used = _used(known, output)
    idle = [name for name in known if name not in used]
    if idle:
        raise InvalidInput(f"node {idle[0]!r} leads to no answer: feed it into {output!r}, or remove it")
    return list(ordered.values())


def _used(known: Mapping[str, Node], output: str) -> set[str]:
    found: set[str] = set()
    waiting = [output]
    while waiting:
        name = waiting.pop()
        if name not in found:
            found.add(name)
            waiting += needs(known[name])
    return found


def _faults(nodes: Sequence[Node], known: Mapping[str, Node], output: str) -> Iterator[str]:
    if not 1 <= len(nodes) <= NODES_MAX:
        yield f"{len(nodes)} nodes: a graph has 1 to {NODES_MAX}"
    if len(known) != len(nodes):
        yield "two nodes have the same name: name each once"
    if output not in known:
        yield f"output names a node {output!r}{nearest(output, known)}"
    for node in nodes:
        what = f"node {node.name!r}"
        if not _NAME.fullmatch(node.name):
            yield f"{what[:60]}: a name is made of a-z, 0-9, - and _, begins with a letter and has 32 characters at most"
        for one in needs(node):
            if one not in known:
                yield f"{what} needs a node {one!r}{nearest(one, known)}"
        if node.kind != "model":
            yield from (f"{what}: {said}" for said in _combiner_faults(node))


def _combiner_faults(node: Node) -> Iterator[str]:
    count = len(node.of)
    if count < 2 or len(set(node.of)) != count:
        yield f"{node.kind} combines two nodes or more, each once"
    if node.weights and len(node.weights) != count:
        yield f"{len(node.weights)} weights for {count} nodes: give one for each"
    if node.weights and not all(0 < weight < 1e9 for weight in node.weights):
        yield "weights must be numbers above 0: leave a node out instead of giving it none"
    if not 0 <= node.tolerate < max(1, count):
        yield f"tolerate is {node.tolerate}: at least one of {count} nodes must answer"
    if (node.kind == "first_confident") != (node.at is not None):
        yield "at is the confidence of first_confident, and of nothing else"
    if node.at is not None and not 0 < node.at <= 1:
        yield f"at is {node.at:g}: a confidence lies above 0 and is 1 at most"
