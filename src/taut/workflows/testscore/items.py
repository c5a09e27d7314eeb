"""The 28 tests of the ML Test Score and what counts as evidence for each.

Source: Breck, Cai, Nielsen, Salib and Sculley, The ML Test Score: A Rubric for ML Production Readiness, 2017.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Final

import msgspec

from taut.lifecycle.registry.gate import DEPENDENCIES, IMPORTANCE
from taut.workflows.testscore.seen import Seen

SECTIONS: Final = ("data", "model", "infrastructure", "monitoring")
_REJECTED: Final = (
    "tests/unit/lifecycle/data/test_data_ingest.py::test_each_check_of_the_gate_rejects_what_it_is_there_for"
)
_REGISTRY: Final = "tests/unit/lifecycle/registry"
_EXAMINED: Final = f"{_REGISTRY}/test_examination.py"
_GATE: Final = f"{_REGISTRY}/test_model_gate.py"
_WATCHED: Final = "tests/unit/lifecycle/monitoring/test_monitoring_core.py"

Found = tuple[float, str]
"""Points, and in words what they are given for, or what is missing."""


class Rule(msgspec.Struct, frozen=True, kw_only=True):
    """One test of the rubric. look: says what there is. proof: our test that plants the fault and sees the alarm."""

    section: str
    name: str
    look: Callable[[Seen], Found]
    proof: str = ""


class Item(msgspec.Struct, frozen=True, kw_only=True):
    section: str
    name: str
    points: float
    said: str
    proof: str


class Scorecard(msgspec.Struct, frozen=True, kw_only=True):
    """score: the least of the sections' sums, each of seven tests."""

    score: float
    sections: dict[str, float]
    items: tuple[Item, ...]


def score_of(seen: Seen) -> Scorecard:
    """Score a version. 1.0 is for what is automated, ran for this very version or lately, and whose alarm a test of ours proves;
    0.5 for what is there in part, or by hand."""
    items = []
    for rule in RULES:
        points, said = rule.look(seen)
        most = 1.0 if rule.proof else 0.5
        items.append(
            Item(section=rule.section, name=rule.name, points=min(points, most), said=said, proof=rule.proof)
        )
    sums = {name: sum(one.points for one in items if one.section == name) for name in SECTIONS}
    return Scorecard(score=min(sums.values()), sections=sums, items=tuple(items))


def _declared(kind: str, word: str, otherwise: Found | None = None) -> Callable[[Seen], Found]:
    """A rule that the builder declares; without it, what `otherwise` says."""

    def look(seen: Seen) -> Found:
        found = seen.declared(kind)
        if found is not None:
            return 1.0, found.message
        return otherwise or (0.0, f"declare {word}")

    return look


def _contracts(seen: Seen) -> Found:
    ruled = [
        one
        for one in seen.datasets
        if one.contract.rules or any(_bounded(column) for column in one.contract.columns)
    ]
    if not seen.datasets or len(ruled) < len(seen.datasets):
        return 0.5, "columns and types alone: declare bounds or rules in every contract"
    return 1.0, f"bounds and rules of {', '.join(one.name for one in ruled)} are checked for every batch"


def _bounded(column: object) -> bool:
    return any(
        getattr(column, name) is not None for name in ("minimum", "maximum", "allowed", "pattern")
    ) or bool(getattr(column, "unique", False))


def _beneficial(seen: Seen) -> Found:
    facts = {} if seen.info.evidence is None else seen.info.evidence.facts
    found = {
        name.removeprefix(IMPORTANCE): float(value)
        for name, value in facts.items()
        if name.startswith(IMPORTANCE) and isinstance(value, int | float)
    }
    if not found:
        return 0.0, "the importance of inputs was not measured: train again"
    useless = sorted(name for name, value in found.items() if value <= 0)
    if useless:
        return 0.5, f"of no use to held-out rows: {', '.join(useless)}"
    return 1.0, f"each of {len(found)} inputs helps on held-out rows"


def _meta(seen: Seen) -> Found:
    if seen.check("schema") is None or seen.check("leakage") is None:
        return 0.0, "inputs were not checked against what is known when the model is asked"
    return 1.0, "every input is known when the model is asked, and none is the label in disguise"


def _privacy(seen: Seen) -> Found:
    kept = [one.name for one in seen.datasets if one.contract.pii == "keep"]
    if kept or not seen.datasets:
        return (
            0.0,
            f"personal data that nobody declared is kept in {', '.join(kept) or 'what is not declared'}",
        )
    return 1.0, "personal data that nobody declared is found and rejected or redacted at every ingestion"


def _quick(seen: Seen) -> Found:
    if not seen.features:
        return 0.0, "no feature sets: what they are for serving is written a second time elsewhere"
    return (
        0.5,
        "features are defined once for training and serving; how quickly new ones come is not measured",
    )


def _tested_inputs(seen: Seen) -> Found:
    if seen.check("parity") is None:
        return 0.0, "held-out rows were not sent as requests"
    return 1.0, "held-out rows sent as requests are answered as in training"


