"""Sources in S3 and stores that speak its protocol, by obstore."""

from __future__ import annotations

import difflib
import re
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from taut.core.errors import Corrupt, Denied, InvalidInput, NotFound, TautError, Unavailable
from taut.ports.sources import SourceFile

if TYPE_CHECKING:
    from obstore.store import S3Store

_URL: Final = re.compile(r"s3://([a-z0-9][a-z0-9.\-]{1,61}[a-z0-9])/(.+)", re.DOTALL)
_MAGIC: Final = re.compile(r"[*?\[]")
_CHUNK_BYTES: Final = 8 * 2**20
_FOUND_MAX: Final = 100_000


class S3Sources:
    """Objects of S3 buckets, `s3://BUCKET/KEY`; `*` does not cross a `/`, `**` does.

    options: obstore's client options for every bucket (endpoint, region, keys, allow_http …); without keys it uses the
    machine's own role.
    """

    def __init__(self, options: Mapping[str, Any] | None = None) -> None:
        self._options = dict(options or {})

    def find(self, url: str, *, root: Path) -> tuple[SourceFile, ...]:  # noqa: ARG002 - only local paths are relative
        bucket, key = _split(url)
        store = self._store(bucket)
        magic = _MAGIC.search(key)
        if magic is None:
            try:
                return (_describe(bucket, store.head(key)),)
            except Exception as error:
                raise _translate(error, url, self._near(store, key)) from error
        pattern = re.compile(_pattern(key))
        listed = self._list(store, key[: magic.start()].rpartition("/")[0], url)
        files = sorted((m for m in listed if pattern.fullmatch(m["path"])), key=lambda m: str(m["path"]))
        if not files:
            raise NotFound(f"no object matches {url!r}{_nearest(key, [m['path'] for m in listed])}")
        return tuple(_describe(bucket, meta) for meta in files)

    @contextmanager
    def open(self, file: SourceFile) -> Iterator[_ObjectStream]:
        bucket, key = _split(file.url)
        try:
            result = self._store(bucket).get(key)
        except Exception as error:
            raise _translate(error, file.url, "") from error
        yield _ObjectStream(iter(result.stream(min_chunk_size=_CHUNK_BYTES)), file.url)

    def _store(self, bucket: str) -> S3Store:
        from obstore.store import S3Store

        return S3Store(bucket, **self._options)

    def _list(self, store: S3Store, prefix: str, url: str) -> list[Any]:
        found: list[Any] = []
        try:
            for page in store.list(prefix or None):
                found += page
                if len(found) > _FOUND_MAX:
                    raise InvalidInput(
                        f"{url!r} would list more than {_FOUND_MAX} objects: name a deeper folder"
                    )
        except InvalidInput:
            raise
        except Exception as error:
            raise _translate(error, url, "") from error
        return found

    def _near(self, store: S3Store, key: str) -> str:
        try:
            page = next(iter(store.list(key.rpartition("/")[0] or None)), [])
        except Exception:  # noqa: BLE001 - a hint for an error that is raised anyway
            return ""
        return _nearest(key, [meta["path"] for meta in page])


class _ObjectStream:
    """An object's bytes, in the pieces that its reader asks for."""

    def __init__(self, pieces: Iterator[Any], url: str) -> None:
        self._pieces = pieces
        self._url = url
        self._held = b""

    def read(self, size: int = -1, /) -> bytes:
        if not self._held:
            try:
                self._held = bytes(next(self._pieces, b""))
            except Exception as error:
                raise _translate(error, self._url, "") from error
        if size < 0 or size >= len(self._held):
            taken, self._held = self._held, b""
        else:
            taken, self._held = self._held[:size], self._held[size:]
        return taken


def _split(url: str) -> tuple[str, str]:
    match = _URL.fullmatch(url)
    if match is None:
        raise InvalidInput(f"{url!r} is no address of an object: write s3://BUCKET/KEY")
    return match[1], match[2]


def _pattern(key: str) -> str:
    """Translate a pattern so that `*`, `?` and `[…]` stay within one folder and `**` means any folders."""
    parts: list[str] = []
    at = 0
    while at < len(key):
        if key.startswith("**/", at) and (at == 0 or key[at - 1] == "/"):
            parts.append("(?:[^/]+/)*")
            at += 3
        elif key[at:] == "**" and (at == 0 or key[at - 1] == "/"):
            parts.append("(?:[^/]+/)*[^/]+")
            at += 2
        elif key[at] == "[" and (end := key.find("]", at + 2)) > 0:
            inside = key[at + 1 : end].replace("\\", "\\\\").replace("[", "\\[")
            parts.append(f"(?!/)[{'^' + inside[1:] if inside[0] == '!' else inside}]")
            at = end + 1
        else:
            parts.append({"*": "[^/]*", "?": "[^/]"}.get(key[at]) or re.escape(key[at]))
            at += 1
    return "".join(parts)


def _describe(bucket: str, meta: Any) -> SourceFile:
    url = f"s3://{bucket}/{meta['path']}"
    return SourceFile(
        url=url,
        name=url,
        size_bytes=meta["size"],
        etag=meta["e_tag"],
        modified_us=int(meta["last_modified"].timestamp() * 1_000_000),
    )


def _translate(error: Exception, url: str, hint: str) -> TautError:
    """Map the driver's errors by their class names: its classes are many and change with its versions."""
    name, said = type(error).__name__, (str(error).splitlines() or [""])[0][:300]
    if isinstance(error, FileNotFoundError) or name == "NotFoundError":
        return NotFound(f"there is no object {url}{hint}")
    if name in ("PermissionDeniedError", "UnauthenticatedError"):
        return Denied(f"{url} may not be read with these credentials: {said}")
    if name in ("InvalidPathError", "NotSupportedError", "UnknownConfigurationKeyError"):
        return InvalidInput(f"{url}: {said}")
    if name == "PreconditionError":
        return Corrupt(f"{url} changed while it was read: {said}")
    return Unavailable(f"{url} does not answer: {said}")


def _nearest(key: str, keys: list[str]) -> str:
    near = difflib.get_close_matches(key, keys, n=1, cutoff=0.4)
    if near:
        return f": did you mean {near[0]}?"
    return f": there is {', '.join(sorted(keys)[:8])}" if keys else ": there is nothing under that folder"
