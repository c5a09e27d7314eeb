"""Scores that leave rounded, so that answers teach a copy of the model less; the record keeps them as they were."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

from taut.serving.runtime import Outputs
from taut.serving.snapshot import EndpointConfig


class Rounding:
    """By how much an endpoint's scores are rounded, for everybody and for those against whom abuse is held."""

    def __init__(self, *, everybody: int | None, suspects: frozenset[str], to: int | None) -> None:
        self._everybody: Final = everybody
        self._suspects: Final = suspects
        self._to: Final = to

    def rounded(self, outputs: Outputs, principal: str) -> Outputs:
        """Return what a caller is to see: probabilities with so many digits after the point, values with so many that count.

        Labels stay what they were: rounding the scores does not turn an answer. Of two probabilities the first is what the
        second leaves, so that they still sum to 1; of more each is rounded by itself.
        """
        digits = self._to if principal in self._suspects else self._everybody
        if digits is None:
            return outputs
        if outputs.probabilities:
            return Outputs(
                labels=outputs.labels, probabilities=[_row(row, digits) for row in outputs.probabilities]
            )
        return Outputs(values=[float(f"{value:.{max(digits, 1)}g}") for value in outputs.values])


def rounding_of(config: EndpointConfig) -> Rounding | None:
    """Return how an endpoint's scores are rounded at this epoch; None where nobody's are."""
    to = config.round_suspects
    if config.round_scores is None and (to is None or not config.suspects):
        return None
    if to is not None and config.round_scores is not None:
        to = min(to, config.round_scores)
    suspects = frozenset(config.suspects) if to is not None else frozenset()
    return Rounding(everybody=config.round_scores, suspects=suspects, to=to)


def _row(row: Sequence[float], digits: int) -> list[float]:
    if len(row) == 2:
        high = round(row[1], digits)
        return [round(1.0 - high, digits), high]
    return [round(p, digits) for p in row]
