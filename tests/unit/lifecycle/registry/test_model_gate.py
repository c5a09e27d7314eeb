"""The model gate admits what proves itself through the real runtime, and says why it does not admit the rest."""

from __future__ import annotations

from typing import Any

import msgspec
import numpy as np
import onnx
import polars as pl
import pytest
from registry_room import SIGNATURE, House, as_onnx, candidate, fitted, gate_inputs, matrix, score

from taut.core.evidence import Check, Decision, Outcome
from taut.core.schema import Column, DType, ModelInput
from taut.lifecycle.registry import File, GateInputs, ModelState, VersionInfo
from taut.project.code import open_code
from taut.project.manifest import GateSpec
from taut.testing.code import code_model


def judged(house: House, model: Any, *, inputs: dict[str, Any] | None = None, **changes: Any) -> VersionInfo:
    info = house.registry.register(candidate(house, model, **changes))
    return house.registry.judge(info.ref, gate_inputs(model, **(inputs or {})), actor="system")


def outcome(info: VersionInfo, name: str) -> Check:
    assert info.evidence is not None
    return next(check for check in info.evidence.checks if check.name == name)


def test_a_good_candidate_is_admitted_with_everything_measured_again(house: House, model: Any) -> None:
    info = judged(house, model)

    assert info.verdict is not None
    assert info.verdict.decision is Decision.ADMIT, info.verdict.reasons
    assert info.state is ModelState.CANDIDATE  # one approval is asked
    assert info.evidence is not None
    assert {check.outcome for check in info.evidence.checks} == {Outcome.PASSED}
    assert info.evidence.facts["metric auc"] == pytest.approx(info.candidate.metrics["auc"], abs=1e-6)
    assert float(str(info.evidence.facts["latency_ms"])) > 0
    assert house.ledger.sequence() == 2


def test_without_approvals_an_admitted_version_is_approved_at_once(house: House, model: Any) -> None:
    assert judged(house, model, approvals=0).state is ModelState.APPROVED


def test_a_metric_below_its_minimum_rejects_with_both_figures(house: House, model: Any) -> None:
    info = judged(house, model, rules=(GateSpec(kind="metric", metric="auc", minimum=0.99),))

    assert info.state is ModelState.REJECTED
    assert info.verdict is not None
    assert any("auc is below its minimum" in reason and "0.99" in reason for reason in info.verdict.reasons)


def test_a_metric_above_its_maximum_rejects(house: House, model: Any) -> None:
    info = judged(house, model, rules=(GateSpec(kind="metric", metric="logloss", maximum=0.01),))

    assert info.state is ModelState.REJECTED


def test_a_rule_over_an_unknown_metric_rejects(house: House, model: Any) -> None:
    info = judged(house, model, rules=(GateSpec(kind="metric", metric="auk", minimum=0.5),))

    assert outcome(info, "auk minimum").outcome is Outcome.ERRORED
    assert info.state is ModelState.REJECTED


def test_metrics_that_the_job_made_up_are_found_out(house: House, model: Any) -> None:
    info = judged(house, model, metrics={"auc": 0.999})

    assert outcome(info, "holdout").outcome is Outcome.FAILED
    assert info.state is ModelState.REJECTED


def test_a_worse_candidate_than_the_live_version_is_refused_on_the_same_rows(
    house: House, model: Any
) -> None:
    rules = (GateSpec(kind="no_regression", metric="auc", tolerance=0.005),)
    live = judged(house, model, approvals=0, rules=rules)
    worse = fitted(trees=1)

    info = judged(house, worse, run="run_2", rules=rules, inputs={"live": live.ref})

    assert outcome(info, "no_regression auc").outcome is Outcome.FAILED
    assert "live delay@1" in outcome(info, "no_regression auc").message
    same = judged(house, model, run="run_3", rules=rules, inputs={"live": live.ref})
    assert outcome(same, "no_regression auc").outcome is Outcome.PASSED


