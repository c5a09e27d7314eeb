"""Who answers: the cache, the live version, or what stands in for it.

Plain endpoints (a model in this process, nothing declared beside it) never come here on the short way.
"""

from __future__ import annotations

from collections.abc import Callable
from concurrent.futures import Executor
from typing import Final

from taut.core.errors import Corrupt, DeadlineExceeded, TautError, Unavailable
from taut.ports.online import OnlineReader
from taut.serving.errors import BadAnswer, BreakerOpen, FeaturesLost, MissingFeature, Shed, WorkerLost
from taut.serving.gateway.asking import Models, Watched, ticket_principal
from taut.serving.gateway.breakers import Breaker, Breakers, node_key
from taut.serving.gateway.cache import FOREVER_US, ROWS_MAX, CacheKeys, Entry, Flight, ResultCache
from taut.serving.gateway.compiled import Active, Endpoint
from taut.serving.gateway.feature_probe import Reasons
from taut.serving.gateway.features import NONE, look_up
from taut.serving.gateway.made import Made
from taut.serving.gateway.scorer import Features
from taut.serving.gateway.standins import DefaultStep, StaleStep, Step, VersionStep, Way
from taut.serving.gateway.tensors import Batch
from taut.serving.gateway.ticket import Ticket, check_deadline
from taut.serving.runtime import Outputs

STORE: Final = "the online store"
_RESERVE: Final = 0.1  # of a request's time, kept for stand-ins
_SHARED_FAILURES: Final = (BadAnswer, WorkerLost, BreakerOpen)


