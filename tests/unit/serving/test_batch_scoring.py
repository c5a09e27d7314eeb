"""Many rows at once: which can be scored, what they are as tensors, what the answers are as columns."""

from __future__ import annotations

import datetime as dt
import math
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import polars as pl
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from onnx import TensorProto, helper

from taut.core.answers import read_answer
from taut.core.errors import InvalidInput
from taut.core.schema import Column, DType, FeatureLookup, ModelInput, ModelSignature, Schema
from taut.ports.jobs import Task
from taut.serving.batch import (
    CHUNKS,
    MODEL,
    REASONS,
    STOP,
    answer_columns,
    answer_path,
    answer_schema,
    chunk_path,
    matrix,
    needs_of,
    write_chunk,
)
from taut.serving.runtime import Matrix, load
from taut.testing.jobs import InlineJobs
from taut.testing.serving import columns_model, matrix_model, matrix_signature

COLUMNS = (
    Column("flag", DType.BOOL),
    Column("count", DType.INT),
    Column("maybe", DType.INT, nullable=True),
    Column("wind", DType.FLOAT, nullable=True),
    Column("day", DType.DATE),
)
TYPES = {"flag": pl.Boolean, "count": pl.Int64, "maybe": pl.Int64, "wind": pl.Float64, "day": pl.Date}


def frame_of(rows: list[tuple[Any, ...]]) -> pl.DataFrame:
    return pl.DataFrame(rows, schema=TYPES, orient="row")


@given(
    st.lists(
        st.tuples(
            st.booleans(),
            st.integers(-(2**63), 2**63 - 1),
            st.none() | st.integers(-(2**63), 2**63 - 1),
            st.none() | st.floats(-3e38, 3e38),
            st.dates(),
        ),
        min_size=1,
        max_size=20,
    )
)
@settings(deadline=None, max_examples=60)
def test_a_frame_becomes_the_very_tensor_that_a_request_becomes(rows: list[tuple[Any, ...]]) -> None:
    by_request = Matrix(COLUMNS).encode(rows)["input"]

    assert matrix(frame_of(rows), COLUMNS).tobytes() == by_request.tobytes()


def test_rows_that_do_not_fit_are_set_apart_each_with_every_reason() -> None:
    needs = needs_of(matrix_signature(2), event_time=None)
    nan, inf = math.nan, math.inf
    frame = pl.DataFrame(
        {"_row_id": [5, 6, 7, 8, 9], "x0": [1.0, None, nan, 1e39, 2.0], "x1": [1.0, inf, 1.0, 1.0, 2.0]}
    )

    fit, unfit = needs.split(frame)

    assert fit["_row_id"].to_list() == [5, 9]
    assert dict(zip(unfit["_row_id"], unfit[REASONS], strict=True)) == {
        6: "column 'x0' is null and must not be; column 'x1' is infinite",
        7: "column 'x0' is null and must not be",
        8: "column 'x0' is beyond what FP32 can hold (3.4e38)",
    }


@given(
    st.lists(
        st.tuples(
            st.none() | st.floats(allow_infinity=True, allow_nan=True),
            st.none() | st.floats(allow_infinity=True, allow_nan=True),
            st.none() | st.sampled_from(["AA", ""]),
            st.none() | st.just(dt.datetime(2026, 1, 1, tzinfo=dt.UTC)),
        ),
        max_size=30,
    )
)
@settings(deadline=None, max_examples=80)
def test_every_row_is_on_one_side_whatever_is_null_in_it(rows: list[tuple[Any, ...]]) -> None:
    types = {"distance": pl.Float64, "wind": pl.Float64, "carrier": pl.String, "at": pl.Datetime("us", "UTC")}
    frame = pl.DataFrame(rows, schema=types, orient="row").with_row_index("_row_id")

    fit, unfit = needs_of(looked_up(), event_time="at").split(frame)

    assert sorted([*fit["_row_id"], *unfit["_row_id"]]) == list(range(len(rows)))
    assert all(unfit[REASONS].str.len_chars() > 0)
    assert fit.select(pl.col("distance", "carrier", "at").is_null().any()).row(0) in (
        (False,) * 3,
        (None,) * 3,
    )
    assert not fit["distance"].is_infinite().any()
    assert not fit["wind"].is_infinite().any()


def test_a_frame_where_all_fits_loses_nothing() -> None:
    frame = pl.DataFrame({"x0": [1.0], "x1": [2.0]})

    fit, unfit = needs_of(matrix_signature(2), event_time=None).split(frame)

    assert fit.equals(frame)
    assert unfit.height == 0
    assert REASONS in unfit.columns


