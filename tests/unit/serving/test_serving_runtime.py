"""Loading, rows, tensors and the response gate."""

from __future__ import annotations

import datetime as dt
import math
from typing import Any

import msgspec
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from onnx import TensorProto, helper

from taut.core.errors import Corrupt, InvalidInput
from taut.core.schema import Column, DType, FeatureLookup, ModelInput, ModelSignature
from taut.serving.errors import BadAnswer, Malformed, TooLarge
from taut.serving.runtime import RowDecoder, load, score_rows
from taut.serving.runtime.outputs import output_checker
from taut.testing.serving import columns_model, matrix_model, matrix_signature, with_fields

COLUMNS = (
    Column("flag", DType.BOOL),
    Column("count", DType.INT),
    Column("distance", DType.FLOAT),
    Column("carrier", DType.STRING),
    Column("day", DType.DATE),
    Column("at", DType.DATETIME),
    Column("note", DType.STRING, nullable=True),
)
GOOD: dict[str, Any] = {
    "flag": True, "count": 3, "distance": 1.5, "carrier": "AA", "day": "2013-07-01", "at": "2013-07-01T06:00:00Z",
}  # fmt: skip


def body(*rows: object) -> bytes:
    return msgspec.json.encode({"instances": rows})


def onnx_model(nodes: list[Any], inputs: list[Any], outputs: list[Any], domain: str = "") -> bytes:
    opsets = [helper.make_opsetid("", 17)] + ([helper.make_opsetid(domain, 1)] if domain else [])
    model = helper.make_model(helper.make_graph(nodes, "t", inputs, outputs), opset_imports=opsets)
    model.ir_version = 8
    return model.SerializeToString()


def tensor(name: str, kind: int, shape: list[Any]) -> Any:
    return helper.make_tensor_value_info(name, kind, shape)


def columns_signature() -> ModelSignature:
    request = (Column("distance", DType.FLOAT), Column("carrier", DType.STRING))
    return ModelSignature(
        request=request,
        inputs=(
            ModelInput(column=request[0]),
            ModelInput(column=Column("wind", DType.FLOAT, nullable=True), feature_set="weather"),
            ModelInput(column=request[1]),
        ),
        lookups=(FeatureLookup(feature_set="weather", entity=("airport",), keys=("carrier",)),),
        output="value",
        tensor="columns",
    )


def test_a_matrix_model_answers_with_labels_and_probabilities() -> None:
    model = load(matrix_model(2), matrix_signature(2))

    outputs = model.infer({"x0": [1.0, -3.0], "x1": [0.5, 0.0]})

    assert outputs.labels == [1, 0]
    assert outputs.probabilities[0][1] == pytest.approx(1 / (1 + math.exp(-1.5)), abs=1e-6)


def test_a_columns_model_takes_one_tensor_a_column_and_null_as_nan() -> None:
    model = load(columns_model(["distance", "wind"], "carrier"), columns_signature())

    found = model.infer({"distance": [1.0, 2.0], "wind": [10.0, 20.0], "carrier": ["UA", "ZZ"]})

    assert found.values == [13.0, 22.0]
    with pytest.raises(BadAnswer, match="not finite"):
        model.infer({"distance": [1.0], "wind": [None], "carrier": ["AA"]})


def test_many_rows_score_as_each_alone() -> None:
    model = load(matrix_model(3), matrix_signature(3))
    rows = np.random.default_rng(0).normal(size=(500, 3)).round(3).tolist()

    together = model.infer({f"x{i}": [row[i] for row in rows] for i in range(3)})
    alone = [model.infer({f"x{i}": [row[i]] for i in range(3)}) for row in rows]

    assert together.labels == [one.labels[0] for one in alone]
    assert np.allclose(together.probabilities, [one.probabilities[0] for one in alone], atol=1e-6)


def test_loading_measures_what_a_batch_costs() -> None:
    model = load(matrix_model(3), matrix_signature(3))

    assert model.cost is not None
    assert model.cost.base_us + model.cost.row_us > 0
    assert model.rows_within(1e9) > model.rows_within(0.0) == 1


@pytest.mark.parametrize(
    ("width", "signature", "said"),
    [
        (3, matrix_signature(4), "4 inputs"),
        (
            2,
            with_fields(matrix_signature(2), classes=(0, 1, 2)),
            "2 probabilities, the signature has 3 classes",
        ),
        (2, with_fields(matrix_signature(2), classes=(1,)), "two classes or more"),
        (2, with_fields(matrix_signature(2), tensor="columns"), "differ in input, x0, x1"),
        (
            2,
            with_fields(matrix_signature(2), request=(Column("x0", DType.FLOAT),)),
            "neither a request column",
        ),
    ],
)
def test_a_model_that_is_not_that_of_its_signature_is_refused(
    width: int, signature: ModelSignature, said: str
) -> None:
    with pytest.raises(InvalidInput, match=said):
        load(matrix_model(width), signature)


