"""Rows by which two devices are compared: made from the signature alone, and such that the CPU answers them."""

from __future__ import annotations

import datetime as dt
import random
from collections.abc import Sequence
from typing import Any, Final

import numpy as np
import numpy.typing as npt

from taut.core.errors import TautError
from taut.core.schema import Column, DType, ModelSignature
from taut.serving.runtime import Feed, LoadedModel, Value

ROWS: Final = 32
_SEED: Final = 20  # the same rows in every process, so that two workers judge alike
_RELATIVE: Final = 1e-3
_ABSOLUTE: Final = 1e-4
_DAY: Final = dt.date(2024, 2, 29)
_TIME: Final = dt.datetime(2024, 2, 29, 12, tzinfo=dt.UTC)


class Golden:
    """Rows with the CPU's answers to them. count: how many; 0 where it answers none of them.

    feed, answers: of all of them.
    """

    def __init__(self, reference: LoadedModel) -> None:
        rows = [row for row in _rows(reference.signature) if _answered(reference, [row])]
        self.count: Final = len(rows)
        self.feed: Final[Feed | None] = _feed(reference, rows) if rows else None
        self.answers: Final = None if self.feed is None else reference.raw(self.feed)

    def differs(self, model: LoadedModel) -> str:
        """Return how a model on another device answers otherwise; "" where it does not.

        Tolerance: 1e-4 + 1e-3 of the CPU's value: sums in another order, no more. Raises BadAnswer where it answers
        nothing.
        """
        if self.feed is None or self.answers is None:
            return "the CPU answers no row that both could be compared by"
        return far_apart(model.raw(self.feed), self.answers, other="the CPU")


def far_apart(found: npt.NDArray[Any], wanted: npt.NDArray[Any], *, other: str = "those before it") -> str:
    """Return how answers differ from those that they are held against, of `other`; nothing within the tolerance."""
    if found.shape != wanted.shape:
        return f"it answers shape {found.shape}, {other} {wanted.shape}"
    if np.allclose(found, wanted, rtol=_RELATIVE, atol=_ABSOLUTE, equal_nan=True):
        return ""
    return f"it answers otherwise than {other}, by {_worst(found, wanted):.3g} at most"


def golden_rows(signature: ModelSignature, count: int = ROWS) -> list[list[Value]]:
    """Return the first rows that every process makes alike of a signature; the first of them is of plain values."""
    return _rows(signature)[:count]


def _worst(found: npt.NDArray[Any], wanted: npt.NDArray[Any]) -> float:
    with np.errstate(invalid="ignore"):
        gaps = np.abs(found.astype(np.float64) - wanted.astype(np.float64))
    return float("nan") if np.isnan(gaps).all() else float(np.nanmax(gaps))


def _rows(signature: ModelSignature) -> list[list[Value]]:
    dice = random.Random(_SEED)  # noqa: S311 - rows to compare by, no secret
    columns = [item.column for item in signature.inputs]
    return [[_value(column, at, dice) for column in columns] for at in range(ROWS)]


def _value(column: Column, at: int, dice: random.Random) -> Value:
    """Return a plain value in the first row, small ones in half of the others, and large ones."""
    if column.nullable and at % 8 == 7:
        return None
    scale = 0.0 if at == 0 else 1.0 if at % 2 else 1000.0
    match column.dtype:
        case DType.BOOL:
            return dice.random() < scale / 2
        case DType.INT:
            return int(dice.uniform(0, 10) * scale)
        case DType.FLOAT:
            return dice.gauss(0, 1) * scale
        case DType.STRING:
            return "" if at == 0 else dice.choice(["a", "b", "AA", "yes", "no", "1"])
        case DType.DATE:
            return _DAY + dt.timedelta(days=int(dice.uniform(-1, 1) * scale))
        case DType.DATETIME:
            return _TIME + dt.timedelta(hours=dice.uniform(-1, 1) * scale)


def _feed(model: LoadedModel, rows: Sequence[Sequence[Value]]) -> Feed:
    return model.encode(rows if model.row_major else list(map(list, zip(*rows, strict=True))))


def _answered(model: LoadedModel, rows: Sequence[Sequence[Value]]) -> bool:
    try:
        model.raw(_feed(model, rows))
    except TautError:
        return False
    return True
