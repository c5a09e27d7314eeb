"""Whoever can write the database changes the ledger: each way is found and called by its name."""

from __future__ import annotations

import random
import shutil
from base64 import b64encode
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from sqlalchemy import and_, delete, insert, select, text, tuple_, update

from taut.adapters.blobs.local import LocalBlobs
from taut.adapters.keys.file import FileKeys
from taut.adapters.world import SystemRandom
from taut.core.errors import Corrupt
from taut.ports.records import Tx
from taut.testing.records import MemoryRecords, memory_records
from taut.testing.world import ManualClock, SequenceIds
from taut.trust.ledger import (
    BlobsCopy,
    CheckpointCopy,
    DirectoryCopy,
    Entry,
    Ledger,
    LedgerReport,
    metadata,
)
from taut.trust.ledger import tables as t
from taut.trust.ledger.leaf import row_bytes
from taut.trust.ledger.merkle import leaf_hash
from taut.trust.ledger.note import sign_checkpoint
from taut.trust.ledger.store import select_leaves, select_range, tile_reader, write_tiles
from taut.trust.ledger.tiles import Tree, grow, split

ORIGIN, SIZE = "example.org/taut", 700


@pytest.fixture(scope="module")
def keys(tmp_path_factory: pytest.TempPathFactory) -> FileKeys:
    return FileKeys(tmp_path_factory.mktemp("keys"), random=SystemRandom())


class Log:
    """A ledger of 700 leaves, signed at 300 and 700 and copied elsewhere, and somebody who can write its tables."""

    def __init__(self, keys: FileKeys, copy: CheckpointCopy | None) -> None:
        self.records: MemoryRecords = memory_records(metadata)
        self.ledger = Ledger(
            self.records, keys, ManualClock(), SequenceIds(), origin=ORIGIN, copies=[copy] if copy else []
        )
        for first, last in ((0, 300), (300, SIZE)):
            with self.records.begin() as tx:
                self.ledger.append_many(
                    tx, [Entry("a.b", f"run:r{n}", "owner", {"n": n}) for n in range(first, last)]
                )
            self.ledger.checkpoint()

    def tamper(self, do: Callable[[Tx], Any]) -> LedgerReport:
        with self.records.begin() as tx:
            do(tx)
        return self.ledger.verify()


@pytest.fixture
def log(keys: FileKeys, tmp_path: Path) -> Iterator[Log]:
    made = Log(keys, DirectoryCopy(tmp_path / "copy"))
    assert made.ledger.verify().ok
    yield made
    made.records.close()


def kinds(report: LedgerReport) -> list[tuple[str, int | None, int | None]]:
    assert not report.ok or not report.faults
    return [(fault.kind, fault.seq, fault.last) for fault in report.faults]


def at(tx: Tx, *places: int) -> Any:
    """The leaves at places, wherever their groups begin."""
    rows = [row for place in places for row in tx.execute(select_range(place, place + 1))]
    return tuple_(t.leaves.c.group_id, t.leaves.c.number).in_([(row.group_id, row.number) for row in rows])


def change(seq: int, **values: Any) -> Callable[[Tx], Any]:
    return lambda tx: tx.execute(update(t.leaves).where(at(tx, seq)).values(**values))


def remove(*places: int) -> Callable[[Tx], Any]:
    return lambda tx: tx.execute(delete(t.leaves).where(at(tx, *places)))


def first_of(group_id: str) -> Any:
    return and_(t.leaves.c.group_id == group_id, t.leaves.c.number == 0)


def group_ids(tx: Tx) -> list[str]:
    query = select(t.leaves.c.group_id).where(t.leaves.c.number == 0).order_by(t.leaves.c.first_seq)
    return list(tx.execute(query).scalars())


def set_hash(tx: Tx, seq: int, hash_: bytes) -> None:
    row = tx.execute(select_range(seq, seq + 1)).one()
    hashes = split(tx.execute(select(t.leaves.c.hashes).where(first_of(row.group_id))).scalar_one())
    hashes[row.number] = hash_
    tx.execute(update(t.leaves).where(first_of(row.group_id)).values(hashes=b"".join(hashes)))


def rehashed(tx: Tx, seq: int, **values: Any) -> None:
    """Change a leaf and the hash beside it."""
    change(seq, **values)(tx)
    set_hash(tx, seq, leaf_hash(row_bytes(tx.execute(select_range(seq, seq + 1)).one())))


