"""How answers of several nodes become one: weighted means, weighted votes."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import Any, Final

import numpy as np
import numpy.typing as npt

from taut.core.graphs import Face, Node
from taut.core.schema import ModelSignature
from taut.serving.runtime.outputs import Label, Outputs, output_checker

Array = npt.NDArray[Any]
_NO_COLUMNS: Final = ()
_FEW_ROWS: Final = 32


class Combiner:
    """Combines what nodes said about the same rows. face: what it gives; members: what each of `of` gives.

    An average weighs probabilities class by class, or values; a vote gives each class the share of the weights of those
    nodes whose label it is (Wolpert and Macready would call neither better: measure them).
    Where nodes are left out, the weights of the others are scaled to sum to 1.
    """

    def __init__(self, node: Node, face: Face, members: Sequence[Face]) -> None:
        self._votes: Final = node.kind == "vote"
        self._classes: Final = face.classes
        self._orders: Final = [_order(face, member) for member in members]
        self._weights: Final = node.weights or (1.0,) * len(node.of)
        self.check: Final = checker(face)

    def combine(self, said: Sequence[Outputs | None]) -> Outputs:
        """Return one answer a row. said: of each of `of`, None for one that is left out; one at least is there."""
        there = [(at, one) for at, one in enumerate(said) if one is not None]
        total = sum(self._weights[at] for at, _ in there)
        weighed = [(self._weights[at] / total, one, at) for at, one in there]
        count = len(weighed[0][1].values) or len(weighed[0][1].probabilities)
        return self._few(weighed) if count <= _FEW_ROWS else self._many(weighed)

    def _few(self, weighed: Sequence[tuple[float, Outputs, int]]) -> Outputs:
        """Combine in plain Python, which for a few rows takes a fraction of what numpy does.

        Means of what was checked are finite and sum to 1 as what they were made from, so they are not checked again.
        """
        if not self._classes:
            columns = zip(
                *[[weight * value for value in one.values] for weight, one, _ in weighed], strict=True
            )
            return Outputs(values=[sum(column) for column in columns])
        told = []
        for weight, one, at in weighed:
            rows = self.aligned(one, at)
            told.append(
                [[weight * share for share in row] for row in (_ballots(rows) if self._votes else rows)]
            )
        rows = [[sum(shares) for shares in zip(*row, strict=True)] for row in zip(*told, strict=True)]
        return Outputs(labels=[self._classes[row.index(max(row))] for row in rows], probabilities=rows)

    def _many(self, weighed: Sequence[tuple[float, Outputs, int]]) -> Outputs:
        if not self._classes:
            values = sum(weight * np.array(one.values, dtype=np.float64) for weight, one, _ in weighed)
            return self.check(np.asarray(values), len(weighed[0][1].values))
        total = np.zeros((len(weighed[0][1].probabilities), len(self._classes)))
        for weight, one, at in weighed:
            shares = np.array(self.aligned(one, at), dtype=np.float64)
            if self._votes:
                shares = np.eye(shares.shape[1])[shares.argmax(axis=1)]
            total += weight * shares
        return self.check(total, len(total))

    def aligned(self, said: Outputs, at: int) -> Sequence[Sequence[float]]:
        """Return the probabilities of member `at`, in the order of this node's classes."""
        order = self._orders[at]
        if order is None:
            return said.probabilities
        return [[row[index] for index in order] for row in said.probabilities]


def _ballots(rows: Sequence[Sequence[float]]) -> Iterator[list[float]]:
    """Yield 1 for the likeliest class of each row, the first of equals, and 0 for the others."""
    for row in rows:
        best = row.index(max(row))
        yield [1.0 if at == best else 0.0 for at in range(len(row))]


def _order(face: Face, member: Face) -> list[int] | None:
    """Return where the classes of `face` stand among a member's; None where they already are in order."""
    places = [_place(member.classes, label) for label in face.classes]
    return None if places == list(range(len(places))) else places


def _place(classes: Sequence[Label], label: Label) -> int:
    return next(at for at, one in enumerate(classes) if type(one) is type(label) and one == label)


def checker(face: Face) -> Callable[[Array, int], Outputs]:
    """Return the response gate of what a node gives: (tensor, rows) -> Outputs, raising BadAnswer."""
    return output_checker(
        ModelSignature(request=_NO_COLUMNS, inputs=_NO_COLUMNS, output=face.output, classes=face.classes)
    )


def fed(said: Outputs, output: str, face: Face) -> list[Any]:
    """Return what of an answer another node is fed with, a value a row. output: as `Face.outputs` names them."""
    if output == "value":
        return list(said.values)
    if output == "label":
        return list(said.labels)
    at = 1 if output == "probability" else [f"probability.{label}" for label in face.classes].index(output)
    return [row[at] for row in said.probabilities]
