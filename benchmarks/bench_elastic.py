"""Whether anybody is ever served by a gateway that was not admitted, or under a policy that was over, while the fleet changes.

`taut up` on the project of `taut init`. First without load: a gateway alone from its start to its lease, with the warm process that
gateways are forked from and without; many at once; and what the guard takes of a request with 1, 5 and 20 gateways, in turn.

Then with 2 gateways, loaded by wrk through 16 connections without pause. Meanwhile another policy is applied every second; the
fleet is scaled to 20 gateways and back to 2, again and again until enough was asked, and stays there for some seconds each time;
control is killed twice, once while the fleet is large and once just after it was told to shrink; and one gateway is revoked.
Afterwards `taut fleet verify` holds what the gateways recorded against the ledger.

At the end what was measured drives a simulation of fleets that are larger than this machine.

`python -m benchmarks.bench_elastic 20000 6` does the same with 20,000 requests and 6 gateways.
"""

from __future__ import annotations

import contextlib
import http.client
import json
import os
import signal
import statistics
import sys
import tempfile
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import msgspec

from benchmarks import procs, provisioning, wrk
from benchmarks.bench_survival import ORDER, Project
from benchmarks.wrk import Cell
from taut.core.errors import TautError

if TYPE_CHECKING:
    from benchmarks.report import Report

REQUESTS, REQUESTS_ALONE, LARGE, SMALL, SEGMENT_S = 100_000, 1_000_000, 20, 2, 10
HOLD_S: Final = 10.0
ALONE, COLD = 12, 4
ASKED, CONNECTIONS, SKIPPED = 150, 40, 75
CHANGED: Final = '@id("drill")\nforbid(principal == Principal::"nobody-{}", action, resource);\n'
WITHIN_S: Final = 180.0
AWAY_S: Final = 20.0


class Beside:
    """Does something again and again in a thread of its own until told to stop; what fails is raised at the end."""

    def __init__(self, do: Callable[[], None]) -> None:
        self._do: Final = do
        self.stop: Final = threading.Event()
        self._thread: Final = threading.Thread(target=self._run)
        self._trouble: list[BaseException] = []

    @property
    def alive(self) -> bool:
        return self._thread.is_alive()

    def __enter__(self) -> Beside:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.stop.set()
        self._thread.join()
        if self._trouble:
            raise self._trouble[0]

    def _run(self) -> None:
        try:
            while not self.stop.is_set():
                self._do()
        except BaseException as error:  # noqa: BLE001 - told by whoever waits for this thread
            self._trouble.append(error)


class Fleet:
    """What is done to the fleet, over the socket of control, so that no command has to start for it."""

    def __init__(self, project: Project, large: int) -> None:
        from taut.project.load import load_project

        self._project: Final = project
        self._large: Final = large
        self._loaded: Final = load_project(project.folder / "project.py")
        self._killed_s = float("-inf")
        self.turns = self.kills = self.policies = 0

    @property
    def home(self) -> Path:
        return self._project.folder / ".taut"

    def call(self, name: str, **request: Any) -> dict[str, Any]:
        from taut.entrypoints.client import connect

        with connect(self.home) as client:
            return client.call(name, request)

    def change_policy(self) -> None:
        """Apply another policy, as `taut apply` does, and wait until a second is over."""
        from taut.project.manifest import PolicySpec

        began_s = time.monotonic()
        spec = PolicySpec(name="policies/drill.cedar", text=CHANGED.format(time.monotonic_ns()))
        manifest = msgspec.structs.replace(self._loaded.manifest, policies=(spec,))
        try:
            self.call(
                "plan.apply", manifest=msgspec.to_builtins(manifest), bundle=msgspec.to_builtins(self._loaded.bundle)
            )  # fmt: skip
            self.policies += 1
        except TautError:
            if time.monotonic() - self._killed_s > AWAY_S:
                raise  # else control is dead, as it shall be: the next one comes in a second
        time.sleep(max(0.0, 1.0 - (time.monotonic() - began_s)))

    def turn(self) -> None:
        """Grow and shrink; the first time control is killed twice, and a gateway revoked."""
        self.scale(self._large)
        if self.kills == 0:
            self._kill_control()
            self.call("fleet.revoke", identity=f"gateway-{self._large - 1}")
        time.sleep(HOLD_S)
        self.scale(SMALL, wait=False)
        if self.kills == 1:
            self._kill_control()
        self.await_ready(SMALL)
        time.sleep(HOLD_S)
        self.turns += 1

    def scale(self, n: int, *, wait: bool = True) -> None:
        self.call("fleet.scale", pool="gateway", n=n, reason="the drill")
        if wait:
            self.await_ready(n)

    def gateways(self) -> dict[str, dict[str, Any]]:
        return {name: one for name, one in self._project.children().items() if name.startswith("gateway-")}

    def await_ready(self, n: int) -> None:
        """Wait until those that should serve do; one that is revoked never will."""

        def settled() -> bool:
            gateways = self.gateways().values()
            ready = sum(one["state"] == "ready" for one in gateways)
            return len(gateways) == n and ready >= n - (self.kills > 0 and n > SMALL)

        procs.wait_until(settled, f"{n} gateways", within_s=WITHIN_S)

    def one_more(self) -> None:
        self.scale(SMALL + 1)
        self.scale(SMALL)

    def _kill_control(self) -> None:
        self._killed_s = time.monotonic()
        pid = self._project.children()["control"]["pid"]
        os.kill(pid, signal.SIGKILL)

        def again() -> bool:
            child = self._project.children()["control"]
            return child["pid"] not in (None, pid) and child["state"] == "ready"

        procs.wait_until(again, "another control", within_s=WITHIN_S)
        self._killed_s = time.monotonic()
        self.kills += 1

    def starts(self, *, since_s: float) -> list[provisioning.Start]:
        """Return whose process began since then."""
        leaves = self.call("ledger.show", kind="fleet.", limit=10_000)["leaves"]
        return [one for one in provisioning.starts(self.home, leaves) if one.began_s >= since_s]


