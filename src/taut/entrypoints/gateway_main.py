"""The gateway's process: `python -m taut.entrypoints.gateway_main --home DIR --name gateway-0 --fd N`."""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import gc
import os
import select
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime
from pathlib import Path
from typing import Final

import uvloop

from taut import __version__
from taut.bootstrap.applicant import Applicant
from taut.bootstrap.artifacts import artifacts_digest, build_digest
from taut.bootstrap.config import Config
from taut.bootstrap.gateway import machine_devices, open_online_reader, open_tracer, peering, system_random
from taut.bootstrap.grace import GraceFile
from taut.bootstrap.replicas import FloorFile
from taut.bootstrap.wards import Wards
from taut.core.errors import TautError
from taut.core.ort import load_onnxruntime
from taut.entrypoints.certificates import add_arguments, kept_fresh, open_tls, paths_of
from taut.entrypoints.errors import DATA_PLANE, exit_code_of
from taut.entrypoints.listening import allow_descriptors, require_secure
from taut.entrypoints.logs import Log, install
from taut.fleet.admission import Seat
from taut.ports.world import Random
from taut.serving.gateway import FeatureProbe, Gateway, GatewayNode, GatewayServer, World, connections_within
from taut.serving.peers import Hopping
from taut.serving.predictions import PredictionLog
from taut.serving.snapshot import SnapshotStore, TrustFile
from taut.serving.snapshot.wire import socket_address
from taut.serving.upstream import Secured
from taut.serving.workers import Fleet, Unwarded, Warden
from taut.trust.identity import VerifierData
from taut.trust.svid.held import HeldFiles
from taut.trust.svid.here import PartsHere

_DRAIN_S: Final = 25.0
_BATCH_THREADS: Final = 2
_UNADMITTED_S: Final = 3.0
_JOINING_S: Final = 20.0
_LOOK_S: Final = 0.05
_TURN_S: Final = 60.0  # the longest that a record waits to be sealed into the ledger, about


def main(argv: list[str] | None = None, *, source: str | None = None) -> int:
    """Serve until told to end; return the exit status. source: digest of what this process runs, where it was found before."""
    parser = argparse.ArgumentParser(prog="taut-gateway", description="one gateway of taut's data plane")
    parser.add_argument("--home", type=Path, required=True)
    parser.add_argument("--name", default="gateway-0")
    parser.add_argument("--fd", type=int, required=True, help="the listening socket, inherited")
    parser.add_argument(
        "--inner-fd", type=int, default=-1, help="a Unix socket to listen on without TLS, inherited"
    )
    parser.add_argument("--ready-fd", type=int, default=-1, help="told `ready` once connections are accepted")
    parser.add_argument(
        "--alone", action="store_true", help="serve without being admitted, where there is no control at all"
    )
    add_arguments(parser)
    parser.add_argument("--segment-bytes", type=int, default=32 * 2**20)
    arguments = parser.parse_args(argv)
    log = Log(arguments.name)
    install(log)
    try:
        config = Config.load(arguments.home, os.environ)
        load_onnxruntime()  # before any model: what the library takes of memory is no model's
        finished = uvloop.run(_serve(arguments, config, log, source or artifacts_digest()))
    except TautError as error:
        log.last_word(error)
        return exit_code_of(error)
    return 0 if finished else 1


