"""Frames between gateway and worker: whatever arrives, either a frame or an error, and nothing is left open."""

from __future__ import annotations

import os
import socket
from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from taut.core.errors import Corrupt
from taut.serving.workers import wire

Pair = tuple[socket.socket, socket.socket]


@pytest.fixture
def pair() -> Iterator[Pair]:
    left, right = socket.socketpair(socket.AF_UNIX, socket.SOCK_STREAM)
    with left, right:
        yield left, right


@pytest.mark.parametrize("size", [0, 1, wire.INLINE_BYTES, wire.INLINE_BYTES + 1, 5_000_000])
def test_a_frame_arrives_as_it_was_sent_and_leaves_no_descriptor_open(pair: Pair, size: int) -> None:
    body = os.urandom(size)
    before = len(os.listdir("/proc/self/fd"))
    wire.send(pair[0], wire.RUN, 7, [body[: size // 2], body[size // 2 :]])
    reader = wire.Reader(pair[1])
    frame = None
    while frame is None:
        frame = reader.read()

    assert frame == wire.Frame(wire.RUN, 7, body)
    assert len(os.listdir("/proc/self/fd")) == before


def test_the_end_of_the_other_side_is_told(pair: Pair) -> None:
    pair[0].close()

    with pytest.raises(EOFError):
        wire.Reader(pair[1]).read()


@given(st.binary(min_size=wire.HEAD.size, max_size=200))
def test_what_is_no_frame_is_corrupt_and_never_anything_else(data: bytes) -> None:
    left, right = socket.socketpair(socket.AF_UNIX, socket.SOCK_STREAM)
    with left, right:
        left.sendall(data)
        with pytest.raises(Corrupt):
            wire.Reader(right).read()


@pytest.mark.parametrize(
    "head",
    [
        wire.HEAD.pack(b"tw1\n", wire.DONE, 0, 0, 1, wire.INLINE_BYTES + 1),  # too long for its place
        wire.HEAD.pack(b"tw1\n", wire.DONE, 1, 0, 1, 10),  # says that it brings a file, and does not
        wire.HEAD.pack(b"tw1\n", wire.DONE, 0, 0, 1, 2**40),
        wire.HEAD.pack(b"tw1\n", wire.DONE, 0, 0, 1, 1) + b"ab",  # more than it announced
    ],
)
def test_a_head_that_lies_is_refused(pair: Pair, head: bytes) -> None:
    pair[0].sendall(head)

    with pytest.raises(Corrupt):
        wire.Reader(pair[1]).read()


def test_a_file_that_is_shorter_than_announced_is_refused(pair: Pair) -> None:
    descriptor = wire.anonymous_file([b"short"])
    head = wire.HEAD.pack(b"tw1\n", wire.DONE, 1, 0, 1, 100_000)
    socket.send_fds(pair[0], [head], [descriptor])
    os.close(descriptor)

    with pytest.raises(Corrupt, match="5 bytes, 100000"):
        wire.Reader(pair[1]).read()


def test_tensors_of_several_requests_become_those_of_one_batch() -> None:
    layout = wire.Layout(
        {"x": ("tensor(float)", 2), "n": ("tensor(int64)", 1), "word": ("tensor(string)", 2)},
        matrix_width=None,
    )
    feeds: list[dict[str, Any]] = [
        {
            "x": np.array([[value] for value in values], dtype=np.float32),
            "n": np.array(range(len(values)), dtype=np.int64),
            "word": np.array([[f"é{value}"] for value in values], dtype=object),
        }
        for values in ([1.5, 2.5], [3.5])
    ]
    found = layout.feed(b"".join(bytes(memoryview(part).cast("B")) for part in layout.buffers(feeds)), 3)

    assert found["x"].tolist() == [[1.5], [2.5], [3.5]]
    assert found["n"].tolist() == [0, 1, 0]
    assert found["word"].tolist() == [["é1.5"], ["é2.5"], ["é3.5"]]


@pytest.mark.parametrize("shape", [(4,), (4, 1), (4, 3)])
@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_an_output_comes_back_as_it_was(shape: tuple[int, ...], dtype: Any) -> None:
    tensor = np.arange(np.prod(shape), dtype=dtype).reshape(shape)
    body = b"".join(bytes(memoryview(part).cast("B")) for part in wire.output_buffers(tensor))

    found = wire.output_tensor(body, 4)

    assert found.dtype == dtype
    assert found.tolist() == tensor.tolist()
    for wrong in (body[:-1], body + b"x", b"", body[: wire._OUTPUT_HEAD.size]):
        with pytest.raises(Corrupt):
            wire.output_tensor(wrong, 4)
    with pytest.raises(Corrupt):
        wire.output_tensor(body, 5)


@given(st.binary(max_size=60), st.integers(0, 5))
def test_no_answer_of_a_worker_can_do_more_than_be_corrupt(body: bytes, rows: int) -> None:
    try:
        tensor = wire.output_tensor(body, rows)
    except Corrupt:
        return
    assert tensor.shape[0] == rows
