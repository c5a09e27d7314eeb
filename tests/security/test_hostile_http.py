"""Hostile HTTP against a real gateway process: each gets a clear refusal, and nobody else notices."""

from __future__ import annotations

import contextlib
import os
import resource
import socket
import struct
from collections.abc import Iterator
from typing import NamedTuple

import pytest
from attacker import (
    BODY,
    LIVE,
    chunked,
    connect,
    descriptors,
    hear,
    post,
    push,
    resident_bytes,
    say,
    says_well,
    until,
)

from taut.adapters.keys.file import FileKeys
from taut.adapters.world import SystemRandom
from taut.serving.predictions import PredictionReader
from taut.testing.serving import DataPlane, GatewayProcess

pytestmark = [
    pytest.mark.xdist_group("hostile-http"),
    pytest.mark.processes,
    pytest.mark.skipif(not os.path.isdir("/proc/self/fd"), reason="looks into /proc"),
]

MIB = 2**20


class Target(NamedTuple):
    plane: DataPlane
    gateway: GatewayProcess

    @property
    def port(self) -> int:
        return self.gateway.port

    @property
    def key(self) -> str:
        return self.plane.api_key

    @property
    def pid(self) -> int:
        assert self.gateway.process is not None
        return self.gateway.process.pid

    def answers(self) -> int:
        """How many predictions were ever made, by the log."""
        return len(list(PredictionReader(self.plane.home / "log" / "predictions").records()))

    def is_well(self) -> bool:
        """Whether somebody else is answered."""
        return says_well(self.port, post(self.key))


@pytest.fixture(scope="module")
def target(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Target]:
    home = tmp_path_factory.mktemp("hostile")
    plane = DataPlane(home, FileKeys(home / "keys", random=SystemRandom()))
    plane.issue(plane.endpoint())
    with GatewayProcess(home) as gateway:
        gateway.start()
        yield Target(plane, gateway)