def test_a_live_version_that_needs_other_columns_is_left_to_a_person(house: House, model: Any) -> None:
    rules = (GateSpec(kind="no_regression", metric="auc"),)
    live = judged(house, model, approvals=0, rules=rules)
    without = gate_inputs(model)
    inputs = msgspec.structs.replace(
        without, holdout=without.holdout.rename({"wind": "breeze"}), live=live.ref
    )
    info = house.registry.register(candidate(house, model, run="run_2", rules=rules))

    judged_info = house.registry.judge(info.ref, inputs, actor="system")

    assert outcome(judged_info, "no_regression auc").outcome in (Outcome.HELD, Outcome.ERRORED)
    assert judged_info.state is not ModelState.APPROVED


@pytest.mark.parametrize("fault", ["fill", "order", "one_row", "nan"])
def test_serving_that_differs_from_training_is_caught_by_parity(house: House, model: Any, fault: str) -> None:
    """Each planted fault is one that happens: a fill that serving does not make, swapped columns, one wrong row."""
    good = gate_inputs(model).parity

    def broken(data: bytes, signature: Any, frame: pl.DataFrame) -> Any:
        if fault == "fill":
            frame = frame.with_columns(pl.col("wind").fill_null(0.0))
        if fault == "order":
            frame = frame.with_columns(
                wind=pl.col("hour").cast(pl.Float64), hour=pl.col("wind").fill_null(0).cast(pl.Int64)
            )
        return score(data, signature, frame)

    if fault == "one_row":
        good = good.with_columns(p1=pl.when(pl.int_range(pl.len()) == 7).then(0.123).otherwise("p1"))
    if fault == "nan":
        good = good.with_columns(p1=pl.when(pl.int_range(pl.len()) == 7).then(float("nan")).otherwise("p1"))
    info = judged(house, model, inputs={"parity": good, "score": broken}, metrics={})

    check = outcome(info, "parity")
    assert check.outcome is Outcome.FAILED
    assert "answered otherwise than in training" in check.message
    assert info.state is ModelState.REJECTED
    if fault == "fill":
        assert "all with no wind" in check.message


def test_a_row_that_would_be_refused_as_a_request_fails_parity(house: House, model: Any) -> None:
    parity = gate_inputs(model).parity.with_columns(
        hour=pl.when(pl.int_range(pl.len()) == 3).then(None).otherwise("hour")
    )

    info = judged(house, model, inputs={"parity": parity})

    assert "would be refused as a request" in outcome(info, "parity").message


def test_too_few_rows_prove_no_parity(house: House, model: Any) -> None:
    info = judged(house, model, inputs={"parity": gate_inputs(model).parity.head(2)})

    assert outcome(info, "parity").outcome is Outcome.FAILED


def test_a_model_that_is_worse_than_a_constant_is_held(house: House) -> None:
    flipped = fitted(flip=True)

    info = judged(house, flipped, rules=())

    assert outcome(info, "baseline").outcome is Outcome.HELD
    assert info.state is ModelState.HELD


def test_a_leak_that_training_suspects_holds_and_a_certain_one_rejects(house: House, model: Any) -> None:
    def with_leak(found: Outcome) -> tuple[Check, ...]:
        names = ("own_metrics", "conversion")
        return (
            Check(name="leakage", outcome=found),
            *(Check(name=name, outcome=Outcome.PASSED) for name in names),
        )

    held = judged(house, model, checks=with_leak(Outcome.HELD))
    rejected = judged(house, model, run="run_2", checks=with_leak(Outcome.FAILED))

    assert (held.state, rejected.state) == (ModelState.HELD, ModelState.REJECTED)


def test_a_check_of_training_that_is_missing_rejects(house: House, model: Any) -> None:
    info = judged(house, model, checks=())

    assert info.verdict is not None
    assert "leakage: required check is missing" in info.verdict.reasons


