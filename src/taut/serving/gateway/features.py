"""Online features of a request: one packed row a lookup, too old ones treated as absent."""

from __future__ import annotations

import datetime as dt
from collections.abc import Sequence
from typing import Final

from taut.core.errors import Unavailable
from taut.core.evidence import Scalar
from taut.core.times import to_us
from taut.ports.online import OnlineReader, OnlineRow
from taut.serving.gateway.compiled import Endpoint
from taut.serving.gateway.guard import check_key_parts
from taut.serving.gateway.scorer import Features, Rows
from taut.serving.predictions import FeatureRow
from taut.serving.runtime.rows import Value

NONE: Final[Features] = ()


def look_up_now(endpoint: Endpoint, online: OnlineReader | None, rows: Rows, now_us: int) -> Features:
    """Look up all rows at once, for stores in this process. Raises as `look_up`."""
    store = _store(online, endpoint)
    return [
        [
            _fresh(store.get_now(lookup.feature_set, key), lookup.max_age_s, at_us)
            for lookup, key in zip(endpoint.lookups, _keys(endpoint, row, index), strict=True)
        ]
        for index, row in enumerate(rows)
        for at_us in (_asked_about(endpoint, row, now_us),)
    ]


async def look_up(endpoint: Endpoint, online: OnlineReader | None, rows: Rows, now_us: int) -> Features:
    """Look up all rows, a feature set at a time. Raises Unavailable or Corrupt when the store cannot answer."""
    store = _store(online, endpoint)
    keys = [_keys(endpoint, row, index) for index, row in enumerate(rows)]
    found = [
        await store.get(lookup.feature_set, [of_row[position] for of_row in keys])
        for position, lookup in enumerate(endpoint.lookups)
    ]
    return [
        [
            _fresh(of_set[index], lookup.max_age_s, at_us)
            for lookup, of_set in zip(endpoint.lookups, found, strict=True)
        ]
        for index, row in enumerate(rows)
        for at_us in (_asked_about(endpoint, row, now_us),)
    ]


def _asked_about(endpoint: Endpoint, row: Sequence[Value], now_us: int) -> int:
    """Return the time that a row is about: its own where the caller gave one, else now."""
    time = None if endpoint.event_time is None else row[endpoint.event_time]
    return to_us(time) if isinstance(time, dt.datetime) else now_us


def _store(online: OnlineReader | None, endpoint: Endpoint) -> OnlineReader:
    if online is None:
        raise Unavailable(
            f"endpoint {endpoint.name!r} needs online features, and there is no store: start control"
        )
    return online


def _keys(endpoint: Endpoint, row: tuple[Value, ...] | object, index: int) -> list[tuple[Scalar, ...]]:
    assert isinstance(row, tuple | list)
    found: list[tuple[Scalar, ...]] = []
    for lookup, positions in zip(endpoint.lookups, endpoint.keys, strict=True):
        key = tuple(_scalar(row[position]) for position in positions)
        check_key_parts(key, index, lookup.keys)
        found.append(key)
    return found


def _scalar(value: Value) -> Scalar:
    """Write a key as materialisation does: dates as ISO text, times as microseconds since the epoch."""
    if isinstance(value, dt.datetime):
        return to_us(value)
    return value.isoformat() if isinstance(value, dt.date) else value


def _fresh(row: OnlineRow | None, max_age_s: float | None, at_us: int) -> FeatureRow | None:
    """Return a row that was known at the time asked about, and is not too old for it."""
    if row is None or row.event_time_us > at_us:
        return None
    if max_age_s is not None and at_us - row.event_time_us > max_age_s * 1e6:
        return None
    return FeatureRow(row.source, row.event_time_us, row.values)
