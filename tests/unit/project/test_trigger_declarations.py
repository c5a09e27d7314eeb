"""Triggers as builders write them, and what is refused before anything is applied."""

from __future__ import annotations

import msgspec
import pytest

import taut
from taut.core.errors import InvalidInput
from taut.project.manifest import FunctionRef, ModelSpec, RetrainingSpec, TriggerSpec
from taut.project.triggers import leaves, trigger_faults


def model(*triggers: TriggerSpec, rules: RetrainingSpec | None = None) -> ModelSpec:
    return ModelSpec(
        name="delay", dataset="flights", function=FunctionRef("taut_project", "train"), label="late", request=("carrier",),
        triggers=triggers, retraining=rules or RetrainingSpec(),
    )  # fmt: skip


def test_triggers_survive_being_written_and_read() -> None:
    both = taut.all_of(
        taut.cron("0 3 * * *", zone="Europe/Zurich"), taut.any_of(taut.on_drift(), taut.on_quality())
    )
    spec = model(both, taut.on_feedback(500), rules=taut.Retraining(window="22:00-06:00", contributor="carrier", share=0.3))  # fmt: skip
    assert msgspec.json.decode(msgspec.json.encode(spec), type=ModelSpec) == spec
    assert [one.kind for one in leaves(spec.triggers)] == ["cron", "drift", "quality", "feedback"]


@pytest.mark.parametrize(
    ("declare", "said"),
    [
        (lambda: taut.on_feedback(0), "outcomes"),
        (lambda: taut.all_of(taut.on_drift()), "two or more"),
        (lambda: taut.any_of(taut.on_drift(), "nightly"), "nightly"),
        (lambda: taut.cron("0 3 * * *", zone="Mars"), "Mars"),
        (lambda: taut.cron("0 0 30 2 *"), "never due"),
        (lambda: taut.Retraining(window="10pm-6am"), "22:00-06:00"),
        (lambda: taut.Retraining(share=0), "share"),
        (lambda: taut.Retraining(settle="soon"), "settle"),
        (lambda: taut.Retraining(zone="Mars"), "Mars"),
        (lambda: taut.Retraining(debounce="5m"), "debounce"),
    ],
)
def test_what_cannot_be_meant_is_refused(declare: object, said: str) -> None:
    with pytest.raises(InvalidInput, match=said):
        declare()  # type: ignore[operator]


def test_the_plan_gate_finds_what_a_hand_made_manifest_holds() -> None:
    inner = TriggerSpec(kind="any", of=(TriggerSpec(kind="new_data", dataset="flight"),))
    bad = model(inner, TriggerSpec(kind="cron", schedule="x"), rules=RetrainingSpec(contributor="airline", zone="Mars", window="never"))  # fmt: skip
    said = "; ".join(trigger_faults(bad, {"flights"}, {}))
    for one in ("dataset 'flight'", "cron: 'x'", "'airline'", "Mars", "never"):
        assert one in said


def test_a_nest_too_deep_is_refused() -> None:
    deep = taut.on_drift()
    for _ in range(4):
        deep = TriggerSpec(kind="any", of=(deep, deep))
    with pytest.raises(InvalidInput, match="nested"):
        tuple(leaves([deep]))
