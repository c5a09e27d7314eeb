"""Runs: trained in a confined job, recorded whole, repeated to the same digest or to named differences."""

from __future__ import annotations

import msgspec
import numpy as np
import polars as pl
import pytest
from training_room import CODE, Room

from taut.core.errors import Corrupt, Denied, InvalidInput, NotFound
from taut.core.evidence import Outcome
from taut.core.refs import Kind, Ref
from taut.lifecycle.training import Code, Run, RunState, sign_code
from taut.project.manifest import FunctionRef, ResourcesSpec


def train(room: Room, text: str = CODE, **changes: object) -> Run:
    spec = msgspec.structs.replace(room.spec, **changes)
    return room.training.train(spec, room.data, room.code(text), actor="ann")


def test_a_run_is_recorded_with_everything_that_it_came_from(room: Room) -> None:
    seen: list[str] = []

    run = room.training.train(
        room.spec, room.data, room.code(CODE), actor="ann", params={"trees": 12},
        progress=lambda message, _: seen.append(message),
    )  # fmt: skip

    assert run.state is RunState.DONE, (run.error, room.training.log(run.id))
    assert run.report is not None
    assert run.report.metrics["auc"] > 0.75 > 0.5 == run.report.baselines["constant"]["auc"]
    assert run.report.metrics["auc"] > float(run.report.baselines["one_input"]["auc"])
    assert [check.outcome for check in run.report.checks] == [Outcome.PASSED] * 3, run.report.checks
    assert run.params == {"trees": 12}
    assert run.seed == 11
    assert run.report.signature.tensor == "columns"
    assert run.report.signature.classes == (False, True)
    assert [(item.column.name, item.feature_set) for item in run.report.signature.inputs] == [
        ("carrier", None), ("distance", None), ("hour", None), ("wind", "sky"),
    ]  # fmt: skip
    assert run.report.environment.libraries["scikit-learn"]
    assert run.report.split.embargoed > 0 or run.report.split.gap > 0
    assert {item.name for item in run.artifacts} == {"model.onnx", "parity.parquet", "log.txt"}
    assert "training (" in room.training.log(run.id)
    assert [point.value for point in room.training.series(run.id, name="loss")] == [
        1.0,
        0.5,
        pytest.approx(1 / 3),
    ]
    assert seen[0] == "loading the code"
    assert seen[-1] == "done"
    assert room.training.get(run.id) == run == room.training.list(model="delay")[0]
    with room.records.read() as tx:
        upstream = room.lineage.why(tx, Ref(Kind.RUN, run.id))
    assert "flights@3" in str(upstream)
    assert room.ledger.sequence() == 1


def test_a_parity_sample_is_what_a_request_would_bring_and_what_the_model_said(quick_room: Room) -> None:
    run = train(quick_room)

    sample = quick_room.training.parity_sample(run.id)

    assert sample.height >= 400
    assert {"carrier", "distance", "hour", "wind", "p0", "p1"} <= set(sample.columns)
    assert "late" not in sample.columns
    assert sample["carrier"].null_count() > 0
    assert sample["wind"].null_count() > 0
    assert np.allclose(sample["p0"] + sample["p1"], 1)


def test_the_holdout_can_be_read_again(quick_room: Room) -> None:
    run = train(quick_room)

    holdout = quick_room.training.holdout(run.id)

    assert run.report is not None
    assert holdout.height == run.report.split.test
    assert holdout["carrier"].null_count() == 0  # absent words are empty ones, as models get them
    assert holdout["at"].min() >= run.report.split.test_from  # type: ignore[operator]  # a column of times has one


def test_repeating_a_run_gives_the_very_same_model(room: Room) -> None:
    run = train(room)

    again = room.training.reproduce(run.id, actor="ann")

    assert again.same
    assert again.differences == ()
    assert again.run.reproduces == run.id


def test_what_differs_is_named_code_data_lock_and_result(quick_room: Room) -> None:
    run = train(quick_room)
    table = quick_room.tables.write([_less(quick_room)], schema=quick_room.data.table.schema, first_row_id=0)
    less = msgspec.structs.replace(quick_room.data, table=table)
    other = quick_room.code(
        CODE.replace("random_state=ctx.seed", "random_state=ctx.seed + 1, max_leaf_nodes=5")
    )
    other = _relocked(quick_room, other)

    again = quick_room.training.reproduce(run.id, actor="ann", data=less, code=other)

    assert not again.same
    assert {"code", "lock", "data", "result", "metric auc"} <= {item.what for item in again.differences}


def _less(room: Room) -> pl.DataFrame:
    return room.tables.scan(room.data.table).collect()[:-50]


def _relocked(room: Room, code: Code) -> Code:
    return sign_code(room.keys, bundle=code.bundle, lock="sha256:" + "2" * 64, actor="ann")


def test_a_seed_that_differs_is_named(quick_room: Room) -> None:
    one = train(quick_room)
    other = quick_room.training.train(
        quick_room.spec, quick_room.data, quick_room.code(CODE), actor="ann", seed=12
    )

    assert "seed" in {item.what for item in quick_room.training.compare(one.id, other.id)}


def test_the_same_run_id_trains_once(quick_room: Room) -> None:
    one = quick_room.training.train(
        quick_room.spec, quick_room.data, quick_room.code(CODE), actor="ann", run_id="run_story"
    )
    two = quick_room.training.train(
        quick_room.spec, quick_room.data, quick_room.code(CODE), actor="ann", run_id="run_story"
    )

    assert one == two
    assert len(quick_room.training.list()) == 1


