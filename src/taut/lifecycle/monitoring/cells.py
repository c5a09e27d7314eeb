"""Cells of a column: what a reference's values are counted in, and every value since."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Final, Literal

import msgspec
import numpy as np
import numpy.typing as npt

Codes = npt.NDArray[np.int16]
Counts = npt.NDArray[np.int64]
Kind = Literal["number", "word"]

CELLS: Final = 40
"""Cells of any column; most have fewer in use."""
MISSING: Final = CELLS - 1
NONFINITE: Final = CELLS - 2
UNSEEN: Final = CELLS - 3
INNER: Final = 32
_HEADS: Final = 30
_LEAST: Final = 5
_ENOUGH: Final = 100_000  # rows from which cuts are taken


class Cells(msgspec.Struct, frozen=True, kw_only=True):
    """How values of a column become cells.

    cuts: of a number, increasing: cell 0 lies below `low`, the next ones end at each cut, then up to `high`, then beyond it.
    words: those that are frequent enough to have a cell of their own, the most frequent first; a word that fewer than five
    rows had is not kept. All others share the cell `UNSEEN`; null and what is no finite number have theirs.
    """

    name: str
    kind: Kind
    cuts: tuple[float, ...] = ()
    low: float = 0.0
    high: float = 0.0
    words: tuple[str, ...] = ()

    @property
    def above(self) -> int:
        """The cell beyond the largest value of the reference."""
        return len(self.cuts) + 2

    def encode(self, values: Sequence[Any] | npt.NDArray[Any]) -> Codes:
        """Return the cell of each value: [n]. Of an array of numbers NaN is not finite; null can only be in a list."""
        return self._numbers(values) if self.kind == "number" else self._words(values)

    def _numbers(self, values: Sequence[Any] | npt.NDArray[Any]) -> Codes:
        missing = None
        if not isinstance(values, np.ndarray):
            missing = np.fromiter((value is None for value in values), np.bool_, len(values))
            values = np.array([_number(value) for value in values], dtype=np.float64)
        with np.errstate(invalid="ignore"):
            codes = (np.searchsorted(self.cuts, values, side="left") + 1).astype(np.int16)
            codes[values < self.low] = 0
            codes[values > self.high] = self.above
        codes[~np.isfinite(values)] = NONFINITE
        if missing is not None:
            codes[missing] = MISSING
        return codes

    def _words(self, values: Sequence[Any] | npt.NDArray[Any]) -> Codes:
        known: dict[str | None, int] = {word: at for at, word in enumerate(self.words)}
        known[None] = MISSING
        codes = [
            known.get(value, UNSEEN) if type(value) is str or value is None else known.get(str(value), UNSEEN)
            for value in values
        ]
        return np.array(codes, np.int16)

    def label(self, code: int) -> str:
        """Return a cell in words, for people."""
        if code in _SPECIAL:
            return _SPECIAL[code]
        if self.kind == "word":
            return self.words[code]
        bounds = (self.low, *self.cuts, self.high)
        if code == 0:
            return f"below {self.low:g}"
        if code == self.above:
            return f"above {self.high:g}"
        return f"{bounds[code - 1]:g} to {bounds[code]:g}"


_SPECIAL: Final = {MISSING: "null", NONFINITE: "not finite", UNSEEN: "rare or unseen"}


def cells_of(name: str, kind: Kind, values: Sequence[Any] | npt.NDArray[Any]) -> Cells:
    """Return the cells that a sample suggests: 32 of about the same number of rows, or one for each of 30 words."""
    if kind == "word":
        found: dict[str, int] = {}
        for value in values:
            if value is not None:
                found[str(value)] = found.get(str(value), 0) + 1
        heads = sorted(
            (word for word in found if found[word] >= _LEAST), key=lambda word: (-found[word], word)
        )
        return Cells(name=name, kind=kind, words=tuple(heads[:_HEADS]))
    if isinstance(values, np.ndarray):
        numbers = values.astype(np.float64)
    else:
        numbers = np.array([float(value) for value in values if value is not None], dtype=np.float64)
    numbers = numbers[np.isfinite(numbers)]
    if not len(numbers):
        return Cells(name=name, kind=kind)
    low, high = float(numbers.min()), float(numbers.max())
    numbers = numbers[:: -(-len(numbers) // _ENOUGH)]
    cuts = np.unique(np.quantile(numbers, np.arange(1, INNER) / INNER, method="inverted_cdf"))
    return Cells(name=name, kind=kind, cuts=tuple(cuts[cuts < high].tolist()), low=low, high=high)


def tally(codes: Codes) -> Counts:
    """Return how often each cell occurs: codes [n, columns] -> [columns, CELLS]."""
    columns = codes.shape[1]
    flat = codes.astype(np.int64) + CELLS * np.arange(columns)
    return np.bincount(flat.ravel(), minlength=columns * CELLS).reshape(columns, CELLS)


def _number(value: Any) -> float:
    return float("nan") if value is None else float(value)
