"""What a graph should say, worked out node by node: what its serving form is compared with before anybody relies on it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from taut.core.graphs import Face, GraphPlan, Node, face_of, faces
from taut.serving.runtime.loaded import LoadedModel
from taut.serving.runtime.score import score_rows

Array = npt.NDArray[Any]
Row = Mapping[str, object]


def reference(plan: GraphPlan, models: Mapping[str, LoadedModel], rows: Sequence[Row]) -> Array:
    """Return what the graph says about rows: probabilities `[n, classes]`, or values `[n]`.

    Every node is asked about every row by itself, as its own endpoint would be, and the answers are put together column by
    column: none of the code that serves graphs is used, so that an error in it shows.
    rows: request columns and features by name, as for `score_rows`.
    """
    known = faces(plan.nodes, {name: face_of(pin.signature) for name, pin in plan.pins.items()})
    said: dict[str, Array] = {}
    for node in plan.nodes:
        if node.kind == "model":
            fed = {column: _fed(said, known, one) for column, one in node.inputs.items()}
            given = [
                {**row, **{column: values[at] for column, values in fed.items()}}
                for at, row in enumerate(rows)
            ]
            outputs = score_rows(models[node.name], given)
            said[node.name] = np.asarray(outputs.probabilities or outputs.values, dtype=np.float64)
        else:
            said[node.name] = _together(
                node, [_like(known[node.name], known[name], said[name]) for name in node.of]
            )
    return said[plan.output]


def _fed(said: Mapping[str, Array], known: Mapping[str, Face], given: str) -> list[Any]:
    source, _, output = given.partition(".")
    answers, classes = said[source], known[source].classes
    if output == "value":
        return list(answers.tolist())
    if output == "label":
        return [classes[at] for at in answers.argmax(axis=1)]
    at = 1 if output == "probability" else [str(label) for label in classes].index(output.partition(".")[2])
    return list(answers[:, at].tolist())


def _like(wanted: Face, given: Face, answers: Array) -> Array:
    """Put columns into the order of the wanted classes."""
    if not wanted.classes:
        return answers
    names = [repr(label) for label in given.classes]
    return answers[:, [names.index(repr(label)) for label in wanted.classes]]


def _together(node: Node, answers: Sequence[Array]) -> Array:
    if node.kind == "first_confident":
        found = answers[-1]
        for one in reversed(answers[:-1]):
            found = np.where(one.max(axis=1, keepdims=True) >= node.at, one, found)
        return found
    if node.kind == "vote":
        answers = [np.eye(one.shape[1])[one.argmax(axis=1)] for one in answers]
    weighted: Array = np.average(np.stack(answers), axis=0, weights=node.weights or None)
    return weighted