def rebuild(tx: Tx) -> None:
    """Do what an insider with all of the code would do: make groups, tiles and head fit the changed leaves."""
    place, every = 0, []
    for group in group_ids(tx):
        rows = tx.execute(
            select_leaves().where(t.leaves.c.group_id == group).order_by(t.leaves.c.number)
        ).all()
        hashes = [leaf_hash(row_bytes(row)) for row in rows]
        tx.execute(
            update(t.leaves)
            .where(first_of(group))
            .values(first_seq=place, width=len(rows), hashes=b"".join(hashes))
        )
        place += len(rows)
        every += hashes
    tx.execute(delete(t.tiles))
    write_tiles(tx, grow(lambda _level, _index: b"", 0, every))
    tx.execute(update(t.head).values(size=place))


def renumber(tx: Tx, first: int, by: int) -> None:
    """Move the leaves of the second group from place `first` on."""
    group = tx.execute(select_range(first, first + 1)).one().group_id
    for aside in (10**6, by - 10**6):  # by way of numbers that are free
        tx.execute(
            update(t.leaves)
            .where(t.leaves.c.group_id == group, t.leaves.c.number >= first - 300)
            .values(number=t.leaves.c.number + aside)
        )


@pytest.mark.parametrize(
    "values",
    [{"body": '{"n":-1}'}, {"kind": "c.d"}, {"subject": "run:x"}, {"actor": "x"}, {"id": "leaf_x"},
     {"body": "no json"}, {"body": ""}],
)  # fmt: skip
@pytest.mark.parametrize("seq", [0, 255, 256, 699])
def test_a_changed_leaf_is_named(log: Log, seq: int, values: dict[str, Any]) -> None:
    report = log.tamper(change(seq, **values))

    assert kinds(report) == [("leaf_changed", seq, None)]


def test_a_body_of_a_type_that_no_writer_of_ours_makes_is_a_changed_leaf(log: Log) -> None:
    report = log.tamper(
        lambda tx: tx.execute(text("UPDATE ledger_leaves SET body = x'00ff' WHERE subject = 'run:r9'"))
    )

    assert kinds(report) == [("leaf_changed", 9, None)]


@pytest.mark.parametrize("seq", [0, 300, 699])
def test_a_changed_hash_is_named(log: Log, seq: int) -> None:
    report = log.tamper(lambda tx: set_hash(tx, seq, bytes(32)))

    assert kinds(report) == [("hash_changed", seq, None)]


@pytest.mark.parametrize("seq", [0, 300, 699])
def test_a_leaf_rewritten_with_its_hash_is_named(log: Log, seq: int) -> None:
    assert kinds(log.tamper(lambda tx: rehashed(tx, seq, body='{"n":-1}'))) == [("leaf_rewritten", seq, None)]


@pytest.mark.parametrize("seq", [1, 255, 511, 650])
def test_a_removed_leaf_is_named(log: Log, seq: int) -> None:
    report = log.tamper(remove(seq))

    assert kinds(report) == [("leaf_removed", seq, seq)]


def test_the_first_leaf_of_a_group_takes_the_places_of_its_group_along(log: Log) -> None:
    assert kinds(log.tamper(remove(0))) == [("leaf_removed", 0, 299)]


def test_a_removed_range_is_named_as_one(log: Log) -> None:
    report = log.tamper(remove(*range(310, 401)))

    assert kinds(report) == [("leaf_removed", 310, 400)]


def test_a_removed_leaf_is_named_though_the_rest_was_renumbered(log: Log) -> None:
    def do(tx: Tx) -> None:
        remove(400)(tx)
        renumber(tx, 401, -1)

    assert kinds(log.tamper(do)) == [("leaf_removed", 400, 400), ("leaf_moved", 400, 698)]


def test_an_inserted_leaf_is_named_though_the_rest_was_renumbered(log: Log) -> None:
    def do(tx: Tx) -> None:
        group = tx.execute(select_range(400, 401)).one().group_id
        renumber(tx, 400, 1)
        tx.execute(
            insert(t.leaves).values(
                group_id=group, number=100, id="leaf_new", kind="a.b", subject="s", actor="x", body="{}"
            )
        )
        rehashed(tx, 400, actor="y")

    found = kinds(log.tamper(do))
    assert ("leaf_beyond_head", 700, 700) in found
    assert ("leaf_rewritten", 400, None) in found
    assert ("leaf_moved", 401, 699) in found


@pytest.mark.parametrize(("one", "other"), [(1, 699), (10, 11), (255, 256)])
def test_reordered_leaves_are_named(log: Log, one: int, other: int) -> None:
    def do(tx: Tx) -> None:
        a, b = (tx.execute(select_range(place, place + 1)).one() for place in (one, other))
        for id_, group, number in (
            (a.id, "aside", 0),
            (b.id, a.group_id, a.number),
            (a.id, b.group_id, b.number),
        ):
            tx.execute(update(t.leaves).where(t.leaves.c.id == id_).values(group_id=group, number=number))

    found = kinds(log.tamper(do))
    assert [kind for kind, _, _ in found] == ["leaf_moved", "leaf_moved"]
    assert {seq for _, seq, _ in found} == {one, other}


