"""Rows that were changed a little: what a model is asked again, to see what it depends on and what turns it."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, Final, Literal

import msgspec
import numpy as np
import numpy.typing as npt
import polars as pl

from taut.core.schema import DType, ModelSignature

Array = npt.NDArray[Any]
Ask = Callable[[pl.DataFrame], Array]
_ROWS: Final = 1000
_FEWER_ROWS: Final = {"attack": 300, "shuffle": 400}  # asked about many times over
_ATTACKED_INPUTS: Final = 32
_WAYS: Final = (1.0, -1.0, 0.5, -0.5)


class Probe(msgspec.Struct, frozen=True, kw_only=True):
    """One way to change rows. name: of the answers. amount: of the noise, the share left out, or the step.

    noise: numbers, in their standard deviations. missing: values of columns that may be absent. shuffle: `column` among the
    rows. attack: numbers that the caller sends, in the direction that moves the answer most.
    """

    name: str
    kind: Literal["noise", "missing", "shuffle", "attack"]
    amount: float = 0.0
    column: str = ""

    def places(self, height: int) -> npt.NDArray[np.int64]:
        """Return which rows of so many are changed: evenly spread, at most 1,000, of a shuffle 400, of an attack 300."""
        return spread(height, _FEWER_ROWS.get(self.kind, _ROWS))


def spread(height: int, rows: int) -> npt.NDArray[np.int64]:
    """Return `rows` places among `height`, evenly spread; all where there are no more."""
    return (
        np.unique(np.linspace(0, height - 1, min(rows, height)).astype(np.int64)) if height else np.arange(0)
    )


def answers_to(probe: Probe, rows: pl.DataFrame, signature: ModelSignature, ask: Ask, *, seed: int) -> Array:
    """Return what a model answers to the changed rows, `[places]` or `[places, classes]`.

    rows: whole, with the model's request columns and features. The same seed changes the same values.
    """
    chosen = rows[probe.places(rows.height)]
    random = np.random.default_rng([seed, *probe.name.encode()])
    if probe.kind == "attack":
        return _attacked(chosen, _numbers(rows, signature, sent=True), probe.amount, ask)
    if probe.kind == "shuffle":
        moved = chosen[probe.column].gather(random.permutation(chosen.height).tolist())
        return ask(chosen.with_columns(moved.alias(probe.column)))
    if probe.kind == "noise":
        found = _numbers(rows, signature, sent=False)
        return ask(
            chosen.with_columns(
                number.moved(chosen[number.name], random.normal(0, probe.amount, chosen.height))
                for number in found
            )
        )
    optional = [item.column.name for item in signature.inputs if item.column.nullable]
    gone = [
        pl.Series(name, random.random(chosen.height) < probe.amount)
        for name in optional
        if name in chosen.columns
    ]
    return ask(chosen.with_columns(chosen[lost.name].set(lost, None) for lost in gone))


class _Number(msgspec.Struct, frozen=True, kw_only=True):
    """A numeric input as it was seen: its spread and its bounds."""

    name: str
    whole: bool
    deviation: float
    low: float
    high: float

    def moved(self, values: pl.Series, steps: Array) -> pl.Series:
        """Return values moved by `steps` standard deviations, within the bounds; whole numbers by one at least."""
        apart = steps * self.deviation
        if self.whole:
            apart = np.where(apart == 0, 0, np.sign(apart) * np.maximum(1, np.abs(np.round(apart))))
        moved = (values.cast(pl.Float64) + pl.Series(apart)).clip(self.low, self.high)
        return moved.cast(values.dtype).alias(values.name)


def _numbers(rows: pl.DataFrame, signature: ModelSignature, *, sent: bool) -> list[_Number]:
    found = []
    for item in signature.inputs:
        column = item.column
        if column.dtype not in (DType.INT, DType.FLOAT) or (sent and item.feature_set is not None):
            continue
        values = rows[column.name].cast(pl.Float64).to_numpy()
        finite = values[np.isfinite(values)]
        if finite.size > 1 and float(finite.std()) > 0:
            found.append(
                _Number(
                    name=column.name, whole=column.dtype is DType.INT, deviation=float(finite.std()),
                    low=float(finite.min()), high=float(finite.max()),
                )
            )  # fmt: skip
    return found


def _attacked(rows: pl.DataFrame, numbers: Sequence[_Number], step: float, ask: Ask) -> Array:
    """Return the answers furthest from the model's own: of each number alone by the step and by half of it, either
    way, and of all their best ways at once.

    A greedy search that needs answers alone; an attacker with more patience may find more.
    Source: the sign of the gradient, Goodfellow et al. 2015, by differences instead of derivatives, as Chen et al. 2017.
    """
    before = ask(rows)
    worst, gained = before.copy(), np.zeros(rows.height)
    ways = {}
    for number in numbers[:_ATTACKED_INPUTS]:
        best, way = np.zeros(rows.height), np.zeros(rows.height)
        for part in _WAYS:
            said = ask(rows.with_columns(number.moved(rows[number.name], np.full(rows.height, part * step))))
            gain = _gain(before, said)
            better = gain > gained
            worst[better], gained = said[better], np.maximum(gain, gained)
            way, best = np.where(gain > best, part * step, way), np.maximum(gain, best)
        ways[number] = way
    if not ways:
        return worst
    said = ask(rows.with_columns(number.moved(rows[number.name], way) for number, way in ways.items()))
    better = _gain(before, said) > gained
    worst[better] = said[better]
    return worst


def _gain(before: Array, after: Array) -> Array:
    """How far each answer moved: the probability that the decided class lost, or the distance of values.

    Of values the way up counts alone, so that the best ways of single numbers add up.
    """
    if before.ndim == 1:
        return after - before
    rows, own = np.arange(len(before)), before.argmax(axis=1)
    found: Array = before[rows, own] - after[rows, own]
    return found
