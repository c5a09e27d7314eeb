"""The listening sockets of a home: bound once, or taken over from gateways that outlived their supervisor.

One is everybody's; where that one speaks TLS there is another, without, on a Unix socket of the owner's.
"""

from __future__ import annotations

import contextlib
import json
import resource
import secrets
import socket
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, Final, NamedTuple

from taut.core.errors import Conflict, InvalidInput
from taut.core.hosts import LOOPBACK
from taut.entrypoints.children import adopt

STATE: Final = "run/supervisor.json"
INNER: Final = "run/gateways.sock"
"""Where gateways that speak TLS to everybody else listen for the gRPC process and their owner's commands, in the home."""
PLANES: Final = 4
"""So many ports in a row a platform has: the data plane's, control's, gRPC's, and the one at which machines speak to control."""
MAX_DESCRIPTORS: Final = 20_000
_FIRST_PORT: Final = 20_000
_OUTGOING: Final = Path("/proc/sys/net/ipv4/ip_local_port_range")
_ATTEMPTS: Final = 50
_BACKLOG: Final = 2048
_HANDOVER_S: Final = 2.0


class Address(NamedTuple):
    host: str
    port: int


class TlsPaths(NamedTuple):
    """The files of TLS as they were named, absolute. client_ca: empty where clients need no certificate."""

    cert: str
    key: str
    client_ca: str = ""

    @classmethod
    def of(cls, cert: str, key: str, client_ca: str) -> TlsPaths | None:
        """Return what was given; None where nothing was. Raises InvalidInput for a part of it."""
        if not (cert or key or client_ca):
            return None
        if not (cert and key):
            raise InvalidInput(
                "TLS needs a certificate and its key: give --tls-cert and --tls-key (TAUT_TLS_CERT, TAUT_TLS_KEY)"
            )
        # not resolved: where a link is swung to new files, its own name has to be read again
        absolute = [
            str(Path(path).expanduser().absolute()) if path else "" for path in (cert, key, client_ca)
        ]
        return cls(*absolute)

    def words(self) -> tuple[str, ...]:
        """Return the arguments of a process."""
        named = ("--tls-cert", self.cert, "--tls-key", self.key)
        return (*named, "--tls-client-ca", self.client_ca) if self.client_ca else named


def require_secure(host: str, *, tls: bool, plane: str) -> None:
    """Raise InvalidInput where a plane would be reached from other machines without TLS."""
    if not tls and host not in LOOPBACK:
        raise InvalidInput(
            f"{plane} would listen on {host} without TLS: give --tls-cert and --tls-key (`taut tls create` makes both "
            "for a try), or use 127.0.0.1"
        )


def listen(address: Address, *, tls: bool = False) -> socket.socket:
    """Bind the one listening socket, alone: without SO_REUSEPORT, so that a second installation is refused.

    Raises Conflict when the port is taken, InvalidInput for a host that does not exist, or is not loopback without TLS.
    """
    require_secure(address.host, tls=tls, plane="the data plane")
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


def listen_anywhere(host: str, *, tls: bool = False) -> socket.socket:
    """Bind a port that is free, and beside which the other planes find theirs free.

    It is none of those that the system gives to connections to outside: one of them may take control's port for as long
    as control is being started again. Starts are `PLANES` apart, so that platforms started at once do not meet.
    Raises Conflict when none is found.
    """
    starts = range(_FIRST_PORT, _outgoing_from() - PLANES, PLANES)
    for _ in range(_ATTEMPTS):
        here = Address(host, secrets.choice(starts))
        try:
            listener = listen(here, tls=tls)
        except Conflict:
            continue
        if is_free_beside(here, tls=tls):
            return listener
        listener.close()
    raise Conflict(f"no {PLANES} ports in a row are free on {host}: name the first of them with --port")


def _outgoing_from() -> int:
    """Return the first port that the system gives to connections to outside; IANA's where it does not say."""
    try:
        return max(_FIRST_PORT + 100 * PLANES, int(_OUTGOING.read_text().split()[0]))
    except (OSError, ValueError, IndexError):
        return 49_152


def is_free_beside(address: Address, *, tls: bool = False) -> bool:
    """Return whether the ports of the other planes can be bound, beside the data plane's."""
    try:
        for port in range(address.port + 1, address.port + PLANES):
            listen(Address(address.host, port), tls=tls).close()
    except Conflict:
        return False
    return True


