"""The binary tensor data extension: raw tensors in and out, the record of what came in, and sizes that lie."""

from __future__ import annotations

import asyncio
import datetime as dt
import inspect
import json
import struct
from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest

from taut.adapters.world import SystemRandom
from taut.core.errors import InvalidInput, TautError
from taut.core.schema import Column, DType, ModelInput, ModelSignature
from taut.serving.errors import Malformed, TooLarge
from taut.serving.gateway import Gateway, Reply, compile_snapshot
from taut.serving.gateway.tensors import TensorDecoder
from taut.serving.predictions import PredictionReader, PredictionRecord
from taut.serving.snapshot import EndpointConfig
from taut.testing.serving import (
    DataPlane,
    columns_model,
    matrix_model,
    matrix_signature,
    open_gateway,
    with_fields,
)

EVERY = (
    Column("late", DType.BOOL), Column("stops", DType.INT), Column("distance", DType.FLOAT),
    Column("carrier", DType.STRING), Column("day", DType.DATE), Column("at", DType.DATETIME),
)  # fmt: skip


@pytest.fixture
def gateway(plane: DataPlane) -> Iterator[Gateway]:
    with open_gateway(plane.home, SystemRandom()) as made:
        yield made


def install(gateway: Gateway, plane: DataPlane, *endpoints: EndpointConfig) -> None:
    gateway.install(compile_snapshot(plane.snapshot(*endpoints), home=plane.home, before=None))


def raw(name: str, datatype: str, shape: list[int], data: bytes) -> tuple[dict[str, Any], bytes]:
    parameters = {"binary_data_size": len(data)}
    return {"name": name, "datatype": datatype, "shape": shape, "parameters": parameters}, data


def request(*tensors: tuple[dict[str, Any], bytes], **more: Any) -> tuple[bytes, int]:
    """Return a body and how many bytes of it are JSON."""
    head = json.dumps({"inputs": [tensor for tensor, _ in tensors], **more}).encode()
    return head + b"".join(data for _, data in tensors), len(head)


def strings(*texts: bytes) -> bytes:
    return b"".join(struct.pack("<I", len(text)) + text for text in texts)


def infer(
    gateway: Gateway, plane: DataPlane, body: bytes, json_bytes: object, path: str = "/v2/models/delay/infer"
) -> Reply:
    headers = [
        (b"authorization", f"Bearer {plane.token()}".encode()),
        (b"inference-header-content-length", str(json_bytes).encode()),
    ]

    async def run() -> Reply:
        found = gateway.answer("POST", path, headers, body)
        return await found if inspect.isawaitable(found) else found

    return asyncio.run(run())


def read(reply: Reply) -> tuple[dict[str, Any], dict[str, bytes]]:
    """Return the JSON of an answer, and the raw data of its outputs by name."""
    assert reply.status == 200, reply.body
    headers = dict(reply.header_list())
    at = int(headers[b"inference-header-content-length"])
    document = json.loads(reply.body[:at])
    data = {}
    for output in document["outputs"]:
        size = output.get("parameters", {}).get("binary_data_size")
        if size is not None:
            data[output["name"]], at = reply.body[at : at + size], at + size
    assert at == len(reply.body)
    return document, data


def records(plane: DataPlane) -> list[PredictionRecord]:
    return list(PredictionReader(plane.home / "log" / "predictions").records())


def test_a_raw_matrix_scores_as_its_json_does_and_the_record_has_its_rows(
    gateway: Gateway, plane: DataPlane
) -> None:
    install(gateway, plane, plane.endpoint())
    rows = np.array([[1.0, 0.5, -0.25], [3.0, 0.1, 2.0]], dtype="<f4")
    body, length = request(
        raw("input", "FP32", [2, 3], rows.tobytes()), id="mine", parameters={"binary_data_output": True}
    )
    plain = {
        "inputs": [{"name": "input", "datatype": "FP32", "shape": [2, 3], "data": rows.ravel().tolist()}]
    }
    encoded = json.dumps(plain).encode()

    reply = infer(gateway, plane, body, length)
    document, data = read(reply)
    same = json.loads(infer(gateway, plane, encoded, len(encoded)).body)

    assert dict(reply.header_list())[b"content-type"] == b"application/octet-stream"
    assert document["id"] == "mine"
    assert [output["shape"] for output in document["outputs"]] == [[2], [2, 2]]
    assert np.frombuffer(data["label"], "<i8").tolist() == same["outputs"][0]["data"]
    assert np.frombuffer(data["probability"], "<f8").tolist() == same["outputs"][1]["data"]
    first, second = records(plane)
    assert (
        first.requests()
        == second.requests()
        == [dict(zip(("x0", "x1", "x2"), row, strict=True)) for row in rows.tolist()]
    )
    assert first.answer == second.answer


