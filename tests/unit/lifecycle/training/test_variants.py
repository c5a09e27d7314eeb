"""Variants of a model: made from its own pinned rows, measured beside it, and worth keeping by a stated rule."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import polars as pl
import pytest
from training_room import CODE, Room

from taut.adapters.blobs.local import LocalBlobs
from taut.core.errors import InvalidInput, NotFound
from taut.lifecycle.training import Run, RunState
from taut.lifecycle.training.onnx_form import DOMAINS
from taut.lifecycle.training.variants import VARIANTS, Figures, Made, gain_of, make_variants
from taut.lifecycle.training.variants.forms import graph_optimised, head, quantised
from taut.lifecycle.training.variants.timing import ROUNDS_MAX, ROUNDS_MIN, interleaved_us
from taut.ports.jobs import JobResult, Progress, Task
from taut.ports.tables import ROW_ID
from taut.testing.jobs import InlineJobs

MLP = """
import warnings

from sklearn.impute import SimpleImputer
from sklearn.neural_network import MLPClassifier
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

import taut

NUMBERS = ["distance", "hour", "wind"]


def train(ctx):
    model = make_pipeline(
        SimpleImputer(), StandardScaler(), MLPClassifier((64, 64), max_iter=4, random_state=ctx.seed)
    )
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # it need not converge here
        model.fit(ctx.train.select(NUMBERS), ctx.train["late"])
    return taut.Trained(model, inputs=NUMBERS)
