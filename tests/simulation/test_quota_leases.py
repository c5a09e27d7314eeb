"""Quotas hold while gateways come and go, control dies, messages are lost and clocks run apart."""

from __future__ import annotations

import msgspec
import pytest
from quota_world import WHOLE, World

from taut.trust.quota import Claim, Lease, Leases, Limit
from taut.trust.quota.leases import Holder
from taut.trust.quota.messages import Key

KEY = ("delay", "alice")
COLD = ("delay", "bob")
THOUSAND = Limit(rate_per_s=1000.0, burst=100.0)


def offer(world: World, per_s: float, for_s: float, *, lopsided: float = 0.0) -> float:
    """Offer requests of one caller, spread over the gateways or a part of them all on one; return how many a second passed."""
    until_s, before = world.now_s + for_s, world.total.get(KEY, 0.0)
    while world.now_s < until_s:
        names = sorted(world.replicas)
        name = names[0] if world.random.random() < lopsided else world.random.choice(names)
        world.replicas[name].take(KEY)
        world.run(min(until_s, world.now_s + 1.0 / per_s))
    return (world.total[KEY] - before) / for_s


def started(n: int, limit: Limit = THOUSAND, *, seed: int = 7) -> World:
    world = World({"delay": limit}, seed=seed)
    world.announce(n)
    for number in range(n):
        world.start(f"gateway-{number}")
    world.run(0.1)
    return world


def test_a_quota_of_a_thousand_holds_through_two_twenty_and_four_gateways() -> None:
    world = started(2)
    steady = [offer(world, 3000, 3.0)]
    world.announce(20)
    for number in range(2, 20):
        world.after(0.05 * number, lambda number=number: world.start(f"gateway-{number}"))
    growing = offer(world, 3000, 3.0)
    steady.append(offer(world, 3000, 3.0))
    world.announce(4)
    for number in range(4, 20):
        world.after(
            0.05 * number, lambda number=number: world.stop(f"gateway-{number}", seen=number % 2 == 0)
        )
    shrinking = offer(world, 3000, 6.0)
    steady.append(offer(world, 3000, 3.0))

    assert world.worst[KEY] <= THOUSAND.rate_per_s + THOUSAND.burst
    assert min(steady) >= 0.9 * THOUSAND.rate_per_s  # held, and not by refusing everybody
    assert min(growing, shrinking) >= 0.3 * THOUSAND.rate_per_s


def test_a_caller_who_comes_by_one_gateway_gets_nearly_all_of_his_quota_there() -> None:
    world = started(4)

    at_first = offer(world, 3000, 1.0, lopsided=1.0)
    later = offer(world, 3000, 6.0, lopsided=1.0)
    then = offer(world, 3000, 2.0, lopsided=1.0)

    assert at_first <= 400
    assert later < then
    assert then >= 0.85 * THOUSAND.rate_per_s
    assert world.in_use(KEY)[0] <= WHOLE
    assert world.worst[KEY] <= THOUSAND.rate_per_s + THOUSAND.burst


def test_a_cut_of_a_quota_is_obeyed_within_a_lease_s_life_also_by_who_does_not_hear_of_it() -> None:
    world = started(2)
    offer(world, 3000, 2.0)
    world.limits = {"delay": Limit(rate_per_s=100.0, burst=10.0)}
    world.announce(2)
    told, deaf = world.replicas.values()
    deaf.cut = True
    told.quota.declare(world.limits, parts=2, now_s=told.now_s())
    offer(world, 3000, 4.5)
    world.spent.clear()
    world.worst.clear()
    world._in_second.clear()

    passed = offer(world, 3000, 4.0)

    assert (
        0 < passed <= 100.0 + 0.1 * 500
    )  # what is new, and the safe share of the old that nobody could take back
    assert world.worst[KEY] <= 100.0 + 10.0 + 0.1 * (500.0 + 50.0)


