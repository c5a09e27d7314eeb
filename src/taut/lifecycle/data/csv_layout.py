"""Where the records of CSV text begin and end, and which of them are none.

The fast way looks at all bytes at once with numpy: a newline or separator counts when an even number of quotes
stands before it in the buffer. That holds only while every quote stands where RFC 4180 allows one, so a buffer with
a stray quote is walked record by record instead, and the walk starts anew at the line after a broken one.
"""

from __future__ import annotations

import re
from functools import lru_cache
from typing import Final

import msgspec
import numpy as np
import numpy.typing as npt

from taut.lifecycle.data.records import MAX_FIELD_BYTES, MAX_RECORD_BYTES

_NEWLINE: Final = 10
_RETURN: Final = 13
_QUOTE: Final = 34

Offsets = npt.NDArray[np.int64]


class Layout(msgspec.Struct, frozen=True, kw_only=True):
    """Records of a buffer: record i is `buffer[starts[i]:ends[i]]`, its line end excluded.

    fields: number of fields of each. faults: record -> rule that it breaks as text. rest: where the first record
    starts that the buffer does not hold whole. Blank lines are no records and are in none of these.
    """

    starts: Offsets
    ends: Offsets
    fields: Offsets
    faults: dict[int, str]
    rest: int


def layout(buffer: bytes, separator: int, *, at_end: bool) -> Layout:
    """Find the records of `buffer`, which begins where a record begins.

    at_end: the file ends with the buffer, so that its last record needs no newline.
    """
    data = np.frombuffer(buffer, dtype=np.uint8)
    quotes = np.flatnonzero(data == _QUOTE)
    ends = np.flatnonzero(data == _NEWLINE)
    separators = np.flatnonzero(data == separator)
    if quotes.size:
        if _stray(data, quotes, separator):
            return _walk(buffer, separator, at_end=at_end)
        ends = ends[np.searchsorted(quotes, ends) % 2 == 0]
        separators = separators[np.searchsorted(quotes, separators) % 2 == 0]
        if at_end and quotes.size % 2:
            return _walk(buffer, separator, at_end=at_end)
    rest = int(ends[-1]) + 1 if ends.size else 0
    if at_end and rest < len(buffer):
        ends = np.append(ends, len(buffer))
        rest = len(buffer)
    if rest < len(buffer) and len(buffer) - rest > MAX_RECORD_BYTES:
        return _walk(buffer, separator, at_end=at_end)
    starts = np.concatenate([np.zeros(1, np.int64), ends[:-1] + 1]) if ends.size else ends
    fields = np.searchsorted(separators, ends) - np.searchsorted(separators, starts) + 1
    lengths = ends - starts
    filled = lengths > 0
    filled[lengths == 1] = data[starts[lengths == 1]] != _RETURN
    starts, ends, fields = starts[filled], ends[filled], fields[filled]
    faults = {
        int(i): "_record:field_size"
        for i in np.flatnonzero(ends - starts > MAX_FIELD_BYTES)
        if _widest(separators, int(starts[i]), int(ends[i])) > MAX_FIELD_BYTES
    }
    return Layout(starts=starts, ends=ends, fields=fields, faults=faults, rest=rest)


def _stray(data: npt.NDArray[np.uint8], quotes: Offsets, separator: int) -> bool:
    """Say whether some quote stands where a well-formed file has none."""
    before = data[np.maximum(quotes[::2] - 1, 0)]
    opening = (before == separator) | (before == _NEWLINE) | (before == _QUOTE) | (quotes[::2] == 0)
    after_at = quotes[1::2] + 1
    after = data[np.minimum(after_at, data.size - 1)]
    line_end = (after == _RETURN) & (
        (data[np.minimum(after_at + 1, data.size - 1)] == _NEWLINE) | (after_at + 1 == data.size)
    )
    closing = (
        (after == separator) | (after == _NEWLINE) | line_end | (after == _QUOTE) | (after_at == data.size)
    )
    return not (bool(opening.all()) and bool(closing.all()))


def _widest(separators: Offsets, start: int, end: int) -> int:
    inside = separators[np.searchsorted(separators, start) : np.searchsorted(separators, end)]
    return int(np.diff(np.concatenate([[start - 1], inside, [end]])).max()) - 1


@lru_cache(maxsize=8)
def _patterns(separator: int) -> tuple[re.Pattern[bytes], re.Pattern[bytes]]:
    sep = re.escape(bytes([separator]))
    quoted = rb'"(?:[^"]++|"")*+"'
    plain = rb'[^"\n' + sep + rb"]*+"
    field = rb"(?:" + quoted + rb"|" + plain + rb")"
    record = re.compile(field + rb"(?:" + sep + field + rb")*+\r?(?=\n|\Z)")
    unfinished = re.compile(rb"(?:" + field + sep + rb')*+"(?:[^"]++|"")*+\Z')
    return record, unfinished


def _walk(buffer: bytes, separator: int, *, at_end: bool) -> Layout:
    record, unfinished = _patterns(separator)
    starts: list[int] = []
    ends: list[int] = []
    fields: list[int] = []
    faults: dict[int, str] = {}
    position, size = 0, len(buffer)
    while position < size:
        match = record.match(buffer, position)
        end = match.end() if match else -1
        if match is None or (end == size and not at_end):
            newline = buffer.find(b"\n", position)
            waiting = newline < 0 if match else newline < 0 or unfinished.match(buffer, position) is not None
            if not at_end and (match is not None or waiting) and size - position <= MAX_RECORD_BYTES:
                break
            if match is None or size - position > MAX_RECORD_BYTES:
                end = newline if newline >= 0 else size
                faults[len(starts)] = (
                    "_record:field_size" if end - position > MAX_FIELD_BYTES else "_record:quotes"
                )
        text = buffer[position:end]
        if text not in (b"", b"\r"):
            starts.append(position)
            ends.append(end)
            fields.append(_count(text, separator))
            if len(text) > MAX_FIELD_BYTES and len(starts) - 1 not in faults:
                faults[len(starts) - 1] = "_record:field_size"
        position = end + 1
    return Layout(
        starts=np.array(starts, np.int64),
        ends=np.array(ends, np.int64),
        fields=np.array(fields, np.int64),
        faults=faults,
        rest=min(position, size),
    )


def _count(text: bytes, separator: int) -> int:
    if b'"' not in text:
        return text.count(separator) + 1
    return re.sub(rb'"(?:[^"]++|"")*+"', b"", text).count(separator) + 1


def split_record(record: bytes, separator: int) -> list[str]:
    """Return the fields of one well-formed record, its quotes taken off."""
    sep = bytes([separator])
    fields: list[bytes] = []
    at, size = 0, len(record.removesuffix(b"\r"))
    while True:
        if record[at : at + 1] == b'"':
            end = at + 1
            while record[end : end + 1] != b'"' or record[end + 1 : end + 2] == b'"':
                end += 1 if record[end : end + 1] != b'"' else 2
            fields.append(record[at + 1 : end].replace(b'""', b'"'))
            at = end + 1
        else:
            end = record.find(sep, at)
            end = size if end < 0 else end
            fields.append(record[at:end])
            at = end
        if at >= size:
            return [field.decode() for field in fields]
        at += 1