"""


def trained(room: Room, code: str = CODE) -> Run:
    run = room.training.train(room.spec, room.data, room.code(code), actor="ann")
    assert run.state is RunState.DONE, run.error
    return run


def made_of(room: Room, run: Run, tmp_path: Path) -> Made:
    return make_variants(
        run, run.model_digest or "", blobs=LocalBlobs(tmp_path / "blobs"), tables=room.tables, jobs=InlineJobs(),
        scratch=tmp_path,
    )  # fmt: skip


def test_a_network_is_optimised_and_quantised_both_ways(quick_room: Room, tmp_path: Path) -> None:
    run, blobs = trained(quick_room, MLP), LocalBlobs(tmp_path / "blobs")

    made = made_of(quick_room, run, tmp_path)

    assert [variant.name for variant in made.variants] == list(VARIANTS)
    assert run.report is not None
    assert made.original.metrics == pytest.approx(run.report.metrics)
    assert made.holdout_rows == run.report.split.test
    assert 0 < made.calibration_rows <= 1000
    for variant in made.variants[1:]:
        assert variant.figures is not None, variant.note
        assert variant.figures.size_bytes < 0.7 * made.original.size_bytes
        assert set(variant.figures.latency_us) == {1, 32}
        assert 0 < (variant.apart or 0) < 0.1
        model = onnx.load_from_string(blobs.read(variant.model))
        assert {node.domain for node in model.graph.node} <= DOMAINS
        sample = quick_room.training.parity_sample(run.id, said=variant.parity)
        theirs = quick_room.training.parity_sample(run.id)
        assert sample[ROW_ID].to_list() == theirs[ROW_ID].to_list()
        assert 0 < float((sample["p1"] - theirs["p1"]).abs().max()) <= (variant.apart or 0) + 1e-5  # type: ignore[arg-type]  # a float column's maximum


def test_trees_have_nothing_to_quantise_and_it_is_said(quick_room: Room, tmp_path: Path) -> None:
    made = made_of(quick_room, trained(quick_room), tmp_path)

    for variant in made.variants[1:]:
        assert variant.figures is None
        assert "nothing to quantise" in variant.note


def test_a_run_that_left_no_model_has_no_variants(quick_room: Room, tmp_path: Path) -> None:
    broken = quick_room.training.train(
        quick_room.spec, quick_room.data, quick_room.code("def train(ctx):\n    raise ValueError('no')\n"), actor="ann"
    )  # fmt: skip

    with pytest.raises(NotFound, match="left no model"):
        made_of(quick_room, broken, tmp_path)


def test_a_job_that_fails_says_how(quick_room: Room, tmp_path: Path) -> None:
    run = trained(quick_room)
    other = LocalBlobs(tmp_path / "blobs").put(b"no model")

    with pytest.raises(InvalidInput, match=r"were not made"):
        make_variants(
            run, other, blobs=LocalBlobs(tmp_path / "blobs"), tables=quick_room.tables, jobs=InlineJobs(),
            scratch=tmp_path,
        )  # fmt: skip


class ForgingJobs(InlineJobs):
    """Jobs whose results somebody changes on their way."""

    def __init__(self, forge: Callable[[dict[str, Any]], object]) -> None:
        super().__init__()
        self._forge = forge

    def run(self, task: Task, *, output: Path, progress: Progress | None = None) -> JobResult:
        result = super().run(task, output=output, progress=progress)
        self._forge(result.value)
        return result


@pytest.mark.parametrize(
    "forge",
    [
        lambda value: value["original"]["latency_us"].update({"1": 0.0}),
        lambda value: value["original"]["latency_us"].update({"64": 1.0}),
        lambda value: value["variants"][0].update(name="../../key"),
        lambda value: value["variants"].pop(),
        lambda value: value.pop("noise"),
    ],
)  # fmt: skip
def test_a_result_that_no_such_job_gives_is_not_accepted(
    quick_room: Room, tmp_path: Path, forge: Callable[[dict[str, Any]], object]
) -> None:
    run = trained(quick_room)

    with pytest.raises(InvalidInput, match="is not accepted"):
        make_variants(
            run, run.model_digest or "", blobs=LocalBlobs(tmp_path / "blobs"), tables=quick_room.tables,
            jobs=ForgingJobs(forge), scratch=tmp_path,
        )  # fmt: skip


def test_calibration_rows_are_of_the_training_part_only(quick_room: Room, tmp_path: Path) -> None:
    from taut.lifecycle.training.variants import job

    run = trained(quick_room)
    assert run.report is not None
    frame = tmp_path / "frame.parquet"
    numbered = quick_room.tables.scan(run.data.table, row_ids=True).collect()
    # each row carries its own number where a model would read the distance
    numbered.with_columns(pl.col(ROW_ID).cast(pl.Float64).alias("distance")).write_parquet(frame)
    work = job.Work(
        event_time=run.data.event_time, label=run.spec.label, label_at=run.spec.label_at, split=run.spec.split,
        signature=run.report.signature,
    )  # fmt: skip

    rows = job._rows(work, frame)

    assert rows.calibration_rows > 100
    assert max(rows.calibration["distance"].reshape(-1)) < rows.holdout["distance"].min()


def figures(size: int = 1000, **latency: float) -> Figures:
    times = {1: latency.get("one", 10.0), 32: latency.get("many", 100.0)}
    return Figures(size_bytes=size, latency_us=times, metrics={})


QUIET = {1: 0.01, 32: 0.01}


@pytest.mark.parametrize(
    ("variant", "noise", "gains", "said"),
    [
        (figures(many=85.0), QUIET, True, "15% faster for 32 rows"),
        (figures(one=8.0, many=104.0), QUIET, True, "20% faster for 1 row"),
        (figures(size=300), QUIET, True, "70% smaller"),
        (figures(size=300, one=40.0), QUIET, False, "4.0 times slower for 1 row, though 70% smaller"),
        (figures(one=7.0, many=107.0), QUIET, False, "7% slower for 32 rows, though 30% faster for 1 row"),
        (figures(one=9.5, many=95.0), QUIET, False, "neither faster nor smaller enough"),
        (figures(size=710), QUIET, False, "neither faster nor smaller enough"),
        (figures(many=85.0), {1: 0.01, 32: 0.1}, False, "neither faster nor smaller enough"),
        (figures(many=50.0), {1: 0.01, 32: 0.3}, False, "try again on a quieter machine"),
        (figures(many=50.0), {1: 0.01, 32: float("nan")}, False, "try again on a quieter machine"),
    ],
)  # fmt: skip
def test_a_variant_gains_when_it_is_faster_or_much_smaller_and_slower_nowhere(
    variant: Figures, noise: dict[int, float], gains: bool, said: str
) -> None:
    found = gain_of(figures(), variant, noise)

    assert (found.gains, said in found.reason) == (gains, True), found


def test_every_run_is_timed_equally_often_and_each_begins_a_round() -> None:
    order: list[str] = []
    runs: Any = {name: lambda name=name: order.append(name) for name in ("a", "b", "c")}

    times, rounds = interleaved_us(runs, budget_s=0.0)

    told = order[9:]  # after the warm-up
    assert set(times) == {"a", "b", "c"}
    assert ROUNDS_MIN <= rounds <= ROUNDS_MAX
    assert [told.count(name) for name in "abc"] == [rounds] * 3
    assert told[0::3][:3] == ["a", "b", "c"]


def test_a_graph_that_nothing_can_be_done_for_is_no_variant(quick_room: Room, tmp_path: Path) -> None:
    blobs = LocalBlobs(tmp_path / "blobs")
    model = blobs.read(trained(quick_room, MLP).model_digest or "")
    try:
        once, _note = graph_optimised(model)
    except InvalidInput:
        once = model

    with pytest.raises(InvalidInput, match="finds nothing to rewrite"):
        graph_optimised(once)


def test_weights_that_are_no_constants_are_not_quantised() -> None:
    from onnx import TensorProto, helper

    shape = [
        helper.make_tensor_value_info(name, TensorProto.FLOAT, [2, 2]) for name in ("input", "other", "out")
    ]
    node = helper.make_node("MatMul", ["input", "other"], ["out"])
    graph = helper.make_graph([node], "model", shape[:2], shape[2:])
    proto = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=8)

    with pytest.raises(InvalidInput, match="nothing was quantised"):
        quantised(proto.SerializeToString(), calibration=None)


def test_few_rows_are_repeated_to_fill_a_batch() -> None:
    found = head({"input": np.array([[1.0], [2.0]])}, 5)

    assert found["input"].reshape(-1).tolist() == [1.0, 2.0, 1.0, 2.0, 1.0]
