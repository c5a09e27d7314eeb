"""The ledger's face: appended with the effect, placed without a gap, signed, proved, shown."""

from __future__ import annotations

import json
from collections.abc import Iterator
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from sqlalchemy import delete, select, update

from taut.adapters.keys.file import FileKeys
from taut.adapters.world import SystemRandom
from taut.core.canonical import canonical_json
from taut.core.errors import Conflict, Corrupt, InvalidInput, NotFound, Unavailable
from taut.core.evidence import Check, Evidence, Gate, Outcome
from taut.testing.records import MemoryRecords, memory_records
from taut.testing.world import ManualClock, SequenceIds
from taut.trust.ledger import (
    DirectoryCopy,
    Entry,
    Ledger,
    checkpoint_as_json,
    leaf_as_json,
    metadata,
    proof_as_json,
    proof_as_text,
    report_as_json,
    verify_proof,
)
from taut.trust.ledger import tables as t
from taut.trust.ledger.leaf import leaf_bytes
from taut.trust.ledger.merkle import leaf_hash
from taut.trust.ledger.resources import tile_path
from taut.trust.ledger.tiles import split

pytestmark = pytest.mark.invariant

ORIGIN = "example.org/taut"
FIRST = select(t.leaves.c.hashes).where(t.leaves.c.number == 0)


@pytest.fixture(scope="module")
def keys(tmp_path_factory: pytest.TempPathFactory) -> FileKeys:
    return FileKeys(tmp_path_factory.mktemp("keys"), random=SystemRandom())


@pytest.fixture
def records() -> Iterator[MemoryRecords]:
    store = memory_records(metadata)
    yield store
    store.close()


@pytest.fixture
def clock() -> ManualClock:
    return ManualClock()


@pytest.fixture
def ledger(records: MemoryRecords, keys: FileKeys, clock: ManualClock, tmp_path: Path) -> Ledger:
    copy = DirectoryCopy(tmp_path / "copy")
    return Ledger(records, keys, clock, SequenceIds(), origin=ORIGIN, copies=[copy], leaves_max=300)


def entries(count: int, *, kind: str = "snapshot.made", actor: str = "owner") -> list[Entry]:
    return [Entry(kind, f"snapshot:flights@{n + 1}", actor, {"rows": n}) for n in range(count)]


def append(records: MemoryRecords, ledger: Ledger, *logged: Entry) -> list[str]:
    with records.begin() as tx:
        return [ledger.append(tx, entry) for entry in logged]


def public_key(keys: FileKeys) -> str:
    return keys.public_keys(purpose="ledger")[0].pem


def test_a_leaf_is_there_exactly_when_its_effect_is(records: MemoryRecords, ledger: Ledger) -> None:
    def failing_effect() -> None:
        with records.begin() as tx:
            ledger.append(tx, entries(1)[0])
            ledger.append_many(tx, entries(20))
            raise Conflict("the effect failed")

    with pytest.raises(Conflict, match="the effect failed"):
        failing_effect()
    assert ledger.sequence() == 0

    append(records, ledger, *entries(1))
    assert ledger.sequence() == 1


@pytest.mark.parametrize("count", [0, 1, 7, 8, 9, 300, 1000])
def test_leaves_get_places_without_a_gap_in_the_order_of_appending(
    records: MemoryRecords, ledger: Ledger, count: int
) -> None:
    with records.begin() as tx:
        ledger.append_many(tx, entries(count))

    assert ledger.sequence() == count
    assert ledger.sequence() == 0
    shown = ledger.show(limit=2000)
    assert [leaf.seq for leaf in shown] == list(range(count))[::-1]
    assert [leaf.body["rows"] for leaf in shown] == list(range(count))[::-1]
    assert ledger.verify().ok


def test_a_late_commit_with_an_older_id_is_not_skipped(
    records: MemoryRecords, keys: FileKeys, clock: ManualClock
) -> None:
    class OldIds:
        """Gives ids that sort before those that have their places already."""

        def __init__(self) -> None:
            self.left = 1000

        def new(self, prefix: str) -> str:
            self.left -= 1
            return f"{prefix}_{self.left:026d}"

    ledger = Ledger(records, keys, clock, OldIds(), origin=ORIGIN)
    for place in range(5):
        append(records, ledger, *entries(1))
        assert ledger.sequence() == 1
        assert ledger.size() == place + 1
    assert ledger.verify().ok