def run(report: Report) -> None:
    measure(report, REQUESTS_ALONE if report.alone else REQUESTS, LARGE)


def measure(report: Report, wanted: int, large: int) -> None:
    if not wrk.installed():
        report.missing("admission while the fleet changes", wrk.NO_WRK)
        return
    with tempfile.TemporaryDirectory(prefix="taut-bench-") as folder:
        project = Project(Path(folder))
        body = Path(folder) / "order.json"
        body.write_text(json.dumps({"instances": [ORDER]}))
        with project.up() as (pid, port):
            fleet, bearer = Fleet(project, large), project.token()
            alone_s = _calm(report, fleet, pid)
            _guard(report, fleet, port, bearer, large)
            cell = Cell(pid, f"http://127.0.0.1:{port}/v1/predict/late", body, bearer=bearer)
            _drill(report, fleet, cell, wanted)
    _larger(report, alone_s)


def _calm(report: Report, fleet: Fleet, pid: int) -> list[float]:
    """Start gateways while nothing is asked: one alone, warm and cold. Return what one takes alone."""
    since_s = time.time()
    for _ in range(ALONE):
        fleet.one_more()
    warm_s = [one.took_s for one in fleet.starts(since_s=since_s)]
    report.figure(
        "a gateway from its start to its lease, alone, from the warm process", warm_s, "s", wanted="≤ 1 s",
        note=f"greatest {max(warm_s):.2f} s; no load",
    )  # fmt: skip
    since_s = time.time()
    (zygote,) = (one for one in procs.tree(pid) if "gateway_zygote" in _command(one))
    os.kill(zygote, signal.SIGKILL)  # another one comes after ten seconds
    for _ in range(COLD):
        fleet.one_more()
    cold_s = [one.took_s for one in fleet.starts(since_s=since_s)]
    report.figure("the same, cold: started from the beginning", cold_s, "s")
    procs.wait_until(
        lambda: any("gateway_zygote" in _command(one) for one in procs.tree(pid)), "another warm process"
    )
    return warm_s


def _command(pid: int) -> str:
    with contextlib.suppress(OSError):
        return Path(f"/proc/{pid}/cmdline").read_bytes().replace(b"\0", b" ").decode()
    return ""


