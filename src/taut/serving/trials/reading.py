"""What a gateway tells control of a trial: of each stage since it began there, so that a report twice heard says nothing new."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

import msgspec

from taut.core.errors import Corrupt

Marks = tuple[tuple[int, ...], tuple[int, ...]]
"""Marks of units: those of the canary, those of the baseline."""


class TrialReading(msgspec.Struct, frozen=True, kw_only=True):
    """What one gateway process counted of one stage of one release.

    release, stage, version: which. Of pairs the first is the canary's. seen: a sample of the units. failed: minute since the epoch -> a
    sample of the units that failed in it. fatal: requests for which a version gave no answer that may be given. answers:
    requests answered. times: answers by the buckets of `taut.serving.meters.TIME_NS`. scored: a sample of units with what was first
    predicted for each: its mark times 16, and the bin of the prediction. broken: requests without an answer of the version's own, for
    whatever reason of ours. worked: as `times`, how long models took, of answers for which one was asked.
    """

    release: str
    stage: int
    version: str = ""
    seen: Marks = ((), ())
    failed: dict[int, Marks] = {}
    fatal: tuple[int, int] = (0, 0)
    answers: tuple[int, int] = (0, 0)
    times: tuple[tuple[int, ...], tuple[int, ...]] = ((), ())
    scored: Marks = ((), ())
    broken: tuple[int, int] = (0, 0)
    worked: tuple[tuple[int, ...], tuple[int, ...]] = ((), ())


_DECODER: Final = msgspec.json.Decoder(tuple[TrialReading, ...])


def encode_trials(readings: Sequence[TrialReading]) -> msgspec.Raw:
    return msgspec.Raw(msgspec.json.encode(tuple(readings)))


def decode_trials(data: bytes | msgspec.Raw) -> tuple[TrialReading, ...]:
    """Return what a gateway told; nothing where it told nothing. Raises Corrupt where it is none of ours."""
    if bytes(data) == b"null":
        return ()
    try:
        return _DECODER.decode(data)
    except (msgspec.MsgspecError, UnicodeDecodeError) as error:
        raise Corrupt(f"a gateway told of a trial what cannot be read: {error}") from error
