from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import msgspec
import polars as pl
import pytest

from taut.adapters.blobs.local import LocalBlobs
from taut.adapters.keys.file import FileKeys
from taut.adapters.online import SqliteOnlineReader, open_online_writer
from taut.adapters.tables.parquet import ParquetTables
from taut.core.errors import Corrupt, Exhausted, InvalidInput, NotFound, TautError, Unavailable
from taut.core.refs import Kind, Ref
from taut.core.schema import FeatureLookup
from taut.lifecycle.features import FeatureStore, JoinedFeatures, metadata
from taut.lifecycle.features.job import OUTPUT
from taut.ports.jobs import JobEnd, JobResult, Progress, Task
from taut.ports.online import OnlineRow
from taut.project.manifest import FeaturesSpec, FunctionRef
from taut.testing.records import memory_records
from taut.testing.world import ManualClock, SeededRandom, SequenceIds
from taut.trust.ledger import Ledger, leaf_as_json
from taut.trust.ledger import metadata as ledger_metadata
from taut.trust.lineage import Lineage
from taut.trust.lineage import metadata as lineage_metadata

START = datetime(2013, 1, 1, tzinfo=UTC)
SPEC = FeaturesSpec(
    name="departure", entity=("airport",), event_time="hour", sources=("weather",),
    function=FunctionRef("project", "departure"), max_age="3h", online=True,
)  # fmt: skip
Function = Callable[..., pl.LazyFrame]


def hour(number: float) -> datetime:
    return START + timedelta(hours=number)


def weather(*rows: tuple[Any, ...], columns: tuple[str, ...] = ("airport", "hour", "wind")) -> pl.LazyFrame:
    return pl.LazyFrame(
        list(rows), schema=list(columns), orient="row", schema_overrides={"hour": pl.Datetime("us", "UTC")}
    )


class FakeJobs:
    """Runs the function that the test gives, in this process, and leaves its result unchecked."""

    def __init__(self) -> None:
        self.function: Function = lambda frame: frame
        self.end = JobEnd.DONE
        self.tasks: list[Task] = []

    def run(self, task: Task, *, output: Path, progress: Progress | None = None) -> JobResult:
        self.tasks.append(task)
        if self.end is JobEnd.DONE:
            spec = msgspec.convert(task.arguments["spec"], FeaturesSpec)
            frames = [pl.scan_parquet(task.inputs[f"source-{index}"]) for index in range(len(spec.sources))]
            self.function(*frames).collect().write_parquet(output / OUTPUT)
        return JobResult(end=self.end, error="job said so")


class World:
    """A feature store on stores of its own."""

    def __init__(self, folder: Path, writer: Any, reader: SqliteOnlineReader) -> None:
        self.clock = ManualClock(hour(24))
        self.records = memory_records(metadata, ledger_metadata, lineage_metadata)
        self.blobs = LocalBlobs(folder / "blobs")
        self.tables = ParquetTables(self.blobs)
        keys = FileKeys(folder / "keys", random=SeededRandom(1))
        self.ledger = Ledger(self.records, keys, self.clock, SequenceIds(), origin="test.example/taut")
        self.lineage = Lineage(self.clock)
        self.jobs, self.reader, self.writer = FakeJobs(), reader, writer
        self.bundle = self.blobs.put(b"the builder's code")
        self.store = FeatureStore(
            records=self.records, blobs=self.blobs, tables=self.tables, ledger=self.ledger, lineage=self.lineage,
            jobs=self.jobs, online_writer=writer, clock=self.clock,
        )  # fmt: skip
        self.snapshots = 0

    def build(self, *rows: tuple[Any, ...], spec: FeaturesSpec = SPEC, **more: Any) -> Any:
        self.snapshots += 1
        ref = Ref(Kind.SNAPSHOT, f"weather@{self.snapshots}")
        return self.store.build(
            spec, {"weather": (ref, weather(*rows, **more))}, bundle=self.bundle, actor="alice"
        )

    def leaves(self) -> list[dict[str, Any]]:
        self.ledger.sequence()
        return [leaf_as_json(leaf) for leaf in self.ledger.show()]

    def online(self, airport: str) -> OnlineRow | None:
        return self.reader.get_now("departure", (airport,))