def _reviewed(seen: Seen) -> Found:
    yes = [one for one in seen.info.approvals if one.approved]
    if not yes:
        return 0.0, "nobody has reviewed it"
    if all(one.self_approved for one in yes):
        return 0.5, "reviewed by its author alone"
    return 1.0, f"reviewed by {', '.join(one.principal for one in yes if not one.self_approved)}"


def _correlates(seen: Seen) -> Found:
    quality = None if seen.figures is None else seen.figures.quality
    if quality is None or not quality.labelled:
        return 0.0, "no outcome was told: send feedback"
    return (
        1.0,
        f"{quality.right or 0:.1%} of {quality.labelled:,} outcomes right, {quality.usual or 0:.1%} offline",
    )


def _tuned(seen: Seen) -> Found:
    if seen.settings < 2:
        return 0.0, "it was trained with one setting alone"
    return 0.5, f"{seen.settings} settings were tried by hand"


def _staleness(seen: Seen) -> Found:
    found = seen.declared("backtested")
    if found is None:
        return 0.0, "declare taut.backtested(...)"
    return 0.5, f"{found.message}; what an old model loses on newer rows is not measured"


def _specs(seen: Seen) -> Found:
    if seen.check("conversion") is None or seen.check("own_metrics") is None:
        return 0.0, "the training function's own figures were not compared"
    return 0.5, "its form and figures are compared; tests of the project's own code are not known here"


def _integrated(seen: Seen) -> Found:
    if not any(one.version == str(seen.info.ref) for one in seen.releases):
        return 0.0, "it was never released"
    return 0.5, "the whole pipeline ran for this version, once"


def _validated(seen: Seen) -> Found:
    ruled = any(rule.kind == "metric" for rule in seen.info.candidate.rules)
    if seen.info.verdict is None or not ruled:
        return 0.5, "declare taut.metric(...), below which no version serves"
    return 1.0, "the gate measured it through the runtime before anybody could release it"


def _debuggable(seen: Seen) -> Found:
    if not any(one.audit != "off" for one in seen.endpoints):
        return 0.0, "no endpoint of it keeps its answers"
    return 1.0, "each answer is kept with its features: `taut why REQUEST --moved`"


def _canaried(seen: Seen) -> Found:
    mine = [one for one in seen.releases if one.version == str(seen.info.ref)]
    if any(one.strategy == "canary" for one in mine):
        return 1.0, "it was released as a canary"
    if any(one.release.kind == "canary" for one in seen.endpoints):
        return 0.5, "a canary is declared, and this version was not released as one"
    return 0.0, "declare release=taut.Canary(...)"


def _rolled_back(seen: Seen) -> Found:
    drilled = next((one for one in seen.drills if one.rollback_within is not None), None)
    if drilled is not None:
        return 1.0, f"drill {drilled.name} was rolled back within {drilled.rollback_within}"
    if any(one.strategy == "rollback" for one in seen.releases):
        return 1.0, "a rollback was made"
    if len(seen.releases) > 1:
        return 0.5, "there is a release to go back to; nobody ever did: `taut rollback`"
    return 0.0, "there is nothing to go back to"


def _dependencies(seen: Seen) -> Found:
    if seen.check(DEPENDENCIES) is None:
        return 0.0, "no advisories are mirrored here: set TAUT_ADVISORIES"
    return 1.0, "its packages are looked up among known vulnerabilities"


def _watched(said: str) -> Callable[[Seen], Found]:
    def look(seen: Seen) -> Found:
        if seen.figures is None or not seen.figures.window_rows:
            return 0.0, "nobody asked it lately, or nobody watches"
        return 1.0, f"{said}, over {seen.figures.window_rows:,} rows of its window"

    return look


def _fresh(seen: Seen) -> Found:
    kinds = () if seen.spec is None else tuple(one.kind for one in seen.spec.triggers)
    if not kinds:
        return 0.0, "declare triggers=[...]"
    return 0.5, f"it is trained again by {', '.join(kinds)}; its age by itself raises no alarm"


def _performance(seen: Seen) -> Found:
    if not any(one.slo is not None and one.slo.latency_p95_ms is not None for one in seen.endpoints):
        return 0.0, "declare slo=taut.SLO(latency_p95_ms=...)"
    proved = "".join(f"; drill {one.name} heard its alarm" for one in seen.drills[:1])
    return 1.0, f"its latency is an objective, whose budget is watched{proved}"


def _quality(seen: Seen) -> Found:
    quality = None if seen.figures is None else seen.figures.quality
    if quality is None:
        return 0.0, "nobody asked it lately, or nobody watches"
    if not quality.labelled:
        return 0.5, "estimated from its confidence alone: send feedback"
    return 1.0, f"bets on {quality.labelled:,} outcomes that more are wrong than is tolerated"