TE = b"transfer-encoding: chunked"
NO_REQUEST = {
    # the line
    "no line": b"\r\n\r\nhello\r\n\r\n",
    "no method of HTTP": b"FROB /v2 HTTP/1.1\r\nhost: x\r\n\r\n",
    "small letters": b"get /v2 http/1.1\r\nhost: x\r\n\r\n",
    "tabs between": b"GET\t/v2\tHTTP/1.1\r\nhost: x\r\n\r\n",
    "a space in the path": b"GET /v2 /x HTTP/1.1\r\nhost: x\r\n\r\n",
    "NUL in the path": b"GET /v2\x00 HTTP/1.1\r\nhost: x\r\n\r\n",
    "bytes in the path": b"GET /v2/\xc3\xa9 HTTP/1.1\r\nhost: x\r\n\r\n",
    "a path without slash": b"GET v2 HTTP/1.1\r\nhost: x\r\n\r\n",
    "0.9": b"GET /v2\r\n\r\n",
    "0.9 that says so": b"GET /v2 HTTP/0.9\r\nhost: x\r\n\r\n",
    "2 without its preface": b"GET /v2 HTTP/2.0\r\nhost: x\r\n\r\n",
    "the preface of 2": b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n\x00\x00\x00\x04\x00\x00\x00\x00\x00",
    "1.2": b"GET /v2 HTTP/1.2\r\nhost: x\r\n\r\n",
    "TLS": b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03" + bytes(64),
    "a tunnel": b"CONNECT x:443 HTTP/1.1\r\nhost: x\r\n\r\n" + LIVE,
    # headers
    "lines that end in LF": b"GET /v2 HTTP/1.1\nhost: x\n\n",
    "lines that end in CR": b"GET /v2 HTTP/1.1\rhost: x\r\r",
    "a folded header": b"GET /v2 HTTP/1.1\r\nhost: x\r\nx-a: b\r\n c\r\n\r\n",
    "a length folded into a header": b"POST /v2 HTTP/1.1\r\nx-a: b\r\n\tcontent-length: 5\r\n\r\nhello",
    "NUL in a value": b"GET /v2 HTTP/1.1\r\nhost: x\x00y\r\n\r\n",
    "NUL in a name": b"GET /v2 HTTP/1.1\r\nho\x00st: x\r\n\r\n",
    "a control character": b"GET /v2 HTTP/1.1\r\nhost: x\x01\r\n\r\n",
    "a space before the colon": b"GET /v2 HTTP/1.1\r\nhost : x\r\n\r\n",
    "no name": b"GET /v2 HTTP/1.1\r\n: x\r\n\r\n",
    "no colon": b"GET /v2 HTTP/1.1\r\nhost x\r\n\r\n",
    # lengths
    "a length with a sign": post(None, b"content-length: +46"),
    "a negative length": post(None, b"content-length: -1"),
    "a length in hex": post(None, b"content-length: 0x2e"),
    "two lengths in one": post(None, b"content-length: 46, 46"),
    "a length twice": post(None, b"content-length: 46\r\ncontent-length: 46"),
    "two lengths": post(None, b"content-length: 46\r\ncontent-length: 5"),
    "no length": post(None, b"content-length: "),
    "a length beyond 64 bits": post(None, b"content-length: 99999999999999999999"),
    "a length with a space": post(None, b"content-length: 4 6"),
    # smuggling: whoever stands before us may end the request elsewhere
    "a length and chunks": post(None, b"content-length: 4\r\n" + TE, body=chunked()),
    "chunks and a length": post(None, TE + b"\r\ncontent-length: 4", body=chunked()),
    "an unknown coding": post(None, b"transfer-encoding: xchunked", body=chunked()),
    "a coding before chunks": post(None, b"transfer-encoding: gzip, chunked", body=chunked()),
    "a coding after chunks": post(None, b"transfer-encoding: chunked, identity", body=chunked()),
    "identity, then chunks": post(None, b"transfer-encoding: identity\r\n" + TE, body=chunked()),
    "identity": post(None, b"transfer-encoding: identity\r\ncontent-length: 46"),
    "chunks twice": post(None, TE + b"\r\n" + TE, body=chunked()),
    "a quoted coding": post(None, b'transfer-encoding: "chunked"', body=chunked()),
    "a coding behind a tab": post(None, b"transfer-encoding:\x0bchunked", body=chunked()),
    "a folded coding": post(None, b"transfer-encoding:\r\n chunked", body=chunked()),
    "a space before its colon": post(None, b"transfer-encoding : chunked", body=chunked()),
    "chunks in 1.0": post(None, TE, body=chunked()).replace(b"HTTP/1.1", b"HTTP/1.0"),
    "an upgrade with a body": post(None, b"connection: upgrade", b"upgrade: h2c"),
    "an upgrade in chunks": post(None, b"connection: upgrade", b"upgrade: h2c", TE, body=chunked()),
    # chunks
    "a negative chunk": post(None, TE, body=chunked(size=b"-5")),
    "a chunk with a sign": post(None, TE, body=chunked(size=b"+2e")),
    "a chunk with 0x": post(None, TE, body=chunked(size=b"0x2e")),
    "a chunk without size": post(None, TE, body=chunked(size=b"")),
    "a chunk beyond 64 bits": post(None, TE, body=chunked(size=b"1000000000000002e")),
    "a chunk that is longer than it says": post(None, TE, body=chunked(size=b"20")),
    "chunks that end in LF": post(None, TE, body=b"2e\n" + BODY + b"\n0\n\n"),
    "an extension that ends in LF": post(None, TE, body=b"2e;a\n" + BODY + b"\r\n0\r\n\r\n"),
    "a chunk that does not end": post(None, TE, body=b"2e\r\n" + BODY + b"XX0\r\n\r\n"),
    "a length among the trailers": post(None, TE, body=chunked(end=b"0\r\ncontent-length: 5\r\n\r\n")),
}  # fmt: skip


@pytest.mark.parametrize("shape", NO_REQUEST)
def test_what_is_no_request_or_ends_in_two_places_gets_one_400_and_nothing_after_it(
    target: Target, shape: str
) -> None:
    sent = NO_REQUEST[shape].replace(
        b"host: x", b"host: x\r\nauthorization: Bearer " + target.key.encode(), 1
    )
    before = target.answers()

    heard = say(target.port, sent + LIVE, hang_up=True, answers=None)

    assert heard.statuses == [400], heard.data
    assert heard.ended
    assert b"connection: close" in heard.data
    assert heard.error()["code"] == "malformed"
    assert target.answers() == before


