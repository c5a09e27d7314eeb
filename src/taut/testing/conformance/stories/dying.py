"""Deaths, leases and fences."""

from __future__ import annotations

import threading
from contextlib import suppress

import pytest

from taut.core.errors import (
    Unavailable,
)
from taut.ports.stories import Json, Stories, Story, StoryState
from taut.testing.conformance.stories.world import (
    LEASE_S,
    Killed,
    World,
    failure,
    once,
    run,
    start_and_die,
    take_over,
    unended,
)


class Dying:
    """What survives death, and what a zombie may not do."""

    def test_after_a_death_a_step_may_run_again_and_a_commit_never_does(self, world: World) -> None:
        ran: list[str] = []

        def die() -> None:
            ran.append("die")
            if ran.count("die") == 1:
                raise Killed

        def tell(story: Story, _: Json) -> Json:
            story.step("plain", lambda: ran.append("plain"))
            story.commit("leave", world.leave("a"))
            story.step("die", die)
            return story.commit("leave again", world.leave("a"))

        id_ = start_and_die(world.open({"tell": tell}), "tell")
        peer = take_over(world, {"tell": tell})

        assert ran == ["plain", "die", "die"]
        assert world.left() == {"a": 2}
        assert peer.result(id_) == 2

    def test_a_death_inside_a_commit_leaves_nothing(self, world: World) -> None:
        die = once(Killed())

        def tell(story: Story, _: Json) -> Json:
            return story.commit("leave", lambda tx: (world.leave("a")(tx), die())[0])

        id_ = start_and_die(world.open({"tell": tell}), "tell")
        assert world.left() == {}

        assert take_over(world, {"tell": tell}).result(id_) == 1
        assert world.left() == {"a": 1}

    def test_a_peer_takes_over_after_the_lease_and_not_before(self, world: World) -> None:
        def tell(story: Story, _: Json) -> Json:
            story.step("die", die)
            return "done"

        die = once(Killed())
        id_ = start_and_die(world.open({"tell": tell}), "tell")
        peer = world.open({"tell": tell})
        world.clock.advance(LEASE_S - 1)
        peer.work(until_idle=True)
        early = peer.status(id_).state
        world.clock.advance(2)
        peer.work(until_idle=True)

        assert (early, peer.status(id_).state) == (StoryState.RUNNING, StoryState.DONE)

    @pytest.mark.parametrize("asleep_in", ["step", "commit"])
    def test_a_zombie_that_wakes_changes_nothing(self, world: World, asleep_in: str) -> None:
        asleep, wake, zombie_ran = threading.Event(), threading.Event(), []

        def zombie_tale(story: Story, _: Json) -> Json:
            def sleep() -> Json:
                asleep.set()
                assert wake.wait(90)
                return "zombie"

            story.commit("before", world.leave("before"))
            if asleep_in == "step":
                story.step("middle", sleep)
            else:
                # Asleep between two calls: it holds no transaction, but it believes that the story is its own.
                sleep()
                story.step("middle", lambda: "zombie")
            zombie_ran.append("went on")
            story.commit("after", world.leave("after"))
            return "zombie"

        def tale(story: Story, _: Json) -> Json:
            story.commit("before", world.leave("before"))
            middle = story.step("middle", lambda: "peer")
            story.commit("after", world.leave("after"))
            return middle

        zombie, peer = world.open({"tell": zombie_tale}), world.open({"tell": tale})
        id_ = zombie.start("tell", {}, key="k")
        thread = threading.Thread(target=lambda: zombie.work(until_idle=True))
        thread.start()
        assert asleep.wait(90)
        world.clock.advance(LEASE_S + 1)
        peer.work(until_idle=True)
        wake.set()
        thread.join(90)

        assert not thread.is_alive()
        assert zombie_ran == []
        assert world.left() == {"before": 1, "after": 1}
        assert zombie.result(id_) == peer.result(id_) == "peer"

    def test_a_story_that_kills_whoever_runs_it_is_set_aside(self, world: World) -> None:
        def deadly(story: Story, _: Json) -> Json:
            story.step("fine", lambda: 1)
            raise Killed

        id_ = world.open({"deadly": deadly}).start("deadly", {}, key="k")
        for _ in range(40):
            stories = world.open({"deadly": deadly})
            with suppress(Killed):
                stories.work(until_idle=True)
            world.clock.advance(LEASE_S + 1)
            if stories.status(id_).state == StoryState.STRANDED:
                break

        status = stories.status(id_)
        assert status.state == StoryState.STRANDED
        assert "died after step 1" in status.error

    def test_engines_and_threads_share_the_work_and_each_commit_happens_once(self, world: World) -> None:
        def tell(story: Story, arguments: Json) -> Json:
            before = story.commit("first", world.leave("shared"))
            story.step("think", lambda: before)
            story.commit("second", world.leave(f"own-{arguments}"))
            return before

        engines = [world.open({"tell": tell}) for _ in range(2)]
        ids = [engines[0].start("tell", n, key=str(n)) for n in range(12)]
        errors: list[BaseException] = []

        def work(engine: Stories) -> None:
            try:
                engine.work(until_idle=True)
            except BaseException as error:  # noqa: BLE001 - told to the test, which fails on it
                errors.append(error)

        run([threading.Thread(target=work, args=(engine,)) for engine in engines for _ in range(2)])
        world.clock.advance(LEASE_S + 1)
        engines[1].work(until_idle=True)

        assert errors == []
        assert world.left() == {"shared": 12} | {f"own-{n}": 1 for n in range(12)}
        assert sorted(engines[0].result(id_) for id_ in ids) == list(range(1, 13))

    def test_an_engine_that_stops_gives_its_story_back_at_once(self, world: World) -> None:
        def tell(story: Story, _: Json) -> Json:
            story.step("stop", lambda: first.stop())
            story.step("next", lambda: ran.append("next"))

        ran: list[str] = []
        first = world.open({"tell": tell})
        id_ = first.start("tell", {}, key="k")
        first.work()
        after_stop = list(ran)
        peer = world.open({"tell": tell})
        peer.work(until_idle=True)

        assert (after_stop, ran) == ([], ["next"])
        assert peer.status(id_).state == StoryState.DONE
        assert isinstance(failure(lambda: first.result(unended(first, world))), Unavailable)

    def test_a_keyboard_interrupt_gives_the_story_back_at_once(self, world: World) -> None:
        interrupt = once(KeyboardInterrupt())

        def tell(story: Story, _: Json) -> Json:
            story.step("a", interrupt)
            return "done"

        stories = world.open({"tell": tell})
        id_ = stories.start("tell", {}, key="k")
        with pytest.raises(KeyboardInterrupt):
            stories.work(until_idle=True)
        stories.work(until_idle=True)

        assert stories.result(id_) == "done"
