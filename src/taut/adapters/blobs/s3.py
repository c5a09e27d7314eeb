"""Blobs in an S3-compatible object store, by obstore."""

from __future__ import annotations

import contextlib
import hashlib
import ipaddress
from collections.abc import Iterator
from contextlib import AbstractContextManager
from datetime import timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Final
from urllib.parse import urlsplit

import msgspec
import obstore
from obstore.exceptions import (
    AlreadyExistsError,
    BaseError,
    NotFoundError,
    PermissionDeniedError,
    UnauthenticatedError,
)
from obstore.store import S3Store

from taut.adapters.blobs.copies import LocalCopies
from taut.adapters.blobs.names import check_blob_name
from taut.core.canonical import digest_bytes, parse_digest
from taut.core.errors import Conflict, Corrupt, Denied, InvalidInput, NotFound, Unavailable

if TYPE_CHECKING:  # they exist for type checkers only
    from obstore.store import ClientConfig, S3Config

_PART_BYTES: Final = 8 << 20
_CREATE_ATTEMPTS: Final = 5


class S3Options(msgspec.Struct, frozen=True, kw_only=True):
    """How to reach the store.

    endpoint: of a store other than AWS, such as `https://minio.example:9000`; plain http only on loopback unless
    `plain_http`. Keys: when empty, obstore's own chain (environment of AWS, instance metadata) decides.
    retries, retry_for_s: how often and how long a request is repeated, with exponential backoff and jitter, when the
    store throttles (429, 503), fails (5xx) or does not answer.
    copies_bytes_max: of files kept on this machine for `local`, beyond those in use.
    """

    endpoint: str = ""
    region: str = "us-east-1"
    access_key_id: str = ""
    secret_access_key: str = ""
    plain_http: bool = False
    connect_timeout_s: float = 5.0
    request_timeout_s: float = 60.0
    retries: int = 8
    retry_for_s: float = 60.0
    backoff_s: float = 0.1
    copies_bytes_max: int = 8 << 30


class S3Blobs:
    """Objects `sha256/DIGEST` and `named/NAME` under a prefix.

    url: `s3://bucket/prefix`. copies: a folder on this machine for files that `local` yields.

    Every read is verified against the digest. A put of bytes that the store has already (same digest, same size) sends
    nothing; the store's own durability is relied upon from the moment it says stored. Uploads carry a SHA-256 checksum
    that the store checks. `put_named` is a conditional write (`If-None-Match: *`): a store without it is not supported.
    """

    def __init__(self, url: str, *, copies: Path, options: S3Options | None = None) -> None:
        options = options or S3Options()
        self._where, self._prefix, bucket = _parse(url)
        self._store = _open_store(bucket, options)
        self._copies = LocalCopies(copies, bytes_max=options.copies_bytes_max)

    def put(self, data: bytes) -> str:
        digest = digest_bytes(data)
        if self.size(digest) == len(data):
            return digest
        with self._asking(f"blob {digest} cannot be stored"):
            obstore.put(self._store, self._key(digest), data, chunk_size=_PART_BYTES)
        return digest

    def put_file(self, path: Path) -> str:
        digest, size = _digest_file(path)
        if self.size(digest) == size:
            return digest
        if size <= _PART_BYTES:  # one request; the bytes are hashed as they are sent
            return self.put(path.read_bytes())
        with self._asking(f"{path} cannot be stored"):
            obstore.put(
                self._store,
                self._key(digest),
                _same_parts(path, digest),
                chunk_size=_PART_BYTES,
                max_concurrency=4,
            )
        return digest

    def read(self, digest: str) -> bytes:
        data = b"".join(self._parts(digest))
        if digest_bytes(data) != digest:
            raise Corrupt(f"blob {digest} was changed in {self._where}: restore it; nothing was read from it")
        return data

    def local(self, digest: str) -> AbstractContextManager[Path]:
        self._key(digest)
        return self._copies.hold(digest, lambda: self._parts(digest))

    def size(self, digest: str) -> int | None:
        try:
            with self._asking(f"blob {digest} cannot be read"):
                return obstore.head(self._store, self._key(digest))["size"]
        except NotFound:
            return None

    def delete(self, digest: str) -> None:
        self._copies.forget(parse_digest(digest))
        with contextlib.suppress(NotFound), self._asking(f"blob {digest} cannot be deleted"):
            obstore.delete(self._store, self._key(digest))

    def digests(self) -> Iterator[str]:
        for key in self._keys("sha256"):
            yield f"sha256:{key}"

    def put_named(self, name: str, data: bytes) -> None:
        key = self._named_key(name)
        for _ in range(_CREATE_ATTEMPTS):
            try:
                with self._asking(f"{name} cannot be stored", create=True):
                    obstore.put(self._store, key, data, mode="create")
                return
            except Conflict:
                # The store says the same while another create is under way and may yet fail: look, then try again.
                with contextlib.suppress(NotFound):
                    if self.read_named(name) == data:
                        return
                    raise
        raise Unavailable(f"{name} cannot be stored in {self._where}: other writers are at it, try again")

    def read_named(self, name: str) -> bytes:
        with self._asking(f"no blob {name} can be read"):
            return bytes(obstore.get(self._store, self._named_key(name)).bytes())

    def names(self, prefix: str) -> Iterator[str]:
        folder, _, _ = prefix.rpartition("/")
        if folder:
            check_blob_name(folder)
        start = f"{folder}/" if folder else ""
        for key in self._keys(f"named/{folder}".rstrip("/")):
            if (name := start + key).startswith(prefix):
                yield name

    def close(self) -> None:
        """Remove this process's copies of blobs."""
        self._copies.close()

    def _parts(self, digest: str) -> Iterator[bytes]:
        """Yield the bytes in requests of bounded size, so that a time-out bounds each and memory stays small."""
        key = self._key(digest)
        with self._asking(f"blob {digest} cannot be read"):
            first = obstore.head(self._store, key)["size"]
            for start in range(0, first, _PART_BYTES):
                end = min(first, start + _PART_BYTES)
                yield bytes(obstore.get_range(self._store, key, start=start, end=end))

    def _keys(self, folder: str) -> Iterator[str]:
        root = f"{self._prefix}{folder}/"
        with self._asking(f"blobs in {self._where} cannot be listed"):
            for page in obstore.list(self._store, root.rstrip("/")):
                for found in page:
                    if found["path"].startswith(root):
                        yield found["path"].removeprefix(root)

    def _key(self, digest: str) -> str:
        return f"{self._prefix}sha256/{parse_digest(digest).removeprefix('sha256:')}"

    def _named_key(self, name: str) -> str:
        return f"{self._prefix}named/{check_blob_name(name)}"

    @contextlib.contextmanager
    def _asking(self, what: str, *, create: bool = False) -> Iterator[None]:
        """Turn the store's answers into errors that say what to do."""
        try:
            yield
        except (NotFoundError, FileNotFoundError) as error:
            raise NotFound(f"{what} from {self._where}: there is no such object") from error
        except AlreadyExistsError as error:  # of other requests than a create: a conflict that passes
            if create:
                raise Conflict(
                    f"{what} in {self._where}: the name holds other bytes; names are written once"
                ) from error
            raise Unavailable(f"{what} in {self._where}: other writers are at it, try again") from error
        except (PermissionDeniedError, UnauthenticatedError) as error:
            raise Denied(
                f"{what} in {self._where}: the store refuses these credentials: check key and policy"
            ) from error
        except BaseError as error:
            raise Unavailable(
                f"{what} in {self._where}: {_short(error)}: the store was asked again and again; try later"
            ) from error


