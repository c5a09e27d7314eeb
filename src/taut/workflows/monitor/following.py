"""Reading the prediction log as it grows: each record once, also over a restart."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Final

from taut.serving.predictions import PredictionReader, PredictionRecord, decode_record

_DONE: Final = -1
_BACK_US: Final = 3600 * 10**6
_AT_ONCE: Final = 20_000


class Follower:
    """Yields records that were not there before, of segments that are still written too.

    positions: how far each segment was read, as `positions` returned them before; None begins with the segments of the last hour.
    Of more than 20,000 new records of a segment every second, third … one is taken, so that a flood costs no more than that.
    """

    def __init__(
        self,
        log: PredictionReader,
        positions: Mapping[str, int] | None,
        *,
        now_us: int,
        at_once: int = _AT_ONCE,
    ) -> None:
        self._log: Final = log
        self._at_once: Final = at_once
        self.left_out = 0
        if positions is None:
            old = (one.path.stem for one in log.segments() if one.started_us < now_us - _BACK_US)
            positions = dict.fromkeys(old, _DONE)
        self._read: dict[str, int] = dict(positions)

    @property
    def positions(self) -> Mapping[str, int]:
        """Return how far each segment was read: records taken, or -1 for one that nobody writes any more."""
        return dict(self._read)

    def fresh(self) -> Iterator[PredictionRecord]:
        """Yield what is new, segment by segment. A segment counts as read once all of it was yielded."""
        segments = self._log.segments()
        here = {one.path.stem for one in segments}
        self._read = {name: read for name, read in self._read.items() if name in here}
        for segment in segments:
            name = segment.path.stem
            read = self._read.get(name, 0)
            if read == _DONE:
                continue
            payloads = self._log.tail(segment, read)
            every = -(-len(payloads) // self._at_once) or 1
            taken = payloads[::every]
            self.left_out += len(payloads) - len(taken)
            yield from (decode_record(payload) for payload in taken)
            self._read[name] = read + len(payloads) if segment.state == "open" else _DONE
