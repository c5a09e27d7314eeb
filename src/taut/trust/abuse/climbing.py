"""Hill climbing: queries that go back to the best answer so far whenever the last one was worse."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Final

import numpy as np

from taut.trust.abuse.space import Floats, Space

_RUNS: Final = 4
_SAME: Final = 1e-9
_MARGIN: Final = 1e-9


class _Run:
    """A search under way: the best query so far and its score, the one that it took the place of, the last one."""

    __slots__ = ("best", "last", "score", "superseded")

    def __init__(self, row: list[float], score: float) -> None:
        self.best = row
        self.score = score
        self.superseded: list[float] | None = None
        self.last = row


class Climb:
    """Follows up to four searches of one caller at once, in one direction of the score.

    A query belongs to the search whose best query differs from it in few columns: two, or a third of them. It is a trial when
    the query before it was worse than the best, and the best has taken the place of another. It follows the climb when it is
    nearer to the best than to the last one, and nearer than to the one that was best before. Who chooses queries without
    regard to the answers does so at most every other time, since then it does not matter which of them scored higher;
    who climbs nearly always.
    """

    def __init__(self, space: Space) -> None:
        self._is_word: Final = space.is_word.tolist()
        self._columns: Final = max(2, len(space) // 3) if len(space) > 2 else 1
        self._runs: Final[list[_Run]] = []

    def follow(self, points: Floats, scores: Sequence[float]) -> Floats:
        """Return for each query whether it follows a climb; NaN where it is no trial."""
        return np.array([self._one(row, score) for row, score in zip(points.tolist(), scores, strict=True)])

    def _one(self, row: list[float], score: float) -> float:
        run = next((run for run in self._runs if self._differ(row, run.best) <= self._columns), None)
        if run is None:
            if len(self._runs) >= _RUNS:
                del self._runs[0]  # the one that was followed longest ago
            self._runs.append(_Run(row, score))
            return math.nan
        self._runs.remove(run)
        self._runs.append(run)
        if row in (run.best, run.last):
            return math.nan
        z = math.nan
        if run.superseded is not None and run.last is not run.best:
            away = self._apart(row, run.best) + _MARGIN
            z = float(away < self._apart(row, run.last) and away < self._apart(row, run.superseded))
        if score > run.score + _SAME:
            run.superseded, run.best, run.score = run.best, row, score
            run.last = run.best
        else:
            run.last = row
        return z

    def _differ(self, one: list[float], other: list[float]) -> int:
        return sum(a != b for a, b in zip(one, other, strict=True))

    def _apart(self, one: list[float], other: list[float]) -> float:
        return sum(
            float(a != b) if word else min(abs(a - b), 1.0)
            for a, b, word in zip(one, other, self._is_word, strict=True)
        )