def looked_up() -> ModelSignature:
    request = (Column("carrier", DType.STRING), Column("distance", DType.FLOAT))
    return ModelSignature(
        request=request,
        inputs=(
            ModelInput(column=request[1]),
            ModelInput(column=Column("wind", DType.FLOAT, nullable=True), feature_set="weather"),
            ModelInput(column=request[0]),
        ),
        lookups=(FeatureLookup(feature_set="weather", entity=("airport",), keys=("carrier",)),),
        output="value",
        tensor="columns",
    )


def test_what_a_model_needs_is_its_inputs_its_keys_and_the_time_of_the_row() -> None:
    needs = needs_of(looked_up(), event_time="at")

    assert [column.name for column in needs.columns] == ["distance", "carrier"]
    assert [column.name for column in needs.features] == ["wind"]
    assert needs.event_time == "at"
    with pytest.raises(InvalidInput, match="has no event_time"):
        needs_of(looked_up(), event_time=None)


@pytest.mark.parametrize(
    ("columns", "said"),
    [
        ([("carrier", DType.STRING), ("at", DType.DATETIME)], "'distance' is missing"),
        (
            [("carrier", DType.STRING), ("distance", DType.STRING), ("at", DType.DATETIME)],
            "'distance' is string, the model wants float",
        ),
        ([("carrier", DType.STRING), ("distance", DType.FLOAT)], "no event time 'at'"),
        (
            [("carrier", DType.STRING), ("distance", DType.FLOAT), ("at", DType.STRING)],
            "no event time 'at'",
        ),
    ],
)
def test_a_table_that_does_not_fit_is_refused_by_name(columns: list[tuple[str, DType]], said: str) -> None:
    schema = Schema(tuple(Column(name, dtype) for name, dtype in columns))

    with pytest.raises(InvalidInput, match=said):
        needs_of(looked_up(), event_time="at").check(schema, where="flights@1")


def test_whole_numbers_are_taken_where_a_number_is_wanted() -> None:
    columns = [("carrier", DType.STRING), ("distance", DType.INT), ("at", DType.DATE)]
    schema = Schema(tuple(Column(name, dtype) for name, dtype in columns))

    needs_of(looked_up(), event_time="at").check(schema, where="flights@1")


def scored(
    folder: Path, model: bytes, signature: ModelSignature, frames: list[pl.DataFrame]
) -> list[np.ndarray[Any, Any]]:
    """Put frames through the job and return its answers."""
    chunks, output, path = folder / "chunks", folder / "output", folder / "model.onnx"
    chunks.mkdir()
    path.write_bytes(model)
    for number, frame in enumerate(frames):
        write_chunk(chunk_path(chunks, number), frame, signature)
    (chunks / STOP).touch()
    task = Task(
        function="taut.serving.batch.job:score",
        arguments={"signature": msgspec.to_builtins(signature), "numbers": list(range(len(frames)))},
        inputs={CHUNKS: str(chunks), MODEL: str(path)},
    )
    result = InlineJobs().run(task, output=output)
    assert result.value == {"chunks": len(frames)}, result
    return [read_answer(answer_path(output, at), frame.height) for at, frame in enumerate(frames)]


def test_the_job_answers_each_chunk_as_a_request_is_answered(tmp_path: Path) -> None:
    signature, model = matrix_signature(2), matrix_model(2)
    dice = np.random.default_rng(1)
    frames = [pl.DataFrame({f"x{i}": dice.normal(size=n) for i in range(2)}) for n in (20_000, 1, 0, 77)]

    found = scored(tmp_path, model, signature, frames)

    loaded = load(model, signature)
    for frame, tensor in zip(frames, found, strict=True):
        if not frame.height:
            continue
        outputs = loaded.infer(frame.to_dict(as_series=False))
        columns, answered = answer_columns(signature, tensor)
        assert answered.all()
        assert columns[0].to_list() == list(outputs.labels)
        assert columns[1].to_list() == pytest.approx([row[1] for row in outputs.probabilities], abs=1e-6)


def test_a_model_with_an_input_a_column_gets_texts_times_and_nulls(tmp_path: Path) -> None:
    signature, model = looked_up(), columns_model(["distance", "wind"], "carrier")
    frame = pl.DataFrame({"distance": [1, 2, 3], "wind": [10.0, None, 1e39], "carrier": ["UA", "ZZ", "AA"]})

    (tensor,) = scored(tmp_path, model, signature, [frame])

    columns, answered = answer_columns(signature, tensor)
    assert columns[0].to_list()[0] == pytest.approx(13.0)
    # a null is NaN in this model's sum, and 1e39 is none of its floats: neither has an answer
    assert answered.tolist() == [True, False, False]