def test_the_hash_is_over_the_canonical_json_of_six_fields(records: MemoryRecords, ledger: Ledger) -> None:
    body = {"z": 1.5, "a": ["ü", None, True], "m": {"y": 1, "x": "<&>\n"}}
    [leaf_id] = append(records, ledger, Entry("a.b", 'model:"x"@1', "zoë", body))
    leaf = ledger.get(leaf_id)
    fields = {
        "id": leaf_id,
        "kind": "a.b",
        "subject": 'model:"x"@1',
        "actor": "zoë",
        "at_us": leaf.at_us,
        "body": body,
    }

    with records.read() as tx:
        stored = tx.execute(select(t.leaves.c.hashes)).scalar_one()
    assert stored == leaf_hash(canonical_json(fields))


json_values = st.recursive(
    st.none()
    | st.booleans()
    | st.integers(-(2**53), 2**53)
    | st.floats(allow_nan=False, allow_infinity=False)
    | st.text(st.characters(codec="utf-8"), max_size=20),
    lambda inner: (
        st.lists(inner, max_size=4)
        | st.dictionaries(st.text(st.characters(codec="utf-8"), max_size=8), inner, max_size=4)
    ),
    max_leaves=12,
)


@given(body=st.dictionaries(st.text(st.characters(codec="utf-8"), max_size=8), json_values, max_size=5))
@settings(max_examples=100, deadline=None)
def test_a_body_read_back_from_any_json_text_hashes_as_it_did(body: dict[str, Any]) -> None:
    once = canonical_json(body)
    pretty = json.dumps(json.loads(once), indent=2, ensure_ascii=True)
    fields = {"id": "leaf_1", "kind": "a", "subject": "s", "actor": "x", "at_us": 1}

    assert leaf_bytes(**fields, body=once) == canonical_json({**fields, "body": body})  # type: ignore[arg-type]  # mixed values
    assert canonical_json(json.loads(pretty)) == once


@pytest.mark.parametrize(
    "entry",
    [
        Entry("", "s", "a"),
        Entry("Upper", "s", "a"),
        Entry("x" * 65, "s", "a"),
        Entry("k", "", "a"),
        Entry("k", "s\n", "a"),
        Entry("k", "s" * 513, "a"),
        Entry("k", "s", ""),
        Entry("k", "s", "a\x00"),
        Entry("k", "s", "a" * 257),
        Entry("k", "s", "a", {"x": float("nan")}),
        Entry("k", "s", "a", {"x": "y" * 40_000}),
        Entry("k", "s", "a", {"x": object()}),
        Entry("k", "s", "a", {}, {"x": "y" * 2**20}),
        Entry("k", "s", "a", {"details": 1}, {"x": 1}),
    ],
)
def test_what_may_not_become_a_leaf_is_refused_whole(
    records: MemoryRecords, ledger: Ledger, entry: Entry
) -> None:
    with pytest.raises(InvalidInput), records.begin() as tx:
        ledger.append_many(tx, [*entries(3), entry])
    assert ledger.sequence() == 0


def test_a_verdict_is_a_leaf_that_commits_to_reasons_and_evidence_without_holding_them(
    records: MemoryRecords, ledger: Ledger
) -> None:
    evidence = Evidence(
        subject="batch:b1",
        checks=(Check(name="range", outcome=Outcome.FAILED, message="value ada@example.org"),),
    )
    verdict = Gate(name="data").judge(evidence)
    with records.begin() as tx:
        leaf_id = ledger.record_verdict(tx, verdict, actor="owner", evidence=evidence)
    leaf = ledger.get(leaf_id)

    assert (leaf.kind, leaf.subject, leaf.body["decision"]) == ("verdict.data", "batch:b1", "reject")
    assert leaf.body["evidence"] == evidence.digest
    assert "ada@" not in json.dumps(leaf.body)
    assert leaf.details is not None
    assert "ada@example.org" in leaf.details["reasons"][0]
    assert leaf.details["evidence"]["checks"][0]["name"] == "range"


def test_evidence_of_another_verdict_is_refused(records: MemoryRecords, ledger: Ledger) -> None:
    verdict = Gate(name="data").judge(Evidence(subject="batch:b1", checks=()))
    with pytest.raises(InvalidInput, match="not that of"), records.begin() as tx:
        ledger.record_verdict(tx, verdict, actor="owner", evidence=Evidence(subject="batch:b2", checks=()))


