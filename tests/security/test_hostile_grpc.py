"""Hostile HTTP/2 on the gRPC port: what grpc itself does about it, and that nobody else notices, nor the gateway behind."""

from __future__ import annotations

import contextlib
import os
import struct
import subprocess
import sys
from collections.abc import Iterator
from contextlib import closing
from typing import NamedTuple

import grpc
import pytest
from attacker import connect, hear, post, push, resident_bytes, says_well, sockets, until

from taut.adapters.keys.file import FileKeys
from taut.adapters.world import SystemRandom
from taut.serving.rpc.messages import HEALTH, INFERENCE, Messages
from taut.testing.ports import free_ports
from taut.testing.serving import DataPlane, GatewayProcess

pytestmark = [
    pytest.mark.xdist_group("hostile-grpc"),
    pytest.mark.processes,
    pytest.mark.skipif(not os.path.isdir("/proc/self/fd"), reason="looks into /proc"),
]

MIB = 2**20
PREFACE = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"
DATA, HEADERS, RST, SETTINGS, PING, WINDOW, CONTINUATION = 0, 1, 3, 4, 6, 8, 9
END_STREAM, END_HEADERS = 1, 4


def frame(kind: int, payload: bytes = b"", *, flags: int = 0, stream: int = 0) -> bytes:
    return struct.pack(">I", len(payload))[1:] + struct.pack(">BBI", kind, flags, stream) + payload


def literal(name: bytes, value: bytes) -> bytes:
    """A header field as HPACK has it, neither indexed nor compressed."""
    return b"\x00" + bytes([len(name)]) + name + bytes([len(value)]) + value


HELLO = PREFACE + frame(SETTINGS)
CALL = (
    b"\x83\x86"  # :method POST, :scheme http
    + literal(b":path", f"/{HEALTH}/Check".encode())
    + literal(b":authority", b"x")
    + literal(b"content-type", b"application/grpc")
    + literal(b"te", b"trailers")
)


class Target(NamedTuple):
    plane: DataPlane
    gateway: GatewayProcess
    port: int
    pid: int

    def is_well(self) -> bool:
        """Whether a fresh client of gRPC is answered, and one of the gateway."""
        messages = Messages()
        request = messages["HealthCheckRequest"]().SerializeToString()
        with closing(grpc.insecure_channel(f"127.0.0.1:{self.port}")) as channel:
            answer = channel.unary_unary(f"/{HEALTH}/Check")(request, timeout=60)
        return bool(messages.parse("HealthCheckResponse", answer).status == 1) and says_well(
            self.gateway.port, post(self.plane.api_key)
        )


@pytest.fixture(scope="module")
def target(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Target]:
    home = tmp_path_factory.mktemp("hostile-grpc")
    plane = DataPlane(home, FileKeys(home / "keys", random=SystemRandom()))
    plane.issue(plane.endpoint())
    port = free_ports()
    ready, told = os.pipe()
    with GatewayProcess(home) as gateway, (home / "grpc.log").open("wb") as log:
        gateway.start()
        command = [
            sys.executable, "-P", "-m", "taut.entrypoints.grpc_main", "--port", str(port),
            "--gateways-port", str(gateway.port), "--ready-fd", str(told),
        ]  # fmt: skip
        process = subprocess.Popen(command, pass_fds=[told], stdout=log, stderr=log)
        os.close(told)
        try:
            with open(ready, "rb") as said:
                assert said.readline() == b"ready\n"
            yield Target(plane, gateway, port, process.pid)
        finally:
            process.terminate()
            process.wait(timeout=90)


