"""Opens a source file whatever its compression and format, and digests it on the way."""

from __future__ import annotations

import gzip
import hashlib
import io
import tempfile
import zipfile
import zlib
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, closing, contextmanager
from pathlib import Path
from typing import IO, Any, Final

from taut.core.errors import InvalidInput
from taut.core.room import room_for
from taut.lifecycle.data.csv_records import read_csv
from taut.lifecycle.data.jsonl_records import read_jsonl
from taut.lifecycle.data.parquet_records import read_parquet
from taut.lifecycle.data.records import BatchRefused, RecordChunk, Wanted
from taut.ports.sources import ByteStream, SourceFile, Sources
from taut.project.manifest import SourceSpec

_FORMATS: Final = {
    ".csv": "csv", ".tsv": "csv", ".txt": "csv", ".jsonl": "jsonl", ".ndjson": "jsonl", ".json": "jsonl",
    ".parquet": "parquet", ".pq": "parquet",
}  # fmt: skip
_COMPRESSED: Final = (".gz", ".zst", ".zip")
_READ_BYTES: Final = 2**20

SourceTable = Mapping[str, Sources]
"""Sources by URL scheme; `file` is that of plain paths."""


def sources_for(table: SourceTable, url: str) -> Sources:
    """Return the sources that an address is read through. Raises InvalidInput for a scheme that none serves."""
    scheme, separator, _ = url.partition("://")
    scheme = scheme if separator else "file"
    if scheme not in table:
        raise InvalidInput(
            f"{url!r}: there is no source for {scheme}://, only for {', '.join(sorted(table))}"
        )
    return table[scheme]


def digest_of(sources: Sources, file: SourceFile) -> tuple[str, int]:
    """Return the digest and the size of a file's bytes as they are now."""
    sha, size = hashlib.sha256(), 0
    with sources.open(file) as stream:
        while piece := stream.read(_READ_BYTES):
            sha.update(piece)
            size += len(piece)
    return f"sha256:{sha.hexdigest()}", size


def format_of(file: SourceFile, spec: SourceSpec) -> tuple[str, str]:
    """Return (format, compression suffix or ``), by the file's name where the source says `auto`."""
    suffixes = [suffix.lower() for suffix in Path(file.name).suffixes]
    compression = suffixes.pop() if suffixes and suffixes[-1] in _COMPRESSED else ""
    if spec.format != "auto":
        return spec.format, compression
    if suffixes and suffixes[-1] in _FORMATS:
        return _FORMATS[suffixes[-1]], compression
    if compression == ".zip":
        return "csv", compression
    raise InvalidInput(
        f"{file.name}: its name does not say what it is: end it in .csv, .jsonl or .parquet, or give the source a format"
    )


def way_of_reading(file: SourceFile, spec: SourceSpec) -> tuple[str, str, str]:
    """Return (format, compression, separator): the same bytes read another way are another batch."""
    kind, compression = format_of(file, spec)
    tabs = file.name.lower().endswith((".tsv", ".tsv.gz", ".tsv.zst"))
    return kind, compression, "\t" if tabs else spec.separator


def read_records(
    sources: Sources,
    file: SourceFile,
    spec: SourceSpec,
    wanted: Wanted,
    *,
    expected_digest: str,
    scratch: Path | None = None,
) -> Iterator[RecordChunk]:
    """Yield the records of one source file.

    scratch: where a copy lies meanwhile, for formats that need one; None for the system's folder.
    Raises BatchRefused where the file does not fit, is damaged, or is no longer the one that `expected_digest` was
    taken of.
    """
    kind, compression, separator = way_of_reading(file, spec)
    with ExitStack() as stack:
        digesting = _Digesting(stack.enter_context(sources.open(file)))
        if kind == "parquet":
            if compression:
                raise BatchRefused("readable", f"{file.name}: Parquet compresses itself; give it as it is")
            path = stack.enter_context(_spooled(digesting, scratch))
            digesting.verify(expected_digest, file.name)
            yield from read_parquet(path, wanted, file=file.name)
            return
        try:
            stream = stack.enter_context(_opened(digesting, compression, file.name, scratch))
            if kind == "csv":
                yield from read_csv(
                    stream, wanted, file=file.name, separator=separator, encoding=spec.encoding
                )
            else:
                yield from read_jsonl(stream, wanted, file=file.name, encoding=spec.encoding)
            digesting.verify(expected_digest, file.name)
        except (zlib.error, gzip.BadGzipFile, zipfile.BadZipFile, EOFError) as error:
            raise BatchRefused("readable", f"{file.name} is damaged: {error}") from error


class _Digesting:
    """A stream that remembers the digest of what went through it."""

    def __init__(self, stream: ByteStream) -> None:
        self._stream = stream
        self._sha = hashlib.sha256()

    def read(self, size: int = -1, /) -> bytes:
        piece = self._stream.read(size if size and size > 0 else _READ_BYTES)
        self._sha.update(piece)
        return piece

    def verify(self, expected: str, name: str) -> None:
        while self.read(_READ_BYTES):
            pass
        if f"sha256:{self._sha.hexdigest()}" != expected:
            raise BatchRefused(
                "readable", f"{name} changed while it was read: ingest it again when it is still"
            )


class _Raw(io.RawIOBase):
    """The stream as Python's own decompressors want it."""

    def __init__(self, stream: _Digesting) -> None:
        super().__init__()
        self._stream = stream

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: Any) -> int:
        piece = self._stream.read(len(buffer))
        buffer[: len(piece)] = piece
        return len(piece)


@contextmanager
def _opened(stream: _Digesting, compression: str, name: str, scratch: Path | None) -> Iterator[ByteStream]:
    match compression:
        case ".gz":
            with (
                closing(io.BufferedReader(_Raw(stream), _READ_BYTES)) as raw,
                gzip.GzipFile(fileobj=raw) as plain,
            ):
                yield plain
        case ".zst":
            yield from _zstandard(stream, name)
        case ".zip":
            with _spooled(stream, scratch) as path, _single_member(path, name) as member:
                yield member
        case _:
            yield stream


def _zstandard(stream: _Digesting, name: str) -> Iterator[ByteStream]:
    import zstandard  # only for files that need it

    with closing(io.BufferedReader(_Raw(stream), _READ_BYTES)) as raw:
        decompressor = zstandard.ZstdDecompressor(max_window_size=2**27)
        try:
            with decompressor.stream_reader(raw, read_across_frames=True) as plain:
                yield plain
        except zstandard.ZstdError as error:
            raise BatchRefused("readable", f"{name} is damaged: {error}") from error


@contextmanager
def _single_member(path: Path, name: str) -> Iterator[IO[bytes]]:
    with zipfile.ZipFile(path) as archive:
        members = [m for m in archive.infolist() if not m.is_dir() and not m.filename.startswith("__MACOSX/")]
        if len(members) != 1:
            raise BatchRefused(
                "readable",
                f"{name} holds {len(members)} files: an archive must hold one, or unpack it and give a pattern",
            )
        if members[0].flag_bits & 1:
            raise BatchRefused("readable", f"{name} is encrypted with a password: unpack it first")
        with archive.open(members[0]) as member:
            yield member


@contextmanager
def _spooled(stream: ByteStream, scratch: Path | None) -> Iterator[Path]:
    """Copy a stream to a private temporary file, for formats that are read from several places at once."""
    with (
        room_for("a copy of the source file"),
        tempfile.NamedTemporaryFile(prefix="taut-source-", dir=scratch) as file,
    ):
        while piece := stream.read(_READ_BYTES):
            file.write(piece)
        file.flush()
        yield Path(file.name)
