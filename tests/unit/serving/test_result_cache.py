"""The result cache by itself: its bounds, its keys, and what equal requests of one moment do."""

from __future__ import annotations

import asyncio
import tracemalloc

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from taut.serving.gateway.cache import ENTRY_BYTES, CacheKeys, Flight, ResultCache
from taut.serving.predictions import FeatureRow
from taut.serving.runtime import Outputs
from taut.trust.identity.principals import Principal
from taut.trust.policy import Policy
from taut.trust.policy.actions import ACTIONS

S = 1_000_000_000
ANSWER = Outputs(labels=[1], probabilities=[[0.25, 0.75]])
SIZE = ENTRY_BYTES + len(msgspec.msgpack.encode(ANSWER))
ANA = Principal(id="ana", kind="human", roles=("predictor",), credential="t1")


def key(number: int) -> bytes:
    return number.to_bytes(32, "big")


def test_an_answer_comes_back_as_it_was_and_only_within_its_time() -> None:
    cache = ResultCache(10 * SIZE)
    cache.put(key(1), ANSWER, now_ns=0)

    found = cache.get(key(1), 60 * S, 0, 60 * S)
    late = cache.get(key(1), 60 * S + 1, 0, 60 * S)

    assert found is not None
    assert (found.outputs().labels, found.outputs().probabilities) == (ANSWER.labels, ANSWER.probabilities)
    assert late is None
    assert (len(cache), cache.used_bytes) == (0, 0)


def test_an_answer_is_not_given_after_its_features_are_too_old() -> None:
    cache = ResultCache(10 * SIZE)
    cache.put(key(1), ANSWER, now_ns=0, until_us=1000)

    assert cache.get(key(1), 1, 1000, S) is not None
    assert cache.get(key(1), 1, 1001, S) is None


def test_what_was_not_asked_for_longest_goes_first_and_the_bound_holds() -> None:
    cache = ResultCache(8 * SIZE)
    for number in range(8):
        cache.put(key(number), ANSWER, now_ns=0)
    cache.get(key(0), 1, 0, S)

    cache.put(key(8), ANSWER, now_ns=1)

    assert cache.get(key(0), 1, 0, S) is not None
    assert cache.get(key(1), 1, 0, S) is None
    assert (len(cache), cache.used_bytes, cache.evicted) == (8, 8 * SIZE, 1)
    cache.resize(2 * SIZE)
    assert len(cache) == 2


def test_an_answer_too_large_for_the_cache_pushes_nothing_out() -> None:
    cache = ResultCache(8 * SIZE)
    cache.put(key(1), ANSWER, now_ns=0)

    cache.put(key(2), Outputs(values=[0.5] * 1000), now_ns=0)

    assert len(cache) == 1


def test_what_it_says_that_it_uses_is_what_it_uses() -> None:
    cache = ResultCache(2**30)
    tracemalloc.start()
    before, _ = tracemalloc.get_traced_memory()
    for number in range(5000):
        cache.put(key(number), ANSWER, now_ns=number * 1000)
    after, _ = tracemalloc.get_traced_memory()
    tracemalloc.stop()

    assert after - before <= cache.used_bytes <= 2.5 * (after - before)


FEATURES = st.one_of(
    st.none(), st.builds(FeatureRow, st.sampled_from(["m1", "m2"]), st.integers(0, 9), st.tuples(st.integers(0, 3)))
)  # fmt: skip
ROWS = st.one_of(
    st.binary(max_size=8),
    st.lists(st.tuples(st.one_of(st.integers(0, 2), st.booleans(), st.floats(0, 2), st.text(max_size=1))), max_size=2),
)  # fmt: skip


@given(ROWS, ROWS, st.lists(st.tuples(FEATURES), max_size=2), st.lists(st.tuples(FEATURES), max_size=2))
def test_two_requests_share_a_key_only_when_rows_and_features_are_the_same(
    rows: object,
    others: object,
    features: list[tuple[FeatureRow | None]],
    more: list[tuple[FeatureRow | None]],
) -> None:
    keys = CacheKeys()

    one = keys.fresh(ANA, rows, features, personal=False)
    two = keys.fresh(ANA, others, more, personal=False)

    assert (one == two) == (repr((rows, features)) == repr((others, more)))
    assert one != keys.stale(ANA, rows, personal=False)


PRINCIPALS = st.builds(
    Principal,
    id=st.sampled_from(["ana", "bob"]),
    kind=st.sampled_from(["human", "service"]),
    roles=st.sampled_from([("predictor",), ("auditor",), ("admin", "predictor")]),
    scopes=st.sampled_from([(), ("predict",), ("predict@endpoint:delay",)]),
    credential=st.sampled_from(["t1", "t2"]),
)


@given(PRINCIPALS, PRINCIPALS)
def test_those_who_share_answers_have_the_same_rights_by_the_built_in_policies(
    one: Principal, two: Principal
) -> None:
    keys, policy = CacheKeys(), Policy()
    if keys.rights(one, personal=False) != keys.rights(two, personal=False):
        return

    for resource in ("endpoint:delay", "endpoint:other"):
        assert policy.decide(one, "predict", resource).allow == policy.decide(two, "predict", resource).allow


@given(PRINCIPALS, PRINCIPALS, st.sampled_from(sorted(ACTIONS)))
def test_those_who_share_under_a_projects_own_policy_have_the_same_rights_to_everything(
    one: Principal, two: Principal, action: str
) -> None:
    keys = CacheKeys()
    policy = Policy('@id("no-bob") forbid(principal, action, resource) when { principal.id == "bob" };')
    if keys.rights(one, personal=True) != keys.rights(two, personal=True):
        return

    assert policy.decide(one, action, "endpoint:delay") == policy.decide(two, action, "endpoint:delay")


def test_followers_hear_what_their_leader_got_and_wait_no_longer_than_they_can() -> None:
    async def whole() -> tuple[object, ...]:
        flight = Flight(5)
        with pytest.raises(TimeoutError):
            await flight.outcome(0.0)
        waiting = [asyncio.create_task(flight.outcome(10.0)) for _ in range(3)]
        await asyncio.sleep(0)
        flight.settle(ANSWER)
        flight.settle(None)  # only the first word counts
        return tuple(await asyncio.gather(*waiting))

    assert asyncio.run(whole()) == (ANSWER,) * 3