def test_each_output_is_raw_only_where_it_was_asked_for(gateway: Gateway, plane: DataPlane) -> None:
    install(gateway, plane, plane.endpoint())
    tensor = raw("input", "FP32", [1, 3], struct.pack("<3f", 1, 2, 3))
    some = [{"name": "probability", "parameters": {"binary_data": True}}, {"name": "label"}]
    all_but = [{"name": "label", "parameters": {"binary_data": False}}, {"name": "probability"}]

    for outputs, parameters in ((some, {}), (all_but, {"binary_data_output": True})):
        document, data = read(infer(gateway, plane, *request(tensor, outputs=outputs, parameters=parameters)))
        assert [output["name"] for output in document["outputs"]] == [output["name"] for output in outputs]
        assert set(data) == {"probability"}
    whole = infer(gateway, plane, *request(tensor))
    assert b"inference-header-content-length" not in dict(whole.header_list())
    assert json.loads(whole.body)["outputs"][0]["data"] == [1]


def test_text_labels_and_a_single_value_come_back_raw(gateway: Gateway, plane: DataPlane) -> None:
    words = with_fields(matrix_signature(1), classes=("früh", "spät"))
    late = EndpointConfig(name="words", live=plane.served(matrix_model(1), words))
    install(gateway, plane, late, carrier_endpoint(plane))
    wanted = {"parameters": {"binary_data_output": True}}

    _, labels = read(
        infer(
            gateway, plane, *request(raw("x0", "FP64", [2], struct.pack("<2d", 5, -5)), **wanted),
            "/v2/models/words/infer",
        )
    )  # fmt: skip
    columns = [
        raw("carrier", "BYTES", [2, 1], strings(b"AA", b"UA")),
        raw("distance", "INT16", [2], b"\x01\0\x02\0"),
    ]
    document, values = read(infer(gateway, plane, *request(*columns, **wanted), "/v2/models/carrier/infer"))

    assert labels["label"] == strings("spät".encode(), "früh".encode())
    assert document["outputs"][0]["datatype"] == "FP64"
    assert struct.unpack("<2d", values["value"]) == (2.0, 4.0)
    assert records(plane)[1].requests() == [
        {"carrier": "AA", "distance": 1.0},
        {"carrier": "UA", "distance": 2.0},
    ]


def carrier_endpoint(plane: DataPlane) -> EndpointConfig:
    request_columns = (Column("carrier", DType.STRING), Column("distance", DType.FLOAT))
    signature = ModelSignature(
        request=request_columns,
        inputs=tuple(ModelInput(column=column) for column in request_columns),
        output="value",
        tensor="columns",
    )
    return EndpointConfig(
        name="carrier", live=plane.served(columns_model(["distance"], "carrier"), signature)
    )