@pytest.mark.parametrize(
    ("column", "said"),
    [
        (ModelInput(column=Column("late", DType.BOOL)), "is the label"),
        (ModelInput(column=Column("arrival", DType.FLOAT)), "neither a request column nor a feature"),
        (ModelInput(column=Column("temp", DType.FLOAT), feature_set="sky"), "which nothing looks up"),
    ],
)
def test_inputs_that_serving_would_not_have_fail_the_schema(
    house: House, model: Any, column: ModelInput, said: str
) -> None:
    signature = msgspec.structs.replace(SIGNATURE, inputs=(*SIGNATURE.inputs, column))

    info = judged(house, model, signature=signature)

    assert said in outcome(info, "schema").message
    assert info.state is ModelState.REJECTED


def test_a_run_that_does_not_name_its_code_is_refused(house: House, model: Any) -> None:
    info = judged(house, model, lock="")

    assert outcome(info, "inputs").outcome is Outcome.ERRORED
    assert info.state is ModelState.REJECTED


def hostile() -> dict[str, bytes]:
    import pickle

    foreign = onnx.helper.make_model(
        onnx.helper.make_graph(
            [onnx.helper.make_node("Run", ["input"], ["probabilities"], domain="evil.example")], "g",
            [onnx.helper.make_tensor_value_info("input", 1, [None, 2])],
            [onnx.helper.make_tensor_value_info("probabilities", 1, [None, 2])],
        ),
        opset_imports=[onnx.helper.make_opsetid("", 18), onnx.helper.make_opsetid("evil.example", 1)], ir_version=9,
    )  # fmt: skip
    outside = onnx.load_from_string(as_onnx(fitted(trees=1)))
    tensor = onnx.helper.make_tensor("w", 1, [1], [1.0])
    tensor.ClearField("float_data")
    tensor.data_location = onnx.TensorProto.EXTERNAL
    entry = tensor.external_data.add()
    entry.key, entry.value = "location", "../../keys/private.pem"
    outside.graph.initializer.append(tensor)
    return {
        "pickle": pickle.dumps({"a": 1}), "zip": b"PK\x03\x04rest", "rubbish": b"\x08\x07not a model",
        "foreign operator": foreign.SerializeToString(), "external data": outside.SerializeToString(), "empty": b"",
    }  # fmt: skip


@pytest.mark.parametrize("name", ["pickle", "zip", "rubbish", "foreign operator", "external data", "empty"])
def test_anything_but_plain_onnx_fails_the_scan(house: House, model: Any, name: str) -> None:
    info = judged(house, model, data=hostile()[name])

    assert outcome(info, "artifact").outcome is Outcome.FAILED, outcome(info, "artifact")
    assert info.state is ModelState.REJECTED


