"""What moved one answer: shares of the inputs that add up to it."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, Final

import msgspec
import numpy as np
import numpy.typing as npt
import polars as pl

Array = npt.NDArray[Any]
ORDERS: Final = 128
_ROWS_MAX: Final = 20_000


class Share(msgspec.Struct, frozen=True, kw_only=True):
    """How far one input moved the answer, and the standard error that sampling leaves of it."""

    name: str
    moved: float
    error: float


class Attribution(msgspec.Struct, frozen=True, kw_only=True):
    """base: the mean answer to the rows that it is compared with. answer: to this row. shares: the furthest first.

    The shares and the base add up to the answer exactly, whatever the sample.
    """

    base: float
    answer: float
    shares: tuple[Share, ...]
    rows: int  # that the model was asked about


def attribute(
    ask: Callable[[pl.DataFrame], Array],
    row: pl.DataFrame,
    background: pl.DataFrame,
    inputs: Sequence[str],
    *,
    seed: int,
    orders: int = ORDERS,
) -> Attribution:
    """Return Shapley values of the inputs, estimated over random orders of them.

    ask: returns one figure for each row. row: one. background: what the inputs are compared with, rows of the same columns.
    In each order the inputs of a background row become those of `row` one after the other, and each is given what the answer
    moves by then; orders come in pairs, one the reverse of the other. The estimates are unbiased; an input that is unlike the
    background's in company with others makes rows that never occur, and the model's answers to those count too.
    Source: Shapley 1953; Štrumbelj and Kononenko 2014; pairs as Mitchell et al. 2022.
    """
    random = np.random.default_rng(seed)
    count = max(2, min(orders, _ROWS_MAX // (len(inputs) + 1)) // 2 * 2)
    places = np.repeat(random.integers(0, background.height, count // 2), 2)
    walks = [random.permutation(len(inputs)) for _ in range(count // 2)]
    ways = np.array([one for walk in walks for one in (walk, walk[::-1])])
    position = np.argsort(ways, axis=1)  # [orders, inputs]: when each input is exchanged
    step = np.arange(len(inputs) + 1)
    chosen = background[np.repeat(places, len(step)).tolist()]
    exchanged = position[:, None, :] < step[None, :, None]  # [orders, steps, inputs]
    mixed = chosen.with_columns(
        pl.when(pl.Series(exchanged[:, :, at].reshape(-1)))
        .then(pl.lit(row[name][0], dtype=chosen[name].dtype))
        .otherwise(pl.col(name))
        .alias(name)
        for at, name in enumerate(inputs)
    )
    said = np.asarray(ask(mixed), dtype=np.float64).reshape(count, len(step))
    moves = np.take_along_axis(np.diff(said, axis=1), position, axis=1)
    pairs = moves.reshape(count // 2, 2, len(inputs)).mean(axis=1)
    errors = pairs.std(axis=0, ddof=1) / np.sqrt(len(pairs)) if len(pairs) > 1 else np.full(len(inputs), 0.0)
    shares = [
        Share(name=name, moved=float(moves[:, at].mean()), error=float(errors[at]))
        for at, name in enumerate(inputs)
    ]
    return Attribution(
        base=float(said[:, 0].mean()), answer=float(said[:, -1].mean()), rows=said.size,
        shares=tuple(sorted(shares, key=lambda share: -abs(share.moved))),
    )  # fmt: skip