def test_a_tail_cut_from_the_leaves_alone_is_named(log: Log) -> None:
    report = log.tamper(remove(*range(600, SIZE)))

    assert kinds(report) == [("tail_cut", 600, 699)]


def test_a_head_far_beyond_the_leaves_does_not_keep_the_verification_busy(log: Log) -> None:
    report = log.tamper(lambda tx: tx.execute(update(t.head).values(size=10**15)))

    assert {kind for kind, _, _ in kinds(report)} == {"tail_cut", "tile_disagrees"}


def cut_whole_tail(tx: Tx) -> None:
    remove(*range(600, SIZE))(tx)
    rebuild(tx)


def test_a_tail_cut_everywhere_but_in_the_checkpoints_is_named(log: Log) -> None:
    found = kinds(log.tamper(cut_whole_tail))

    assert found == [("tail_cut", 600, 699)] * 2  # the database's own checkpoint and the copy both say so


def test_a_tail_cut_with_the_checkpoints_is_named_by_the_copy(log: Log) -> None:
    def do(tx: Tx) -> None:
        cut_whole_tail(tx)
        tx.execute(delete(t.checkpoints).where(t.checkpoints.c.size > 600))

    assert [kind for kind, _, _ in kinds(log.tamper(do))] == ["tail_cut", "checkpoint_rolled_back"]
    with pytest.raises(Corrupt, match="tail was cut"):
        log.ledger.checkpoint()


def test_without_a_copy_a_cut_tail_is_invisible_and_verification_warns_of_it(keys: FileKeys) -> None:
    log = Log(keys, None)

    def do(tx: Tx) -> None:
        cut_whole_tail(tx)
        tx.execute(delete(t.checkpoints).where(t.checkpoints.c.size > 600))

    report = log.tamper(do)
    assert report.ok
    assert any("outside the database" in warning for warning in report.warnings)
    log.records.close()


def test_a_past_rewritten_with_tiles_and_head_is_found_by_what_was_signed(log: Log) -> None:
    def do(tx: Tx) -> None:
        rehashed(tx, 350, body='{"n":-1}')
        rebuild(tx)

    found = kinds(log.tamper(do))
    assert (
        found == [("checkpoint_disagrees", 300, 699)] * 2
    )  # between the checkpoint that fits and the one that does not
    with pytest.raises(Corrupt, match="split view"):
        log.ledger.checkpoint()


def test_a_forged_signature_is_named(log: Log) -> None:
    def do(tx: Tx) -> None:
        note = tx.execute(select(t.checkpoints.c.note).where(t.checkpoints.c.size == 300)).scalar_one()
        forged = note.replace("\n300\n", "\n299\n")
        tx.execute(update(t.checkpoints).where(t.checkpoints.c.size == 300).values(note=forged))

    assert [kind for kind, _, _ in kinds(log.tamper(do))] == ["checkpoint_forged"]


def test_a_checkpoint_signed_by_another_key_is_named_and_nothing_is_signed_on_top(
    log: Log, tmp_path: Path
) -> None:
    others = FileKeys(tmp_path / "other", random=SystemRandom())

    def do(tx: Tx) -> None:
        rehashed(tx, 350, body='{"n":-1}')
        rebuild(tx)
        root = Tree(tile_reader(tx), SIZE).root()
        forged = sign_checkpoint(others, origin=ORIGIN, size=SIZE, root=root)
        tx.execute(
            update(t.checkpoints).where(t.checkpoints.c.size == SIZE).values(note=forged.note, root=root)
        )

    assert [kind for kind, _, _ in kinds(log.tamper(do))] == ["checkpoint_forged", "checkpoint_disagrees"]
    with pytest.raises(Corrupt):
        log.ledger.checkpoint()


def test_a_checkpoint_whose_columns_do_not_fit_its_note_is_named(log: Log) -> None:
    report = log.tamper(lambda tx: tx.execute(update(t.checkpoints).values(root=bytes(32))))

    assert [kind for kind, _, _ in kinds(report)] == ["checkpoint_forged"] * 2


def test_checkpoints_removed_from_the_database_are_missed_by_the_copy(log: Log) -> None:
    report = log.tamper(lambda tx: tx.execute(delete(t.checkpoints).where(t.checkpoints.c.size == SIZE)))

    assert [kind for kind, _, _ in kinds(report)] == ["checkpoint_rolled_back"]