def test_a_file_changed_between_registration_and_gate_rejects(house: House, model: Any) -> None:
    info = house.registry.register(candidate(house, model))
    path = house.blob(info.candidate.files["model.onnx"].digest)
    path.chmod(0o600)
    data = bytearray(path.read_bytes())
    data[len(data) // 2] ^= 1
    path.write_bytes(data)

    after = house.registry.judge(info.ref, gate_inputs(model), actor="system")

    assert after.state is ModelState.REJECTED
    assert outcome(after, "signature").outcome is Outcome.ERRORED
    assert "corrupt" in outcome(after, "signature").message


def test_the_gate_scores_regressors_too(house: House) -> None:
    from sklearn.linear_model import LinearRegression

    gate = gate_inputs(fitted(trees=1))
    holdout = gate.holdout.with_columns(wind=pl.col("wind").fill_null(3.0), delay=pl.col("hour") * 2.0 + 1)
    x = holdout.select("wind", "hour").to_numpy()
    regressor = LinearRegression().fit(x, holdout["delay"].to_numpy())
    signature = msgspec.structs.replace(SIGNATURE, output="value", classes=())
    parity = holdout.drop("late", "delay").with_columns(p0=pl.Series(regressor.predict(x)))
    from skl2onnx import convert_sklearn
    from skl2onnx.common.data_types import FloatTensorType

    data = convert_sklearn(
        regressor, "m", [("input", FloatTensorType([None, 2]))], target_opset=18
    ).SerializeToString()
    entered = candidate(
        house, None, data=data, signature=signature, label="delay", metrics={"mae": 0.0},
        baselines={"constant": {"mae": 12.0}},
        rules=(GateSpec(kind="metric", metric="mae", maximum=0.01),),
    )  # fmt: skip
    info = house.registry.register(entered)

    after = house.registry.judge(
        info.ref, msgspec.structs.replace(gate, holdout=holdout, parity=parity), actor="system"
    )

    assert after.verdict is not None
    assert after.verdict.decision is Decision.ADMIT, after.verdict.reasons
    assert np.isfinite(float(str(after.evidence.facts["metric r2"]))) if after.evidence else False


def test_a_job_that_reports_nothing_to_compare_is_not_admitted(house: House, model: Any) -> None:
    silent = judged(house, model, metrics={}, approvals=0)
    alone = judged(house, model, run="run_2", baselines={}, approvals=0)

    assert outcome(silent, "holdout").outcome is Outcome.FAILED
    assert silent.state is ModelState.REJECTED
    assert outcome(alone, "baseline").outcome is Outcome.HELD
    assert alone.state is ModelState.HELD


@pytest.mark.parametrize("odd", [float("nan"), float("inf")])
def test_held_out_labels_that_are_no_numbers_reject_a_regressor_with_a_verdict(
    house: House, odd: float
) -> None:
    gate = gate_inputs(fitted(trees=1))
    labels = pl.Series([odd, *range(gate.holdout.height - 1)], dtype=pl.Float64)
    signature = msgspec.structs.replace(SIGNATURE, output="value", classes=())
    entered = house.registry.register(
        candidate(house, fitted(trees=1), signature=signature, label="delay", metrics={"mae": 0.0}, rules=())
    )
    inputs = GateInputs(
        score=lambda _model, _signature, frame: np.zeros(frame.height),
        holdout=gate.holdout.with_columns(delay=labels),
        parity=gate.holdout.drop("late").with_columns(p0=pl.lit(0.0)),
    )

    after = house.registry.judge(entered.ref, inputs, actor="system")

    assert after.state is ModelState.REJECTED
    assert "NaN or infinite" in outcome(after, "holdout").message


@pytest.mark.parametrize(
    ("own", "data", "said"),
    [
        (True, None, "of the run's own bundle"),
        (False, None, "the run recorded sha256:bbb"),
        (True, b"\x80\x04 a pickle", "no readable archive"),
    ],
    ids=["own bundle", "another bundle", "a pickle"],
)
def test_code_is_read_and_compared_with_the_bundle_of_its_run_and_never_run(
    house: House, model: Any, own: bool, data: bytes | None, said: str
) -> None:
    code = code_model("raise SystemExit('it ran in control')")
    changes: dict[str, Any] = {"bundle": open_code(code).bundle_digest} if own else {}
    signature = msgspec.structs.replace(SIGNATURE, form="code", tensor="columns")
    stored = code if data is None else data
    entered = candidate(house, model, signature=signature, **changes)
    file = File(digest=house.blobs.put(stored), size_bytes=len(stored))
    info = house.registry.register(msgspec.structs.replace(entered, files={"model.taut": file}))
    gate = gate_inputs(model)
    answers = model.predict_proba(matrix(gate.holdout))  # as a job left them

    after = house.registry.judge(
        info.ref, msgspec.structs.replace(gate, score=lambda *_: answers, latency_ms=0.5), actor="system"
    )

    assert said in outcome(after, "artifact").message
    assert outcome(after, "artifact").outcome is (Outcome.PASSED if own and data is None else Outcome.FAILED)
    assert outcome(after, "holdout").outcome is outcome(after, "parity").outcome is Outcome.PASSED
    assert outcome(after, "latency").observed == 0.5
    assert after.state is (ModelState.CANDIDATE if own and data is None else ModelState.REJECTED)
    assert house.registry.card(info.ref)[1]["form"] == "code"
