"""Files that are whole or absent, private to their owner, and on stable storage when a call returned.

A file is staged beside its target under a name that begins with `.staged-`, synchronised, moved or linked into place,
and its folder synchronised. The writer holds a lock (flock) on the staged file, so that `sweep` can tell what a dead
writer left from what a living one still writes; folders for scratch are held and swept in the same way.
"""

from __future__ import annotations

import contextlib
import errno
import fcntl
import os
import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Final, NamedTuple

from taut.core.errors import TautError, Unavailable

_PREFIX: Final = ".staged-"
_FULL: Final = frozenset({errno.ENOSPC, errno.EDQUOT, errno.EFBIG})
_REFUSED: Final = frozenset({errno.EACCES, errno.EPERM, errno.EROFS})


class Staged(NamedTuple):
    """A private file that has no name of the store yet."""

    path: Path
    descriptor: int

    def write(self, data: bytes | bytearray | memoryview) -> None:
        rest = memoryview(data)
        while rest:
            rest = rest[os.write(self.descriptor, rest) :]


def private_folder(path: Path) -> None:
    """Make a folder and its missing parents with mode 0700, durably. An existing one is left as it is."""
    missing = []
    folder = path
    while not folder.is_dir():
        if folder.exists() and not folder.is_dir():  # asked twice: another process may be making it
            raise NotADirectoryError(errno.ENOTDIR, f"{folder} is no folder")
        missing.append(folder)
        folder = folder.parent
    for folder in reversed(missing):
        with contextlib.suppress(FileExistsError):
            folder.mkdir(mode=0o700)
        sync_folder(folder.parent)


def sync_folder(path: Path) -> None:
    """Put the folder's entries on stable storage."""
    descriptor = os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


@contextlib.contextmanager
def staged(folder: Path) -> Iterator[Staged]:
    """Yield a new private file in `folder` that disappears at the end of the block unless it was published."""
    file = _open_locked(folder)
    try:
        yield file
    finally:
        os.close(file.descriptor)
        file.path.unlink(missing_ok=True)


def _open_locked(folder: Path) -> Staged:
    while True:
        descriptor, name = tempfile.mkstemp(prefix=_PREFIX, dir=folder)
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            os.close(descriptor)  # a sweep took it between the two calls and removes it
            continue
        if os.fstat(descriptor).st_nlink:
            return Staged(Path(name), descriptor)
        os.close(descriptor)


def publish(file: Staged, target: Path, *, mode: int = 0o600) -> None:
    """Move a staged file to `target` in the same file system, replacing what is there."""
    _settle(file, mode)
    os.replace(file.path, target)
    sync_folder(target.parent)


def publish_new(file: Staged, target: Path, *, mode: int = 0o600) -> bool:
    """Give a staged file the name `target` unless that exists; say whether it did not exist.

    Either way the entry that exists afterwards is on stable storage.
    """
    _settle(file, mode)
    try:
        os.link(file.path, target)
    except FileExistsError:
        created = False
    else:
        created = True
    sync_folder(target.parent)
    return created


def _settle(file: Staged, mode: int) -> None:
    os.fchmod(file.descriptor, mode)
    os.fsync(file.descriptor)


def replace_file(target: Path, data: bytes, *, mode: int = 0o600) -> None:
    """Write `data` to `target`, whole or not at all."""
    with staged(target.parent) as file:
        file.write(data)
        publish(file, target, mode=mode)


def remove_file(target: Path) -> bool:
    """Remove a file durably; say whether it was there."""
    try:
        target.unlink()
    except FileNotFoundError:
        return False
    sync_folder(target.parent)
    return True


def sweep(folder: Path) -> int:
    """Remove staged files of writers that died; return how many."""
    removed = 0
    for path in folder.glob(f"{_PREFIX}*"):
        try:
            # read-only: the file may have got its final mode, 0400, before its writer died
            descriptor = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC)
        except FileNotFoundError:
            continue
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
            path.unlink(missing_ok=True)
            removed += 1
        except BlockingIOError:
            continue  # its writer lives
        finally:
            os.close(descriptor)
    return removed


def own_folder(root: Path, *, prefix: str) -> tuple[Path, int]:
    """Return a new private folder and a descriptor that holds its lock: `sweep_folders` leaves it while that is open."""
    while True:
        folder = Path(tempfile.mkdtemp(prefix=prefix, dir=root))
        try:
            descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        except FileNotFoundError:
            continue  # another process swept it before it was locked
        fcntl.flock(descriptor, fcntl.LOCK_EX)
        if folder.exists():
            return folder, descriptor
        os.close(descriptor)


def sweep_folders(root: Path, *, prefix: str) -> None:
    """Remove folders of `own_folder` whose process is gone: nobody holds their lock."""
    for folder in root.glob(f"{prefix}*"):
        try:
            descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        except FileNotFoundError:
            continue
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            continue
        else:
            shutil.rmtree(folder, ignore_errors=True)
        finally:
            os.close(descriptor)


@contextlib.contextmanager
def locked(path: Path) -> Iterator[None]:
    """Hold an exclusive lock between processes and threads on a lock file, made when absent."""
    descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW | os.O_CLOEXEC, 0o600)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX)
        yield
    finally:
        # unlock in so many words: a process forked meanwhile shares the descriptor and would keep the lock
        fcntl.flock(descriptor, fcntl.LOCK_UN)
        os.close(descriptor)


@contextlib.contextmanager
def as_unavailable(what: str) -> Iterator[None]:
    """Turn the operating system's errors into Unavailable with what to do; taut's own pass through."""
    try:
        yield
    except TautError:
        raise
    except OSError as error:
        if error.errno in _FULL:
            advice = "there is no room left: free space or raise the quota, then try again"
        elif error.errno in _REFUSED:
            advice = (
                "the operating system refuses: check owner, permissions and whether it is mounted read-only"
            )
        else:
            advice = "check the disk and the mount, then try again"
        raise Unavailable(f"{what}: {error.strerror or error}: {advice}") from error
