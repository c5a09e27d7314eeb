"""Batches in, snapshots out: incremental, idempotent, whole or not at all."""

from __future__ import annotations

import gzip
import io
import json
import threading
import zipfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import polars as pl
import pytest
import zstandard
from data_room import GOOD, HEADER, METADATAS, Room, people

from taut.adapters.records.sqlite import open_sqlite
from taut.adapters.sources.file import FileSources
from taut.core.errors import Conflict, InvalidInput, NotFound, Unavailable
from taut.core.refs import Kind, Ref, VersionRef
from taut.core.schema import DType
from taut.lifecycle.data import IngestResult
from taut.ports.records import Tx
from taut.ports.sources import ByteStream, SourceFile
from taut.project.manifest import ColumnSpec, SourceSpec
from taut.testing.records import create_tables
from taut.trust.lineage import lineage_as_json


def lines(*rows: str) -> str:
    return HEADER + "".join(f"{row}\n" for row in rows)


def test_a_good_file_becomes_a_snapshot_with_its_leaf_and_lineage(room: Room) -> None:
    room.write("a.csv", GOOD)

    result = room.ingest(people())

    assert (result.snapshot, result.rows, result.quarantined, result.rejected) == ("people@1", 3, 0, False)
    assert room.rows("people@1")["id"].to_list() == [1, 2, 3]
    assert room.rows("people@1")["name"].to_list() == ["ann", "bob", None]
    room.ledger.sequence()
    (leaf,) = room.ledger.show(kind="verdict.data")
    assert leaf.subject == f"batch:{result.batch}"
    assert leaf.body["decision"] == "admit"
    with room.records.read() as tx:
        tree = room.lineage.why(tx, Ref(Kind.SNAPSHOT, "people@1"))
    assert "source:sha256:" in json.dumps(lineage_as_json(tree))


def test_the_same_batch_twice_changes_nothing(room: Room) -> None:
    room.write("a.csv", GOOD)
    first = room.ingest(people())
    before = room.data.list()

    again = room.ingest(people())

    assert again.unchanged
    assert (again.snapshot, again.rows, again.batch) == (first.snapshot, first.rows, first.batch)
    assert room.data.list() == before


def test_only_new_content_is_read_whatever_its_name(room: Room) -> None:
    room.write("a.csv", GOOD)
    room.ingest(people())
    room.write("renamed.csv", GOOD)
    room.write("b.csv", lines("4,dan,1,"))

    second = room.ingest(people())
    room.write("a.csv", lines("5,eve,1,"))
    third = room.ingest(people())

    assert (second.rows, second.files_skipped, [f.name for f in second.files]) == (1, 1, ["b.csv"])
    assert (third.rows, [f.name for f in third.files]) == (1, ["a.csv"])
    assert room.rows("people@3")["id"].to_list() == [1, 2, 3, 4, 5]


def test_row_ids_count_the_records_of_the_source_and_lead_back_to_them(room: Room) -> None:
    room.write("a.csv", lines("1,a,1,", "x,b,1,", "3,c,1,"))
    room.ingest(people())
    room.write("b.csv", lines("4,d,1,"))
    room.ingest(people())

    frame = room.rows("people@2")

    assert frame["_row_id"].to_list() == [0, 2, 3]
    for row_id, source, row in ((0, "a.csv", 1), (2, "a.csv", 3), (3, "b.csv", 1)):
        origin = room.data.locate("people", row_id)
        assert (origin.source, origin.row) == (source, row)
    assert room.data.locate("people", 1).quarantine is not None
    with pytest.raises(NotFound):
        room.data.locate("people", 4)


def test_malformed_records_are_set_aside_with_row_rule_and_raw_value(room: Room) -> None:
    room.write("a.csv", lines("1,a,1,", "2,b,nan,", "3,c,1,2013-02-30T00:00:00", "4,d", "5,e,2000,", "6,f,1,", "7,g,1,", "8,h,inf,"))  # fmt: skip

    result = room.ingest(people(max_bad_fraction=0.9, null_values=("",)))

    assert result.rules == {
        "_record:fields": 1,
        "amount:finite": 2,
        "amount:maximum": 2,
        "at:type": 1,
    }
    found = {record.row: record for record in room.data.quarantine("people")}
    assert found[2].rules == ("amount:finite",)
    assert found[2].record["amount"] == "nan"
    assert found[3].record["at"] == "2013-02-30T00:00:00"
    assert found[4].record["_raw"] == "4,d"
    assert found[8].rules == ("amount:finite", "amount:maximum")
    assert (result.rows, result.quarantined) == (3, 5)


