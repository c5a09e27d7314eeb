"""Which rows a model can be asked about: the request gate of a batch, a column at a time."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

import msgspec
import polars as pl

from taut.core.errors import InvalidInput
from taut.core.schema import Column, DType, ModelSignature, Schema

REASONS: Final = "reasons"
"""Column of a table of rejects: why its row was not scored."""

NO_ANSWER: Final = "the model gave no answer that its signature allows"


class Needs(msgspec.Struct, frozen=True, kw_only=True):
    """What a model needs of a frame. columns: from the dataset, those that only find features too, each once.

    features: looked-up columns. event_time: the column that decides which features were known; None without any.
    """

    columns: tuple[Column, ...]
    features: tuple[Column, ...]
    event_time: str | None
    matrix: bool

    def check(self, schema: Schema, *, where: str) -> None:
        """Raise InvalidInput, naming each fault, unless a table has the columns in types that the model takes."""
        found = {column.name: column for column in schema.columns}
        faults = [
            f"{column.name!r} is missing"
            if column.name not in found
            else f"{column.name!r} is {found[column.name].dtype}, the model wants {column.dtype}"
            for column in self.columns
            if column.name not in found or not _carries(found[column.name].dtype, column.dtype)
        ]
        if faults:
            raise InvalidInput(
                f"{where} does not fit the model: {'; '.join(faults)}: score a dataset that has what the model was "
                "trained on"
            )
        if self.event_time is not None:
            time = found.get(self.event_time)
            if time is None or time.dtype not in (DType.DATETIME, DType.DATE):
                raise InvalidInput(
                    f"{where} has no event time {self.event_time!r}, which decides which features were known: declare "
                    "event_time= of the dataset"
                )

    def split(self, frame: pl.DataFrame) -> tuple[pl.DataFrame, pl.DataFrame]:
        """Return the rows that can be scored, and the others with `REASONS`, each in its order.

        A float NaN is null, as in a request; infinities are no numbers there.
        """
        tests = self._tests()
        if not self._any(frame):
            return frame, frame.clear().with_columns(pl.lit("").alias(REASONS))
        # a null makes most questions null, which is neither yes nor no: it would drop the row
        bad = frame.select(pl.any_horizontal(test.fill_null(False) for _, test in tests)).to_series()
        if not bad.any():
            return frame, frame.clear().with_columns(pl.lit("").alias(REASONS))
        said = [pl.when(test).then(pl.lit(reason)) for reason, test in tests]
        why = pl.concat_str(said, separator="; ", ignore_nulls=True).alias(REASONS)
        return frame.filter(~bad), frame.filter(bad).with_columns(why)

    def _any(self, frame: pl.DataFrame) -> bool:
        """Whether any row cannot be scored, by one question a column: most chunks have none, and need no reasons."""
        asked = [_asked_of(column, fp32=self.matrix) for column in (*self.columns, *self.features)]
        if self.event_time is not None:
            asked.append(pl.col(self.event_time).is_null())
        return any(frame.select(one.any().alias(str(at)) for at, one in enumerate(asked)).row(0))

    def _tests(self) -> list[tuple[str, pl.Expr]]:
        """What must not be, with what is said of a row where it is."""
        tests: list[tuple[str, pl.Expr]] = []
        for what, columns in (("column", self.columns), ("feature", self.features)):
            for column in columns:
                tests += _tests_of(f"{what} {column.name!r}", column, fp32=self.matrix)
        if self.event_time is not None:
            said = f"event time {self.event_time!r} is null: which features were known then is not known"
            tests.append((said, pl.col(self.event_time).is_null()))
        return tests


def needs_of(signature: ModelSignature, *, event_time: str | None) -> Needs:
    """Return what a model needs. event_time: of the dataset; None where it declares none."""
    request = {column.name: column for column in signature.request}
    own = [item.column for item in signature.inputs if item.feature_set is None]
    keys = [request[key] for lookup in signature.lookups for key in lookup.keys]
    time = (event_time or signature.event_time) if signature.lookups else None
    if signature.lookups and time is None:
        raise InvalidInput(
            "the dataset has no event_time, which decides which features were known: declare it"
        )
    return Needs(
        columns=tuple({column.name: column for column in (*own, *keys)}.values()),
        features=tuple(item.column for item in signature.inputs if item.feature_set is not None),
        event_time=time,
        matrix=signature.tensor == "matrix",
    )


def _carries(found: DType, wanted: DType) -> bool:
    return found is wanted or (found is DType.INT and wanted is DType.FLOAT)


def _asked_of(column: Column, *, fp32: bool) -> pl.Expr:
    """Return whether any of a column's tests holds of a row, never null: what FP32 cannot hold becomes infinite in it."""
    value = pl.col(column.name)
    if column.dtype is not DType.FLOAT:
        return pl.lit(False) if column.nullable else value.is_null()
    held = value.cast(pl.Float64).cast(pl.Float32) if fp32 else value.cast(pl.Float64)
    bad = held.is_infinite() if column.nullable else ~held.is_finite()
    return bad.fill_null(not column.nullable)


def _tests_of(what: str, column: Column, *, fp32: bool) -> Sequence[tuple[str, pl.Expr]]:
    value, tests = pl.col(column.name), []
    numeric = column.dtype is DType.FLOAT
    if not column.nullable:
        absent = value.is_null() | value.cast(pl.Float64).is_nan() if numeric else value.is_null()
        tests.append((f"{what} is null and must not be", absent))
    if numeric:
        tests.append((f"{what} is infinite", value.cast(pl.Float64).is_infinite()))
        if fp32:
            wide = value.cast(pl.Float64)
            beyond = wide.is_finite() & wide.cast(pl.Float32).is_infinite()
            tests.append((f"{what} is beyond what FP32 can hold (3.4e38)", beyond))
    return tests
