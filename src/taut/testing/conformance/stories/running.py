"""Stories that start, run, fail and end."""

from __future__ import annotations

import threading
from collections.abc import Callable
from contextlib import suppress
from datetime import timedelta
from functools import partial

from taut.core.errors import (
    Conflict,
    Corrupt,
    DeadlineExceeded,
    Exhausted,
    InvalidInput,
    NotFound,
    TautError,
    Unavailable,
)
from taut.ports.records import Tx
from taut.ports.stories import Json, Story, StoryFailed, StoryState
from taut.testing.conformance.stories.world import (
    Killed,
    Rollback,
    World,
    failure,
    nothing,
    once,
    run,
    start_and_die,
    take_over,
)


class Running:
    """What starts, ends, fails and is told."""

    def test_a_story_runs_its_calls_in_order_and_returns_its_result(self, world: World) -> None:
        def tell(story: Story, arguments: Json) -> Json:
            doubled = story.step("double", lambda: arguments["n"] * 2)
            count = story.commit("leave", world.leave("a"))
            return {"doubled": doubled, "count": count, "id": story.id}

        stories = world.open({"tell": tell})
        id_ = stories.start("tell", {"n": 4}, key="k")
        before = stories.status(id_)
        stories.work(until_idle=True)
        after = stories.status(id_)

        assert (before.state, before.steps, before.arguments) == (StoryState.RUNNING, (), {"n": 4})
        assert (after.state, after.steps) == (StoryState.DONE, ("double", "leave"))
        assert after.result == stories.result(id_) == {"doubled": 8, "count": 1, "id": id_}
        assert after.started_at == world.clock.now()

    def test_a_worker_kept_for_some_stories_runs_them_beside_a_long_one_and_no_other(
        self, world: World
    ) -> None:
        told, seen = threading.Event(), threading.Event()

        def wait() -> bool:
            seen.set()
            return told.wait(30)

        stories = world.open({
            "long": lambda story, _: story.step("wait", wait),
            "answer": lambda story, _: story.step("tell", lambda: told.set()),
        })  # fmt: skip
        long, other = (stories.start("long", {}, key=key) for key in "ab")
        worker = threading.Thread(target=stories.result, args=(long,))
        worker.start()
        assert seen.wait(30)  # it holds its thread until the answer is told
        answer = stories.start("answer", {}, key="c")
        stories.work(until_idle=True, only=("answer",))
        worker.join(30)

        assert (stories.status(answer).state, stories.result(long)) == (StoryState.DONE, True)
        assert stories.status(other).steps == ()
        assert isinstance(failure(lambda: stories.work(only=("unknown",))), InvalidInput)

    def test_one_key_starts_one_story(self, world: World) -> None:
        stories = world.open({"a": lambda story, _: story.commit("x", world.leave("x")), "b": nothing})
        first = stories.start("a", {}, key="same")
        stories.work(until_idle=True)

        assert (
            stories.start("a", {}, key="same")
            == world.open({"a": nothing}).start("a", {}, key="same")
            == first
        )
        assert isinstance(failure(lambda: stories.start("b", {}, key="same")), Conflict)
        assert stories.start("a", {}, key="other") != first

    def test_threads_that_start_with_one_key_get_one_story(self, world: World) -> None:
        stories = world.open({"a": nothing})
        ids: list[str] = []
        threads = [
            threading.Thread(target=lambda: ids.append(stories.start("a", {}, key="k"))) for _ in range(8)
        ]
        run(threads)

        assert len(ids) == 8
        assert len(set(ids)) == 1

    def test_what_cannot_be_started_is_refused(self, world: World) -> None:
        stories = world.open({"a": nothing})

        assert "knows a" in str(failure(lambda: stories.start("b", {}, key="k")))
        for arguments in (float("nan"), object(), {"y": {1, object()}}):
            assert isinstance(failure(partial(stories.start, "a", arguments, key="k")), InvalidInput)
        unknown: list[Callable[[str], object]] = [
            stories.status, stories.result, stories.resume, lambda id_: stories.signal(id_, "s", 1),
        ]  # fmt: skip
        for call in unknown:
            assert isinstance(failure(partial(call, "story_none")), NotFound)

    def test_a_story_starts_if_and_only_if_the_transaction_commits(self, world: World) -> None:
        stories = world.open({"a": nothing})
        with suppress(Rollback), world.records.begin() as tx:
            lost = stories.start_in(tx, "a", {}, key="lost")
            raise Rollback
        with world.records.begin() as tx:
            kept = stories.start_in(tx, "a", {}, key="kept")
        stories.work(until_idle=True)

        assert stories.status(kept).state == StoryState.DONE
        assert isinstance(failure(lambda: stories.status(lost)), NotFound)

    def test_a_result_is_what_a_replay_would_see(self, world: World) -> None:
        seen: list[Json] = []

        def tell(story: Story, _: Json) -> Json:
            seen.append(story.step("pair", lambda: (1, {"b": 2, "a": (3,)})))
            story.step("die", die)

        die = once(Killed())
        start_and_die(world.open({"tell": tell}), "tell")
        take_over(world, {"tell": tell})

        assert seen == [[1, {"b": 2, "a": [3]}]] * 2

    def test_stories_are_listed_by_state_newest_first(self, world: World) -> None:
        stories = world.open({"a": nothing, "w": lambda story, _: story.wait("go")})
        ids = []
        for key, name in (("1", "a"), ("2", "w"), ("3", "a")):
            ids.append(stories.start(name, {}, key=key))
            world.clock.advance(1)
        stories.work(until_idle=True)

        assert [status.id for status in stories.list()] == ids[::-1]
        assert [status.id for status in stories.list(limit=1)] == ids[2:]
        (waiting,) = stories.list(state=StoryState.WAITING)
        assert (waiting.id, waiting.waiting_for) == (ids[1], "go")

    def test_an_error_is_recorded_with_code_and_message_and_raised_again_on_replay(
        self, world: World
    ) -> None:
        ran: list[str] = []
        seen: list[tuple[type[TautError], str, float]] = []
        die = once(Killed())

        def refuse(_tx: object = None) -> Json:
            ran.append("refuse")
            raise Exhausted("no quota: ask for more", retry_after_s=7.5)

        def tell(story: Story, _: Json) -> Json:
            for call in (partial(story.step, "step", refuse), partial(story.commit, "commit", refuse)):
                try:
                    call()
                except Exhausted as error:
                    seen.append((type(error), error.message, error.retry_after_s))
            story.step("die", die)
            raise Conflict("read it again")

        id_ = start_and_die(world.open({"tell": tell}), "tell")
        stories = take_over(world, {"tell": tell})
        end = failure(lambda: stories.result(id_))

        assert ran == ["refuse", "refuse"]
        assert seen == [(Exhausted, "no quota: ask for more", 7.5)] * 4
        assert (type(end), end.message) == (Conflict, "read it again")
        assert stories.status(id_).error == "conflict: read it again"
        assert stories.status(id_).state == StoryState.FAILED

    def test_a_step_is_tried_again_while_something_is_unavailable_and_then_fails_with_it(
        self, world: World
    ) -> None:
        tries: list[str] = []

        def away(times: int) -> Json:
            tries.append("try")
            if len(tries) <= times:
                raise Unavailable("the store does not answer", retry_after_s=2.0)
            return len(tries)

        def too_late() -> Json:
            tries.append("try")
            raise DeadlineExceeded("nobody waits any longer")

        stories = world.open(
            {
                "passing": lambda story, _: story.step("ask", lambda: away(2)),
                "lasting": lambda story, _: story.step("ask", lambda: away(1000)),
                "late": lambda story, _: story.step("ask", too_late),
            }
        )
        assert stories.result(stories.start("passing", {}, key="passing")) == 3
        tries.clear()
        end = failure(lambda: stories.result(stories.start("lasting", {}, key="lasting")))
        lasting = len(tries)
        tries.clear()
        late = failure(lambda: stories.result(stories.start("late", {}, key="late")))

        assert (type(end), end.message) == (Unavailable, "the store does not answer")
        assert 2 <= lasting <= 10
        assert (type(late), len(tries)) == (DeadlineExceeded, 1)

    def test_damage_that_a_step_finds_fails_the_story_and_does_not_strand_it(self, world: World) -> None:
        def damaged() -> Json:
            raise Corrupt("a blob was changed: restore it from a backup")

        stories = world.open({"tell": lambda story, _: story.step("read", damaged)})
        id_ = stories.start("tell", {}, key="k")
        end = failure(lambda: stories.result(id_))

        assert (type(end), end.message) == (Corrupt, "a blob was changed: restore it from a backup")
        assert stories.status(id_).state is StoryState.FAILED

    def test_another_exception_fails_the_story_and_cannot_be_swallowed(self, world: World) -> None:
        def tell(story: Story, _: Json) -> Json:
            with suppress(ZeroDivisionError):
                story.step("divide", lambda: 1 // 0)
            story.commit("leave", world.leave("a"))

        stories = world.open({"tell": tell})
        id_ = stories.start("tell", {}, key="k")
        end = failure(lambda: stories.result(id_))

        assert isinstance(end, StoryFailed)
        assert "ZeroDivisionError" in end.message
        assert world.left() == {}
        assert stories.status(id_).steps == ()

    def test_an_effect_whose_commit_fails_is_undone(self, world: World) -> None:
        def tell(story: Story, _: Json) -> Json:
            def do(tx: Tx) -> Json:
                world.leave("a")(tx)
                raise Conflict("not this time")

            with suppress(Conflict):
                story.commit("leave", do)
            return story.commit("instead", world.leave("b"))

        stories = world.open({"tell": tell})

        assert stories.result(stories.start("tell", {}, key="k")) == 1
        assert world.left() == {"b": 1}

    def test_a_result_that_is_no_json_fails_the_story_and_undoes_the_commit(self, world: World) -> None:
        def tell(story: Story, _: Json) -> Json:
            with suppress(InvalidInput):
                story.commit("leave", lambda tx: (world.leave("a")(tx), object())[1])
            return story.step("then", lambda: 1)

        stories = world.open({"tell": tell})

        assert isinstance(failure(lambda: stories.result(stories.start("tell", {}, key="k"))), InvalidInput)
        assert world.left() == {}

    def test_calls_do_not_nest(self, world: World) -> None:
        stories = world.open({"tell": lambda story, _: story.step("a", lambda: story.step("b", lambda: 1))})

        assert "inside 'a'" in failure(lambda: stories.result(stories.start("tell", {}, key="k"))).message

    def test_result_runs_the_story_and_its_forks_where_nobody_else_does(self, world: World) -> None:
        main, runners = threading.get_ident(), []

        def parent(story: Story, _: Json) -> Json:
            story.step("who", lambda: runners.append(threading.get_ident()))
            story.fork("child", "child", {"parent": story.id})
            return story.wait("from child")

        def child(story: Story, arguments: Json) -> Json:
            story.step("answer", lambda: stories.signal(arguments["parent"], "from child", 42))

        stories = world.open({"parent": parent, "child": child})
        unrelated = stories.start("child", {"parent": "none"}, key="unrelated")

        assert stories.result(stories.start("parent", {}, key="k")) == 42
        assert runners == [main]
        assert stories.status(unrelated).steps == ()

    def test_result_leaves_the_work_to_a_worker_where_there_is_one(self, world: World) -> None:
        runners: list[int] = []
        started = threading.Event()
        stories = world.open(
            {"tell": lambda story, _: story.step("who", lambda: runners.append(threading.get_ident()))}
        )

        def work() -> None:
            started.set()
            stories.work()

        worker = threading.Thread(target=work)
        worker.start()
        try:
            assert started.wait(90)
            stories.result(stories.start("tell", {}, key="warm"))
            stories.result(stories.start("tell", {}, key="k"))
        finally:
            stories.stop()
            worker.join(90)

        assert runners[-1] == worker.ident
        assert not worker.is_alive()

    def test_a_result_that_takes_too_long_is_said_to(self, world: World) -> None:
        stories = world.open({"tell": lambda story, _: story.wait("never")})
        id_ = stories.start("tell", {}, key="k")
        timer = threading.Timer(0.2, lambda: world.clock.advance(6))
        timer.start()

        assert isinstance(
            failure(lambda: stories.result(id_, timeout=timedelta(seconds=5))), DeadlineExceeded
        )
        timer.join()

    def test_observers_see_progress_and_it_is_not_recorded(self, world: World) -> None:
        def tell(story: Story, _: Json) -> Json:
            story.progress("half", 0.5)
            story.step("a", lambda: 1)
            story.progress("done")

        seen: list[tuple[str, float | None]] = []
        stories = world.open({"tell": tell})
        id_ = stories.start("tell", {}, key="k")
        stories.watch(id_, lambda message, fraction: seen.append((message, fraction)))
        stories.result(id_)

        assert seen == [("half", 0.5), ("done", None)]
        assert stories.status(id_).steps == ("a",)