FAULTY = {
    "raises": ("raise ValueError('no such column: carier')", "ValueError: no such column: carier"),
    "returns_none": ("return None", "returned NoneType: return taut.Trained"),
    "other_order": (
        "return taut.Trained(pipeline(ctx), inputs=NUMBERS + WORDS)", "the model was fitted on carrier, distance"
    ),
    "returns_label": ("return taut.Trained(pipeline(ctx), inputs=['late'])", "input 'late' is the label"),
    "input_is_label": (
        "from sklearn.linear_model import LogisticRegression as L\n"
        "    return taut.Trained(L().fit(ctx.train.select('late'), ctx.train['late']), inputs=['late'])",
        "input 'late' is the label",
    ),
    "input_unknown_at_serving": (
        "from sklearn.linear_model import LogisticRegression as L\n"
        "    m = L().fit(ctx.train.select('arrival_delay'), ctx.train['late'])\n"
        "    return taut.Trained(m, inputs=['arrival_delay'])",
        "'arrival_delay' is in the dataset, but neither a request column nor a feature",
    ),
    "nan_metric": (
        "return taut.Trained(pipeline(ctx), inputs=WORDS + NUMBERS, metrics={'auc': float('nan')})",
        "metric 'auc' is nan",
    ),
    "not_fitted": (
        "from sklearn.ensemble import HistGradientBoostingClassifier as H\n    return taut.Trained(H(), inputs=NUMBERS)",
        "not fitted",
    ),
    "a_function": ("return taut.Trained(lambda row: 0.5, inputs=NUMBERS)", "is a lambda"),
    "nulls": (
        "from sklearn.linear_model import LogisticRegression as L\n"
        "    m = L().fit(ctx.train.select(NUMBERS).fill_null(0), ctx.train['late'])\n"
        "    return taut.Trained(m, inputs=NUMBERS)",
        "must be a step of the pipeline",
    ),
}  # fmt: skip


@pytest.mark.parametrize("fault", FAULTY)
def test_a_training_function_that_is_wrong_is_told_what_and_what_to_do(quick_room: Room, fault: str) -> None:
    body, wanted = FAULTY[fault]
    text = CODE.replace("return taut.Trained(pipeline(ctx), inputs=WORDS + NUMBERS)", body)

    run = train(quick_room, text)

    assert run.state is RunState.FAILED
    assert wanted in run.error, run.error
    assert run.model_digest is None


def test_a_function_that_hangs_or_eats_memory_fails_the_run_with_the_reason(room: Room) -> None:
    loop = CODE.replace("print(", "while True: pass\n    print(")
    hog = CODE.replace("print(", "x = bytearray(40 * 2**30)\n    print(")

    hung = train(room, loop, resources=ResourcesSpec(memory="2GiB", timeout="4s"))
    hungry = train(room, hog)

    assert (hung.state, hung.ended_as) == (RunState.FAILED, "timed_out")
    assert "4 s" in hung.error
    assert (hungry.state, hungry.ended_as) == (RunState.FAILED, "out_of_memory")
    assert "2,048 MiB are allowed" in hungry.error


def test_fills_that_serving_does_not_make_are_caught_by_the_figures(quick_room: Room) -> None:
    """Histogram boosting takes nulls, so nothing raises; only the figures tell."""
    body = (
        "import numpy as np\n"
        "    from sklearn.metrics import roc_auc_score\n"
        "    from sklearn.ensemble import HistGradientBoostingClassifier as H\n"
        "    wide = lambda frame: frame.select(NUMBERS).with_columns(wind=pl.col('wind').fill_null(200.0) - 2 * pl.col('hour'))\n"
        "    m = H(max_iter=30).fit(wide(ctx.train), ctx.train['late'])\n"
        "    auc = roc_auc_score(ctx.test['late'], m.predict_proba(wide(ctx.test))[:, 1])\n"
        "    return taut.Trained(m, inputs=NUMBERS, metrics={'auc': auc})"
    )

    run = train(quick_room, CODE.replace("return taut.Trained(pipeline(ctx), inputs=WORDS + NUMBERS)", body))

    assert run.report is not None, run.error
    assert {check.name: check.outcome for check in run.report.checks}["own_metrics"] is Outcome.FAILED


def test_code_that_nobody_signed_is_not_run(room: Room) -> None:
    signed = room.code(CODE)
    other = room.code(CODE + "\n# changed\n")
    swapped = msgspec.structs.replace(signed, bundle=other.bundle)
    broken = msgspec.structs.replace(signed, statement=signed.statement.replace("payload", "pailoat"))

    with pytest.raises(Denied, match="another bundle"):
        room.training.train(room.spec, room.data, swapped, actor="ann")
    with pytest.raises(Corrupt):
        room.training.train(room.spec, room.data, broken, actor="ann")


def test_a_table_that_lacks_a_column_is_refused_before_a_job_starts(room: Room) -> None:
    with pytest.raises(InvalidInput, match="lacks planes"):
        train(room, request=("planes",))
    with pytest.raises(InvalidInput, match="label 'late' is also"):
        train(room, request=("late", "hour"))
    assert room.training.list() == ()


def test_an_unknown_run_says_how_to_find_one(room: Room) -> None:
    with pytest.raises(NotFound, match="taut run list"):
        room.training.get("run_nowhere")


def test_a_function_that_is_not_in_the_bundle_fails_the_run(quick_room: Room) -> None:
    run = train(quick_room, function=FunctionRef("project", "trian"))

    assert run.state is RunState.FAILED
    assert "no function 'trian'" in run.error
