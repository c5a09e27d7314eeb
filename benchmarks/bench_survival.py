"""What clients notice while gateways are drained and replaced, versions are released, and workers are killed.

*Rolling*: `taut up --gateways 2` on the project of `taut init`, loaded by wrk through 16 connections without pause, while
one thing happens after the other: a gateway is told to drain (SIGTERM; the supervisor starts its successor on the same
socket, and the next thing waits until that is ready), another version is released, it is rolled back. First with the model
in the gateway, then in workers, which each release and each drain replaces too. A failed request is one without an answer
or with a status from 400 up.

*Kill*: one gateway with a 5 ms model in workers; clients that ask without pause and note each answer; `kill -9` of a
worker in the middle of it. Back to full: until the first quarter of a second with 90% of the answers that there were
before. A cold start is the same with the process that forks workers killed too, so that everything starts anew.
"""

from __future__ import annotations

import contextlib
import json
import os
import signal
import socket
import statistics
import subprocess
import tempfile
import threading
import time
from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import msgspec

from benchmarks import procs, wrk
from benchmarks.demo_run import environment, free_port, taut
from benchmarks.planes import INFER, WIDTH, bodies, endpoint, gateway, open_plane, request
from benchmarks.wrk import Cell

if TYPE_CHECKING:
    from benchmarks.report import Report

REQUESTS, WORKER_REQUESTS, SEGMENT_S = 200_000, 50_000, 10
KILLS, CLIENTS, CALM_S, AFTER_S = 7, 8, 2.0, 3.0
FEW: Final = 8
LAYERS: Final = 80
WINDOW_S: Final = 0.25
ORDER: Final = {"warehouse": "north", "carrier": "bike", "items": 3, "distance_km": 12.5}
WAY: Final = (
    "apply", "data ingest orders", "data ingest backlog", "train late", "model approve late@1", "train late",
    "model approve late@2", "release start late 1",
)  # fmt: skip


def run(report: Report) -> None:
    with tempfile.TemporaryDirectory(prefix="taut-bench-") as folder:
        work = Path(folder)
        if wrk.installed():
            _rolling(report, work)
        else:
            report.missing("drain and rolling update under load", wrk.NO_WRK)
        for workers, spares in ((1, 1), (1, 0), (2, 0)):
            _kill(report, work / f"kill-{workers}-{spares}", workers, spares)
        _cold(report, work / "cold")


# rolling


class Project:
    """The project of `taut init`, with two versions to release, and the platform that runs it."""

    def __init__(self, work: Path, *, way: Sequence[str] = WAY) -> None:
        """way: the commands that make it ready."""
        self.say("init", str(work / "shop"), cwd=work)
        self.folder: Final = work / "shop"
        for words in way:
            self.say(*words.split())

    def say(self, *words: str, cwd: Path | None = None) -> dict[str, Any]:
        done = subprocess.run(
            taut("--json", *words), cwd=cwd or self.folder, env=environment(), capture_output=True, text=True, check=False
        )  # fmt: skip
        assert done.returncode == 0, f"taut {' '.join(words)}: {done.stdout[-500:]} {done.stderr[-500:]}"
        found: dict[str, Any] = json.loads(done.stdout)
        return found

    def in_workers(self) -> None:
        """Declare that the model runs in workers and may take its time, so that none is shed, and make it so."""
        path = self.folder / "project.py"
        text = path.read_text().replace("latency_p95_ms=20", "latency_p95_ms=500")
        path.write_text(text.replace("release=taut.Direct()", 'release=taut.Direct(), runtime="worker"'))
        self.say("apply")

    def release(self, version: int) -> None:
        self.say("release", "start", "late", str(version))

    def roll_back(self) -> None:
        self.say("rollback", "late")

    def token(self) -> str:
        found: str = self.say(
            "token", "create", "--principal", "bench", "--role", "predictor", "--ttl", "15m"
        )["token"]  # fmt: skip
        return found

    def children(self) -> dict[str, dict[str, Any]]:
        state = json.loads((self.folder / ".taut" / "run" / "supervisor.json").read_text())
        return {child["name"]: child for child in state["children"]}

    @contextmanager
    def up(self) -> Iterator[tuple[int, int]]:
        """Run the platform; yield its process and its port."""
        port = free_port()
        log = self.folder / "up.log"
        with (
            log.open("wb") as said,
            procs.running(
                taut("up", "--port", str(port), "--gateways", "2"), cwd=self.folder, env=environment(), stdout=said, stderr=said
            ) as process,
        ):  # fmt: skip
            procs.wait_until(self._ready, "taut up")
            yield process.pid, port

    def _ready(self) -> bool:
        with contextlib.suppress(FileNotFoundError):
            return all(child["state"] == "ready" for child in self.children().values())
        return False

    def drain(self, name: str) -> float:
        """Drain a gateway; return after how many seconds its successor was ready."""
        former = self.children()[name]["pid"]
        os.kill(former, signal.SIGTERM)

        def replaced() -> bool:
            child = self.children()[name]
            return child["pid"] not in (None, former) and child["state"] == "ready"

        return procs.wait_until(replaced, f"the successor of {name}", within_s=60)


