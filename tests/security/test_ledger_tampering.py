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
from sqlalchemy import delete, insert, select, text, update

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
from taut.trust.ledger.store import tile_reader, write_tiles
from taut.trust.ledger.tiles import Tree, grow

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


def rehashed(tx: Tx, seq: int, **values: Any) -> None:
    """Change a leaf and the hash beside it."""
    tx.execute(update(t.leaves).where(t.leaves.c.seq == seq).values(**values))
    row = tx.execute(select(t.leaves).where(t.leaves.c.seq == seq)).one()
    tx.execute(update(t.leaves).where(t.leaves.c.seq == seq).values(hash=leaf_hash(row_bytes(row))))


def rebuild_tiles(tx: Tx) -> int:
    """Do what an insider with all of the code would do: make tiles and head fit the changed leaves."""
    hashes = list(tx.execute(select(t.leaves.c.hash).order_by(t.leaves.c.seq)).scalars())
    tx.execute(delete(t.tiles))
    write_tiles(tx, grow(lambda _level, _index: b"", 0, hashes))
    tx.execute(update(t.head).values(size=len(hashes)))
    return len(hashes)


def renumber(tx: Tx, first: int, by: int) -> None:
    for aside in (10**6, by - 10**6):  # by way of places that are free
        tx.execute(update(t.leaves).where(t.leaves.c.seq >= first).values(seq=t.leaves.c.seq + aside))


@pytest.mark.parametrize(
    "values",
    [{"body": '{"n":-1}'}, {"kind": "c.d"}, {"subject": "run:x"}, {"actor": "x"}, {"at_us": 0}, {"id": "leaf_x"},
     {"body": "no json"}, {"body": ""}],
)  # fmt: skip
@pytest.mark.parametrize("seq", [0, 255, 256, 699])
def test_a_changed_leaf_is_named(log: Log, seq: int, values: dict[str, Any]) -> None:
    report = log.tamper(lambda tx: tx.execute(update(t.leaves).where(t.leaves.c.seq == seq).values(**values)))

    assert kinds(report) == [("leaf_changed", seq, None)]


def test_a_body_of_a_type_that_no_writer_of_ours_makes_is_a_changed_leaf(log: Log) -> None:
    report = log.tamper(lambda tx: tx.execute(text("UPDATE ledger_leaves SET body = x'00ff' WHERE seq = 9")))

    assert kinds(report) == [("leaf_changed", 9, None)]


@pytest.mark.parametrize("seq", [0, 300, 699])
def test_a_changed_hash_is_named(log: Log, seq: int) -> None:
    report = log.tamper(
        lambda tx: tx.execute(update(t.leaves).where(t.leaves.c.seq == seq).values(hash=bytes(32)))
    )

    assert kinds(report) == [("hash_changed", seq, None)]


@pytest.mark.parametrize("seq", [0, 300, 699])
def test_a_leaf_rewritten_with_its_hash_is_named(log: Log, seq: int) -> None:
    assert kinds(log.tamper(lambda tx: rehashed(tx, seq, body='{"n":-1}'))) == [("leaf_rewritten", seq, None)]


@pytest.mark.parametrize("seq", [0, 255, 511, 650])
def test_a_removed_leaf_is_named(log: Log, seq: int) -> None:
    report = log.tamper(lambda tx: tx.execute(delete(t.leaves).where(t.leaves.c.seq == seq)))

    assert kinds(report) == [("leaf_removed", seq, seq)]


def test_a_removed_range_is_named_as_one(log: Log) -> None:
    report = log.tamper(lambda tx: tx.execute(delete(t.leaves).where(t.leaves.c.seq.between(100, 400))))

    assert kinds(report) == [("leaf_removed", 100, 400)]