@pytest.fixture
def world(tmp_path: Path) -> Iterator[World]:
    path = tmp_path / "online.db"
    with open_online_writer(path) as writer:
        reader = SqliteOnlineReader(path)
        world = World(tmp_path, writer, reader)
        yield world
        world.tables.close()
        world.records.close()
        reader.close()


# Building


def test_a_build_keeps_the_rows_what_they_came_from_and_who_asked(world: World) -> None:
    made = world.build(("LGA", hour(1), 3.0), ("JFK", hour(2), 2.0), ("JFK", hour(1), 1.0))

    assert (made.id, made.rows, made.entities, made.features) == ("departure@1", 3, 2, ("wind",))
    assert (made.event_time_min, made.event_time_max) == (hour(1), hour(2))
    assert made.sources == {"weather": "snapshot:weather@1"}
    assert world.store.frame(made).collect().rows() == [
        ("JFK", hour(1), 1.0), ("JFK", hour(2), 2.0), ("LGA", hour(1), 3.0)
    ]  # fmt: skip
    assert world.store.materialisation("departure") == made == world.store.show("departure")[0]
    (leaf,) = world.leaves()
    assert (leaf["kind"], leaf["subject"], leaf["actor"]) == (
        "features.built",
        "features:departure@1",
        "alice",
    )
    with world.records.read() as tx:
        (step,) = world.lineage.why(tx, made.ref).steps
        assert {str(node.ref) for node in step.inputs} == {"snapshot:weather@1", f"bundle:{world.bundle}"}


def test_equal_inputs_are_computed_once_and_other_inputs_again(world: World) -> None:
    sources = {"weather": (Ref(Kind.SNAPSHOT, "weather@1"), weather(("JFK", hour(1), 1.0)))}
    first = world.store.build(SPEC, sources, bundle=world.bundle, actor="alice")
    again = world.store.build(SPEC, sources, bundle=world.bundle, actor="bob")
    other = world.store.build(SPEC, sources, bundle=world.blobs.put(b"other code"), actor="bob")

    assert first == again
    assert (other.id, other.digest) == ("departure@2", first.digest)
    assert len(world.jobs.tasks) == 2
    assert len(world.leaves()) == 2


def test_the_order_in_which_a_function_leaves_its_rows_changes_no_byte(world: World) -> None:
    rows = [("JFK", hour(number), float(number)) for number in range(20)]
    assert world.build(*rows).digest == world.build(*reversed(rows)).digest


def test_rows_of_the_future_are_counted_and_said(world: World) -> None:
    made = world.build(("JFK", hour(23), 1.0), ("JFK", hour(25), 2.0), ("LGA", hour(30), 2.0))
    assert made.future_rows == 2
    assert world.leaves()[0]["body"]["future_rows"] == 2


