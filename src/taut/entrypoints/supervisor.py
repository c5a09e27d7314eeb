"""The supervisor: owns the one listening socket, keeps control and gateways alive, drains them at the end.

`python -m taut.entrypoints.supervisor --home DIR --port 8080 --gateways 2`. It imports next to nothing, so that it is
small and has little to die of. When it dies all the same, gateways serve on; the next one is handed the listening
socket by one of them over `run/<name>.sock` (SCM_RIGHTS) and adopts them.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import select
import signal
import socket
import sys
import time
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from typing import Any, Final

from taut.bootstrap.wanted import Wanted
from taut.core.errors import Conflict, InvalidInput, TautError, Unavailable
from taut.entrypoints.absent import last_words
from taut.entrypoints.children import Child, Running, adopt, alive, end, reap_strays, spawn
from taut.entrypoints.client import home_lock
from taut.entrypoints.errors import exit_code_of
from taut.entrypoints.listening import STATE, Address, TlsPaths, await_free, open_sockets, read_state
from taut.entrypoints.logs import Log, install
from taut.entrypoints.nursery import Nursery, open_nursery
from taut.entrypoints.planes import DOOR, GRPC, Joining, default_children, gateways_alone
from taut.entrypoints.signalling import signals
from taut.entrypoints.slots import Slot, await_gone, room_to_begin

_FREE_S: Final = 1.0
_TICK_S: Final = 0.2
_CORES: Final = os.cpu_count() or 1
_IN_CONFLICT: Final = f"exit {exit_code_of(Conflict(''))}"

OnEvent = Callable[[str, dict[str, Any]], None]
"""Hears what happens: `listening`, `started`, `ready`, `exited`, `adopted`, `all-ready`, `draining`, `stopped`, and
`unwritten` when there is no room for the state file."""


class Supervisor:
    """Runs children until `stop`; see `supervise` for the whole of it.

    home: the installation; its lock is held by the caller. children: what to keep alive. inner: the gateways' second
    socket, which they have where they speak TLS. drain_s: how long children have to end on their own after a stop.
    more: makes the children of another number of gateways; None keeps their number. nursery: what gateways are forked from;
    with it, this process waits for all its children, whoever started them.
    """

    def __init__(
        self,
        home: Path,
        listener: socket.socket,
        children: Sequence[Child],
        *,
        on_event: OnEvent,
        inner: socket.socket | None = None,
        drain_s: float = 30.0,
        more: Callable[[int], Sequence[Child]] | None = None,
        nursery: Nursery | None = None,
    ) -> None:
        self._home: Final = home
        self._listener: Final = listener
        self._tls: Final = inner is not None
        self._sockets: Final = {"listener": listener} | ({} if inner is None else {"inner": inner})
        self._slots = [Slot(child) for child in children]
        self._more, self._wanted = more, Wanted(home)
        self._nursery: Final = nursery
        self._on_event: Final = on_event
        self._drain_s: Final = drain_s
        self._stopping = False
        self._renewing = False
        self._announced = False
        self._adopted = False
        self._unwritten = False
        self._refused = ""
        self._started_s: Final = time.time()
        (home / "run").mkdir(parents=True, exist_ok=True, mode=0o700)
        (home / "log").mkdir(parents=True, exist_ok=True, mode=0o700)

    def stop(self) -> None:
        """Ask for the drain; returns at once."""
        self._stopping = True

    def renew(self) -> None:
        """Have every child read its certificates again; returns at once."""
        self._renewing = True

    def adopt(self, former: Sequence[dict[str, Any]]) -> None:
        """Take over children of a dead supervisor that still live; end those that this one has no place for."""
        places = {slot.child.name: slot for slot in self._slots}
        leaving: list[Running] = []
        for entry in former:
            running = adopt(entry)
            if running is None:
                continue
            slot = places.get(str(entry.get("name")))
            elsewhere = slot is not None and slot.child.address != entry.get("address", "")
            if slot is None or slot.running is not None or not slot.child.survives or elsewhere:
                end(running, signal.SIGTERM)
                leaving.append(running)
                continue
            slot.running, slot.ready = running, True
            self._adopted = True
            self._on_event("adopted", {"name": slot.child.name, "pid": running.pid})
        await_gone(leaving)

    def runs(self, name: str) -> bool:
        """Whether a child runs already, as an adopted one does."""
        return any(slot.child.name == name and slot.running is not None for slot in self._slots)

    def run(self, wake: int) -> None:
        """Keep the children alive until `stop`, then drain. wake: readable whenever a signal came.

        Raises Conflict when control may not work here at all, as with a database that is another installation's: to
        start it again would change nothing, and no gateway serves yet for which it would be worth going on.
        """
        while not self._stopping:
            self._rescale()
            self._reap()
            self._start_due()
            self._announce()
            if self._renewing:
                self._pass_on()
            if self._unwritten:
                self._write_state()
            self._wait(wake)
        self._drain(wake)
        if self._refused:
            raise Conflict(self._refused)

    def _rescale(self) -> None:
        """Take what control asked for: places for more, and an end for those that have none any more."""
        if self._more is None or (wanted := self._wanted.news()) is None:
            return
        children = {child.name: child for child in self._more(wanted)}
        for slot in self._slots:
            slot.leaving = slot.child.name not in children
            if slot.leaving and slot.running is not None:
                end(slot.running, signal.SIGTERM)
        self._slots = [slot for slot in self._slots if slot.running or not slot.leaving]
        known = {slot.child.name for slot in self._slots}
        self._slots += [Slot(child) for name, child in children.items() if name not in known]
        self._on_event("rescaled", {"gateways": wanted})
        self._write_state()

    def _pass_on(self) -> None:
        """Tell the children that are ready; the others have yet to read their certificates, or just did."""
        self._renewing = False
        for slot in self._slots:
            if slot.running is not None and slot.ready:
                end(slot.running, signal.SIGHUP)
        self._on_event("renewing", {})

    def _wait(self, wake: int) -> None:
        """Sleep until a signal, a child's word, or the next thing that is due."""
        readers = [
            slot.running.ready_fd for slot in self._slots if slot.running and slot.running.ready_fd >= 0
        ]
        if self._nursery is not None and self._nursery.line >= 0:
            readers.append(self._nursery.line)
        readable, _, _ = select.select([wake, *readers], [], [], _TICK_S)
        if wake in readable:
            with contextlib.suppress(BlockingIOError):
                os.read(wake, 4096)
        for slot in self._slots:
            if slot.running is not None and slot.running.ready_fd in readable:
                said = slot.running.hear()
                if said and not slot.ready:
                    slot.ready = True
                    self._on_event("ready", {"name": slot.child.name, "pid": slot.running.pid})
                    self._write_state()

    def _start_due(self) -> None:
        now_s, nursery = time.monotonic(), self._nursery
        room = room_to_begin(self._slots, now_s, cores=_CORES)
        if nursery is not None and nursery.coming():
            room = 0
        for slot in self._slots:
            if slot.running is None and now_s >= slot.due_s and (room > 0 or not slot.child.forked):
                room -= slot.child.forked
                try:
                    slot.running = self._started(slot.child)
                except OSError as error:  # no room for its log, no process to be had: that may pass
                    self._put_off(slot, now_s, f"cannot start: {error.strerror}")
                    continue
                self._on_event("started", {"name": slot.child.name, "pid": slot.running.pid})
                self._write_state()

    def _started(self, child: Child) -> Running:
        """Return a child that begins: forked, or started where that cannot be."""
        log = self._home / "log" / f"{child.name}.log"
        forked = None
        if self._nursery is not None and child.forked:
            forked = self._nursery.fork(child, self._sockets, log=log)
        return forked or spawn(child, self._sockets, log=log)

    def _reap(self) -> None:
        """Notice the dead and give each a time to come back, later the sooner it died."""
        now_s = time.monotonic()
        for slot in tuple(self._slots):
            if slot.running is None or (said := slot.running.ended()) is None:
                continue
            if self._nursery is not None and slot.child.forked and not (slot.ready or slot.leaving):
                self._nursery.renew(slot.running)
            running = slot.emptied(now_s)
            if slot.leaving:
                self._slots = [one for one in self._slots if one is not slot]
                self._on_event("exited", {"name": slot.child.name, "pid": running.pid, "how": said})
                self._write_state()
                continue
            slot.restarts += 1
            if said == _IN_CONFLICT and not slot.child.survives and not self._announced and not self._adopted:
                self._refused = (
                    last_words(self._home / "log" / f"{slot.child.name}.log") or f"control: {said}"
                )
                self._stopping = True
            self._put_off(slot, now_s, said, pid=running.pid)
        self._reap_strays()

    def _reap_strays(self) -> None:
        if self._nursery is not None:
            known = {slot.running.pid for slot in self._slots if slot.running is not None}
            reap_strays(known | {self._nursery.pid})

    def _put_off(self, slot: Slot, now_s: float, how: str, *, pid: int | None = None) -> None:
        """Say how a child ended, or why it does not start, and choose when it is tried again: later each time."""
        slot.put_off(now_s, how)
        self._on_event("exited", {"name": slot.child.name, "pid": pid, "how": how, "again_s": slot.pause_s})
        self._write_state()

    def _announce(self) -> None:
        if not self._announced and all(slot.ready for slot in self._slots):
            self._announced = True
            self._on_event("all-ready", {"seconds": round(time.time() - self._started_s, 3)})
            self._write_state()

    def _drain(self, wake: int) -> None:
        """Stop accepting, let every child finish, kill what does not end in time. Gateways first, then the rest."""
        self._on_event("draining", {})
        for found in self._sockets.values():
            found.close()
        if self._nursery is not None:
            self._nursery.close()
        deadline_s = time.monotonic() + self._drain_s
        for survives in (True, False):
            wave = [
                slot for slot in self._slots if slot.child.survives is survives and slot.running is not None
            ]
            for slot in wave:
                if slot.running is not None:
                    end(slot.running, signal.SIGTERM)
            self._await_ends(wave, wake, deadline_s)
        for slot in self._slots:
            if slot.running is not None:
                end(slot.running, signal.SIGKILL)
        self._await_ends(self._slots, wake, time.monotonic() + 5.0)
        self._write_state()
        self._on_event("stopped", {})

    def _await_ends(self, slots: Sequence[Slot], wake: int, deadline_s: float) -> None:
        while any(slot.running is not None for slot in slots) and time.monotonic() < deadline_s:
            select.select([wake], [], [], 0.05)
            with contextlib.suppress(BlockingIOError):
                os.read(wake, 4096)
            for slot in slots:
                if slot.running is not None and (said := slot.running.ended()) is not None:
                    self._on_event("exited", {"name": slot.child.name, "pid": slot.running.pid, "how": said})
                    slot.running = None
            self._reap_strays()

    def _write_state(self) -> None:
        """Write what `taut status` and the next supervisor read; whole or not at all.

        Where the disk is full, what runs goes on, and the state is written as soon as there is room.
        """
        host, port = self._address()
        document = {
            "pid": os.getpid(),
            "started": alive(os.getpid()),
            "host": host,
            "port": port,
            "tls": self._tls,
            "stopping": self._stopping,
            "children": [slot.described() for slot in self._slots],
        }
        path = self._home / STATE
        temporary = path.with_suffix(".tmp")
        flags = os.O_CREAT | os.O_TRUNC | os.O_WRONLY | os.O_CLOEXEC
        try:
            with open(os.open(temporary, flags, 0o600), "w") as file:
                file.write(json.dumps(document, indent=1) + "\n")
            temporary.replace(path)
            self._unwritten = False
        except OSError as error:
            if not self._unwritten:
                self._on_event("unwritten", {"path": str(path), "how": error.strerror})
            self._unwritten = True

    def _address(self) -> tuple[str, int]:
        if self._listener.fileno() < 0:
            return "", 0
        host, port = self._listener.getsockname()[:2]
        return str(host), int(port)


