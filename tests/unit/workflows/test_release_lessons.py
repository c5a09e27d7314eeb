"""What outcomes teach of a release: of the version that gave the answer, under the weight of then, of each caller once."""

from __future__ import annotations

from typing import Any

import pytest
from msgspec import structs

from taut.lifecycle.monitoring.outcomes import Outcome
from taut.serving.predictions import PredictionRecord, RecordHead
from taut.serving.trials import lots_of
from taut.testing.serving import matrix_signature
from taut.workflows.monitor.lessons import lessons_of

VALUES = structs.replace(matrix_signature(3), output="value", classes=())
MINUTE_US = 60_000_000


def record(**head: Any) -> PredictionRecord:
    of = {
        "trial": "rel_2",
        "stage": 1,
        "release": "rel_2",
        "share": 0.999,
        **head,
    }  # of so large a part everybody is drawn to it
    return PredictionRecord(
        request_id="req_1", time_us=7 * MINUTE_US + 5, principal="ann", subject="s1", status=200, guard_us=1,
        head=RecordHead(endpoint="late", version="late@2", epoch=1, columns=(), **of),
    )  # fmt: skip


def outcome(label: Any, *, wrong: bool = True, truth: int = -1) -> Outcome:
    return Outcome(
        request_id="req_1", row=0, endpoint="late", version="late@2", label=label, wrong=wrong, cell=0, truth=truth,
        principal="ann", at_us=0,
    )  # fmt: skip


def test_an_outcome_counts_for_the_version_that_answered_and_the_step_of_then() -> None:
    quality, brought = lessons_of(record(), outcome(12.5), VALUES)
    mark = lots_of("rel_2", "ann\ns1")[1]
    assert quality == ("rel_2", 1, "quality", mark, 7, True, 1.0)
    assert brought == ("rel_2", 1, "outcome", mark, 0, True, 12.5)
    live, _ = lessons_of(record(release="rel_1"), outcome(12.5, wrong=False), VALUES)
    assert (live.release, live.canary, live.amount) == ("rel_2", False, 0.0)


def test_answers_beside_which_nothing_was_tried_teach_nothing() -> None:
    assert not list(lessons_of(record(trial=""), outcome(1.0), VALUES))


@pytest.mark.parametrize(("truth", "brought"), [(1, [1.0]), (0, [0.0]), (-1, [])])
def test_of_two_classes_the_second_is_a_conversion_and_of_more_there_is_none(
    truth: int, brought: list[float]
) -> None:
    classes = structs.replace(VALUES, output="probability", classes=("no", "yes"))
    found = list(lessons_of(record(), outcome("yes", truth=truth), classes))
    assert [one.amount for one in found if one.guardrail == "outcome"] == brought


def test_who_asked_a_version_by_its_name_and_was_not_drawn_to_it_teaches_nothing() -> None:
    assert not list(lessons_of(record(share=0.001), outcome(1.0), VALUES))
    assert not list(lessons_of(record(release="rel_1", share=0.001), outcome(1.0), VALUES))
