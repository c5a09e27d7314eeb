"""Reads CSV in bounded pieces: every value as text, every record that is none named and kept."""

from __future__ import annotations

import codecs
from collections.abc import Iterator
from contextlib import suppress
from typing import Final

import msgspec
import numpy as np
import polars as pl

from taut.lifecycle.data.csv_layout import Layout, Offsets, layout, split_record
from taut.lifecycle.data.records import (
    MAX_RECORD_BYTES,
    ROW,
    BatchRefused,
    Malformed,
    RecordChunk,
    Wanted,
    in_contract_order,
    match_columns,
    raw_text,
)
from taut.ports.sources import ByteStream

CHUNK_BYTES: Final = 8 * 2**20
_UTF8_BOM: Final = b"\xef\xbb\xbf"
_OTHER_BOMS: Final = ((codecs.BOM_UTF16_LE, "utf-16"), (codecs.BOM_UTF16_BE, "utf-16"))


def read_csv(
    stream: ByteStream,
    wanted: Wanted,
    *,
    file: str,
    separator: str = ",",
    encoding: str = "utf-8",
    chunk_bytes: int = CHUNK_BYTES,
) -> Iterator[RecordChunk]:
    """Yield the records of a CSV file with a header line, at most about `chunk_bytes` of text at a time.

    Quoting as RFC 4180: a quote in a quoted field is doubled, quoted fields may hold separators and newlines. Blank
    lines are no records. Raises BatchRefused where the header does not fit or cannot be read.
    """
    reader = _Reader(wanted, file, ord(separator))
    pieces = utf8_pieces(stream, encoding, file=file, chunk_bytes=chunk_bytes)
    buffer = b""
    for piece, at_end in pieces:
        buffer += piece
        if reader.header is None:
            buffer = reader.take_header(buffer, at_end=at_end)
            if reader.header is None:
                continue
        chunk, used = reader.take(buffer, at_end=at_end)
        buffer = buffer[used:]
        if chunk is not None:
            yield chunk
    if reader.header is None:
        raise BatchRefused("readable", f"{file} is empty: not even a header line is in it")


def utf8_pieces(
    stream: ByteStream, encoding: str, *, file: str, chunk_bytes: int
) -> Iterator[tuple[bytes, bool]]:
    """Yield a stream's bytes as UTF-8 with a mark on the last piece; UTF-8 itself goes through unchecked."""
    try:
        codec = codecs.lookup(encoding)
    except LookupError as error:
        raise BatchRefused(
            "readable", f"{file}: encoding {encoding!r} is unknown, try utf-8 or latin-1"
        ) from error
    plain = codec.name in ("utf-8", "ascii", "utf-8-sig")
    decoder = None if plain else codec.incrementaldecoder(errors="strict")
    first, offset = True, 0
    piece = stream.read(chunk_bytes)
    while True:
        following = stream.read(chunk_bytes) if piece else b""
        text = piece
        if decoder is not None:
            try:
                text = decoder.decode(piece, final=not following).encode()
            except UnicodeDecodeError as error:
                raise BatchRefused(
                    "readable", f"{file}: byte {offset + error.start} is not {encoding}: {error.reason}"
                ) from error
        elif first:
            for mark, name in _OTHER_BOMS:
                if piece.startswith(mark):
                    raise BatchRefused(
                        "readable", f"{file}: byte 0 begins {name} text: say encoding={name!r}"
                    )
        if first:
            text = text.removeprefix(_UTF8_BOM)
        offset += len(piece)
        yield text, not following
        if not following:
            return
        first, piece = False, following