def test_erased_details_leave_every_proof_valid(
    records: MemoryRecords, ledger: Ledger, keys: FileKeys
) -> None:
    [leaf_id] = append(records, ledger, Entry("a", "s", "owner", {"n": 1}, {"name": "Ada"}))
    before = ledger.prove(leaf_id)
    with records.begin() as tx:
        assert ledger.erase_details(tx, leaf_id)
        assert not ledger.erase_details(tx, leaf_id)

    assert ledger.get(leaf_id).details is None
    assert ledger.prove(leaf_id) == before
    assert ledger.verify().ok
    assert verify_proof(proof_as_json(before), public_key(keys)).body["n"] == 1


def test_changed_details_are_corrupt(records: MemoryRecords, ledger: Ledger) -> None:
    [leaf_id] = append(records, ledger, Entry("a", "s", "owner", {}, {"name": "Ada"}))
    with records.begin() as tx:
        tx.execute(update(t.details).values(body='{"name":"Bob"}'))

    with pytest.raises(Corrupt, match="details"):
        ledger.get(leaf_id)
    with pytest.raises(Corrupt, match="details"):
        ledger.show(details=True)
    assert ledger.show()[0].id == leaf_id


def test_show_filters_and_puts_the_newest_first(
    records: MemoryRecords, ledger: Ledger, clock: ManualClock
) -> None:
    append(records, ledger, *entries(3, kind="verdict.data", actor="ada"))
    ledger.sequence()
    clock.advance(timedelta(hours=1))
    later = clock.now()
    append(records, ledger, *entries(2, kind="verdict.model"), *entries(1, kind="key.made"))

    assert [leaf.seq for leaf in ledger.show()] == [None, None, None, 2, 1, 0]
    assert {leaf.kind for leaf in ledger.show(kind="verdict.")} == {"verdict.data", "verdict.model"}
    assert len(ledger.show(kind="verdict.data")) == 3
    assert len(ledger.show(actor="ada", subject="snapshot:flights@2")) == 1
    assert len(ledger.show(since=later)) == 3
    assert len(ledger.show(limit=4)) == 4
    assert ledger.show(kind="verdict") == ()
    for limit in (0, 10_001):
        with pytest.raises(InvalidInput):
            ledger.show(limit=limit)


def test_a_leaf_is_proved_by_its_id_or_its_subject_and_checked_with_the_json_alone(
    records: MemoryRecords, ledger: Ledger, keys: FileKeys
) -> None:
    append(records, ledger, *entries(700))
    ledger.checkpoint()
    [leaf_id] = append(records, ledger, Entry("model.signed", "model:delay@1", "ada", {"x": 0.1}))
    text = json.dumps(proof_as_json(ledger.prove("model:delay@1")), indent=1)

    leaf = verify_proof(text, public_key(keys))
    assert (leaf.id, leaf.seq, leaf.subject, leaf.body) == (leaf_id, 700, "model:delay@1", {"x": 0.1})
    assert verify_proof(text.encode(), public_key(keys)) == leaf
    assert verify_proof(proof_as_json(ledger.prove(leaf_id)), public_key(keys)) == leaf
    assert verify_proof(proof_as_json(ledger.prove("snapshot:flights@5")), public_key(keys)).seq == 4


def test_a_proof_of_a_pending_leaf_signs_first(
    records: MemoryRecords, ledger: Ledger, keys: FileKeys
) -> None:
    [leaf_id] = append(records, ledger, *entries(1))

    assert verify_proof(proof_as_json(ledger.prove(leaf_id)), public_key(keys)).seq == 0


def test_nothing_is_proved_about_what_is_not_logged(ledger: Ledger) -> None:
    with pytest.raises(NotFound):
        ledger.prove("leaf_unknown")


def changed_proofs(proof: dict[str, Any]) -> Iterator[dict[str, Any]]:
    for name, value in (
        ("id", "x"),
        ("kind", "x"),
        ("subject", "x"),
        ("actor", "x"),
        ("at_us", 1),
        ("body", {"rows": -1}),
    ):
        yield {**proof, "leaf": {**proof["leaf"], name: value}}
    yield {**proof, "index": proof["index"] + 1}
    yield {**proof, "size": proof["size"] + 1}
    yield {**proof, "path": proof["path"][:-1]}
    yield {**proof, "path": proof["path"][::-1]}
    first = proof["path"][0]
    yield {**proof, "path": [("A" if first[0] != "A" else "B") + first[1:], *proof["path"][1:]]}
    # base64 of 32 bytes has two unused bits: even they may not be flipped
    unused = first[:-2] + chr(ord(first[-2]) + 1) + "="
    yield {**proof, "path": [unused, *proof["path"][1:]]}
    yield {**proof, "checkpoint": proof["checkpoint"].replace("\n5\n", "\n6\n")}