BAD: dict[str, tuple[Function, str]] = {
    "no row": (lambda frame: frame.filter(pl.lit(False)), "no row"),
    "no entity": (lambda frame: frame.drop("airport"), "lacks airport"),
    "no event time": (lambda frame: frame.drop("hour"), "lacks hour"),
    "no feature": (lambda frame: frame.drop("wind"), "no feature"),
    "null key": (lambda frame: frame.with_columns(airport=pl.lit(None, pl.String)), "have no 'airport'"),
    "null time": (
        lambda frame: frame.with_columns(hour=pl.lit(None, frame.collect_schema()["hour"])),
        "no 'hour'",
    ),
    "time as text": (lambda frame: frame.with_columns(pl.col("hour").cast(pl.String)), "make it a Datetime"),
    "time without zone": (
        lambda frame: frame.with_columns(pl.col("hour").dt.replace_time_zone(None)),
        "time zone",
    ),
    "time below a microsecond": (
        lambda frame: frame.with_columns(
            (pl.col("hour").dt.timestamp("us") * 1000 + 1).cast(pl.Datetime("ns", "UTC")).alias("hour")
        ),
        "round it up",
    ),
    "key that is a float": (lambda frame: frame.with_columns(airport=pl.col("wind") + 0.5), "entity column"),
    "feature that is a time": (lambda frame: frame.with_columns(wind=pl.col("hour")), "rather than a time"),
    "feature that is a list": (lambda frame: frame.with_columns(wind=pl.concat_list("wind")), "List"),
    "feature without type": (lambda frame: frame.with_columns(wind=pl.lit(None)), "no type"),
    "NaN": (lambda frame: frame.with_columns(wind=pl.lit(float("nan"))), "NaN or infinite"),
    "infinity": (lambda frame: frame.with_columns(wind=pl.lit(float("inf"))), "NaN or infinite"),
    "two rows of one key and time": (lambda frame: pl.concat([frame, frame]), "repeat an entity"),
    "a name of taut's": (lambda frame: frame.rename({"wind": "_row_id"}), "begins with _"),
    "numbers beyond 64 bits": (
        lambda frame: frame.with_columns(wind=pl.lit(2**63, pl.UInt64)),
        "does not fit",
    ),
}


@pytest.mark.parametrize(("function", "said"), BAD.values(), ids=BAD.keys())
def test_a_result_that_is_no_feature_set_is_refused_and_nothing_is_kept(
    world: World, function: Function, said: str
) -> None:
    world.jobs.function = function
    with pytest.raises(InvalidInput, match=said):
        world.build(("JFK", hour(1), 1.0), ("LGA", hour(1), 1.0))
    assert world.store.show("departure") == ()
    assert world.leaves() == []


@pytest.mark.parametrize(
    ("end", "error"),
    [
        (JobEnd.RAISED, InvalidInput), (JobEnd.TIMED_OUT, Exhausted), (JobEnd.OUT_OF_MEMORY, Exhausted),
        (JobEnd.OUTPUT_TOO_LARGE, Exhausted), (JobEnd.KILLED, Unavailable),
    ],
)  # fmt: skip
def test_a_job_that_does_not_end_well_is_named_by_its_remedy(
    world: World, end: JobEnd, error: type[TautError]
) -> None:
    world.jobs.end = end
    with pytest.raises(error, match="job said so"):
        world.build(("JFK", hour(1), 1.0))
    assert world.store.show("departure") == ()


def test_rows_that_cannot_be_handed_to_the_job_are_unavailable(world: World, tmp_path: Path) -> None:
    lost = pl.scan_parquet(tmp_path / "lost.parquet", schema={"airport": pl.String})
    with pytest.raises(Unavailable, match="dataset 'weather' cannot be handed to the job"):
        world.store.build(
            SPEC, {"weather": (Ref(Kind.SNAPSHOT, "weather@1"), lost)}, bundle=world.bundle, actor="alice"
        )


def test_a_source_that_is_missing_is_named(world: World) -> None:
    with pytest.raises(InvalidInput, match="needs dataset 'weather'"):
        world.store.build(SPEC, {}, bundle=world.bundle, actor="alice")


