"""What was set aside: listed, repaired, replayed, discarded, never lost."""

from __future__ import annotations

import pytest
from data_room import HEADER, Room, people

from taut.core.errors import Conflict, InvalidInput, NotFound
from taut.core.schema import DType
from taut.project.manifest import ColumnSpec, DatasetSpec

BODY = HEADER + "1,a,1,\nx,b,1,\n3,c,-1,\n4,d\n5,e,1,\n6,f,1,\n"


@pytest.fixture
def spec(room: Room) -> DatasetSpec:
    room.write("a.csv", BODY)
    spec = people(unique=(("id",),))
    assert room.ingest(spec).quarantined == 3
    return spec


def test_a_repaired_record_passes_the_gate_again_under_its_own_row_id(room: Room, spec: DatasetSpec) -> None:
    first = room.data.quarantine("people")[0]

    room.data.repair(spec, first.id, {"id": "2"}, actor="bob")
    result = room.data.replay(spec, actor="bob")

    assert (result.snapshot, result.rows, result.quarantined, result.total_rows) == ("people@2", 1, 0, 4)
    frame = room.rows("people@2").sort("_row_id")
    assert frame["_row_id"].to_list() == [0, 1, 4, 5]
    assert frame["id"].to_list() == [1, 2, 5, 6]
    origin = room.data.locate("people", 1)
    assert (origin.source, origin.row, origin.quarantine) == ("a.csv", 2, first.id)
    assert [r.state for r in room.data.quarantine("people", state=None)] == ["replayed", "open", "open"]
    assert room.data.snapshot(room.data.show("people").ref).reason == "replay"


def test_a_repair_that_still_breaks_a_rule_stays_with_the_rule_that_it_breaks_now(
    room: Room, spec: DatasetSpec
) -> None:
    first, second, _ = room.data.quarantine("people")
    room.data.repair(spec, first.id, {"id": "5"}, actor="bob")
    room.data.repair(spec, second.id, {"amount": 2.5}, actor="bob")

    result = room.data.replay(spec, actor="bob")

    assert (result.rows, result.quarantined, result.rules) == (1, 1, {"id:unique": 1})
    (left,) = room.data.quarantine("people", state="repaired")
    assert left.rules == ("id:unique",)
    assert room.rows("people@2")["amount"].to_list() == [1, 1, 1, 2.5]


def test_a_replay_in_which_nothing_holds_makes_no_snapshot(room: Room, spec: DatasetSpec) -> None:
    first = room.data.quarantine("people")[0]
    room.data.repair(spec, first.id, {"id": "still no number"}, actor="bob")

    result = room.data.replay(spec, actor="bob")

    assert (result.rejected, result.snapshot, result.rows, result.rules) == (
        True,
        "people@1",
        0,
        {"id:type": 1},
    )
    assert len(room.data.quarantine("people", state="repaired")) == 1


def test_a_record_that_never_had_columns_is_repaired_whole(room: Room, spec: DatasetSpec) -> None:
    ragged = room.data.quarantine("people")[2]
    assert ragged.record["_raw"] == "4,d"

    with pytest.raises(InvalidInput, match="never had columns: give amount, at too"):
        room.data.repair(spec, ragged.id, {"id": 4, "name": "d"}, actor="bob")
    room.data.repair(spec, ragged.id, {"id": 4, "name": "d", "amount": 1, "at": None}, actor="bob")

    assert room.data.replay(spec, actor="bob").rows == 1


def test_open_records_are_replayed_when_the_contract_was_mended(room: Room, spec: DatasetSpec) -> None:
    columns = tuple(
        ColumnSpec(name="amount", dtype=DType.FLOAT, minimum=-10) if c.name == "amount" else c
        for c in spec.contract.columns
    )

    with pytest.raises(InvalidInput, match="no repaired record"):
        room.data.replay(spec, actor="bob")
    result = room.data.replay(people(columns=columns, unique=(("id",),)), include_open=True, actor="bob")

    assert (result.rows, result.rules) == (1, {"id:type": 1})
    assert len(room.data.quarantine("people")) == 2


def test_a_discarded_record_leaves_its_place_and_its_reason_but_no_values(
    room: Room, spec: DatasetSpec
) -> None:
    ids = [record.id for record in room.data.quarantine("people")]

    assert room.data.discard("people", ids[:2], reason="a test rig sent them", actor="bob") == 2

    assert [r.id for r in room.data.quarantine("people")] == ids[2:]
    gone = room.data.quarantine("people", state="discarded")
    assert [record.record for record in gone] == [{}, {}]
    assert [record.row for record in gone] == [2, 3]
    room.ledger.sequence()
    (leaf,) = room.ledger.show(kind="data.discarded")
    assert leaf.body["records"] == 2
    with pytest.raises(Conflict, match="is discarded"):
        room.data.repair(spec, ids[0], {"id": 1}, actor="bob")
    with pytest.raises(InvalidInput, match="say why"):
        room.data.discard("people", ids[2:], reason=" ", actor="bob")


def test_records_are_listed_page_by_page(room: Room, spec: DatasetSpec) -> None:
    one = room.data.quarantine("people", limit=2)
    two = room.data.quarantine("people", limit=2, after=one[-1].id)

    assert [record.row for record in (*one, *two)] == [2, 3, 4]
    assert room.data.quarantine("people", batch="batch_none") == ()
    assert [record.row for record in room.data.quarantine("people", rule="amount:minimum", limit=1)] == [3]
    assert room.data.quarantine("people", rule="amount:%") == ()
    with pytest.raises(InvalidInput):
        room.data.quarantine("people", limit=0)
    with pytest.raises(InvalidInput, match="did you mean 'open'"):
        room.data.quarantine("people", state="opne")


@pytest.mark.parametrize(
    ("values", "error", "said"),
    [
        ({}, InvalidInput, "at least one"),
        ({"nmae": "x"}, InvalidInput, "did you mean 'name'"),
        ({"name": "x" * (2**20 + 1)}, InvalidInput, "1 MiB"),
        ({"name": ["x"]}, InvalidInput, "list is no value"),
    ],
)
def test_a_repair_that_makes_no_sense_is_refused(
    room: Room, spec: DatasetSpec, values: dict[str, object], error: type[Exception], said: str
) -> None:
    record = room.data.quarantine("people")[0]

    with pytest.raises(error, match=said):
        room.data.repair(spec, record.id, values, actor="bob")  # type: ignore[arg-type]  # wrong on purpose
    with pytest.raises(NotFound):
        room.data.repair(spec, "quar_none", {"id": 1}, actor="bob")


def test_a_hopeless_batch_is_counted_whole_but_not_kept_whole(room: Room) -> None:
    room.write("a.csv", HEADER + "x,b,1,\n" * 30_000)

    result = room.ingest(people(max_bad_fraction=0.1))

    assert (result.rejected, result.quarantined, result.rules) == (True, 30_000, {"id:type": 30_000})
    assert len(room.data.quarantine("people", state="rejected", limit=10_000)) == 1_000


def test_a_batch_whose_bad_records_come_first_is_kept_whole_when_it_is_admitted(room: Room) -> None:
    good = "".join(f"{i},b,1,\n" for i in range(1, 250_000))
    room.write("a.csv", HEADER + "x,b,1,\n" * 24_000 + good)

    result = room.ingest(people(max_bad_fraction=0.1))

    assert (result.rejected, result.quarantined) == (False, 24_000)
    (info,) = room.data.list()
    assert info.quarantined == 24_000
