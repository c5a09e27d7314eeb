"""New versions of the code, and the decisions of people."""

from __future__ import annotations

from datetime import timedelta

import pytest

from taut.core.errors import (
    Conflict,
)
from taut.ports.stories import Json, Story, StoryState
from taut.testing.conformance.stories.world import (
    Killed,
    World,
    failure,
    nothing,
    once,
    start_and_die,
    take_over,
    tale,
)


class Changing:
    """New versions of the code, and the decisions of people."""

    @pytest.mark.parametrize(
        ("calls", "where"),
        [
            (["a", "x", "c"], "call 2 is step 'x' in the code and step 'b' in the journal"),
            (["a"], "the code ended where the journal has call 2"),
            (["a", "wait:b"], "call 2 is wait 'b' in the code and step 'b' in the journal"),
        ],
    )
    def test_code_that_does_not_fit_the_journal_strands_the_story_and_says_where(
        self, world: World, calls: list[str], where: str
    ) -> None:
        old = tale(["a", "b", "die", "c"], die=once(Killed()))
        id_ = start_and_die(world.open({"tell": old}), "tell")
        stories = take_over(world, {"tell": tale(calls)})
        stranded = stories.status(id_)
        error = failure(lambda: stories.result(id_))
        restored = world.open({"tell": old})
        restored.resume(id_)

        assert stranded.state == StoryState.STRANDED
        assert where in stranded.error
        assert isinstance(error, Conflict)
        assert restored.result(id_) == ["a", "b", None, "c"]

    def test_code_that_only_adds_calls_after_the_journal_goes_on(self, world: World) -> None:
        die = once(Killed())
        id_ = start_and_die(world.open({"tell": tale(["a", "die"], die=die)}), "tell")
        stories = take_over(world, {"tell": tale(["a", "die", "b"], die=die)})

        assert stories.result(id_) == ["a", None, "b"]

    def test_a_story_that_no_code_knows_is_set_aside_after_a_while(self, world: World) -> None:
        id_ = world.open({"old": nothing}).start("old", {}, key="k")
        new = world.open({"new": nothing})
        new.work(until_idle=True)
        early = new.status(id_).state
        world.clock.advance(timedelta(hours=1))
        new.work(until_idle=True)

        assert early == StoryState.RUNNING
        assert new.status(id_).state == StoryState.STRANDED
        assert "no code that is deployed knows 'old'" in new.status(id_).error

    def test_a_cancelled_story_ends_and_whoever_runs_it_is_fenced_off(self, world: World) -> None:
        def tell(story: Story, _: Json) -> Json:
            story.step("cancel", lambda: other.cancel(story.id, reason="changed my mind"))
            story.commit("leave", world.leave("a"))

        stories, other = world.open({"tell": tell}), world.open({"tell": tell})
        id_ = stories.start("tell", {}, key="k")
        stories.work(until_idle=True)
        other.cancel(id_, reason="again")

        assert world.left() == {}
        assert stories.status(id_).state == StoryState.CANCELLED
        assert stories.status(id_).error.endswith("was cancelled: changed my mind")
        assert isinstance(failure(lambda: stories.result(id_)), Conflict)
        assert isinstance(failure(lambda: stories.resume(id_)), Conflict)

    def test_a_waiting_story_can_be_cancelled(self, world: World) -> None:
        stories = world.open({"tell": lambda story, _: story.wait("go")})
        id_ = stories.start("tell", {}, key="k")
        stories.work(until_idle=True)
        stories.cancel(id_, reason="no")
        stories.work(until_idle=True)

        assert isinstance(failure(lambda: stories.signal(id_, "go", 1)), Conflict)
        assert stories.status(id_).state == StoryState.CANCELLED
