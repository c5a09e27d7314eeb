"""What can be said of a graph before any of its models is trained."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Final

import msgspec

from taut.core.errors import InvalidInput
from taut.core.graphs import Node, check_shape
from taut.project.manifest import GraphSpec, Manifest, ModelSpec
from taut.project.words import nearest

_OUTPUTS: Final = ("probability", "label", "value")
_GATES: Final = ("metric", "no_regression", "parity")
_RISKS: Final = ("low", "medium", "high")


class Answering(msgspec.Struct, frozen=True, kw_only=True):
    """What an endpoint's answers come from, as far as it is declared: of a model, or of a graph's models together."""

    name: str
    label: str
    request: tuple[str, ...]
    features: tuple[str, ...]
    risk: str


def answering(manifest: Manifest) -> dict[str, Answering]:
    """Return every model and every graph whose nodes are known, by name."""
    models = {spec.name: spec for spec in manifest.models}
    found = {
        spec.name: Answering(
            name=spec.name, label=spec.label, request=spec.request, features=spec.features, risk=spec.risk
        )
        for spec in manifest.models
    }
    for graph in manifest.graphs:
        own = [(node, models[node.model]) for node in graph.nodes if node.model in models]
        sent = [name for node, spec in own for name in spec.request if name not in node.inputs]
        label = labels(graph, models).get(graph.output)
        found[graph.name] = Answering(
            name=graph.name, label=label or "", request=tuple(dict.fromkeys(sent)),
            features=tuple(dict.fromkeys(name for _, spec in own for name in spec.features)), risk=graph.risk,
        )  # fmt: skip
    return found


def labels(graph: GraphSpec, models: Mapping[str, ModelSpec]) -> dict[str, str]:
    """Return what each node predicts, by name; a combiner what the first that it combines does."""
    found: dict[str, str] = {}
    try:
        ordered = check_shape(graph.nodes, graph.output)
    except InvalidInput:
        return found
    for node in ordered:
        first = models[node.model].label if node.model in models else ""
        found[node.name] = first if node.kind == "model" else found[node.of[0]]
    return found


def graph_faults(graph: GraphSpec, models: Mapping[str, ModelSpec]) -> Iterator[str]:
    """Yield what is wrong with a graph of declared models: its shape, its words, what its models are about."""
    if graph.name in models:
        yield "a model has this name: give the graph another"
    for rule in graph.gates:
        if rule.kind not in _GATES:
            yield f"gate {rule.kind} is for models: declare it of its nodes, a graph has {', '.join(_GATES)}"
    own = [node for node in graph.nodes if node.kind == "model"]
    for node in own:
        spec = models.get(node.model)
        if spec is None:
            yield f"node {node.name!r} is of no model {node.model!r}{nearest(node.model, models)}"
        else:
            yield from _fed(node, spec)
            if _RISKS.index(spec.risk) > _RISKS.index(graph.risk):
                yield f"its risk is {graph.risk}, that of its node {node.name!r} is {spec.risk}: it is no lower"
    try:
        ordered = check_shape(graph.nodes, graph.output)
    except InvalidInput as error:
        yield error.message
        return
    about = sorted({models[node.model].dataset for node in own if node.model in models})
    if len(about) > 1:
        yield f"its nodes are trained on {', '.join(about)}: what is measured together is about one dataset"
    found = labels(graph, models)
    for node in ordered:
        odd = [name for name in node.of if found[name] != found[node.of[0]]]
        if odd:
            yield (
                f"node {node.name!r}: {node.of[0]!r} predicts {found[node.of[0]]!r}, {odd[0]!r} predicts {found[odd[0]]!r}: "
                "only nodes that predict the same can be combined"
            )


def _fed(node: Node, spec: ModelSpec) -> Iterator[str]:
    for column, reference in node.inputs.items():
        _, dot, output = reference.partition(".")
        word = output.partition(".")[0]
        if column not in spec.request:
            yield f"node {node.name!r}: input {column!r} is no request column of {spec.name!r}{nearest(column, spec.request)}"
        if not dot or word not in _OUTPUTS:
            yield (
                f"node {node.name!r}: input {column!r} is {reference!r}{nearest(word or reference, _OUTPUTS)} "
                "Write NODE.probability, NODE.label or NODE.value"
            )
