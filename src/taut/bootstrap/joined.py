"""A home that is a further machine of another installation: what it knows of it, in a file of its owner's alone."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Final

import msgspec

from taut.core.errors import Conflict, Corrupt, Unavailable
from taut.serving.files import replace_file

FILE: Final = "machine.json"


class Joined(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """control: URL of the control plane. machine: the name of this one, empty until it entered. door: the port at which control
    listens for machines. invitation: SHA-256 of the one that was taken. instance: of this home, so that two are never taken for one.
    tls_ca, client_cert, client_key: paths as for every client, empty where there are none."""

    control: str
    machine: str
    instance: str
    door: int = 0
    invitation: str = ""
    tls_ca: str = ""
    client_cert: str = ""
    client_key: str = ""


def read_joined(home: Path) -> Joined | None:
    """Return what `home` joined; None where it did not. Raises Corrupt for a file that is not ours."""
    path = home / FILE
    try:
        return msgspec.json.decode(path.read_bytes(), type=Joined)
    except FileNotFoundError:
        return None
    except (msgspec.MsgspecError, UnicodeDecodeError) as error:
        raise Corrupt(f"{path} cannot be read ({error}): remove it and join again with --join") from error


def write_joined(home: Path, joined: Joined) -> None:
    path = home / FILE
    try:
        replace_file(
            path, msgspec.json.encode(joined), temporary=path.with_name(f".{FILE}.{os.getpid()}.tmp")
        )
    except OSError as error:
        raise Unavailable(
            f"{path} cannot be written ({error.strerror}): free disk space or mend its rights"
        ) from error


def refuse_joined(home: Path) -> None:
    """Raise Conflict where `home` is a machine of another installation: it has no control, nor may it get one."""
    joined = read_joined(home)
    if joined is not None:
        raise Conflict(
            f"{home} is machine {joined.machine!r} of the installation at {joined.control}: ask there with --url, or name "
            "another home with --home"
        )
