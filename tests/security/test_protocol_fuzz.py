"""Whatever is sent as raw tensors, as a compressed body or over gRPC: an answer, or a clear refusal; no failure of ours."""

from __future__ import annotations

import asyncio
import gzip
import json
import struct
import threading
import zlib
from collections.abc import Iterator
from contextlib import closing
from typing import Any, NamedTuple

import grpc
import pytest
import zstandard
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st

from taut.adapters.keys.file import FileKeys
from taut.adapters.world import SystemRandom
from taut.core.errors import TautError
from taut.core.schema import Column, DType, ModelInput, ModelSignature
from taut.entrypoints.errors import GRPC
from taut.serving.gateway import Gateway, GatewayServer, Reply, compile_snapshot
from taut.serving.gateway.tensors import TensorDecoder
from taut.serving.rpc import RpcServer, Service, Upstream
from taut.serving.rpc.messages import INFERENCE, Messages
from taut.serving.snapshot import EndpointConfig
from taut.testing.serving import DataPlane, columns_model, listen_somewhere, open_gateway

QUICK = settings(
    max_examples=200,
    deadline=None,
    suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow],
)
EVERY = (
    Column("late", DType.BOOL), Column("stops", DType.INT), Column("distance", DType.FLOAT, nullable=True),
    Column("carrier", DType.STRING), Column("day", DType.DATE), Column("at", DType.DATETIME),
)  # fmt: skip
NAMES = ("input", "x0", "x1", "x2", *(column.name for column in EVERY))
DATATYPES = (
    "BOOL", "INT8", "INT16", "INT32", "INT64", "UINT8", "UINT16", "UINT32", "UINT64", "FP16", "BF16", "FP32", "FP64",
    "BYTES", "fp32", "", "FP128",
)  # fmt: skip
_WIDTHS = {
    "BOOL": 1,
    "INT8": 1,
    "UINT8": 1,
    "INT16": 2,
    "FP16": 2,
    "BF16": 2,
    "INT64": 8,
    "UINT64": 8,
    "FP64": 8,
}

sizes = st.one_of(st.integers(-2, 30), st.sampled_from([2**31, 2**63, -(2**63), 2**64, 10**30]))
shapes = st.lists(sizes, max_size=4)
texts = st.lists(st.binary(max_size=12), max_size=4).map(
    lambda parts: b"".join(struct.pack("<I", len(part)) + part for part in parts)
)
raws = st.one_of(
    st.binary(max_size=48), texts, st.sampled_from([b"\0" * 12, struct.pack("<3f", 1, 2, 3), b"\xff" * 24])
)