def test_no_changed_proof_is_accepted(records: MemoryRecords, ledger: Ledger, keys: FileKeys) -> None:
    append(records, ledger, *entries(5))
    proof = proof_as_json(ledger.prove("snapshot:flights@2"))

    assert verify_proof(proof, public_key(keys)).seq == 1
    for changed in changed_proofs(proof):
        with pytest.raises(Corrupt):
            verify_proof(changed, public_key(keys))


@pytest.mark.parametrize("text", ["", "[]", "{}", '{"format": "taut-ledger-proof/1"}', "\xff"])
def test_what_is_no_proof_is_called_so(keys: FileKeys, text: str) -> None:
    with pytest.raises(InvalidInput):
        verify_proof(text, public_key(keys))


def test_a_proof_of_another_format_is_refused(records: MemoryRecords, ledger: Ledger, keys: FileKeys) -> None:
    append(records, ledger, *entries(1))
    proof = proof_as_json(ledger.prove("snapshot:flights@1"))
    with pytest.raises(InvalidInput, match="not known"):
        verify_proof({**proof, "format": "taut-ledger-proof/2"}, public_key(keys))


def test_a_proof_is_also_told_in_the_c2sp_format(records: MemoryRecords, ledger: Ledger) -> None:
    append(records, ledger, *entries(3))
    proof = ledger.prove("snapshot:flights@3")
    lines = proof_as_text(proof).split("\n")

    assert lines[0] == "c2sp.org/tlog-proof@v1"
    assert lines[2] == "index 2"
    assert "\n".join(lines[lines.index("") + 1 :]) == proof.checkpoint


def test_a_log_is_signed_when_a_checkpoint_covers_every_leaf_with_a_place(
    records: MemoryRecords, ledger: Ledger
) -> None:
    assert ledger.is_signed()
    append(records, ledger, *entries(2))
    ledger.sequence()
    assert not ledger.is_signed()
    ledger.checkpoint()

    assert ledger.is_signed()


def test_a_checkpoint_of_an_unchanged_log_is_the_same_note(records: MemoryRecords, ledger: Ledger) -> None:
    append(records, ledger, *entries(2))
    first = ledger.checkpoint()

    assert ledger.checkpoint() == first
    append(records, ledger, *entries(1))
    assert ledger.checkpoint().size == 3


def test_an_empty_ledger_can_be_signed_and_verified(ledger: Ledger) -> None:
    assert ledger.checkpoint().size == 0
    report = ledger.verify()
    assert (report.ok, report.size, report.checkpoints) == (True, 0, 2)


def test_a_copy_that_cannot_be_written_is_served_next_time_and_others_now(
    records: MemoryRecords, keys: FileKeys, clock: ManualClock, tmp_path: Path
) -> None:
    blocked = tmp_path / "blocked"
    blocked.mkdir()
    (blocked / "inner").write_text("a file where the folder should be")
    good, bad = DirectoryCopy(tmp_path / "good"), DirectoryCopy(blocked / "inner" / "copy")
    ledger = Ledger(records, keys, clock, SequenceIds(), origin=ORIGIN, copies=[bad, good])
    append(records, ledger, *entries(1))

    with pytest.raises(Unavailable, match="mend it"):
        ledger.checkpoint()
    (blocked / "inner").unlink()
    made = ledger.checkpoint()

    assert good.latest() == bad.latest() == made.note


def test_after_a_rotation_old_checkpoints_still_verify(
    records: MemoryRecords, clock: ManualClock, tmp_path: Path
) -> None:
    keys = FileKeys(tmp_path / "keys", random=SystemRandom())
    ledger = Ledger(
        records, keys, clock, SequenceIds(), origin=ORIGIN, copies=[DirectoryCopy(tmp_path / "c")]
    )
    append(records, ledger, *entries(1))
    ledger.checkpoint()
    keys.rotate(purpose="ledger")
    append(records, ledger, *entries(1))
    ledger.checkpoint()

    report = ledger.verify()
    assert (report.ok, report.checkpoints) == (True, 3)


