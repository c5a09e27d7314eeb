"""Is a share larger than what is tolerated? Bets that may be looked at at any time, whatever rows have to do with one another."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

import numpy as np
import numpy.typing as npt

from taut.core.errors import InvalidInput

ALARM: Final = 1e6
"""Evidence at which a share is too large: by n looks at a tolerable one, with a chance of at most n / ALARM."""
_PARTS: Final = np.array([0.02, 0.05, 0.1, 0.25, 0.5, 0.75])
_MOST: Final = 1e100


class ShareWatch:
    """Several shares, each against its own bound.

    bounds: the largest tolerable share of bad rows, 0 < bound < 1, each.

    A gambler who stakes a part λ against a bound b has won 1 + λ(x − b) after a row, x being 1 for a bad one: on average no gain
    as long as, whatever came before, the chance of a bad row is at most b. R = (1 + R)·won sums gamblers who begin at each look;
    several λ are averaged. `alarmed` when that reaches ALARM.

    Guarantees: P(alarm by look n) ≤ n / ALARM where at each row the chance of a bad one, given all rows before, is at most the bound;
    rows need not be independent. It is never too early, and never late by much: against a share of twice a bound of 2% about 1,500 rows.
    Sources: Waudby-Smith & Ramdas, Estimating means of bounded random variables by betting, 2024; Podkopaev & Ramdas, Tracking the
    risk of a deployed model, 2022; Shin, Ramdas & Rinaldo, E-detectors, 2024.
    """

    def __init__(self, bounds: Sequence[float], evidence: bytes = b"") -> None:
        self.bounds: Final = np.asarray(bounds, dtype=np.float64)
        if self.bounds.ndim != 1 or not ((self.bounds > 0) & (self.bounds < 1)).all():
            raise InvalidInput(f"a bound of a share lies between 0 and 1: {list(bounds)} does not")
        stakes = _PARTS / self.bounds[:, None]  # at most a part of what a good row costs
        self._bad: Final = np.log1p(stakes * (1 - self.bounds[:, None]))
        self._good: Final = np.log1p(-_PARTS)
        shape = (len(self.bounds), len(_PARTS))
        self._evidence: npt.NDArray[np.float64] = (
            np.frombuffer(evidence).reshape(shape).copy() if evidence else np.zeros(shape)
        )

    def observe(self, bad: npt.NDArray[np.int64], rows: npt.NDArray[np.int64] | int) -> None:
        """Take what a look counted: bad rows of all rows, a number for each share."""
        good = np.asarray(rows) - bad
        won = np.asarray(bad)[:, None] * self._bad + np.asarray(good)[:, None] * self._good
        self._evidence = np.minimum((self._evidence + 1) * np.exp(np.minimum(won, 500.0)), _MOST)

    @property
    def evidence(self) -> npt.NDArray[np.float64]:
        """Return what stands against each share, as a part of an alarm."""
        return np.asarray(self._evidence.mean(axis=1) / ALARM)

    @property
    def alarmed(self) -> npt.NDArray[np.bool_]:
        """Return which shares are too large by now; one that has become tolerable again is let go, row by row."""
        return np.asarray(self.evidence >= 1)

    def state(self) -> bytes:
        """Return what a watch of the same bounds goes on from."""
        return self._evidence.tobytes()