def test_a_place_held_twice_is_named(log: Log) -> None:
    def do(tx: Tx) -> None:
        # an insider drops what stands in his way: the same table without its primary key
        tx.execute(text("ALTER TABLE ledger_leaves RENAME TO old_leaves"))
        tx.execute(text("CREATE TABLE ledger_leaves AS SELECT * FROM old_leaves"))
        tx.execute(
            text(
                "INSERT INTO ledger_leaves SELECT group_id, number, 'leaf_aaa', kind, subject, actor, '{}', "
                "NULL, NULL, NULL, NULL, NULL "
                "FROM old_leaves WHERE subject = 'run:r42'"
            )
        )

    report = log.tamper(do)
    assert kinds(report) == [("seq_duplicated", 42, None)]
    assert "leaf_aaa" in report.faults[0].message


def test_groups_in_another_order_are_moved_leaves(log: Log) -> None:
    def do(tx: Tx) -> None:
        one, other = group_ids(tx)
        tx.execute(update(t.leaves).values(first_seq=None))
        tx.execute(update(t.leaves).where(first_of(one)).values(first_seq=400))
        tx.execute(update(t.leaves).where(first_of(other)).values(first_seq=0))

    assert kinds(log.tamper(do)) == [("leaf_moved", 0, 399), ("leaf_moved", 400, 699)]


def test_groups_that_overlap_hold_places_twice(log: Log) -> None:
    report = log.tamper(
        lambda tx: tx.execute(update(t.leaves).where(t.leaves.c.first_seq == 300).values(first_seq=299))
    )
    found = kinds(report)

    assert found[0] == ("seq_duplicated", 299, None)
    assert ("leaf_moved", 300, 698) in found


@pytest.mark.parametrize("values", [{"first_seq": None}, {"at_us": 1}, {"hashes": b""}, {"hashes": b"short"}])
def test_a_changed_group_is_found(log: Log, values: dict[str, Any]) -> None:
    report = log.tamper(
        lambda tx: tx.execute(update(t.leaves).where(t.leaves.c.first_seq == 0).values(**values))
    )

    assert not report.ok
    assert {(kind, seq) for kind, seq, _ in kinds(report)} & {
        ("leaf_removed", 0),
        ("leaf_changed", 0),
        ("hash_changed", 0),
    }


def flip(tx: Tx, level: int, index: int, at: int) -> None:
    where = (t.tiles.c.level == level, t.tiles.c.idx == index)
    hashes = bytearray(tx.execute(select(t.tiles.c.hashes).where(*where)).scalar_one())
    hashes[at] ^= 1
    tx.execute(update(t.tiles).where(*where).values(hashes=bytes(hashes)))


@pytest.mark.parametrize(
    ("level", "index", "at", "seq"), [(0, 0, 0, 0), (0, 1, 32 * 9, 265), (0, 2, 32 * 50, 562), (1, 0, 33, 0)]
)
def test_a_tile_that_disagrees_is_named_and_the_leaf_is_not_blamed(
    log: Log, level: int, index: int, at: int, seq: int
) -> None:
    assert [found[:2] for found in kinds(log.tamper(lambda tx: flip(tx, level, index, at)))] == [
        ("tile_disagrees", seq)
    ]


@pytest.mark.parametrize(("level", "index"), [(0, 0), (0, 2), (1, 0)])
def test_a_missing_tile_is_named(log: Log, level: int, index: int) -> None:
    report = log.tamper(
        lambda tx: tx.execute(delete(t.tiles).where(t.tiles.c.level == level, t.tiles.c.idx == index))
    )

    assert {kind for kind, _, _ in kinds(report)} == {"tile_disagrees"}


def test_a_disagreement_that_nothing_signed_covers_names_both(log: Log) -> None:
    with log.records.begin() as tx:
        log.ledger.append_many(tx, [Entry("a.b", "run:late", "owner") for _ in range(10)])
    log.ledger.sequence()

    assert kinds(log.tamper(lambda tx: rehashed(tx, 705, body='{"n":-1}'))) == [("leaf_disagrees", 705, None)]


def change_waiting(tx: Tx) -> None:
    tx.execute(update(t.leaves).where(t.leaves.c.waiting.is_not(None)).values(actor="x"))


def test_a_pending_leaf_that_was_changed_is_named(log: Log) -> None:
    with log.records.begin() as tx:
        leaf_id = log.ledger.append(tx, Entry("a.b", "run:late", "owner"))
    report = log.tamper(lambda tx: change_waiting(tx))

    assert [(fault.kind, fault.leaf) for fault in report.faults] == [("pending_changed", leaf_id)]


