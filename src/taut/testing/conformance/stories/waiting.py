"""Waits, signals and forks."""

from __future__ import annotations

from contextlib import suppress
from datetime import timedelta

import pytest

from taut.core.errors import (
    Conflict,
    InvalidInput,
)
from taut.ports.stories import Json, Story, StoryState, StoryTable
from taut.testing.conformance.stories.world import (
    LEASE_S,
    Killed,
    Rollback,
    World,
    failure,
    once,
    start_and_die,
    take_over,
)


class Waiting:
    """Waits, signals and forks."""

    def test_a_wait_of_days_is_durable_holds_no_thread_and_ends_on_time(self, world: World) -> None:
        def tell(story: Story, _: Json) -> Json:
            answer = story.wait("approval", timeout=timedelta(days=3))
            return {"answer": answer, "after": story.step("after", lambda: "late")}

        stories = world.open({"tell": tell})
        id_ = stories.start("tell", {}, key="k")
        stories.work(until_idle=True)  # returns, so that no thread waits
        waiting = stories.status(id_)
        world.clock.advance(timedelta(days=3) - timedelta(seconds=1))
        world.open({"tell": tell}).work(until_idle=True)
        early = stories.status(id_).state
        world.clock.advance(1)
        world.open({"tell": tell}).work(until_idle=True)

        assert (waiting.state, waiting.waiting_for) == (StoryState.WAITING, "approval")
        assert early == StoryState.WAITING
        assert stories.result(id_) == {"answer": None, "after": "late"}

    def test_a_death_does_not_prolong_a_wait(self, world: World) -> None:
        die = once(Killed())

        def tell(story: Story, _: Json) -> Json:
            if story.wait("first", timeout=timedelta(hours=1)) is None:
                die()
            story.wait("second", timeout=timedelta(hours=1))
            return "done"

        stories = world.open({"tell": tell})
        id_ = stories.start("tell", {}, key="k")
        stories.work(until_idle=True)
        world.clock.advance(timedelta(hours=1))
        with pytest.raises(Killed):
            stories.work(until_idle=True)
        world.clock.advance(LEASE_S + 1)
        stories.work(until_idle=True)
        waiting = stories.status(id_)
        world.clock.advance(timedelta(hours=1))
        stories.work(until_idle=True)

        assert (waiting.state, waiting.waiting_for) == (StoryState.WAITING, "second")
        assert stories.result(id_) == "done"

    def test_a_signal_arrives_before_during_and_after_the_wait_and_the_first_value_wins(
        self, world: World
    ) -> None:
        def tell(story: Story, _: Json) -> Json:
            return [story.wait("early"), story.wait("late"), story.wait("late")]

        stories = world.open({"tell": tell})
        id_ = stories.start("tell", {}, key="k")
        stories.signal(id_, "early", {"by": "ann"})
        stories.signal(id_, "early", {"by": "bob"})
        stories.work(until_idle=True)
        waiting = stories.status(id_)
        stories.signal(id_, "unrelated", 1)
        stories.work(until_idle=True)
        still = stories.status(id_)
        world.open({"tell": tell}).signal(id_, "late", 7)
        stories.work(until_idle=True)

        assert (waiting.waiting_for, still.waiting_for) == ("late", "late")
        assert stories.result(id_) == [{"by": "ann"}, 7, 7]
        stories.signal(id_, "late", 8)  # known already: nothing to say
        assert isinstance(failure(lambda: stories.signal(id_, "new", 8)), Conflict)

    def test_a_signal_is_sent_if_and_only_if_the_transaction_commits(self, world: World) -> None:
        stories = world.open({"tell": lambda story, _: story.wait("go")})
        id_ = stories.start("tell", {}, key="k")
        stories.work(until_idle=True)
        with suppress(Rollback), world.records.begin() as tx:
            stories.signal_in(tx, id_, "go", "lost")
            raise Rollback
        stories.work(until_idle=True)
        before = stories.status(id_).state
        with world.records.begin() as tx:
            stories.signal_in(tx, id_, "go", "kept")
        stories.work(until_idle=True)

        assert before == StoryState.WAITING
        assert stories.result(id_) == "kept"

    def test_a_fork_happens_exactly_once(self, world: World) -> None:
        die = once(Killed())

        def parent(story: Story, _: Json) -> Json:
            child = story.fork("child", "child", {"n": 1})
            story.step("die", die)
            return [child, story.fork("another", "child", {"n": 2})]

        table: StoryTable = {
            "parent": parent,
            "child": lambda story, _: story.commit("c", world.leave("c")),
        }
        id_ = start_and_die(world.open(table), "parent")
        stories = take_over(world, table)
        children = stories.result(id_)

        assert world.left() == {"c": 2}
        assert len({*children, id_}) == len(stories.list()) == 3
        assert all(stories.status(child).state == StoryState.DONE for child in children)

    def test_a_fork_of_an_unknown_story_is_refused(self, world: World) -> None:
        stories = world.open({"parent": lambda story, _: story.fork("x", "nobody", {})})
        id_ = stories.start("parent", {}, key="k")

        assert isinstance(failure(lambda: stories.result(id_)), InvalidInput)
        assert len(stories.list()) == 1