class _Reader:
    """Turns buffers into chunks; knows the header, the number of the next record and its offset in the text."""

    def __init__(self, wanted: Wanted, file: str, separator: int) -> None:
        self.header: list[str] | None = None
        self._wanted = wanted
        self._file = file
        self._separator = separator
        self._places: dict[str, int] = {}
        self._next_row = 1
        self._offset = 0
        self._skipping = False

    def take_header(self, buffer: bytes, *, at_end: bool) -> bytes:
        """Take the header from the front of the buffer; unchanged while it is not there whole."""
        stripped = buffer.lstrip(b"\r\n")
        found = layout(
            stripped[:MAX_RECORD_BYTES], self._separator, at_end=at_end or len(stripped) > MAX_RECORD_BYTES
        )
        if not found.starts.size:
            return buffer
        if 0 in found.faults:
            raise BatchRefused("readable", f"{self._file}: its header line is {_said(found.faults[0], 0, 0)}")
        line = stripped[int(found.starts[0]) : int(found.ends[0])]
        try:
            text = line.decode()
        except UnicodeDecodeError as error:
            place = len(buffer) - len(stripped) + error.start
            raise BatchRefused(
                "readable", f"{self._file}: byte {place} is not utf-8 ({error.reason}): say encoding=…"
            ) from error
        self.header = split_record(text.encode(), self._separator)
        self._places = match_columns(self.header, self._wanted, file=self._file)
        used = len(buffer) - len(stripped) + int(found.ends[0]) + 1
        self._offset = used
        return buffer[used:]

    def take(self, buffer: bytes, *, at_end: bool) -> tuple[RecordChunk | None, int]:
        """Take all whole records from the front of the buffer; return them and the number of bytes used."""
        assert self.header is not None
        skipped = 0
        if self._skipping:
            newline = buffer.find(b"\n")
            skipped = len(buffer) if newline < 0 else newline + 1
            self._skipping = newline < 0
        found = layout(buffer[skipped:] if skipped else buffer, self._separator, at_end=at_end)
        if skipped:
            found = msgspec.structs.replace(
                found, starts=found.starts + skipped, ends=found.ends + skipped, rest=found.rest + skipped
            )
        if found.rest >= len(buffer) and not at_end and len(buffer) and buffer[-1] != 10 and found.faults:
            self._skipping = True  # the last record was cut for its size; its remainder is none of its own
        chunk = self._chunk(buffer, found) if found.starts.size else None
        self._offset += found.rest
        return chunk, found.rest

    def _chunk(self, buffer: bytes, found: Layout) -> RecordChunk:
        assert self.header is not None
        rules = dict(found.faults)
        for index in np.flatnonzero(found.fields != len(self.header)).tolist():
            rules.setdefault(index, "_record:fields")
        notes = self._undecodable(buffer, found, rules)
        first = self._next_row
        count = int(found.starts.size)
        self._next_row += count
        malformed = tuple(
            Malformed(
                row=first + index,
                rule=rules[index],
                raw=raw_text(buffer[found.starts[index] : found.ends[index]]),
                message=notes.get(index) or _said(rules[index], int(found.fields[index]), len(self.header)),
            )
            for index in sorted(rules)
        )
        frame = self._frame(buffer, found, rules, first)
        return RecordChunk(frame=frame, malformed=malformed, records=count)

    def _undecodable(self, buffer: bytes, found: Layout, rules: dict[int, str]) -> dict[int, str]:
        """Mark records that are no UTF-8; return what to say about each."""
        notes: dict[int, str] = {}
        position = int(found.starts[0])
        stop = int(found.ends[-1])
        while position < stop:
            try:
                buffer[position:stop].decode()
            except UnicodeDecodeError as error:
                bad = position + error.start
                index = int(np.searchsorted(found.starts, bad, side="right")) - 1
                rules.setdefault(index, "_record:encoding")
                notes[index] = f"byte {self._offset + bad} of the file is not utf-8: {error.reason}"
                position = int(found.ends[index]) + 1
            else:
                break
        return notes

    def _frame(self, buffer: bytes, found: Layout, rules: dict[int, str], first: int) -> pl.DataFrame:
        assert self.header is not None
        good = np.ones(found.starts.size, dtype=bool)
        good[list(rules)] = False
        rows = np.flatnonzero(good) + first
        names = {f"c{place}": name for name, place in self._places.items()}
        if not rows.size:
            frame = pl.DataFrame(schema=dict.fromkeys(names, pl.String))
        else:
            frame = self._parse(buffer, found.starts[good], found.ends[good], names)
        return in_contract_order(
            frame.rename(names).with_columns(pl.Series(ROW, rows, dtype=pl.Int64)), self._wanted.columns
        )

    def _parse(self, buffer: bytes, starts: Offsets, ends: Offsets, names: dict[str, str]) -> pl.DataFrame:
        assert self.header is not None
        together = bool((starts[1:] == ends[:-1] + 1).all())  # no malformed record and no blank line between
        text = (
            buffer[int(starts[0]) : int(ends[-1])] if together else b"\n".join(_records(buffer, starts, ends))
        )
        # where Polars reads other records than `layout` found, they are split one by one
        with suppress(pl.exceptions.PolarsError):
            frame = pl.read_csv(
                text,
                has_header=False,
                separator=chr(self._separator),
                schema={f"c{place}": pl.String for place in range(len(self.header))},
                columns=sorted(self._places.values()),
                empty_string_is_null=False,
                infer_schema=False,
            )
            if frame.height == starts.size:
                return frame
        rows = [split_record(record, self._separator) for record in _records(buffer, starts, ends)]
        return pl.DataFrame(
            {name: [row[int(name[1:])] for row in rows] for name in names},
            schema=dict.fromkeys(names, pl.String),
        )


def _records(buffer: bytes, starts: Offsets, ends: Offsets) -> Iterator[bytes]:
    return (buffer[start:end] for start, end in zip(starts.tolist(), ends.tolist(), strict=True))


def _said(rule: str, fields: int, wanted: int) -> str:
    match rule:
        case "_record:fields":
            return f"{fields} fields where the header has {wanted}"
        case "_record:field_size":
            return "too large: a field is larger than 1 MiB, or the record too large to read"
        case "_record:quotes":
            return "no CSV: a quote stands where none may, or is never closed"
    return rule
