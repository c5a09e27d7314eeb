"""Splits by time: what is learned from lies before what is tested on, labels included."""

from __future__ import annotations

from datetime import datetime

import msgspec
import polars as pl

from taut.core.errors import InvalidInput
from taut.core.units import parse_duration
from taut.project.manifest import SplitSpec

_TIME = pl.Datetime("us", "UTC")


class SplitFacts(msgspec.Struct, frozen=True, kw_only=True):
    """Where the split lies and what became of the rows. Times are UTC; counts are rows.

    unlabelled: label or event time is null. gap: between train and test, and what is skipped at the end. embargoed: before the gap, but the label was
    not yet known when the test began.
    """

    train_until: datetime
    test_from: datetime
    rows: int
    train: int
    test: int
    gap: int
    embargoed: int
    unlabelled: int


class Parts(msgspec.Struct, frozen=True, kw_only=True):
    """The two parts, lazily, in the order of the frame, and the facts. every: all rows, those without a label too."""

    train: pl.LazyFrame
    test: pl.LazyFrame
    every: pl.LazyFrame
    facts: SplitFacts


def split_by_time(
    frame: pl.LazyFrame, *, event_time: str, label: str, label_at: str | None, spec: SplitSpec
) -> Parts:
    """Split labelled rows by event time: `test` at the end, `gap` before it dropped, the rest to learn from.

    With `skip`, everything ends that long before the last row. test: event time >= last - test. train: event time < last - test - gap and, where `label_at` is given, the label
    known before the test begins; a null there means not known. The same frame gives the same parts.
    Raises InvalidInput when either part is empty.
    """
    time = _as_time(frame, event_time)
    usable = pl.col(event_time).is_not_null() & pl.col(label).is_not_null()
    last = frame.filter(usable).select(time.max()).collect().item()
    if last is None:
        raise InvalidInput(f"no row has both {event_time!r} and {label!r}: there is nothing to learn from")
    until = last - parse_duration(spec.skip)
    test_from = until - parse_duration(spec.test)
    train_until = test_from - parse_duration(spec.gap)
    in_test = usable & (time >= test_from) & (time <= until)
    before = usable & (time < train_until)
    known = pl.lit(True) if label_at is None else (_as_time(frame, label_at) < test_from).fill_null(False)
    in_train = before & known
    counts = frame.select(
        rows=pl.len(), train=in_train.sum(), test=in_test.sum(), embargoed=(before & ~known).sum(),
        unlabelled=(~usable).sum(), gap=(usable & (time >= train_until) & ((time < test_from) | (time > until))).sum(),
    ).collect().row(0, named=True)  # fmt: skip
    facts = SplitFacts(train_until=train_until, test_from=test_from, **counts)
    if facts.train == 0 or facts.test == 0:
        raise InvalidInput(
            f"the split leaves {facts.train} rows to learn from and {facts.test} to test on (test={spec.test}, "
            f"gap={spec.gap}, last row at {last:%Y-%m-%d %H:%M}): shorten test or gap, or bring more data"
        )
    return Parts(train=frame.filter(in_train), test=frame.filter(in_test), every=frame, facts=facts)


def _as_time(frame: pl.LazyFrame, name: str) -> pl.Expr:
    schema = frame.collect_schema()
    if name not in schema:
        raise InvalidInput(f"no column {name!r} to split by: the frame has {', '.join(schema.names())}")
    dtype = schema[name]
    if isinstance(dtype, pl.Datetime):
        return pl.col(name).dt.cast_time_unit("us") if dtype.time_zone else pl.col(name).cast(_TIME)
    if dtype == pl.Date:
        return pl.col(name).cast(pl.Datetime("us")).dt.replace_time_zone("UTC")
    raise InvalidInput(f"column {name!r} is {dtype}, not a time: a split by time needs a date or a time")
