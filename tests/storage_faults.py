"""Faults of disks and object stores that tests of the storage adapters plant."""

from __future__ import annotations

import os
import resource
import signal
import sys
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import httpx
import obstore
from obstore.store import S3Store

from taut.adapters.blobs.s3 import S3Options


def flip_a_bit(path: Path, *, at: float = 0.5) -> None:
    """Flip one bit of a file and put its times back, as rot on a disk would leave them."""
    before = path.stat()
    path.chmod(0o600)
    data = bytearray(path.read_bytes())
    data[int(len(data) * at)] ^= 1
    path.write_bytes(bytes(data))
    path.chmod(before.st_mode & 0o777)
    os.utime(path, ns=(before.st_atime_ns, before.st_mtime_ns))


@contextmanager
def largest_file(size_bytes: int) -> Iterator[None]:
    """Let no file of this process grow beyond a size, which is what a full disk looks like to it."""
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    handler = signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    writes = sys.dont_write_bytecode
    sys.dont_write_bytecode = True  # Python keeps bytecode that was cut for whole
    resource.setrlimit(resource.RLIMIT_FSIZE, (size_bytes, hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
        signal.signal(signal.SIGXFSZ, handler)
        sys.dont_write_bytecode = writes


def local_blob_path(root: Path, digest: str) -> Path:
    name = digest.removeprefix("sha256:")
    return root / "sha256" / name[:2] / name[2:]


def make_bucket(url: str) -> str:
    bucket = f"taut-{uuid.uuid4().hex[:16]}"
    assert httpx.put(f"{url}/{bucket}", timeout=60.0).status_code == 200
    return bucket


def flip_a_bit_in_s3(url: str, bucket: str, key: str) -> None:
    options = s3_options(url)
    store = S3Store(
        bucket,
        endpoint=url,
        region=options.region,
        access_key_id=options.access_key_id,
        secret_access_key=options.secret_access_key,
        client_options={"allow_http": True},
    )
    data = bytearray(obstore.get(store, key).bytes())
    data[len(data) // 2] ^= 1
    obstore.put(store, key, bytes(data))


def s3_options(url: str, **changes: float) -> S3Options:
    settings = {"retries": 3, "retry_for_s": 5.0, "backoff_s": 0.01, "request_timeout_s": 10.0, **changes}
    return S3Options(
        endpoint=url,
        access_key_id="test",
        secret_access_key="test",
        retries=int(settings["retries"]),
        retry_for_s=settings["retry_for_s"],
        backoff_s=settings["backoff_s"],
        request_timeout_s=settings["request_timeout_s"],
        connect_timeout_s=2.0,
        copies_bytes_max=int(settings.get("copies_bytes_max", 8 << 30)),
    )
