"""Whether serving sees what training would: online values against the materialisation they came from."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime
from typing import Final

import msgspec
import polars as pl

from taut.core.errors import InvalidInput
from taut.core.evidence import Scalar
from taut.lifecycle.features.latest import latest_rows, online_rows
from taut.lifecycle.features.rows import Materialisation
from taut.ports.online import OnlineReader, OnlineRow
from taut.ports.tables import Tables

_EXAMPLES: Final = 5


class SkewReport(msgspec.Struct, frozen=True, kw_only=True):
    """Counts over the sampled entities; `examples` say key, feature, offline and online value, for people."""

    materialisation: str
    sampled: int
    missing: int  # not online
    stale: int  # online with another event time
    different: int  # the same event time, but another value
    examples: tuple[str, ...] = ()

    @property
    def agrees(self) -> bool:
        return self.sampled > 0 and not (self.missing or self.stale or self.different)


def compare_online(
    tables: Tables, reader: OnlineReader, made: Materialisation, *, due: datetime, sample: int, seed: int
) -> SkewReport:
    """Compare online rows with the newest rows that were due at `due`, for `sample` entities drawn by `seed`.

    Values must be equal to the bit: both sides come from the same rows.
    """
    if sample < 1:
        raise InvalidInput(f"a sample of {sample} entities proves nothing: take at least 1")
    latest = latest_rows(tables, made, due=due)
    drawn = latest.sample(min(sample, latest.height), seed=seed) if latest.height else latest
    return _compare(made, drawn, reader)


def _compare(made: Materialisation, drawn: pl.DataFrame, reader: OnlineReader) -> SkewReport:
    missing = stale = different = 0
    examples: list[str] = []
    for key, offline in online_rows(made, drawn):
        online = reader.get_now(made.spec.name, key)
        if online is None:
            missing += 1
            examples.append(f"{key}: not online")
        elif online.event_time_us != offline.event_time_us:
            stale += 1
            examples.append(
                f"{key}: event time {offline.event_time_us} offline, {online.event_time_us} online"
            )
        elif not _same(offline.values, online.values):
            different += 1
            examples.append(f"{key}: {_difference(made, offline, online)}")
    return SkewReport(
        materialisation=made.id,
        sampled=drawn.height,
        missing=missing,
        stale=stale,
        different=different,
        examples=tuple(examples[:_EXAMPLES]),
    )


def _same(offline: Sequence[Scalar], online: Sequence[Scalar]) -> bool:
    return len(offline) == len(online) and all(
        type(a) is type(b) and a == b for a, b in zip(offline, online, strict=True)
    )


def _difference(made: Materialisation, offline: OnlineRow, online: OnlineRow) -> str:
    if len(offline.values) != len(online.values):
        return f"{len(offline.values)} features offline, {len(online.values)} online"
    pairs = zip(made.features, offline.values, online.values, strict=True)
    return ", ".join(
        f"{name} is {a!r} offline, {b!r} online" for name, a, b in pairs if not _same((a,), (b,))
    )