def supervise(
    home: Path,
    address: Address,
    *,
    gateways: int = 1,
    control_port: int = 0,
    on_event: OnEvent,
    children: Callable[[Address], Sequence[Child]] | None = None,
    tls: TlsPaths | None = None,
    joining: Joining | None = None,
) -> None:
    """Run the platform of `home` until SIGTERM or SIGINT; the drain included, nothing of it runs afterwards.

    control_port: 0 means the data plane's port + 1. children: other children than `default_children`, by address.
    tls: files with which every plane speaks TLS; SIGHUP then has them read again. joining: of a further machine, without
    control. Raises Conflict when the home or the port is taken; the message says by whom and what to do. InvalidInput, Denied,
    NotFound for files of TLS that cannot be used.
    """
    home = home.resolve()
    if tls is not None:
        from taut.entrypoints.certificates import check

        check(tls)
    with home_lock(home):
        state = read_state(home)
        former = [entry for entry in state.get("children", []) if isinstance(entry, dict)]
        with (
            open_sockets(home, address, former, tls=tls is not None) as (listener, inner),
            open_nursery(home, on_end=partial(on_event, "exited")) as nursery,
        ):
            host, port = listener.getsockname()[:2]
            bound = Address(str(host), int(port))
            on_event("listening", {"host": bound.host, "port": bound.port})
            of = partial(
                default_children, home, bound, control_port=control_port or bound.port + 1, tls=tls, joining=joining
            )  # fmt: skip
            made = of(gateways=gateways) if children is None else children(bound)
            Wanted(home).forget()
            more = (lambda n: of(gateways=n)) if children is None and joining is None else None
            supervisor = Supervisor(
                home, listener, made, on_event=on_event, inner=inner, more=more, nursery=nursery
            )
            with signals(supervisor.stop, None if tls is None else supervisor.renew) as wake:
                supervisor.adopt(former)  # a former control is gone from its port afterwards
                if children is None:  # a control that cannot listen would be started again for ever
                    planes = {} if joining is not None else {
                        "the control plane": control_port or bound.port + 1, "the machines' door": bound.port + DOOR,
                    }  # fmt: skip
                    if not any(map(supervisor.runs, GRPC)):
                        planes["gRPC"] = bound.port + 2
                    for plane, port in planes.items():
                        beside = Address(bound.host, port)
                        await_free(
                            beside,
                            plane=plane,
                            data_plane_port=bound.port,
                            patience_s=_FREE_S,
                            tls=tls is not None,
                        )
                supervisor.run(wake)


