"""What the project is changes in one transaction, through a gate, and can always be returned to."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sqlalchemy import update

from taut.adapters.blobs.local import LocalBlobs
from taut.adapters.keys.file import FileKeys
from taut.core.canonical import digest_bytes
from taut.core.errors import Conflict, Corrupt, Denied, NotFound
from taut.core.evidence import Decision
from taut.core.schema import DType
from taut.lifecycle.plans import PLAN_GATE, Plans, Surroundings, diff, plan_evidence
from taut.lifecycle.plans import metadata as plans_metadata
from taut.lifecycle.plans.plans import BUNDLE_TYPE
from taut.lifecycle.plans.tables import applied
from taut.ports.keys import Keys
from taut.project.archive import write_archive
from taut.project.manifest import (
    ColumnSpec,
    ContractSpec,
    DatasetSpec,
    EndpointSpec,
    FunctionRef,
    Manifest,
    ModelSpec,
    SourceSpec,
    StrategySpec,
)
from taut.testing.records import MemoryRecords, memory_records
from taut.testing.world import ManualClock, SeededRandom, SequenceIds
from taut.trust.ledger import Ledger
from taut.trust.ledger import metadata as ledger_metadata
from taut.trust.lineage import Lineage
from taut.trust.lineage import metadata as lineage_metadata
from taut.trust.signing import sign_statement

NOWHERE = Surroundings()
BUNDLE = write_archive({"project.py": b"def train(ctx): ...\n"})


def manifest(bundle: bytes = BUNDLE, **changes: object) -> Manifest:
    columns = (
        ColumnSpec(name="id", dtype=DType.INT),
        ColumnSpec(name="at", dtype=DType.DATETIME),
        ColumnSpec(name="late", dtype=DType.BOOL),
    )
    orders = DatasetSpec(
        name="orders", source=SourceSpec(url="x.csv"), contract=ContractSpec(columns=columns), event_time="at"
    )
    model = ModelSpec(
        name="late", dataset="orders", function=FunctionRef("project", "train"), label="late", request=("id",)
    )
    whole = Manifest(
        datasets=(orders,), models=(model,), endpoints=(EndpointSpec(name="late", model="late"),),
        bundle=digest_bytes(bundle),
    )  # fmt: skip
    return msgspec.structs.replace(whole, **changes)


class House:
    def __init__(self, root: Path) -> None:
        self.records: MemoryRecords = memory_records(plans_metadata, ledger_metadata, lineage_metadata)
        clock, ids = ManualClock(), SequenceIds()
        self.keys: Keys = FileKeys(root / "keys", random=SeededRandom())
        self.ledger = Ledger(self.records, self.keys, clock, ids, origin="test")
        self.plans = Plans(
            records=self.records, blobs=LocalBlobs(root / "blobs"), ledger=self.ledger, lineage=Lineage(clock),
            clock=clock, ids=ids, keys=self.keys,
        )  # fmt: skip


@pytest.fixture
def house(tmp_path: Path) -> Iterator[House]:
    made = House(tmp_path)
    yield made
    made.records.close()


def reasons(subject: Manifest, bundle: bytes = BUNDLE, **around: object) -> str:
    surroundings = Surroundings(**around)  # type: ignore[arg-type]
    return "; ".join(
        PLAN_GATE.judge(plan_evidence(subject, bundle, diff(manifest(), subject), surroundings)).reasons
    )


def test_a_sound_plan_is_admitted_and_becomes_the_project(house: House) -> None:
    done = house.plans.apply(manifest(), BUNDLE, actor="ada", surroundings=NOWHERE)

    assert done.verdict.admitted
    assert house.plans.current() == manifest()
    assert house.plans.bundle(manifest().bundle) == BUNDLE
    kinds = [leaf.kind for leaf in house.ledger.show()]
    assert sorted(kinds) == ["plan.applied", "verdict.plan"]


def test_applying_the_same_again_changes_nothing(house: House) -> None:
    first = house.plans.apply(manifest(), BUNDLE, actor="ada", surroundings=NOWHERE)
    again = house.plans.apply(manifest(), BUNDLE, actor="ada", surroundings=NOWHERE)

    assert (again.plan, again.changes) == (first.plan, ())
    assert len(house.plans.history()) == 1


def test_a_project_that_was_moved_is_read_in_its_new_folder_and_a_revert_leaves_it_there(
    house: House,
) -> None:
    first = house.plans.apply(manifest(), BUNDLE, actor="ada", surroundings=NOWHERE)
    moved = house.plans.apply(manifest(root="/elsewhere"), BUNDLE, actor="ada", surroundings=NOWHERE)

    assert [field.path for change in moved.changes for field in change.fields] == ["root"]
    assert house.plans.require().root == "/elsewhere"
    assert (
        house.plans.require().digest == manifest().digest
    )  # a signature and a digest say nothing of folders

    house.plans.apply(manifest(root="/elsewhere", endpoints=()), BUNDLE, actor="ada", surroundings=NOWHERE)
    assert first.plan is not None
    house.plans.revert(first.plan, actor="ada", surroundings=NOWHERE)

    assert house.plans.require() == manifest(root="/elsewhere")


def test_what_the_gate_rejects_leaves_the_project_as_it_was_and_a_verdict_in_the_ledger(house: House) -> None:
    house.plans.apply(manifest(), BUNDLE, actor="ada", surroundings=NOWHERE)
    empty = manifest(endpoints=())

    done = house.plans.apply(empty, BUNDLE, actor="ada", surroundings=Surroundings(live=frozenset({"late"})))

    assert (done.plan, done.verdict.decision) == (None, Decision.REJECT)
    assert house.plans.current() == manifest()
    newest = house.ledger.show(kind="verdict.plan", limit=1)[0]
    assert newest.body["decision"] == "reject"


def test_an_endpoint_that_carries_traffic_goes_only_when_that_is_said() -> None:
    gone = manifest(endpoints=())

    assert "--allow-removal" in reasons(gone, live=frozenset({"late"}))
    assert reasons(gone, live=frozenset({"late"}), allow_removal=True) == ""
    assert reasons(gone) == ""


@pytest.mark.parametrize(
    ("broken", "said"),
    [
        (manifest(models=()), "endpoint 'late': no model 'late'"),
        (manifest(datasets=()), "model 'late': no dataset 'orders'"),
        (manifest(datasets=manifest().datasets * 2), "dataset 'orders' is there twice"),
        (manifest(b"other"), "bundle: its bytes have digest"),
    ],
)
def test_a_manifest_that_does_not_hold_together_is_rejected(broken: Manifest, said: str) -> None:
    assert said in reasons(broken)


def test_a_function_that_the_bundle_lacks_is_named() -> None:
    other = write_archive({"elsewhere.py": b""})

    assert "function 'train' of module 'project', which the bundle lacks" in reasons(manifest(other), other)


def test_a_bundle_that_cannot_be_opened_rejects() -> None:
    assert "bundle: errored: corrupt" in reasons(manifest(b"no zip"), b"no zip")


def test_production_wants_people_steps_and_records() -> None:
    risky = msgspec.structs.replace(manifest().models[0], risk="high")
    production = manifest(environment="production", models=(risky,))
    careful = manifest(
        environment="production",
        models=(msgspec.structs.replace(risky, approvals=1),),
        endpoints=(
            EndpointSpec(name="late", model="late", release=StrategySpec(kind="canary", steps=(0.1,)), audit="power-safe"),
        ),
    )  # fmt: skip

    said = reasons(production)
    assert "taut.approval(1)" in said
    assert "taut.Canary" in said
    assert "power-safe" in said
    assert reasons(careful) == ""


def test_two_operators_at_once_cannot_overwrite_each_other(house: House) -> None:
    base = house.plans.plan(manifest(), BUNDLE, NOWHERE).base
    house.plans.apply(manifest(project="one"), BUNDLE, actor="ada", surroundings=NOWHERE, base=base)

    with pytest.raises(Conflict, match="plan again"):
        house.plans.apply(manifest(project="two"), BUNDLE, actor="bob", surroundings=NOWHERE, base=base)

    assert house.plans.require().project == "one"


def test_every_plan_can_be_returned_to_code_and_all(house: House) -> None:
    other = write_archive({"project.py": b"def train(ctx): return 2\n"})
    first = house.plans.apply(manifest(), BUNDLE, actor="ada", surroundings=NOWHERE)
    house.plans.apply(manifest(other), other, actor="ada", surroundings=NOWHERE)

    back = house.plans.revert("1", actor="bob", surroundings=NOWHERE)

    assert house.plans.current() == manifest()
    assert [plan.reverts_to for plan in house.plans.history()] == [first.plan, None, None]
    assert house.plans.show(str(back.plan))[0].number == 3
    with pytest.raises(NotFound, match="taut plan history"):
        house.plans.revert("9", actor="bob", surroundings=NOWHERE)


def test_a_bundle_that_control_did_not_sign_is_refused(house: House) -> None:
    house.plans.apply(manifest(), BUNDLE, actor="ada", surroundings=NOWHERE)
    other = digest_bytes(b"other")
    with pytest.raises(NotFound, match="taut apply"):
        house.plans.bundle(other)

    with house.records.begin() as tx:
        tx.execute(update(applied).values(bundle=other))

    with pytest.raises(Corrupt, match="about other code"):
        house.plans.bundle(other)


def test_a_signature_of_a_foreign_key_is_refused(house: House, tmp_path: Path) -> None:
    house.plans.apply(manifest(), BUNDLE, actor="ada", surroundings=NOWHERE)
    foreign = FileKeys(tmp_path / "foreign", random=SeededRandom(7))
    statement = sign_statement(
        foreign, purpose="bundle", payload_type=BUNDLE_TYPE, payload={"bundle": manifest().bundle}
    )
    with house.records.begin() as tx:
        tx.execute(update(applied).values(statement=statement.to_json().decode()))

    with pytest.raises(Denied, match="no trusted key"):
        house.plans.bundle(manifest().bundle)


def test_nothing_is_applied_before_the_first_plan(house: House) -> None:
    assert house.plans.current() is None
    assert house.plans.environment() == "development"
    with pytest.raises(NotFound, match="taut apply"):
        house.plans.require()


def test_a_change_is_shown_field_by_field_and_columns_by_name() -> None:
    spec = manifest().datasets[0]
    columns = (
        msgspec.structs.replace(spec.contract.columns[0], minimum=1), *spec.contract.columns[1:],
        ColumnSpec(name="new", dtype=DType.STRING),
    )  # fmt: skip
    changed = msgspec.structs.replace(spec, contract=msgspec.structs.replace(spec.contract, columns=columns))

    (change,) = diff(manifest(), manifest(datasets=(changed,)))

    assert (change.action, change.kind, change.name) == ("change", "dataset", "orders")
    seen = {field.path: (field.before, field.after is None) for field in change.fields}
    assert seen == {"contract.columns.id.minimum": (None, False), "contract.columns.new": (None, False)}


names = st.lists(st.sampled_from(["a", "b", "c", "d"]), unique=True, max_size=4)


@settings(max_examples=50, deadline=None)
@given(names, names)
def test_a_diff_names_exactly_what_is_added_and_removed(before: list[str], after: list[str]) -> None:
    def of(these: list[str]) -> Manifest:
        one = manifest().datasets[0]
        return manifest(datasets=tuple(msgspec.structs.replace(one, name=name) for name in sorted(these)))

    changes = diff(of(before), of(after))

    assert {change.name for change in changes if change.action == "add"} == set(after) - set(before)
    assert {change.name for change in changes if change.action == "remove"} == set(before) - set(after)
    assert not [change for change in changes if change.action == "change"]
    assert diff(of(after), of(after)) == ()
