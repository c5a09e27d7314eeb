"""Sources on the local disk."""

from __future__ import annotations

import difflib
import errno
import glob
import os
import stat
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO, Final

from taut.core.errors import Denied, InvalidInput, NotFound, TautError, Unavailable
from taut.ports.sources import SourceFile

_MAGIC: Final = frozenset("*?[")


class FileSources:
    """Files of this machine; a relative path starts at the root that the caller gives."""

    def find(self, url: str, *, root: Path) -> tuple[SourceFile, ...]:
        text = url.removeprefix("file://")
        if not text or "\0" in text:
            raise InvalidInput(f"{url!r} is no path")
        full = root / Path(text).expanduser()
        try:
            files = self._named(text, full, root)
        except OSError as error:  # a folder on the way that this user may not enter, a name too long
            raise translate(error, full) from error
        return tuple(_describe(path, root) for path in files)

    def _named(self, text: str, full: Path, root: Path) -> list[Path]:
        if _MAGIC & set(text):
            # as texts: paths would sort by folder, so that `a/b` came before `a-b`, unlike in an object store
            found = sorted(glob.glob(str(full), recursive=True))
            files = [path for path in map(Path, found) if path.is_file()]
            if not files:
                raise NotFound(f"no file matches {text!r} under {root}{_nearest(full)}")
            return files
        if full.is_dir():
            raise InvalidInput(
                f"{full} is a folder: name the files in it, for example {text.rstrip('/')}/*.csv"
            )
        _check_kind(full.stat().st_mode, full)
        return [full]

    @contextmanager
    def open(self, file: SourceFile) -> Iterator[IO[bytes]]:
        path = Path(file.url.removeprefix("file://"))
        try:
            stream = open(path, "rb", opener=_without_waiting)  # noqa: SIM115 - closed below
        except OSError as error:
            raise translate(error, path) from error
        with stream:
            try:
                _check_kind(os.fstat(stream.fileno()).st_mode, path)
                yield stream
            except OSError as error:
                if error.filename is not None or error.errno is None:
                    raise  # of another file, or a decompressor's own
                raise translate(error, path) from error


def _without_waiting(path: str, flags: int) -> int:
    """Open without waiting: a pipe in a file's place would otherwise hold the caller until somebody writes to it."""
    return os.open(path, flags | os.O_NONBLOCK | os.O_CLOEXEC)


def _check_kind(mode: int, path: Path) -> None:
    """Refuse what is not kept on a disk: a pipe gives its bytes once, and a device may never end."""
    if not stat.S_ISREG(mode):
        raise InvalidInput(f"{path} is a pipe, socket or device: copy its content to a file and name that")


def _describe(path: Path, root: Path) -> SourceFile:
    try:
        status = path.stat()
    except OSError as error:
        raise translate(error, path) from error
    absolute = path.absolute()
    inside = absolute.is_relative_to(root.absolute())
    return SourceFile(
        url=f"file://{absolute}",
        name=str(absolute.relative_to(root.absolute())) if inside else str(absolute),
        size_bytes=status.st_size,
        modified_us=status.st_mtime_ns // 1000,
    )


def translate(error: OSError, path: Path) -> TautError:
    if isinstance(error, FileNotFoundError):
        return NotFound(f"there is no file {path}{_nearest(path)}")
    if isinstance(error, PermissionError):
        return Denied(f"{path} may not be read by this user: change its mode or owner")
    if isinstance(error, IsADirectoryError):
        return InvalidInput(f"{path} is a folder: name the files in it")
    if error.errno in (errno.EIO, errno.ESTALE, errno.ETIMEDOUT, errno.EMFILE, errno.ENFILE, errno.EINTR):
        return Unavailable(f"{path} cannot be read now: {error.strerror}")
    return InvalidInput(f"{path} cannot be read: {error.strerror}")


def _nearest(path: Path) -> str:
    """Name the nearest file that exists beside `path`, or the nearest folder above it."""
    folder = path.parent
    while not folder.is_dir() and folder != folder.parent:
        folder = folder.parent
    try:
        names = sorted(p.name for p in folder.iterdir())[:10_000]
    except OSError:
        return f": {folder} cannot be listed"
    if folder == path.parent:
        near = difflib.get_close_matches(path.name, names, n=1, cutoff=0.4)
        if near:
            return f": did you mean {folder / near[0]}?"
    return f": {folder} has {', '.join(names[:8]) or 'no files'}"