async def _serve(arguments: argparse.Namespace, config: Config, said: Log, source: str) -> bool:
    """Serve until SIGTERM or SIGINT, then drain; return whether everything under way was finished."""
    home = config.home
    descriptors = allow_descriptors()
    loop = asyncio.get_running_loop()
    stop = asyncio.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, stop.set)
    listeners = [_inherited(fd) for fd in (arguments.fd, arguments.inner_fd) if fd >= 0]
    devices = machine_devices(config)
    random = system_random()
    with (
        ThreadPoolExecutor(_BATCH_THREADS, thread_name_prefix="batch") as pool,
        open_online_reader(config) as online,
        open_tracer(
            config, name=arguments.name, version=__version__, random=random,
            on_trouble=lambda error: said.failure("traces cannot be delivered", error),
        ) as tracer,
        contextlib.closing(
            PredictionLog(
                home / "log" / "predictions", arguments.name, now_us=_now_us, monotonic_s=time.monotonic,
                random=random, segment_bytes=arguments.segment_bytes,
            )
        ) as log,
    ):  # fmt: skip
        gateway = Gateway(
            log=log,
            online=online,
            statuses=DATA_PLANE,
            world=World(_now_us, time.monotonic, time.perf_counter_ns, random, __version__),
            pool=pool,
            log_failure=lambda request_id, error: said.failure("request failed", error, request_id=request_id),
            tracer=tracer,
        )  # fmt: skip
        parts = _parts(gateway, home)
        live = open_tls(paths_of(arguments), parts)
        _require_secure(listeners, tls=live is not None)
        peers = _peers(gateway, config, parts, random, said)
        applicant = (
            None
            if arguments.alone
            else _applicant(
                gateway, peers, log, home, arguments.name, said, stop, source=source, random=random
            )
        )
        trust, fleet = TrustFile(home / "serving" / "trust.json"), _fleet(applicant, source, said)
        store = SnapshotStore(home / "serving", trust)
        node = GatewayNode(
            gateway, home=home, name=arguments.name, store=store, trust=trust, random=random, fleet=fleet,
            model_memory_bytes=config.model_memory_bytes, devices=devices, probe=FeatureProbe(online), now_us=_now_us,
            switch=applicant,
        )  # fmt: skip
        await node.start_from_disk()
        dups = [listener.dup() for listener in listeners]
        server = GatewayServer(
            peers if applicant is None else applicant.door, dups[0], tls=live, inner=dups[1] if len(dups) > 1 else None,
            max_connections=connections_within(descriptors),
        )  # fmt: skip
        with _hand_over(home / "run" / f"{arguments.name}.sock", listeners):
            async with (
                kept_fresh(live, home=home, name=arguments.name, log=said, on_renewed=server.judge_peers),
                node.following(home / "run" / "stream.sock"),
            ):
                if applicant is not None:
                    await _leave_the_door(applicant, stop, listeners)
                await server.start()
                said.info(
                    "ready", pid=os.getpid(), epoch=0 if gateway.active is None else gateway.active.epoch
                )
                await _run_until(stop, log, applicant, ready_fd=arguments.ready_fd)
                said.info("draining")
            for listener in listeners:
                listener.close()
        finished = await server.drain(timeout_s=_DRAIN_S)
        peers.close()
        await node.close()
        await fleet.close()
        said.info("stopped", finished=finished)
        return finished


def _applicant(
    gateway: Gateway,
    peers: Hopping,
    log: PredictionLog,
    home: Path,
    name: str,
    said: Log,
    stop: asyncio.Event,
    *,
    source: str,
    random: Random,
) -> Applicant:
    """Return what has this gateway admitted. stop: set when this process can be admitted no more. source: digest of what it runs."""
    floor, grace = (
        FloorFile(home / "serving" / f"{name}.floor"),
        GraceFile(home / "serving" / f"{name}.grace"),
    )

    def workers(seat: Seat, speak: Callable[[Iterable[bytes]], None]) -> Wards:
        return Wards(name, seat=seat, speak=speak, build=build_digest(source), random=random)

    return Applicant(
        gateway, peers, artifacts=source, floor=floor, grace=grace, log=log, said=said, ended=stop.set, workers=workers
    )  # fmt: skip


def _fleet(applicant: Applicant | None, source: str, said: Log) -> Fleet:
    """Return this gateway's workers, admitted as it is itself; alone, by nobody."""
    warden: Warden = applicant.wards.ward if applicant is not None else _unwarded(build_digest(source))
    return Fleet(start_zygote, tell=lambda what, why: said.info(what, why=why), warden=warden)


def _unwarded(build: str) -> Warden:
    return lambda _name, _artifact, _risk: Unwarded(build)


async def _leave_the_door(
    applicant: Applicant, stop: asyncio.Event, listeners: Sequence[socket.socket]
) -> None:
    """Leave who comes to others until this gateway may serve; longer while it shows what it does, which takes its time on a busy
    machine."""

    def patience_s() -> float:
        return _JOINING_S if applicant.joins else _UNADMITTED_S

    await until_admitted(applicant.admitted, stop, listeners, patience_s=patience_s, goes_on=applicant.resume)


async def until_admitted(
    admitted: asyncio.Event,
    stop: asyncio.Event,
    listeners: Sequence[socket.socket],
    *,
    patience_s: Callable[[], float],
    goes_on: Callable[[], bool],
) -> None:
    """Wait until one of the events is set, or after `patience_s` until `goes_on`, by grace, or until somebody has waited at the
    listeners for so long on end.

    Others who share the listeners take whoever comes meanwhile. Where nobody does, it is better to tell him why nothing is served.
    """
    waited = forsaken = 0
    while not (admitted.is_set() or stop.is_set()):
        looks = patience_s() / _LOOK_S
        if waited >= looks and (goes_on() or forsaken >= looks):
            return
        with contextlib.suppress(TimeoutError):
            await asyncio.wait_for(admitted.wait(), _LOOK_S)
        waits, _, _ = select.select(listeners, (), (), 0)
        waited, forsaken = waited + 1, forsaken + 1 if waits else 0


