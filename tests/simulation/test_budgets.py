"""A budget holds over its whole window, while gateways come and go, reports are lost and control dies."""

from __future__ import annotations

import pytest
from quota_world import World

from taut.trust.quota import Budgets, Key, budget

WINDOW_S = 240.0
LIMIT = budget(1000.0, WINDOW_S, kind="usd_micros", level="all callers together")
KEY: Key = ("quota:all:usd_micros", "")


def started(n: int, keeper: type[Budgets] = Budgets, *, seed: int = 5, loss: float = 0.0) -> World:
    world = World({KEY[0]: LIMIT}, seed=seed, loss=loss, slow_s=0.2, keeper=keeper, window_s=WINDOW_S)
    world.announce(n)
    for number in range(n):
        world.start(f"gateway-{number}")
    world.run(0.5)
    return world


def offer(world: World, per_s: float, for_s: float) -> float:
    """Offer requests that cost half a unit to one and a half; return what was spent a second."""
    until_s, before = world.now_s + for_s, world.total.get(KEY, 0.0)
    while world.now_s < until_s:
        name = world.random.choice(sorted(world.replicas))
        world.replicas[name].spend(KEY, 0.5 + world.random.random())
        world.run(min(until_s, world.now_s + 1.0 / per_s))
    return (world.total[KEY] - before) / for_s


def test_a_budget_is_spent_to_the_end_and_comes_back_as_it_leaves_the_window() -> None:
    world = started(2)

    offer(world, 25.0, 120.0)
    spent = world.total[KEY]
    assert 0.98 * LIMIT.burst <= spent <= LIMIT.burst + 3.0
    assert offer(world, 20.0, 60.0) <= 0.05
    offer(world, 20.0, 360.0)
    assert world.worst[KEY] <= LIMIT.burst + 3.0
    assert world.total[KEY] >= 1.9 * LIMIT.burst


def rough(keeper: type[Budgets] = Budgets, *, seed: int = 1) -> World:
    """Let gateways come and go, messages be lost and control restart, for three windows."""
    world = started(3, keeper, seed=seed, loss=0.1)
    chance = world.random
    for round_ in range(72):
        match chance.randrange(8):
            case 0 if len(world.replicas) < 6:
                world.start(f"gateway-{chance.randrange(12)}")
            case 1 if len(world.replicas) > 2:
                world.stop(chance.choice(sorted(world.replicas)), seen=chance.random() < 0.7)
            case 2:
                world.start_control()
        world.announce(len(world.replicas))
        offer(world, 12.0, 5.0 if round_ % 9 else 20.0)
    return world


DEBT = 6 * 1.5
"""What requests that were under way cost beyond what was left, at as many gateways as there are at most."""


@pytest.mark.parametrize("seed", range(2))
def test_whatever_goes_wrong_no_window_sees_more_than_the_budget(seed: int) -> None:
    world = rough(seed=seed)

    assert world.worst[KEY] <= LIMIT.burst + DEBT
    assert (
        world.total[KEY] >= 1.5 * LIMIT.burst
    )  # in three windows: what ended gateways had in hand is lost to all


class ForgetsWhatIsInHands(Budgets):
    """Allows what was not spent yet, though others may be spending it."""

    def _open(self, key: Key, book: object, besides: str) -> float:
        return 0.0


class BeginsAnew(Budgets):
    """Takes nothing from what the run before it wrote down."""

    def __init__(self, **more: object) -> None:
        super().__init__(**{**more, "rows": ()})  # type: ignore[arg-type]  # the same arguments, less one


class TrustsTheDead(Budgets):
    """Gives back what a gateway had in hand when it ended."""

    def end(self, name: str, now_s: float) -> None:
        for book in self._books.values():
            book.entries.pop(name, None)
        super().end(name, now_s)


class ForgetsTooEarly(Budgets):
    """Lets what was spent go when half of the window is over."""

    def _spent(self, key: Key, book: object, now_s: float) -> float:
        return super()._spent(key, book, now_s + WINDOW_S / 2)  # type: ignore[arg-type]  # what it was given


@pytest.mark.parametrize(
    ("keeper", "seed"), [(ForgetsWhatIsInHands, 0), (BeginsAnew, 1), (TrustsTheDead, 1), (ForgetsTooEarly, 1)]
)
def test_the_search_finds_a_keeper_that_forgets(keeper: type[Budgets], seed: int) -> None:
    world = rough(keeper, seed=seed)

    assert world.worst[KEY] > LIMIT.burst + DEBT


def test_without_control_a_tenth_more_is_spent_at_most_however_long_it_is_away() -> None:
    world = started(2)
    offer(world, 40.0, 60.0)
    world.leases = None
    offer(world, 25.0, 120.0)

    assert LIMIT.burst * 0.95 <= world.worst[KEY] <= LIMIT.burst * 1.1 + 2 * DEBT
