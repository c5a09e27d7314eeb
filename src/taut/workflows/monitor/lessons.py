"""What outcomes teach of a release that is under way."""

from __future__ import annotations

from collections.abc import Iterator

from taut.core.schema import ModelSignature
from taut.lifecycle.monitoring.outcomes import Outcome
from taut.lifecycle.release import Lesson
from taut.serving.predictions import PredictionRecord
from taut.serving.trials import Side, first_of, lots_of, unit_of

_MINUTE_US = 60_000_000


def lessons_of(record: PredictionRecord, outcome: Outcome, signature: ModelSignature) -> Iterator[Lesson]:
    """Yield what the first outcome of an answer says of the version that gave it beside the live one.

    Nothing where none was tried, and of an answer that was asked of a version by its name: whom lots did not draw proves nothing.
    Whether it was wrong, of each caller once a minute. What it brought, of each caller once a step: of a classifier with two classes
    1 where the second came true, of a regressor the outcome itself.
    """
    head = record.head
    canary = head.release == head.trial
    weight = head.share if canary else 1.0 - head.share
    if not head.trial or not 0.0 < weight < 1.0:
        return
    lots, mark = lots_of(head.trial, unit_of(record.principal, record.subject))
    sides = Side(0, 1.0 - weight, None, None), Side(1, weight, None, None)
    if (first_of(lots, sides).slot == 1) is not canary:
        return
    yield Lesson(
        head.trial, head.stage, "quality", mark, record.time_us // _MINUTE_US, canary, float(outcome.wrong)
    )
    amount = _brought(outcome, signature)
    if amount is not None:
        yield Lesson(head.trial, head.stage, "outcome", mark, 0, canary, amount)


def _brought(outcome: Outcome, signature: ModelSignature) -> float | None:
    if signature.output != "value":
        return float(outcome.truth) if outcome.truth >= 0 else None
    return float(outcome.label) if isinstance(outcome.label, int | float) else None
