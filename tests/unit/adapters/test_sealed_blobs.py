"""Sealed blobs: nothing lies open, nothing can be cut, moved or exchanged, and sizes are told without opening."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from storage_faults import local_blob_path
from taut.adapters.blobs.local import LocalBlobs
from taut.adapters.blobs.sealed import Seal, plain_size
from taut.bootstrap.platform import open_platform
from taut.core.errors import Corrupt, InvalidInput
from taut.testing.world import SeededRandom
from taut.workflows.rotation import rotate

CHUNK = 256 << 10
SEAL = Seal(b"k" * 32, SeededRandom())
EDGES = [0, 1, CHUNK - 1, CHUNK, CHUNK + 1, 2 * CHUNK, 2 * CHUNK + 7]


def sealed(data: bytes) -> bytes:
    return b"".join(SEAL.seal([data]))


def opened(data: bytes, seal: Seal = SEAL) -> bytes:
    return b"".join(seal.open([data]))


@pytest.mark.parametrize("size", EDGES)
def test_a_file_of_any_size_comes_back_and_tells_its_size(size: int) -> None:
    data = os.urandom(size)
    form = sealed(data)
    assert opened(form) == data
    assert plain_size(len(form)) == size
    assert not data or data[:64] not in form or size < 8


@settings(max_examples=30, suppress_health_check=[HealthCheck.too_slow])
@given(sizes=st.lists(st.integers(0, 3000), max_size=6))
def test_it_does_not_matter_in_which_parts_a_file_comes(sizes: list[int]) -> None:
    parts = [os.urandom(size) for size in sizes]
    form = b"".join(SEAL.seal(parts))
    pieces = [form[start : start + 1000] for start in range(0, len(form), 1000)]
    assert b"".join(SEAL.open(pieces)) == b"".join(parts)


def test_chunks_cannot_be_cut_off_added_moved_or_taken_from_another_file() -> None:
    data = os.urandom(3 * CHUNK)
    form, other = sealed(data), sealed(data)
    head, step = 24, CHUNK + 16
    chunks = [form[head + at * step : head + (at + 1) * step] for at in range(3)]
    forged = [
        form[:head], form[: head + step], form[: head + 2 * step], form[:-1], form + b"\0", form + chunks[2],
        form[:head] + chunks[1] + chunks[0] + chunks[2], form[:head] + chunks[0] + chunks[2], other[:head] + form[head:],
        form[:10], b"",
    ]  # fmt: skip
    for data in forged:
        with pytest.raises(Corrupt):
            opened(data)
    with pytest.raises(Corrupt):
        opened(form, Seal(b"x" * 32, SeededRandom()))


def test_nothing_lies_open_and_what_did_is_sealed_when_it_is_put_again(tmp_path: Path) -> None:
    data = b"a value that must not be seen " * 100
    plain = LocalBlobs(tmp_path / "blobs")
    digest = plain.put(data)
    path = local_blob_path(tmp_path / "blobs", digest)
    assert data in path.read_bytes()
    blobs = LocalBlobs(tmp_path / "blobs", seal=SEAL, copies=tmp_path / "copies")
    assert (blobs.read(digest), blobs.size(digest)) == (data, len(data))  # from before
    assert blobs.put(data) == digest
    assert data not in path.read_bytes()
    assert (blobs.read(digest), blobs.size(digest)) == (data, len(data))
    with blobs.local(digest) as copy:
        assert copy.read_bytes() == data
    blobs.put_named("a/b", data)
    assert blobs.read_named("a/b") == data
    assert not [
        path for path in (tmp_path / "blobs").rglob("*") if path.is_file() and data[:30] in path.read_bytes()
    ]
    blobs.close()
    assert not list((tmp_path / "copies").iterdir())
    with pytest.raises(Corrupt):
        plain.read(digest)


def test_an_installation_seals_its_blobs_under_a_key_that_is_wrapped_anew_at_a_rotation(
    tmp_path: Path,
) -> None:
    with open_platform(tmp_path / "home", environ={}) as platform:
        digest = platform.blobs.put(b"rows of a table" * 50)
        rotate(platform, "data", actor="test", progress=lambda _said, _share: None)
    with open_platform(tmp_path / "home", environ={}) as platform:
        assert platform.blobs.read(digest) == b"rows of a table" * 50
    assert not list((tmp_path / "home" / "copies").iterdir())
    assert b"rows" not in local_blob_path(tmp_path / "home" / "blobs", digest).read_bytes()


@pytest.mark.parametrize("url", ["file:?sealed=perhaps", "file:?seald=yes", "file:?sealed=yes&copies=/x"])
def test_a_setting_that_is_not_understood_is_refused(tmp_path: Path, url: str) -> None:
    with (
        open_platform(tmp_path, environ={"TAUT_BLOBS": url}) as platform,
        pytest.raises(InvalidInput, match="TAUT_BLOBS"),
    ):
        assert platform.blobs
