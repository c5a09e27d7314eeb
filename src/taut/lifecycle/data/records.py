"""Records as they come out of a file: text or typed columns, numbered, with those that are no records at all."""

from __future__ import annotations

from collections import Counter
from typing import Final

import msgspec
import polars as pl

from taut.core.evidence import Scalar
from taut.project.manifest import ColumnSpec

ROW: Final = "_row"
"""Number of a record in its file, from 1; malformed records have one too."""

MAX_FIELD_BYTES: Final = 2**20
MAX_RECORD_BYTES: Final = 8 * 2**20
COLUMNS_MAX: Final = 16_384
RAW_KEPT_BYTES: Final = 64 * 2**10  # of a malformed record, in the quarantine


class Malformed(msgspec.Struct, frozen=True, kw_only=True):
    """A record without columns: where it stands, the rule that it breaks (`_record:…`), and its text."""

    row: int
    rule: str
    raw: str
    message: str = ""


class RecordChunk(msgspec.Struct, frozen=True, kw_only=True):
    """Some records in order. `frame` has `_row` and the contract's columns that the file has; absent ones are null.

    records: how many there were, malformed ones included.
    """

    frame: pl.DataFrame
    malformed: tuple[Malformed, ...] = ()
    records: int = 0
    broken_types: dict[str, pl.Series] = {}


class BatchRefused(Exception):
    """The batch cannot be judged record by record: a check that concerns all of it failed. Never leaves the room."""

    def __init__(self, check: str, message: str) -> None:
        super().__init__(message)
        self.check = check


class Wanted(msgspec.Struct, frozen=True, kw_only=True):
    """What a reader looks for in a file."""

    columns: tuple[ColumnSpec, ...]
    extra_columns: str  # reject or drop


def match_columns(found: list[str], wanted: Wanted, *, file: str) -> dict[str, int]:
    """Return contract column -> its place in the file, by name wherever it stands.

    Raises BatchRefused for a missing, doubled or superfluous column, named with the nearest that fits.
    """
    from taut.project.words import nearest

    if len(found) > COLUMNS_MAX:
        raise BatchRefused(
            "schema", f"{file}: it has {len(found):,} columns, {COLUMNS_MAX:,} are allowed: split it"
        )
    twice = sorted(name for name, count in Counter(found).items() if count > 1)
    if twice:
        raise BatchRefused(
            "schema", f"{file}: column {twice[0]!r} is in the header {found.count(twice[0])} times"
        )
    names = [column.name for column in wanted.columns]
    missing = [column.name for column in wanted.columns if column.required and column.name not in found]
    if missing:
        others = [name for name in found if name not in names]
        raise BatchRefused(
            "schema",
            f"{file}: column {', '.join(map(repr, missing))} is missing{nearest(missing[0], others or found)}",
        )
    extra = [name for name in found if name not in names]
    if extra and wanted.extra_columns == "reject":
        raise BatchRefused(
            "schema",
            f"{file}: column {', '.join(map(repr, extra[:5]))} is not in the contract: declare it, or say "
            "extra_columns='drop'",
        )
    return {name: found.index(name) for name in names if name in found}


def in_contract_order(frame: pl.DataFrame, columns: tuple[ColumnSpec, ...]) -> pl.DataFrame:
    """Return `_row` and the contract's columns in its order; absent ones as nulls of text."""
    return frame.select(
        ROW,
        *(
            pl.col(column.name)
            if column.name in frame.columns
            else pl.lit(None, dtype=pl.String).alias(column.name)
            for column in columns
        ),
    )


def raw_text(data: bytes) -> str:
    """Return the text of a malformed record, bounded; bytes that are no UTF-8 are written `\\xNN`."""
    text = data[:RAW_KEPT_BYTES].rstrip(b"\r\n").decode("utf-8", errors="backslashreplace")
    return text if len(data) <= RAW_KEPT_BYTES else f"{text}… ({len(data)} bytes)"


def as_scalar_record(row: dict[str, object]) -> dict[str, Scalar]:
    """Return a row's cells as JSON scalars."""
    from taut.lifecycle.data.compiled import as_json

    return {name: as_json(value) for name, value in row.items() if name != ROW}
