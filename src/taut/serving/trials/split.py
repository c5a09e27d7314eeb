"""Who is answered by which version: by lots that the release's salt draws anew."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from math import log
from typing import Any, Final, NamedTuple

from taut.serving.meters import EndpointMeter
from taut.serving.runtime import Outputs
from taut.serving.trials.reading import TrialReading
from taut.serving.trials.sketch import Sketch

_KNOWN_MOST: Final = 65_536
_SEEN_MOST: Final = 512
_FAILED_MOST: Final = 256
_SCORED_MOST: Final = 2048
_MINUTES_MOST: Final = 3
_MINUTE_US: Final = 60_000_000
_OURS: Final = 500  # from here on a status says that not the caller failed
_FATAL: Final = frozenset({"bad_answer", "internal"})
"""Codes of answers that a version gave and that may not be given, or of a failure of ours while it answered."""
SLOTS: Final = 8
_LOT_BYTES: Final = 7
_LOTS: Final = 2.0 ** (8 * _LOT_BYTES)
BINS: Final = 16


def unit_of(principal: str, subject: str) -> str:
    """Return what is drawn to an arm and counted once: whoever the request is about, where it says so, else who asks."""
    return f"{principal}\n{subject}" if subject else principal


def lots_of(salt: str, unit: str) -> tuple[bytes, int]:
    """Return a unit's lots, 56 bits for each of eight slots, and its mark in samples, 48 bits: independent of one another."""
    digest = hashlib.blake2b(
        unit.encode(), key=salt.encode()[:64], digest_size=SLOTS * _LOT_BYTES + 6
    ).digest()
    return digest[:-6], int.from_bytes(digest[-6:])


def bin_of(probabilities: Sequence[float]) -> int:
    """Return the bin of a prediction, below `BINS`: a tenth of the second class's probability, or of more classes the likeliest."""
    if len(probabilities) == 2:
        return min(int(probabilities[1] * 10), 9)
    return min(max(range(len(probabilities)), key=probabilities.__getitem__), BINS - 1)


class Trial:
    """What a gateway counts of one stage of a version that is tried, and of the live one beside it. One event loop owns it.

    It is kept over epochs of the same stage, so that a snapshot which says nothing new of it interrupts nothing.
    """

    def __init__(self, release: str, stage: int, version: str = "") -> None:
        self.release: Final = release
        self.stage: Final = stage
        self.version: Final = version
        self._seen: Final = Sketch(_SEEN_MOST)
        self._failed: Final[dict[int, Sketch]] = {}
        self._scored: Final = Sketch(_SCORED_MOST)
        self._fatal: Final = [0, 0]
        self._meters: tuple[EndpointMeter, EndpointMeter] | None = None
        self._before: list[_Met] = []
        self._last: list[_Met] = []
        self._by_model = False

    def count_by(self, canary: EndpointMeter, baseline: EndpointMeter, *, by_model: bool) -> None:
        """Tell answers and times by the meters of both versions from now on.

        by_model: compare how long the models took, without answers of a cache: the canary's is the colder one.
        """
        if self._meters != (canary, baseline):
            self._meters, self._by_model = (canary, baseline), by_model
            self._before = self._met()

    def end(self) -> None:
        """Count no more answers: what comes now is of another stage, or of none."""
        if self._meters is not None:
            self._last, self._meters = self._met(), None

    def see(self, mark: int, canary: bool) -> None:
        self._seen.add(mark, canary)

    def fail(self, mark: int, canary: bool, code: str, now_us: int) -> None:
        """Count a failed request: its unit once a minute, and where no answer could be given the request itself."""
        if code in _FATAL:
            self._fatal[not canary] += 1
        minute = now_us // _MINUTE_US
        sketch = self._failed.get(minute)
        if sketch is None:
            sketch = self._failed[minute] = Sketch(_FAILED_MOST)
            while len(self._failed) > _MINUTES_MOST:
                del self._failed[min(self._failed)]
        sketch.add(mark, canary)

    def score(self, mark: int, canary: bool, outputs: Outputs) -> None:
        """Count what was predicted for a unit; of several predictions control takes one."""
        if outputs.probabilities:
            self._scored.add(mark * BINS + bin_of(outputs.probabilities[0]), canary)

    def reading(self) -> TrialReading:
        last = self._last if self._meters is None else self._met()
        met = [now.since(before) for now, before in zip(last, self._before, strict=True)] or [_NOTHING] * 2
        times = met[0].times, met[1].times
        return TrialReading(
            release=self.release,
            stage=self.stage,
            version=self.version,
            seen=self._seen.arms(),
            failed={minute: sketch.arms() for minute, sketch in self._failed.items()},
            fatal=(self._fatal[0], self._fatal[1]),
            answers=(sum(times[0]), sum(times[1])),
            times=times,
            scored=self._scored.arms(),
            broken=(met[0].broken, met[1].broken),
            worked=(met[0].worked, met[1].worked),
        )

    def _met(self) -> list[_Met]:
        assert self._meters is not None
        return [_met(one, by_model=self._by_model) for one in self._meters]