def test_a_string_in_a_matrix_is_refused_with_the_remedy() -> None:
    column = Column("x0", DType.STRING)
    signature = with_fields(matrix_signature(1), request=(column,), inputs=(ModelInput(column=column),))

    with pytest.raises(InvalidInput, match="use tensor mode 'columns'"):
        load(matrix_model(1), signature)


def test_a_nullable_integer_tensor_is_refused_since_it_has_no_null() -> None:
    column = Column("n", DType.INT, nullable=True)
    cast = helper.make_node("Cast", ["n"], ["variable"], to=TensorProto.FLOAT)
    model = onnx_model(
        [cast],
        [tensor("n", TensorProto.INT64, [None, 1])],
        [tensor("variable", TensorProto.FLOAT, [None, 1])],
    )
    signature = ModelSignature(
        request=(column,), inputs=(ModelInput(column=column),), output="value", tensor="columns"
    )

    with pytest.raises(InvalidInput, match="has no null"):
        load(model, signature)


def test_a_model_with_a_custom_operator_or_no_model_at_all_is_refused() -> None:
    evil = onnx_model(
        [helper.make_node("Run", ["input"], ["probabilities"], domain="evil")],
        [tensor("input", TensorProto.FLOAT, [None, 1])], [tensor("probabilities", TensorProto.FLOAT, [None, 2])], "evil",
    )  # fmt: skip

    with pytest.raises(Corrupt, match="cannot be loaded"):
        load(evil, matrix_signature(1))
    with pytest.raises(Corrupt, match="cannot be loaded"):
        load(b"\x80\x04not a model", matrix_signature(1))


def test_a_model_that_names_another_file_is_refused(tmp_path: Any) -> None:
    (tmp_path / "w.bin").write_bytes(np.ones(2, np.float32).tobytes())
    outside = TensorProto(
        name="w", data_type=TensorProto.FLOAT, dims=[1, 2], data_location=TensorProto.EXTERNAL
    )
    entry = outside.external_data.add()
    entry.key, entry.value = "location", str(tmp_path / "w.bin")
    node = helper.make_node("MatMul", ["input", "w"], ["probabilities"])
    graph = helper.make_graph(
        [node], "t", [tensor("input", TensorProto.FLOAT, [None, 1])],
        [tensor("probabilities", TensorProto.FLOAT, [None, 2])], [outside],
    )  # fmt: skip
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)])
    model.ir_version = 8
    path = tmp_path / "model.onnx"
    path.write_bytes(model.SerializeToString())

    with pytest.raises(Corrupt):
        load(path, matrix_signature(1))


@pytest.mark.parametrize(
    "nonsense",
    [np.full((1, 2), np.nan), np.array([[0.7, 0.7]]), np.array([[-0.5, 1.5]]), np.array([[np.inf, 0.0]]), np.ones((2, 2)), np.ones((1, 3))],
)  # fmt: skip
@pytest.mark.parametrize("rows", [1, 100])
def test_the_response_gate_refuses_what_are_no_probabilities(nonsense: Any, rows: int) -> None:
    check = output_checker(matrix_signature(1))
    good = (
        np.tile(np.array([[0.25, 0.75]]), (rows - 1, 1)) if nonsense.shape[1] == 2 else np.ones((rows - 1, 3))
    )

    with pytest.raises(BadAnswer):
        check(np.concatenate([nonsense, good]).astype(np.float32), rows)


def test_the_probability_of_the_positive_class_alone_is_accepted() -> None:
    outputs = output_checker(matrix_signature(1))(np.array([[0.75], [0.25]], np.float32), 2)

    assert outputs.labels == [1, 0]
    assert outputs.probabilities == [[0.25, 0.75], [0.75, 0.25]]


def test_rows_decode_to_typed_values_in_the_order_of_the_signature() -> None:
    [row] = RowDecoder(COLUMNS).decode(body(dict(reversed(GOOD.items()))))

    at = dt.datetime(2013, 7, 1, 6, tzinfo=dt.UTC)
    assert row == (True, 3, 1.5, "AA", dt.date(2013, 7, 1), at, None)


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"flag": 1}, "row 1, column 'flag': saw the number 1, wanted true or false"),
        ({"count": 2.5}, "row 1, column 'count': saw the number 2.5, wanted a whole number"),
        (
            {"count": 2**63},
            "row 1, column 'count': saw the number 9223372036854775808, wanted a whole number",
        ),
        ({"distance": "far"}, "row 1, column 'distance': saw the string 'far', wanted a finite number"),
        ({"distance": None}, "row 1, column 'distance': saw null, wanted a finite number"),
        ({"day": "2013-02-30"}, "row 1, column 'day': saw the string '2013-02-30', wanted a date"),
        ({"at": "2013-07-01T06:00:00"}, "wanted a time with its zone"),
        ({"carrier": ["AA"]}, "row 1, column 'carrier': saw a list, wanted a string"),
        ({"carier": "AA"}, "row 1: column 'carier' is unknown: did you mean 'carrier'?"),
    ],
)
def test_a_wrong_row_is_named_with_what_was_seen_and_what_is_wanted(
    change: dict[str, Any], said: str
) -> None:
    with pytest.raises(InvalidInput) as caught:
        RowDecoder(COLUMNS).decode(body(GOOD, GOOD | change))

    assert said in caught.value.message
    assert caught.value.code == "invalid_input"


