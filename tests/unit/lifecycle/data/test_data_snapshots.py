"""Snapshots: immutable, listed, compared, brought back."""

from __future__ import annotations

import pytest
from data_room import GOOD, HEADER, Room, people

from taut.core.errors import Corrupt, InvalidInput, NotFound
from taut.core.refs import Kind, Ref, VersionRef
from taut.core.schema import DType
from taut.project.manifest import ColumnSpec


@pytest.fixture
def two(room: Room) -> Room:
    room.write("a.csv", GOOD)
    room.ingest(people())
    room.write("b.csv", HEADER + "4,d,100,2014-01-01T00:00:00Z\n")
    room.ingest(people())
    return room


def test_an_older_snapshot_stays_what_it_was(two: Room) -> None:
    assert two.rows("people@1").height == 3
    assert two.rows("people@2").height == 4
    assert [info.number for info in two.data.history("people")] == [2, 1]
    assert two.data.manifest(VersionRef("people", 1)).rows == 3
    assert two.data.spec(VersionRef("people", 1)) == people()


def test_statistics_add_up_over_batches(two: Room) -> None:
    seen = two.data.show("people").statistics

    assert (seen["amount"].minimum, seen["amount"].maximum) == (0, 100)
    assert seen["amount"].mean == pytest.approx(117.5 / 4)
    assert seen["name"].null_fraction == 0.25
    assert seen["at"].maximum == "2014-01-01T00:00:00+00:00"
    assert seen["name"].minimum is None, "texts are not looked at"


def test_a_difference_counts_rows_by_their_ids(two: Room) -> None:
    diff = two.data.diff(VersionRef("people", 1), VersionRef("people", 2))

    assert (diff.rows_added, diff.rows_removed, diff.rows_kept) == (1, 0, 3)
    assert set(diff.statistics) == {"id", "amount", "at", "name"}
    back = two.data.diff(VersionRef("people", 2), VersionRef("people", 1))
    assert (back.rows_added, back.rows_removed, back.rows_kept) == (0, 1, 3)
    with pytest.raises(InvalidInput, match="two datasets"):
        two.data.diff(VersionRef("people", 1), VersionRef("other", 1))


def test_a_difference_over_a_changed_schema_still_counts_rows_by_their_ids(two: Room) -> None:
    columns = people().contract.columns
    two.write("c.csv", "id,name,amount,at,city\n5,e,1,,Ulm\n")
    two.ingest(people(columns=(*columns, ColumnSpec(name="city", dtype=DType.STRING, nullable=True))))

    diff = two.data.diff(VersionRef("people", 2), VersionRef("people", 3))

    assert (diff.rows_added, diff.rows_kept, diff.columns_added) == (1, 4, ("city",))
    assert diff.contract_changed


def test_a_rollback_is_a_new_snapshot_and_never_gives_a_row_id_twice(two: Room) -> None:
    back = two.data.rollback("people", 1, actor="bob")
    two.write("c.csv", HEADER + "9,z,1,\n")
    after = two.ingest(people())

    assert (back.number, back.restores, back.rows, back.reason) == (3, 1, 3, "rollback")
    assert after.snapshot == "people@4"
    assert two.rows("people@4")["_row_id"].to_list() == [0, 1, 2, 4]
    assert two.rows("people@2").height == 4, "history stays"
    assert two.ingest(people()).unchanged, "what was rolled back does not come back by itself"
    with two.records.read() as tx:
        below = two.lineage.downstream(tx, Ref(Kind.SNAPSHOT, "people@1"))
    assert Ref(Kind.SNAPSHOT, "people@3") in below
    with pytest.raises(NotFound, match="it has 1 to 4"):
        two.data.rollback("people", 9, actor="bob")
    with pytest.raises(InvalidInput, match="current already"):
        two.data.rollback("people", 4, actor="bob")


def test_a_flipped_byte_in_a_snapshots_file_is_corrupt_and_no_row_is_given(two: Room) -> None:
    digest = two.data.manifest(VersionRef("people", 1)).files[0].digest
    (path,) = [p for p in (two.folder / "blobs").rglob("*") if p.is_file() and p.name.endswith(digest[-40:])]
    data = bytearray(path.read_bytes())
    data[len(data) // 2] ^= 1
    path.chmod(0o600)
    path.write_bytes(data)

    with pytest.raises(Corrupt):
        two.rows("people@1")


def test_names_that_are_nearly_right_are_named(two: Room) -> None:
    with pytest.raises(NotFound, match="did you mean 'people'"):
        two.data.show("peopel")
    with pytest.raises(NotFound, match="it has 1 to 2"):
        two.data.snapshot(VersionRef("people", 3))
    with pytest.raises(InvalidInput):
        two.data.history("people", limit=0)
    with pytest.raises(NotFound):
        two.data.evidence("batch_none")
