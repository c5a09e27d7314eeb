"""The result cache against a gateway without one, and against its own rules, under whatever happens between requests.

Two gateways serve the same snapshots, one of them with a cache, and get the same requests. Releases, other policies, new
epochs, updates of features, time and callers come in any order. Every answer must be the same, and come from the cache
exactly when the rules say so: the same content, features, rights, version and policy, within its time, computed by the
live version. Caches with a planted fault must be found out.
"""

from __future__ import annotations

import asyncio
import inspect
import json
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, closing
from pathlib import Path
from typing import Any, Final

import pytest
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import strategies as st

from taut.adapters.keys.file import FileKeys
from taut.adapters.world import SystemRandom
from taut.core.schema import Column, DType, FeatureLookup, ModelInput, ModelSignature
from taut.ports.online import OnlineRow
from taut.serving.gateway import Active, Gateway, Reply, World, compile_snapshot
from taut.serving.gateway.cache import CacheKeys, Features
from taut.serving.predictions import PredictionLog, PredictionReader
from taut.serving.snapshot import CacheConfig, DefaultAnswer, EndpointConfig, ServedModel, ServingSnapshot
from taut.testing.serving import STATUSES, DataPlane, columns_model, now_us
from taut.trust.identity.principals import Principal

TTL_S: Final = 60.0
DAY_S: Final = 86_400.0
POLICIES: Final = (
    "",
    '@id("no-eve") forbid(principal, action == Action::"predict", resource) when { principal.id == "eve" };',
    '@id("no-bob") forbid(principal, action == Action::"predict", resource) when { principal.id == "bob" };',
)
CALLERS: Final = {
    "ana": ("predictor",), "bob": ("predictor",), "eve": ("predictor",), "cy": ("auditor", "predictor"),
}  # fmt: skip
DISTANCES: Final = (
    1.0,
    2.0,
    3e38,
)  # with the wind of JFK the last is beyond FP32: the model fails, the default stands in
ORIGINS: Final = ("EWR", "JFK")
WINDS: Final = {"EWR": 10.0, "JFK": 3e38}

Op = tuple[Any, ...]


def happenings(distances: Sequence[float], origins: Sequence[str]) -> st.SearchStrategy[Op]:
    def ask() -> st.SearchStrategy[Op]:
        callers = st.sampled_from(sorted(CALLERS))
        return st.tuples(st.just("ask"), callers, st.sampled_from(distances), st.sampled_from(origins))

    return st.one_of(
        *(ask() for _ in range(8)),  # one_of takes each strategy once
        st.tuples(st.just("feature"), st.sampled_from([5.0, 6.0])),
        st.tuples(st.just("release"), st.sampled_from([1, 2])),
        st.tuples(st.just("policy"), st.sampled_from([0, 1, 2])),
        st.tuples(st.just("epoch")),
        st.tuples(st.just("wait"), st.sampled_from([1, 59, 61])),
    )


ANY: Final = happenings(DISTANCES, ORIGINS)
ONE_ROW: Final = happenings(DISTANCES[:1], ORIGINS[:1])  # finds in few examples what depends on no row


class Online:
    def __init__(self, now: int) -> None:
        self._start_us = self._time_us = now - 1_000_000
        self.rows: dict[str, OnlineRow] = {}
        self.reset()

    def reset(self) -> None:
        self._time_us = self._start_us
        self.rows = {name: OnlineRow(self._start_us, (0.5, wind), "mat_1") for name, wind in WINDS.items()}

    def set_wind(self, wind: float) -> None:
        self._time_us += 1
        self.rows["EWR"] = OnlineRow(self._time_us, (0.5, wind), "mat_1")

    local = True

    async def get(self, feature_set: str, keys: Sequence[tuple[Any, ...]]) -> list[OnlineRow | None]:
        return [self.get_now(feature_set, key) for key in keys]

    def get_now(self, _feature_set: str, key: tuple[Any, ...]) -> OnlineRow | None:
        return self.rows.get(key[0])


class Truth:
    """What the rules say that a cache may answer from, written down apart from the cache."""

    def __init__(self) -> None:
        self.entries: dict[tuple[Any, ...], float] = {}

    def place(self, slot: tuple[int, int]) -> None:
        self.entries = {key: made for key, made in self.entries.items() if key[0] == slot}

    def ask(self, key: tuple[Any, ...], now_s: float, *, keeps: bool) -> str:
        made = self.entries.get(key)
        if made is not None and now_s - made <= TTL_S:
            return "hit"
        if keeps:
            self.entries[key] = now_s
        return "miss"