BROKEN = {
    "HTTP/1.1": b"GET / HTTP/1.1\r\nhost: x\r\n\r\n",
    "half a preface": PREFACE[:10] + b"XX" + bytes(50),
    "no settings": PREFACE + frame(PING, bytes(8)),
    "a frame that is too long": HELLO + b"\xff\xff\xff" + bytes(6) + bytes(2 * MIB),
    "settings of an odd length": PREFACE + frame(SETTINGS, bytes(5)),
    "settings on a stream": HELLO + frame(SETTINGS, stream=1),
    "a ping that is too short": HELLO + frame(PING, bytes(3)),
    "headers on no stream": HELLO + frame(HEADERS, CALL, flags=END_HEADERS),
    "a table that is not there": HELLO + frame(HEADERS, b"\xff\xff\xff\xff\x7f", flags=END_HEADERS, stream=1),
    "a continuation of nothing": HELLO + frame(CONTINUATION, CALL, flags=END_HEADERS, stream=1),
}
IGNORED = ("headers on no stream",)  # by grpc, which goes on with the connection


@pytest.mark.parametrize("shape", BROKEN)
def test_frames_that_are_none_end_the_connection_and_nothing_else(target: Target, shape: str) -> None:
    with connect(target.port) as client:
        with contextlib.suppress(ConnectionError):
            client.sendall(BROKEN[shape])
        heard = hear(client, 0 if shape in IGNORED else None, quiet_s=1.0)

    assert heard.ended != (shape in IGNORED)
    assert target.is_well()


FLOODS = {
    "rapid resets": lambda number: (
        frame(HEADERS, CALL, flags=END_HEADERS, stream=2 * number + 1)
        + frame(RST, b"\x00\x00\x00\x08", stream=2 * number + 1)
    ),
    "settings": lambda _: frame(SETTINGS),
    "pings": lambda _: frame(PING, bytes(8)),
    "windows": lambda _: frame(WINDOW, struct.pack(">I", 1)),
    "calls without an end": lambda number: frame(HEADERS, CALL, flags=END_HEADERS, stream=2 * number + 1),
    "empty data": lambda number: (
        frame(HEADERS, CALL, flags=END_HEADERS, stream=1) if number == 0 else frame(DATA, stream=1)
    ),
    "a header that goes on": lambda number: (
        frame(HEADERS, CALL, stream=1)
        if number == 0
        else frame(CONTINUATION, literal(b"a", b"b" * 100) * 10, stream=1)
    ),
}


@pytest.mark.parametrize("kind", FLOODS)
def test_a_flood_of_frames_costs_little_and_stalls_nobody(target: Target, kind: str) -> None:
    assert target.is_well()
    before, gateway_before = resident_bytes(target.pid), sockets(target.gateway.process.pid)  # type: ignore[union-attr]  # it runs
    make = FLOODS[kind]
    with connect(target.port, 0.5) as client:
        client.sendall(HELLO)
        for start in range(0, 20_000, 500):
            part = b"".join(make(number) for number in range(start, start + 500))
            if push(client, part, most_bytes=1) == 0:
                break  # cut off, or not read any more
        assert target.is_well()
        grown = resident_bytes(target.pid) - before

    assert grown < 100 * MIB, f"{grown / MIB:.0f} MiB"
    assert sockets(target.gateway.process.pid) - gateway_before < 130  # type: ignore[union-attr]  # as above


def test_a_message_beyond_the_bound_is_refused_before_it_is_read(target: Target) -> None:
    with closing(grpc.insecure_channel(f"127.0.0.1:{target.port}")) as channel:
        call = channel.unary_unary(f"/{INFERENCE}/ModelInfer").future(bytes(64 * MIB), timeout=60)
        assert call.code() is grpc.StatusCode.RESOURCE_EXHAUSTED

    assert target.is_well()


def test_many_idle_channels_stall_nobody_and_leave_nothing(target: Target) -> None:
    before, memory = sockets(target.pid), resident_bytes(target.pid)
    with contextlib.ExitStack() as stack:
        for number in range(400):
            client = stack.enter_context(connect(target.port))
            client.sendall(HELLO if number % 2 else b"")
        until(lambda: sockets(target.pid) >= before + 300)

        assert target.is_well()
        assert resident_bytes(target.pid) - memory < 150 * MIB
    until(lambda: sockets(target.pid) <= before + 5)
    assert target.is_well()
