"""From counters that only grow to the events of objectives: what came since the last look, restarts of either side included."""

from __future__ import annotations

import zlib
from collections import deque
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Final, NamedTuple

import msgspec

from taut.lifecycle.objectives import Objective
from taut.serving.meters import TIME_NS, EndpointReading, HistogramReading, decode_reading, quantile
from taut.serving.snapshot import GatewayState

if TYPE_CHECKING:  # it loads numpy
    from taut.lifecycle.monitoring import Figures

_OURS: Final = 500  # from here on a status says that not the caller failed
_GONE_S: Final = 600.0
"""For how long the counters of a gateway that is not heard are kept, while it reconnects."""
_NS_PER_MS: Final = 1_000_000


class Counters(msgspec.Struct, frozen=True, array_like=True):
    """What one process of a gateway has counted of one version at an endpoint since it began.

    answered: of them `stood_in` by something else than the live version. times: of them by bucket. failed: refusals that are ours.
    """

    answered: int
    failed: int
    stood_in: int
    times: tuple[int, ...]


class Known(msgspec.Struct, frozen=True, array_like=True):
    """All that was read when: what a control that starts anew measures growth from."""

    gateways: dict[str, dict[str, Counters]]
    outcomes: dict[str, tuple[int, int]]


class Events(NamedTuple):
    """What happened at an endpoint since the last look."""

    counted: Counters

    def of(self, objective: Objective) -> tuple[float, int] | None:
        """Return bad and all events of an objective; a part of one where its limit lies within a bucket. None for what is counted otherwise."""
        counted = self.counted
        match objective.name:
            case "availability":
                return counted.failed, counted.answered + counted.failed
            case "live":
                return counted.stood_in, counted.answered
            case "latency" | "latency_p99":
                return late(counted.times, objective.limit), sum(counted.times)
            case _:
                return None


class GatewayCounts:
    """Growth of gateways' counters by endpoint. One thread owns it.

    Guarantees: a report that comes twice adds nothing; a gateway's process that control never heard of counts from its start on, and one
    that was heard before control was restarted from where it was. Not counted: what a gateway counted between its last report and its death.
    """

    def __init__(self, known: dict[str, dict[str, Counters]] | None = None) -> None:
        self._known: Final = known or {}
        self._heard_s: Final[dict[str, float]] = {}

    @property
    def known(self) -> dict[str, dict[str, Counters]]:
        return self._known

    def take(self, states: Sequence[GatewayState], now_s: float) -> dict[str, Events]:
        """Return what came since the last call, by endpoint. now_s: of a clock that does not jump."""
        grown: dict[str, Counters] = {}
        for state in states:
            reading = None if state.beat is None else decode_reading(state.beat.meters)
            if reading is None:
                continue
            process = f"{state.gateway}#{state.pid}#{reading.started_us}"
            self._heard_s[process] = now_s
            before = self._known.get(process, {})
            now = {f"{one.endpoint}/{one.version}": counters_of(one) for one in reading.endpoints}
            self._known[process] = now
            for place, counters in now.items():
                endpoint = place.partition("/")[0]
                grown[endpoint] = _sum(grown.get(endpoint), _since(before.get(place), counters))
        for process in list(self._known):
            if now_s - self._heard_s.setdefault(process, now_s) > _GONE_S:
                del self._known[process], self._heard_s[process]
        return {endpoint: Events(counters) for endpoint, counters in grown.items()}


class Traffic(msgspec.Struct, frozen=True, kw_only=True):
    """What an endpoint did lately. seconds: how long that is; 0 where nobody looked twice yet. Shares are None without requests, times in
    milliseconds."""

    seconds: float = 0.0
    requests_per_s: float = 0.0
    failed: float | None = None
    stood_in: float | None = None
    p50_ms: float | None = None
    p95_ms: float | None = None
    p99_ms: float | None = None


class Recent:
    """The growth of the last five minutes by endpoint, of looks that followed one another. Its size is bounded by `most` looks."""

    def __init__(self, *, window_s: float = 300.0, most: int = 512) -> None:
        self._window_s: Final = window_s
        self._looks: Final[deque[tuple[float, float, dict[str, Events]]]] = deque(maxlen=most)

    def add(self, since_s: float, now_s: float, grown: dict[str, Events]) -> None:
        """Take what came between two looks."""
        self._looks.append((since_s, now_s, grown))

    def of(self, endpoint: str, now_s: float) -> Traffic:
        """Return what an endpoint did within the window that ends now."""
        seconds, whole = 0.0, None
        for since_s, until_s, grown in self._looks:
            if since_s >= now_s - self._window_s:
                seconds += until_s - since_s
                if endpoint in grown:
                    whole = _sum(whole, grown[endpoint].counted)
        if whole is None or seconds <= 0:
            return Traffic(seconds=max(0.0, seconds))
        requests = whole.answered + whole.failed
        p50, p95, p99 = (quantile(TIME_NS, whole.times, q) for q in (0.5, 0.95, 0.99))
        return Traffic(
            seconds=seconds, requests_per_s=requests / seconds, failed=whole.failed / requests if requests else None,
            stood_in=whole.stood_in / whole.answered if whole.answered else None,
            p50_ms=_ms(p50), p95_ms=_ms(p95), p99_ms=_ms(p99),
        )  # fmt: skip