def test_a_leaf_changed_while_it_waited_is_still_named_after_it_got_its_place(log: Log) -> None:
    with log.records.begin() as tx:
        log.ledger.append(tx, Entry("a.b", "run:late", "owner"))
    log.tamper(lambda tx: change_waiting(tx))
    log.ledger.checkpoint()

    assert kinds(log.ledger.verify()) == [("leaf_changed", SIZE, None)]


def test_a_forged_or_unreadable_copy_proves_nothing(log: Log, tmp_path: Path) -> None:
    newest = tmp_path / "copy" / f"{SIZE:020d}"
    note = newest.read_text()
    newest.write_text(note.replace(f"\n{SIZE}\n", f"\n{SIZE - 1}\n"))
    assert [kind for kind, _, _ in kinds(log.ledger.verify())] == ["copy_forged"]
    with pytest.raises(Corrupt):
        log.ledger.checkpoint()
    newest.write_bytes(b"\xff\xfe")
    assert [kind for kind, _, _ in kinds(log.ledger.verify())] == ["copy_forged"]

    shutil.rmtree(tmp_path / "copy")
    (tmp_path / "copy").write_text("no folder")
    assert [kind for kind, _, _ in kinds(log.ledger.verify())] == ["copy_unreadable"]


@pytest.mark.parametrize("store", ["folder", "blobs"])
def test_two_logs_under_one_origin_are_a_split_view_and_refused(
    keys: FileKeys, tmp_path: Path, store: str
) -> None:
    def copy() -> CheckpointCopy:
        if store == "folder":
            return DirectoryCopy(tmp_path / "shared")
        return BlobsCopy(LocalBlobs(tmp_path / "blobs"))

    log = Log(keys, copy())
    second = memory_records(metadata)
    other = Ledger(second, keys, ManualClock(), SequenceIds(), origin=ORIGIN, copies=[copy()])
    with second.begin() as tx:
        other.append_many(tx, [Entry("a.b", "run:other", "owner") for _ in range(SIZE)])

    with pytest.raises(Corrupt, match="split view"):
        other.checkpoint()
    with second.read() as tx:
        assert tx.execute(select(t.checkpoints)).all() == []
    log.ledger.checkpoint()
    log.records.close()
    second.close()


@pytest.mark.parametrize("store", ["folder", "blobs"])
def test_a_copy_never_replaces_what_it_keeps(keys: FileKeys, tmp_path: Path, store: str) -> None:
    copy: CheckpointCopy = (
        DirectoryCopy(tmp_path / "c") if store == "folder" else BlobsCopy(LocalBlobs(tmp_path / "b"))
    )
    root = bytes(32)
    first = sign_checkpoint(keys, origin=ORIGIN, size=3, root=root).note
    assert copy.latest() is None
    assert copy.read(3) is None
    copy.publish(3, first)
    copy.publish(3, first)
    copy.publish(20, sign_checkpoint(keys, origin=ORIGIN, size=20, root=root).note)

    with pytest.raises(Exception, match="3"):
        copy.publish(3, first.replace(b64encode(root).decode(), b64encode(b"x" * 32).decode()))
    assert copy.read(3) == first
    latest = copy.latest()
    assert latest is not None
    assert latest.split("\n")[1] == "20"


def tamper_at_random(tx: Tx, dice: random.Random) -> None:
    """One seeded tampering with a row of leaves or tiles."""
    seq = dice.randrange(SIZE)
    row = at(tx, seq)
    match dice.randrange(5):
        case 0:
            column = dice.choice(["kind", "subject", "actor", "body", "id"])
            tx.execute(update(t.leaves).where(row).values({column: f"x{dice.random()}"}))
        case 1:
            set_hash(tx, seq, dice.randbytes(32))
        case 2:
            tx.execute(delete(t.leaves).where(row))
        case 3:
            rehashed(tx, seq, actor=f"x{dice.random()}")
        case _:
            flip(tx, 0, seq // 256, seq % 256 * 32 + dice.randrange(32))


@given(seed=st.integers(0, 2**32))
@settings(max_examples=40, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_no_random_tampering_goes_unseen(keys: FileKeys, seed: int) -> None:
    log = Log(keys, None)
    dice = random.Random(seed)
    report = log.tamper(lambda tx: tamper_at_random(tx, dice))
    log.records.close()

    assert not report.ok
    assert report.faults


def test_faults_beyond_the_bound_are_counted(log: Log) -> None:
    report = log.tamper(lambda tx: tx.execute(update(t.leaves).values(actor="x")))

    assert len(report.faults) == 100
    assert report.more_faults == SIZE - 100
