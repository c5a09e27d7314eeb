"""From one answer to its counts: who answered, how sure, how fast, and which inputs were absent or strange."""

from __future__ import annotations

import datetime as dt
from bisect import bisect_left
from collections.abc import Mapping, Sequence
from typing import Final

from taut.core.edge import CONFIDENCE_STEPS, Counts, Moments
from taut.core.schema import ModelSignature
from taut.core.times import to_us
from taut.serving.gateway.answers import class_name
from taut.serving.meters.histogram import TIME_NS
from taut.serving.runtime import Outputs
from taut.serving.runtime.rows import Value

_EPOCH: Final = dt.date(1970, 1, 1)


class Counting:
    """Makes the counts of answers of one signature. ranges: request column -> least and greatest usual value."""

    def __init__(self, signature: ModelSignature, ranges: Mapping[str, tuple[float, float]]) -> None:
        self._nullable: Final = [
            (at, column.name) for at, column in enumerate(signature.request) if column.nullable
        ]
        self._ranged: Final = [
            (at, column, *ranges[column.name])
            for at, column in enumerate(signature.request)
            if column.name in ranges
        ]

    def answered(
        self, rows: Sequence[Sequence[Value]], own: Outputs, given: Outputs, *, cloud: int, fallback: int, took_ns: int
    ) -> Counts:  # fmt: skip
        """Return the counts of one request. own: what the model here said; given: what was answered, to `cloud` rows by the
        cloud; fallback: rows for which it was wanted and silent."""
        nulls, outside = self._strange(rows)
        labels: dict[str, int] = {}
        for label in given.labels:
            name = class_name(label)
            labels[name] = labels.get(name, 0) + 1
        confidence: dict[int, int] = {}
        for row in own.probabilities:
            step = max(0, min(int(max(row) * CONFIDENCE_STEPS), CONFIDENCE_STEPS - 1))
            confidence[step] = confidence.get(step, 0) + 1
        return Counts(
            requests=1, rows=len(rows), edge_rows=len(rows) - cloud, cloud_rows=cloud, fallback_rows=fallback,
            latency={bisect_left(TIME_NS, took_ns): 1}, labels=labels, confidence=confidence,
            values=_moments(given.values) if given.values else None, nulls=nulls, outside=outside,
        )  # fmt: skip

    def _strange(self, rows: Sequence[Sequence[Value]]) -> tuple[dict[str, int], dict[str, int]]:
        nulls = {name: sum(row[at] is None for row in rows) for at, name in self._nullable}
        outside = {
            column.name: sum(
                number is not None and not low <= number <= high
                for number in (_number(row[at]) for row in rows)
            )
            for at, column, low, high in self._ranged
        }
        return (
            {name: count for name, count in nulls.items() if count},
            {name: count for name, count in outside.items() if count},
        )


def _number(value: Value) -> float | None:
    if isinstance(value, bool | int | float):
        return float(value)
    if isinstance(value, dt.datetime):
        return to_us(value) / 1e6
    if isinstance(value, dt.date):
        return float((value - _EPOCH).days)
    return None


def _moments(values: Sequence[float]) -> Moments:
    return Moments(
        count=len(values), total=sum(values), squares=sum(value * value for value in values),
        minimum=min(values), maximum=max(values),
    )  # fmt: skip