def main(argv: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="taut-supervisor", description="runs one installation's processes")
    parser.add_argument("--home", type=Path, required=True)
    parser.add_argument("--host", default="127.0.0.1")
    parser.add_argument("--port", type=int, default=8080)
    parser.add_argument("--gateways", type=int, default=1)
    parser.add_argument("--control-port", type=int, default=0)
    parser.add_argument(
        "--without-control",
        action="store_true",
        help="gateways only, from the snapshot on disk, which nobody admits",
    )
    parser.add_argument("--tls-cert", default="")
    parser.add_argument("--tls-key", default="")
    parser.add_argument("--tls-client-ca", default="")
    arguments = parser.parse_args(argv)

    log = Log("supervisor", _to_stdout)
    install(Log("supervisor"))

    def say(event: str, fields: dict[str, Any]) -> None:
        log.info(event, **fields)

    try:
        tls = TlsPaths.of(arguments.tls_cert, arguments.tls_key, arguments.tls_client_ca)

        if arguments.gateways < 1:
            raise InvalidInput(f"--gateways is {arguments.gateways}: give at least 1")
        supervise(
            arguments.home,
            Address(arguments.host, arguments.port),
            gateways=arguments.gateways,
            control_port=arguments.control_port,
            on_event=say,
            children=partial(gateways_alone, arguments.home.resolve(), gateways=arguments.gateways, tls=tls)
            if arguments.without_control
            else None,
            tls=tls,
        )
    except TautError as error:
        Log("supervisor").last_word(error)
        return exit_code_of(error)
    except OSError as error:
        failed = Unavailable(
            f"the supervisor cannot go on ({error}): check the disk and the limits of processes"
        )
        Log("supervisor").last_word(failed)
        return exit_code_of(failed)
    return 0


def _to_stdout(line: str) -> None:
    sys.stdout.write(line)
    sys.stdout.flush()


if __name__ == "__main__":
    sys.exit(main())