def allow_descriptors() -> int:
    """Raise the soft bound on open files to the hard one, and return it: each connection is one."""
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    wanted = MAX_DESCRIPTORS if hard == resource.RLIM_INFINITY else min(hard, MAX_DESCRIPTORS)
    resource.setrlimit(resource.RLIMIT_NOFILE, (wanted, hard))
    return wanted


def listen_inside(path: Path) -> socket.socket:
    """Bind the gateways' own socket at a path that the home's lock keeps for us; for its owner alone."""
    from taut.serving.snapshot.wire import socket_address

    path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
    path.unlink(missing_ok=True)
    listener = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    with socket_address(path) as address:
        listener.bind(address)
    path.chmod(0o600)
    listener.listen(_BACKLOG)
    return listener


def await_free(
    address: Address, *, plane: str, data_plane_port: int, patience_s: float, tls: bool = False
) -> None:
    """Return when a port beside the data plane's can be bound, which a former process may hold for as long as it drains.

    plane: what will listen there, in words. Raises Conflict when it is still taken after `patience_s`.
    """
    deadline_s = time.monotonic() + patience_s
    while True:
        try:
            listen(address, tls=tls).close()
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


class Handed(NamedTuple):
    """What a gateway hands over. inner: None where it has none, as without TLS."""

    listener: socket.socket
    inner: socket.socket | None

    def close(self) -> None:
        self.listener.close()
        if self.inner is not None:
            self.inner.close()


def take_over(home: Path, address: Address, former: Sequence[dict[str, Any]]) -> Handed | None:
    """Ask living gateways of a dead supervisor for their listening sockets; None when none lives.

    Raises Conflict when they serve on another address than the one that is asked for, or do not hand it over.
    """
    living = [entry for entry in former if _holds_socket(home, entry) and adopt(entry) is not None]
    for entry in living:
        handed = _ask_for_socket(home / "run" / f"{entry['name']}.sock")
        if handed is None:
            continue
        host, port = handed.listener.getsockname()[:2]
        pids = " ".join(str(item["pid"]) for item in living)
        if address.port not in (0, port):
            handed.close()
            raise Conflict(
                f"gateways of this home still serve on port {port}: use --port {port}, or stop them first (kill {pids})"
            )
        if host not in _numbers(address.host):  # else a plane that was for other machines could lose its TLS
            handed.close()
            raise Conflict(
                f"gateways of this home still serve on {host}: use --host {host}, or stop them first (kill {pids})"
            )
        return handed
    if living:
        pids = " ".join(str(entry["pid"]) for entry in living)
        raise Conflict(
            f"gateways of this home still run and do not hand their socket over: stop them (kill {pids})"
        )
    return None


def _holds_socket(home: Path, entry: dict[str, Any]) -> bool:
    return (home / "run" / f"{entry.get('name')}.sock").exists()


def _numbers(host: str) -> set[str]:
    """Return the addresses that a host's name stands for."""
    with contextlib.suppress(OSError):
        return {str(found[4][0]) for found in socket.getaddrinfo(host, None, type=socket.SOCK_STREAM)}
    return {host}


def _ask_for_socket(path: Path) -> Handed | None:
    from taut.serving.snapshot.wire import socket_address

    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as door:
        door.settimeout(_HANDOVER_S)
        try:
            with socket_address(path) as address:
                door.connect(address)
            _, descriptors, _, _ = socket.recv_fds(door, 64, 2)
        except OSError:
            return None
    sockets = [socket.socket(fileno=descriptor) for descriptor in descriptors]
    return Handed(sockets[0], sockets[1] if len(sockets) > 1 else None) if sockets else None


@contextlib.contextmanager
def open_sockets(
    home: Path, address: Address, former: Sequence[dict[str, Any]], *, tls: bool
) -> Iterator[tuple[socket.socket, socket.socket | None]]:
    """Yield what gateways listen on: taken over from those that live, or bound. The second one only with TLS."""
    handed = take_over(home, address, former)
    with contextlib.ExitStack() as stack:
        if handed is not None:
            listener = handed.listener
        else:
            listener = listen(address, tls=tls) if address.port else listen_anywhere(address.host, tls=tls)
        stack.enter_context(listener)
        inner = None if handed is None or handed.inner is None else stack.enter_context(handed.inner)
        if not tls:
            (home / INNER).unlink(missing_ok=True)
            yield listener, None
        else:
            yield listener, stack.enter_context(listen_inside(home / INNER)) if inner is None else inner