class Deeds:
    """Drains, releases and rolls back, one after the other, in a thread of its own, until told to stop."""

    def __init__(self, project: Project) -> None:
        self._project: Final = project
        self._stop: Final = threading.Event()
        self._thread: Final = threading.Thread(target=self._run)
        self._trouble: list[BaseException] = []
        self.drains_s: Final[list[float]] = []
        self.releases = 0

    def __enter__(self) -> Deeds:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._stop.set()
        self._thread.join()
        if self._trouble:
            raise self._trouble[0]

    def _run(self) -> None:
        turn = 0
        try:
            while not self._stop.is_set():
                self._project.release(2)
                self.drains_s.append(self._project.drain(f"gateway-{turn % 2}"))
                self._project.roll_back()
                self.releases += 2
                turn += 1
        except BaseException as error:  # noqa: BLE001 - told by whoever waits for this thread
            self._trouble.append(error)


def _rolling(report: Report, work: Path) -> None:
    project = Project(work)
    body = work / "order.json"
    body.write_text(json.dumps({"instances": [ORDER]}))
    with project.up() as (pid, port):
        url, bearer = f"http://127.0.0.1:{port}/v1/predict/late", project.token()
        cell = Cell(pid, url, body, bearer=bearer)
        _roll(report, project, cell, "in the gateways", REQUESTS, connections=wrk.CONNECTIONS)
        project.in_workers()
        # no more than the line before a worker holds: what is shed beyond that is `bench_workers`' affair
        cell = Cell(pid, url, body, bearer=bearer, connections=FEW)
        _roll(report, project, cell, "in workers", WORKER_REQUESTS, connections=FEW)


def _roll(report: Report, project: Project, cell: Cell, where: str, wanted: int, *, connections: int) -> None:
    """Load without pause while gateways are drained and versions released, until enough was asked."""
    cell.measure(seconds=2, may_fail=True)
    calm = cell.measure(seconds=3)
    asked = failed = 0
    p99_ms, rate = [], []
    with Deeds(project) as deeds:
        while asked < wanted:
            found = cell.measure(seconds=SEGMENT_S, may_fail=True)
            asked, failed = asked + found.requests, failed + found.failed
            p99_ms.append(found.p99_us / 1e3)
            rate.append(found.per_s)
    report.figure(
        f"rolling update under load, the model {where}: requests that failed", [failed], f"of {asked:,}", wanted="≤ 0",
        note=f"taut up --gateways 2, {connections} connections; {len(deeds.drains_s)} gateways drained and replaced, each "
        f"within {max(deeds.drains_s, default=0):.1f} s, {deeds.releases} releases and rollbacks; "
        f"{statistics.median(rate):,.0f} req/s meanwhile, {calm.per_s:,.0f} without; p99 {max(p99_ms):.0f} ms, "
        f"{calm.p99_us / 1e3:.0f} without",
    )  # fmt: skip


# kill


class Answered(msgspec.Struct, frozen=True):
    """One request: when it was sent and ended, by the monotonic clock, and whether it was answered with 200.

    code: of the error, where not; `unanswered` where the connection ended instead.
    """

    sent_s: float
    done_s: float
    fine: bool
    code: str = ""


class Clients:
    """Clients that ask without pause, each over a connection of its own, until the block ends."""

    def __init__(self, port: int, asked: bytes) -> None:
        self._port: Final = port
        self._asked: Final = asked
        self._stop: Final = threading.Event()
        self._threads: Final = [threading.Thread(target=self._run) for _ in range(CLIENTS)]
        self.answered: Final[list[Answered]] = []

    def __enter__(self) -> Clients:
        for thread in self._threads:
            thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._stop.set()
        for thread in self._threads:
            thread.join()

    def _run(self) -> None:
        client = socket.create_connection(("127.0.0.1", self._port), timeout=30)
        while not self._stop.is_set():
            sent_s = time.monotonic()
            client.sendall(self._asked)
            got = b""
            while not (got.endswith(b"}") and b"\r\n\r\n" in got):
                piece = client.recv(65536)
                if not piece:
                    break
                got += piece
            fine = got.startswith(b"HTTP/1.1 200")
            self.answered.append(Answered(sent_s, time.monotonic(), fine, "" if fine else _code(got)))
            if not got:
                client.close()
                client = socket.create_connection(("127.0.0.1", self._port), timeout=30)
        client.close()


def _code(got: bytes) -> str:
    body = got.partition(b"\r\n\r\n")[2]
    return str(json.loads(body)["error"]["code"]) if body else "unanswered"


def _failures(answered: list[Answered], at_s: float, codes: Counter[str]) -> int:
    """Return how many requests that ended after a kill failed, and count them by their codes."""
    failed = [one for one in answered if one.done_s >= at_s and not one.fine]
    codes.update(one.code for one in failed)
    return len(failed)


