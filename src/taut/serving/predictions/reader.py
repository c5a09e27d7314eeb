"""The reading end of the prediction log: records in order, and one record by its request id."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import suppress
from itertools import islice
from pathlib import Path
from typing import Final

import msgspec

from taut.core.errors import InvalidInput, NotFound
from taut.serving.predictions.envelope import NO_KEYS, SegmentKeys
from taut.serving.predictions.log import CLOSED, OPEN
from taut.serving.predictions.record import ID_BYTES, ID_OFFSET, PredictionRecord, decode_record
from taut.serving.predictions.segment import Mark, frames, mark_of, sealed_part

SEALED: Final = ".seg"
_SUFFIXES: Final = (OPEN, CLOSED, SEALED)
_ALPHABET: Final = {character: value for value, character in enumerate("0123456789abcdefghjkmnpqrstvwxyz")}
_SLACK_US: Final = 60_000_000  # how far clocks of gateways may be apart before a look-up reads every segment


class Segment(msgspec.Struct, frozen=True, kw_only=True):
    """One file of the log. started_us: the wall clock when it began. state: open, closed or sealed."""

    path: Path
    started_us: int
    writer: str
    state: str


class PredictionReader:
    """Reads what gateways wrote, also while they write. A torn tail ends its segment and is no error.

    keys: open sealed segments; without them reading a record of one raises Denied, and only request ids can be had.
    """

    def __init__(self, folder: Path, keys: SegmentKeys = NO_KEYS) -> None:
        self._folder: Final = folder
        self.keys: Final = keys

    def segments(self) -> list[Segment]:
        """Return the segments, oldest first."""
        found = []
        for path in self._folder.glob("*-*-*"):
            started, _, rest = path.stem.partition("-")
            if path.suffix in _SUFFIXES and started.isdigit():
                state = {OPEN: "open", CLOSED: "closed", SEALED: "sealed"}[path.suffix]
                writer = rest.rpartition("-")[0]
                found.append(Segment(path=path, started_us=int(started), writer=writer, state=state))
        return sorted(found, key=lambda segment: (segment.started_us, segment.path.name))

    def records(self) -> Iterator[PredictionRecord]:
        """Yield all records, segment by segment. Raises Corrupt for a file that is no segment."""
        for segment in self.segments():
            for payload in self.payloads(segment):
                yield decode_record(payload)

    def payloads(self, segment: Segment) -> list[bytes]:
        """Return the raw records of one segment, in order."""
        data = _read(segment.path)
        return [] if data is None else list(whole_records(data, self.keys))

    def tail(self, segment: Segment, after: int) -> list[bytes]:
        """Return the raw records of one segment behind the first `after`, in order; of a sealed one only what is new is opened."""
        data = _read(segment.path)
        return [] if data is None else list(whole_records(data, self.keys, after=after))

    def find_all(self, request_ids: set[str]) -> dict[str, PredictionRecord]:
        """Return the records of many requests by id, without those that no segment has; each segment is read once at most."""
        left: dict[bytes, int] = {}
        for request_id in request_ids:
            with suppress(InvalidInput):
                left[request_id.encode()] = _time_us(request_id)
        found: dict[str, PredictionRecord] = {}
        for segment in reversed(self.segments()):
            oldest, newest = min(left.values(), default=0), max(left.values(), default=0)
            if not left:
                break
            if segment.started_us > newest + _SLACK_US or self.written_us(segment) < oldest - _SLACK_US:
                continue
            data = _read(segment.path)
            if data is None or not any(key in data for key in left):
                continue
            for payload in whole_records(data, self.keys):
                key = payload[ID_OFFSET : ID_OFFSET + ID_BYTES]
                if left.pop(key, None) is not None:
                    found[key.decode()] = decode_record(payload)
        return found

    def written_us(self, segment: Segment) -> int:
        """Return when a segment was written last, about; of one that is still open, that it may be any time."""
        if segment.state == "open":
            return 2**62
        try:
            return segment.path.stat().st_mtime_ns // 1000
        except FileNotFoundError:  # sealed meanwhile
            return 2**62

    def marked(self) -> Iterator[tuple[Segment, Mark, list[bytes]]]:
        """Yield each segment with the leave by which its records were written, and them. Raises as `payloads` does."""
        for segment in self.segments():
            data = _read(segment.path)
            if data:
                yield segment, mark_of(data), list(whole_records(data, self.keys))

    def ids(self) -> Iterator[str]:
        """Yield the request id of each record, segment by segment: they lie in the clear, so that it takes no key."""
        for segment in self.segments():
            yield from self.ids_of(segment)

    def ids_of(self, segment: Segment) -> list[str]:
        """Return the request ids of one segment, in order."""
        data = _read(segment.path) or b""
        found = sealed_part(data)
        if found is not None:
            return found[1].ids()
        return [str(one[ID_OFFSET : ID_OFFSET + ID_BYTES], "ascii") for _, one in frames(data)]

    def find(self, request_id: str) -> PredictionRecord:
        """Return the record of a request.

        Raises NotFound when no segment has it; InvalidInput when `request_id` is none.
        """
        time_us = _time_us(request_id)
        segments = self.segments()
        likely = [segment for segment in segments if segment.started_us <= time_us + _SLACK_US]
        later = [segment for segment in segments if segment.started_us > time_us + _SLACK_US]
        for segment in [*reversed(likely), *later]:
            found = _find(segment.path, request_id.encode(), self.keys)
            if found is not None:
                return found
        raise NotFound(
            f"no record of request {request_id}: check the id, or whether its segment was archived"
        )


def whole_records(data: bytes, keys: SegmentKeys, wanted: bytes = b"", *, after: int = 0) -> Iterator[bytes]:
    """Yield the records of a segment's bytes, up to the first that is torn.

    wanted: a request id; of a sealed segment only batches that name it are opened. after: how many are left out at the beginning.
    Raises Corrupt for what is no segment, Denied for a sealed one that `keys` do not open.
    """
    found = sealed_part(data)
    if found is None:
        yield from (bytes(payload) for _, payload in islice(frames(data), after, None))
    else:
        yield from found[1].records(keys.cipher(found[0]), wanted, after=after)


def _find(path: Path, key: bytes, keys: SegmentKeys) -> PredictionRecord | None:
    """Search by the id's bytes, which lie at a fixed place of a record; most segments do not have them at all."""
    data = _read(path)
    if data is None or key not in data:
        return None
    for payload in whole_records(data, keys, key):
        if payload[ID_OFFSET : ID_OFFSET + ID_BYTES] == key:
            return decode_record(payload)
    return None


def _read(path: Path) -> bytes | None:
    """Return a segment's bytes, or None when it was renamed (by its writer or the sealer) and cannot be found again.

    It is read and not mapped: its writer cuts off what it did not use when it closes it, and to touch a mapped page that is
    gone ends the process (SIGBUS). A read that is overtaken by the cut returns what is left, which is all that was written.
    """
    for suffix in (path.suffix, *_SUFFIXES):
        try:
            return path.with_suffix(suffix).read_bytes()
        except FileNotFoundError:
            continue
    return None


def _time_us(request_id: str) -> int:
    digits = request_id.removeprefix("req_")
    if len(request_id) != ID_BYTES or len(digits) != 26 or not set(digits) <= set(_ALPHABET):
        raise InvalidInput(f"{request_id[:60]!r} is no request id: expected req_ and 26 characters")
    number = 0
    for character in digits[:10]:
        number = number * 32 + _ALPHABET[character]
    return number * 1000  # the first ten digits are the milliseconds, the other sixteen 80 random bits
