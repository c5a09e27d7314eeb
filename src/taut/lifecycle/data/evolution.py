"""A contract that changed between batches: which changes rows that exist can follow, and how."""

from __future__ import annotations

import polars as pl

from taut.core.errors import InvalidInput
from taut.core.schema import Schema
from taut.lifecycle.data.commits import Stored
from taut.lifecycle.data.doors import Doors
from taut.lifecycle.data.records import BatchRefused
from taut.ports.tables import ROW_ID, TableManifest


def evolved(
    doors: Doors, parent: Stored | None, schema: Schema, *, first_row_id: int
) -> TableManifest | None:
    """Return the parent's rows under `schema`: its files where it is the same, rewritten ones where it changed.

    Raises BatchRefused for a change that rows cannot follow.
    """
    if parent is None or parent.manifest.schema == schema:
        return None if parent is None else parent.manifest
    check_evolution(parent.manifest.schema, schema)
    frames = (_widened(frame, schema) for frame in doors.tables.batches(parent.manifest, row_ids=True))
    try:
        return doors.tables.write(frames, schema=schema, first_row_id=first_row_id)
    except InvalidInput as error:
        raise BatchRefused(
            "schema", f"rows that are there do not fit the changed contract: {error}"
        ) from error


def check_evolution(before: Schema, after: Schema) -> None:
    """Refuse a contract under which rows that exist could not be read.

    Columns may be added when they are nullable, dropped, moved, and made nullable or strict. A type stays.
    """
    old = {column.name: column for column in before.columns}
    for column in after.columns:
        was = old.get(column.name)
        if was is None and not column.nullable:
            raise BatchRefused(
                "schema",
                f"column {column.name!r} is new but not nullable: the rows that are there have no value for it",
            )
        if was is not None and was.dtype is not column.dtype:
            raise BatchRefused(
                "schema",
                f"column {column.name!r} was stored as {was.dtype} and the contract now stores {column.dtype}: give it "
                "a new name, or start a new dataset",
            )


def _widened(frame: pl.DataFrame, schema: Schema) -> pl.DataFrame:
    return frame.select(
        ROW_ID,
        *(
            pl.col(column.name) if column.name in frame.columns else pl.lit(None).alias(column.name)
            for column in schema.columns
        ),
    )
