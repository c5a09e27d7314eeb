"""The journal of stories, on Records in SQLite and in PostgreSQL."""

from __future__ import annotations

import base64
import os
import pickle
import subprocess
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import timedelta
from pathlib import Path

import pytest
from sqlalchemy import inspect, select, update

from taut.adapters.stories import JournalStories, codec
from taut.adapters.stories import metadata as story_tables
from taut.adapters.stories.journal import Claim, Fenced, Journal
from taut.adapters.stories.tables import signals, steps, stories
from taut.core import errors
from taut.core.errors import Conflict, Corrupt, Exhausted, InvalidInput, TautError, Unavailable
from taut.ports.records import Records, Tx
from taut.ports.stories import Json, Stories, Story, StoryFailed, StoryState, StoryTable
from taut.testing.conformance import stories as suite
from taut.testing.conformance.stories import LEASE_S, Killed, World
from taut.testing.conformance.stories.world import failure, nothing, once, start_and_die, take_over, tale
from taut.testing.world import ManualClock, SeededRandom, SequenceIds


def world_on(records: Records, **settings: float) -> World:
    clock, ids, random = ManualClock(), SequenceIds(), SeededRandom(1)

    def open_(table: StoryTable) -> Stories:
        options = {"lease_s": LEASE_S, "poll_s": 0.05} | settings
        return JournalStories(records, table, clock=clock, ids=ids, random=random, **options)

    return World(records, clock, open_)


@pytest.fixture
def world(open_records: Callable[..., Records]) -> World:
    return world_on(open_records(story_tables, suite.metadata))


class TestJournalStories(suite.StoriesConformance):
    @pytest.fixture
    def world(self, world: World) -> World:  # type: ignore[override]  # pytest looks the outer fixture up by this name
        return world


class Counted:
    """Records that know how many transactions are open now and were opened, and can be taken away."""

    def __init__(self, records: Records) -> None:
        self._records = records
        self.open = self.written = self.read_ = 0
        self.away = 0  # how many transactions more are refused

    @contextmanager
    def begin(self) -> Iterator[Tx]:
        self.written += 1
        with self._counted(self._records.begin()) as tx:
            yield tx

    @contextmanager
    def read(self) -> Iterator[Tx]:
        self.read_ += 1
        with self._counted(self._records.read()) as tx:
            yield tx

    @contextmanager
    def _counted(self, transaction: Callable[[], Tx]) -> Iterator[Tx]:
        if self.away > 0:
            self.away -= 1
            raise Unavailable("the database went away")
        self.open += 1
        try:
            with transaction as tx:
                yield tx
        finally:
            self.open -= 1


# Nothing is unpickled


@pytest.mark.parametrize("column", ["arguments", "result", "error", "step value", "step error", "signal"])
def test_a_row_that_asks_for_pickle_is_refused_and_runs_nothing(
    world: World, column: str, tmp_path: Path
) -> None:
    marker = tmp_path / "executed"
    evil = base64.b64encode(pickle.dumps(_Evil(str(marker)))).decode()

    def tell(story: Story, _: Json) -> Json:
        story.step("a", lambda: 1)
        story.wait("go", timeout=timedelta(minutes=1))
        return 2

    engine = world.open({"tell": tell})
    id_ = engine.start("tell", {}, key="k")
    engine.work(until_idle=True)
    engine.signal(id_, "go", 1)
    if column in ("result", "error"):
        engine.work(until_idle=True)
    planted = {
        "arguments": update(stories).values(arguments=evil),
        "result": update(stories).values(result=evil),
        "error": update(stories).values(error=evil),
        "step value": update(steps).values(value=evil),
        "step error": update(steps).values(error=evil),
        "signal": update(signals).values(value=evil),
    }[column]
    with world.records.begin() as tx:
        tx.execute(planted)
    engine.work(until_idle=True)

    assert isinstance(
        failure(lambda: engine.result(id_)), Corrupt if column in ("result", "error") else Conflict
    )
    if column not in ("result", "error", "arguments"):
        status = engine.status(id_)
        assert status.state == StoryState.STRANDED
        assert "no JSON" in status.error or "not written by taut" in status.error
    if column == "arguments":
        assert isinstance(failure(lambda: engine.status(id_)), Corrupt)
        [listed] = engine.list()  # beside others, which it does not hide
        assert (listed.id, listed.arguments) == (id_, None)
        assert listed.error.startswith("corrupt: ")
    assert not marker.exists()