def test_a_batch_beyond_its_thresholds_is_rejected_whole_and_the_snapshot_stays(room: Room) -> None:
    room.write("a.csv", GOOD)
    room.ingest(people())
    before = room.data.current("people")
    room.write("b.csv", lines("x,a,1,", "y,b,1,", "9,c,1,"))

    result = room.ingest(people())

    assert result.rejected
    assert (result.snapshot, result.rows, result.quarantined) == ("people@1", 0, 2)
    assert result.verdict is not None
    assert "bad_rows: 2 of 3 records break a rule" in result.verdict.reasons[0]
    assert room.data.current("people") == before
    assert result.batch is not None
    assert room.data.evidence(result.batch).digest == result.verdict.evidence_digest
    room.ledger.sequence()
    assert [leaf.body["decision"] for leaf in room.ledger.show(kind="verdict.data")].count("reject") == 1
    assert len(room.data.quarantine("people", state="rejected")) == 2
    assert room.ingest(people()).batch == result.batch, "the same rejected batch is judged once"
    room.write("b.csv", lines("8,b,1,", "9,c,1,"))
    assert room.ingest(people()).rows == 2


@pytest.mark.parametrize(
    ("changed", "body", "check"),
    [
        ({"columns": (ColumnSpec(name="id", dtype=DType.INT, max_bad_fraction=0.1),), "extra_columns": "drop"}, ["1,,,", "x,,,"], "column:id"),
        ({"min_rows": 3}, ["1,a,1,", "2,a,1,"], "volume"),
        ({"freshness_column": "at", "max_age": "1h"}, ["1,a,1,2025-12-31T22:00:00Z"], "freshness"),
        ({}, ["1,ann@example.com,1,"], "pii"),
        ({"columns": (ColumnSpec(name="id", dtype=DType.INT), ColumnSpec(name="gone", dtype=DType.INT))}, ["1,a,1,"], "schema"),
        ({"columns": (ColumnSpec(name="id", dtype=DType.INT),)}, ["1,a,1,"], "schema"),
    ],
)  # fmt: skip
def test_each_check_of_the_gate_rejects_what_it_is_there_for(
    room: Room, changed: dict[str, object], body: list[str], check: str
) -> None:
    room.write("a.csv", lines(*body))

    result = room.ingest(people(**changed))

    assert result.rejected
    assert result.verdict is not None
    assert result.verdict.reasons[0].startswith(f"{check}:")
    assert room.data.current("people") is None


def test_fresh_enough_is_admitted(room: Room) -> None:
    room.write("a.csv", lines("1,a,1,2025-12-31T23:30:00Z"))

    assert not room.ingest(people(freshness_column="at", max_age="1h")).rejected


def test_a_missing_column_is_named_with_the_nearest_one(room: Room) -> None:
    room.write("a.csv", "id,nam,amount,at\n1,a,1,\n")

    result = room.ingest(people(extra_columns="drop"))

    assert result.verdict is not None
    assert "column 'name' is missing: did you mean 'nam'?" in result.verdict.reasons[0]


def test_duplicates_are_set_aside_within_a_batch_and_against_earlier_ones(room: Room) -> None:
    spec = people(unique=(("id", "name"),))
    room.write("a.csv", lines("1,a,1,", "1,a,2,", "1,b,3,", "2,,4,", "2,,5,"))
    first = room.ingest(spec)
    room.write("b.csv", lines("1,b,9,", "3,c,9,"))
    second = room.ingest(spec)

    assert first.rules == {"id+name:unique": 1}
    assert second.rules == {"id+name:unique": 1}
    assert room.rows("people@2")["amount"].to_list() == [1, 3, 4, 5, 9]


