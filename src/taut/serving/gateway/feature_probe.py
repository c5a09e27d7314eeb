"""Whether the features that endpoints need are there, whole, of the form that their models know, and young enough.

Requests meet a store row by row, and each gets what its endpoint says for features that cannot be had. This looks at whole sets,
away from requests and a stretch at a time, so that an endpoint that can only fail or stand in is not ready before anybody asks.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping
from datetime import UTC, datetime
from typing import Final

import msgspec

from taut.core.errors import TautError
from taut.core.schema import DType, FeatureLookup
from taut.ports.online import OnlineAuditor, OnlineRow
from taut.serving.snapshot import EndpointConfig, ServedModel

PROBE_S: Final = 2.0
ROWS: Final = 512
_TYPES: Final[Mapping[DType, tuple[type, ...]]] = {
    DType.BOOL: (bool,), DType.INT: (int,), DType.FLOAT: (int, float), DType.STRING: (str,),
}  # fmt: skip

Reasons = Mapping[str, tuple[str, ...]]
"""Why endpoints are not ready, by their names; those that are have none."""


class _Walk(msgspec.Struct):
    """How far a set was looked at. newest_us: of the rows of this pass. sure_us: of all, when that was needed last."""

    end: bytes = b""
    newest_us: int | None = None
    sure_us: int | None = None
    trouble: str = ""
    empty: bool = False
    rows: tuple[OnlineRow, ...] = ()


class FeatureProbe:
    """Looks at `rows` of each set a time, and goes on from there the next; for one thread at a time.

    Found: a store that is absent, damaged or does not answer; a set without rows, with rows that are not what was written,
    most of whose rows are of a materialisation that the snapshot does not know, or of another definition than the model was
    trained with, or lack what the model needs; a set all of
    whose rows are older than the model takes them (only where requests do not bring a time of their own).
    Not found: values that are wrong and were written so; a damaged row
    before the walk comes by, which is once in (rows of the set / `rows`) times.
    """

    def __init__(self, online: OnlineAuditor, *, rows: int = ROWS) -> None:
        self._online: Final = online
        self._rows: Final = rows
        self._walks: dict[str, _Walk] = {}

    def look(self, endpoints: Iterable[EndpointConfig], now_us: int) -> Reasons:
        """Return what is wrong with each endpoint's features now. Blocks for as long as the store takes."""
        found: dict[str, tuple[str, ...]] = {}
        walked: dict[str, _Walk] = {}
        for config in endpoints:
            why = [
                said
                for lookup in config.live.signature.lookups
                if (said := self._judge(config.live, lookup, walked, now_us))
            ]
            if why:
                found[config.name] = tuple(dict.fromkeys(why))
        self._walks = walked  # sets that nobody needs any more are forgotten
        return found

    def _judge(
        self, served: ServedModel, lookup: FeatureLookup, walked: dict[str, _Walk], now_us: int
    ) -> str:
        """Return what is wrong with a set for one model; nothing when it is sound."""
        name = lookup.feature_set
        walk = walked.get(name)
        if walk is None:
            walk = walked[name] = self._walk(name)
        if walk.trouble:
            return f"online features: {walk.trouble}"
        if walk.empty:
            return f"feature set {name!r} is empty online: materialise it"
        return _unfit(served, name, walk.rows) or self._stale(served, lookup, walk, now_us)

    def _walk(self, name: str) -> _Walk:
        """Look at the next stretch of a set."""
        walk = self._walks.get(name) or _Walk()
        try:
            stretch = self._online.walk(name, walk.end, self._rows)
            if not stretch.rows and walk.end:  # what was behind it is gone
                walk = _Walk()
                stretch = self._online.walk(name, b"", self._rows)
        except TautError as error:
            return msgspec.structs.replace(walk, trouble=error.message, rows=())
        times = [row.event_time_us for row in stretch.rows]
        if walk.end and walk.newest_us is not None:
            times.append(walk.newest_us)
        return _Walk(stretch.end, max(times, default=None), walk.sure_us, "", not times, stretch.rows)

    def _stale(self, served: ServedModel, lookup: FeatureLookup, walk: _Walk, now_us: int) -> str:
        if lookup.max_age_s is None or served.signature.event_time is not None:
            return ""
        oldest_us = now_us - int(lookup.max_age_s * 1e6)
        if max(walk.newest_us or 0, walk.sure_us or 0) >= oldest_us:
            return ""
        try:  # these rows are too old: so may be all, or only these
            walk.sure_us = self._online.newest_us(lookup.feature_set)
        except TautError as error:
            return f"online features: {error.message}"
        if walk.sure_us is None or walk.sure_us >= oldest_us:
            return ""
        newest = datetime.fromtimestamp(walk.sure_us / 1e6, tz=UTC).isoformat(timespec="seconds")
        return (
            f"feature set {lookup.feature_set!r} is stale: its newest row is of {newest}, older than "
            f"{lookup.max_age_s:g} s: materialise it"
        )


def _unfit(served: ServedModel, name: str, rows: tuple[OnlineRow, ...]) -> str:
    """Return what keeps a model from reading most of these rows."""
    forms = served.feature_columns.get(name, {})
    counted = Counter(row.source for row in rows)
    unknown = [source for source in counted if source not in forms]
    if sum(counted[source] for source in unknown) * 2 > len(rows):
        return (
            f"feature set {name!r}: its rows are of {unknown[0][:80]!r}, which this snapshot does not know: materialise the set "
            "again"
        )
    redefined = [source for source in counted if source in served.redefined.get(name, ())]
    if sum(counted[source] for source in redefined) * 2 > len(rows):
        return (
            f"feature set {name!r}: {redefined[0]} was made by another definition than {served.version} was trained with: train "
            "it again and release that, or apply the former definition and materialise the set"
        )
    needed = [item.column for item in served.signature.inputs if item.feature_set == name]
    for source in counted:
        columns = forms.get(source)
        if columns is None:
            continue
        lost = [column.name for column in needed if column.name not in columns]
        if lost:
            return f"feature set {name!r}: {source} has no column {lost[0]!r}, which {served.version} needs: train it again"
        row = next(row for row in rows if row.source == source)
        if len(row.values) != len(columns):
            return f"feature set {name!r}: a row of {source} has {len(row.values)} values, not {len(columns)}: materialise it again"
        for column in needed:
            value, types = row.values[columns.index(column.name)], _TYPES.get(column.dtype)
            if value is not None and types is not None and not isinstance(value, types):
                return (
                    f"feature set {name!r}: {column.name!r} of {source} is no {column.dtype}, as {served.version} needs it: "
                    "materialise it again"
                )
    return ""
