"""What gateways of two machines say to one another: read with care, since it comes over a network."""

from __future__ import annotations

import pytest

from taut.serving.peers import Load
from taut.serving.peers.hops import _passed_on, _read_load, _write_load
from taut.serving.upstream import Answer


def test_a_load_is_read_as_it_was_told() -> None:
    load = Load(0.25, 0.001, 0.0005, 3)
    line = _write_load(load, 0.125).decode().removeprefix("taut-load: ").strip()

    assert _read_load(line) == (load, 0.125)
    assert _write_load(Load(float("inf"), 0.0, 0.0), 0.1) == b""


@pytest.mark.parametrize(
    "told",
    ["", "x", "1 2 3 4", "1 2 3 4 5 6", "-1 2 3 4 5", "1 2 3 4 1e9", "9" * 99 + " 2 3 4 5", "٣ 2 3 4 5"],
)
def test_nonsense_tells_nothing(told: str) -> None:
    assert _read_load(told) == (None, 0.0)


def test_only_what_is_tauts_own_is_passed_on() -> None:
    headers = {
        "content-type": "application/json", "taut-request-id": "req_1", "taut-load": "1 2 3 4 5", "set-cookie": "a=b",
        "connection": "close", "content-length": "2", "retry-after": "3",
    }  # fmt: skip

    reply = _passed_on(Answer(200, headers, b"{}"), "m2")

    assert reply.header_list() == [
        (b"content-type", b"application/json"), (b"taut-request-id", b"req_1"), (b"retry-after", b"3"),
        (b"taut-hop", b"m2"), (b"content-length", b"2"),
    ]  # fmt: skip
    assert not reply.close