class _Evil:
    def __init__(self, path: str) -> None:
        self.path = path

    def __reduce__(self) -> tuple[object, ...]:
        return os.system, (f"touch {self.path}",)


def test_no_column_chooses_a_decoder_and_no_value_reaches_one_but_json(world: World) -> None:
    with world.records.read() as tx:
        columns = {
            c["name"]
            for t in ("story_stories", "story_steps", "story_signals")
            for c in inspect(tx).get_columns(t)
        }

    assert not {name for name in columns if "serial" in name or "encod" in name or "format" in name}


def test_every_error_of_the_core_comes_back_as_it_was() -> None:
    kinds = [kind for kind in vars(errors).values() if isinstance(kind, type) and issubclass(kind, TautError)]
    for kind in kinds:
        back = codec.decode_error(codec.encode_error(kind("what: do this")))
        assert (type(back), back.message) == (kind if kind is not TautError else StoryFailed, "what: do this")
    back = codec.decode_error(codec.encode_error(Exhausted("wait", retry_after_s=3.5)))
    assert isinstance(back, Exhausted)
    assert back.retry_after_s == 3.5


def test_a_room_s_own_error_comes_back_as_the_remedy_that_it_derives_from() -> None:
    class StaleTicket(Conflict):
        code = "stale_ticket"

    text = codec.encode_error(StaleTicket("renew it"))

    assert type(codec.decode_error(text)) is Conflict
    assert codec.describe_error(text) == "stale_ticket: renew it"


def test_a_value_that_is_too_large_for_the_journal_is_refused_with_what_to_do(world: World) -> None:
    engine = world.open({"a": nothing})

    assert "keep it in Blobs" in failure(lambda: engine.start("a", "x" * (2**20 + 1), key="k")).message
    assert isinstance(failure(lambda: engine.start("a", 1, key="k" * 256)), InvalidInput)
    assert isinstance(failure(lambda: engine.start("a", 1, key="")), InvalidInput)
    assert isinstance(failure(lambda: engine.start("a", 1, key="a\0b")), InvalidInput)
    named = world.open({"a": lambda story, _: story.step("n" * 129, lambda: 1)})
    assert isinstance(failure(lambda: named.result(named.start("a", 1, key="k"))), InvalidInput)


# Transactions: none open while it waits, few while it idles


def test_no_transaction_is_open_during_a_step_a_wait_or_a_pause(open_records: Callable[..., Records]) -> None:
    counted = Counted(open_records(story_tables, suite.metadata))
    seen: list[int] = []

    def tell(story: Story, _: Json) -> Json:
        story.step("look", lambda: seen.append(counted.open))
        story.wait("go", timeout=timedelta(days=1))

    world = world_on(counted)  # type: ignore[arg-type]  # what of Records the engine uses
    engine = world.open({"tell": tell})
    engine.start("tell", {}, key="k")
    engine.work(until_idle=True)

    assert seen == [0]
    assert counted.open == 0


def test_an_idle_worker_only_reads_and_that_seldom(open_records: Callable[..., Records]) -> None:
    counted = Counted(open_records(story_tables, suite.metadata))
    engine = world_on(counted, poll_s=0.25).open({"a": nothing})  # type: ignore[arg-type]  # as above
    worker = threading.Thread(target=engine.work)
    began_s = time.monotonic()
    worker.start()
    until(lambda: counted.read_ > 12)
    took_s = time.monotonic() - began_s
    engine.stop()
    worker.join(90)

    assert not worker.is_alive()
    assert counted.written == 0
    assert took_s > 1.0, "it looks oftener than four times a second"


def test_a_database_that_goes_away_during_a_story_delays_it_and_fails_nothing(
    open_records: Callable[..., Records],
) -> None:
    counted = Counted(open_records(story_tables, suite.metadata))
    world = world_on(counted)  # type: ignore[arg-type]  # as above
    ran: list[str] = []

    def tell(story: Story, _: Json) -> Json:
        def go_away() -> Json:
            ran.append("step")
            counted.away = 4
            return "kept"

        return [story.step("a", go_away), story.commit("b", world.leave("b"))]

    engine = world.open({"tell": tell})
    id_ = engine.start("tell", {}, key="k")
    engine.work(until_idle=True)

    assert engine.result(id_) == ["kept", 1]
    assert ran == ["step"]


