"""Each look refuses a planted fault and lets a healthy model through; what cannot be judged is said."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt
import polars as pl
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import taut
from taut.core.evidence import Check, Outcome
from taut.core.probes import Probe, answers_to
from taut.core.schema import Column, DType, ModelInput, ModelSignature
from taut.core.scores import auc
from taut.lifecycle.registry.examination import EXAMINED, Again, Sight, examine, probes_for
from taut.lifecycle.registry.examination.estimates import estimate
from taut.project.manifest import GateSpec

Array = npt.NDArray[Any]
SIGNATURE = ModelSignature(
    request=(Column("x", DType.FLOAT), Column("n", DType.INT), Column("w", DType.FLOAT, nullable=True)),
    inputs=(
        ModelInput(column=Column("x", DType.FLOAT)), ModelInput(column=Column("n", DType.INT)),
        ModelInput(column=Column("w", DType.FLOAT, nullable=True)),
    ),
    output="probability", classes=(False, True),
)  # fmt: skip


def people(rows: int = 4000, seed: int = 0) -> pl.DataFrame:
    """x decides, n helps a little, w hardly; group a and b are alike, c is a handful."""
    random = np.random.default_rng(seed)
    x, n, w = random.normal(size=rows), random.integers(0, 10, rows), random.normal(size=rows)
    chance = _true_chance(x, n)
    group = random.choice(["a", "b"], rows).astype(object)
    group[:20] = "c"
    return pl.DataFrame(
        {
            "x": x,
            "n": n,
            "w": pl.Series(w).set(pl.Series(random.random(rows) < 0.1), None),
            "group": pl.Series(group.tolist()),
            "y": random.random(rows) < chance,
        }
    )


def _true_chance(x: Array, n: Array) -> Array:
    found: Array = 1 / (1 + np.exp(-(2 * x + 0.1 * (n - 4.5))))
    return found


def knows(frame: pl.DataFrame) -> Array:
    """A model that says the true chances: as good and as calibrated as one can be."""
    chance = _true_chance(frame["x"].to_numpy(), frame["n"].to_numpy())
    return np.stack([1 - chance, chance], axis=1)


def sight(frame: pl.DataFrame, answers: Array, *rules: GateSpec, ask: Any = knows) -> Sight:
    probes = {
        probe.name: (probe, answers_to(probe, frame, SIGNATURE, ask, seed=0))
        for rule in rules
        for probe in probes_for(rule)
    }
    return Sight(SIGNATURE, "y", frame, answers, probes=probes)


def looked(rule: GateSpec, frame: pl.DataFrame, answers: Array, ask: Any = knows) -> Check:
    (check,) = examine([rule], sight(frame, answers, rule, ask=ask))
    return check


def blind_for(frame: pl.DataFrame, group: str) -> Array:
    """A model that knows nothing about one group."""
    said = knows(frame)
    hidden = (frame["group"] == group).to_numpy()
    said[hidden] = said[np.random.default_rng(1).permutation(np.flatnonzero(hidden))]
    return said


def test_a_group_that_is_served_worse_rejects_and_a_small_one_is_named() -> None:
    rule = taut.slices(["group", "x"], metric="auc", drop=0.05)
    frame = people()

    fine, bad = looked(rule, frame, knows(frame)), looked(rule, frame, blind_for(frame, "b"))

    assert bad.outcome is Outcome.FAILED
    assert "surely too far: group b" in bad.message
    assert "too small to judge: group c (20)" in bad.message
    # the AUC within quarters of x is lower by nature: what decides is left out of them
    assert fine.outcome is Outcome.FAILED
    assert (
        looked(taut.slices("group", metric="auc", drop=0.05), frame, knows(frame)).outcome is Outcome.PASSED
    )


def test_groups_that_are_all_too_small_prove_nothing() -> None:
    frame = people(60)

    check = looked(taut.slices("group", metric="accuracy", drop=0.5, least=100), frame, knows(frame))

    assert check.outcome is Outcome.FAILED
    assert "no group has 100 rows" in check.message


def test_a_group_below_the_declared_minimum_rejects() -> None:
    frame = people()
    rule = taut.slices("group", metric="accuracy", drop=1.0, minimum=0.7)

    assert looked(rule, frame, knows(frame)).outcome is Outcome.PASSED
    assert looked(rule, frame, blind_for(frame, "b")).outcome is Outcome.FAILED


def test_decisions_that_differ_between_groups_reject_and_their_mitigation_is_priced() -> None:
    frame = people()
    unfair = knows(frame)
    favoured = (frame["group"] == "a").to_numpy()
    unfair[favoured, 1] = np.clip(unfair[favoured, 1] + 0.4, 0, 1)
    unfair[:, 0] = 1 - unfair[:, 1]

    for measure in ("demographic_parity", "equal_opportunity", "equalized_odds"):
        rule = taut.fairness("group", maximum=0.1, measure=measure)
        assert looked(rule, frame, knows(frame)).outcome is Outcome.PASSED, measure
        check = looked(rule, frame, unfair)
        assert check.outcome is Outcome.FAILED, measure
        assert "a threshold for each group would leave a gap of 0.0" in check.message
        assert "too small to judge: group c" in check.message


def test_a_gap_that_may_be_chance_is_held_for_a_person() -> None:
    frame = people(150)
    rule = taut.fairness("group", maximum=0.0, measure="demographic_parity", least=20)

    assert looked(rule, frame, knows(frame)).outcome is Outcome.HELD


def test_probabilities_that_are_too_sure_reject_and_true_ones_pass() -> None:
    frame = people()
    sure = np.clip(knows(frame) ** 4, 1e-9, 1)
    sure /= sure.sum(axis=1, keepdims=True)

    assert looked(taut.calibrated(maximum=0.03), frame, knows(frame)).outcome is Outcome.PASSED
    check = looked(taut.calibrated(maximum=0.03), frame, sure)
    assert check.outcome is Outcome.FAILED
    assert "was said and" in check.message


@settings(max_examples=15, deadline=None)
@given(st.integers(0, 10**6))
def test_a_calibrated_model_is_never_surely_off_however_few_the_rows(seed: int) -> None:
    frame = people(300, seed)

    assert looked(taut.calibrated(maximum=0.05), frame, knows(frame)).outcome is not Outcome.FAILED


def sharp(frame: pl.DataFrame) -> Array:
    """A model that went by digits of x that noise destroys, and takes an absent w for a yes."""
    x = frame["x"].to_numpy()
    odd = (np.floor(x * 1000) % 2 == 0) | frame["w"].is_null().to_numpy()
    return np.stack([1 - odd, odd], axis=1).astype(np.float64) * 0.98 + 0.01


def test_a_model_that_noise_or_absent_values_ruin_rejects() -> None:
    frame = people()
    learned = frame.with_columns(y=pl.Series(sharp(frame)[:, 1] > 0.5))
    rule = taut.robust("accuracy", drop=0.05, noise=0.1, missing=0.1)

    assert looked(rule, frame, knows(frame)).outcome is Outcome.PASSED
    check = looked(rule, learned, sharp(learned), sharp)
    assert check.outcome is Outcome.FAILED
    assert "accuracy 1.0000 becomes" in check.message


def test_decisions_that_small_changes_turn_reject() -> None:
    frame = people()
    rule = taut.attacked(maximum=0.2, step=0.1)

    fine, bad = looked(rule, frame, knows(frame)), looked(rule, frame, sharp(frame), sharp)

    assert fine.outcome is Outcome.PASSED, fine.message
    assert bad.outcome is Outcome.FAILED


def test_an_attack_finds_what_single_numbers_do_not_turn_alone() -> None:
    frame = pl.DataFrame({"x": [0.0, 3.0, -3.0], "n": [0, 5, 10], "w": [0.0, 3.0, -3.0]})

    def both(rows: pl.DataFrame) -> Array:
        yes = 1 / (1 + np.exp(-(rows["x"].to_numpy() + rows["w"].to_numpy() - 0.9)))
        return np.stack([1 - yes, yes], axis=1)

    probe = Probe(name="both", kind="attack", amount=0.2)

    assert both(frame)[0, 1] < 0.5
    assert answers_to(probe, frame, SIGNATURE, both, seed=0)[0, 1] > 0.5


def test_what_an_attacker_cannot_send_is_not_changed() -> None:
    looked_up = ModelSignature(
        request=SIGNATURE.request[:1],
        inputs=(SIGNATURE.inputs[0], ModelInput(column=Column("w", DType.FLOAT, nullable=True), feature_set="sky")),
        output="probability", classes=(False, True),
    )  # fmt: skip
    frame, seen = people(50), []

    def ask(rows: pl.DataFrame) -> Array:
        seen.append(rows["w"].equals(frame["w"]))
        return knows(rows)

    answers_to(Probe(name="a", kind="attack", amount=0.5), frame, looked_up, ask, seed=0)

    assert all(seen)
    assert len(seen) == 6  # as it is, four ways, and the best of all numbers together


def test_equal_seeds_change_the_same_values_and_only_those_that_may_be_absent_are_left_out() -> None:
    frame = people(200)
    probe = Probe(name="gone", kind="missing", amount=0.5)
    seen: list[pl.DataFrame] = []

    def ask(rows: pl.DataFrame) -> Array:
        seen.append(rows)
        return knows(rows)

    for _ in range(2):
        answers_to(probe, frame, SIGNATURE, ask, seed=7)

    assert seen[0].equals(seen[1])
    assert seen[0]["w"].null_count() > 60
    assert seen[0]["x"].null_count() == seen[0]["n"].null_count() == 0


@settings(max_examples=20, deadline=None)
@given(st.integers(0, 10**6), st.integers(20, 200))
def test_the_auc_with_its_error_is_the_auc(seed: int, rows: int) -> None:
    random = np.random.default_rng(seed)
    truth, score = random.random(rows) < 0.5, np.round(random.random(rows), 1)
    found = estimate("auc", truth.astype(int), np.stack([1 - score, score], axis=1))
    if found is not None:
        assert found.value == pytest.approx(auc(truth, score))


def test_intervals_of_the_auc_hold_it_as_often_as_they_say() -> None:
    truth_of_all, held = 0.0, 0
    for seed in range(200):
        random = np.random.default_rng(seed)
        truth = random.random(400) < 0.3
        score = random.normal(size=400) + truth
        found = estimate("auc", truth.astype(int), np.stack([-score, score], axis=1))
        assert found is not None
        truth_of_all = 0.7602499389  # of two normals one apart: Phi(1 / sqrt 2)
        low, high = found.bounds()
        held += low <= truth_of_all <= high
    assert 180 <= held <= 199


def test_a_look_that_breaks_rejects() -> None:
    frame = people(200)
    regressor = ModelSignature(request=SIGNATURE.request, inputs=SIGNATURE.inputs, output="value")
    values = Sight(regressor, "x", frame, frame["x"].to_numpy())

    for rule in (taut.calibrated(), taut.fairness("group", maximum=0.1), taut.attacked(maximum=0.1)):
        (check,) = examine([rule], values)
        assert check.outcome is Outcome.ERRORED, rule.kind


def test_a_column_that_is_not_there_is_an_error() -> None:
    frame = people(200)

    assert (
        looked(taut.slices("region", metric="auc", drop=0.1), frame, knows(frame)).outcome is Outcome.ERRORED
    )


def seen(rule: GateSpec, frame: pl.DataFrame, answers: Array, **further: Any) -> Check:
    (check,) = examine([rule], Sight(SIGNATURE, "y", frame, answers, **further))
    return check


def test_a_model_that_a_linear_one_equals_rejects() -> None:
    """The truth is linear here, so that nothing is better; where it is not, a model that knows it is."""
    learned, frame = people(seed=1), people()
    rule = taut.simpler("auc", margin=0.01)
    bent = [one.with_columns(y=pl.col("x").abs() > 0.7) for one in (learned, frame)]
    knowing = np.where((bent[1]["x"].abs() > 0.7).to_numpy()[:, None], [0.1, 0.9], [0.9, 0.1])

    same = seen(rule, frame, knows(frame), learned=(learned, None))
    better = seen(rule, bent[1], knowing, learned=(bent[0], None))

    assert same.outcome is Outcome.FAILED
    assert better.outcome is Outcome.PASSED
    assert float(str(better.observed)) > 0.4


def test_labels_that_were_turned_are_found() -> None:
    frame = people(1500).with_columns(y=pl.col("x") > 0)
    turned = frame.with_columns(y=pl.col("y") ^ pl.Series(np.random.default_rng(2).random(1500) < 0.15))
    rule = taut.clean_labels(maximum=0.05)

    assert seen(rule, frame, knows(frame), learned=(frame, None)).outcome is Outcome.PASSED
    check = seen(rule, turned, knows(turned), learned=(turned, None))
    assert check.outcome is Outcome.FAILED
    assert 0.1 < float(str(check.observed)) < 0.2


def test_a_model_that_knows_its_rows_by_heart_rejects() -> None:
    learned, frame = people(seed=1), people()
    by_heart = np.where(learned["y"].to_numpy()[:, None], [0.01, 0.99], [0.99, 0.01])
    rule = taut.memorised(maximum=0.55)

    assert seen(rule, frame, knows(frame), learned=(learned, knows(learned))).outcome is Outcome.PASSED
    assert seen(rule, frame, knows(frame), learned=(learned, by_heart)).outcome is Outcome.FAILED
    assert seen(rule, frame, knows(frame), learned=(learned, None)).outcome is Outcome.ERRORED


def test_answers_that_hang_on_the_seed_reject_and_so_does_a_training_that_is_missing() -> None:
    frame = people()
    truth = frame["y"].cast(pl.Int64).to_numpy()
    rule = taut.stable("auc", apart=0.05, seeds=2)
    luck = np.random.default_rng(3).permutation(knows(frame))

    def check(*answers: Array) -> Outcome:
        again = {f"seed {at}": Again(truth, one) for at, one in enumerate(answers, start=1)}
        return seen(rule, frame, knows(frame), again=again).outcome

    assert check(knows(frame), knows(frame)) is Outcome.PASSED
    assert check(knows(frame), luck) is Outcome.FAILED
    assert check(knows(frame)) is Outcome.ERRORED


@pytest.mark.parametrize(("metric", "worst"), [("auc", 0.8), ("logloss", 0.6)])
def test_a_model_that_fails_at_an_earlier_time_rejects(metric: str, worst: float) -> None:
    frame = people()
    truth = frame["y"].cast(pl.Int64).to_numpy()
    rule = taut.backtested(metric, worst=worst, folds=2)
    lost = np.random.default_rng(3).permutation(knows(frame))

    def check(second: Array) -> Outcome:
        again = {"fold 1": Again(truth, knows(frame)), "fold 2": Again(truth, second)}
        return seen(rule, frame, knows(frame), again=again).outcome

    assert check(knows(frame)) is Outcome.PASSED
    assert check(lost) is Outcome.FAILED


def test_decisions_that_differ_from_the_live_versions_reject() -> None:
    frame = people(500)
    rule = taut.replayed(maximum=0.05)
    near = np.clip(knows(frame) + 0.001, 0, 1)

    assert seen(rule, frame, knows(frame), replayed=(knows(frame), near)).outcome is Outcome.PASSED
    assert (
        seen(rule, frame, knows(frame), replayed=(knows(frame), knows(frame)[:, ::-1])).outcome
        is Outcome.FAILED
    )
    assert seen(rule, frame, knows(frame)).outcome is Outcome.ERRORED


def test_every_declared_kind_that_is_examined_has_a_word() -> None:
    words = (
        taut.slices("a", metric="auc", drop=0.1), taut.fairness("a", maximum=0.1), taut.calibrated(),
        taut.robust("auc", drop=0.1), taut.attacked(maximum=0.1), taut.simpler("auc"), taut.clean_labels(maximum=0.1),
        taut.memorised(), taut.stable("auc", apart=0.1), taut.backtested("auc", worst=0.5), taut.replayed(maximum=0.1),
    )  # fmt: skip

    assert {rule.kind for rule in words} == set(EXAMINED)
    assert len({rule.name for rule in words}) == len(words)