def test_reports_and_checkpoints_as_json_have_the_promised_fields(
    records: MemoryRecords, ledger: Ledger
) -> None:
    [leaf_id] = append(records, ledger, Entry("a", "s", "owner", {}, {"x": 1}))
    checkpoint = checkpoint_as_json(ledger.checkpoint())
    report = report_as_json(ledger.verify())
    leaf = leaf_as_json(ledger.get(leaf_id))

    assert (report["ok"], report["size"], report["root"], report["faults"]) == (
        True,
        1,
        checkpoint["root"],
        [],
    )
    assert report["warnings"] == []
    assert leaf["at"] == "2026-01-01T00:00:00.000000Z"
    assert leaf["details"] == {"x": 1}
    json.dumps([checkpoint, report, leaf])


def test_verification_says_what_it_could_not_have_seen(
    records: MemoryRecords, keys: FileKeys, clock: ManualClock
) -> None:
    ledger = Ledger(records, keys, clock, SequenceIds(), origin=ORIGIN)
    append(records, ledger, *entries(2))
    ledger.sequence()
    append(records, ledger, *entries(1))
    seen: list[float] = []
    report = ledger.verify(progress=seen.append)

    assert report.ok
    assert report.pending == 1
    assert len(report.warnings) == 2
    assert seen == [1.0]


def test_the_log_is_served_as_tiles(records: MemoryRecords, ledger: Ledger) -> None:
    append(records, ledger, *entries(300))
    checkpoint = ledger.checkpoint()
    with records.read() as tx:
        hashes = split(b"".join(tx.execute(FIRST.order_by(t.leaves.c.first_seq)).scalars()))

    assert ledger.resource("checkpoint").decode() == checkpoint.note
    assert ledger.resource("tile/0/000") == b"".join(hashes[:256])
    assert ledger.resource("tile/0/001.p/44") == b"".join(hashes[256:])
    assert ledger.resource("tile/0/001.p/7") == b"".join(hashes[256:263])
    assert len(ledger.resource("tile/1/000.p/1")) == 32
    bundle, entries_ = ledger.resource("tile/entries/001.p/44"), []
    while bundle:
        length = int.from_bytes(bundle[:2], "big")
        entries_.append(leaf_hash(bundle[2 : 2 + length]))
        bundle = bundle[2 + length :]
    assert entries_ == hashes[256:]


@pytest.mark.parametrize(
    "path",
    ["", "tile/0/002", "tile/0/001", "tile/0/001.p/45", "tile/0/001.p/0", "tile/64/000", "tile/0/0", "tile/0/x000/001",
     "tile/entries/009", "tile/0/../000", "tile/0/000.p/256"],
)  # fmt: skip
def test_no_other_resource_is_served(records: MemoryRecords, ledger: Ledger, path: str) -> None:
    append(records, ledger, *entries(300))
    ledger.sequence()
    with pytest.raises(NotFound):
        ledger.resource(path)


@given(st.integers(0, 10**10), st.integers(1, 256), st.sampled_from([0, 1, 5, 63, "entries"]))
def test_paths_of_tiles_are_recognised(index: int, width: int, level: int | str) -> None:
    from taut.trust.ledger.resources import _PATH

    match = _PATH.fullmatch(tile_path(level, index, width=width))
    assert match is not None
    assert int(match["width"] or 256) == width
    assert int(match["index"].replace("x", "").replace("/", "")) == index


@given(steps=st.lists(st.integers(0, 40), max_size=8), leaves_max=st.integers(1, 50))
@settings(max_examples=30, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_any_steps_of_appending_and_sequencing_give_one_verified_log(
    keys: FileKeys, steps: list[int], leaves_max: int
) -> None:
    records = memory_records(metadata)
    try:
        ledger = Ledger(records, keys, ManualClock(), SequenceIds(), origin=ORIGIN, leaves_max=leaves_max)
        for step in steps:
            with records.begin() as tx:
                ledger.append_many(tx, entries(step))
            if step % 3 == 0:
                ledger.sequence()
            if step % 5 == 0:
                ledger.checkpoint()
        ledger.checkpoint()
        report = ledger.verify()
        assert (report.ok, report.size) == (True, sum(steps))
    finally:
        records.close()


def test_a_missing_head_is_found(records: MemoryRecords, ledger: Ledger) -> None:
    append(records, ledger, *entries(3))
    ledger.sequence()
    with records.begin() as tx:
        tx.execute(delete(t.head))

    assert [fault.kind for fault in ledger.verify().faults] == ["leaf_beyond_head"]
