"""Has anything changed since the reference? Bets on conformal p-values, row by row, that may be looked at at any time."""

from __future__ import annotations

from typing import Final

import msgspec
import numpy as np
import numpy.typing as npt

from taut.core.errors import InvalidInput
from taut.lifecycle.monitoring.cells import CELLS, Codes, Counts

Floats = npt.NDArray[np.float64]

ALARM: Final = 1e6
"""Evidence at which a change is said: by n rows without any, with a chance of at most n / ALARM."""
_BETS: Final = np.array([(0, 0), (1, 0), (-1, 0), (1.9, 0), (-1.9, 0), (0, 0.9), (0, -0.45)], dtype=float)
_JUMPS: Final = np.array([0.01, 0.001, 0.0001])
_KEEP: Final = (1 - _JUMPS)[:, None]
_SPREAD: Final = (_JUMPS / len(_BETS))[:, None]
_AT_ONCE: Final = 128
_BEFORE: Final = np.tri(_AT_ONCE, k=-1, dtype=np.bool_)
_MOST: Final = 1e100


class DetectorState(msgspec.Struct, frozen=True, kw_only=True):
    """All that a detector knows. counts: [columns, CELLS] of 8 bytes. weights: [columns, 3, 7], evidence: [columns, 3] doubles; peak: [columns]
    doubles."""

    rows: int
    counts: bytes
    weights: bytes
    evidence: bytes
    peak: bytes
    alarmed_row: int | None = None


class Detector:
    """Columns against their reference.

    counts: how often each cell occurred in reference rows that did not choose the cells, [columns, CELLS]. seed: of the random
    ties; with the number of the row it fixes them, so that a detector that resumes says the very same.

    For each column the conformal p-value p = (rows below + U · (rows equal + 1)) / (rows + 1) over reference and past stream is
    uniform and independent of those before, as long as rows are exchangeable with the reference. Bets on it, f(p) = 1 + a(p − ½) +
    b(12(p − ½)² − 1), are mixed by a Jumper that changes its bet with probability J, for three J; R = (1 + R)·s sums the
    wealth of gamblers who begin at each row. A change is said when the mean of R over columns and J reaches `alarm`.

    Guarantees: without any change P(alarm by row n) ≤ n / alarm, whatever the columns have to do with one another, since R − n is a
    martingale. Not guaranteed: anything for traffic whose rows are not exchangeable; in the order of time few are, which is why
    a change is shown and how large it is decides (`taut.lifecycle.monitoring.window`).
    Sources: Vovk et al., Retrain or not retrain: conformal test martingales for change-point detection, 2021; Shin, Ramdas &
    Rinaldo, E-detectors, 2024.
    """

    def __init__(self, counts: Counts, *, seed: int = 0, alarm: float = ALARM) -> None:
        if counts.ndim != 2 or counts.shape[1] != CELLS or not len(counts):
            raise InvalidInput(f"a reference is [columns, {CELLS}], not {counts.shape}: count its cells")
        columns = len(counts)
        self._counts = counts.astype(np.int64)
        self._weights: Floats = np.full((columns, len(_JUMPS), len(_BETS)), 1 / len(_BETS))
        self._evidence: Floats = np.zeros((columns, len(_JUMPS)))
        self._peak: Floats = np.zeros(columns)
        self._seed: Final = seed
        self._alarm: Final = alarm
        self.rows = 0
        self.alarmed_row: int | None = None

    @property
    def evidence(self) -> Floats:
        """Return by column the most that ever stood for a change, as a part of an alarm, which is a mean of 1 over columns.

        What stands for it now falls again when the change has become the past.
        """
        return np.asarray(self._peak / self._alarm)

    def observe(self, codes: Codes) -> None:
        """Take rows in their order: [n, columns] of cells."""
        for start in range(0, len(codes), _AT_ONCE):
            self._take(codes[start : start + _AT_ONCE])

    def state(self) -> DetectorState:
        """Return what `resume` goes on from."""
        return DetectorState(
            rows=self.rows, counts=self._counts.tobytes(), weights=self._weights.tobytes(),
            evidence=self._evidence.tobytes(), peak=self._peak.tobytes(), alarmed_row=self.alarmed_row,
        )  # fmt: skip

    def resume(self, state: DetectorState) -> None:
        """Go on where another detector of the same columns and seed was."""
        self._counts = np.frombuffer(state.counts, np.int64).reshape(self._counts.shape).copy()
        self._weights = np.frombuffer(state.weights).reshape(self._weights.shape).copy()
        self._evidence = np.frombuffer(state.evidence).reshape(self._evidence.shape).copy()
        self._peak = np.frombuffer(state.peak).copy()
        self.rows, self.alarmed_row = state.rows, state.alarmed_row

    def _take(self, codes: Codes) -> None:
        centred = self._p_values(codes) - 0.5
        linear, square = _BETS[:, 0], _BETS[:, 1]
        bets = 1 + linear * centred[..., None] + square * (12 * centred[..., None] ** 2 - 1)
        weights, evidence, enough = self._weights, self._evidence, self._alarm * self._evidence.size
        for at, bet in enumerate(bets):
            weights *= _KEEP
            weights += _SPREAD
            weights *= bet[:, None, :]
            won = weights.sum(axis=2)
            weights /= won[:, :, None]
            evidence += 1
            evidence *= won
            if self.alarmed_row is None and evidence.sum() >= enough:
                self.alarmed_row = self.rows + at + 1
                np.maximum(self._peak, evidence.mean(axis=1), out=self._peak)
        np.minimum(evidence, _MOST, out=evidence)  # enough for an alarm, and far from what overflows
        np.maximum(self._peak, evidence.mean(axis=1), out=self._peak)
        self.rows += len(codes)

    def _p_values(self, codes: Codes) -> Floats:
        """Return p-values of rows, [n, columns], each against the reference and all rows before it; then count them."""
        rows, columns = codes.shape
        every, before = np.arange(columns), _BEFORE[:rows, :rows, None]
        upto = np.cumsum(self._counts, axis=1)
        same = self._counts[every, codes]
        below = upto[every, codes] - same + ((codes[:, None] > codes[None]) & before).sum(axis=1)
        same = same + ((codes[:, None] == codes[None]) & before).sum(axis=1)
        total = upto[:, -1] + np.arange(rows)[:, None]
        random = np.random.Generator(np.random.Philox(key=self._seed, counter=[0, self.rows, 0, 0]))
        np.add.at(self._counts, (np.broadcast_to(every, codes.shape), codes), 1)
        return np.asarray((below + random.random((rows, columns)) * (same + 1)) / (total + 1))