def _parse(url: str) -> tuple[str, str, str]:
    parts = urlsplit(url)
    if parts.scheme != "s3" or not parts.netloc or parts.query or parts.fragment:
        raise InvalidInput(f"{url!r} is no object store: expected s3://BUCKET or s3://BUCKET/PREFIX")
    prefix = parts.path.strip("/")
    if prefix:
        check_blob_name(prefix)
    return url, f"{prefix}/" if prefix else "", parts.netloc


def _open_store(bucket: str, options: S3Options) -> S3Store:
    config: S3Config = {"region": options.region, "checksum_algorithm": "SHA256", "conditional_put": "etag"}
    client: ClientConfig = {
        "connect_timeout": timedelta(seconds=options.connect_timeout_s),
        "timeout": timedelta(seconds=options.request_timeout_s),
    }
    if options.endpoint:
        config["endpoint"] = options.endpoint
        config["virtual_hosted_style_request"] = False
    if options.access_key_id:
        config["access_key_id"] = options.access_key_id
        config["secret_access_key"] = options.secret_access_key
    if urlsplit(options.endpoint).scheme == "http":
        if not (options.plain_http or _is_loopback(urlsplit(options.endpoint).hostname or "")):
            raise InvalidInput(
                f"{options.endpoint} is not encrypted: use https, or say plain_http for a trusted network"
            )
        client["allow_http"] = True
    return S3Store(
        bucket,
        config=config,
        client_options=client,
        retry_config={
            "max_retries": options.retries,
            "retry_timeout": timedelta(seconds=options.retry_for_s),
            "backoff": {
                "init_backoff": timedelta(seconds=options.backoff_s),
                "max_backoff": timedelta(seconds=max(5.0, options.backoff_s)),
                "base": 2,
            },
        },
    )


def _is_loopback(host: str) -> bool:
    if host == "localhost":
        return True
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False


def _digest_file(path: Path) -> tuple[str, int]:
    try:
        with path.open("rb") as file:
            digest = hashlib.file_digest(file, "sha256").hexdigest()
            return f"sha256:{digest}", file.tell()
    except FileNotFoundError as error:
        raise NotFound(f"no file {path}: check the path") from error
    except OSError as error:
        raise InvalidInput(f"file {path} cannot be read: {error.strerror}") from error


def _same_parts(path: Path, digest: str) -> Iterator[bytes]:
    """Yield a file's bytes and fail at the end when they are not those that were hashed, so that nothing appears."""
    hasher = hashlib.sha256()
    with path.open("rb") as file:
        while chunk := file.read(_PART_BYTES):
            hasher.update(chunk)
            yield chunk
    if digest != f"sha256:{hasher.hexdigest()}":
        raise Conflict(f"{path} changed while it was stored: let its writer finish, then store it again")


def _short(error: Exception) -> str:
    """Return the first line of the store's error, without the driver's dump of the request."""
    return str(error).strip().splitlines()[0][:200]
