"""Second attempts beside slow first ones: who wins, what they may cost, and that nothing is left running."""

from __future__ import annotations

import asyncio
from collections import defaultdict
from collections.abc import Callable, Coroutine
from typing import Any

import pytest

from taut.core.errors import Unavailable
from taut.serving.gateway.hedging import HedgeBudget, hedged


class Attempts:
    """Attempts that give their number or fail. when: of each, "at once", "never", or what must have happened before."""

    def __init__(self, *when: str, fails: tuple[int, ...] = ()) -> None:
        self.when, self.fails = when, fails
        self.begun = 0
        self.cancelled: list[int] = []
        self.happened: dict[str, asyncio.Event] = defaultdict(asyncio.Event)
        self.happened["at once"].set()

    async def __call__(self) -> int:
        number = self.begun
        self.begun += 1
        self.happened[f"{number} began"].set()
        try:
            await self.happened[self.when[number]].wait()
        except asyncio.CancelledError:
            self.cancelled.append(number)
            raise
        finally:
            self.happened[f"{number} ended"].set()
        if number in self.fails:
            raise Unavailable(f"attempt {number}")
        return number


def run(made: Callable[[], Coroutine[Any, Any, int]]) -> int:
    async def whole() -> int:
        try:
            return await made()
        finally:
            await asyncio.sleep(0)  # those that lost hear it

    return asyncio.run(whole())


def ask(attempts: Attempts, *, spare: bool = True, budget: HedgeBudget | None = None) -> int:
    def asked() -> bool:
        attempts.happened["spare asked"].set()
        return spare

    return run(lambda: hedged(attempts, after_s=0.01, spare=asked, budget=budget or HedgeBudget()))


def test_a_quick_answer_costs_one_attempt() -> None:
    attempts = Attempts("at once", "at once")

    assert ask(attempts) == 0
    assert attempts.begun == 1


def test_a_slow_attempt_is_overtaken_and_given_up() -> None:
    attempts, budget = Attempts("never", "at once"), HedgeBudget()

    assert ask(attempts, budget=budget) == 1
    assert attempts.cancelled == [0]
    assert (budget.spent, budget.won) == (1, 1)


def test_the_first_attempt_may_still_win() -> None:
    attempts, budget = Attempts("1 began", "never"), HedgeBudget()

    assert ask(attempts, budget=budget) == 0
    assert attempts.cancelled == [1]
    assert (budget.spent, budget.won) == (1, 0)


def test_without_a_free_worker_there_is_no_second_attempt() -> None:
    attempts = Attempts("spare asked", "at once")

    assert ask(attempts, spare=False) == 0
    assert attempts.begun == 1


def test_one_attempt_that_fails_leaves_the_other_its_chance() -> None:
    assert ask(Attempts("1 began", "0 ended", fails=(0,))) == 1
    assert ask(Attempts("1 ended", "at once", fails=(1,))) == 0


def test_when_all_fail_the_first_failure_is_the_answer() -> None:
    with pytest.raises(Unavailable, match="attempt 0"):
        ask(Attempts("1 ended", "at once", fails=(0, 1)))
    with pytest.raises(Unavailable, match="attempt 0"):
        ask(Attempts("at once", fails=(0,)))


def test_a_caller_who_hangs_up_ends_both() -> None:
    attempts = Attempts("never", "never")

    async def whole() -> None:
        task = asyncio.create_task(hedged(attempts, after_s=0.0, spare=lambda: True, budget=HedgeBudget()))
        await attempts.happened["1 began"].wait()
        task.cancel()
        await asyncio.wait((task,))
        await asyncio.sleep(0)

    asyncio.run(whole())

    assert attempts.cancelled == [0, 1]


def test_second_attempts_stay_within_a_twentieth_of_the_requests() -> None:
    budget = HedgeBudget()

    for _ in range(2000):
        budget.earn()
        budget.spend()

    assert 95 <= budget.spent <= 101


def test_after_a_quiet_time_eight_may_come_at_once_and_no_more() -> None:
    budget = HedgeBudget()
    for _ in range(10_000):
        budget.earn()

    assert sum(budget.spend() for _ in range(100)) == 8