RULES: Final = (
    Rule(section="data", name="expectations are in a schema", look=_contracts, proof=_REJECTED),
    Rule(section="data", name="all features are beneficial", look=_beneficial, proof="tests/unit/workflows/test_ml_test_score.py::test_an_input_of_no_use_is_named"),
    Rule(section="data", name="no feature costs too much", look=_declared("no_costlier", "taut.no_costlier()", (0.5, "time and size were measured, nothing bounds them: declare taut.no_costlier()")), proof="tests/unit/lifecycle/training/test_rehearsals.py::test_a_healthy_model_repeats_and_is_as_good_at_other_times_and_may_yet_be_too_slow"),
    Rule(section="data", name="features adhere to meta-level requirements", look=_meta, proof=f"{_GATE}::test_inputs_that_serving_would_not_have_fail_the_schema"),
    Rule(section="data", name="privacy controls", look=_privacy, proof="tests/unit/lifecycle/data/test_data_ingest.py::test_undeclared_personal_data_is_redacted_where_the_contract_says_so"),
    Rule(section="data", name="new features come quickly", look=_quick),
    Rule(section="data", name="input feature code is tested", look=_tested_inputs, proof=f"{_GATE}::test_serving_that_differs_from_training_is_caught_by_parity"),
    Rule(section="model", name="specs are reviewed", look=_reviewed, proof=f"{_REGISTRY}/test_registry.py::test_the_author_may_not_approve_and_another_person_may"),
    Rule(section="model", name="offline and online metrics correlate", look=_correlates, proof="tests/flows/test_monitor_flow.py::test_outcomes_find_their_answers_late_corrected_and_by_entity"),
    Rule(section="model", name="hyperparameters are tuned", look=_tuned),
    Rule(section="model", name="the impact of staleness is known", look=_staleness),
    Rule(section="model", name="a simpler model is not better", look=_declared("simpler", "taut.simpler(...)", (0.5, "it is better than a constant; declare taut.simpler(...)")), proof=f"{_EXAMINED}::test_a_model_that_a_linear_one_equals_rejects"),
    Rule(section="model", name="quality on slices", look=_declared("slices", "taut.slices(...)"), proof=f"{_EXAMINED}::test_a_group_that_is_served_worse_rejects_and_a_small_one_is_named"),
    Rule(section="model", name="inclusion", look=_declared("fairness", "taut.fairness(...)"), proof=f"{_EXAMINED}::test_decisions_that_differ_between_groups_reject_and_their_mitigation_is_priced"),
    Rule(section="infrastructure", name="training is reproducible", look=_declared("reproduced", "taut.reproduced()", (0.5, "everything is named by digest: declare taut.reproduced() to try it")), proof="tests/unit/lifecycle/training/test_rehearsals.py::test_a_model_that_does_not_come_out_the_same_is_held_for_a_person"),
    Rule(section="infrastructure", name="model specs are unit tested", look=_specs),
    Rule(section="infrastructure", name="the pipeline is integration tested", look=_integrated),
    Rule(section="infrastructure", name="quality is validated before serving", look=_validated, proof=f"{_GATE}::test_a_metric_below_its_minimum_rejects_with_both_figures"),
    Rule(section="infrastructure", name="single examples can be debugged", look=_debuggable, proof="tests/flows/test_interface_command_line.py::test_why_says_what_moved_an_answer_and_that_it_adds_up"),
    Rule(section="infrastructure", name="models are canaried", look=_canaried, proof="tests/simulation/test_canary_controller.py::test_a_canary_that_fails_is_rolled_back_and_says_why"),
    Rule(section="infrastructure", name="serving can be rolled back", look=_rolled_back, proof="tests/unit/lifecycle/release/test_releases.py::test_a_rollback_ends_the_release_that_was_under_way"),
    Rule(section="monitoring", name="changes of dependencies are notified", look=_dependencies, proof="tests/unit/lifecycle/registry/test_audited_versions.py::test_a_version_whose_packages_are_vulnerable_or_unknown_is_rejected"),
    Rule(section="monitoring", name="data invariants hold in serving", look=_watched("values that are null, not finite or unseen are counted"), proof=f"{_WATCHED}::test_faults_of_inputs_are_said_before_a_window_is_over"),
    Rule(section="monitoring", name="training and serving are not skewed", look=_watched("each column is held against training's"), proof="tests/unit/lifecycle/features/test_features_store.py::test_skew_between_online_and_offline_is_counted_by_kind"),
    Rule(section="monitoring", name="models are not stale", look=_fresh),
    Rule(section="monitoring", name="models are numerically stable", look=_watched("answers that are not finite are refused, and inputs counted"), proof=f"{_WATCHED}::test_faults_of_inputs_are_said_before_a_window_is_over"),
    Rule(section="monitoring", name="no regression of performance", look=_performance, proof="tests/unit/workflows/test_objectives_watched.py::test_answers_failures_slow_ones_and_stand_ins_are_counted_and_a_callers_faults_are_not"),
    Rule(section="monitoring", name="no regression of quality", look=_quality, proof=f"{_WATCHED}::test_confidence_tells_quality_before_any_label_comes"),
)  # fmt: skip
"""In the rubric's order, seven a section."""