WELL_FORMED = {
    "chunks": (post("KEY", TE, body=chunked()), 200),
    "chunks in capitals": (post("KEY", b"Transfer-Encoding: CHUNKED", body=chunked()), 200),
    "chunks with extensions": (post("KEY", TE, body=chunked(size=b'2e;a=b;c="d"')), 200),
    "chunks of a byte": (post("KEY", TE, body=b"".join(b"1\r\n%c\r\n" % byte for byte in BODY) + b"0\r\n\r\n"), 200),
    "empty lines ahead": (b"\r\n\r\n" + post("KEY"), 200),
    "an absolute target": (b"GET http://elsewhere/v2 HTTP/1.1\r\nhost: x\r\n\r\n", 200),
    "an odd expectation": (post("KEY", b"expect: 200-ok"), 200),
    "a long query": (b"GET /v2?" + b"a" * 20_000 + b" HTTP/1.1\r\nhost: x\r\n\r\n", 200),
    "an upgrade": (b"GET /v2 HTTP/1.1\r\nhost: x\r\nconnection: upgrade\r\nupgrade: h2c\r\n\r\n", 200),
    "TRACE": (b"TRACE /v2 HTTP/1.1\r\nhost: x\r\n\r\n", 405),
    "OPTIONS of all": (b"OPTIONS * HTTP/1.1\r\nhost: x\r\n\r\n", 404),
    "dots": (b"GET /v2/../v2 HTTP/1.1\r\nhost: x\r\n\r\n", 404),
    "encoded dots": (b"GET /v2/%2e%2e/v2 HTTP/1.1\r\nhost: x\r\n\r\n", 404),
    "an encoded path": (b"GET /%76%32 HTTP/1.1\r\nhost: x\r\n\r\n", 404),
    "slashes": (b"GET //v2//health/live HTTP/1.1\r\nhost: x\r\n\r\n", 404),
    "an encoded endpoint": (post("KEY", path=b"/v1/predict/del%61y"), 404),
    "dots before an endpoint": (post("KEY", path=b"/v1/predict/../predict/delay"), 404),
    "another version": (post("KEY", path=b"/v2/models/delay/versions/2/infer"), 404),
    "a version that is none": (post("KEY", path=b"/v2/models/delay/versions/-1/infer"), 404),
    "an endpoint that is a path": (post("KEY", path=b"/v1/predict/" + b"../" * 200 + b"etc/passwd"), 404),
    "an endless endpoint": (post("KEY", path=b"/v1/predict/" + b"delay" * 5000), 404),
    "two hosts": (b"GET /v2 HTTP/1.1\r\nhost: x\r\nhost: y\r\n\r\n", 400),
    "two identities": (post("KEY", b"authorization: Bearer nobody", path=b"/v2/models/delay"), 400),
}  # fmt: skip


@pytest.mark.parametrize("shape", WELL_FORMED)
def test_odd_requests_are_answered_or_refused_and_the_connection_goes_on(target: Target, shape: str) -> None:
    sent, status = WELL_FORMED[shape]

    heard = say(target.port, sent.replace(b"Bearer KEY", b"Bearer " + target.key.encode()) + LIVE, answers=2)

    assert heard.statuses == [status, 200], heard.data
    assert not heard.ended


@pytest.mark.parametrize(
    "sent",
    [
        b"GET /v2 HTTP/1.1\r\nx-a: " + b"a" * 60_000 + b"\r\n\r\n",
        b"GET /v2?" + b"a" * 60_000 + b" HTTP/1.1\r\n\r\n",
        b"GET /v2 HTTP/1.1\r\n" + b"x: y\r\n" * 129 + b"\r\n",
        b"GET /v2 HTTP/1.1\r\n" + b"x: y\r\n" * 100_000 + b"\r\n",
        b"GET /v2 HTTP/1.1\r\n" + b"x" * 2_000_000,
        b"\r\n" * 100_000,
    ],
    ids=["a value", "a query", "129", "100,000", "a name without end", "empty lines"],
)
def test_a_bomb_of_headers_is_a_413_that_arrives_though_more_was_sent(target: Target, sent: bytes) -> None:
    heard = say(target.port, sent, answers=None)

    assert heard.statuses == [413]
    assert heard.error()["code"] == "too_large"
    assert heard.ended


def test_what_comes_after_a_body_is_believed_by_nobody(target: Target) -> None:
    trailer = b"0\r\nauthorization: Bearer " + target.key.encode() + b"\r\n\r\n"
    known = b"0\r\ntaut-subject: somebody-else\r\ncontent-encoding: gzip\r\n\r\n"

    stranger = say(target.port, post(None, TE, body=chunked(end=trailer)))
    caller = say(target.port, post(target.key, TE, body=chunked(end=known)))

    assert (stranger.statuses, caller.statuses) == ([401], [200])


@pytest.mark.parametrize("part", [b"a: " + b"b" * 1000 + b"\r\n", b"b" * 65_536], ids=["many", "one"])
def test_trailers_without_end_are_cut_off_and_cost_no_memory(target: Target, part: bytes) -> None:
    before = resident_bytes(target.pid)

    with connect(target.port) as client:
        client.sendall(post(target.key, TE, body=chunked(end=b"0\r\nx: ")))
        sent = push(client, part, most_bytes=64 * MIB)

    assert sent < 48 * MIB
    assert resident_bytes(target.pid) - before < 40 * MIB
    assert target.is_well()


def test_chunks_that_are_all_frame_are_cut_off(target: Target) -> None:
    with connect(target.port) as client:
        client.sendall(post(target.key, TE, body=b"1;"))
        sent = push(client, b"a" * 65_536, most_bytes=64 * MIB)

    assert sent < 48 * MIB
    assert target.is_well()


