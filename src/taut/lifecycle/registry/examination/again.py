"""Training again: with other seeds, and on earlier times. Whether what was reported was luck."""

from __future__ import annotations

from taut.core.errors import InvalidInput
from taut.core.evidence import Check, Outcome
from taut.lifecycle.registry.examination.estimates import worse_by
from taut.lifecycle.registry.examination.sight import Again, Sight, score
from taut.project.manifest import GateSpec

SEED, FOLD = "seed", "fold"


def stable(rule: GateSpec, sight: Sight) -> Check:
    """Judge how far the metric is apart between models that differ by their seed alone, on the same rows."""
    metric, limit = str(rule.metric), float(rule.tolerance or 0.0)
    own = Again(truth=sight.truth, answers=sight.answers)
    found = [_score(metric, sight, one) for one in (own, *_those(SEED, rule.settings["seeds"], sight))]
    apart = max(found) - min(found)
    said = f"{metric} of {len(found)} models that differ by their seed: {_listed(found)}"
    outcome = Outcome.PASSED if apart <= limit else Outcome.FAILED
    return Check(name=rule.name, outcome=outcome, message=said, observed=apart, limit=limit)


def backtested(rule: GateSpec, sight: Sight) -> Check:
    """Judge the worst of some earlier times, each tested on by a model that learned from what was known before it.

    Cross-validation by time: rows are never tested on by a model that learned from later ones.
    """
    metric, limit = str(rule.metric), float(rule.minimum if rule.minimum is not None else rule.maximum or 0.0)
    found = [_score(metric, sight, one) for one in _those(FOLD, rule.settings["folds"], sight)]
    worst = min(found) if rule.minimum is not None else max(found)
    bad = worst < limit if rule.minimum is not None else worst > limit
    said = f"{metric} of the times before, the latest first: {_listed(found)}"
    return Check(
        name=rule.name, outcome=Outcome.FAILED if bad else Outcome.PASSED, message=said, observed=worst, limit=limit
    )  # fmt: skip


def _those(kind: str, count: float, sight: Sight) -> list[Again]:
    """Return the repetitions of a kind. Raises InvalidInput unless all that were declared are there."""
    found = [one for name, one in sight.again.items() if name.startswith(f"{kind} ")]
    if len(found) < max(1, int(count)):
        raise InvalidInput(f"{len(found)} of {int(count)} trainings with another {kind} came to an end")
    return found[: int(count)]


def _score(metric: str, sight: Sight, one: Again) -> float:
    return score(metric, sight.signature, one.truth, one.answers)


def _listed(found: list[float]) -> str:
    return ", ".join(f"{one:.4f}" for one in found)


def simpler(rule: GateSpec, sight: Sight) -> Check:
    """Judge whether the model is better than a linear one that learned from the same rows, by the declared margin."""
    from taut.lifecycle.registry.examination.simple import linear_answers

    metric, margin = str(rule.metric), float(rule.tolerance or 0.0)
    mine = score(metric, sight.signature, sight.truth, sight.answers)
    rows, _ = sight.learned()
    theirs = score(metric, sight.signature, sight.truth, linear_answers(sight, rows))
    better = -worse_by(metric, mine, theirs)
    said = f"{metric} is {mine:.4f}, of a linear model of the same inputs {theirs:.4f}"
    outcome = Outcome.PASSED if better >= margin else Outcome.FAILED
    return Check(name=rule.name, outcome=outcome, message=said, observed=better, limit=margin)
