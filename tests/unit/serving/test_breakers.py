"""Breakers by a manual clock: when they open, who may probe, and that one caller cannot open them for others."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from taut.serving.gateway.breakers import Breaker, Breakers, BreakerSettings

S = 1_000_000_000
SETTINGS = BreakerSettings(window_s=10, requests=10, share=0.5, cool_down_s=1, cool_down_max_s=4)


def failing(breaker: Breaker, times: int, *, caller: str = "ana", at_ns: int = 0) -> None:
    for _ in range(times):
        breaker.failed(breaker.enter(at_ns), caller, at_ns, "no answer")


def test_it_opens_above_its_share_of_failures_and_not_before_enough_were_seen() -> None:
    breaker = Breaker("delay@2", SETTINGS)

    failing(breaker, 9)
    before = breaker.state
    failing(breaker, 1)

    assert (before, breaker.state, breaker.opened, breaker.why) == ("closed", "open", 1, "no answer")
    assert breaker.enter(S // 2) == 0
    assert breaker.retry_after_s(S // 2) == pytest.approx(0.5)


def test_a_share_of_one_half_is_not_above_one_half() -> None:
    breaker = Breaker("delay@2", SETTINGS)

    for _ in range(50):
        breaker.succeeded(breaker.enter(0), "ana", 0)
        failing(breaker, 1)

    assert breaker.state == "closed"


def test_failures_of_long_ago_are_forgotten() -> None:
    breaker = Breaker("delay@2", SETTINGS)

    failing(breaker, 9, at_ns=0)
    failing(breaker, 9, at_ns=20 * S)

    assert breaker.state == "closed"


def test_one_request_alone_probes_and_its_success_closes() -> None:
    breaker = Breaker("delay@2", SETTINGS)
    failing(breaker, 10)

    probe = breaker.enter(S)
    others = [breaker.enter(S + offset) for offset in range(5)]
    half_open = breaker.state
    breaker.succeeded(probe, "ana", S)

    assert probe
    assert others == [0] * 5
    assert (half_open, breaker.state) == ("half-open", "closed")
    assert breaker.enter(S)


def test_each_probe_that_fails_doubles_the_cool_down_up_to_its_bound() -> None:
    breaker, now, pauses = Breaker("delay@2", SETTINGS), 0, []
    failing(breaker, 10)

    for _ in range(4):
        start = now
        while not (probe := breaker.enter(now)):
            now += S // 10
        pauses.append((now - start) / S)
        breaker.failed(probe, "ana", now, "again")

    assert pauses == [1, 2, 4, 4]


def test_a_probe_that_leaves_or_says_nothing_lets_another_try() -> None:
    breaker = Breaker("delay@2", SETTINGS)
    failing(breaker, 10)

    left = breaker.enter(S)
    breaker.left(left, S)
    silent = breaker.enter(S)
    meanwhile = breaker.enter(S + S // 2)
    after = breaker.enter(2 * S)
    breaker.succeeded(silent, "ana", 2 * S)  # too late: it is not the probe any more

    assert silent
    assert meanwhile == 0
    assert after
    assert breaker.state == "half-open"


def test_what_began_before_it_opened_does_not_close_it() -> None:
    breaker = Breaker("delay@2", SETTINGS)
    early = breaker.enter(0)
    failing(breaker, 10)
    breaker.enter(S)

    breaker.succeeded(early, "ana", S)

    assert breaker.state == "half-open"


def test_one_caller_whose_requests_always_fail_does_not_shut_the_others_out() -> None:
    breaker = Breaker("delay@2", SETTINGS)

    for _ in range(20):
        breaker.succeeded(breaker.enter(0), "ana", 0)
    failing(breaker, 10_000, caller="mallory")

    alone = breaker.opened
    failing(breaker, 5_000, caller="ana")
    assert (alone, breaker.opened) == (0, 1)


def test_it_opens_also_when_a_thousand_callers_fail_at_once() -> None:
    breaker = Breaker("delay@2", SETTINGS)

    for number in range(1000):
        failing(breaker, 1, caller=f"c{number}")

    assert breaker.state == "open"


class WithoutVoices(Breaker):
    """A planted fault: all callers are one."""

    def failed(self, permit: int, caller: str, now_ns: int, why: str) -> None:
        super().failed(permit, "", now_ns, why)


def test_a_breaker_without_voices_would_be_opened_by_one_caller() -> None:
    breaker = WithoutVoices("delay@2", SETTINGS)

    for _ in range(20):
        breaker.succeeded(breaker.enter(0), "", 0)
    failing(breaker, 10_000, caller="mallory")

    assert breaker.state == "open"


@given(st.lists(st.tuples(st.integers(0, 2000), st.booleans()), max_size=400))
def test_its_memory_is_bounded_whoever_asks(outcomes: list[tuple[int, bool]]) -> None:
    breaker = Breaker("delay@2", BreakerSettings(requests=10**9))

    for caller, good in outcomes:
        permit = breaker.enter(0)
        if good:
            breaker.succeeded(permit, str(caller), 0)
        else:
            breaker.failed(permit, str(caller), 0, "bad")

    assert len(breaker._now) <= 257


def test_breakers_outlive_what_is_kept_and_no_more() -> None:
    breakers = Breakers(SETTINGS)
    first = breakers.of("a", "delay@1")

    breakers.keep({"a"})
    kept = breakers.of("a", "delay@1")
    breakers.keep(set())

    assert kept is first
    assert breakers.of("a", "delay@1") is not first


def test_its_reading_says_why_it_is_open_and_when_it_tries_again() -> None:
    breaker = Breaker("delay@2", SETTINGS)
    closed = breaker.reading(0)
    failing(breaker, 10)

    assert closed == {"of": "delay@2", "state": "closed", "opened": 0}
    assert breaker.reading(0) == {
        "of": "delay@2", "state": "open", "opened": 1, "why": "no answer", "next_try_in_s": 1.0,
    }  # fmt: skip