class _Met(NamedTuple):
    """What a version's meter says: see `TrialReading`."""

    times: tuple[int, ...] = ()
    worked: tuple[int, ...] = ()
    broken: int = 0

    def since(self, before: _Met) -> _Met:
        return _Met(
            _less(self.times, before.times), _less(self.worked, before.worked), self.broken - before.broken
        )


_NOTHING: Final = _Met()


def _met(meter: EndpointMeter, *, by_model: bool) -> _Met:
    worked = meter.model.reading().counts
    refused = sum(one.count for one in meter.refusals.reading() if one.status >= _OURS)
    return _Met(worked if by_model else meter.total.reading().counts, worked, refused + meter.fallbacks)


def _less(now: tuple[int, ...], then: tuple[int, ...]) -> tuple[int, ...]:
    return tuple(one - other for one, other in zip(now, then, strict=True))


class Side(NamedTuple):
    """A version that may answer. slot: 0 for the live one. weight: above 0. endpoint, routes: as the gateway compiled it."""

    slot: int
    weight: float
    endpoint: Any
    routes: Any


class Arm:
    """Where one unit belongs. mark: of it in samples. endpoint, routes: of its version. trials: in which it counts, a tried
    version's in its own, the live one's in each."""

    __slots__ = ("endpoint", "live", "mark", "routes", "scored", "trials")

    def __init__(self, side: Side, mark: int, trials: Sequence[Trial]) -> None:
        self.live: Final = side.slot == 0
        self.mark: Final = mark
        self.endpoint: Final = side.endpoint
        self.routes: Final = side.routes
        self.trials: Final = trials
        self.scored = False

    def answered(
        self, _batch: Any, _features: Any, outputs: Outputs, _took_ns: int, stood_in: bool, now_us: int
    ) -> None:
        """Count the first prediction that the unit gets, and an answer of what stood in as a failure."""
        if not self.scored:
            self.scored = True
            for trial in self.trials:
                trial.score(self.mark, not self.live, outputs)
        if stood_in:
            self.fail("stood_in", now_us)

    def fail(self, code: str, now_us: int) -> None:
        for trial in self.trials:
            trial.fail(self.mark, not self.live, code, now_us)


class Split:
    """Which of several versions answers a unit: the one whose lot comes first in a race by weight.

    Each version answers its weight of the units. A weight that grows takes units over and gives none back, and nobody moves
    between two versions that keep their weights' ratio. arms: those that asked lately; a unit is drawn again, to the same
    arm, once it was forgotten. sides: the live version's first.
    Source: Thaler & Ravishankar 1998 (rendezvous hashing), by weights as an exponential race.
    """

    def __init__(self, salt: str, sides: Sequence[Side]) -> None:
        self.arms: Final[dict[str, Arm]] = {}
        self._salt: Final = salt
        self._sides: Final = tuple(sides)
        self._trials: dict[int, tuple[Trial, ...]] = {}
        self.count_in([Trial(salt, 0) for _ in self._sides[1:]])

    def count_in(self, trials: Sequence[Trial]) -> None:
        """Count each tried version in its trial, in order, from now on. Called by the gateway before it serves."""
        self._trials = {side.slot: (trial,) for side, trial in zip(self._sides[1:], trials, strict=True)}
        self._trials[0] = tuple(trials)

    def draw(self, unit: str) -> Arm:
        """Return the arm of a unit that is not known yet."""
        lots, mark = lots_of(self._salt, unit)
        side = first_of(lots, self._sides)
        if len(self.arms) >= _KNOWN_MOST:
            self.arms.clear()
        trials = self._trials[side.slot]
        arm = self.arms[unit] = Arm(side, mark, trials)
        for trial in trials:
            trial.see(mark, not arm.live)
        return arm


def first_of(lots: bytes, sides: Sequence[Side]) -> Side:
    """Return the side whose lot comes first: −ln(lot) / weight is exponential with the weight for its rate."""
    best, least = sides[0], float("inf")
    for side in sides:
        at = side.slot * _LOT_BYTES
        comes = -log((int.from_bytes(lots[at : at + _LOT_BYTES]) + 0.5) / _LOTS) / side.weight
        if comes < least:
            best, least = side, comes
    return best


class Trials:
    """What a gateway counts of the releases that are under way, and of the stage before: its last words may not be heard yet."""

    def __init__(self) -> None:
        self._now: dict[tuple[str, str], Trial] = {}
        self._before: dict[tuple[str, str], Trial] = {}

    def of(self, release: str, stage: int, version: str = "") -> Trial:
        """Return where a stage of a version is counted, begun now where it is a new one."""
        key = release, version
        known = self._now.get(key)
        if known is not None and known.stage == stage:
            return known
        if known is not None:
            known.end()
            self._before[key] = known
        trial = self._now[key] = Trial(release, stage, version)
        return trial

    def keep(self, releases: set[str]) -> None:
        """Forget releases that are not under way any more."""
        self._now = {key: trial for key, trial in self._now.items() if key[0] in releases}
        self._before = {key: trial for key, trial in self._before.items() if key[0] in releases}

    def reading(self) -> tuple[TrialReading, ...]:
        return tuple(trial.reading() for trial in (*self._before.values(), *self._now.values()))
