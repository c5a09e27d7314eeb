"""Files as one deterministic archive: a zip of stored entries, which is read back as it was written or not at all."""

from __future__ import annotations

import io
import stat
import zipfile
from collections.abc import Mapping
from typing import Final

from taut.core.errors import Corrupt

_EPOCH: Final = (1980, 1, 1, 0, 0, 0)  # the earliest time that a zip can hold
_MODE: Final = (stat.S_IFREG | 0o644) << 16


def write_archive(files: Mapping[str, bytes]) -> bytes:
    """Return the archive of files by name. Equal files give equal bytes on every machine.

    Nothing is compressed: the output of zlib differs between its versions.
    """
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", zipfile.ZIP_STORED) as archive:
        for name in sorted(files):
            entry = zipfile.ZipInfo(name, date_time=_EPOCH)
            entry.create_system = 3  # Unix, on every machine
            entry.external_attr = _MODE
            archive.writestr(entry, files[name])
    return buffer.getvalue()


def read_archive(data: bytes, *, what: str, remedy: str, max_bytes: int, max_files: int) -> dict[str, bytes]:
    """Return the files of an archive; nothing is written anywhere.

    what, remedy: for the message. max_bytes, max_files: of what it unpacks to.
    Raises Corrupt for anything that `write_archive` cannot have written: a broken zip, a name that leaves the folder, a
    link, a name given twice, an encrypted or compressed entry, a size beyond the bounds.
    """
    if len(data) > 2 * max_bytes:
        raise Corrupt(f"{what} has {len(data):,} bytes, more than any may have: {remedy}")
    try:
        with zipfile.ZipFile(io.BytesIO(data)) as archive:
            entries = archive.infolist()
            _check_entries(entries, what, remedy, max_bytes=max_bytes, max_files=max_files)
            return {entry.filename: archive.read(entry) for entry in entries}
    except (zipfile.BadZipFile, EOFError, OSError, ValueError, NotImplementedError, RuntimeError) as error:
        raise Corrupt(f"{what} is no readable archive ({error}): {remedy}") from error


def _check_entries(
    entries: list[zipfile.ZipInfo], what: str, remedy: str, *, max_bytes: int, max_files: int
) -> None:
    total = 0
    seen: set[str] = set()
    for entry in entries:
        total += entry.file_size
        problem = _entry_problem(entry, seen)
        seen.add(entry.filename)
        if problem:
            raise Corrupt(f"{what}: entry {entry.filename[:80]!r} {problem}: {remedy}")
    if total > max_bytes or len(entries) > max_files:
        raise Corrupt(f"{what} unpacks to {total:,} bytes in {len(entries):,} files, beyond its bounds")


def _entry_problem(entry: zipfile.ZipInfo, seen: set[str]) -> str:
    name = entry.filename
    parts = name.split("/")
    if (
        not name
        or name.startswith("/")
        or "\\" in name
        or ":" in name
        or any(part in ("", ".", "..") for part in parts)
    ):
        return "would leave the folder"
    if name in seen:
        return "is there twice"
    if not stat.S_ISREG(entry.external_attr >> 16):
        return "is no plain file"
    if entry.flag_bits & 0x1 or entry.compress_type != zipfile.ZIP_STORED:
        return "is encrypted or compressed, which it never is"
    return ""