def test_a_story_of_a_killed_process_goes_on_at_once_and_one_of_a_living_process_after_its_lease(
    open_records: Callable[..., Records],
) -> None:
    records = open_records(story_tables, suite.metadata)
    world = world_on(records)
    owners = {}
    for name in ("dead", "alive", "elsewhere"):
        started = world.open({name: tale(["die"], once(Killed()))})
        owners[name] = start_and_die(started, name)
    with subprocess.Popen(["sleep", "0"]) as dead, subprocess.Popen(["sleep", "60"]) as alive:
        dead.wait()
        with records.begin() as tx:
            own = tx.execute(select(stories.c.owner).limit(1)).scalar_one().rpartition(":")[0]
            for name, owner in (
                ("dead", f"{own}:{dead.pid}"), ("alive", f"{own}:{alive.pid}"), ("elsewhere", f"other:{dead.pid}"),
            ):  # fmt: skip
                tx.execute(update(stories).where(stories.c.id == owners[name]).values(owner=owner))
        engine = world.open({name: tale(["die"]) for name in owners})
        engine.work(until_idle=True)
        states = {name: engine.status(id_).state for name, id_ in owners.items()}
        world.clock.advance(LEASE_S + 1)
        engine.work(until_idle=True)
        alive.kill()

    assert states == {"dead": StoryState.DONE, "alive": StoryState.RUNNING, "elsewhere": StoryState.RUNNING}
    assert {engine.status(id_).state for id_ in owners.values()} == {StoryState.DONE}


def test_a_database_that_stays_away_leaves_the_story_to_be_resumed(
    open_records: Callable[..., Records],
) -> None:
    counted = Counted(open_records(story_tables, suite.metadata))
    world = world_on(counted, patience_s=3)  # type: ignore[arg-type]  # as above

    def tell(story: Story, _: Json) -> Json:
        story.step("away", lambda: setattr(counted, "away", first.pop()))
        return "done"

    first = [0, 10**6]
    engine = world.open({"tell": tell})
    id_ = engine.start("tell", {}, key="k")
    with pytest.raises(Unavailable):
        engine.work(until_idle=True)
    counted.away = 0
    peer = take_over(world, {"tell": tell})

    assert peer.result(id_) == "done"


# Planted faults: the guards are what makes the suite pass


def test_without_the_fence_a_zombie_is_caught_by_the_suite(world: World) -> None:
    class Unfenced(Journal):
        def hold(self, tx: Tx, claim: Claim, **values: object) -> None:
            return

    def open_(table: StoryTable) -> Stories:
        engine = world.open(table)
        engine._journal.__class__ = Unfenced  # type: ignore[attr-defined]  # the fault is planted inside
        return engine

    unfenced = World(world.records, world.clock, open_)
    with pytest.raises(AssertionError):
        suite.StoriesConformance().test_a_zombie_that_wakes_changes_nothing(unfenced, "step")


def test_without_one_transaction_for_effect_and_step_a_commit_is_caught_happening_twice(world: World) -> None:
    class Apart(Journal):
        def record(self, tx: Tx, claim: Claim, entry: object) -> None:
            raise Killed  # as if it died between the effect's transaction and the step's

        def insist(self, do: Callable[[Tx], object], *, patient: bool = True) -> object:
            def only_the_effect(tx: Tx) -> object:
                try:
                    return do(tx)
                except Killed:
                    dead.append(True)

            result = super().insist(only_the_effect, patient=patient)
            if dead:
                raise Killed
            return result

    dead: list[bool] = []

    def tell(story: Story, _: Json) -> Json:
        return story.commit("leave", world.leave("a"))

    engine = world.open({"tell": tell})
    engine._journal.__class__ = Apart  # type: ignore[attr-defined]  # the fault is planted inside
    start_and_die(engine, "tell")
    take_over(world, {"tell": tell})

    assert world.left() == {"a": 2}


# Bounds