@pytest.mark.parametrize(
    ("column", "datatype", "data", "values"),
    [
        (EVERY[0], "BOOL", b"\x01\x00", [True, False]),
        (EVERY[1], "INT8", b"\xff\x02", [-1, 2]),
        (EVERY[1], "INT64", struct.pack("<2q", -(2**63), 2**63 - 1), [-(2**63), 2**63 - 1]),
        (EVERY[1], "UINT64", struct.pack("<2Q", 0, 2**63 - 1), [0, 2**63 - 1]),
        (EVERY[2], "FP16", np.array([0.5, -2.0], "<f2").tobytes(), [0.5, -2.0]),
        (EVERY[2], "BF16", struct.pack("<2H", 0x3F80, 0xC000), [1.0, -2.0]),
        (EVERY[2], "FP64", struct.pack("<2d", 0.1, 1e300), [0.1, 1e300]),
        (EVERY[2], "UINT16", struct.pack("<2H", 7, 65535), [7.0, 65535.0]),
        (EVERY[3], "BYTES", strings(b"", "é".encode()), ["", "é"]),
        (EVERY[4], "BYTES", strings(b"2013-07-01", b"2024-02-29"), [dt.date(2013, 7, 1), dt.date(2024, 2, 29)]),
        (EVERY[5], "BYTES", strings(b"2013-07-01T06:00:00Z") * 2, [dt.datetime(2013, 7, 1, 6, tzinfo=dt.UTC)] * 2),
    ],
    ids=lambda value: value if isinstance(value, str) else None,
)  # fmt: skip
def test_raw_values_are_what_their_json_would_be(
    column: Column, datatype: str, data: bytes, values: list[object]
) -> None:
    decoder = TensorDecoder([column], outputs=("value",), max_rows=8)

    found = decoder.decode(*request(raw(column.name, datatype, [2], data))).batch

    assert [row[0] for row in found.rows] == values
    assert [type(row[0]) for row in found.rows] == [type(value) for value in values]


def test_raw_and_json_tensors_may_be_mixed_also_for_nulls() -> None:
    decoder = TensorDecoder(
        [Column("a", DType.FLOAT, nullable=True), Column("b", DType.STRING)], outputs=("value",), max_rows=8
    )
    plain = {"name": "a", "datatype": "FP64", "shape": [2], "data": [None, 1.5]}

    found = decoder.decode(*request((plain, b""), raw("b", "BYTES", [2], strings(b"x", b"y")))).batch

    assert found.rows == [(None, "x"), (1.5, "y")]


FP32_ROW = struct.pack("<3f", 1, 2, 3)
BAD_MATRIX = {
    "a row more than there is": ([2, 3], FP32_ROW, InvalidInput, "saw shape"),
    "a row less than there is": ([1, 3], FP32_ROW * 2, InvalidInput, "saw shape"),
    "no rows": ([0, 3], b"", InvalidInput, "at least 1"),
    "a negative shape": ([-1, -3], FP32_ROW, InvalidInput, "saw shape"),
    "a huge shape": ([2**62, 3], FP32_ROW, InvalidInput, "saw shape"),
    "three dimensions": ([1, 3, 1], FP32_ROW, InvalidInput, "saw shape"),
    "half a number": ([1, 3], FP32_ROW[:-2], InvalidInput, "saw shape"),
    "too many rows": ([9, 3], FP32_ROW * 9, TooLarge, "9 rows"),
    "NaN": ([1, 3], struct.pack("<3f", 1, float("nan"), 1), InvalidInput, "row 0, column 'x1': saw nan"),
    "infinity": ([2, 3], FP32_ROW + struct.pack("<3f", 0, 0, float("-inf")), InvalidInput, "row 1, column 'x2': saw -inf"),
}  # fmt: skip


@pytest.mark.parametrize(("shape", "data", "kind", "said"), BAD_MATRIX.values(), ids=BAD_MATRIX)
def test_a_raw_matrix_that_lies_or_is_not_finite_is_refused(
    shape: list[int], data: bytes, kind: type[TautError], said: str
) -> None:
    columns = [Column(f"x{index}", DType.FLOAT) for index in range(3)]

    for packed in (True, False):
        decoder = TensorDecoder(columns, outputs=("label",), max_rows=8, packed=packed)
        with pytest.raises(kind, match=said.replace("[", r"\[")):
            decoder.decode(*request(raw("input", "FP32", shape, data)))


def test_numbers_too_large_to_square_are_still_finite() -> None:
    decoder = TensorDecoder([Column("x", DType.FLOAT)], outputs=("label",), max_rows=8, packed=True)

    found = decoder.decode(*request(raw("input", "FP32", [1, 1], struct.pack("<f", -3e38)))).batch

    assert found.rows == struct.pack("<f", -3e38)