def test_undeclared_personal_data_is_redacted_where_the_contract_says_so(room: Room) -> None:
    room.write("a.csv", lines("1,ann@example.com,1,", "2,plain,1,"))

    result = room.ingest(people(pii="redact", columns=(*people().contract.columns[:1], ColumnSpec(name="name", dtype=DType.STRING), *people().contract.columns[2:])))  # fmt: skip

    assert not result.rejected
    assert room.rows("people@1")["name"].to_list() == ["[email]", "plain"]


def zipped(data: bytes) -> bytes:
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("inner.csv", data)
    return buffer.getvalue()


@pytest.mark.parametrize(
    ("name", "pack"),
    [
        ("a.csv", bytes),
        ("a.csv.gz", gzip.compress),
        ("a.csv.zst", zstandard.compress),
        ("a.zip", zipped),
        ("a.csv.zip", zipped),
    ],
)
def test_compressed_files_are_read_like_plain_ones(
    room: Room, name: str, pack: Callable[[bytes], bytes]
) -> None:
    room.write(name, pack(GOOD.encode()))

    result = room.ingest(people(source=SourceSpec(url=name)))

    assert (result.rows, result.quarantined) == (3, 0)


def test_a_copy_of_a_source_lies_in_the_scratch_folder_while_it_is_read(room: Room, tmp_path: Path) -> None:
    scratch = tmp_path / "scratch"
    scratch.mkdir()
    room.write("a.zip", zipped(GOOD.encode()))
    room.data = room.room(scratch=scratch)
    seen: list[list[str]] = []

    room.ingest(
        people(source=SourceSpec(url="a.zip")),
        progress=lambda _said, _done: seen.append([path.name for path in scratch.iterdir()]),
    )

    assert any(name.startswith("taut-source-") for names in seen for name in names)
    assert list(scratch.iterdir()) == []


@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("a.csv.gz", gzip.compress(GOOD.encode() * 50)[:-30]),
        ("a.csv.gz", b"no gzip at all"),
        ("a.csv.zst", zstandard.compress(GOOD.encode() * 50)[:-20]),
        ("a.csv.zst", b"no zstandard at all"),
        ("a.csv.zip", b"no zip at all"),
        ("a.parquet", b"no parquet at all"),
        ("a.csv", b""),
        ("a.jsonl", b""),
        ("a.csv", GOOD.encode("utf-16")),
    ],
    ids=[  # a gzip header carries its time: workers must collect the same names
        "a cut gzip", "no gzip", "a cut zstandard", "no zstandard", "no zip", "no parquet", "no line", "no record",
        "another encoding",
    ],
)  # fmt: skip
def test_a_file_that_cannot_be_read_rejects_its_batch_and_names_it(
    room: Room, name: str, content: bytes
) -> None:
    room.write(name, content)

    result = room.ingest(people(source=SourceSpec(url=name)))

    assert result.rejected
    assert result.verdict is not None
    assert result.verdict.reasons[0].startswith("readable: ")
    assert name in result.verdict.reasons[0]


def test_a_file_that_was_only_named_wrongly_is_read_when_its_name_is_put_right(room: Room) -> None:
    room.write("a.parquet", GOOD)
    assert room.ingest(people(source=SourceSpec(url="a.parquet"))).rejected
    room.write("a.csv", GOOD)

    result = room.ingest(people(source=SourceSpec(url="a.csv")))

    assert not result.rejected
    assert not result.unchanged
    assert result.rows == 3


def test_json_lines_are_strict_about_types_and_keep_raw_values(room: Room) -> None:
    records = [
        {"id": 1, "name": "a", "amount": 1.5, "at": "2013-01-01T00:00:00Z"},
        {"id": "2", "name": "b", "amount": 1, "at": None},
        {"id": 3, "name": 4, "amount": 1},
        {"id": 4, "name": "NA", "amount": 1},
    ]
    text = "\n".join(json.dumps(record) for record in records) + "\n[1]\n{bad\n"
    room.write("a.jsonl", text)

    result = room.ingest(people(source=SourceSpec(url="a.jsonl"), max_bad_fraction=0.9))

    assert result.rules == {"id:type": 1, "name:type": 1, "_record:json": 2}
    assert room.rows("people@1")["name"].to_list() == ["a", "NA"], "null is spelled null in JSON"