@st.composite
def tensors(draw: st.DrawFn) -> tuple[dict[str, Any], bytes]:
    """A tensor of the binary extension: often true in all, and with something that lies in the rest."""
    name, datatype = draw(st.sampled_from(NAMES) | st.text(max_size=5)), draw(st.sampled_from(DATATYPES))
    raw = draw(raws)
    count = len(raw) // _WIDTHS.get(datatype, 4)
    shape = draw(st.sampled_from([[count], [count, 1], [len(raw) // 12, 3]]) | shapes)
    size = draw(st.just(len(raw)) | sizes | st.none() | st.text(max_size=2))
    tensor: dict[str, Any] = {"name": name, "datatype": datatype, "shape": shape}
    if size is not None:
        tensor["parameters"] = {"binary_data_size": size}
    if draw(st.integers(0, 9)) == 0:
        tensor["data"] = draw(st.lists(st.none() | st.floats() | st.text(max_size=3), max_size=3))
    return tensor, raw


@st.composite
def bodies(draw: st.DrawFn) -> tuple[bytes, bytes]:
    """A body, and what its header says of how much of it is JSON."""
    made = draw(st.lists(tensors(), max_size=3))
    document: dict[str, Any] = {"inputs": [tensor for tensor, _ in made]}
    if draw(st.booleans()):
        document["parameters"] = {"binary_data_output": draw(st.booleans())}
    if draw(st.integers(0, 4)) == 0:
        document["outputs"] = [{"name": "probability", "parameters": {"binary_data": True}}]
    head = json.dumps(document).encode()
    body = head + b"".join(raw for _, raw in made) + draw(st.sampled_from([b"", b"", b"", b"x"]))
    said = draw(st.just(len(head)) | st.integers(-1, len(body) + 2) | st.text(max_size=6))
    return body, str(said).encode()


class Alive(NamedTuple):
    """A gateway with the gRPC face before it, both in this process. failures: those of ours, in the gRPC face."""

    plane: DataPlane
    gateway: Gateway
    channel: grpc.Channel
    messages: Messages
    failures: list[BaseException]


def words(plane: DataPlane) -> EndpointConfig:
    columns = (Column("carrier", DType.STRING), Column("distance", DType.FLOAT))
    inputs = tuple(ModelInput(column=column) for column in columns)
    signature = ModelSignature(request=columns, inputs=inputs, output="value", tensor="columns")
    return EndpointConfig(name="words", live=plane.served(columns_model(["distance"], "carrier"), signature))


@pytest.fixture(scope="module")
def alive(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Alive]:
    home = tmp_path_factory.mktemp("fuzz")
    plane = DataPlane(home, FileKeys(home / "keys", random=SystemRandom()))
    failures: list[BaseException] = []
    started, ports = threading.Event(), list[int]()
    loop, stop = asyncio.new_event_loop(), asyncio.Event()

    async def serve(gateway: Gateway) -> None:
        listener = listen_somewhere()
        server = GatewayServer(gateway, listener)
        await server.start()
        upstream = Upstream("127.0.0.1", listener.getsockname()[1], connections=8)
        rpc = RpcServer(Service(upstream, codes=GRPC, log_failure=failures.append), "127.0.0.1", 0)
        await rpc.start()
        ports.append(rpc.port)
        started.set()
        await stop.wait()
        await rpc.drain(timeout_s=1.0)
        upstream.close()
        await server.drain(timeout_s=1.0)
        listener.close()

    with open_gateway(plane.home, SystemRandom()) as gateway:
        snapshot = plane.snapshot(plane.endpoint(), words(plane))
        gateway.install(compile_snapshot(snapshot, home=plane.home, before=None))
        thread = threading.Thread(target=lambda: loop.run_until_complete(serve(gateway)))
        thread.start()
        assert started.wait(90)
        with closing(grpc.insecure_channel(f"127.0.0.1:{ports[0]}")) as channel:
            yield Alive(plane, gateway, channel, Messages(), failures)
        loop.call_soon_threadsafe(stop.set)
        thread.join(90)
        loop.close()


@pytest.fixture(scope="module")
def own(alive: Alive) -> Iterator[Gateway]:
    """A gateway of this thread over the same snapshot; it raises what fails in it."""
    with open_gateway(alive.plane.home / "own", SystemRandom()) as gateway:
        snapshot = alive.plane.snapshot(alive.plane.endpoint(), words(alive.plane))
        gateway.install(compile_snapshot(snapshot, home=alive.plane.home, before=None))
        yield gateway


def ask(alive: Alive, gateway: Gateway, path: str, body: bytes, **headers: bytes) -> Reply:
    sent = [(b"authorization", f"Bearer {alive.plane.api_key}".encode())]
    sent += [(name.replace("_", "-").encode(), value) for name, value in headers.items()]
    found = gateway.answer("POST", path, sent, body)
    return (
        found if isinstance(found, Reply) else asyncio.run(found)
    )  # a moment's stall, and one endpoint waits its turn


@QUICK
@given(sent=bodies(), endpoint=st.sampled_from(["delay", "words"]))
@example(sent=(b"", b"0"), endpoint="delay")
def test_any_raw_body_is_answered_or_refused_with_what_is_wrong(
    alive: Alive, own: Gateway, sent: tuple[bytes, bytes], endpoint: str
) -> None:
    body, json_bytes = sent

    reply = ask(alive, own, f"/v2/models/{endpoint}/infer", body, inference_header_content_length=json_bytes)

    assert reply.status in (200, 400, 413, 422), reply.body
    if reply.status != 200:
        assert json.loads(reply.body)["error"]["message"]


@QUICK
@given(sent=bodies(), packed=st.booleans())
def test_a_decoder_of_any_column_raises_our_errors_only_and_gives_whole_rows(
    sent: tuple[bytes, bytes], packed: bool
) -> None:
    body, json_bytes = sent
    length = min(int(json_bytes), len(body)) if json_bytes.isdigit() else 0
    for columns in (EVERY, EVERY[:3], EVERY[2:3]):
        decoder = TensorDecoder(columns, outputs=("value",), max_rows=16, packed=packed)
        try:
            batch = decoder.decode(body, length).batch
        except TautError:
            continue
        assert 0 < batch.count <= 16
        if batch.packed:
            assert len(batch.rows) == batch.count * len(columns) * 4
        else:
            assert {len(row) for row in batch.rows} == {len(columns)}


@QUICK
@given(
    plain=st.binary(max_size=400) | st.just(b'{"instances":[{"x0":1,"x1":2,"x2":3}]}'),
    compress=st.sampled_from([gzip.compress, zlib.compress, zstandard.compress, bytes]),
    encoding=st.sampled_from([b"gzip", b"deflate", b"zstd", b"br", b"gzip, zstd", b"", b"identity"]),
    cut=st.integers(0, 20),
    flip=st.none() | st.tuples(st.integers(0, 400), st.integers(1, 255)),
    more=st.sampled_from([b"", b"", b"\0", b"more"]),
)  # fmt: skip
def test_any_compressed_body_is_answered_or_refused(
    alive: Alive, own: Gateway, plain: bytes, compress: Any, encoding: bytes, cut: int, flip: Any, more: bytes
) -> None:
    body = bytearray(compress(plain))
    if flip is not None and flip[0] < len(body):
        body[flip[0]] ^= flip[1]
    sent = bytes(body[: len(body) - max(0, cut - 10)]) + more

    reply = ask(alive, own, "/v1/predict/delay", sent, content_encoding=encoding)

    assert reply.status in (200, 400, 413, 415, 422), reply.body


# gRPC

contents = st.fixed_dictionaries(
    {},
    optional={
        "bool_contents": st.lists(st.booleans(), max_size=4),
        "int_contents": st.lists(st.integers(-(2**31), 2**31 - 1), max_size=4),
        "int64_contents": st.lists(st.integers(-(2**63), 2**63 - 1), max_size=4),
        "uint_contents": st.lists(st.integers(0, 2**32 - 1), max_size=4),
        "uint64_contents": st.lists(st.integers(0, 2**64 - 1), max_size=4),
        "fp32_contents": st.lists(st.floats(width=32), max_size=6),
        "fp64_contents": st.lists(st.floats(), max_size=6),
        "bytes_contents": st.lists(st.binary(max_size=6), max_size=4),
    },
)
characters = st.characters(exclude_categories=["Cs"])
inputs = st.fixed_dictionaries(
    {
        "name": st.sampled_from(NAMES) | st.text(characters, max_size=5),
        "datatype": st.sampled_from(DATATYPES),
        "shape": st.lists(st.integers(-2, 4) | st.integers(-(2**63), 2**63 - 1), max_size=3),
    },
    optional={"contents": contents},
)
messages = st.fixed_dictionaries(
    {
        "model_name": st.sampled_from(["delay", "words", "", "dely", "../delay"])
        | st.text(characters, max_size=8)
    },
    optional={
        "model_version": st.sampled_from(["", "1", "9", "x/y"]) | st.text(characters, max_size=4),
        "id": st.text(characters, max_size=6),
        "inputs": st.lists(inputs, max_size=3),
        "outputs": st.lists(
            st.fixed_dictionaries({"name": st.sampled_from(["label", "value", "x"])}), max_size=2
        ),
        "raw_input_contents": st.lists(raws, max_size=3),
    },
)
CLEAR = ("OK", "INVALID_ARGUMENT", "NOT_FOUND", "UNAUTHENTICATED", "RESOURCE_EXHAUSTED", "UNIMPLEMENTED")
METHODS = ("ModelInfer", "ModelReady", "ModelMetadata", "ServerLive", "ServerReady", "ServerMetadata")


def call(alive: Alive, method: str, request: bytes, *metadata: tuple[str, str]) -> str:
    """Return the name of the status code; a call that hangs ends as DEADLINE_EXCEEDED."""
    made = alive.channel.unary_unary(f"/{INFERENCE}/{method}").future(request, metadata=metadata, timeout=60)
    code = str(made.code().name)
    assert code == "OK" or made.details()
    assert "Traceback" not in made.details()
    return code


@QUICK
@given(fields=messages)
def test_any_message_of_grpc_is_answered_or_refused_with_a_clear_code(
    alive: Alive, fields: dict[str, Any]
) -> None:
    request = alive.messages["ModelInferRequest"](**fields).SerializeToString()

    code = call(alive, "ModelInfer", request, ("authorization", f"Bearer {alive.plane.api_key}"))

    assert code in CLEAR, code
    assert not alive.failures


@QUICK
@given(
    method=st.sampled_from(METHODS),
    request=st.binary(max_size=80),
    metadata=st.lists(
        st.tuples(
            st.sampled_from(["authorization", "taut-priority", "taut-subject", "traceparent"]),
            st.text(st.characters(min_codepoint=32, max_codepoint=126), max_size=20),
        ),
        max_size=3,
    ),
)  # fmt: skip
def test_any_bytes_and_any_metadata_of_grpc_are_answered_or_refused_with_a_clear_code(
    alive: Alive, method: str, request: bytes, metadata: list[tuple[str, str]]
) -> None:
    code = call(alive, method, request, *metadata)

    assert code in CLEAR, code
    assert not alive.failures


def test_a_failure_of_ours_would_be_seen_by_these_tests(alive: Alive, own: Gateway) -> None:
    assert own.active is not None
    endpoint = own.active.endpoints["delay"]

    class Broken:
        def decode(self, _body: bytes, _json_bytes: int | None = None) -> Any:
            raise ValueError("planted")

    whole = endpoint.tensors
    endpoint.tensors = Broken()  # type: ignore[misc, assignment]  # a planted fault
    try:
        with pytest.raises(AssertionError, match="the gateway itself failed"):
            ask(alive, own, "/v2/models/delay/infer", b"{}")
    finally:
        endpoint.tensors = whole  # type: ignore[misc]  # as above
