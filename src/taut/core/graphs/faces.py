"""What nodes give, what they may be fed with, and what a whole graph takes and gives."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Literal

import msgspec

from taut.core.errors import InvalidInput
from taut.core.graphs.plan import Node, check_shape
from taut.core.schema import Column, DType, FeatureLookup, ModelInput, ModelSignature
from taut.core.words import nearest

Label = str | int | bool


class Face(msgspec.Struct, frozen=True):
    """What a node gives: probabilities of these classes in this order, or a value."""

    output: Literal["probability", "value"]
    classes: tuple[Label, ...] = ()

    @property
    def outputs(self) -> tuple[str, ...]:
        """The words after the dot of a reference to the node."""
        if self.output == "value":
            return ("value",)
        if len(self.classes) == 2:
            return ("probability", "label")
        return (*(f"probability.{label}" for label in self.classes), "label")

    def same_as(self, other: Face) -> bool:
        """Whether both give the same classes, in whatever order, or a value each."""
        return self.output == other.output and sorted(map(_kind, self.classes)) == sorted(
            map(_kind, other.classes)
        )


def _kind(label: Label) -> tuple[str, str]:
    return type(label).__name__, str(label)  # True equals 1 to Python, and is another class


def face_of(signature: ModelSignature) -> Face:
    return Face(signature.output, signature.classes)


def faces(nodes: Sequence[Node], given: Mapping[str, Face]) -> dict[str, Face]:
    """Return what every node gives. given: of the nodes that are models.

    Raises InvalidInput for combiners of nodes that do not give the same.
    """
    found: dict[str, Face] = {}
    for node in nodes:
        if node.kind == "model":
            found[node.name] = given[node.name]
            continue
        first = found[node.of[0]]
        for name in node.of[1:]:
            if not first.same_as(found[name]):
                raise InvalidInput(
                    f"node {node.name!r}: {node.of[0]!r} gives {_said(first)}, {name!r} gives {_said(found[name])}: only "
                    "nodes that give the same can be combined"
                )
        if node.kind != "average" and first.output != "probability":
            raise InvalidInput(
                f"node {node.name!r}: {node.kind} needs classifiers, {node.of[0]!r} gives a value: use average"
            )
        found[node.name] = first
    return found


def _said(face: Face) -> str:
    return (
        "a value"
        if face.output == "value"
        else f"probabilities of {', '.join(repr(one) for one in face.classes)}"
    )


def fed_output(reference: str, found: Mapping[str, Face], *, where: str) -> tuple[str, DType]:
    """Return what of a node a reference names, and its type. Raises InvalidInput with the nearest that there is."""
    name, _, output = reference.partition(".")
    face = found[name]
    if output not in face.outputs:
        raise InvalidInput(f"{where}: {name!r} gives no {output!r}{nearest(output, face.outputs)}")
    if output != "label":
        return output, DType.FLOAT
    kinds = {type(label) for label in face.classes}
    return output, {bool: DType.BOOL, int: DType.INT}.get(kinds.pop(), DType.STRING) if len(
        kinds
    ) == 1 else DType.STRING


def graph_signature(
    nodes: Sequence[Node], output: str, signatures: Mapping[str, ModelSignature]
) -> ModelSignature:
    """Return what a graph takes and gives: each request column and each feature set of its nodes once.

    signatures: of the nodes that are models. Raises InvalidInput where nodes disagree about a column, or are fed what
    they do not take.
    """
    ordered = check_shape(nodes, output)
    found = faces(ordered, {name: face_of(signature) for name, signature in signatures.items()})
    models = [node for node in nodes if node.kind == "model"]
    for node in models:
        for said in _feed_faults(node, signatures[node.name], found):
            raise InvalidInput(f"node {node.name!r}: {said}")
    lookups = _lookups(models, signatures)
    request = _request(models, signatures)
    inputs = _inputs(models, signatures)
    times = {signatures[node.name].event_time for node in models} - {None}
    if len(times) > 1:
        raise InvalidInput(f"nodes ask about different times, {', '.join(sorted(map(str, times)))}")
    time = times.pop() if times else None
    face = found[output]
    if time is not None:
        request[time] = request.pop(time)  # the optional time is the last column of a request
    return ModelSignature(
        request=tuple(request.values()), inputs=tuple(inputs.values()), lookups=tuple(lookups.values()),
        event_time=time, output=face.output, classes=face.classes, tensor="columns", form="graph",
    )  # fmt: skip


def _feed_faults(node: Node, own: ModelSignature, found: Mapping[str, Face]) -> Iterator[str]:
    request = {column.name: column for column in own.request}
    keys = {key for lookup in own.lookups for key in lookup.keys}
    for name, reference in node.inputs.items():
        if name not in request:
            yield f"input {name!r} is no request column of {node.model}{nearest(name, request)}"
            return
        if name in keys or name == own.event_time:
            yield f"input {name!r} finds features, which are looked up before any node is asked: it must be sent"
            return
        _, dtype = fed_output(reference, found, where=f"node {node.name!r}, input {name!r}")
        wanted = request[name].dtype
        if dtype is not wanted and (dtype, wanted) != (DType.INT, DType.FLOAT):
            yield (
                f"input {name!r} of {node.model} is {wanted}, {reference!r} gives {dtype}: feed it a node that gives "
                f"{wanted}"
            )


def _request(models: Sequence[Node], signatures: Mapping[str, ModelSignature]) -> dict[str, Column]:
    request: dict[str, Column] = {}
    for node in models:
        for column in signatures[node.name].request:
            if column.name not in node.inputs:
                _join(request, column, node.name)
    return request


def _inputs(models: Sequence[Node], signatures: Mapping[str, ModelSignature]) -> dict[str, ModelInput]:
    columns: dict[str, Column] = {}
    sets: dict[str, str | None] = {}
    for node in models:
        for item in signatures[node.name].inputs:
            name = item.column.name
            if name in node.inputs:
                continue
            if sets.setdefault(name, item.feature_set) != item.feature_set:
                one, other = (
                    "sent" if given is None else f"of feature set {given!r}"
                    for given in (sets[name], item.feature_set)
                )
                raise InvalidInput(f"node {node.name!r}: column {name!r} is {other}, for another node {one}")
            _join(columns, item.column, node.name)
    return {name: ModelInput(column=column, feature_set=sets[name]) for name, column in columns.items()}


def _join(columns: dict[str, Column], column: Column, node: str) -> None:
    """Note a column; null is legal only where every node takes it."""
    before = columns.setdefault(column.name, column)
    if before.dtype is not column.dtype:
        raise InvalidInput(
            f"node {node!r} takes {column.name!r} as {column.dtype}, another as {before.dtype}: train both on one type"
        )
    columns[column.name] = msgspec.structs.replace(before, nullable=before.nullable and column.nullable)


def _lookups(models: Sequence[Node], signatures: Mapping[str, ModelSignature]) -> dict[str, FeatureLookup]:
    """Return one look-up a feature set, with the shortest age that any node allows."""
    found: dict[str, FeatureLookup] = {}
    for node in models:
        for lookup in signatures[node.name].lookups:
            before = found.setdefault(lookup.feature_set, lookup)
            if (before.entity, before.keys) != (lookup.entity, lookup.keys):
                raise InvalidInput(
                    f"node {node.name!r} looks {lookup.feature_set!r} up by {', '.join(lookup.keys)}, another node by "
                    f"{', '.join(before.keys)}: a graph looks a set up once"
                )
            ages = [age for age in (before.max_age_s, lookup.max_age_s) if age is not None]
            found[lookup.feature_set] = msgspec.structs.replace(before, max_age_s=min(ages, default=None))
    return found
