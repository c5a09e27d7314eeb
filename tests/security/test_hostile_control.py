"""Hostile HTTP against control as `taut up` runs it: its own port has the bounds of the data plane's."""

from __future__ import annotations

import contextlib
import json
import os
import socket
import struct
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import pytest
from attacker import connect, hear, push, resident_bytes, say, says_well, sockets, until

from taut.testing.ports import free_ports

pytestmark = [
    pytest.mark.xdist_group("hostile-control"),
    pytest.mark.processes,
    pytest.mark.skipif(not os.path.isdir("/proc/self/fd"), reason="looks into /proc"),
]

LIVE = b"GET /livez HTTP/1.1\r\nhost: x\r\n\r\n"
SHOW = b"/api/v1/status/show"
MIB = 2**20


class Control(NamedTuple):
    port: int
    pid: int
    home: Path
    log: Path
    loaded: str
    """What it had mapped into its memory when it said that it is ready."""

    def is_well(self) -> bool:
        return says_well(self.port, LIVE)


@pytest.fixture(scope="module")
def control(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Control]:
    home = tmp_path_factory.mktemp("control") / "home"
    home.mkdir(mode=0o700)
    port, log = free_ports(), home / "control.log"
    ready, told = os.pipe()
    command = [
        sys.executable,
        "-P",
        "-m",
        "taut.entrypoints.control_main",
        "--home",
        str(home),
        "--port",
        str(port),
    ]
    with log.open("wb") as out:
        process = subprocess.Popen(
            [*command, "--ready-fd", str(told)], pass_fds=[told], stdout=out, stderr=out
        )
    os.close(told)
    try:
        with open(ready, "rb") as said:
            assert said.readline() == b"ready\n", log.read_text()
        yield Control(port, process.pid, home, log, Path(f"/proc/{process.pid}/maps").read_text())
    finally:
        process.terminate()
        process.wait(timeout=90)


def post(*lines: bytes, body: bytes = b"{}", path: bytes = SHOW) -> bytes:
    head = [b"POST " + path + b" HTTP/1.1", b"host: x", *lines]
    if not any(b"content-length" in line or b"transfer" in line for line in lines):
        head.append(b"content-length: %d" % len(body))
    return b"\r\n".join(head) + b"\r\n\r\n" + body


TE = b"transfer-encoding: chunked"
NO_REQUEST = {
    "no HTTP": b"\x16\x03\x01\x02\x00\x01\x00" + bytes(64),
    "0.9": b"GET /livez\r\n\r\n",
    "2 without its preface": b"GET /livez HTTP/2.0\r\nhost: x\r\n\r\n",
    "a tunnel": b"CONNECT x:443 HTTP/1.1\r\nhost: x\r\n\r\n",
    "lines that end in LF": b"GET /livez HTTP/1.1\nhost: x\n\n",
    "a folded header": b"GET /livez HTTP/1.1\r\nhost: x\r\nx-a: b\r\n c\r\n\r\n",
    "two lengths": post(b"content-length: 2", b"content-length: 5"),
    "a length and chunks": post(b"content-length: 4", TE, body=b"2\r\n{}\r\n0\r\n\r\n"),
    "a coding before chunks": post(b"transfer-encoding: gzip, chunked", body=b"2\r\n{}\r\n0\r\n\r\n"),
    "chunks in 1.0": post(TE, body=b"2\r\n{}\r\n0\r\n\r\n").replace(b"HTTP/1.1", b"HTTP/1.0"),
    "an upgrade with a body": post(b"connection: upgrade", b"upgrade: h2c"),
    "a negative chunk": post(TE, body=b"-2\r\n{}\r\n0\r\n\r\n"),
    "a path that is none": b"GET http:///\x7f HTTP/1.1\r\nhost: x\r\n\r\n",
}


@pytest.mark.parametrize("shape", NO_REQUEST)
def test_what_is_no_request_gets_one_400_in_our_shape_and_nothing_after_it(
    control: Control, shape: str
) -> None:
    heard = say(control.port, NO_REQUEST[shape] + LIVE, hang_up=True, answers=None)

    assert heard.statuses == [400], heard.data
    assert heard.ended
    assert set(heard.error()) == {"code", "message", "request_id"}
    assert heard.error()["request_id"].startswith("req_")


@pytest.mark.parametrize(
    "sent",
    [b"GET /livez HTTP/1.1\r\nx: " + b"a" * 60_000 + b"\r\n\r\n", b"GET /livez HTTP/1.1\r\n" + b"x: y\r\n" * 100_000],
    ids=["a value", "100,000"],
)  # fmt: skip
def test_a_bomb_of_headers_is_a_413(control: Control, sent: bytes) -> None:
    heard = say(control.port, sent, answers=None)

    assert heard.statuses == [413]
    assert heard.error()["code"] == "too_large"