BAD_COLUMN = {
    "bytes short of the shape": (EVERY[1], "INT32", [2], b"\0\0\0\0", InvalidInput, "4 bytes, wanted 8"),
    "bytes beyond the shape": (EVERY[1], "INT32", [1], b"\0" * 8, InvalidInput, "8 bytes, wanted 4"),
    "no bool": (EVERY[0], "BOOL", [2], b"\1\2", InvalidInput, "row 1, column 'late': saw 2"),
    "a whole number beyond 63 bits": (EVERY[1], "UINT64", [1], b"\xff" * 8, InvalidInput, "saw 18446744073709551615"),
    "NaN of 16 bits": (EVERY[2], "BF16", [1], b"\xc0\x7f", InvalidInput, "saw nan"),
    "infinity of 64 bits": (EVERY[2], "FP64", [1], struct.pack("<d", float("inf")), InvalidInput, "saw inf"),
    "another datatype": (EVERY[3], "FP32", [1], b"\0" * 4, InvalidInput, "wanted BYTES"),
    "an unknown datatype": (EVERY[2], "FP8", [1], b"\0", InvalidInput, "saw datatype"),
    "text that ends in its length": (EVERY[3], "BYTES", [1], b"\1\0\0", InvalidInput, "end within element 0"),
    "text shorter than its length": (EVERY[3], "BYTES", [1], b"\5\0\0\0abc", InvalidInput, "end within element 0"),
    "text with the longest length": (EVERY[3], "BYTES", [1], b"\xff\xff\xff\xffabc", InvalidInput, "end within"),
    "fewer texts than rows": (EVERY[3], "BYTES", [2], strings(b"a"), InvalidInput, "end within element 1"),
    "more texts than rows": (EVERY[3], "BYTES", [1], strings(b"a", b"b"), InvalidInput, "5 bytes are left over"),
    "no UTF-8": (EVERY[3], "BYTES", [1], strings(b"\xff"), InvalidInput, "no UTF-8"),
    "no date": (EVERY[4], "BYTES", [1], strings(b"soon"), InvalidInput, "wanted a date"),
    "an empty shape": (EVERY[1], "INT8", [], b"\0", InvalidInput, "wanted [n] or [n, 1]"),
    "two wide": (EVERY[1], "INT8", [1, 2], b"\0\0", InvalidInput, "wanted [n] or [n, 1]"),
    "a shape without end": (EVERY[3], "BYTES", [2**62], b"", TooLarge, "too many"),
}  # fmt: skip


@pytest.mark.parametrize(
    ("column", "datatype", "shape", "data", "kind", "said"), BAD_COLUMN.values(), ids=BAD_COLUMN
)
def test_a_raw_column_that_lies_or_does_not_fit_is_refused(
    column: Column, datatype: str, shape: list[int], data: bytes, kind: type[TautError], said: str
) -> None:
    decoder = TensorDecoder([column], outputs=("value",), max_rows=8)

    with pytest.raises(kind) as caught:
        decoder.decode(*request(raw(column.name, datatype, shape, data)))

    assert said in caught.value.message


def test_sizes_that_do_not_add_up_to_the_body_are_malformed(gateway: Gateway, plane: DataPlane) -> None:
    install(gateway, plane, plane.endpoint())
    tensor, data = raw("input", "FP32", [1, 3], FP32_ROW)
    body, length = request((tensor, data))
    without = json.dumps({"inputs": [{"name": "input", "datatype": "FP32", "shape": [1, 3]}]}).encode()
    both = json.dumps({"inputs": [{**tensor, "data": [1, 2, 3]}]}).encode()
    negative = json.dumps({"inputs": [{**tensor, "parameters": {"binary_data_size": -1}}]}).encode()
    for case, (sent, json_bytes, said) in {
        "a byte too few": (body[:-1], length, "11 bytes of the body are left"),
        "a byte too many": (body + b"x", length, "1 bytes after the JSON belong to no tensor"),
        "a length within the JSON": (body, length - 1, "no inference request"),
        "a length beyond the body": (body, len(body) + 1, "wanted a whole number from 0"),
        "a length that is none": (body, "0x10", "wanted a whole number"),
        "a length of many digits": (body, "1" * 5000, "wanted a whole number"),
        "no data at all": (without, len(without), "neither data nor"),
        "data twice": (both + data, len(both), "both data and"),
        "a negative size": (negative + data, len(negative), "binary_data_size is -1"),
    }.items():
        reply = infer(gateway, plane, sent, json_bytes)
        assert (reply.status, said in json.loads(reply.body)["error"]["message"]) == (400, True), case
    rows = json.dumps({"instances": [{"x0": 1, "x1": 2, "x2": 3}]}).encode()
    assert infer(gateway, plane, rows, len(rows), "/v1/predict/delay").status == 400
    decoder = TensorDecoder([Column("x", DType.FLOAT)], outputs=("value",), max_rows=8)
    with pytest.raises(Malformed, match="no header Inference-Header-Content-Length"):
        decoder.decode(json.dumps({"inputs": [tensor]}).encode())


