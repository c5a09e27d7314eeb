"""Control's end of the stream: pushes each new snapshot to every connected gateway and hears what became of it."""

from __future__ import annotations

import contextlib
import socket
import struct
import threading
import time
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import Final

import msgspec

from taut.core.errors import Conflict, Corrupt, Exhausted, Unavailable
from taut.serving.snapshot.lending import Departed, Lender, process_of
from taut.serving.snapshot.model import Machine, ServingSnapshot
from taut.serving.snapshot.store import SnapshotStore
from taut.serving.snapshot.wire import (
    Ack,
    Beat,
    Hello,
    Report,
    Word,
    decode_report,
    frame,
    frame_lease,
    frame_word,
    read_frame,
    socket_address,
)
from taut.trust.signing import SignedStatement

_WRITE_TIMEOUT: Final = struct.pack("@ll", 1, 0)  # a timeval of one second
_BACKLOG: Final = 64
_SILENT_S: Final = 3.0
"""A machine that says nothing for so long is waited for no more: it says something every second."""
_GONE_S: Final = 30.0
"""After so long its gateways have no part in a quota any more."""
_MAX_MACHINES: Final = 256


class GatewayState(msgspec.Struct, frozen=True, kw_only=True):
    """What control knows about one connected gateway."""

    gateway: str
    pid: int
    serving: int
    ack: Ack | None = None
    beat: Beat | None = None
    heard_s: float = 0.0  # monotonic


class MachineState(msgspec.Struct, frozen=True, kw_only=True):
    """What control knows about a further machine: who it is, which of its starts, and what its gateways reported.

    instance: of its home, so that two homes are never one machine. heard_s: monotonic, as those of its gateways.
    """

    machine: Machine
    instance: str
    gateways: tuple[GatewayState, ...] = ()
    heard_s: float = 0.0


Heard = Callable[[str, int, bytes], Iterable[tuple[str, bytes]]]
"""Takes what a gateway (its name, its process) said to somebody else than the stream; returns what is to be told to which
gateway. Raises nothing."""


def nobody(_gateway: str, _pid: int, _data: bytes) -> Iterable[tuple[str, bytes]]:
    """Nobody listens to what gateways say beside their reports."""
    return ()