async def _run_until(
    stop: asyncio.Event, log: PredictionLog, applicant: Applicant | None, *, ready_fd: int
) -> None:
    tasks = [asyncio.create_task(_tell_ready(ready_fd, applicant)), asyncio.create_task(_turn_segments(log))]
    gc.freeze()  # what is loaded now lives for long: no collection need walk it again
    await stop.wait()
    for task in tasks:
        task.cancel()
    if applicant is not None:
        applicant.close()


def _require_secure(listeners: Sequence[socket.socket], *, tls: bool) -> None:
    """Raise InvalidInput for a socket that others reach and that would speak plain HTTP, whoever bound it."""
    for listener in listeners:
        if listener.family != socket.AF_UNIX:
            require_secure(str(listener.getsockname()[0]), tls=tls, plane="this gateway")


def _parts(gateway: Gateway, home: Path) -> PartsHere:
    """Return the identity of this home, which control or the link keeps, judging others by the snapshot that is served."""

    def data() -> VerifierData | None:
        return None if gateway.active is None else gateway.active.snapshot.identity

    found = PartsHere(HeldFiles(home), now=lambda: datetime.now(UTC), data=data)
    found.look()
    return found


def _peers(gateway: Gateway, config: Config, parts: PartsHere, random: Random, said: Log) -> Hopping:
    """Put before the gateway what knows those of other machines; alone, it is in nobody's way."""
    found = peering(config)

    def left_alone(peer: str, why: str) -> None:
        said.warning("another machine does not answer as it should", machine=peer, why=why)

    def secured(peer: str) -> Secured:
        context, name = parts.client_for(peer)
        return Secured(context, name, parts.peer_until_s)

    return Hopping(
        gateway, machine=found.machine, first_at=found.first_at, features_here=found.features_here, random=random,
        tls=secured, now_us=_now_us, say=left_alone,
    )  # fmt: skip


def _inherited(descriptor: int) -> socket.socket:
    listener = socket.socket(fileno=descriptor)
    listener.setblocking(False)
    return listener


async def _turn_segments(log: PredictionLog) -> None:
    while True:
        await asyncio.sleep(_TURN_S / 10)
        log.turn(older_than_s=_TURN_S)


@contextlib.contextmanager
def _hand_over(path: Path, listeners: Sequence[socket.socket]) -> Iterator[None]:
    """Pass the listening sockets to whoever connects to `path` (mode 0600): how a new supervisor adopts this gateway."""
    loop = asyncio.get_running_loop()
    path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
    path.unlink(missing_ok=True)
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as door:
        with socket_address(path) as address:
            door.bind(address)
        path.chmod(0o600)
        door.listen(4)
        door.setblocking(False)

        def pass_on() -> None:
            with contextlib.suppress(OSError):
                caller, _ = door.accept()
                with caller:
                    caller.settimeout(1.0)
                    socket.send_fds(
                        caller, [str(os.getpid()).encode()], [found.fileno() for found in listeners]
                    )

        loop.add_reader(door, pass_on)
        try:
            yield
        finally:
            loop.remove_reader(door)
            path.unlink(missing_ok=True)


def start_zygote(descriptor: int) -> subprocess.Popen[bytes]:
    """Start the process that forks model workers: it gets its end of the door, and nothing of our environment."""
    environment = dict.fromkeys(("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS"), "1")
    command = [sys.executable, "-P", "-m", "taut.entrypoints.zygote_main", "--fd", str(descriptor)]
    return subprocess.Popen(command, pass_fds=[descriptor], env=environment, stdin=subprocess.DEVNULL)


async def _tell_ready(descriptor: int, applicant: Applicant | None) -> None:
    """Say `ready` once this gateway serves."""
    if applicant is not None and applicant.door.reasons():
        await applicant.admitted.wait()
    if descriptor >= 0:
        with contextlib.suppress(OSError):  # nobody listens any more
            os.write(descriptor, b"ready\n")
            os.close(descriptor)


def _now_us() -> int:
    return time.time_ns() // 1000


if __name__ == "__main__":
    sys.exit(main())
