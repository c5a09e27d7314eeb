"""Whether anybody is ever served by a gateway that was not admitted, or under a policy that was over, while the fleet changes.

`taut up` on the project of `taut init` with 2 gateways, loaded by wrk through 16 connections without pause. Meanwhile another policy
is applied every second, or as often as the command takes; the fleet is scaled to 20 gateways and back to 2, again and again until
enough was asked; control is killed twice, once while the fleet is large and once just after it was told to shrink; and one gateway is
revoked. Afterwards `taut fleet verify` holds what the gateways recorded against the ledger.

`python -m benchmarks.bench_elastic 20000 6` does the same with 20,000 requests and 6 gateways.
"""

from __future__ import annotations

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

from benchmarks import procs, wrk
from benchmarks.bench_survival import ORDER, Project
from benchmarks.wrk import Cell

if TYPE_CHECKING:
    from benchmarks.report import Report

REQUESTS, REQUESTS_ALONE, LARGE, SMALL, SEGMENT_S = 100_000, 1_000_000, 20, 2, 10
CHANGED: Final = '@id("drill")\nforbid(principal == Principal::"nobody-{}", action, resource);\n'
WITHIN_S: Final = 180.0


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
    """What is done to the fleet, in turns."""

    def __init__(self, project: Project, large: int) -> None:
        self._project: Final = project
        self._large: Final = large
        self.turns = self.kills = self.policies = 0

    def change_policy(self) -> None:
        began_s = time.monotonic()
        path = self._project.folder / "policies" / "drill.cedar"
        path.parent.mkdir(exist_ok=True)
        path.write_text(CHANGED.format(time.monotonic_ns()))
        try:
            self._project.say("apply")
            self.policies += 1
        except AssertionError as error:
            if '"unavailable"' not in str(
                error
            ):  # control is dead, as it shall be: the next one comes in a second
                raise
        time.sleep(max(0.0, 1.0 - (time.monotonic() - began_s)))

    def turn(self) -> None:
        """Grow and shrink; the first two times control is killed, and a gateway revoked."""
        self._project.say("fleet", "scale", "gateway", str(self._large), "--reason", "the drill")
        self._await(self._large)
        if self.kills == 0:
            self._kill_control()
            self._project.say("fleet", "revoke", f"gateway-{self._large - 1}")
        self._project.say("fleet", "scale", "gateway", str(SMALL), "--reason", "the drill is over")
        if self.kills == 1:
            self._kill_control()
        self._await(SMALL)
        self.turns += 1

    def _await(self, n: int) -> None:
        """Wait until those that should serve do; one that is revoked never will."""

        def settled() -> bool:
            gateways = [one for name, one in self._project.children().items() if name.startswith("gateway")]
            ready = sum(one["state"] == "ready" for one in gateways)
            return len(gateways) == n and ready >= n - (self.turns > 0 and n > SMALL)

        procs.wait_until(settled, f"{n} gateways", within_s=WITHIN_S)

    def _kill_control(self) -> None:
        pid = self._project.children()["control"]["pid"]
        os.kill(pid, signal.SIGKILL)
        self.kills += 1

        def again() -> bool:
            child = self._project.children()["control"]
            return child["pid"] not in (None, pid) and child["state"] == "ready"

        procs.wait_until(again, "another control", within_s=WITHIN_S)


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
            cell = Cell(pid, f"http://127.0.0.1:{port}/v1/predict/late", body, bearer=project.token())
            fleet = Fleet(project, large)
            asked = failed = 0
            with Beside(fleet.change_policy) as policies, Beside(fleet.turn) as turns:
                while (asked < wanted or fleet.turns < 2) and policies.alive and turns.alive:
                    found = cell.measure(seconds=SEGMENT_S, may_fail=True)
                    asked, failed = asked + found.requests, failed + found.failed
            judged = project.say("fleet", "verify")
            leaves = project.say("ledger", "show", "--kind", "fleet.", "--limit", "10000")["leaves"]
    tell(report, judged, leaves, asked=asked, failed=failed, fleet=fleet)


def tell(
    report: Report,
    judged: dict[str, Any],
    leaves: list[dict[str, Any]],
    *,
    asked: int,
    failed: int,
    fleet: Fleet,
) -> None:
    said = f"{asked:,} asked, {failed:,} not answered with success; {fleet.turns} times up and down, {fleet.policies} policies, control killed {fleet.kills} times"
    report.figure(
        "answers by a gateway that was not admitted, or under a policy that was over", [judged["unguarded"]], "",
        wanted="≤ 0", note=f"{judged['guarded']:,} guarded, {judged['by_grace']:,} by grace; {said}",
    )  # fmt: skip
    report.figure(
        "the last answer under a policy that was over, after its commit",
        [judged["last_old_s"]],
        "s",
        wanted="≤ 5 s",
    )
    report.figure(
        "the last answer of a gateway that was ended, after its end",
        [judged["last_ended_s"]],
        "s",
        wanted="≤ 5 s",
    )
    at_s = {(leaf["kind"], leaf["subject"]): leaf["at_us"] / 1e6 for leaf in leaves}
    admitted = [leaf for leaf in leaves if leaf["kind"] == "fleet.admitted"]
    timed: tuple[tuple[str, Callable[[dict[str, Any]], tuple[str, Any]], str], ...] = (
        ("a gateway from its process's first word to its lease", lambda one: ("fleet.provisioned", one["subject"]), "≤ 1 s"),
        ("a gateway from the scale event to its lease", lambda one: ("fleet.scaled", one["body"]["scale_id"]), ""),
    )  # fmt: skip
    for name, begun, wanted in timed:
        took = [one["at_us"] / 1e6 - at_s[begun(one)] for one in admitted if begun(one) in at_s]
        if took:
            report.figure(name, took, "s", wanted=wanted, note=f"p99 {_p99(took):.2f} s")


def _p99(values: list[float]) -> float:
    return statistics.quantiles(values, n=100)[-1] if len(values) > 1 else values[0]


if __name__ == "__main__":
    from rich.console import Console

    from benchmarks.report import Report

    told = Report(alone=True)
    measure(told, int(sys.argv[1]), int(sys.argv[2]))
    told.show(Console(width=180))
