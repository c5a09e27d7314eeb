"""The one listening socket of a home: bound once, or taken over from gateways that outlived their supervisor."""

from __future__ import annotations

import json
import socket
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Final, NamedTuple

from taut.core.errors import Conflict, InvalidInput
from taut.entrypoints.children import adopt

STATE: Final = "run/supervisor.json"
LOOPBACK: Final = ("127.0.0.1", "::1", "localhost")
PLANES: Final = 3
"""So many ports in a row a platform has: the data plane's, control's and gRPC's."""
_PORTS: Final = 2**16
_ATTEMPTS: Final = 20
_BACKLOG: Final = 2048
_HANDOVER_S: Final = 2.0


class Address(NamedTuple):
    host: str
    port: int


def listen(address: Address) -> socket.socket:
    """Bind the one listening socket, alone: without SO_REUSEPORT, so that a second installation is refused.

    Raises Conflict when the port is taken, InvalidInput for a host that is not loopback or does not exist.
    """
    if address.host not in LOOPBACK:
        raise InvalidInput(
            f"the data plane would listen on {address.host} without TLS, which is not built yet: use 127.0.0.1"
        )
    family = socket.AF_INET6 if ":" in address.host else socket.AF_INET
    listener = socket.socket(family, socket.SOCK_STREAM)
    listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)  # past connections in TIME_WAIT only
    try:
        listener.bind((address.host, address.port))
        listener.listen(_BACKLOG)
    except OSError as error:
        listener.close()
        raise Conflict(
            f"port {address.port} on {address.host} cannot be taken ({error.strerror}): stop what listens there, or "
            "choose another with --port"
        ) from error
    return listener


def listen_anywhere(host: str) -> socket.socket:
    """Bind a port that the system chooses and beside which the other planes find theirs free.

    Whoever takes one of those in the meantime is met by `await_free`. Raises Conflict when none is found.
    """
    for _ in range(_ATTEMPTS):
        listener = listen(Address(host, 0))
        port = listener.getsockname()[1]
        if port + PLANES <= _PORTS and is_free_beside(Address(host, port)):
            return listener
        listener.close()
    raise Conflict(f"no {PLANES} ports in a row are free on {host}: name the first of them with --port")


def is_free_beside(address: Address) -> bool:
    """Return whether the ports of the other planes can be bound, beside the data plane's."""
    try:
        for port in range(address.port + 1, address.port + PLANES):
            listen(Address(address.host, port)).close()
    except Conflict:
        return False
    return True


def await_free(address: Address, *, plane: str, data_plane_port: int, patience_s: float) -> None:
    """Return when a port beside the data plane's can be bound, which a former process may hold for as long as it drains.

    plane: what will listen there, in words. Raises Conflict when it is still taken after `patience_s`.
    """
    deadline_s = time.monotonic() + patience_s
    while True:
        try:
            listen(address).close()
        except Conflict as error:
            if time.monotonic() >= deadline_s:
                raise Conflict(
                    f"port {address.port} on {address.host}, where {plane} listens beside the data plane's "
                    f"{data_plane_port}, is taken: stop what listens there, or choose another with --port"
                ) from error
            time.sleep(0.1)
        else:
            return


def read_state(home: Path) -> dict[str, Any]:
    """Return what the last supervisor of this home wrote; empty when there is nothing, or nothing readable."""
    try:
        found = json.loads((home / STATE).read_text())
    except (OSError, ValueError):
        return {}
    return found if isinstance(found, dict) else {}


def take_over(home: Path, address: Address, former: Sequence[dict[str, Any]]) -> socket.socket | None:
    """Ask living gateways of a dead supervisor for their listening socket; None when none lives.

    Raises Conflict when they serve on another address than the one that is asked for, or do not hand it over.
    """
    living = [entry for entry in former if _holds_socket(home, entry) and adopt(entry) is not None]
    for entry in living:
        listener = _ask_for_socket(home / "run" / f"{entry['name']}.sock")
        if listener is None:
            continue
        port = listener.getsockname()[1]
        if address.port not in (0, port):
            listener.close()
            raise Conflict(
                f"gateways of this home still serve on port {port}: use --port {port}, or stop them first "
                f"(kill {' '.join(str(item['pid']) for item in living)})"
            )
        return listener
    if living:
        pids = " ".join(str(entry["pid"]) for entry in living)
        raise Conflict(
            f"gateways of this home still run and do not hand their socket over: stop them (kill {pids})"
        )
    return None


def _holds_socket(home: Path, entry: dict[str, Any]) -> bool:
    return (home / "run" / f"{entry.get('name')}.sock").exists()


def _ask_for_socket(path: Path) -> socket.socket | None:
    from taut.serving.snapshot.wire import socket_address

    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as door:
        door.settimeout(_HANDOVER_S)
        try:
            with socket_address(path) as address:
                door.connect(address)
            _, descriptors, _, _ = socket.recv_fds(door, 64, 1)
        except OSError:
            return None
    return socket.socket(fileno=descriptors[0]) if descriptors else None
