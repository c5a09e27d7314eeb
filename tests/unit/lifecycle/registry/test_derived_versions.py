"""Versions that were made from another one: numbered, signed and judged as any, and bounded in what they may lose."""

from __future__ import annotations

from typing import Any

import msgspec
import pytest
from registry_room import House, as_onnx, candidate, fitted, gate_inputs

from taut.core.evidence import Decision, Outcome
from taut.core.refs import Kind, Ref
from taut.lifecycle.registry import Candidate, Derived, ModelState, VersionInfo
from taut.trust.lineage import lineage_as_json


def variant(house: House, model: Any, *, loss: float = 0.005, name: str = "int8-static") -> Candidate:
    """A candidate that says it is a form of delay@1."""
    allowed = dict.fromkeys(
        ("auc", "accuracy", "f1", "average_precision", "logloss", "brier", "calibration_error"), loss
    )
    made = Derived(
        origin="delay@1", name=name, what="a smaller form", tolerances=allowed, facts={"gain": "70% smaller"}
    )
    return candidate(house, model, variant=made)


def judged(house: House, entered: Candidate, model: Any) -> VersionInfo:
    info = house.registry.register(entered)
    return house.registry.judge(info.ref, gate_inputs(model), actor="system")


def quality(info: VersionInfo) -> Any:
    assert info.evidence is not None
    return next(check for check in info.evidence.checks if check.name == "quality")


def test_a_variant_is_a_version_beside_that_of_its_run(house: House, model: Any) -> None:
    first = judged(house, candidate(house, model), model)
    second = house.registry.register(variant(house, model))
    again = house.registry.register(variant(house, model))
    third = house.registry.register(variant(house, model, name="graph"))

    assert [str(item.ref) for item in (first, second, again, third)] == [
        "delay@1",
        "delay@2",
        "delay@2",
        "delay@3",
    ]
    assert house.registry.of_run("run_1") == first.ref
    assert house.registry.of_run("run_1", variant="int8-static") == second.ref
    assert house.registry.of_run("run_1", variant="int8-dynamic") is None
    signed = house.registry.load(second.ref).manifest
    assert signed["variant"]["origin"] == "delay@1"
    assert signed["variant"]["tolerances"]["auc"] == 0.005
    assert "variant" not in house.registry.load(first.ref).manifest


def test_lineage_and_card_say_what_a_variant_was_made_from(house: House, model: Any) -> None:
    judged(house, candidate(house, model), model)
    info = judged(house, variant(house, model), model)

    with house.records.read() as tx:
        tree = lineage_as_json(house.lineage.why(tx, Ref(Kind.MODEL, str(info.ref))))
    step = tree["made_by"][0]
    assert step["activity"] == "optimise"
    assert {item["ref"] for item in step["inputs"]} == {"run:run_1", "model:delay@1"}
    markdown, document = house.registry.card(info.ref)
    assert (
        "Made from **delay@1** by `taut model optimise`: a smaller form (`int8-static`): 70% smaller"
        in markdown
    )
    assert document["variant"]["origin"] == "delay@1"


def test_a_variant_that_is_as_good_is_admitted_and_needs_the_same_approvals(house: House, model: Any) -> None:
    judged(house, candidate(house, model), model)

    info = judged(house, variant(house, model), model)

    assert info.verdict is not None
    assert info.verdict.decision is Decision.ADMIT
    assert (info.state, info.approvals_needed) == (ModelState.CANDIDATE, 1)
    assert quality(info).outcome is Outcome.PASSED


def test_a_variant_that_is_worse_is_rejected_with_its_figures(house: House, model: Any) -> None:
    judged(house, candidate(house, model), model)
    poorer = fitted(trees=2)

    info = judged(house, variant(house, poorer), poorer)

    assert info.state is ModelState.REJECTED
    check = quality(info)
    assert check.outcome is Outcome.FAILED
    assert "against delay@1" in check.message
    assert "logloss is" in check.message
    assert "worse than" in check.message
    assert "(0.005 allowed)" in check.message


def test_the_same_loss_is_admitted_where_it_is_allowed(house: House, model: Any) -> None:
    """The guard is the tolerance: the very model that it rejects passes with a wide one."""
    judged(house, candidate(house, model), model)
    poorer = fitted(trees=2)

    info = judged(house, variant(house, poorer, loss=0.5), poorer)

    assert quality(info).outcome is Outcome.PASSED


def test_a_metric_without_a_tolerance_may_not_get_worse_at_all(house: House, model: Any) -> None:
    judged(house, candidate(house, model), model)
    poorer = fitted(trees=19)
    entered = variant(house, poorer)
    assert entered.variant is not None
    bare = msgspec.structs.replace(entered, variant=msgspec.structs.replace(entered.variant, tolerances={}))

    assert quality(judged(house, bare, poorer)).outcome is Outcome.FAILED


def test_a_variant_whose_origin_is_gone_is_not_admitted(house: House, model: Any) -> None:
    first = judged(house, candidate(house, model, data=as_onnx(fitted(trees=21))), model)
    entered = variant(house, model)
    house.blobs.delete(first.candidate.files["model.onnx"].digest)

    info = judged(house, entered, model)

    assert quality(info).outcome is Outcome.ERRORED
    assert info.state is ModelState.REJECTED


@pytest.mark.parametrize("missing", ["quality"])
def test_the_gate_of_a_variant_requires_the_check(house: House, model: Any, missing: str) -> None:
    from taut.lifecycle.registry.gate import gate_for

    assert missing in gate_for(variant(house, model)).required
    assert missing not in gate_for(candidate(house, model)).required
