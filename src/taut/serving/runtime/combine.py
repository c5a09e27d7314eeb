"""How answers of several nodes become one: weighted means, weighted votes."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, Final

import numpy as np
import numpy.typing as npt

from taut.core.graphs import Face, Node
from taut.core.schema import ModelSignature
from taut.serving.runtime.outputs import Label, Outputs, output_checker

Array = npt.NDArray[Any]
_NO_COLUMNS: Final = ()


class Combiner:
    """Combines what nodes said about the same rows. face: what it gives; members: what each of `of` gives.

    An average weighs probabilities class by class, or values; a vote gives each class the share of the weights of those
    nodes whose label it is (Wolpert and Macready would call neither better: measure them).
    Where nodes are left out, the weights of the others are scaled to sum to 1.
    """

    def __init__(self, node: Node, face: Face, members: Sequence[Face]) -> None:
        self._node: Final = node
        self._classes: Final = face.classes
        self._orders: Final = [_order(face, member) for member in members]
        weights = node.weights or (1.0,) * len(node.of)
        self._weights: Final = np.array(weights, dtype=np.float64)
        self.check: Final = checker(face)

    def combine(self, said: Sequence[Outputs | None]) -> Outputs:
        """Return one answer a row. said: of each of `of`, None for one that is left out; one at least is there."""
        there = [at for at, one in enumerate(said) if one is not None]
        answers = [one for one in said if one is not None]
        weights = self._weights[there] / self._weights[there].sum()
        if not self._classes:
            values = np.array([one.values for one in answers], dtype=np.float64)
            return self.check(weights @ values, values.shape[1])
        take = self._votes if self._node.kind == "vote" else self._shares
        total = sum(weight * take(one, at) for weight, one, at in zip(weights, answers, there, strict=True))
        assert isinstance(total, np.ndarray)
        return self.check(total, len(total))

    def aligned(self, said: Outputs, at: int) -> Sequence[Sequence[float]]:
        """Return the probabilities of member `at`, in the order of this node's classes."""
        order = self._orders[at]
        if order is None:
            return said.probabilities
        return [[row[index] for index in order] for row in said.probabilities]

    def _shares(self, said: Outputs, at: int) -> Array:
        shares = np.array(said.probabilities, dtype=np.float64)
        order = self._orders[at]
        return shares if order is None else shares[:, order]

    def _votes(self, said: Outputs, at: int) -> Array:
        shares = self._shares(said, at)
        votes = np.zeros_like(shares)
        votes[np.arange(len(shares)), shares.argmax(axis=1)] = 1.0
        return votes


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