def test_a_flipped_byte_in_a_materialisation_is_found_by_whoever_reads_it(
    world: World, tmp_path: Path
) -> None:
    made = world.build(("JFK", hour(1), 1.0))
    name = made.manifest.files[0].digest.removeprefix("sha256:")
    (path,) = (
        path for path in (tmp_path / "blobs").rglob("*") if path.is_file() and name.endswith(path.name)
    )
    raw = bytearray(path.read_bytes())
    raw[len(raw) // 2] ^= 1
    path.chmod(0o600)
    path.write_bytes(raw)
    with pytest.raises(Corrupt):
        world.store.frame(made).collect()


# Training


def test_a_training_frame_holds_what_was_known_and_says_from_when(world: World) -> None:
    made = world.build(("JFK", hour(1), 1.0), ("JFK", hour(4), 4.0), ("LGA", hour(1), 9.0))
    base = pl.DataFrame(
        {"origin": ["JFK", "JFK", "JFK", "LGA"], "at": [hour(3), hour(4), hour(8), hour(0)]},
        schema_overrides={"at": pl.Datetime("us", "UTC")},
    )
    joined = [JoinedFeatures(materialisation=made, on={"origin": "airport", "dest": "elsewhere"})]
    found = world.store.training_frame(base, "at", joined, event_times=True)

    assert found["wind"].to_list() == [1.0, 4.0, None, None]  # at 8 the newest is 4 hours old, more than 3
    assert found["_event_time_departure"].to_list() == [hour(1), hour(4), None, None]


def test_two_sets_are_joined_each_by_its_own_key_and_age(world: World) -> None:
    made = world.build(("JFK", hour(1), 1.0))
    slow = msgspec.structs.replace(SPEC, name="gates", max_age=None)
    world.jobs.function = lambda frame: frame.rename({"wind": "gates"})
    other = world.build(("JFK", hour(1), 7.0), spec=slow)
    base = pl.DataFrame(
        {"airport": ["JFK"], "at": [hour(9)]}, schema_overrides={"at": pl.Datetime("us", "UTC")}
    )
    found = world.store.training_frame(
        base, "at", [JoinedFeatures(materialisation=made), JoinedFeatures(materialisation=other)]
    )

    assert found.select("wind", "gates").rows() == [(None, 7.0)]
    with pytest.raises(InvalidInput, match="already"):
        world.store.training_frame(base, "at", [JoinedFeatures(materialisation=made)] * 2)


def test_a_look_up_names_request_columns_in_the_order_of_the_key(world: World) -> None:
    spec = msgspec.structs.replace(SPEC, entity=("airport", "gate"))
    assert world.store.lookup(spec, {"origin": "airport", "dest": "elsewhere"}) == FeatureLookup(
        feature_set="departure", entity=("airport", "gate"), keys=("origin", "gate"), max_age_s=10800.0
    )
    with pytest.raises(InvalidInput, match="maps both"):
        world.store.lookup(spec, {"origin": "airport", "dest": "airport"})


# Serving


def test_the_newest_due_row_of_each_entity_goes_online(world: World) -> None:
    world.build(("JFK", hour(1), 1.0), ("JFK", hour(5), 5.0), ("JFK", hour(30), 30.0), ("LGA", hour(2), None))
    state = world.store.materialize(SPEC, actor="alice")

    assert world.online("JFK") == OnlineRow(int(hour(5).timestamp() * 1e6), (5.0,), "departure@1")
    assert world.online("LGA") == OnlineRow(int(hour(2).timestamp() * 1e6), (None,), "departure@1")
    assert (state.entities, state.event_time_max, state.materialisation) == (2, hour(5), "departure@1")
    assert world.store.online_state("departure") == state
    assert {leaf["kind"] for leaf in world.leaves()} == {"features.built", "features.materialized"}

    world.clock.advance(timedelta(hours=6))  # now the row of hour 30 is due
    world.store.materialize(SPEC, actor="alice")
    assert world.online("JFK") == OnlineRow(int(hour(30).timestamp() * 1e6), (30.0,), "departure@1")


def test_training_and_serving_read_the_same_values(world: World) -> None:
    rows = [
        (airport, hour(number), number * 1.1) for airport in ("JFK", "LGA", "EWR") for number in range(20)
    ]
    made = world.build(*rows)
    world.store.materialize(SPEC, actor="alice")
    base = pl.DataFrame(
        {"airport": ["JFK", "LGA", "EWR"], "at": [hour(20)] * 3},
        schema_overrides={"at": pl.Datetime("us", "UTC")},
    )
    offline = world.store.training_frame(base, "at", [JoinedFeatures(materialisation=made)])
    for airport, wind in offline.select("airport", "wind").iter_rows():
        row = world.online(airport)
        assert row is not None
        assert row.values == (wind,)


def test_entities_that_vanished_or_went_back_in_time_do_not_stay_online(world: World) -> None:
    world.build(("JFK", hour(9), 9.0), ("LGA", hour(9), 9.0), ("EWR", hour(2), 2.0))
    world.store.materialize(SPEC, actor="alice")
    world.build(("JFK", hour(3), 3.0), ("EWR", hour(4), 4.0))  # the rows of hour 9 were wrong
    world.store.materialize(SPEC, actor="alice")

    assert world.online("LGA") is None
    assert world.online("JFK") == OnlineRow(int(hour(3).timestamp() * 1e6), (3.0,), "departure@2")
    assert world.online("EWR") == OnlineRow(int(hour(4).timestamp() * 1e6), (4.0,), "departure@2")


def test_an_earlier_materialisation_can_be_put_online_again(world: World) -> None:
    world.build(("JFK", hour(3), 3.0))
    world.build(("JFK", hour(9), 9.0), ("LGA", hour(9), 9.0))
    world.store.materialize(SPEC, actor="alice")
    world.store.materialize(SPEC, actor="alice", materialisation="departure@1")

    assert world.online("JFK") == OnlineRow(int(hour(3).timestamp() * 1e6), (3.0,), "departure@1")
    assert world.online("LGA") is None


def test_keys_of_another_form_leave_with_the_definition_that_had_them(world: World) -> None:
    world.build(("JFK", hour(1), 1.0))
    world.store.materialize(SPEC, actor="alice")
    world.build((7, hour(1), 1.0))
    world.store.materialize(SPEC, actor="alice")

    assert world.online("JFK") is None
    assert world.reader.get_now("departure", (7,)) is not None
    assert world.writer.count("departure") == 1


@pytest.mark.parametrize("dies_after", [0, 1, 2])
def test_writing_that_was_cut_short_anywhere_is_mended_by_the_next(world: World, dies_after: int) -> None:
    """Dies while writing the second materialisation; then the third, from which an entity is gone, is written."""

    class Dies(Exception):
        pass

    class Dying:
        def __init__(self, calls: int) -> None:
            self.calls = calls

        def _step(self) -> None:
            if self.calls == 0:
                raise Dies
            self.calls -= 1

        def put(self, feature_set: str, rows: Any) -> int:
            self._step()
            done: int = world.writer.put(feature_set, rows)
            self._step()
            return done

        def delete(self, feature_set: str, keys: Any) -> int:
            self._step()
            done: int = world.writer.delete(feature_set, keys)
            return done

        def count(self, feature_set: str) -> int:
            return 0

    world.build(("JFK", hour(9), 9.0))
    world.store.materialize(SPEC, actor="alice")
    world.build(("JFK", hour(3), 3.0), ("LGA", hour(9), 9.0))
    frail = FeatureStore(
        records=world.records, blobs=world.blobs, tables=world.tables, ledger=world.ledger, lineage=world.lineage,
        jobs=world.jobs, online_writer=Dying(dies_after), clock=world.clock,
    )  # fmt: skip
    with pytest.raises(Dies):
        frail.materialize(SPEC, actor="alice")

    world.build(("JFK", hour(2), 2.0))
    world.store.materialize(SPEC, actor="alice")
    assert world.online("JFK") == OnlineRow(int(hour(2).timestamp() * 1e6), (2.0,), "departure@3")
    assert world.online("LGA") is None
    state = world.store.online_state("departure")
    assert state is not None
    assert state.unfinished == ()


def test_what_is_not_declared_online_or_was_never_built_stays_offline(world: World) -> None:
    with pytest.raises(NotFound, match="nothing was built"):
        world.store.materialize(SPEC, actor="alice")
    world.build(("JFK", hour(1), 1.0))
    with pytest.raises(InvalidInput, match="online=True"):
        world.store.materialize(msgspec.structs.replace(SPEC, online=False), actor="alice")
    with pytest.raises(NotFound, match="departure@9"):
        world.store.materialize(SPEC, actor="alice", materialisation="departure@9")
    with pytest.raises(NotFound, match="is not online"):
        world.store.check_skew("departure", world.reader)


def test_skew_between_online_and_offline_is_counted_by_kind(world: World) -> None:
    world.build(*[(f"A{number}", hour(1), float(number)) for number in range(10)])
    world.store.materialize(SPEC, actor="alice")
    clean = world.store.check_skew("departure", world.reader, sample=5)
    assert clean.agrees
    assert clean.sampled == 5

    us = int(hour(1).timestamp() * 1e6)
    world.writer.delete("departure", [("A0",)])
    world.writer.put(
        "departure",
        [
            (("A1",), OnlineRow(us + 1, (1.0,), "planted")),
            (("A2",), OnlineRow(us, (2.0000000001,), "planted")),
            (("A3",), OnlineRow(us, (3,), "planted")),  # an integer where training saw a float
        ],
    )
    report = world.store.check_skew("departure", world.reader)
    assert (report.sampled, report.missing, report.stale, report.different) == (10, 1, 1, 2)
    assert not report.agrees
    assert any("wind is 2.0 offline, 2.0000000001 online" in example for example in report.examples)
    with pytest.raises(InvalidInput, match="proves nothing"):
        world.store.check_skew("departure", world.reader, sample=0)


def test_readers_learn_what_a_row_means_before_it_is_written(world: World) -> None:
    world.build(("JFK", hour(1), 1.0))
    world.store.materialize(SPEC, actor="alice")
    world.build(("JFK", hour(2), 99.0, 2.0), columns=("airport", "hour", "gusts", "wind"))
    seen: list[tuple[dict[str, tuple[str, ...]], str]] = []

    def announce() -> None:
        row = world.online("JFK")
        seen.append((world.store.online_columns("departure"), "" if row is None else row.source))

    world.store.materialize(SPEC, actor="alice", announce=announce)
    world.store.materialize(SPEC, actor="alice", announce=announce)  # the same again: nothing new to learn

    both = {"departure@1": ("wind",), "departure@2": ("gusts", "wind")}
    assert seen == [(both, "departure@1")]
    assert world.store.online_columns("departure") == {"departure@2": ("gusts", "wind")}


def test_nothing_is_written_when_readers_cannot_be_told(world: World) -> None:
    world.build(("JFK", hour(1), 1.0))

    def announce() -> None:
        raise Unavailable("the disk is full")

    with pytest.raises(Unavailable, match="disk is full"):
        world.store.materialize(SPEC, actor="alice", announce=announce)

    assert world.online("JFK") is None
    told: list[str] = []
    world.store.materialize(SPEC, actor="alice", announce=lambda: told.append("now"))
    assert told == ["now"]


def test_two_who_put_a_set_online_at_once_take_turns(world: World) -> None:
    world.build(("JFK", hour(1), 1.0))
    world.build(("JFK", hour(2), 99.0, 2.0), columns=("airport", "hour", "gusts", "wind"))
    inside, go_on = threading.Event(), threading.Event()

    def hold() -> None:
        inside.set()
        assert go_on.wait(90)

    def first() -> None:
        world.store.materialize(SPEC, actor="alice", materialisation="departure@1", announce=hold)

    threads = [threading.Thread(target=first)]
    threads[0].start()
    assert inside.wait(90)
    threads.append(threading.Thread(target=lambda: world.store.materialize(SPEC, actor="bob")))
    threads[1].start()
    threads[1].join(0.2)
    waited = threads[1].is_alive()
    go_on.set()
    for thread in threads:
        thread.join(90)

    row = world.online("JFK")
    assert waited
    assert row is not None
    assert world.store.online_columns("departure")[row.source] == ("gusts", "wind")
