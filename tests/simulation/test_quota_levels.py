"""Every level of a quota holds at once: of each principal, of his team and of all callers, while gateways come and go."""

from __future__ import annotations

from copy import copy

import pytest
from quota_world import World

from taut.trust.quota import Account, Key, Limit, Quota, QuotaSpent

LIMITS = {
    "delay": Limit(rate_per_s=300.0, burst=30.0),
    "quota:team:requests": Limit(rate_per_s=500.0, burst=50.0, level="its members together"),
    "quota:all:requests": Limit(rate_per_s=700.0, burst=70.0, level="all callers together"),
}
TEAM: Key = ("quota:team:requests", "")
ALL: Key = ("quota:all:requests", "")
WAYS: tuple[tuple[Key, ...], ...] = (
    (("delay", "ana"), TEAM, ALL),
    (("delay", "ben"), TEAM, ALL),
    (("delay", "cem"), TEAM, ALL),
    (("delay", "dee"), ALL),
    (("delay", "eve"), ALL),
)


def offer(world: World, per_s: float, for_s: float) -> dict[Key, float]:
    """Offer requests of all callers, spread over the gateways; return how many a second passed of each key."""
    until_s, before = world.now_s + for_s, dict(world.total)
    while world.now_s < until_s:
        replica = world.replicas[world.random.choice(sorted(world.replicas))]
        replica.draw(world.random.choice(WAYS))
        world.run(min(until_s, world.now_s + 1.0 / per_s))
    return {key: (total - before.get(key, 0.0)) / for_s for key, total in world.total.items()}


def through_scaling(counter: type[Quota] = Quota, *, seed: int = 3) -> tuple[World, dict[Key, float]]:
    """Have two gateways, then eight, then three, under a lossy network, with a cut and a control that dies meanwhile."""
    world = World(LIMITS, seed=seed, loss=0.05, skew=0.04, slow_s=0.2, counter=counter)
    world.announce(2)
    for number in range(2):
        world.start(f"gateway-{number}")
    world.run(0.5)
    offer(world, 2500, 2.0)
    world.replicas["gateway-1"].cut = True  # with half of everything in its hands
    world.announce(8)
    for number in range(2, 8):
        world.after(0.1 * number, lambda number=number: world.start(f"gateway-{number}"))
    offer(world, 2500, 7.0)
    world.replicas["gateway-1"].cut = False
    world.start_control()
    offer(world, 2500, 1.0)
    world.announce(3)
    for number in range(3, 8):
        world.stop(f"gateway-{number}", seen=number % 2 == 0)
    offer(world, 2500, 5.0)
    return world, offer(world, 2500, 2.0)


def exceeded(world: World) -> list[Key]:
    """Return the keys of which more passed in some second than rate and burst, and what clocks run apart, allow."""
    return [
        key
        for key, worst in world.worst.items()
        if worst > (LIMITS[key[0]].rate_per_s + LIMITS[key[0]].burst) * (1 + world.skew)
    ]


def test_no_level_ever_gives_more_than_its_rate_and_burst_in_a_second_and_all_is_given_in_the_end() -> None:
    world, steady = through_scaling()

    assert exceeded(world) == []
    assert steady[ALL] >= 0.9 * LIMITS[ALL[0]].rate_per_s  # held by the widest level, which is short
    assert sum(steady[way[0]] for way in WAYS) == pytest.approx(steady[ALL])


class CountsTheFirstLevelAlone(Quota):
    """Looks at every level, and takes from the first one."""

    def draw(self, account: Account, now_s: float) -> None:
        super().draw(account, now_s)
        for bucket in account.buckets[1:]:
            bucket.tokens += 1.0


class NeverGivesUpALease(Quota):
    """Goes on with what it was lent when that is over."""

    def _lapse(self) -> None:
        pass


class GivesEachCallerHisOwn(Quota):
    """Opens the bucket of a shared level once for each who shares it."""

    def _open(self, account: Account, now_s: float) -> None:
        super()._open(account, now_s)
        account.buckets = tuple(copy(bucket) for bucket in account.buckets)


@pytest.mark.parametrize("counter", [CountsTheFirstLevelAlone, NeverGivesUpALease, GivesEachCallerHisOwn])
def test_the_search_finds_a_counter_that_forgets_a_level(counter: type[Quota]) -> None:
    world, _ = through_scaling(counter)
    assert exceeded(world)


def test_what_one_level_refuses_costs_the_others_nothing() -> None:
    quota = Quota(
        {
            "delay": Limit(rate_per_s=1.0, burst=5.0),
            "quota:all:requests": Limit(rate_per_s=1.0, burst=2.0, level="all callers together"),
        }
    )
    account = Account((("delay", "ana"), ("quota:all:requests", "")))
    for _ in range(2):
        quota.draw(account, 0.0)
    with pytest.raises(QuotaSpent, match="'all' gives all callers together"):
        quota.draw(account, 0.0)

    for _ in range(3):
        quota.take(("delay", "ana"), 1.0, 0.0)
