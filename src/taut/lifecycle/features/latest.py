"""The newest due row of each entity: what is written online, and what online values are compared with."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from datetime import datetime
from typing import Final, NamedTuple

import polars as pl

from taut.core.evidence import Scalar
from taut.core.schema import Column
from taut.lifecycle.features.rows import Materialisation
from taut.ports.online import OnlineRow, OnlineWriter
from taut.ports.tables import Tables

Key = tuple[Scalar, ...]
_CHUNK: Final = 8192
_TIME: Final = "_event_time_us"


class Written(NamedTuple):
    """What `write_online` did: entities that are online now, rows that changed, the newest event time."""

    entities: int
    changed: int
    event_time_max_us: int | None


def latest_rows(tables: Tables, made: Materialisation, *, due: datetime) -> pl.DataFrame:
    """Return the newest row of each entity whose event time is not after `due`, in the order of the entities."""
    spec = made.spec
    # rows lie sorted by entity and time, so the last one of a group is the newest
    return (
        tables.scan(made.manifest)
        .filter(pl.col(spec.event_time) <= due)
        .group_by(spec.entity, maintain_order=True)
        .last()
        .with_columns(pl.col(spec.event_time).dt.timestamp("us").alias(_TIME))
        .collect()
    )


def online_rows(made: Materialisation, latest: pl.DataFrame) -> Iterator[tuple[Key, OnlineRow]]:
    """Yield (key, row) pairs as the online store keeps them."""
    keys = len(made.spec.entity)
    columns = [*made.spec.entity, _TIME, *made.features]
    for chunk in latest.select(columns).iter_slices(_CHUNK):
        for values in chunk.iter_rows():
            yield values[:keys], OnlineRow(values[keys], values[keys + 1 :], made.id)


def write_online(
    tables: Tables,
    writer: OnlineWriter,
    made: Materialisation,
    *,
    due: datetime,
    before: Iterable[tuple[Materialisation, datetime]] = (),
) -> Written:
    """Write the newest due rows of `made`.

    before: materialisations that may be online, and when they were written. Entities of theirs that are gone, or
    whose newest row is older now, lose their old row first: the store itself keeps the newer of two rows.
    """
    latest = latest_rows(tables, made, due=due)
    for old, written_at in before:
        was = latest_rows(tables, old, due=written_at)
        writer.delete(made.spec.name, _outdated(old, was, made, latest))
    changed = writer.put(made.spec.name, online_rows(made, latest))
    newest = latest.get_column(_TIME).max()
    return Written(latest.height, changed, newest if isinstance(newest, int) else None)


def _outdated(
    old: Materialisation, was: pl.DataFrame, made: Materialisation, latest: pl.DataFrame
) -> Iterator[Key]:
    entity = list(made.spec.entity)
    if _key_columns(old) != _key_columns(made):  # no key of the old form is looked up any more
        yield from was.select(old.spec.entity).iter_rows()
        return
    joined = was.select(*entity, pl.col(_TIME).alias("_was")).join(
        latest.select(*entity, _TIME), on=entity, how="left", maintain_order="left"
    )
    gone_or_older = joined.filter(pl.col(_TIME).is_null() | (pl.col(_TIME) < pl.col("_was")))
    yield from gone_or_older.select(entity).iter_rows()


def _key_columns(made: Materialisation) -> list[Column]:
    return [made.schema[name] for name in made.spec.entity]
