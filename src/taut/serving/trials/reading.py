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


class ShadowReading(msgspec.Struct, frozen=True, kw_only=True):
    """What one gateway process counted of one shadow since it began there.

    ready: whether the version is in memory, so that a switch to it takes no load; fault: why it cannot be. answered: pairs that both versions
    answered; dropped: requests that were drawn and not compared, because there was no time or no room. differ: pairs whose
    decisions differ. Of pairs of counts the first is the shadow's: failed: pairs in which it alone failed. moved: at each
    edge of the bins of a prediction, pairs in which it alone lies beyond. slower: the same at each of `taut.serving.meters.TIME_NS`. times: of the
    live version by these buckets. callers: a sample of who asked, by their marks.
    """

    release: str
    ready: bool
    fault: str = ""
    answered: int = 0
    dropped: int = 0
    differ: int = 0
    failed: tuple[int, int] = (0, 0)
    moved: Marks = ((), ())
    slower: Marks = ((), ())
    times: tuple[int, ...] = ()
    callers: tuple[int, ...] = ()


_DECODER: Final = msgspec.json.Decoder(tuple[TrialReading, ...])
_SHADOWS: Final = msgspec.json.Decoder(tuple[ShadowReading, ...])


def encode_trials(readings: Sequence[TrialReading] | Sequence[ShadowReading]) -> msgspec.Raw:
    return msgspec.Raw(msgspec.json.encode(tuple(readings)))


def decode_trials(data: bytes | msgspec.Raw) -> tuple[TrialReading, ...]:
    """Return what a gateway told; nothing where it told nothing. Raises Corrupt where it is none of ours."""
    if bytes(data) == b"null":
        return ()
    try:
        return _DECODER.decode(data)
    except (msgspec.MsgspecError, UnicodeDecodeError) as error:
        raise Corrupt(f"a gateway told of a trial what cannot be read: {error}") from error


def decode_shadows(data: bytes | msgspec.Raw) -> tuple[ShadowReading, ...]:
    """Return what a gateway told of shadows; nothing where it told nothing. Raises Corrupt where it is none of ours."""
    if bytes(data) == b"null":
        return ()
    try:
        return _SHADOWS.decode(data)
    except (msgspec.MsgspecError, UnicodeDecodeError) as error:
        raise Corrupt(f"a gateway told of a shadow what cannot be read: {error}") from error
