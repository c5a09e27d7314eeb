"""Flights of a month hour by hour, as they would have been asked about, and how good the answers were."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from datetime import datetime
from typing import Any, Final

import polars as pl

REQUEST: Final = ("carrier", "origin", "dest", "distance", "departs_minute", "weekday")


def hours_of(flights: pl.DataFrame, month: int, *, days: int) -> Iterator[tuple[datetime, pl.DataFrame]]:
    """Yield each hour of the month's first `days` days with its flights of known outcome, in order."""
    known = flights.filter((pl.col("month") == month) & pl.col("late").is_not_null())
    first = known["hour_at"].min()
    assert isinstance(first, datetime)
    for (hour,), rows in known.sort("hour_at", "flight_id").group_by("hour_at", maintain_order=True):
        assert isinstance(hour, datetime)
        if (hour - first).days >= days:
            return
        yield hour, rows


def auc(truth: Sequence[int], scores: Sequence[float]) -> float:
    """Return the area under the ROC curve: how often a late flight is scored above a punctual one."""
    from sklearn.metrics import roc_auc_score

    return float(roc_auc_score(truth, scores))


def one_feature_auc(truth: Sequence[int], rows: Sequence[dict[str, Any]]) -> float:
    """Return the AUC of the scheduled minute alone, in the direction that suits it."""
    alone = auc(truth, [row["departs_minute"] for row in rows])
    return max(alone, 1 - alone)
