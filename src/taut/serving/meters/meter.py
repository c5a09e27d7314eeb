"""The counters of a gateway: written by its event loop alone, without a lock, and read by it once a second."""

from __future__ import annotations

from typing import Final

from taut.serving.meters.histogram import TIME_NS, Histogram
from taut.serving.meters.reading import EndpointReading, NodeReading, Refusals

_VERSIONS: Final = 8  # of an endpoint; older ones were rolled over long ago, and every series costs
_SORTED: Final = 3 * 256
_STAGES: Final = ("guard", "features", "queue", "model", "total")


class RefusalCounter:
    """Refusals by status and code, both of them from the small table of errors."""

    __slots__ = ("_counts", "total")

    def __init__(self) -> None:
        self._counts: Final[dict[tuple[int, str], int]] = {}
        self.total = 0

    def add(self, status: int, code: str) -> None:
        key = (status, code)
        self.total += 1
        self._counts[key] = self._counts.get(key, 0) + 1

    def reading(self) -> tuple[Refusals, ...]:
        return tuple(Refusals(status, code, count) for (status, code), count in self._counts.items())


class NodeMeter:
    """Counts what one node of a graph does. left_out: answers that were given without it."""

    __slots__ = ("failed", "left_out", "times")

    def __init__(self) -> None:
        self.times: Final = Histogram(TIME_NS)
        self.failed = 0
        self.left_out = 0

    def observe(self, elapsed_ns: int, *, failed: bool) -> None:
        self.times.observe(elapsed_ns)
        self.failed += failed


class EndpointMeter:
    """Counts the requests of one endpoint while one version is live on it.

    cache_hits, cache_misses: to be counted by the result cache, with `answered` for every answer all the same.
    """

    __slots__ = (
        "_guard", "_model", "_told", "_total", "_unsorted", "cache_hits", "cache_misses", "fallbacks", "features", "nodes",
        "queue", "refusals",
    )  # fmt: skip

    def __init__(self) -> None:
        self.features: Final = Histogram(TIME_NS)
        self.queue: Final = Histogram(TIME_NS)
        self._guard: Final = Histogram(TIME_NS)
        self._model: Final = Histogram(TIME_NS)
        self._total: Final = Histogram(TIME_NS)
        self._unsorted: Final[list[int]] = []  # guard, model and total of answer after answer
        self.refusals: Final = RefusalCounter()
        self.nodes: Final[dict[str, NodeMeter]] = {}
        self.fallbacks = 0
        self.cache_hits = 0
        self.cache_misses = 0
        self._told: tuple[tuple[int, ...], EndpointReading] | None = None

    def node(self, name: str) -> NodeMeter:
        """Return the meter of a node of the graph that is live: as many as its plan has, no more."""
        meter = self.nodes.get(name)
        if meter is None:
            meter = self.nodes[name] = NodeMeter()
        return meter

    def answered(self, guard_ns: int, model_ns: int, total_ns: int) -> None:
        """Count an answer. model_ns: 0 for one that no model was asked for.

        It is sorted into its buckets with hundreds of others, or when somebody reads: after a model of some milliseconds
        each request would find their bounds out of the processor's cache.
        """
        unsorted = self._unsorted
        unsorted += (guard_ns, model_ns, total_ns)
        if len(unsorted) >= _SORTED:
            self._sort()

    @property
    def guard(self) -> Histogram:
        self._sort()
        return self._guard

    @property
    def model(self) -> Histogram:
        self._sort()
        return self._model

    @property
    def total(self) -> Histogram:
        self._sort()
        return self._total

    def _sort(self) -> None:
        unsorted = self._unsorted
        self._guard.observe_all(unsorted[0::3])
        self._model.observe_all([took_ns for took_ns in unsorted[1::3] if took_ns])
        self._total.observe_all(unsorted[2::3])
        unsorted.clear()

    def reading(self, endpoint: str, version: str) -> EndpointReading:
        """Return what was counted; the same value as before where nothing came to it, as for versions of the past."""
        state = (
            self.guard.total, self.features.total, self.queue.total, self.model.total, self.total.total,
            self.refusals.total, self.fallbacks, self.cache_hits, self.cache_misses,
            *[node.times.total for node in self.nodes.values()],
        )  # fmt: skip
        if self._told is None or self._told[0] != state:
            self._told = state, self._read(endpoint, version)
        return self._told[1]

    def _read(self, endpoint: str, version: str) -> EndpointReading:
        stages = {name: getattr(self, name).reading() for name in _STAGES}
        return EndpointReading(
            endpoint=endpoint,
            version=version,
            stages={name: reading for name, reading in stages.items() if any(reading.counts)},
            refusals=self.refusals.reading(),
            fallbacks=self.fallbacks,
            cache_hits=self.cache_hits,
            cache_misses=self.cache_misses,
            nodes=tuple(
                NodeReading(name, node.times.reading(), node.failed, node.left_out)
                for name, node in self.nodes.items()
            ),
        )


class Meters:
    """The meters of one gateway process, by endpoint and version.

    Guarantees: a version that comes back, as after a rollback, counts on where it was, while it is among the last eight
    of its endpoint. Not guaranteed: figures of an endpoint that is served no more, or of older versions.
    """

    def __init__(self) -> None:
        self._meters: dict[str, dict[str, EndpointMeter]] = {}
        self.outside: Final = RefusalCounter()

    def of(self, endpoint: str, version: str) -> EndpointMeter:
        """Return the meter of what is live now."""
        versions = self._meters.setdefault(endpoint, {})
        meter = versions.pop(version, None) or EndpointMeter()
        versions[version] = meter  # the newest comes last
        while len(versions) > _VERSIONS:
            del versions[next(iter(versions))]
        return meter

    def keep(self, endpoints: set[str]) -> None:
        """Forget endpoints that are served no more."""
        self._meters = {name: versions for name, versions in self._meters.items() if name in endpoints}

    def reading(self) -> tuple[EndpointReading, ...]:
        return tuple(
            meter.reading(endpoint, version)
            for endpoint, versions in self._meters.items()
            for version, meter in versions.items()
        )