def test_a_line_of_json_may_leave_out_what_may_be_null_and_nothing_else(room: Room) -> None:
    lines_ = ['{"id": 1, "amount": 1}'] * 3 + ['{"amount": 2}']
    room.write("a.jsonl", "\n".join(lines_))
    room.write("b.jsonl", '{"id": 5}')

    one = room.ingest(people(source=SourceSpec(url="a.jsonl")))
    two = room.ingest(people(source=SourceSpec(url="b.jsonl")))

    assert (one.rows, one.rules) == (3, {"id:null": 1})
    assert two.verdict is not None
    assert "column 'amount' is missing" in two.verdict.reasons[0]


def test_parquet_keeps_its_types_and_refuses_what_would_lose_something(room: Room) -> None:
    frame = pl.DataFrame({"id": [1, 2], "name": ["a", None], "amount": [1, 2], "at": [None, None]})
    frame.write_parquet(room.files / "a.parquet")
    pl.DataFrame({"id": [1.5, 2.0], "name": ["a", "b"], "amount": [1, 2], "at": [None, None]}).write_parquet(
        room.files / "b.parquet"
    )

    result = room.ingest(people(source=SourceSpec(url="*.parquet")))

    assert result.rules == {"id:type": 1}
    assert room.rows("people@1")["id"].to_list() == [1, 2, 2]


def test_an_absent_file_is_named_with_the_nearest_that_exists(room: Room) -> None:
    room.write("flights.csv", GOOD)

    with pytest.raises(NotFound, match=r"did you mean .*flights\.csv\?"):
        room.ingest(people(), source="flihgts.csv")
    with pytest.raises(NotFound, match="no file matches"):
        room.ingest(people(), source="*.jsonl")
    with pytest.raises(InvalidInput, match="is a folder"):
        room.ingest(people(), source=".")


def test_a_contract_may_grow_by_a_nullable_column_and_not_change_a_type(room: Room) -> None:
    room.write("a.csv", GOOD)
    room.ingest(people())
    columns = people().contract.columns
    wider = people(columns=(*columns, ColumnSpec(name="city", dtype=DType.STRING, nullable=True)))
    room.write("b.csv", "id,name,amount,at,city\n4,d,1,,Ulm\n")
    grown = room.ingest(wider)
    other = people(columns=(ColumnSpec(name="id", dtype=DType.STRING), *columns[1:]))
    room.write("c.csv", lines("5,e,1,"))
    refused = room.ingest(other)

    assert room.rows("people@2")["city"].to_list() == [None, None, None, "Ulm"]
    assert room.rows("people@2")["_row_id"].to_list() == [0, 1, 2, 3]
    assert not grown.rejected
    assert refused.verdict is not None
    assert "column 'id' was stored as int" in refused.verdict.reasons[0]


class ShakySources(FileSources):
    """Fails to answer a few times before it does."""

    def __init__(self, faults: int) -> None:
        self.faults = faults
        self.opened = 0

    @contextmanager
    def open(self, file: SourceFile) -> Iterator[ByteStream]:
        self.opened += 1
        if self.opened <= self.faults:
            raise Unavailable("the store does not answer")
        with super().open(file) as stream:
            yield stream


def test_a_place_that_does_not_answer_is_asked_again_with_a_bound(tmp_path: Path) -> None:
    room = Room(tmp_path, sources=ShakySources(3))
    room.write("a.csv", GOOD)
    start = room.clock.monotonic_s()

    assert room.ingest(people()).rows == 3
    assert 0 < room.clock.monotonic_s() - start < 20
    dead = ShakySources(1000)
    with pytest.raises(Unavailable):
        room.room(sources=dead).ingest(people(), root=room.files, actor="ann")
    assert dead.opened == 5
    room.close()


