"""The score is the least of four sums, and each full point names a test of ours that sees the alarm go off."""

from __future__ import annotations

from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import msgspec
import pytest

import taut
from taut.core.evidence import Check, Evidence, Outcome
from taut.core.refs import VersionRef
from taut.core.schema import Column, DType, ModelInput, ModelSignature
from taut.lifecycle.registry import Approval, Candidate, File, ModelState, VersionInfo
from taut.project.responses import DrillSpec
from taut.workflows.testscore import RULES, SECTIONS, Item, Seen, score_of

NOW = datetime(2026, 1, 1, tzinfo=UTC)
ROOT = Path(__file__).parents[3]
SIGNATURE = ModelSignature(
    request=(Column("x", DType.FLOAT),), inputs=(ModelInput(column=Column("x", DType.FLOAT)),), output="value"
)
GATES = (taut.slices("x", metric="rmse", drop=1.0), taut.simpler("rmse"), taut.no_costlier())


def seen(checks: tuple[Check, ...] = (), facts: dict[str, Any] | None = None, **changes: Any) -> Seen:
    digest = "sha256:" + "0" * 64
    candidate = Candidate(
        model="late", run="run_1", author="ann", files={"model.onnx": File(digest=digest, size_bytes=1)}, signature=SIGNATURE,
        label="y", metrics={}, snapshots={}, bundle=digest, lock=digest, data=digest, seed=0, rules=GATES,
    )  # fmt: skip
    evidence = Evidence(subject="model:late@1", checks=checks, facts=facts or {})
    info = VersionInfo(
        ref=VersionRef("late", 1), state=ModelState.APPROVED, candidate=candidate, created_at=NOW, evidence=evidence,
        approvals=changes.pop("approvals", ()),
    )  # fmt: skip
    return Seen(info=info, **changes)


def item(found: Seen, name: str) -> Item:
    return next(one for one in score_of(found).items if one.name == name)


def test_there_are_seven_tests_in_each_of_four_sections() -> None:
    assert [sum(rule.section == name for rule in RULES) for name in SECTIONS] == [7, 7, 7, 7]
    assert len({rule.name for rule in RULES}) == 28


@pytest.mark.parametrize("proof", sorted({rule.proof for rule in RULES if rule.proof}))
def test_each_alarm_that_earns_a_point_is_proved_by_a_test_that_exists(proof: str) -> None:
    path, _, name = proof.partition("::")

    assert f"def {name}(" in (ROOT / path).read_text()


def test_nothing_is_given_where_nothing_is_known_and_the_score_is_the_least_of_the_sums() -> None:
    card = score_of(seen())

    assert card.score == min(card.sections.values()) == 0.0
    assert all(one.points <= 0.5 for one in card.items)


def test_a_declared_check_that_passed_is_a_point_and_one_that_saw_nothing_is_not() -> None:
    passed = Check(name=GATES[0].name, outcome=Outcome.PASSED, message="fine", observed=0.1)
    held = msgspec.structs.replace(passed, outcome=Outcome.HELD)
    vacuous = Check(name=GATES[2].name, outcome=Outcome.PASSED, message="nothing is live yet")

    assert item(seen((passed,)), "quality on slices").points == 1.0
    assert item(seen((held,)), "quality on slices").points == 0.0
    assert item(seen((vacuous,)), "no feature costs too much").points == 0.5


def test_an_input_of_no_use_is_named() -> None:
    useless = item(
        seen(facts={"importance x": 0.2, "importance noise": -0.001}), "all features are beneficial"
    )
    useful = item(seen(facts={"importance x": 0.2}), "all features are beneficial")

    assert (useless.points, useful.points) == (0.5, 1.0)
    assert "noise" in useless.said


def test_a_review_by_the_author_counts_half() -> None:
    def points(*, own: bool) -> float:
        word = Approval(id="a", principal="ann", approved=True, reason="", at=NOW, self_approved=own)
        return item(seen(approvals=(word,)), "specs are reviewed").points

    assert (points(own=True), points(own=False)) == (0.5, 1.0)


def test_a_test_without_a_proof_never_earns_more_than_half() -> None:
    unproved = [rule.name for rule in RULES if not rule.proof]

    assert {item(seen(settings=50), name).points for name in unproved} <= {0.0, 0.5}
    assert item(seen(settings=50), "hyperparameters are tuned").points == 0.5


def test_a_drill_that_was_rolled_back_in_time_proves_that_serving_can_be() -> None:
    drill = DrillSpec(name="late-fails", endpoint="late", failing=1.0, rollback_within="2m")
    noticed = msgspec.structs.replace(drill, rollback_within=None)

    assert item(seen(drills=(drill,)), "serving can be rolled back").points == 1.0
    assert item(seen(drills=(noticed,)), "serving can be rolled back").points == 0.0
