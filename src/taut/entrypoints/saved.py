"""Sessions of the command line: one file of the user's own, as SSH keeps its keys."""

from __future__ import annotations

import os
import stat
from collections.abc import Mapping
from pathlib import Path
from typing import Final

import msgspec

from taut.core.errors import Denied, Unavailable

_MAX_BYTES: Final = 1 << 20


class Saved(msgspec.Struct, frozen=True, kw_only=True):
    """A session that was begun by `taut login`."""

    session: str
    principal: str
    expires_at: str


_FILE: Final = msgspec.json.Decoder(dict[str, Saved])


def folder_of(environ: Mapping[str, str]) -> Path:
    """Return where this user's configuration of taut lies."""
    base = environ.get("XDG_CONFIG_HOME") or str(Path("~/.config").expanduser())
    return Path(base) / "taut"


class SavedSessions:
    """The sessions of one user on one machine, by what they are for: a URL, or a home.

    Guarantees: the file is made readable by its owner alone, and refused where it is not; it is replaced whole.
    """

    def __init__(self, folder: Path) -> None:
        self._folder: Final = folder
        self._path: Final = folder / "sessions.json"

    def get(self, target: str) -> Saved | None:
        """Return what was kept for a target. Raises Denied for a file that others could have read or written."""
        return self._read().get(target)

    def put(self, target: str, saved: Saved) -> None:
        self._write({**self._read(), target: saved})

    def remove(self, target: str) -> None:
        kept = self._read()
        if kept.pop(target, None) is not None:
            self._write(kept)

    def _read(self) -> dict[str, Saved]:
        try:
            descriptor = os.open(self._path, os.O_RDONLY | os.O_CLOEXEC | os.O_NOFOLLOW)
        except FileNotFoundError:
            return {}
        except OSError as error:
            raise Unavailable(
                f"{self._path} cannot be read ({error.strerror}): mend it or remove it"
            ) from error
        with os.fdopen(descriptor, "rb") as file:
            found = os.fstat(descriptor)
            if found.st_uid != os.geteuid() or stat.S_IMODE(found.st_mode) & 0o077:
                raise Denied(
                    f"{self._path} is open to others: remove it and sign in again; who read it may act as you until then"
                )
            try:
                return _FILE.decode(file.read(_MAX_BYTES))
            except (msgspec.MsgspecError, UnicodeDecodeError) as error:
                raise Unavailable(
                    f"{self._path} is damaged ({error}): remove it and sign in again"
                ) from error

    def _write(self, kept: dict[str, Saved]) -> None:
        temporary = self._path.with_name(f".sessions.{os.getpid()}.tmp")
        try:
            self._folder.mkdir(mode=0o700, parents=True, exist_ok=True)
            temporary.unlink(missing_ok=True)
            flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC | os.O_NOFOLLOW
            with os.fdopen(os.open(temporary, flags, 0o600), "wb") as file:
                file.write(msgspec.json.encode(kept))
                file.flush()
                os.fsync(file.fileno())
            temporary.replace(self._path)
        except OSError as error:
            raise Unavailable(
                f"{self._path} cannot be written ({error.strerror}): free disk space, or mend the folder's rights"
            ) from error