def test_without_control_leases_run_down_to_a_safe_share_that_still_answers() -> None:
    world = started(2)
    before = offer(world, 3000, 2.0)
    world.leases = None
    offer(world, 3000, 4.5)
    alone = offer(world, 3000, 3.0)
    world.start_control()
    offer(world, 3000, 5.0)
    after = offer(world, 3000, 3.0)

    assert before >= 800
    assert 0.08 * THOUSAND.rate_per_s <= alone <= 0.11 * THOUSAND.rate_per_s
    assert after >= 800


def test_a_control_that_restarts_lends_at_first_what_is_claimed_and_nobody_notices() -> None:
    world = started(3)
    offer(world, 3000, 2.0)
    world.start_control()
    assert world.leases is not None
    assert world.leases.learning(world.now_s)
    during = offer(world, 3000, 3.0)

    assert during >= 0.95 * THOUSAND.rate_per_s
    assert world.worst[KEY] <= THOUSAND.rate_per_s + THOUSAND.burst


def rough(seed: int, lender: type[Leases] = Leases) -> World:
    """Let everything go wrong by chance, and judge after each step what all gateways together may let pass."""
    limit = Limit(rate_per_s=200.0, burst=40.0)
    world = World({"delay": limit}, seed=seed, loss=0.1, skew=0.04, slow_s=0.8, lender=lender)
    chance = world.random
    for number in range(2):
        world.start(f"gateway-{number}")
    for _ in range(240):
        at_s = world.now_s + 0.1
        match chance.randrange(120):
            case 0 if len(world.replicas) < 5:
                world.start(f"gateway-{chance.randrange(12)}")
            case 1 if len(world.replicas) > 1:
                world.stop(chance.choice(sorted(world.replicas)), seen=chance.random() < 0.5)
            case 2:
                replica = world.replicas[chance.choice(sorted(world.replicas))]
                replica.cut = not replica.cut
            case 3:
                world.leases = None
            case 4:
                world.start_control()
            case 5:
                world.start(chance.choice(sorted(world.replicas)))
        world.announce(sum(not one.cut for one in world.replicas.values()))
        while world.now_s < at_s:
            world.run(min(at_s, world.now_s + 0.01))
            name = chance.choice(sorted(world.replicas)) if chance.random() < 0.3 else min(world.replicas)
            for _ in range(chance.randrange(6)):
                world.replicas[name].take(KEY)
        for key in (KEY, COLD):
            lent, _ = world.in_use(key)
            assert lent <= WHOLE, (seed, world.now_s, key)
    return world


@pytest.mark.parametrize("seed", range(12))
def test_whatever_goes_wrong_the_shares_in_use_never_exceed_the_whole(seed: int) -> None:
    world = rough(seed)

    assert 0 < world.worst[KEY] <= (200.0 + 40.0) * 1.1


class ForgetsWhatIsUnderWay(Leases):
    """Counts the newest lease of each alone, though an older one that allows more may still be in use."""

    def _reserved(self, key: Key | None, besides: Holder, now_s: float) -> int:
        others = [one for one in self._holders.values() if one is not besides and one.holds]
        return sum(one.holds[-1].of(key, now_s) for one in others)


class TrustsClocks(Leases):
    """Lends until the very end of what it counts, by the holder's clock."""

    def hear(self, name: str, claim: Claim, now_s: float) -> Lease | None:
        lease = super().hear(name, claim, now_s)
        return None if lease is None else msgspec.structs.replace(lease, ttl_s=self.terms.ttl_s * 1.3)


class LearnsNothing(Leases):
    """Takes those for unknown who held something before it began."""

    def learning(self, now_s: float) -> bool:
        return False


class FreesTheSilent(Leases):
    """Gives away the safe share of who cannot be heard."""

    def _reserved(self, key: Key | None, besides: Holder, now_s: float) -> int:
        return sum(one.most(key, now_s) for one in self._living(now_s) if one is not besides)


@pytest.mark.parametrize(
    ("lender", "seed"),
    [(ForgetsWhatIsUnderWay, 12), (TrustsClocks, 18), (LearnsNothing, 8), (FreesTheSilent, 14)],
)
def test_the_search_finds_a_lender_that_forgets(lender: type[Leases], seed: int) -> None:
    with pytest.raises(AssertionError):
        rough(seed, lender)