class Stage:
    """Models, keys and compiled versions, made once."""

    def __init__(self, home: Path) -> None:
        self.plane = DataPlane(home, FileKeys(home / "keys", random=SystemRandom()))
        self.tokens = {
            name: self.plane.token(name, roles=roles, ttl_s=86_400) for name, roles in CALLERS.items()
        }
        self.versions = {number: self._served(number) for number in (1, 2)}
        every = [EndpointConfig(name=f"v{number}", live=served) for number, served in self.versions.items()]
        self.base = compile_snapshot(self.plane.snapshot(*every), home=home, before=None)
        self.compiled_bare = compile_snapshot(
            self.plane.snapshot(max_age_s=DAY_S), home=home, before=self.base
        )

    def _served(self, number: int) -> ServedModel:
        request = (
            Column("distance", DType.FLOAT), Column("carrier", DType.STRING), Column("origin", DType.STRING),
        )  # fmt: skip
        numbers = ["distance", "wind"] if number == 1 else ["distance", "wind", "rain"]
        inputs = [ModelInput(column=request[0])]
        inputs += [
            ModelInput(column=Column(name, DType.FLOAT), feature_set="weather") for name in numbers[1:]
        ]
        signature = ModelSignature(
            request=request,
            inputs=(*inputs, ModelInput(column=request[1])),
            lookups=(FeatureLookup(feature_set="weather", entity=("airport",), keys=("origin",)),),
            output="value",
            tensor="columns",
        )
        return self.plane.served(
            columns_model(numbers, "carrier"), signature, version=f"delay@{number}", feature_columns={"weather": {"mat_1": ("rain", "wind")}}
        )  # fmt: skip

    def compiled(self, number: int, policy: int, *, cached: bool) -> Active:
        config = EndpointConfig(
            name="delay",
            live=self.versions[number],
            fallbacks=(DefaultAnswer(value=-1.0),),
            cache=CacheConfig(ttl_s=TTL_S) if cached else None,
        )
        snapshot = self.plane.snapshot(config, policy=POLICIES[policy], max_age_s=DAY_S)
        return compile_snapshot(snapshot, home=self.plane.home, before=self.base)


class Pair:
    """A gateway with a cache and one without, over one clock and one online store."""

    def __init__(self, stage: Stage, stack: ExitStack, folder: Path, keys: CacheKeys) -> None:
        self.stage = stage
        self.offset_s = 0
        self.start_us = now_us()
        self.online = Online(self.start_us)
        self.asked: list[tuple[str, bool]] = []
        pool = stack.enter_context(ThreadPoolExecutor(1))
        self.cached, self.bare = (
            self._gateway(stack, folder / name, pool, keys) for name in ("cached", "bare")
        )

    def _gateway(self, stack: ExitStack, log: Path, pool: ThreadPoolExecutor, keys: CacheKeys) -> Gateway:
        world = World(self.now_us, lambda: 0.0, lambda: self.offset_s * 10**9, SystemRandom())
        records = PredictionLog(
            log, "gateway-0", now_us=self.now_us, monotonic_s=lambda: 0.0, random=SystemRandom()
        )
        return Gateway(
            log=stack.enter_context(closing(records)), online=self.online, statuses=STATUSES, world=world, pool=pool,
            log_failure=_fail, cache_keys=keys,
        )  # fmt: skip

    def now_us(self) -> int:
        return self.start_us + self.offset_s * 10**6

    def clear(self) -> None:
        """Serve nothing for a moment: no cache and no breaker outlives that."""
        for gateway in (self.cached, self.bare):
            gateway.install(self.stage.compiled_bare)
        self.online.reset()


class Run:
    """One sequence of happenings, played to both gateways and to the rules."""

    def __init__(self, pair: Pair) -> None:
        self.pair = pair
        self.stage = pair.stage
        self.version, self.policy = 1, 0
        self.truth = Truth()
        pair.clear()
        self.install()

    def install(self) -> None:
        for gateway, cached in ((self.pair.cached, True), (self.pair.bare, False)):
            gateway.install(self.stage.compiled(self.version, self.policy, cached=cached))
        self.truth.place((self.version, self.policy))

    def play(self, op: Op) -> None:
        match op:
            case ("ask", caller, distance, origin):
                self.ask(caller, distance, origin)
                return
            case ("feature", wind):
                self.pair.online.set_wind(wind)
                return
            case ("wait", seconds):
                self.pair.offset_s += seconds
                return
            case ("release", number):
                self.version = number
            case ("policy", number):
                self.policy = number
        self.install()

    def ask(self, caller: str, distance: float, origin: str) -> None:
        row = {"distance": distance, "carrier": "AA", "origin": origin}
        body = json.dumps({"instances": [row]}).encode()
        headers = [(b"authorization", b"Bearer " + self.stage.tokens[caller].encode())]
        cached, said = _answer(self.pair.cached, headers, body)
        bare, _ = _answer(self.pair.bare, headers, body)

        assert cached.status == bare.status
        assert _comparable(cached) == _comparable(bare)
        if cached.status != 200:
            return
        self.pair.asked.append((said["taut-request-id"], said["taut-cache"] == "hit"))
        feature = self.pair.online.rows[origin]
        who = (CALLERS[caller], caller if self.policy else "")
        key = ((self.version, self.policy), who, distance, origin, feature.event_time_us, feature.values)
        keeps = "taut-fallback" not in said
        assert said["taut-cache"] == self.truth.ask(key, self.pair.offset_s, keeps=keeps)