def test_a_removed_leaf_is_named_though_the_rest_was_renumbered(log: Log) -> None:
    def do(tx: Tx) -> None:
        tx.execute(delete(t.leaves).where(t.leaves.c.seq == 100))
        renumber(tx, 101, -1)

    assert kinds(log.tamper(do)) == [("leaf_removed", 100, 100), ("leaf_moved", 100, 698)]


def test_an_inserted_leaf_is_named_though_the_rest_was_renumbered(log: Log) -> None:
    def do(tx: Tx) -> None:
        renumber(tx, 100, 1)
        tx.execute(
            insert(t.leaves).values(
                seq=100, id="leaf_new", kind="a.b", subject="s", actor="x", at_us=1, body="{}", hash=bytes(32)
            )
        )
        rehashed(tx, 100, actor="y")

    found = kinds(log.tamper(do))
    assert ("leaf_beyond_head", 700, 700) in found
    assert ("leaf_rewritten", 100, None) in found
    assert ("leaf_moved", 101, 699) in found


@pytest.mark.parametrize(("one", "other"), [(0, 699), (10, 11), (255, 256)])
def test_reordered_leaves_are_named(log: Log, one: int, other: int) -> None:
    def do(tx: Tx) -> None:
        for seq, to in ((one, 10**6), (other, one), (10**6, other)):
            tx.execute(update(t.leaves).where(t.leaves.c.seq == seq).values(seq=to))

    found = kinds(log.tamper(do))
    assert [kind for kind, _, _ in found] == ["leaf_moved", "leaf_moved"]
    assert {seq for _, seq, _ in found} == {one, other}


def test_a_tail_cut_from_the_leaves_alone_is_named(log: Log) -> None:
    report = log.tamper(lambda tx: tx.execute(delete(t.leaves).where(t.leaves.c.seq >= 600)))

    assert kinds(report) == [("tail_cut", 600, 699)]


def test_a_head_far_beyond_the_leaves_does_not_keep_the_verification_busy(log: Log) -> None:
    report = log.tamper(lambda tx: tx.execute(update(t.head).values(size=10**15)))

    assert {kind for kind, _, _ in kinds(report)} == {"tail_cut", "tile_disagrees"}


def cut_whole_tail(tx: Tx) -> None:
    tx.execute(delete(t.leaves).where(t.leaves.c.seq >= 600))
    rebuild_tiles(tx)


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
        rebuild_tiles(tx)

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
        rebuild_tiles(tx)
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
                "INSERT INTO ledger_leaves SELECT seq, 'leaf_aaa', kind, subject, actor, at_us, '{}', hash "
                "FROM old_leaves WHERE seq = 42"
            )
        )

    report = log.tamper(do)
    assert kinds(report) == [("seq_duplicated", 42, None)]
    assert "leaf_aaa" in report.faults[0].message


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


def test_a_pending_leaf_that_was_changed_is_named(log: Log) -> None:
    with log.records.begin() as tx:
        leaf_id = log.ledger.append(tx, Entry("a.b", "run:late", "owner"))
    report = log.tamper(lambda tx: tx.execute(update(t.pending).values(actor="x")))

    assert [(fault.kind, fault.leaf) for fault in report.faults] == [("pending_changed", leaf_id)]


def test_a_leaf_changed_while_it_waited_is_still_named_after_it_got_its_place(log: Log) -> None:
    with log.records.begin() as tx:
        log.ledger.append(tx, Entry("a.b", "run:late", "owner"))
    log.tamper(lambda tx: tx.execute(update(t.pending).values(actor="x")))
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
    row = t.leaves.c.seq == seq
    match dice.randrange(5):
        case 0:
            column = dice.choice(["kind", "subject", "actor", "body", "id"])
            tx.execute(update(t.leaves).where(row).values({column: f"x{dice.random()}"}))
        case 1:
            tx.execute(update(t.leaves).where(row).values(hash=dice.randbytes(32)))
        case 2:
            tx.execute(delete(t.leaves).where(row))
        case 3:
            rehashed(tx, seq, at_us=dice.randrange(10**9))
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
