"""Compressed request bodies: read within the bound of any body, refused where they are cut, doubled or bombs."""

from __future__ import annotations

import gzip
import json
import zlib
from collections.abc import Callable, Iterator

import pytest
import zstandard

from taut.adapters.world import SystemRandom
from taut.serving.errors import Malformed, TooLarge
from taut.serving.gateway import Gateway, Reply, compile_snapshot
from taut.serving.gateway.bodies import inflated
from taut.testing.serving import DataPlane, open_gateway

COMPRESS: dict[str, Callable[[bytes], bytes]] = {
    "gzip": gzip.compress, "x-gzip": gzip.compress, "deflate": zlib.compress, "zstd": zstandard.compress,
}  # fmt: skip
BODY = json.dumps({"instances": [{"x0": 1.0, "x1": 0.5, "x2": -0.25}] * 20}).encode()


@pytest.fixture
def gateway(plane: DataPlane) -> Iterator[Callable[[bytes, str], Reply]]:
    with open_gateway(plane.home, SystemRandom()) as made:
        made.install(compile_snapshot(plane.snapshot(plane.endpoint()), home=plane.home, before=None))
        yield lambda body, encoding: post(made, plane.token(), body, encoding)


def post(gateway: Gateway, bearer: str, body: bytes, encoding: str) -> Reply:
    headers = [(b"authorization", f"Bearer {bearer}".encode()), (b"content-encoding", encoding.encode())]
    found = gateway.answer("POST", "/v1/predict/delay", headers, body)
    assert isinstance(found, Reply)
    return found


@pytest.mark.parametrize("encoding", [*COMPRESS, "GZIP", " deflate "])
def test_a_compressed_body_is_read(gateway: Callable[[bytes, str], Reply], encoding: str) -> None:
    reply = gateway(COMPRESS[encoding.strip().lower()](BODY), encoding)

    assert reply.status == 200
    assert len(json.loads(reply.body)["predictions"]) == 20


@pytest.mark.parametrize("encoding", ["br", "gzip, gzip", "gzip,zstd", "", "compress", "\xff"])
def test_another_encoding_or_several_are_refused_with_those_that_are_read(
    gateway: Callable[[bytes, str], Reply], encoding: str
) -> None:
    reply = gateway(BODY, encoding)

    assert reply.status == 415
    assert json.loads(reply.body)["error"]["code"] == "unsupported_encoding"
    assert dict(reply.header_list())[b"accept-encoding"] == b"gzip, deflate, zstd"


@pytest.mark.parametrize("encoding", ["gzip", "deflate", "zstd"])
def test_a_stream_that_is_cut_or_goes_on_is_malformed(encoding: str) -> None:
    whole = COMPRESS[encoding](BODY)
    headers = {b"content-encoding": encoding.encode()}

    assert inflated(headers, whole, 10_000) == BODY
    for bad in (
        b"",
        whole[:-1],
        whole[: len(whole) // 2],
        whole[:3],
        whole + b"x",
        whole + whole,
        BODY,
        b"\0" * 40,
    ):
        with pytest.raises(Malformed):
            inflated(headers, bad, 10_000)


@pytest.mark.parametrize("encoding", ["gzip", "deflate", "zstd"])
def test_a_bomb_is_given_up_at_the_bound_and_never_whole_in_memory(encoding: str) -> None:
    import tracemalloc

    bomb = COMPRESS[encoding](bytes(200 * 2**20))
    headers = {b"content-encoding": encoding.encode()}
    tracemalloc.start()
    try:
        for bound in (1000, 8 * 2**20):
            with pytest.raises(TooLarge, match="when inflated"):
                inflated(headers, bomb, bound)
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()

    assert peak < 32 * 2**20


def test_the_bound_holds_to_the_byte() -> None:
    headers = {b"content-encoding": b"gzip"}

    assert len(inflated(headers, gzip.compress(bytes(1000)), 1000)) == 1000
    with pytest.raises(TooLarge):
        inflated(headers, gzip.compress(bytes(1001)), 1000)


def test_a_body_that_grows_a_hundredfold_is_given_up_early() -> None:
    small = gzip.compress(bytes(4 * 2**20))
    with pytest.raises(TooLarge, match="100 times what was sent"):
        inflated({b"content-encoding": b"gzip"}, small, 8 * 2**20)


def test_a_zstd_window_beyond_the_bound_is_refused_before_memory_is_taken_for_it() -> None:
    parameters = zstandard.ZstdCompressionParameters(window_log=27)
    machine = zstandard.ZstdCompressor(compression_params=parameters).compressobj()
    body = machine.compress(BODY) + machine.flush()

    with pytest.raises(Malformed, match="no zstd"):
        inflated({b"content-encoding": b"zstd"}, body, 10_000)