def test_the_same_json_before_other_rows_is_read_once_and_held_to_the_same_rules() -> None:
    columns = [Column(f"x{index}", DType.FLOAT) for index in range(3)]
    decoder = TensorDecoder(columns, outputs=("label",), max_rows=8, packed=True)
    body, length = request(
        raw("input", "FP32", [2, 3], FP32_ROW * 2), parameters={"binary_data_output": True}
    )
    other = np.arange(6, dtype="<f4").tobytes()

    first, again = decoder.decode(body, length), decoder.decode(body[:length] + other, length)

    assert (first.batch.rows, again.batch.rows) == (FP32_ROW * 2, other)
    assert (again.batch.count, again.id, again.outputs, again.binary) == (2, None, None, ("label",))
    for data, kind in ((other[:-1], Malformed), (other + b"x", Malformed), (b"", Malformed)):
        with pytest.raises(kind):
            decoder.decode(body[:length] + data, length)
    with pytest.raises(InvalidInput, match="row 1, column 'x2': saw nan"):
        decoder.decode(body[:length] + other[:-4] + struct.pack("<f", float("nan")), length)


def test_what_json_says_of_one_request_is_never_taken_for_anothers() -> None:
    columns = [Column(f"x{index}", DType.FLOAT) for index in range(3)]
    decoder = TensorDecoder(columns, outputs=("label",), max_rows=8, packed=True)
    tensor = raw("input", "FP32", [1, 3], FP32_ROW)
    plain = {"inputs": [{"name": "input", "datatype": "FP32", "shape": [1, 3], "data": [4, 5, 6]}]}
    encoded = json.dumps(plain).encode()

    for _ in range(2):
        assert [decoder.decode(*request(tensor, id=name)).id for name in ("a", "b")] == ["a", "b"]
        assert decoder.decode(encoded, len(encoded)).batch.rows == struct.pack("<3f", 4, 5, 6)
        with pytest.raises(Malformed, match="12 bytes after the JSON"):
            decoder.decode(encoded + FP32_ROW, len(encoded))
    for index in range(600):  # many a form: none is kept for ever
        assert decoder.decode(*request(tensor, parameters={"other": index})).batch.count == 1


def test_raw_answers_of_other_sizes_and_other_outputs_have_their_own_json(
    gateway: Gateway, plane: DataPlane
) -> None:
    install(gateway, plane, plane.endpoint())
    for _ in range(2):
        for rows in (1, 3, 2):
            tensor = raw("input", "FP32", [rows, 3], FP32_ROW * rows)
            for names in (["label"], ["probability"], ["probability", "label"]):
                outputs = [{"name": name, "parameters": {"binary_data": True}} for name in names]
                document, data = read(infer(gateway, plane, *request(tensor, outputs=outputs)))
                assert [output["name"] for output in document["outputs"]] == names
                assert [output["shape"][0] for output in document["outputs"]] == [rows] * len(names)
                assert {name: len(part) for name, part in data.items()} == {
                    name: rows * (8 if name == "label" else 16) for name in names
                }
            named, _ = read(
                infer(gateway, plane, *request(tensor, id="x", parameters={"binary_data_output": True}))
            )
            assert named["id"] == "x"