def test_a_strangers_body_is_not_waited_for_nor_kept(target: Target) -> None:
    before = resident_bytes(target.pid)
    with contextlib.ExitStack() as stack:
        answers = []
        for _ in range(30):
            client = stack.enter_context(connect(target.port))
            client.sendall(post(None, b"content-length: 8000000", body=b" " * 200_000))
            push(client, b" " * 65_536, most_bytes=7 * MIB)
            answers.append(hear(client, None).statuses)
        grown = resident_bytes(target.pid) - before

    assert answers == [[401]] * 30
    assert grown < 60 * MIB


def test_a_body_that_is_too_large_gets_its_413_while_it_is_still_sent(target: Target) -> None:
    with connect(target.port) as client:
        client.sendall(post(target.key, b"content-length: 500000000", body=b" " * 100_000))
        push(client, b" " * 65_536, most_bytes=4 * MIB)
        heard = hear(client, None)

    assert heard.statuses == [413]
    assert heard.ended


# pipelining


def test_pipelined_requests_around_a_bad_one_are_answered_in_order_up_to_it(target: Target) -> None:
    good, bad = post(target.key), post(target.key, b"content-length: +5")
    for ahead in (0, 5, 30):
        heard = say(target.port, good * ahead + bad + good * 5, answers=None)

        assert heard.statuses == [200] * ahead + [400]
        assert heard.ended


def test_ten_thousand_pipelined_requests_of_one_who_reads_are_all_answered(target: Target) -> None:
    with connect(target.port) as client:
        client.setblocking(False)
        left, answers = memoryview(LIVE * 10_000), 0
        while answers < 10_000:
            with contextlib.suppress(BlockingIOError):
                left = left[client.send(left[:65_536]) :] if left else left
            with contextlib.suppress(BlockingIOError):
                part = client.recv(65_536)
                assert part, "the connection was closed"
                answers += part.count(b'{"live":true}')

    assert answers == 10_000


def test_ten_thousand_pipelined_requests_of_one_who_does_not_read_cost_little(target: Target) -> None:
    before = resident_bytes(target.pid)
    with contextlib.ExitStack() as stack:
        for _ in range(8):
            client = stack.enter_context(connect(target.port, 0.2))
            client.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
            push(client, post(target.key) * 100, most_bytes=10_000 * len(post(target.key)))

        assert target.is_well()
        assert resident_bytes(target.pid) - before < 40 * MIB


def test_tiny_requests_are_not_kept_by_the_thousand(target: Target) -> None:
    before = resident_bytes(target.pid)
    with contextlib.ExitStack() as stack:
        for _ in range(8):
            client = stack.enter_context(connect(target.port, 0.2))
            push(client, b"GET / HTTP/1.1\r\n\r\n" * 20_000, most_bytes=360_000)

        assert target.is_well()
        assert resident_bytes(target.pid) - before < 40 * MIB


# half-open


@pytest.mark.parametrize("cut", [10, 60, len(post("taut_k1_s3cret")) - 5])
def test_a_request_that_ends_midway_is_told_so(target: Target, cut: int) -> None:
    heard = say(target.port, post(target.key)[:cut], hang_up=True, answers=None)

    assert heard.statuses == [400]
    assert "ended before" in heard.error()["message"]


def test_a_thousand_callers_who_vanish_leave_nothing_behind(target: Target) -> None:
    assert target.is_well()
    before = descriptors(target.pid)
    whole = post(target.key)
    for number in range(1000):
        client = connect(target.port)
        client.sendall(whole[: number % (len(whole) + 1)])
        if number % 2:  # a reset rather than an end
            client.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        client.close()

    until(lambda: descriptors(target.pid) <= before)
    assert target.is_well()


# a crowd


def test_ten_thousand_idle_connections_are_held_and_a_new_caller_is_answered(target: Target) -> None:
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    count = min(10_000, hard - 1000)
    assert count >= 400, "this machine lets a process have too few connections for the test to say anything"
    soft, _ = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
    assert target.is_well()
    open_before, memory_before = descriptors(target.pid), resident_bytes(target.pid)
    crowd = []
    try:
        for _ in range(count):
            client = connect(target.port)
            crowd.append(client)
            client.sendall(LIVE)  # a connection that never asked anything is closed sooner
        until(lambda: descriptors(target.pid) >= count)
        each = (resident_bytes(target.pid) - memory_before) / count

        assert target.is_well()
        crowd[0].sendall(LIVE)
        assert hear(crowd[0], 2).statuses == [200, 200]
        assert each < 16 * 1024, f"{each:.0f} bytes each of {count}"
    finally:
        for client in crowd:
            client.close()
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
    until(lambda: descriptors(target.pid) <= open_before)


def test_after_all_of_it_nothing_failed_in_the_gateway_and_little_memory_stays(target: Target) -> None:
    log = (target.plane.home / "gateway-0.log").read_text()

    assert "request failed" not in log
    assert "Traceback" not in log
    assert resident_bytes(target.pid) < 400 * MIB
    assert target.is_well()
