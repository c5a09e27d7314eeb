"""The space of requests: rows as points, so that it can be said how far two of them are apart."""

from __future__ import annotations

import math
import zlib
from collections.abc import Sequence
from typing import Any, Final

import numpy as np
import numpy.typing as npt

Floats = npt.NDArray[np.float64]
Row = Sequence[Any]

_QUANTILES: Final = 257
_BEYOND: Final = 0.5  # of the range, for a number that lies one range out
_ABSENT: Final = -2.0
_UNSEEN: Final = 2**20
_UNIQUE: Final = 0.9
_MOST: Final = 64


class Space:
    """Points of rows as training had them: of their first 64 columns, but for words that are nearly all different, which are keys.

    A number becomes its rank among the training rows, from 0 to 1, beyond their range up to 1 further out; a word its own
    code. Two rows are apart by the sum over columns of the difference of ranks, at most 1, or 1 for another word or an
    absent value (Gower 1971).
    """

    def __init__(self, columns: Sequence[str], rows: Sequence[Row]) -> None:
        self.columns: Final = tuple(columns)
        at_words: list[int] = []
        at_numbers: list[int] = []
        self._grids: Final[dict[int, Floats]] = {}
        self._codes: Final[dict[int, dict[str, int]]] = {}
        for at in range(len(columns)):
            values = [row[at] for row in rows]
            if all(_is_number(value) for value in values if value is not None):
                numbers = np.array([float(value) for value in values if value is not None] or [0.0])
                self._grids[at] = np.quantile(numbers, np.linspace(0.0, 1.0, _QUANTILES))
                at_numbers.append(at)
                continue
            found = sorted({str(value) for value in values if value is not None})
            if len(found) <= _UNIQUE * len(values):
                self._codes[at] = {word: code for code, word in enumerate(found)}
                at_words.append(at)
        self.positions: Final = tuple(sorted(at_numbers + at_words)[:_MOST])
        self.is_word: Final = np.array([at in self._codes for at in self.positions], dtype=np.bool_)

    def __len__(self) -> int:
        """Return how many columns make a point."""
        return len(self.positions)

    def points(self, rows: Sequence[Row]) -> Floats:
        """Return [n, columns]: ranks, codes of words from 0 on, of words that training never saw from 2**20 on."""
        found = np.empty((len(rows), len(self.positions)))
        for to, at in enumerate(self.positions):
            if at in self._codes:
                codes = self._codes[at]
                found[:, to] = [_code(codes, row[at]) for row in rows]
            else:
                found[:, to] = _ranks(self._grids[at], [_number(row[at]) for row in rows])
        return found

    def apart(self, one: Floats, other: Floats) -> Floats:
        """Return how far points are apart column by column; the arguments are broadcast."""
        gap = np.abs(one - other)
        return np.where(self.is_word, gap != 0.0, np.minimum(gap, 1.0))

    def unseen(self, points: Floats) -> npt.NDArray[np.bool_]:
        """Return for each point and column whether it holds a word that training never saw."""
        return np.asarray(self.is_word & (points >= _UNSEEN))

    def bins(self, points: Floats, parts: int) -> npt.NDArray[np.int64]:
        """Return for each point and column a bin: words by their code, ranks in so many parts."""
        cut = np.clip(np.floor(points * parts), -1, parts)
        return np.where(self.is_word, np.minimum(points, _UNSEEN), cut).astype(np.int64)


def _is_number(value: object) -> bool:
    return isinstance(value, int | float)


def _number(value: Any) -> float:
    return float(value) if _is_number(value) else math.nan


def _code(codes: dict[str, int], value: object) -> float:
    if value is None:
        return _ABSENT
    word = str(value)
    code = codes.get(word)
    return float(_UNSEEN + zlib.crc32(word.encode("utf-8", "surrogatepass")) if code is None else code)


def _ranks(grid: Floats, values: Sequence[float]) -> Floats:
    numbers = np.array(values)
    ranks = np.interp(numbers, grid, np.linspace(0.0, 1.0, len(grid)))
    width = (grid[-1] - grid[0]) or 1.0
    out = np.maximum(numbers - grid[-1], 0.0) / width - np.maximum(grid[0] - numbers, 0.0) / width
    ranks = ranks + 2 * _BEYOND * out / (1 + np.abs(out))  # never equal for two numbers, however far out
    return np.asarray(np.where(np.isnan(numbers), _ABSENT, ranks))