def test_a_breach_is_never_tried_again(tmp_path: Path) -> None:
    sources = ShakySources(0)
    room = Room(tmp_path, sources=sources)
    room.write("a.csv", "wrong\n1\n")

    assert room.ingest(people()).rejected
    assert sources.opened == 2, "once for the digest and once for the records"
    room.close()


class ChangingSources(FileSources):
    """Gives other bytes at the second reading."""

    def __init__(self) -> None:
        self.opened = 0

    @contextmanager
    def open(self, file: SourceFile) -> Iterator[ByteStream]:
        self.opened += 1
        yield io.BytesIO((GOOD if self.opened == 1 else GOOD + "4,late,1,\n").encode())


def test_a_file_that_changes_while_it_is_read_is_not_taken(tmp_path: Path) -> None:
    room = Room(tmp_path, sources=ChangingSources())
    room.write("a.csv", GOOD)

    result = room.ingest(people())

    assert result.rejected
    assert result.verdict is not None
    assert "changed while it was read" in result.verdict.reasons[0]
    room.close()


def test_a_rerun_with_the_same_request_gets_the_first_answer(room: Room) -> None:
    room.write("a.csv", GOOD)
    first = room.ingest(people(), request="story-1/ingest")
    room.write("b.csv", lines("4,d,1,"))

    again = room.ingest(people(), request="story-1/ingest")

    assert again == first
    assert room.ingest(people(), request="story-2/ingest").rows == 1


class Crash(BaseException):
    """The process dies here."""


class Edges:
    """Counts the edges of a run and fails at one of them: the process dies, or what it needs goes away once."""

    def __init__(self, fails_at: int, fault: BaseException) -> None:
        self.fails_at = fails_at
        self.fault = fault
        self.passed = 0

    def cross(self) -> None:
        self.passed += 1
        if self.passed == self.fails_at:
            raise self.fault


class CrashingRecords:
    def __init__(self, inner: object, edges: Edges) -> None:
        self._inner, self._edges = inner, edges

    def __getattr__(self, name: str) -> object:
        return getattr(self._inner, name)

    @contextmanager
    def read(self) -> Iterator[Tx]:
        self._edges.cross()
        with self._inner.read() as tx:  # type: ignore[attr-defined]  # whatever Records are inside
            yield tx

    @contextmanager
    def begin(self) -> Iterator[Tx]:
        self._edges.cross()
        with self._inner.begin() as tx:  # type: ignore[attr-defined]  # whatever Records are inside
            yield tx
            self._edges.cross()
        self._edges.cross()


class CrashingTables:
    def __init__(self, inner: object, edges: Edges) -> None:
        self._inner, self._edges = inner, edges

    def __getattr__(self, name: str) -> object:
        return getattr(self._inner, name)

    def write(self, frames: Iterator[pl.DataFrame], **named: object) -> object:
        self._edges.cross()

        def crossing() -> Iterator[pl.DataFrame]:
            for frame in frames:
                self._edges.cross()
                yield frame

        written = self._inner.write(crossing(), **named)  # type: ignore[attr-defined]  # whatever Tables are inside
        self._edges.cross()
        return written


def story(room: Room, edges: Edges | None) -> IngestResult:
    data = room.data
    if edges is not None:
        data = room.room(
            records=CrashingRecords(room.records, edges), tables=CrashingTables(room.tables, edges)
        )
    return data.ingest(
        people(subject="name", columns=SEALED, unique=(("id",),)), root=room.files, actor="ann", request="r1"
    )


SEALED = (
    ColumnSpec(name="id", dtype=DType.INT),
    ColumnSpec(name="name", dtype=DType.STRING, personal="keep"),
    ColumnSpec(name="amount", dtype=DType.FLOAT, personal="seal"),
    ColumnSpec(name="at", dtype=DType.DATETIME, nullable=True),
)