class Scoring:
    """Answers decoded requests. One event loop owns it.

    online: where features are looked up. pool: runs batches that would hold the loop up. keys: what makes two requests the
    same to the cache.

    Guarantees: an answer from the cache is one that the live version gave, to a caller of the same rights, for the same
    rows and the same features, under the same policy, no longer ago than declared; refusals and stand-ins' answers are
    never kept; equal requests of one moment are computed once, and none waits beyond its own deadline. A stand-in's
    answer says so.
    Not guaranteed: one cache for several gateways.
    """

    def __init__(
        self,
        *,
        online: OnlineReader | None,
        pool: Executor,
        counter_ns: Callable[[], int],
        keys: CacheKeys | None = None,
    ) -> None:
        self._online: Final = online
        self._models: Final = Models(pool, counter_ns)
        self._counter_ns: Final = counter_ns
        self._keys: Final = keys or CacheKeys()
        self._breakers: Final = Breakers()
        self._caches: dict[str, ResultCache] = {}
        self.store: Final = Breaker(STORE)
        self.feature_reasons: Reasons = {}  # as the probe found them last

    def adopt(self, active: Active) -> None:
        """Give a compiled snapshot's endpoints the caches and breakers that still hold, and forget the others."""
        caches: dict[str, ResultCache] = {}
        watched: set[str] = set()
        for endpoint in active.answering:
            way = endpoint.way
            if way is None:
                continue
            if way.keeps:
                slot = self._keys.slot(endpoint.config, active.snapshot)
                way.cache = caches[slot] = self._caches.get(slot) or ResultCache(way.max_bytes)
                way.cache.resize(way.max_bytes)
            for scorer in endpoint.scorers:
                nodes = {name: node.version for name, node in scorer.served.nodes.items()}
                scorer.node_breakers.update(self._breakers.of_nodes(scorer.key, nodes))
                watched |= {scorer.key, *(node_key(scorer.key, name) for name in nodes)}
            self.watch(endpoint)
            for step in way.steps:
                if isinstance(step, VersionStep):
                    step.breaker = self._breakers.of(step.scorer.key, step.name)
        self._breakers.keep(watched)
        self._caches = caches

    def watch(self, endpoint: Endpoint) -> None:
        """Give the live version its breaker.

        A model in this process that nothing can stand in for has none: not to try it would only refuse more.
        """
        way, live = endpoint.way, endpoint.live
        if way is not None:
            watched = bool(way.steps or live.lanes)
            way.breaker = self._breakers.of(live.key, live.served.version) if watched else None

    def now(self, ticket: Ticket, endpoint: Endpoint, batch: Batch, features: Features) -> Made:
        """Answer without waiting, by the cache or the live version, which must run in this process."""
        way = endpoint.way
        assert way is not None, "plain endpoints ask their live version themselves"
        key = self._fresh_key(way, ticket, batch, features)
        if key is not None:
            hit = self._hit(way, endpoint, ticket, key, features)
            if hit is not None:
                return hit
        with Watched(way.breaker, ticket, self._counter_ns):
            outputs = (
                endpoint.live.score(batch, features)
                if not endpoint.config.live.nodes
                else self._models.graph_now(endpoint.live, ticket, endpoint, batch, features)
            )
        return self._fresh(way, endpoint, ticket, batch, features, key, outputs)

    async def later(self, ticket: Ticket, endpoint: Endpoint, batch: Batch) -> Made:
        """Answer by whatever it takes: features over the network, workers, stand-ins."""
        way = endpoint.way
        try:
            features = await self._features(ticket, endpoint, batch) if endpoint.lookups else NONE
        except FeaturesLost as lost:
            if way is None or not self.stands_in(way, lost):
                raise
            return await self.instead(ticket, endpoint, batch, None, lost)
        check_deadline(ticket, self._counter_ns)
        ticket.scored_ns = self._counter_ns()
        if way is None:
            outputs = await self._models.run(
                endpoint.live, ticket, endpoint, batch, features, ticket.deadline_ns
            )
            return Made(features, outputs, endpoint.live.served, endpoint.head)
        try:
            if endpoint.prompt:
                outputs = await self._live(way, endpoint, ticket, batch, features)
                return Made(features, outputs, endpoint.live.served, way.off)
            return await self._first(way, endpoint, ticket, batch, features)
        except TautError as error:
            if not self.stands_in(way, error):
                raise
            return await self.instead(ticket, endpoint, batch, features, error)

    def stands_in(self, way: Way, error: TautError) -> bool:
        """Whether something was declared to stand in on this occasion."""
        return bool(way.steps) and _occasion(error) in way.when

    async def instead(
        self, ticket: Ticket, endpoint: Endpoint, batch: Batch, features: Features | None, error: TautError
    ) -> Made:
        """Answer by the first stand-in that can. features: None where they are lost. Raises `error` where none can."""
        way = endpoint.way
        assert way is not None
        ticket.scored_ns = ticket.scored_ns or self._counter_ns()
        for step in way.steps:
            check_deadline(ticket, self._counter_ns)
            try:
                made = await self._take(step, way, endpoint, ticket, batch, features)
            except TautError:
                continue  # its breaker has counted it, and one stand-in's failure is the next one's occasion
            if made is not None:
                return made
        raise error

    def store_reasons(self) -> list[str]:
        """Return why features cannot be had now."""
        store = self.store
        if not store.refuses(self._counter_ns()):
            return []  # also when a probe is due: without traffic there would never be one
        return [f"{STORE} failed too often of late: {store.why}"]

    def looked_up(self, now_ns: int) -> None:
        """Count a look-up on the short way, which asks a store in this process whatever its breaker says."""
        permit = self.store.enter(now_ns)
        if permit:
            self.store.succeeded(permit, "", now_ns)

    def endpoint_reasons(self, endpoint: Endpoint) -> list[str]:
        """Return why an endpoint cannot answer now."""
        way, resident = endpoint.way, endpoint.resident
        why = list(self.feature_reasons.get(endpoint.name, ()))
        if resident.fault and resident.model is None:
            return [*why, f"endpoint {endpoint.name!r}: {resident.name} cannot be loaded: {resident.fault}"]
        if way is None or way.steps or way.breaker is None or not way.breaker.refuses(self._counter_ns()):
            return why
        return [*why, _failed_often(endpoint, way.breaker)]

    def degraded(self, endpoint: Endpoint) -> list[str]:
        """Return what is wrong with an endpoint that answers all the same."""
        way = endpoint.way
        if way is None:
            return endpoint.displaced
        found = endpoint.displaced + [
            f"endpoint {endpoint.name!r}: no worker of {lane.name} is ready to stand in"
            for scorer in way.scorers
            for lane in scorer.resident.required_lanes
            if not lane.alive
        ]
        found += [
            f"endpoint {endpoint.name!r}: no worker of {lane.name} is ready, it answers without that node"
            for lane in endpoint.resident.lanes
            if lane not in endpoint.resident.required_lanes and not lane.alive
        ]
        watched = [way.breaker] if way.steps and way.breaker is not None else []
        watched += endpoint.live.node_breakers.values()
        found += [_failed_often(endpoint, breaker) for breaker in watched if breaker.state != "closed"]
        return [*way.unfit, *found]

    def breakers(self, endpoint: Endpoint) -> list[dict[str, object]]:
        """Return the state of every breaker that an endpoint's answers depend on."""
        found = [] if endpoint.way is None else [endpoint.way.breaker]
        if endpoint.way is not None:
            found += [step.breaker for step in endpoint.way.steps if isinstance(step, VersionStep)]
        found += [breaker for scorer in endpoint.scorers for breaker in scorer.node_breakers.values()]
        if endpoint.lookups:
            found.append(self.store)
        return [breaker.reading(self._counter_ns()) for breaker in found if breaker is not None]

    # features

    async def _features(self, ticket: Ticket, endpoint: Endpoint, batch: Batch) -> Features:
        """Return the rows' features. Raises FeaturesLost where the store fails, or failed too often of late."""
        ticket.looked_ns = start_ns = self._counter_ns()
        store = self.store
        permit = store.enter(start_ns)
        if not permit:
            raise FeaturesLost(
                f"{STORE} failed too often of late ({store.why}): try again",
                retry_after_s=store.retry_after_s(start_ns),
            )
        try:
            features = await look_up(endpoint, self._online, batch.rows, ticket.now_us)
        except Unavailable as error:
            store.failed(permit, "", self._counter_ns(), error.message)
            raise FeaturesLost(error.message, retry_after_s=error.retry_after_s) from error
        except Corrupt as error:  # one row's affair: the store did answer
            store.succeeded(permit, "", self._counter_ns())
            raise FeaturesLost(error.message) from error
        except BaseException:
            store.left(permit, self._counter_ns())
            raise
        end_ns = self._counter_ns()
        store.succeeded(permit, "", end_ns)
        endpoint.meter.features.observe(end_ns - start_ns)
        return features

    # the cache and the live version

    async def _first(
        self, way: Way, endpoint: Endpoint, ticket: Ticket, batch: Batch, features: Features
    ) -> Made:
        """Answer by the cache, by an equal request that is under way, or by the live version."""
        key = self._fresh_key(way, ticket, batch, features)
        cache = way.cache
        if key is None or cache is None:
            outputs = await self._live(way, endpoint, ticket, batch, features)
            return self._fresh(way, endpoint, ticket, batch, features, key, outputs)
        priority = 0 if ticket.caller is None else ticket.caller.priority
        while True:
            hit = self._hit(way, endpoint, ticket, key, features)
            if hit is not None:
                return hit
            flight = cache.flights.get(key)
            if (
                flight is None or flight.priority < priority
            ):  # or else the hurried would wait with the patient
                return await self._lead(way, endpoint, ticket, batch, features, key, Flight(priority))
            try:
                outcome = await flight.outcome((ticket.deadline_ns - self._counter_ns()) / 1e9)
            except TimeoutError:
                check_deadline(ticket, self._counter_ns)
                continue
            if isinstance(outcome, Unavailable):
                raise type(outcome)(outcome.message, retry_after_s=outcome.retry_after_s)
            if outcome is not None:
                return Made(features, outcome, endpoint.live.served, _aged(way.hit, 0), age_ns=0)

    async def _lead(
        self,
        way: Way,
        endpoint: Endpoint,
        ticket: Ticket,
        batch: Batch,
        features: Features,
        key: bytes,
        flight: Flight,
    ) -> Made:
        """Compute what others may wait for. A failure that is the leader's own lets the next of them try."""
        cache = way.cache
        assert cache is not None
        cache.flights[key] = flight
        try:
            outputs = await self._live(way, endpoint, ticket, batch, features)
            made = self._fresh(way, endpoint, ticket, batch, features, key, outputs)
            flight.settle(None if made.fallback else outputs)  # who waits may find the missing node back
            return made
        except _SHARED_FAILURES as error:
            flight.settle(error)
            raise
        finally:
            flight.settle(None)
            if cache.flights.get(key) is flight:
                del cache.flights[key]

    async def _live(
        self, way: Way, endpoint: Endpoint, ticket: Ticket, batch: Batch, features: Features
    ) -> Outputs:
        """Ask the live version, with time left for what stands in."""
        deadline_ns = ticket.deadline_ns
        lane = endpoint.live.lane
        if way.steps:
            if lane is not None and not lane.alive:
                raise WorkerLost(f"no worker of {lane.name} is ready: try again")
            if "late" in way.when:
                deadline_ns -= int((deadline_ns - ticket.started_ns) * _RESERVE)
        with Watched(way.breaker, ticket, self._counter_ns):
            return await self._models.run(endpoint.live, ticket, endpoint, batch, features, deadline_ns)

    def _fresh(
        self,
        way: Way,
        endpoint: Endpoint,
        ticket: Ticket,
        batch: Batch,
        features: Features,
        key: bytes | None,
        outputs: Outputs,
    ) -> Made:
        """Keep what the live version answered, and return it; not what it answered without some of its nodes."""
        cache, nodes = way.cache, ticket.nodes
        if nodes is not None and nodes.without:
            head = b"%btaut-fallback: %b\r\n" % (
                way.off if key is None else way.miss,
                nodes.fallback.encode(),
            )
            return Made(features, outputs, endpoint.live.served, head, nodes.fallback, nodes=nodes.answered)
        answered = () if nodes is None else nodes.answered
        if cache is not None and batch.count <= ROWS_MAX:
            now_ns = self._counter_ns()
            if key is not None:
                cache.put(key, outputs, now_ns)
            if way.stale_ns:
                stale = self._keys.stale(ticket_principal(ticket), batch.rows, personal=way.personal)
                cache.put(stale, outputs, now_ns, _until_us(endpoint, features))
        if key is None:
            return Made(features, outputs, endpoint.live.served, way.off, nodes=answered)
        endpoint.meter.cache_misses += 1
        return Made(features, outputs, endpoint.live.served, way.miss, nodes=answered)

    def _fresh_key(self, way: Way, ticket: Ticket, batch: Batch, features: Features) -> bytes | None:
        """Return the key of a request; None where its answer is not cached."""
        if not way.ttl_ns or way.cache is None or batch.count > ROWS_MAX:
            return None
        return self._keys.fresh(ticket_principal(ticket), batch.rows, features, personal=way.personal)

    def _hit(
        self, way: Way, endpoint: Endpoint, ticket: Ticket, key: bytes, features: Features
    ) -> Made | None:
        assert way.cache is not None
        entry = way.cache.get(key, ticket.started_ns, ticket.now_us, way.ttl_ns)
        if entry is None:
            return None
        age_ns = _age_ns(entry, ticket.started_ns)
        return Made(features, entry.outputs(), endpoint.live.served, _aged(way.hit, age_ns), age_ns=age_ns)

    # stand-ins

    async def _take(
        self,
        step: Step,
        way: Way,
        endpoint: Endpoint,
        ticket: Ticket,
        batch: Batch,
        features: Features | None,
    ) -> Made | None:
        """Return a stand-in's answer; None where it has none."""
        match step:
            case DefaultStep():
                outputs = step.outputs(batch.count)
                return Made(features or NONE, outputs, step.served, step.head, step.name)
            case StaleStep():
                return self._stale(step, way, endpoint, ticket, batch)
            case VersionStep(scorer=scorer):
                if features is None and scorer.needs_features:
                    return None
                if scorer.lane is not None and not scorer.lane.alive:
                    return None
                given = features or NONE
                with Watched(step.breaker, ticket, self._counter_ns):
                    outputs = await self._models.run(
                        scorer, ticket, endpoint, batch, given, ticket.deadline_ns
                    )
                nodes = ticket.nodes.answered if ticket.nodes and scorer.served.nodes else ()
                return Made(given, outputs, scorer.served, step.head, step.name, nodes=nodes)

    def _stale(
        self, step: StaleStep, way: Way, endpoint: Endpoint, ticket: Ticket, batch: Batch
    ) -> Made | None:
        if way.cache is None or batch.count > ROWS_MAX:
            return None
        key = self._keys.stale(ticket_principal(ticket), batch.rows, personal=way.personal)
        entry = way.cache.get(key, ticket.started_ns, ticket.now_us, step.max_ns)
        if entry is None:
            return None
        age_ns = _age_ns(entry, ticket.started_ns)
        head = _aged(step.head, age_ns)
        return Made(NONE, entry.outputs(), endpoint.live.served, head, step.name, age_ns)


def _failed_often(endpoint: Endpoint, breaker: Breaker) -> str:
    return f"endpoint {endpoint.name!r}: {breaker.of} failed too often of late: {breaker.why}"


def _occasion(error: TautError) -> str:
    """Return on what occasion something may stand in; an empty text where nothing may."""
    match error:
        case MissingFeature() | FeaturesLost():
            return "features"
        case Shed():
            return "shed"
        case DeadlineExceeded():
            return "late"
        case Unavailable():
            return "failed"
    return ""


def _age_ns(entry: Entry, now_ns: int) -> int:
    return max(0, now_ns - entry.made_ns)


def _aged(head: bytes, age_ns: int) -> bytes:
    """Return header lines with the answer's age in seconds, as HTTP caches write it (RFC 9111)."""
    return b"%bage: %d\r\n" % (head, age_ns // 1_000_000_000)


def _until_us(endpoint: Endpoint, features: Features) -> int:
    """Return until when no feature that an answer was made from is older than it may be."""
    ends = [
        row.event_time_us + int(lookup.max_age_s * 1e6)
        for found in features
        for lookup, row in zip(endpoint.lookups, found, strict=True)
        if row is not None and lookup.max_age_s is not None
    ]
    return min(ends, default=FOREVER_US)