def test_a_missing_column_is_named() -> None:
    with pytest.raises(InvalidInput, match="row 0, column 'count': is missing, wanted a whole number"):
        RowDecoder(COLUMNS).decode(body({name: value for name, value in GOOD.items() if name != "count"}))


@pytest.mark.parametrize(
    ("sent", "kind"),
    [
        (b"", Malformed), (b"{", Malformed), (b"[]", Malformed), (b'{"rows":[]}', Malformed), (b'{"instances":{}}', Malformed),
        (b'{"instances":[NaN]}', Malformed), (b'{"instances":' + b"[" * 100_000, Malformed), (b"\xff\xfe", Malformed),
        (b'{"instances":[]}', InvalidInput), (b'{"instances":[{"distance":1e999}]}', InvalidInput), (body(*[GOOD] * 4), TooLarge),
    ],
)  # fmt: skip
def test_what_is_no_request_is_told_from_what_does_not_fit(sent: bytes, kind: type[InvalidInput]) -> None:
    with pytest.raises(InvalidInput) as caught:
        RowDecoder(COLUMNS, max_rows=3).decode(sent)

    assert type(caught.value) is kind


values = st.one_of(
    st.none(), st.booleans(), st.integers(), st.floats(allow_nan=False, allow_infinity=False), st.text(max_size=8),
    st.lists(st.integers(), max_size=2), st.dictionaries(st.text(max_size=3), st.integers(), max_size=2),
)  # fmt: skip


@settings(max_examples=300, deadline=None)
@given(st.dictionaries(st.sampled_from([*GOOD, "note", "other"]), values, max_size=8))
def test_every_object_is_decoded_whole_or_refused_by_row_and_column(changes: dict[str, Any]) -> None:
    row = GOOD | changes
    try:
        [decoded] = RowDecoder(COLUMNS).decode(body(row))
    except InvalidInput as error:
        assert "row 0" in error.message  # noqa: PT017 - either way is right, and each is checked
    else:
        assert "other" not in row
        assert [type(value) for value in decoded[:4]] == [bool, int, float, str]
        assert decoded[1] == row["count"]
        assert decoded[6] == row.get("note")


def test_a_number_that_fp32_cannot_hold_is_refused_by_row_and_column() -> None:
    model = load(matrix_model(2), matrix_signature(2))

    for rows in (2, 100):
        with pytest.raises(InvalidInput, match=r"row 1, column 'x1'.*3\.4e38"):
            model.infer({"x0": [1.0] * rows, "x1": [0.0, 1e39] + [0.0] * (rows - 2)})


def test_scoring_rows_goes_through_the_decoding_of_a_request() -> None:
    model = load(columns_model(["distance", "wind"], "carrier"), columns_signature())
    rows = [{"distance": 1, "carrier": "AA", "wind": 5}, {"distance": 2.5, "carrier": "UA", "wind": 7.5}]

    assert score_rows(model, rows).values == [7.0, 12.0]
    with pytest.raises(InvalidInput, match="row 1, column 'carrier': saw the number 7"):
        score_rows(model, [rows[0], rows[1] | {"carrier": 7}])
    with pytest.raises(InvalidInput, match="feature 'wind': saw 'calm'"):
        score_rows(model, [rows[0] | {"wind": "calm"}])


@pytest.mark.parametrize("about", [dt.date(2013, 7, 1), dt.datetime(2013, 7, 1, 6, tzinfo=dt.UTC), None])
def test_held_out_rows_of_days_are_scored_though_a_question_carries_a_time(about: object) -> None:
    signature = columns_signature()
    asked = Column("day", DType.DATETIME, nullable=True)
    signature = with_fields(signature, request=(*signature.request, asked), event_time="day")
    model = load(columns_model(["distance", "wind"], "carrier"), signature)

    found = score_rows(model, [{"distance": 1, "carrier": "AA", "wind": 5, "day": about}])

    assert found.values == [7.0]
