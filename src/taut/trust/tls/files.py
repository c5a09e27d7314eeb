"""Reading the files that hold certificates and keys: bounded, regular, and closed to hands that they must be closed to."""

from __future__ import annotations

import os
import stat
from pathlib import Path
from typing import Final

import msgspec

from taut.core.errors import Denied, InvalidInput, NotFound

_MAX_BYTES: Final = 1 << 20
_OTHERS: Final = stat.S_IRWXO
_GROUP: Final = stat.S_IRWXG


class TlsFiles(msgspec.Struct, frozen=True, kw_only=True):
    """Where a server's certificate chain, its key, and the authorities of its clients lie, all as PEM.

    client_ca: with it every client must show a certificate of one of these authorities. Links are followed anew at
    each reading, since that is how some tools replace all files at once.
    """

    cert: Path
    key: Path
    client_ca: Path | None = None


def read_public(path: Path, what: str) -> bytes:
    """Read a file of certificates. what: for messages, such as `the certificate`.

    Raises NotFound, Denied where anybody may write to it, InvalidInput for what is no file of that kind.
    """
    data, status = _read(path, what)
    if status.st_mode & stat.S_IWOTH:
        raise Denied(
            f"everybody may write to {what} {path}, and so become whom they like: run `chmod o-w {path}`"
        )
    return data


def read_private(path: Path) -> bytes:
    """Read a private key.

    Its file must belong to this user and be closed to everybody else, or belong to root and be at most readable by its
    group: how a system hands one key to several services, and PostgreSQL's rule too. Raises NotFound, Denied, InvalidInput.
    """
    data, status = _read(path, "the private key")
    mode = stat.S_IMODE(status.st_mode)
    if status.st_uid not in (os.geteuid(), 0):
        raise Denied(
            f"the private key {path} belongs to user {status.st_uid}: give it to the user that runs taut, or to root"
        )
    by_root = status.st_uid == 0 and os.geteuid() != 0
    too_open = mode & (_OTHERS | (stat.S_IWGRP | stat.S_IXGRP if by_root else _GROUP))
    if too_open:
        raise Denied(
            f"others may get at the private key {path} (mode {mode:04o}): run `chmod 600 {path}`, and renew it if they "
            "may have read it; only a key of root's may be readable by its group"
        )
    return data


def _read(path: Path, what: str) -> tuple[bytes, os.stat_result]:
    try:
        # not to be held up by a pipe that lies there
        descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK)
    except FileNotFoundError as error:
        raise NotFound(f"{what} {path} is not there: check the path") from error
    except OSError as error:
        raise Denied(
            f"{what} {path} cannot be read ({error.strerror}): mend its permissions or the path"
        ) from error
    status = os.fstat(descriptor)
    if not stat.S_ISREG(status.st_mode):
        os.close(descriptor)
        raise InvalidInput(f"{what} {path} is no regular file: name a PEM file")
    with open(descriptor, "rb") as file:
        data = file.read(_MAX_BYTES + 1)
    if len(data) > _MAX_BYTES:
        raise InvalidInput(f"{what} {path} is larger than {_MAX_BYTES} bytes: name a PEM file")
    return data, status