def test_a_crash_at_any_edge_and_a_rerun_give_the_same(tmp_path: Path) -> None:
    body = lines("1,a,1,", "x,b,1,", "3,c,1,", "3,d,1,", "5,e,1,", "6,f")
    plain = Room(tmp_path / "plain")
    plain.write("a.csv", body)
    wanted = story(plain, None)
    died = 0
    for dies_at in range(1, 200):
        room = Room(tmp_path / f"edge{dies_at}")
        room.write("a.csv", body)
        edges = Edges(dies_at, Crash())
        try:
            story(room, edges)
        except Crash:
            died += 1
        result = story(room, None)
        assert (result.snapshot, result.rows, result.quarantined, result.rules) == (
            wanted.snapshot, wanted.rows, wanted.quarantined, wanted.rules,
        )  # fmt: skip
        assert room.data.list() == plain.data.list()
        assert room.rows("people@1").drop("amount").equals(plain.rows("people@1").drop("amount"))
        assert [(q.row, q.rules) for q in room.data.quarantine("people")] == [
            (q.row, q.rules) for q in plain.data.quarantine("people")
        ]
        room.ledger.sequence()
        assert len(room.ledger.show(kind="verdict.data")) == 1
        room.close()
        if edges.passed < dies_at:
            break
    plain.close()
    assert died >= 8


@pytest.mark.parametrize("request_key", [None, "r1"])
def test_a_database_or_a_disk_that_goes_away_at_any_edge_and_comes_back_loses_nothing(
    tmp_path: Path, request_key: str | None
) -> None:
    body = lines("1,a,1,", "x,b,1,", "3,c,1,")
    for fails_at in range(1, 100):
        room = Room(tmp_path / f"edge{fails_at}")
        room.write("a.csv", body)
        edges = Edges(fails_at, Unavailable("no space left on the device"))
        shaky = room.room(
            records=CrashingRecords(room.records, edges), tables=CrashingTables(room.tables, edges)
        )

        result = shaky.ingest(people(unique=(("id",),)), root=room.files, actor="ann", request=request_key)

        assert (result.snapshot, result.rows, result.quarantined) == ("people@1", 2, 1)
        assert len(room.data.quarantine("people")) == 1
        room.ledger.sequence()
        assert len(room.ledger.show(kind="verdict.data")) == 1
        room.close()
        if edges.passed < fails_at:
            break
    assert fails_at > 8


def test_writers_at_once_all_land_and_no_row_id_is_given_twice(tmp_path: Path) -> None:
    records = open_sqlite(tmp_path / "taut.db")
    create_tables(records, *METADATAS)
    room = Room(tmp_path, records=records)
    for n in range(6):
        room.write(f"{n}.csv", lines(*(f"{n * 10 + i + 1},p{n},1," for i in range(3))))
    results: list[IngestResult] = []
    errors: list[BaseException] = []

    def one(n: int) -> None:
        try:
            results.append(room.ingest(people(unique=(("id",),)), source=f"{n}.csv"))
        except BaseException as error:  # noqa: BLE001 - shown below
            errors.append(error)

    threads = [threading.Thread(target=one, args=(n,)) for n in range(6)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()

    assert not errors, errors
    current = room.data.show("people")
    frame = room.rows(str(current.ref))
    assert (current.number, frame.height) == (6, 18)
    assert sorted(frame["_row_id"].to_list()) == list(range(18))
    assert {r.snapshot for r in results} == {f"people@{n}" for n in range(1, 7)}
    room.close()


def test_the_same_batch_by_two_writers_at_once_lands_once(tmp_path: Path) -> None:
    records = open_sqlite(tmp_path / "taut.db")
    create_tables(records, *METADATAS)
    room = Room(tmp_path, records=records)
    room.write("a.csv", GOOD)
    results: list[IngestResult] = []
    threads = [threading.Thread(target=lambda: results.append(room.ingest(people()))) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()

    assert {(r.snapshot, r.rows, r.batch) for r in results} == {("people@1", 3, results[0].batch)}
    assert len(results) == 4
    assert room.data.show("people").rows == 3
    room.close()


def test_a_dataset_that_nobody_ingested_is_not_found(room: Room) -> None:
    assert room.data.current("people") is None
    with pytest.raises(NotFound):
        room.data.show("people")
    with pytest.raises(NotFound):
        room.data.snapshot(VersionRef("people", 1))
    with pytest.raises(Conflict):
        room.data.replay(people(), actor="ann")