def test_rows_that_a_model_raises_on_cost_only_themselves(tmp_path: Path) -> None:
    # a table of three rows: whoever asks for a fourth makes the model raise, as a data-dependent fault does
    nodes = [
        helper.make_node("Cast", ["input"], ["place"], to=TensorProto.INT64),
        helper.make_node("Gather", ["table", "place"], ["wide"], axis=0),
        helper.make_node("Squeeze", ["wide", "second"], ["variable"]),
    ]
    constants = [
        helper.make_tensor("table", TensorProto.FLOAT, [3], [10.0, 20.0, 30.0]),
        helper.make_tensor("second", TensorProto.INT64, [1], [1]),
    ]
    graph = helper.make_graph(
        nodes,
        "t",
        [helper.make_tensor_value_info("input", TensorProto.FLOAT, [None, 1])],
        [helper.make_tensor_value_info("variable", TensorProto.FLOAT, [None])],
        constants,
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)])
    model.ir_version = 8
    place = Column("place", DType.INT)
    signature = ModelSignature(request=(place,), inputs=(ModelInput(column=place),), output="value")
    places = [0, 1, 2, 3, 2, 1, 99, 0] * 10

    (tensor,) = scored(tmp_path, model.SerializeToString(), signature, [pl.DataFrame({"place": places})])

    columns, answered = answer_columns(signature, tensor)
    assert answered.tolist() == [place < 3 for place in places]
    assert columns[0].filter(pl.Series(answered)).to_list() == [
        10.0 * (place + 1) for place in places if place < 3
    ]


def test_answers_that_are_none_are_told_row_by_row() -> None:
    signature = matrix_signature(1)
    tensor = np.array([[0.4, 0.6], [np.nan, 1.0], [0.9, 0.9], [-0.5, 1.5], [1.0, 0.0]], dtype=np.float32)

    columns, answered = answer_columns(signature, tensor)

    assert answered.tolist() == [True, False, False, False, True]
    assert columns[0].to_list()[0] == 1
    assert columns[0].to_list()[4] == 0


def test_the_probability_of_the_positive_class_alone_is_enough() -> None:
    columns, answered = answer_columns(matrix_signature(1), np.array([0.25, 0.75], dtype=np.float32))

    assert columns[0].to_list() == [0, 1]
    assert columns[1].to_list() == [0.25, 0.75]
    assert answered.all()


def test_more_than_two_classes_have_a_column_each() -> None:
    signature = msgspec.structs.replace(matrix_signature(1), classes=("low", "high", "none"))
    tensor = np.array([[0.1, 0.7, 0.2]], dtype=np.float32)

    columns, _ = answer_columns(signature, tensor)

    assert [column.name for column in answer_schema(signature)] == [
        "label", "probability_low", "probability_high", "probability_none",
    ]  # fmt: skip
    assert [series.name for series in columns] == [column.name for column in answer_schema(signature)]
    assert columns[0].to_list() == ["high"]


@pytest.mark.parametrize(
    ("tensor", "said"),
    [
        (np.zeros((2, 2), dtype=np.int64), "no answers"),
        (np.zeros(3, dtype=np.float32), "no answers"),
        (np.zeros((2, 2, 2), dtype=np.float32), "no answers"),
    ],
)
def test_what_a_job_leaves_is_not_believed(tmp_path: Path, tensor: Any, said: str) -> None:
    np.save(tmp_path / "a.npy", tensor)
    with pytest.raises(InvalidInput, match=said):
        read_answer(tmp_path / "a.npy", 2)


@pytest.mark.parametrize("data", [b"", b"nonsense", b"\x93NUMPY\x01\x00v\x00{'descr': '|O', 'x'"])
def test_a_file_that_is_no_answer_is_refused(tmp_path: Path, data: bytes) -> None:
    (tmp_path / "a.npy").write_bytes(data)
    with pytest.raises(InvalidInput, match="no readable answer"):
        read_answer(tmp_path / "a.npy", 1)


def test_a_pickle_in_an_answer_is_never_loaded(tmp_path: Path) -> None:
    np.save(tmp_path / "a.npy", np.array([dt.date(2020, 1, 1)], dtype=object), allow_pickle=True)
    with pytest.raises(InvalidInput, match="no readable answer"):
        read_answer(tmp_path / "a.npy", 1)


@given(
    st.lists(
        st.lists(st.floats(-0.2, 1.2) | st.just(math.nan) | st.just(math.inf), min_size=2, max_size=2),
        min_size=1,
        max_size=20,
    )
)
@settings(deadline=None, max_examples=60)
def test_two_classes_are_judged_row_by_row_as_any_number_is(rows: list[list[float]]) -> None:
    three = msgspec.structs.replace(matrix_signature(1), classes=(0, 1, 2))
    tensor = np.array([[*row] for row in rows])

    (label, probability), answered = answer_columns(matrix_signature(1), tensor)
    (label_of_three, _, second, _), answered_of_three = answer_columns(
        three, np.column_stack([tensor, np.zeros(len(rows))])
    )

    assert answered.tolist() == answered_of_three.tolist()
    assert label.filter(answered).to_list() == label_of_three.filter(answered).to_list()
    assert probability.to_numpy().tobytes() == second.to_numpy().tobytes()