def _kill(report: Report, home: Path, workers: int, spares: int) -> None:
    failed, touched, full_s, in_flight = [], [], [], []
    codes: Counter[str] = Counter()
    with _serving(home, workers, spares) as (pid, port, asked):
        for _ in range(KILLS):
            with Clients(port, asked) as clients:
                time.sleep(CALM_S)
                victim = _busiest(_workers(pid))
                at_s = time.monotonic()
                os.kill(victim, signal.SIGKILL)
                time.sleep(AFTER_S)
            failed.append(_failures(clients.answered, at_s, codes))
            flying = [one for one in clients.answered if one.sent_s <= at_s < one.done_s]
            usual_s = statistics.median(
                one.done_s - one.sent_s for one in clients.answered if one.done_s < at_s
            )
            touched.append(sum(one.done_s - one.sent_s > 3 * usual_s for one in flying))
            in_flight.append(len(flying))
            full_s.append(min(AFTER_S, back_s(clients.answered, at_s)))
            procs.wait_until(lambda: len(_workers(pid)) == workers + spares, "all workers, and spares")
    of = "the only worker" if workers == 1 else f"one of {workers} workers"
    of += ", with a spare" if spares else ""
    report.figure(
        f"kill -9 of {of} under load: requests that failed", failed, "requests", wanted="≤ 0",
        note=f"{CLIENTS} clients without pause; {statistics.median(in_flight):.0f} requests under way at the kill, "
        f"{statistics.median(touched):.0f} of them took more than three times as long as usual; tried again where lost"
        + "".join(f"; {count} {code}" for code, count in codes.items()),
    )  # fmt: skip
    report.figure(
        f"kill -9 of {of} under load: back to full",
        full_s,
        "s",
        wanted="≤ 1 s",
        note=f"watched for {AFTER_S:g} s",
    )


def _cold(report: Report, home: Path) -> None:
    failed, full_s = [], []
    codes: Counter[str] = Counter()
    with _serving(home, 1, 0) as (pid, port, asked):
        for _ in range(max(1, KILLS // 2)):
            with Clients(port, asked) as clients:
                time.sleep(CALM_S)
                zygote = _zygote(pid)
                at_s = time.monotonic()
                for victim in (zygote, *_workers(pid)):
                    os.kill(victim, signal.SIGKILL)
                time.sleep(2 * AFTER_S)
            failed.append(_failures(clients.answered, at_s, codes))
            full_s.append(min(2 * AFTER_S, back_s(clients.answered, at_s)))
    report.figure(
        "cold start: kill -9 of the worker and of what forks workers: back to full", full_s, "s",
        note=f"{sum(failed)} requests failed in all" + "".join(f", {count} {code}" for code, count in codes.items()),
    )  # fmt: skip


@contextmanager
def _serving(home: Path, workers: int, spares: int) -> Iterator[tuple[int, int, bytes]]:
    """Run a gateway with a slow model in workers; yield its process, its port and a request."""
    from taut.testing.serving import slow_model

    plane = open_plane(home)
    model = slow_model(WIDTH, layers=LAYERS)
    plane.issue(endpoint(plane, "m", model, runtime="worker", workers=workers, spares=spares))
    asked = request(INFER, bodies(home)["v2-1"].read_bytes(), plane.token(ttl_s=3600))
    with gateway(plane.home) as server:
        procs.wait_until(lambda: len(_workers(server.pid)) == workers + spares, "all workers")
        yield server.pid, server.port, asked


def _busiest(pids: list[int]) -> int:
    """Return the process that has worked the most: a spare has not."""
    return max(pids, key=procs.cpu_s)


def _zygote(pid: int) -> int:
    return next(
        one
        for one in procs.tree(pid)
        if one != pid and "zygote_main" in _command(one) and _parent(one) == pid
    )


def _workers(pid: int) -> list[int]:
    """Return the worker processes of a gateway: what its zygote has forked."""
    zygotes = [one for one in procs.tree(pid) if "zygote_main" in _command(one) and _parent(one) == pid]
    return [one for zygote in zygotes for one in procs.tree(zygote) if one != zygote]


def _command(pid: int) -> str:
    with contextlib.suppress(OSError):
        return Path(f"/proc/{pid}/cmdline").read_text().replace("\0", " ")
    return ""


def _parent(pid: int) -> int:
    with contextlib.suppress(OSError):
        return int(Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[1])
    return 0


def back_s(answered: list[Answered], at_s: float) -> float:
    """Return how long after a kill the first window began that had nine tenths of the usual answers."""
    ends = sorted(one.done_s for one in answered if one.fine)
    before = [end for end in ends if at_s - CALM_S / 2 <= end < at_s]
    usual = len(before) / (CALM_S / 2) * WINDOW_S
    after = [end for end in ends if end >= at_s]
    starts = [at_s, *after]
    for start in starts:
        if sum(start <= end < start + WINDOW_S for end in after) >= 0.9 * usual:
            return start - at_s
    return float("inf")
