from __future__ import annotations

import os
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from storage_faults import flip_a_bit, flip_a_bit_in_s3, local_blob_path, make_bucket, s3_options
from taut.adapters.blobs.local import LocalBlobs
from taut.adapters.blobs.s3 import S3Blobs
from taut.adapters.blobs.sealed import Seal
from taut.adapters.world import SystemRandom
from taut.core.errors import InvalidInput
from taut.ports.blobs import Blobs
from taut.testing.conformance.blobs import BlobsSuite


class TestLocalBlobs(BlobsSuite):
    @contextmanager
    def open(self, folder: Path) -> Iterator[Blobs]:
        yield LocalBlobs(folder / "blobs")

    def damage(self, folder: Path, digest: str) -> None:
        flip_a_bit(local_blob_path(folder / "blobs", digest))


class TestSealedLocalBlobs(BlobsSuite):
    @contextmanager
    def open(self, folder: Path) -> Iterator[Blobs]:
        blobs = LocalBlobs(folder / "blobs", seal=Seal(bytes(32), SystemRandom()), copies=folder / "copies")
        try:
            yield blobs
        finally:
            blobs.close()

    def damage(self, folder: Path, digest: str) -> None:
        flip_a_bit(local_blob_path(folder / "blobs", digest))


class TestS3Blobs(BlobsSuite):
    # moto looks whether a name exists and writes it in two steps; a real store, named in the environment, does in one
    writers_at_once = 6 if "TAUT_TEST_S3_URL" in os.environ else 1

    @pytest.fixture(autouse=True)
    def _server(self, s3_url: str) -> None:
        self._url = s3_url
        self._bucket = make_bucket(s3_url)
        self._prefixes: dict[Path, str] = {}

    def _store(self, folder: Path) -> str:
        # the same folder is the same store within a test; hypothesis' examples may share one, as the local ones do
        return f"s3://{self._bucket}/{self._prefixes.setdefault(folder, uuid.uuid4().hex)}"

    @contextmanager
    def open(self, folder: Path) -> Iterator[Blobs]:
        blobs = S3Blobs(self._store(folder), copies=folder / "copies", options=s3_options(self._url))
        try:
            yield blobs
        finally:
            blobs.close()

    def damage(self, folder: Path, digest: str) -> None:
        bucket, _, prefix = self._store(folder).removeprefix("s3://").partition("/")
        flip_a_bit_in_s3(self._url, bucket, f"{prefix}/sha256/{digest.removeprefix('sha256:')}")


@pytest.mark.parametrize(
    "url", ["", "s3://", "s3:///x", "http://bucket/x", "s3://bucket/a?b=c", "s3://bucket/../x"]
)
def test_what_is_no_address_of_an_object_store_is_refused(tmp_path: Path, url: str) -> None:
    with pytest.raises(InvalidInput):
        S3Blobs(url, copies=tmp_path)
