"""Sealing: a closed segment's records under one root, which becomes one leaf of the ledger."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Final

import msgspec

from taut.core.errors import Corrupt, Denied, NotFound
from taut.serving.predictions.envelope import NO_KEYS, SegmentKeys
from taut.serving.predictions.log import close_orphans
from taut.serving.predictions.reader import SEALED, PredictionReader, Segment
from taut.serving.predictions.record import decode_record
from taut.serving.predictions.segment import seal_left


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

    def __init__(self, folder: Path, keys: SegmentKeys = NO_KEYS) -> None:
        self._folder: Final = folder
        self._reader: Final = PredictionReader(folder, keys)

    def pending(self) -> Iterator[SegmentSeal]:
        """Yield the seal of each closed segment, oldest first; record each in the ledger, then `mark` it.

        A segment without records is removed instead. Crashing between ledger and `mark` yields the same seal again:
        use `segment` as the leaf's subject and append once.
        Raises Corrupt, after all others were yielded, for a segment that cannot be read.
        """
        close_orphans(self._folder)
        damaged: list[str] = []
        for segment in self._reader.segments():
            if segment.state != "closed":
                continue
            try:
                payloads = self._reader.payloads(segment)
                seal = _seal(segment, payloads) if payloads else None
                seal_left(segment.path, segment.path.read_bytes(), self._reader.keys)
            except (Corrupt, Denied) as error:
                damaged.append(f"{segment.path.name}: {error.message}")
                continue
            if seal is None:
                segment.path.unlink(missing_ok=True)
            else:
                yield seal
        if damaged:
            raise Corrupt("; ".join(damaged[:5]))

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
    """Return the ledger's tree hash over records, hexadecimal, so that one record can be proved with the ledger's tools."""
    # on use: the ledger's room loads SQLAlchemy, which a gateway has no need of
    from taut.trust.ledger.merkle import leaf_hash, root_of

    return root_of([leaf_hash(payload) for payload in payloads]).hex()


def record_path(payloads: Sequence[bytes], index: int) -> list[bytes]:
    """Return the inclusion path of one record of a segment, for `taut.trust.ledger.merkle.verify_inclusion`.

    Source: RFC 6962 section 2.1.1, level by level; an odd last node is promoted and has no sibling there.
    """
    from taut.trust.ledger.merkle import leaf_hash, node_hash

    assert 0 <= index < len(payloads), "no such record"
    level, path = [leaf_hash(payload) for payload in payloads], []
    while len(level) > 1:
        if index ^ 1 < len(level):
            path.append(level[index ^ 1])
        pairs = zip(level[0::2], level[1::2], strict=False)
        level = [node_hash(left, right) for left, right in pairs] + (level[-1:] if len(level) % 2 else [])
        index //= 2
    return path
