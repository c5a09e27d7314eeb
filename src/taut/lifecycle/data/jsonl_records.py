"""Reads JSON lines in bounded pieces: numbers as they were written, strings as strings, nothing guessed."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Final

import msgspec
import polars as pl

from taut.core.schema import DType
from taut.lifecycle.data.csv_records import CHUNK_BYTES, utf8_pieces
from taut.lifecycle.data.records import (
    MAX_FIELD_BYTES,
    MAX_RECORD_BYTES,
    ROW,
    BatchRefused,
    Malformed,
    RecordChunk,
    Wanted,
    match_columns,
    raw_text,
)
from taut.ports.sources import ByteStream
from taut.project.manifest import ColumnSpec

_OBJECT: Final = msgspec.json.Decoder(dict[str, msgspec.Raw])
_STRING: Final = msgspec.json.Decoder(str)


def read_jsonl(
    stream: ByteStream, wanted: Wanted, *, file: str, encoding: str = "utf-8", chunk_bytes: int = CHUNK_BYTES
) -> Iterator[RecordChunk]:
    """Yield the records of a file with one JSON object a line; blank lines are no records.

    A key that a line lacks is null. JSON types are strict: a string where the contract has a number is broken, and
    the other way about. A line that is no object is malformed; of a key that stands twice the last one counts.
    Raises BatchRefused when the first lines all lack a column that may not be null, or any adds one.
    """
    buffer, row = b"", 1
    first = msgspec.structs.replace(wanted, columns=tuple(_may_lack(column) for column in wanted.columns))
    later = msgspec.structs.replace(
        wanted, columns=tuple(msgspec.structs.replace(column, required=False) for column in wanted.columns)
    )
    for piece, at_end in utf8_pieces(stream, encoding, file=file, chunk_bytes=chunk_bytes):
        buffer += piece
        stop = len(buffer) if at_end else buffer.rfind(b"\n") + 1
        if stop == 0 and len(buffer) > MAX_RECORD_BYTES:
            raise BatchRefused(
                "readable", f"{file}: record {row} is larger than 8 MiB: is this a file of JSON lines?"
            )
        lines = [line for line in buffer[:stop].split(b"\n") if line.strip()]
        buffer = buffer[stop:]
        if lines:
            chunk = _chunk(lines, first if row == 1 else later, first_row=row, file=file)
            row += chunk.records
            yield chunk
    if row == 1:
        raise BatchRefused("readable", f"{file} is empty: not one record is in it")


def _may_lack(column: ColumnSpec) -> ColumnSpec:
    return msgspec.structs.replace(column, required=column.required and not column.nullable)


def _chunk(lines: list[bytes], wanted: Wanted, *, first_row: int, file: str) -> RecordChunk:
    objects: list[dict[str, msgspec.Raw]] = []
    rows: list[int] = []
    malformed: list[Malformed] = []
    for row, line in enumerate(lines, first_row):
        try:
            line.decode()  # the decoder leaves texts inside unread values unchecked
            objects.append(_OBJECT.decode(line))
        except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
            rule = "_record:encoding" if isinstance(error, UnicodeDecodeError) else "_record:json"
            malformed.append(Malformed(row=row, rule=rule, raw=raw_text(line), message=str(error)))
            continue
        if len(line) > MAX_FIELD_BYTES and _longest(objects[-1]) > MAX_FIELD_BYTES:
            objects.pop()
            malformed.append(
                Malformed(
                    row=row,
                    rule="_record:field_size",
                    raw=raw_text(line),
                    message="a value is larger than 1 MiB",
                )
            )
            continue
        rows.append(row)
    names: dict[str, None] = {}
    for item in objects:
        names.update(dict.fromkeys(item))
    if objects:
        match_columns(list(names), wanted, file=file)
    series: list[pl.Series] = [pl.Series(ROW, rows, dtype=pl.Int64)]
    broken: dict[str, pl.Series] = {}
    for column in wanted.columns:
        values, wrong = _column([item.get(column.name) for item in objects], column)
        series.append(pl.Series(column.name, values, dtype=pl.String))
        if any(wrong):
            broken[column.name] = pl.Series(column.name, wrong, dtype=pl.Boolean)
    return RecordChunk(
        frame=pl.DataFrame(series), malformed=tuple(malformed), records=len(lines), broken_types=broken
    )


def _longest(values: dict[str, msgspec.Raw]) -> int:
    return max((len(bytes(value)) for value in values.values()), default=0)


def _column(values: list[msgspec.Raw | None], column: ColumnSpec) -> tuple[list[str | None], list[bool]]:
    """Return each value as text, and whether its JSON type is another than the column's."""
    texts: list[str | None] = []
    wrong: list[bool] = []
    quoted = column.dtype in (DType.STRING, DType.DATE, DType.DATETIME)
    for value in values:
        raw = b"null" if value is None else bytes(value)
        if raw == b"null":
            texts.append(None)
            wrong.append(False)
            continue
        string = raw[:1] == b'"'
        texts.append(_STRING.decode(raw) if string else raw.decode())
        wrong.append(string != quoted)
    return texts, wrong
