from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from taut.core.errors import Exhausted, InvalidInput
from taut.trust.quota import Account, Limit, Quota

TEN = Limit(rate_per_s=10, burst=20)
KEY = ("delay", "alice")


def granted(quota: Quota, key: tuple[str, str], n: float, now_s: float) -> bool:
    try:
        quota.take(key, n, now_s)
    except Exhausted:
        return False
    return True


def test_a_burst_passes_and_then_the_rate_holds() -> None:
    quota = Quota({"delay": TEN})
    assert sum(granted(quota, KEY, 1, 0.0) for _ in range(50)) == 20
    assert sum(granted(quota, KEY, 1, 1.0) for _ in range(50)) == 10


def test_who_is_refused_is_told_when_to_come_back_and_then_passes() -> None:
    quota = Quota({"delay": TEN})
    quota.take(KEY, 20, 0.0)
    with pytest.raises(Exhausted) as caught:
        quota.take(KEY, 5, 0.1)
    assert caught.value.retry_after_s == pytest.approx(0.4)
    quota.take(KEY, 5, 0.1 + caught.value.retry_after_s + 1e-9)


def test_what_is_charged_afterwards_may_leave_a_debt_that_time_pays() -> None:
    quota = Quota({"delay": TEN})
    quota.require(KEY, 0.0)
    quota.charge(KEY, 50, 0.0)
    with pytest.raises(Exhausted) as caught:
        quota.require(KEY, 1.0)
    assert caught.value.retry_after_s == pytest.approx(2.1)
    quota.require(KEY, 1.0 + caught.value.retry_after_s)
    quota.require(("free", "alice"), 0.0)
    quota.charge(("free", "alice"), 1e9, 0.0)


def test_callers_and_limits_do_not_share_a_bucket() -> None:
    quota = Quota({"delay": TEN, "price": TEN})
    quota.take(KEY, 20, 0.0)
    quota.take(("delay", "bob"), 20, 0.0)
    quota.take(("price", "alice"), 20, 0.0)


def test_a_name_without_limit_passes_and_takes_no_memory() -> None:
    quota = Quota({})
    quota.take(("free", "alice"), 10**9, 0.0)
    assert len(quota) == 0


@pytest.mark.parametrize("n", [0, -1, 20.5, float("nan"), float("inf")])
def test_an_amount_that_could_never_pass_is_invalid_and_costs_nothing(n: float) -> None:
    quota = Quota({"delay": TEN})
    with pytest.raises(InvalidInput):
        quota.take(KEY, n, 0.0)
    quota.take(KEY, 20, 0.0)


@pytest.mark.parametrize("bad", [0, -1, float("nan"), float("inf")])
def test_a_limit_is_a_finite_number_above_zero(bad: float) -> None:
    with pytest.raises(InvalidInput):
        Limit(rate_per_s=bad, burst=1)
    with pytest.raises(InvalidInput):
        Limit(rate_per_s=1, burst=bad)


def test_memory_is_bounded_and_a_new_caller_never_refreshes_an_old_one() -> None:
    quota = Quota({"delay": TEN}, max_buckets=3)
    for who in "abc":
        quota.take(("delay", who), 20, 0.0)
    with pytest.raises(Exhausted, match="too many callers"):
        quota.take(("delay", "d"), 1, 0.0)
    assert not granted(quota, ("delay", "a"), 1, 0.0)
    quota.take(("delay", "d"), 1, 2.0)  # by then the others are full again and forgotten
    assert len(quota) <= 3


def test_shares_of_gateways_add_up_to_the_limit() -> None:
    shares = [Quota({"delay": TEN.share(4)}) for _ in range(4)]
    assert sum(granted(quota, KEY, 1, 0.0) for quota in shares for _ in range(50)) == 20
    with pytest.raises(InvalidInput):
        TEN.share(0)


@settings(max_examples=200, deadline=None)
@given(
    rate=st.floats(0.1, 1000),
    burst=st.floats(1, 1000),
    asks=st.lists(st.tuples(st.floats(-5, 5), st.floats(0.01, 50)), max_size=60),
)
def test_no_span_of_time_grants_more_than_burst_and_rate_whatever_the_clock_does(
    rate: float, burst: float, asks: list[tuple[float, float]]
) -> None:
    quota = Quota({"delay": Limit(rate_per_s=rate, burst=burst)})
    now_s, spent = 0.0, 0.0
    times: list[float] = []
    for step_s, n in asks:
        now_s += step_s
        if n <= burst:
            times.append(now_s)
        if n <= burst and granted(quota, KEY, n, now_s):
            spent += n
        span_s = max(times) - times[0] if times else 0.0
        assert spent <= burst + rate * span_s + 1e-6 * (1 + spent)


@settings(max_examples=50)
@given(burst=st.floats(1, 100), parts=st.integers(1, 64))
def test_a_share_of_a_limit_lets_one_request_pass_where_the_whole_does(burst: float, parts: int) -> None:
    share = Limit(rate_per_s=0.5, burst=burst).share(parts)
    quota = Quota({"delay": share})

    quota.take(KEY, 1, 0.0)

    assert share.burst * parts <= max(burst, parts) + 1e-9
    assert share.rate_per_s * parts == pytest.approx(0.5, rel=1e-4)  # shares are millionths


def test_tokens_are_reserved_by_an_estimate_and_settled_by_what_was_used_at_every_level() -> None:
    own = Limit(rate_per_s=1, burst=1000, kind="tokens")
    quota = Quota({"chat:tokens": own, "quota:all:tokens": Limit(rate_per_s=1, burst=1500, kind="tokens")})
    ana, ben = (
        Account((), (("tokens", ("chat:tokens", who)), ("tokens", ("quota:all:tokens", ""))))
        for who in ("ana", "ben")
    )

    quota.reserve(ana, "tokens", 900, 0.0)
    with pytest.raises(Exhausted):
        quota.reserve(ana, "tokens", 200, 0.0)  # of her own are left 100
    with pytest.raises(Exhausted):
        quota.reserve(ben, "tokens", 700, 0.0)  # of all are left 600
    quota.settle(ana, {"tokens": 300 - 900}, 0.0)
    quota.reserve(ben, "tokens", 700, 0.0)
    quota.reserve(ana, "tokens", 500, 0.0)
    with pytest.raises(InvalidInput, match="can never pass"):
        quota.reserve(ana, "tokens", 1001, 0.0)


def test_an_account_finds_its_buckets_again_after_they_were_forgotten() -> None:
    quota = Quota({"delay": TEN}, max_buckets=1)
    ana, ben = Account((("delay", "ana"),)), Account((("delay", "ben"),))
    quota.draw(ana, 0.0)
    quota.draw(ben, 10.0)  # who found room, since ana's was full again
    for _ in range(19):
        quota.draw(ben, 10.0)
    with pytest.raises(Exhausted):
        quota.draw(ana, 10.0)
    with pytest.raises(Exhausted):
        quota.draw(ben, 10.0)