class Publisher:
    """Listens on a Unix socket; one thread accepts, one a gateway listens to its reports. A context manager.

    Gateways of further machines are not connected here: a process of each machine follows (`follow`), is the publisher of its
    own gateways, and says what became of it (`hear`); they are waited for and shown as those that are.
    heard: takes what gateways say beside their reports.
    lender: of quotas; None where control is elsewhere, and lends what `deliver` takes.

    Guarantees: a snapshot is on disk before any gateway has it; a gateway that connects gets the newest at once; one
    that does not take a frame within a second is dropped (it reconnects, and gets the newest).
    Not guaranteed: that a gateway applied it; `wait` says so.
    """

    def __init__(
        self, store: SnapshotStore, path: Path, *, heard: Heard = nobody, lends: bool = True
    ) -> None:
        self._heard: Final = heard
        self._store: Final = store
        self._path: Final = path
        self._changed: Final = threading.Condition()
        self._connections: dict[socket.socket, GatewayState | None] = {}
        self._newest = store.newest()
        self._machines: dict[str, MachineState] = {}
        self._snapshot: ServingSnapshot | None = None
        self._sending: Final = threading.Lock()
        self._closed = self._ending = False
        path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
        self._departed: Final = Departed()
        self.lender: Final = Lender(path.parent / "quota-holders.json") if lends else None
        issued = store.issued_last()
        if self.lender is not None and issued is not None:
            self.lender.declare(issued)
        path.unlink(missing_ok=True)
        self._listener: Final = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        try:
            with socket_address(path) as address:
                self._listener.bind(address)
            path.chmod(0o600)
            self._inode: Final = path.stat().st_ino
            self._listener.listen(_BACKLOG)
        except OSError as error:
            self._listener.close()
            raise Unavailable(
                f"{path} cannot be opened ({error.strerror}): mend the rights of its folder"
            ) from error
        self._threads: list[threading.Thread] = []
        self._spawn(self._accept, "snapshot-accept")

    def publish(self, statement: SignedStatement) -> ServingSnapshot:
        """Keep a signed snapshot and push it. Raises Conflict when it is not newer than the last one."""
        data = statement.to_json()
        with self._sending:
            snapshot = self._store.save(data)
            if self.lender is not None:
                self.lender.declare(snapshot)
            with self._changed:
                self._newest, self._snapshot = data, snapshot
                self._changed.notify_all()
                connections = list(self._connections)
            for connection in connections:
                self._send(connection, frame(data))
        return snapshot

    def tell(self, gateway: str, data: bytes) -> None:
        """Tell a gateway something that is no snapshot. One that is not connected here hears nothing."""
        with self._sending:
            with self._changed:
                found = [
                    one for one, state in self._connections.items() if state and state.gateway == gateway
                ]
            for connection in found:
                self._send(connection, frame_word(data))

    def wait(self, epoch: int, *, timeout_s: float) -> tuple[GatewayState, ...]:
        """Wait until every connected gateway applied or refused `epoch`, or the time is over; return their states."""
        deadline = time.monotonic() + timeout_s
        with self._changed:
            while self._awaits(epoch):
                left = deadline - time.monotonic()
                if left <= 0:
                    break
                self._changed.wait(min(left, _SILENT_S / 4))  # a machine that died says nothing of it
            return self._states()

    @property
    def snapshot(self) -> ServingSnapshot | None:
        """Return what was published here last; None before the first."""
        return self._snapshot

    def follow(self, epoch: int, *, timeout_s: float) -> bytes | None:
        """Return the newest signed snapshot as soon as it is above `epoch`; None when none is after `timeout_s`."""
        deadline = time.monotonic() + timeout_s
        with self._changed:
            while True:
                if self._snapshot is not None and self._snapshot.epoch > epoch:
                    return self._newest
                left = deadline - time.monotonic()
                if left <= 0 or self._ending:
                    return None
                self._changed.wait(left)

    def let_go(self) -> None:
        """Let nobody wait in `follow` any more."""
        with self._changed:
            self._ending = True
            self._changed.notify_all()

    def hear(self, state: MachineState) -> dict[str, bytes]:
        """Take what a machine says of itself and its gateways; return what its gateways are lent, by process.

        Raises Conflict while another home says that it is this machine, Exhausted beyond the bound on machines.
        """
        now = time.monotonic()
        with self._changed:
            self._machines = {
                name: one for name, one in self._machines.items() if now - one.heard_s < _GONE_S
            }
            name = state.machine.name
            known = self._machines.get(name)
            if known is not None and known.instance != state.instance and now - known.heard_s < _SILENT_S:
                raise Conflict(
                    f"another home serves as machine {name!r} at {known.machine.url}: stop it, or join as another principal"
                )
            if known is None and len(self._machines) >= _MAX_MACHINES:
                raise Exhausted(
                    f"{_MAX_MACHINES} machines have joined already: stop one", retry_after_s=_GONE_S
                )
            self._machines[name] = state
            self._changed.notify_all()
        leases: dict[str, bytes] = {}
        for gateway in state.gateways:
            leases |= self._lent(gateway, {process_of(one.gateway, one.pid) for one in state.gateways})
        return leases

    def ended(self) -> tuple[str, ...]:
        """Return the processes that followed here lately and have ended, by the names under which they hold leases."""
        with self._changed:
            return self._departed.ended()

    def deliver(self, leases: Mapping[str, bytes]) -> None:
        """Give gateways that are connected here what they are lent, by process."""
        with self._sending:
            with self._changed:
                found = {
                    process_of(state.gateway, state.pid): connection
                    for connection, state in self._connections.items()
                    if state is not None
                }
            for process, lease in leases.items():
                if process in found:
                    self._send(found[process], frame_lease(lease))

    def machines(self) -> tuple[MachineState, ...]:
        """Return the further machines that were heard lately, by name."""
        now = time.monotonic()
        with self._changed:
            found = [one for one in self._machines.values() if now - one.heard_s < _GONE_S]
        return tuple(sorted(found, key=lambda one: one.machine.name))

    def gateways(self) -> tuple[GatewayState, ...]:
        with self._changed:
            return self._states()

    def news(self, before: tuple[GatewayState, ...], *, timeout_s: float) -> tuple[GatewayState, ...]:
        """Return the states of gateways as soon as one serves another epoch, answered, came or went; at last when time is over."""
        deadline = time.monotonic() + timeout_s
        with self._changed:
            while not self._closed and _marks(self._states()) == _marks(before):
                left = deadline - time.monotonic()
                if left <= 0 or not self._changed.wait(left):
                    break
            return self._states()

    def close(self) -> None:
        """Stop; gateways serve on."""
        self._closed = True
        self.let_go()
        with contextlib.suppress(OSError):
            self._listener.shutdown(socket.SHUT_RDWR)
        self._listener.close()
        with self._changed:
            connections = list(self._connections)
        for connection in connections:
            with contextlib.suppress(OSError):
                connection.shutdown(socket.SHUT_RDWR)
        for thread in self._threads:
            thread.join(timeout=2.0)
        with contextlib.suppress(FileNotFoundError):  # or already that of the next control process: leave it
            if self._path.stat().st_ino == self._inode:
                self._path.unlink()

    def __enter__(self) -> Publisher:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def _states(self) -> tuple[GatewayState, ...]:
        own = [state for state in self._connections.values() if state is not None]
        return (*own, *self._beside())

    def _beside(self) -> list[GatewayState]:
        """Return the gateways of machines that speak."""
        now = time.monotonic()
        speaking = [one for one in self._machines.values() if now - one.heard_s < _SILENT_S]
        return [state for one in speaking for state in one.gateways]

    def _awaits(self, epoch: int) -> bool:
        return any(not _settled(state, epoch) for state in (*self._connections.values(), *self._beside()))

    def _spawn(self, target: object, name: str, *args: object) -> None:
        assert callable(target)
        thread = threading.Thread(target=target, name=name, args=args, daemon=True)
        self._threads = [old for old in self._threads if old.is_alive()]
        self._threads.append(thread)
        thread.start()

    def _accept(self) -> None:
        while not self._closed:
            try:
                connection, _ = self._listener.accept()
            except OSError:
                return  # closed
            # a bound on sends alone: a timeout of the whole socket would also cut the reader's frames
            connection.setsockopt(socket.SOL_SOCKET, socket.SO_SNDTIMEO, _WRITE_TIMEOUT)
            with self._sending:  # so that no publish falls between the newest and the registration
                with self._changed:
                    self._connections[connection] = None
                if self._newest is not None:
                    self._send(connection, frame(self._newest))
            self._spawn(self._listen, "snapshot-reports", connection)

    def _send(self, connection: socket.socket, data: bytes) -> None:
        """Send a frame within the bound; drop the gateway otherwise."""
        try:
            connection.sendall(data)
        except OSError:
            with contextlib.suppress(OSError):
                connection.shutdown(socket.SHUT_RDWR)

    def _listen(self, connection: socket.socket) -> None:
        try:
            while (data := read_frame(connection)) is not None:
                report = decode_report(data)
                if isinstance(report, Word):
                    self._pass_on(connection, report.data)
                    continue
                heard = self._hear(connection, report)
                if isinstance(report, Beat):
                    self.deliver(self._lent(heard, self._own()))
        except (Corrupt, OSError):
            pass  # gone, or speaking nonsense: dropped either way, and a gateway reconnects
        finally:
            with self._changed:
                state = self._connections.pop(connection, None)
                self._changed.notify_all()
            connection.close()
            if state is not None:
                with self._changed:
                    self._departed.left(process_of(state.gateway, state.pid))

    def _pass_on(self, connection: socket.socket, data: bytes) -> None:
        with self._changed:
            state = self._connections.get(connection)
        if state is None:
            raise Corrupt("a gateway spoke before it said who it is")
        for gateway, answer in self._heard(state.gateway, state.pid, data):
            self.tell(gateway, answer)

    def _own(self) -> set[str]:
        with self._changed:
            return {process_of(one.gateway, one.pid) for one in self._connections.values() if one is not None}

    def _lent(self, state: GatewayState, near: set[str]) -> dict[str, bytes]:
        if self.lender is None or state.beat is None:
            return {}
        self.lender.end(self.ended())
        return self.lender.hear(state.gateway, state.pid, state.beat.claim, near=near)

    def _hear(self, connection: socket.socket, report: Report) -> GatewayState:
        now = time.monotonic()
        with self._changed:
            state = self._connections.get(connection)
            match report:
                case Hello():
                    state = GatewayState(
                        gateway=report.gateway, pid=report.pid, serving=report.epoch, heard_s=now
                    )
                    self._departed.back(process_of(report.gateway, report.pid))
                case Ack() if state is not None:
                    state = msgspec.structs.replace(state, ack=report, serving=report.serving, heard_s=now)
                case Beat() if state is not None:
                    state = msgspec.structs.replace(state, beat=report, serving=report.epoch, heard_s=now)
                case _:
                    raise Corrupt("a gateway reported before it said who it is")
            self._connections[connection] = state
            self._changed.notify_all()
            return state


def _marks(states: tuple[GatewayState, ...]) -> set[tuple[object, ...]]:
    return {(state.gateway, state.pid, state.serving, state.ack, state.beat is None) for state in states}


def _settled(state: GatewayState | None, epoch: int) -> bool:
    if state is None:
        return False
    return state.serving >= epoch or (state.ack is not None and state.ack.epoch >= epoch)
