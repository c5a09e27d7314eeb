"""Whether a key was seen before, in 16 bytes a row, over the rows that exist and those that arrive."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

import numpy as np
import numpy.typing as npt
import polars as pl

Hashes = npt.NDArray[np.uint64]

_SEEDS: Final = (0x5EED_0001, 0x5EED_9E37_79B9)


class SeenKeys:
    """A set of keys that only grows, each held as two 64-bit hashes.

    Two different keys are taken for one only when both hashes agree: about n² / 2¹²⁹ for n keys, 10⁻²⁴ for a hundred
    million. A key with a null in it is never a duplicate, as in SQL. Runs of sorted hashes are merged like a
    log-structured tree, so that n keys cost O(n log n) in all.
    """

    def __init__(self, columns: Sequence[str]) -> None:
        self.columns = tuple(columns)
        self._runs: list[tuple[Hashes, Hashes]] = []

    @property
    def name(self) -> str:
        """The rule that a duplicate breaks."""
        return f"{'+'.join(self.columns)}:unique"

    def __len__(self) -> int:
        return sum(first.size for first, _ in self._runs)

    def hash_exprs(self) -> tuple[pl.Expr, pl.Expr, pl.Expr]:
        """Return the two hashes of a key and whether it has no null, for a lazy scan."""
        key = pl.struct(self.columns)
        one, two = (key.hash(seed).alias(f"h{i}") for i, seed in enumerate(_SEEDS))
        return one, two, pl.all_horizontal(pl.col(c).is_not_null() for c in self.columns).alias("whole")

    def add_hashes(self, hashed: pl.DataFrame) -> None:
        """Add keys by what `hash_exprs` gave, without asking whether they were there."""
        whole = hashed.filter(pl.col("whole"))
        self._push(whole["h0"].to_numpy(), whole["h1"].to_numpy())

    def add(self, frame: pl.DataFrame) -> pl.Series:
        """Add a frame's keys; return a mask of rows whose key was there before, in the frame or earlier."""
        hashed = frame.select(self.hash_exprs())
        one, two = hashed["h0"].to_numpy(), hashed["h1"].to_numpy()
        whole = hashed["whole"].to_numpy()
        again = (
            self._known(one, two)
            | ~hashed.select(pl.struct("h0", "h1").is_first_distinct()).to_series().to_numpy()
        )
        again &= whole
        fresh = whole & ~again
        self._push(one[fresh], two[fresh])
        return pl.Series(self.name, again)

    def _known(self, one: Hashes, two: Hashes) -> npt.NDArray[np.bool_]:
        found = np.zeros(one.size, dtype=bool)
        for first, second in self._runs:
            at = np.searchsorted(first, one)
            inside = at < first.size
            at[~inside] = 0
            same = inside & (first[at] == one)
            hit = same & (second[at] == two)
            for row in np.flatnonzero(same & ~hit):  # several keys share the first hash: look at each
                place = int(at[row]) + 1
                while place < first.size and first[place] == one[row] and not hit[row]:
                    hit[row] = second[place] == two[row]
                    place += 1
            found |= hit
        return found

    def _push(self, one: Hashes, two: Hashes) -> None:
        if not one.size:
            return
        order = np.argsort(one, kind="stable")
        self._runs.append((one[order], two[order]))
        while len(self._runs) > 1 and self._runs[-2][0].size < 2 * self._runs[-1][0].size:
            last, before = self._runs.pop(), self._runs.pop()
            merged = np.concatenate([before[0], last[0]])
            order = np.argsort(merged, kind="stable")
            self._runs.append((merged[order], np.concatenate([before[1], last[1]])[order]))
