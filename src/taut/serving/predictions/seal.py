"""Sealing: a closed segment's records under one root, which becomes one leaf of the ledger."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Final

import msgspec

from taut.core.errors import NotFound
from taut.serving.predictions.log import close_orphans
from taut.serving.predictions.reader import SEALED, PredictionReader, Segment
from taut.serving.predictions.record import decode_record


class SegmentSeal(msgspec.Struct, frozen=True, kw_only=True):
    """What the ledger keeps of a segment: commitments only, no value of any request.

    root: RFC 6962 tree hash over the records, hexadecimal. first_us, last_us: times of the first and last record.
    """

    segment: str
    writer: str
    records: int
    root: str
    size_bytes: int
    first_us: int
    last_us: int


class Sealer:
    """Control's part: closes what dead gateways left, roots closed segments, and marks those that the ledger has."""

    def __init__(self, folder: Path) -> None:
        self._folder: Final = folder
        self._reader: Final = PredictionReader(folder)

    def pending(self) -> Iterator[SegmentSeal]:
        """Yield the seal of each closed segment, oldest first; record each in the ledger, then `mark` it.

        A segment without records is removed instead. Crashing between ledger and `mark` yields the same seal again:
        use `segment` as the leaf's subject and append once.
        """
        close_orphans(self._folder)
        for segment in self._reader.segments():
            if segment.state == "closed":
                payloads = self._reader.payloads(segment)
                if not payloads:
                    segment.path.unlink(missing_ok=True)
                    continue
                yield _seal(segment, payloads)

    def mark(self, seal: SegmentSeal) -> None:
        """Rename the segment to its sealed name. Doing so again is no error."""
        closed = self._folder / f"{seal.segment}.closed"
        sealed = closed.with_suffix(SEALED)
        try:
            closed.rename(sealed)
        except FileNotFoundError as error:
            if not sealed.exists():
                raise NotFound(f"segment {seal.segment} is gone: restore it from a backup") from error


def _seal(segment: Segment, payloads: Sequence[bytes]) -> SegmentSeal:
    return SegmentSeal(
        segment=segment.path.stem,
        writer=segment.writer,
        records=len(payloads),
        root=segment_root(payloads),
        size_bytes=sum(map(len, payloads)),
        first_us=decode_record(payloads[0]).time_us,
        last_us=decode_record(payloads[-1]).time_us,
    )


def segment_root(payloads: Sequence[bytes]) -> str:
    """Return the tree hash over records, hexadecimal.

    Source: RFC 6962 section 2.1, computed with one subtree of each size at hand.
    """
    stack: list[tuple[int, bytes]] = []
    for payload in payloads:
        size, node = 1, hashlib.sha256(b"\x00" + payload).digest()
        while stack and stack[-1][0] == size:
            node = hashlib.sha256(b"\x01" + stack.pop()[1] + node).digest()
            size *= 2
        stack.append((size, node))
    if not stack:
        return hashlib.sha256(b"").hexdigest()
    node = stack.pop()[1]
    while stack:
        node = hashlib.sha256(b"\x01" + stack.pop()[1] + node).digest()
    return node.hex()