def test_an_identity_among_the_trailers_is_nobodys(control: Control) -> None:
    trailer = b"2\r\n{}\r\n0\r\nauthorization: Bearer x\r\nauthorization: Bearer y\r\n\r\n"

    heard = say(control.port, post(TE, body=trailer))

    assert heard.statuses == [401]
    assert "no identity" in heard.error()["message"]


def test_pipelined_requests_around_a_bad_one_are_answered_in_order_up_to_it(control: Control) -> None:
    heard = say(control.port, LIVE * 20 + b"nonsense\r\n\r\n" + LIVE, answers=None)

    assert heard.statuses == [200] * 20 + [400]
    assert heard.ended


def test_a_flood_of_pipelined_requests_costs_little_and_stalls_nobody(control: Control) -> None:
    assert control.is_well()
    before = resident_bytes(control.pid)
    with contextlib.ExitStack() as stack:
        for _ in range(4):
            client = stack.enter_context(connect(control.port, 0.2))
            client.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
            push(client, b"GET / HTTP/1.1\r\n\r\n" * 1000, most_bytes=2 * MIB)

        assert control.is_well()
        assert resident_bytes(control.pid) - before < 60 * MIB


@pytest.mark.parametrize("cut", [10, 60, len(post(body=b"{     }")) - 3])
def test_a_request_that_ends_midway_is_no_failure_of_ours(control: Control, cut: int) -> None:
    heard = say(control.port, post(body=b"{     }")[:cut], hang_up=True, answers=None)

    assert heard.statuses in ([400], [401])


@pytest.mark.parametrize(
    ("rest", "after"),
    [(b"", []), (b"}", []), (b"  }nonsense\r\n\r\n", [400]), (b"  }" + NO_REQUEST["a tunnel"], [400])],
    ids=["nothing", "a little", "the rest, and nonsense", "the rest, and a tunnel"],
)
def test_a_request_that_was_answered_before_its_body_gets_no_second_answer(
    control: Control, rest: bytes, after: list[int]
) -> None:
    with connect(control.port) as client:
        client.sendall(post(body=b"{     }")[:-3])
        early = hear(client)
        client.sendall(rest)
        if not after:
            client.shutdown(socket.SHUT_WR)
        late = hear(client, None)

    assert [*early.statuses, *late.statuses] == [401, *after]


def test_more_connections_than_control_holds_leave_it_open_to_others(control: Control) -> None:
    before = sockets(control.pid)
    with contextlib.ExitStack() as stack:
        for number in range(700):
            client = stack.enter_context(connect(control.port))
            if number % 2:
                client.sendall(LIVE)
        until(control.is_well)
        # what is accepted in one turn of the loop is let go of in the next
        until(lambda: before + 300 < sockets(control.pid) < before + 600)

    until(lambda: sockets(control.pid) <= before + 2)


def test_busy_connections_beyond_the_bound_are_told_so_and_those_there_are_served(control: Control) -> None:
    before = sockets(control.pid)
    with contextlib.ExitStack() as stack:
        busy = []
        for _ in range(512):
            client = stack.enter_context(connect(control.port))
            client.sendall(LIVE[:-2])
            busy.append(client)
        until(lambda: sockets(control.pid) >= before + 500)

        refused = [say(control.port, answers=None) for _ in range(3)]
        busy[0].sendall(LIVE[-2:])

        assert [one.statuses for one in refused] == [[503]] * 3
        assert refused[0].error()["code"] == "unavailable"
        assert b"retry-after" in refused[0].data
        assert hear(busy[0]).statuses == [200]
    until(lambda: sockets(control.pid) <= before + 2)


def test_what_half_imported_would_fail_requests_is_there_before_any_comes(control: Control) -> None:
    assert "_multiarray_umath" in control.loaded


def test_callers_who_vanish_leave_nothing_behind_and_no_failure_in_the_log(control: Control) -> None:
    before = sockets(control.pid)
    whole = post(b"content-length: 2000", b"authorization: Bearer x", body=b" " * 1500)
    for number in range(200):
        client = connect(control.port)
        client.sendall(whole[: number * 8])
        if number % 2:
            client.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        client.close()

    until(lambda: sockets(control.pid) <= before + 2)
    assert control.is_well()
    said = [json.loads(line) for line in control.log.read_text().splitlines() if line.startswith("{")]
    assert not [line for line in said if "failed" in str(line.get("event", line))]
    assert "Traceback" not in control.log.read_text()