def _answer(
    gateway: Gateway, headers: Sequence[tuple[bytes, bytes]], body: bytes
) -> tuple[Reply, dict[str, str]]:
    async def run() -> Reply:
        found = gateway.answer("POST", "/v1/predict/delay", headers, body)
        return await found if inspect.isawaitable(found) else found

    reply = asyncio.run(run())
    return reply, {name.decode(): value.decode() for name, value in reply.header_list()}


def _comparable(reply: Reply) -> Any:
    document = json.loads(reply.body)
    document.pop("request_id", None)
    document.get("error", {}).pop("request_id", None)
    return document


def _fail(request_id: str, error: BaseException) -> None:
    raise AssertionError(f"the gateway itself failed on {request_id}") from error


@pytest.fixture(scope="module")
def stage(tmp_path_factory: pytest.TempPathFactory) -> Stage:
    return Stage(tmp_path_factory.mktemp("stage"))


def checker(pair: Pair, ops: st.SearchStrategy[Op], *, examples: int) -> Callable[[], None]:
    """Return a property over happenings."""

    @settings(
        max_examples=examples, deadline=None, derandomize=True, database=None, phases=[Phase.generate],
        suppress_health_check=list(HealthCheck),
    )  # fmt: skip
    @given(st.lists(ops, min_size=1, max_size=19))  # fewer than a breaker judges by
    def check(ops: list[Op]) -> None:
        run = Run(pair)
        for op in ops:
            run.play(op)

    return check


def test_the_cache_answers_what_a_gateway_without_one_would_and_keeps_what_it_may(
    stage: Stage, tmp_path: Path
) -> None:
    with ExitStack() as stack:
        pair = Pair(stage, stack, tmp_path, CacheKeys())
        checker(pair, ANY, examples=150)()
        checker(pair, ONE_ROW, examples=50)()

    hits = sum(hit for _, hit in pair.asked)
    found = [
        (one.request_id, one.age_us > 0)
        for one in PredictionReader(tmp_path / "cached").records()
        if one.status == 200
    ]
    assert sorted(found) == sorted(pair.asked)
    assert 50 < hits < len(pair.asked)


class WithoutRights(CacheKeys):
    def rights(self, principal: Principal, *, personal: bool) -> tuple[object, ...]:
        return ()


class WithoutThePersonUnderAPolicy(CacheKeys):
    def rights(self, principal: Principal, *, personal: bool) -> tuple[object, ...]:
        return super().rights(principal, personal=False)


class WithoutFeatures(CacheKeys):
    def fresh(self, principal: Principal, rows: Any, features: Features, *, personal: bool) -> bytes:
        return super().fresh(principal, rows, (), personal=personal)


class WithoutTheVersion(CacheKeys):
    def slot(self, config: EndpointConfig, snapshot: ServingSnapshot) -> str:
        return snapshot.policy_digest


class WithoutThePolicy(CacheKeys):
    def slot(self, config: EndpointConfig, snapshot: ServingSnapshot) -> str:
        return config.live.version


class EmptiedByEveryEpoch(CacheKeys):
    def slot(self, config: EndpointConfig, snapshot: ServingSnapshot) -> str:
        return f"{super().slot(config, snapshot)} {snapshot.epoch}"


@pytest.mark.parametrize(
    "planted",
    [
        WithoutRights, WithoutThePersonUnderAPolicy, WithoutFeatures, WithoutTheVersion, WithoutThePolicy,
        EmptiedByEveryEpoch,
    ],
)  # fmt: skip
def test_a_cache_with_a_planted_fault_is_found_out(
    stage: Stage, tmp_path: Path, planted: type[CacheKeys]
) -> None:
    with ExitStack() as stack:
        check = checker(Pair(stage, stack, tmp_path, planted()), ONE_ROW, examples=1000)
        with pytest.raises(AssertionError, match=r"hit|miss|predictions"):
            check()
