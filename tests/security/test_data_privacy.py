"""Personal values: never stored open, neither in rows, nor in the quarantine, nor in the ledger, statistics or lineage."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from sqlalchemy import text

sys.path.insert(0, str(Path(__file__).parents[1] / "unit/lifecycle/data"))  # the data room of the unit tests

from data_room import METADATAS, Room

from taut.core.errors import InvalidInput
from taut.core.refs import VersionRef
from taut.core.schema import DType
from taut.project.manifest import ColumnSpec, ContractSpec, DatasetSpec, SourceSpec

PERSON, EMAIL, STREET = "ann-4711", "ann@example.com", "Elm Street 9"
SPEC = DatasetSpec(
    name="visits",
    source=SourceSpec(url="*.csv"),
    subject="person",
    contract=ContractSpec(
        columns=(
            ColumnSpec(name="person", dtype=DType.STRING),
            ColumnSpec(name="email", dtype=DType.STRING, personal="seal"),
            ColumnSpec(name="street", dtype=DType.STRING, personal="redact", nullable=True),
            ColumnSpec(name="plate", dtype=DType.STRING, personal="tokenise"),
            ColumnSpec(name="ward", dtype=DType.STRING, personal="pseudonymise"),
            ColumnSpec(name="age", dtype=DType.INT, personal="seal", minimum=0),
            ColumnSpec(name="cost", dtype=DType.FLOAT, minimum=0),
        ),
        max_bad_fraction=0.9,
    ),
)
HEADER = "person,email,street,plate,ward,age,cost\n"
GOOD = f"{PERSON},{EMAIL},{STREET},UL-X-1,W7-secret,41,10\n"
BAD = f"{PERSON},{EMAIL},{STREET},UL-X-1,W7-secret,-5,-1\n"
NOBODY = f",{EMAIL},{STREET},UL-X-1,W7-secret,41,1\n"
RAGGED = f"{PERSON},{EMAIL},{STREET}\n"
SECRETS = (PERSON, EMAIL, STREET, "UL-X-1", "W7-secret")


@pytest.fixture
def room(tmp_path: Path) -> Iterator[Room]:
    room = Room(tmp_path)
    yield room
    room.close()


def everything(room: Room) -> str:
    """All that is stored: every cell of every table, and every blob."""
    found = []
    with room.records.read() as tx:
        for metadata in METADATAS:
            for table in metadata.sorted_tables:
                found += [str(row) for row in tx.execute(text(f"select * from {table.name}"))]
    found += [
        path.read_bytes().decode("latin-1") for path in (room.folder / "blobs").rglob("*") if path.is_file()
    ]
    for ref in room.data.history(SPEC.name) if room.data.current(SPEC.name) else ():
        found.append(str(room.data.scan(ref.ref).collect().rows()))
    return "\n".join(found)


def test_no_personal_value_lies_open_anywhere(room: Room) -> None:
    room.write("a.csv", HEADER + GOOD + BAD + NOBODY + RAGGED)

    result = room.data.ingest(SPEC, root=room.files, actor="bob")

    assert (result.rows, result.quarantined, result.rejected) == (1, 3, False)
    stored = everything(room)
    for secret in SECRETS:
        assert secret not in stored, secret
        assert secret not in str(result)


def test_the_search_above_finds_a_value_that_is_kept_open(room: Room) -> None:
    columns = tuple(
        ColumnSpec(name=c.name, dtype=c.dtype, nullable=c.nullable, personal="keep")
        for c in SPEC.contract.columns
    )
    room.write("a.csv", HEADER + GOOD + BAD)
    spec = DatasetSpec(
        name=SPEC.name, source=SPEC.source, contract=ContractSpec(columns=columns), subject="person"
    )

    room.data.ingest(spec, root=room.files, actor="bob")

    assert all(secret in everything(room) for secret in SECRETS)


def test_sealed_values_come_back_for_a_purpose_that_the_ledger_keeps(room: Room) -> None:
    room.write("a.csv", HEADER + GOOD)
    room.data.ingest(SPEC, root=room.files, actor="bob")
    ref = VersionRef("visits", 1)

    with pytest.raises(InvalidInput, match="purpose"):
        room.data.scan(ref, unseal=True)
    row = room.data.scan(ref, unseal=True, purpose="support case 7", actor="eve").collect().to_dicts()[0]

    assert (row["email"], row["age"], row["plate"]) == (EMAIL, 41, "UL-X-1")
    assert row["street"] == "[redacted]"
    assert PERSON not in row["person"]
    room.ledger.sequence()
    (leaf,) = room.ledger.show(kind="data.unsealed")
    assert (leaf.actor, leaf.body["purpose"]) == ("eve", "support case 7")


def test_the_raw_values_of_a_quarantined_record_can_be_repaired_and_replayed(room: Room) -> None:
    room.write("a.csv", HEADER + GOOD + BAD)
    room.data.ingest(SPEC, root=room.files, actor="bob")
    (record,) = room.data.quarantine("visits")
    assert record.record == {"cost": "-1"}
    with pytest.raises(InvalidInput, match="purpose"):
        room.data.quarantine("visits", unseal=True)
    (opened,) = room.data.quarantine("visits", unseal=True, purpose="repair", actor="eve")
    assert (opened.record["email"], opened.record["age"]) == (EMAIL, "-5")

    room.data.repair(SPEC, record.id, {"age": 50, "cost": 2}, actor="eve")
    result = room.data.replay(SPEC, actor="eve")

    assert result.rows == 1
    frame = room.data.scan(VersionRef("visits", 2), unseal=True, purpose="test", actor="eve").collect()
    assert frame["age"].to_list() == [41, 50]
    assert frame["email"].to_list() == [EMAIL, EMAIL]
    assert frame["person"].n_unique() == 1, "a person keeps the same pseudonym"
    assert all(secret not in everything(room) for secret in SECRETS)


def test_a_forgotten_person_is_gone_from_rows_and_from_the_quarantine(room: Room) -> None:
    room.write("a.csv", HEADER + GOOD + BAD)
    room.data.ingest(SPEC, root=room.files, actor="bob")
    with room.records.begin() as tx:
        assert room.sealer.forget(tx, PERSON)

    frame = room.data.scan(VersionRef("visits", 1), unseal=True, purpose="test", actor="eve").collect()
    (record,) = room.data.quarantine("visits", unseal=True, purpose="test", actor="eve")

    assert frame["email"].to_list() == [None]
    assert record.record == {"cost": "-1"}


def test_undeclared_personal_data_in_a_bad_record_is_sealed_too(room: Room) -> None:
    spec = DatasetSpec(
        name="notes",
        source=SPEC.source,
        contract=ContractSpec(
            columns=(ColumnSpec(name="id", dtype=DType.INT), ColumnSpec(name="note", dtype=DType.STRING)),
            max_bad_fraction=0.9,
        ),
    )
    room.write("a.csv", f"id,note\n1,fine\nx,call {EMAIL}\n")

    result = room.data.ingest(spec, root=room.files, actor="bob")

    assert result.quarantined == 1
    assert EMAIL not in everything(room)
    (opened,) = room.data.quarantine("notes", unseal=True, purpose="repair", actor="eve")
    assert opened.record["note"] == f"call {EMAIL}"


def test_a_batch_that_is_rejected_for_personal_data_leaves_none_behind(room: Room) -> None:
    spec = DatasetSpec(
        name="notes",
        source=SPEC.source,
        contract=ContractSpec(columns=(ColumnSpec(name="note", dtype=DType.STRING),)),
    )
    room.write("a.csv", f"note\ncall {EMAIL}\n")

    result = room.data.ingest(spec, root=room.files, actor="bob")

    assert result.rejected
    assert result.verdict is not None
    assert "column 'note' has 1 email" in result.verdict.reasons[0]
    with room.records.read() as tx:
        rows = [
            str(row)
            for table in METADATAS[0].sorted_tables
            for row in tx.execute(text(f"select * from {table.name}"))
        ]
    assert EMAIL not in "\n".join(rows)
