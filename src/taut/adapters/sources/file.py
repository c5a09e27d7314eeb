"""Sources on the local disk."""

from __future__ import annotations

import difflib
import errno
import glob
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
        if _MAGIC & set(text):
            found = sorted(Path(p) for p in glob.glob(str(full), recursive=True))
            files = [path for path in found if path.is_file()]
            if not files:
                raise NotFound(f"no file matches {text!r} under {root}{_nearest(full)}")
        elif full.is_dir():
            raise InvalidInput(
                f"{full} is a folder: name the files in it, for example {text.rstrip('/')}/*.csv"
            )
        elif not full.exists():
            raise NotFound(f"there is no file {full}{_nearest(full)}")
        else:
            files = [full]
        return tuple(_describe(path, root) for path in files)

    @contextmanager
    def open(self, file: SourceFile) -> Iterator[IO[bytes]]:
        path = Path(file.url.removeprefix("file://"))
        try:
            stream = path.open("rb")
        except OSError as error:
            raise translate(error, path) from error
        with stream:
            try:
                yield stream
            except OSError as error:
                if error.filename is not None or error.errno is None:
                    raise  # of another file, or a decompressor's own
                raise translate(error, path) from error


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
