"""Writing a small authority and what it issues into a folder, so that a platform that runs can take it over."""

from __future__ import annotations

import os
import socket
from collections.abc import Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Final

from taut.core.errors import Conflict, InvalidInput
from taut.entrypoints.home import private_home
from taut.trust.tls import (
    Issued,
    TlsFiles,
    create_authority,
    issue_client,
    issue_server,
    read_facts,
    read_material,
)

_AUTHORITY_DAYS: Final = 3650
_HERE: Final = ("localhost", "127.0.0.1", "::1")


def make_certificates(
    folder: Path, *, hosts: Sequence[str], clients: Sequence[str], days: int
) -> dict[str, Any]:
    """Write `ca.pem`, `ca.key`, `server.pem`, `server.key`, and `NAME.pem`, `NAME.key` for each client.

    Keys are for their owner alone. An authority that is there is used again; everything else is replaced, each file
    whole or not at all. Raises InvalidInput for names, Conflict for half an authority, Denied for a folder that is open.
    """
    private_home(folder)
    now = datetime.now(UTC)
    authority, new = _authority(folder, now)
    named = list(dict.fromkeys(hosts)) or _named_before(folder / "server.pem") or _this_machine()
    server = issue_server(authority, named, days=days, now=now)
    shown = [(name, issue_client(authority, _file_name(name), days=days, now=now)) for name in clients]
    files = TlsFiles(cert=folder / "server.pem", key=folder / "server.key")
    _write(files.key, server.key, 0o600)
    _write(files.cert, server.cert, 0o644)
    for name, issued in shown:
        _write(folder / f"{name}.key", issued.key, 0o600)
        _write(folder / f"{name}.pem", issued.cert, 0o644)
    facts = read_material(files, now=now).facts
    return {
        "ca": str(folder / "ca.pem"), "new_authority": new, "cert": str(files.cert), "key": str(files.key),
        "hosts": list(facts.names), "serial": facts.serial, "not_after": f"{facts.not_after:%Y-%m-%d}",
        "clients": [
            {"name": name, "cert": str(folder / f"{name}.pem"), "key": str(folder / f"{name}.key")} for name in clients
        ],
    }  # fmt: skip


def _authority(folder: Path, now: datetime) -> tuple[Issued, bool]:
    cert, key = folder / "ca.pem", folder / "ca.key"
    if cert.exists() != key.exists():
        raise Conflict(f"{cert} and {key} go together, and one is missing: restore it, or remove the other")
    if cert.exists():
        return Issued(cert=cert.read_bytes(), key=key.read_bytes()), False
    made = create_authority(f"taut on {socket.gethostname()}", days=_AUTHORITY_DAYS, now=now)
    _write(key, made.key, 0o600)
    _write(cert, made.cert, 0o644)
    return made, True


def _write(path: Path, data: bytes, mode: int) -> None:
    temporary = path.with_name(f".{path.name}.new")
    temporary.unlink(missing_ok=True)
    flags = os.O_CREAT | os.O_EXCL | os.O_WRONLY | os.O_CLOEXEC | os.O_NOFOLLOW
    with open(os.open(temporary, flags, mode), "wb") as file:
        file.write(data)
        file.flush()
        os.fsync(file.fileno())
    temporary.replace(path)


def _named_before(cert: Path) -> list[str]:
    """Return the names of the certificate that lies there, for one that is to follow it."""
    try:
        return list(read_facts(cert).names) if cert.exists() else []
    except InvalidInput as error:
        raise InvalidInput(f"{error.message}; to replace it, name the hosts with --host") from error


def _this_machine() -> list[str]:
    name = socket.gethostname()
    return [*_HERE, name] if name and name not in _HERE else [*_HERE]


def _file_name(name: str) -> str:
    if name in ("ca", "server") or not name.replace("-", "").replace("_", "").replace(".", "").isalnum():
        raise InvalidInput(f"--client {name[:60]!r} cannot name files here: use letters, digits, - and _")
    return name