def _guard(report: Report, fleet: Fleet, port: int, bearer: str, large: int) -> None:
    """What the guard takes of a request as the fleet grows, twice in turn; and how long many at once take to be admitted."""
    since_s, found = time.time(), dict[int, list[float]]()
    for n in (1, large // 4, large) * 2:
        fleet.scale(n)
        found.setdefault(n, []).append(_guard_us(port, bearer))
    fleet.scale(SMALL)
    for n, took_us in found.items():
        note = f"of {CONNECTIONS * (ASKED - SKIPPED):,} requests, one after the other, each gateway warm"
        report.figure(f"guards a request, {n} gateways", took_us, "µs", note=note)
    pairs = [many / one for one, many in zip(found[1], found[large], strict=True)]
    report.figure(f"guards a request with {large} gateways, in those with 1", pairs, "×", wanted="≤ 1.1×")
    many = fleet.starts(since_s=since_s)
    took_s = [one.took_s for one in many]
    report.figure(
        f"p99 of a gateway from its start to its lease, up to {large - large // 4} at once, no load",
        [provisioning.p99(took_s)], "s", wanted="≤ 1 s",
        note=f"median {statistics.median(took_s):.2f} s of {len(took_s)}; from the scale event, greatest "
        f"{max(one.admitted_s - one.intended_s for one in many):.2f} s",
    )  # fmt: skip


def _guard_us(port: int, bearer: str) -> float:
    """Return what gateways say that their guards took, each asked for a while over a connection of its own."""
    body, took_us = json.dumps({"instances": [ORDER]}), list[int]()
    headers = {"authorization": f"Bearer {bearer}", "content-type": "application/json"}
    for _ in range(CONNECTIONS):
        with contextlib.closing(http.client.HTTPConnection("127.0.0.1", port, timeout=30)) as client:
            for turn in range(ASKED):
                client.request("POST", "/v1/predict/late", body=body, headers=headers)
                answer = client.getresponse()
                answer.read()
                assert answer.status == 200, f"answered {answer.status}"
                if turn >= SKIPPED:
                    took_us.append(int(answer.headers["taut-guard-us"]))
    return statistics.median_grouped(took_us)  # of whole microseconds


def _drill(report: Report, fleet: Fleet, cell: Cell, wanted: int) -> None:
    began_s, since_s = time.monotonic(), time.time()
    asked = failed = 0
    with Beside(fleet.change_policy) as policies, Beside(fleet.turn) as turns:
        while (asked < wanted or fleet.turns < 2) and policies.alive and turns.alive:
            found = cell.measure(seconds=SEGMENT_S, may_fail=True)
            asked, failed = asked + found.requests, failed + found.failed
    took_s = time.monotonic() - began_s
    judged = fleet.call("fleet.verify")
    said = (
        f"{asked:,} asked in {took_s:,.0f} s, {failed:,} not answered with success; {fleet.turns} times up and down, "
        f"{fleet.policies} policies, control killed {fleet.kills} times"
    )
    report.figure(
        "answers by a gateway that was not admitted, or under a policy that was over", [judged["unguarded"]], "",
        wanted="≤ 0", note=f"{judged['guarded']:,} guarded, {judged['by_grace']:,} by grace; {said}",
    )  # fmt: skip
    for what, key in (
        ("the last answer under a policy that was over, after its commit", "last_old_s"),
        ("the last answer of a gateway that was ended, after its end", "last_ended_s"),
    ):
        report.figure(what, [judged[key]], "s", wanted="≤ 5 s")
    took = [one.took_s for one in fleet.starts(since_s=since_s)]
    report.figure(
        "a gateway from its start to its lease, while all processors are busy with requests", took, "s",
        note=f"p99 {provisioning.p99(took):.2f} s of {len(took)}",
    )  # fmt: skip


def _larger(report: Report, own_s: list[float]) -> None:
    """Fleets of machines: what a gateway takes alone, as measured, and the real admission, which all share."""
    for name, before, arrivals_s in (
        ("10 to 100 gateways at once", 10, [0.0] * 90),
        ("50 more than 100 within three minutes", 100, [3.6 * n for n in range(50)]),
    ):
        took_s = provisioning.grown(own_s, before=before, arrivals_s=arrivals_s)
        report.figure(
            f"simulated from what was measured: {name}, from the start to the lease", took_s, "s",
            note=f"p99 {provisioning.p99(took_s):.2f} s; each on processors of its own, one admission for all",
        )  # fmt: skip


if __name__ == "__main__":
    from rich.console import Console

    from benchmarks.report import Report

    told = Report(alone=True)
    measure(told, int(sys.argv[1]), int(sys.argv[2]))
    told.show(Console(width=180))
