"""Versions: signed when they enter, verified at every load, approved by people who did not train them."""

from __future__ import annotations

from typing import Any

import msgspec
import pytest
from registry_room import ANN, BEN, CLEO, DAN, House, candidate, gate_inputs
from sqlalchemy import update

from taut.core.canonical import canonical_json
from taut.core.errors import Conflict, Corrupt, Denied, InvalidInput, NotFound
from taut.core.evidence import Check, Outcome
from taut.core.refs import Kind, Ref, VersionRef
from taut.lifecycle.registry import ModelState, VersionInfo, verify_export
from taut.lifecycle.registry import tables as t
from taut.trust.signing import SignedStatement


def entered(house: House, model: Any, *, run: str = "run_1", **changes: Any) -> VersionInfo:
    info = house.registry.register(candidate(house, model, run=run, **changes))
    return house.registry.judge(info.ref, gate_inputs(model), actor="system")


def flip(path: Any) -> None:
    path.chmod(0o600)
    data = bytearray(path.read_bytes())
    data[len(data) // 3] ^= 0x10
    path.write_bytes(data)


def test_versions_count_up_and_a_run_is_registered_once(house: House, model: Any) -> None:
    first = house.registry.register(candidate(house, model))
    again = house.registry.register(candidate(house, model))
    second = house.registry.register(candidate(house, model, run="run_2"))

    assert (str(first.ref), again.ref, str(second.ref)) == ("delay@1", first.ref, "delay@2")
    assert house.registry.of_run("run_2") == second.ref
    assert [item.ref for item in house.registry.list(model="delay")] == [second.ref, first.ref]
    with house.records.read() as tx:
        assert "run_1" in str(house.lineage.why(tx, Ref(Kind.MODEL, "delay@1")))


def test_a_candidate_without_its_file_is_refused(house: House, model: Any) -> None:
    whole = candidate(house, model)

    with pytest.raises(InvalidInput, match=r"left no model\.onnx"):
        house.registry.register(msgspec.structs.replace(whole, files={}))
    house.blobs.delete(whole.files["model.onnx"].digest)
    with pytest.raises(NotFound, match="is not stored"):
        house.registry.register(whole)


def test_a_load_returns_the_very_bytes_and_the_signed_manifest(house: House, model: Any) -> None:
    info = entered(house, model)

    loaded = house.registry.load(info.ref)

    assert loaded.model == house.blobs.read(info.candidate.files["model.onnx"].digest)
    assert loaded.manifest["run"] == "run_1"
    assert loaded.manifest["snapshots"] == {"flights": "flights@3"}
    assert house.registry.signature(info.ref) == info.candidate.signature
    assert house.registry.verify(info.ref)["ok"] is True
    with house.registry.files(info.ref) as files:
        assert files["model.onnx"].read_bytes() == loaded.model


def test_a_flipped_byte_in_the_file_is_corrupt_at_load(house: House, model: Any) -> None:
    info = entered(house, model)
    flip(house.blob(info.candidate.files["model.onnx"].digest))

    with pytest.raises(Corrupt):
        house.registry.load(info.ref)


@pytest.mark.parametrize("at", [0.1, 0.3, 0.5, 0.7, 0.9])
def test_a_flipped_byte_anywhere_in_the_manifest_is_found(house: House, model: Any, at: float) -> None:
    info = entered(house, model)
    with house.records.read() as tx:
        text = str(tx.execute(t.versions.select()).one().statement)
    place = int(len(text) * at)
    changed = text[:place] + ("A" if text[place] != "A" else "B") + text[place + 1 :]
    with house.records.begin() as tx:
        tx.execute(update(t.versions).values(statement=changed))

    with pytest.raises((Corrupt, Denied)):
        house.registry.load(info.ref)


def test_a_manifest_of_another_version_is_no_manifest(house: House, model: Any) -> None:
    entered(house, model)
    second = entered(house, model, run="run_2")
    with house.records.begin() as tx:
        first = tx.execute(t.versions.select().where(t.versions.c.number == 1)).one().statement
        tx.execute(update(t.versions).where(t.versions.c.number == 2).values(statement=first))

    with pytest.raises(Corrupt, match="speaks of delay@1"):
        house.registry.load(second.ref)


def test_a_manifest_signed_by_an_unknown_key_is_denied(house: House, model: Any) -> None:
    info = entered(house, model)
    with house.records.begin() as tx:
        row = tx.execute(t.versions.select()).one()
        statement = SignedStatement.from_json(row.statement)
        stranger = msgspec.structs.replace(statement.signatures[0], keyid="0" * 16)
        forged = msgspec.structs.replace(statement, signatures=(stranger,))
        tx.execute(update(t.versions).values(statement=forged.to_json().decode()))

    with pytest.raises(Denied, match="no trusted key"):
        house.registry.load(info.ref)


def test_a_version_signed_before_a_rotation_still_loads(house: House, model: Any) -> None:
    info = entered(house, model)
    house.keys.rotate(purpose="model")

    assert house.registry.load(info.ref).ref == info.ref


def test_the_author_may_not_approve_and_another_person_may(house: House, model: Any) -> None:
    info = entered(house, model)

    with pytest.raises(Denied, match="ann trained delay@1"):
        house.registry.approve(info.ref, ANN, reason="mine")
    with pytest.raises(Denied, match="roles admin, approver"):
        house.registry.approve(info.ref, DAN, reason="looks fine")
    after = house.registry.approve(info.ref, BEN, reason="figures hold")

    assert after.state is ModelState.APPROVED
    assert after.releasable
    assert [(item.principal, item.self_approved) for item in after.approvals] == [("ben", False)]
    with house.records.read() as tx:
        assert house.lineage.downstream(tx, Ref(Kind.MODEL, "delay@1"))


def test_alone_the_author_may_approve_and_the_ledger_says_so(house: House, model: Any) -> None:
    info = entered(house, model)

    after = house.registry.approve(info.ref, ANN, reason="I am alone", single_user=True)

    assert after.state is ModelState.APPROVED
    assert after.approvals[0].self_approved
    house.ledger.sequence()
    assert "self-approved, single user" in str(house.ledger.show(limit=10))
    assert "self-approved, single user" in house.registry.history(info.ref)[-1].reason


def test_approvals_count_by_person(house: House, model: Any) -> None:
    info = entered(house, model, approvals=2)

    one = house.registry.approve(info.ref, BEN, reason="yes")
    with pytest.raises(Conflict, match="ben has spoken"):
        house.registry.approve(info.ref, BEN, reason="yes, yes")
    two = house.registry.approve(info.ref, CLEO, reason="yes")

    assert (one.state, two.state) == (ModelState.CANDIDATE, ModelState.APPROVED)


def test_a_version_that_was_not_judged_or_was_rejected_cannot_be_approved(house: House, model: Any) -> None:
    unjudged = house.registry.register(candidate(house, model))
    rejected = entered(house, model, run="run_2", metrics={"auc": 0.999})

    with pytest.raises(Conflict, match="not judged yet"):
        house.registry.approve(unjudged.ref, BEN, reason="yes")
    with pytest.raises(Conflict, match=r"is rejected: .*train a new one"):
        house.registry.approve(rejected.ref, BEN, reason="yes")


def test_a_held_version_needs_a_person_even_where_no_approval_is_declared(house: House, model: Any) -> None:
    names = ("own_metrics", "conversion")
    checks = (
        Check(name="leakage", outcome=Outcome.HELD),
        *(Check(name=n, outcome=Outcome.PASSED) for n in names),
    )

    held = entered(house, model, approvals=0, checks=checks)

    assert held.state is ModelState.HELD
    assert house.registry.approve(held.ref, BEN, reason="known at departure").state is ModelState.APPROVED


def test_one_no_is_enough_and_the_author_may_say_it(house: House, model: Any) -> None:
    info = entered(house, model)

    after = house.registry.reject(info.ref, ANN, reason="wrong label")

    assert after.state is ModelState.REJECTED
    with pytest.raises(Conflict):
        house.registry.approve(info.ref, BEN, reason="yes")
    with pytest.raises(Conflict):
        house.registry.judge(info.ref, gate_inputs(model), actor="system")


def test_only_approved_versions_serve_and_retired_ones_never_again(house: House, model: Any) -> None:
    info = entered(house, model)
    with pytest.raises(Denied, match="is candidate"):
        house.registry.load(info.ref, to_serve=True)
    house.registry.approve(info.ref, BEN, reason="yes")
    assert house.registry.load(info.ref, to_serve=True)

    retired = house.registry.retire(info.ref, actor="ben", reason="replaced")

    assert retired.state is ModelState.RETIRED
    with pytest.raises(Denied, match="is retired"):
        house.registry.load(info.ref, to_serve=True)
    with house.records.begin() as tx, pytest.raises(Conflict, match="is retired"):
        house.registry.mark_answering(tx, "delay", {info.ref}, actor="ben")


def test_one_version_is_live_at_a_time_and_a_live_one_is_not_retired(house: House, model: Any) -> None:
    one = entered(house, model, approvals=0)
    two = entered(house, model, run="run_2", approvals=0)
    for ref in (one.ref, two.ref):
        with house.records.begin() as tx:
            house.registry.mark_answering(tx, "delay", {ref}, actor="ben")

    assert house.registry.show(one.ref).state is ModelState.APPROVED
    assert house.registry.show(two.ref).state is ModelState.LIVE
    with pytest.raises(Conflict, match="release another version first"):
        house.registry.retire(two.ref, actor="ben", reason="old")
    assert [change.what for change in house.registry.history(one.ref)] == [
        "candidate",
        "approved",
        "live",
        "approved",
    ]


def test_a_version_stays_live_while_any_endpoint_serves_it(house: House, model: Any) -> None:
    one = entered(house, model, approvals=0)
    two = entered(house, model, run="run_2", approvals=0)
    with house.records.begin() as tx:
        house.registry.mark_answering(tx, "delay", {one.ref, two.ref}, actor="ben")

    assert house.registry.show(one.ref).state is ModelState.LIVE
    with pytest.raises(Conflict, match="is live"):
        house.registry.retire(one.ref, actor="ben", reason="old")
    with house.records.begin() as tx:
        house.registry.mark_answering(tx, "delay", set(), actor="ben")
    assert house.registry.show(two.ref).state is ModelState.APPROVED


def test_an_alias_names_a_version_and_keeps_its_history(house: House, model: Any) -> None:
    one, two = entered(house, model), entered(house, model, run="run_2")
    house.registry.set_alias(one.ref, "champion", actor="ben")
    house.registry.set_alias(two.ref, "champion", actor="cleo")

    assert house.registry.resolve("delay@champion") == two.ref
    assert house.registry.resolve("champion", model="delay") == two.ref
    assert house.registry.resolve("delay@1") == one.ref
    assert house.registry.show(two.ref).aliases == ("champion",)
    assert [(item.what, item.actor) for item in house.registry.alias_history("delay", "champion")] == [
        ("delay@1", "ben"), ("delay@2", "cleo"),
    ]  # fmt: skip
    house.registry.drop_alias("delay", "champion", actor="ben")
    with pytest.raises(NotFound, match="champion"):
        house.registry.resolve("delay@champion")


def test_the_card_says_what_it_is_from_what_how_good_and_who_agreed(house: House, model: Any) -> None:
    info = entered(house, model, description="Late or not.")
    house.registry.approve(info.ref, BEN, reason="figures hold")

    markdown, found = house.registry.card(info.ref)

    for part in (
        "# delay@1",
        "Late or not.",
        "flights@3",
        "| auc |",
        "ben: yes",
        "figures hold",
        "Verdict: **admit**",
    ):
        assert part in markdown
    assert found["metrics"] == info.candidate.metrics
    assert found["limits"]
    assert canonical_json(found)


def test_an_export_verifies_with_the_public_keys_alone(house: House, model: Any) -> None:
    info = entered(house, model)
    folder = house.folder / "export"

    names = house.registry.export(info.ref, folder)

    public = house.keys.public_keys(purpose="model")
    assert set(names) == {"model.onnx", "manifest.json", "card.md", "card.json"}
    assert verify_export(folder, public).ref == info.ref
    with pytest.raises(Conflict, match="not empty"):
        house.registry.export(info.ref, folder)
    with pytest.raises(Denied):
        verify_export(folder, house.keys.public_keys(purpose="bundle"))
    (folder / "setup.py").write_text("import os")
    with pytest.raises(Corrupt, match=r"setup\.py"):
        verify_export(folder, public)
    (folder / "setup.py").unlink()
    flip(folder / "model.onnx")
    with pytest.raises(Corrupt, match=r"model\.onnx"):
        verify_export(folder, public)


def test_an_unknown_version_says_how_to_find_one(house: House) -> None:
    with pytest.raises(NotFound, match="taut model list"):
        house.registry.show(VersionRef("delay", 7))


def test_every_verdict_and_word_is_a_leaf_of_a_ledger_that_verifies(house: House, model: Any) -> None:
    info = entered(house, model)
    house.registry.approve(info.ref, BEN, reason="yes")
    house.registry.set_alias(info.ref, "champion", actor="ben")

    house.ledger.sequence()
    house.ledger.checkpoint()

    report = house.ledger.verify()
    assert report.ok
    assert report.size == 4