def _ms(ns: float | None) -> float | None:
    return None if ns is None else ns / _NS_PER_MS


class OutcomeCounts:
    """Growth of known outcomes by endpoint: how many came, and by how many more of them say that the answer was wrong."""

    def __init__(self, known: dict[str, tuple[int, int]] | None = None) -> None:
        self.known: Final = known or {}

    def take(self, said: Mapping[tuple[str, str], Figures]) -> dict[str, tuple[int, int]]:
        """Return (wrong, all) since the last call. A correction makes it fewer wrong ones; a watch that began anew counts from nothing."""
        grown: dict[str, tuple[int, int]] = {}
        for (endpoint, version), figures in said.items():
            quality, place = figures.quality, f"{endpoint}/{version}"
            labelled = quality.labelled
            wrong = round((1.0 - (quality.right or 0.0)) * labelled) if labelled else 0
            before = self.known.get(place, (0, 0))
            if labelled < before[1]:
                before = (0, 0)
            self.known[place] = (wrong, labelled)
            so_far = grown.get(endpoint, (0, 0))
            grown[endpoint] = (so_far[0] + wrong - before[0], so_far[1] + labelled - before[1])
        return grown


class Minute(NamedTuple):
    """What a minute shows of an endpoint, the worst of the versions that answer. age_s: of the newest row that was learned from; None where it
    is not known. drifted: whether any column is."""

    age_s: float | None
    drifted: bool


def minutes_of(said: Mapping[tuple[str, str], Figures], now_s: float) -> dict[str, Minute]:
    """Return what this minute shows, by endpoint."""
    found: dict[str, Minute] = {}
    for (endpoint, _), figures in said.items():
        age_s = None
        if figures.stale_s is not None and figures.last_s is not None:
            age_s = now_s - (figures.last_s - figures.stale_s)
        other = found.get(endpoint, Minute(None, drifted=False))
        ages = [one for one in (age_s, other.age_s) if one is not None]
        drifted = other.drifted or any(one.state == "drifted" for one in figures.columns)
        found[endpoint] = Minute(max(ages, default=None), drifted)
    return found


def counters_of(reading: EndpointReading) -> Counters:
    total = reading.stages.get("total", HistogramReading((0,) * (len(TIME_NS) + 1), 0))
    return Counters(
        answered=total.count, stood_in=reading.fallbacks, times=total.counts,
        failed=sum(one.count for one in reading.refusals if one.status >= _OURS),
    )  # fmt: skip


def late(times: Sequence[int], limit_ms: float) -> float:
    """Return how many of the times were longer than a limit; within a bucket they are taken as evenly spread."""
    limit_ns, low, later = limit_ms * _NS_PER_MS, 0, 0.0
    for bound, count in zip((*TIME_NS, None), times, strict=True):
        if bound is None or low >= limit_ns:
            later += count
        elif bound > limit_ns:
            later += count * (bound - limit_ns) / (bound - low)
        low = bound or low
    return later


def encode_known(gateways: GatewayCounts, outcomes: OutcomeCounts) -> bytes:
    return zlib.compress(msgspec.msgpack.encode(Known(gateways.known, outcomes.known)), 1)


def decode_known(body: bytes) -> Known:
    return msgspec.msgpack.decode(zlib.decompress(body), type=Known)


def _since(before: Counters | None, after: Counters) -> Counters:
    """Return the growth; all of it where the counters began anew, as of a version that was forgotten and came back."""
    if before is None or after.answered < before.answered or after.failed < before.failed:
        return after
    return Counters(
        after.answered - before.answered, after.failed - before.failed, max(0, after.stood_in - before.stood_in),
        tuple(max(0, new - old) for old, new in zip(before.times, after.times, strict=True)),
    )  # fmt: skip


def _sum(one: Counters | None, other: Counters) -> Counters:
    if one is None:
        return other
    return Counters(
        one.answered + other.answered, one.failed + other.failed, one.stood_in + other.stood_in,
        tuple(left + right for left, right in zip(one.times, other.times, strict=True)),
    )  # fmt: skip