def test_a_story_without_end_is_stopped(world: World) -> None:
    def tell(story: Story, _: Json) -> Json:
        while True:
            story.step("again", lambda: None)

    engine = world_on(world.records, steps_max=20).open({"tell": tell})
    id_ = engine.start("tell", {}, key="k")

    assert "fork a story for each part" in failure(lambda: engine.result(id_)).message
    assert len(engine.status(id_).steps) == 20


def test_a_story_that_swallows_everything_still_suspends(world: World) -> None:
    def tell(story: Story, _: Json) -> Json:
        try:
            return story.wait("go")
        except BaseException:  # noqa: BLE001 - the habit that this test is about
            return "swallowed"

    engine = world.open({"tell": tell})
    id_ = engine.start("tell", {}, key="k")
    engine.work(until_idle=True)
    waiting = engine.status(id_).state
    engine.signal(id_, "go", "went")

    assert waiting == StoryState.WAITING
    assert engine.result(id_) == "went"


def test_a_lease_is_renewed_while_a_long_step_runs(world: World) -> None:
    """Real seconds, since renewing follows the machine's time."""
    started, finish = threading.Event(), threading.Event()

    def tell(story: Story, _: Json) -> Json:
        return story.step("long", lambda: (started.set(), finish.wait(90), "mine")[-1])

    short = world_on(world.records, lease_s=0.3)
    engine = short.open({"tell": tell})
    id_ = engine.start("tell", {}, key="k")
    worker = threading.Thread(target=lambda: engine.work(until_idle=True))
    worker.start()
    assert started.wait(90)
    peer = short.open({"tell": lambda *_: "stolen"})
    for _ in range(4):
        short.clock.advance(0.25)
        lasts_us = int((short.clock.now().timestamp() + 0.3) * 1e6)
        until(lambda lasts_us=lasts_us: abs(due_us(world.records, id_) - lasts_us) < 10)  # type: ignore[misc]  # bound now on purpose
        peer.work(until_idle=True)
    finish.set()
    worker.join(90)

    assert engine.result(id_) == "mine"


@pytest.mark.parametrize("ended", [True, False])
def test_a_renewal_that_comes_after_the_run_makes_nothing_due_again(
    open_records: Callable[..., Records], ended: bool
) -> None:
    records, clock = open_records(story_tables, suite.metadata), ManualClock()
    journal = Journal(
        records, clock=clock, ids=SequenceIds(), random=SeededRandom(1), owner="here:1", lease_s=LEASE_S, patience_s=1.0
    )  # fmt: skip
    id_ = journal.insist(lambda tx: journal.start(tx, "tell", None, key="k"))
    claim = journal.claim(id_)
    assert claim is not None
    with records.begin() as tx:
        if ended:
            journal.end(tx, claim, StoryState.DONE, result="null")
        else:
            journal.suspend(tx, claim, signal="go", number=1, until_us=journal.now_us() + 10**15)

    with pytest.raises(Fenced):
        journal.insist(lambda tx: journal.hold(tx, claim))

    clock.advance(3600)
    assert journal.due(["tell"]) == []
    assert journal.claim(id_) is None


def due_us(records: Records, id_: str) -> int:
    with records.read() as tx:
        return int(tx.execute(select(stories.c.due_us).where(stories.c.id == id_)).scalar_one())


def until(there: Callable[[], bool], *, within_s: float = 90.0) -> None:
    deadline = time.monotonic() + within_s
    while not there():
        assert time.monotonic() < deadline, "it did not come"
        time.sleep(0.01)


@pytest.mark.parametrize("inside", [False, True])
def test_an_error_that_names_a_file_whose_name_is_no_text_ends_the_story_and_not_its_worker(
    world: World, inside: bool
) -> None:
    name = b"fl\xffights.csv".decode("utf-8", "surrogateescape")

    def fail() -> Json:
        raise InvalidInput(f"{name} cannot be read")

    def tale(story: Story, _: Json) -> Json:
        return story.step("read", fail) if inside else fail()

    stories_ = world.open({"odd": tale})
    story_id = stories_.start("odd", None, key="k")

    stories_.work(until_idle=True)

    status = stories_.status(story_id)
    assert status.state is StoryState.FAILED
    assert status.error == "invalid_input: fl\\udcffights.csv cannot be read"
