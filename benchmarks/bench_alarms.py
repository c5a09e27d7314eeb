"""Recorded traffic at ten times its rate through the live guard: who is found in it falsely, and how soon who is planted is.

On the demo's installation, with two gateways. Thirty callers whose shares are log-normal ask what the demo's endpoint was
asked before, for half a minute; that is the record, and what control knows as usual. Then `taut up` anew, and the record again and
again, ten times as fast, each caller as a principal of his own as `taut load --replay --speed 10` does, for two minutes of
the detector's own windows of a minute (`tests/simulation/test_alarms_at_ten_times.py` has more of them); then the same with one caller in the middle who asks twenty times as often.
"""

from __future__ import annotations

import asyncio
import os
import random
import shutil
import tempfile
import threading
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from itertools import accumulate, cycle
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from benchmarks import procs
from benchmarks.demo_run import demo_run, environment, free_port, taut

if TYPE_CHECKING:
    from benchmarks.report import Report
    from taut.entrypoints.client import Client
    from taut.entrypoints.load.driver import Measured

ENDPOINT: Final = "delay"
CALLERS: Final = 30
RATE: Final = 100.0
RECORD_S: Final = 30
SPEED: Final = 10.0
CALM_MINUTES: Final = 2
PLANTED_TIMES: Final = 20
FOUND_WITHIN_S: Final = 180.0
WINDOW_S: Final = 60.0


def run(report: Report) -> None:
    with tempfile.TemporaryDirectory(prefix="taut-bench-") as folder:
        home = Path(folder) / "home"
        shutil.copytree(demo_run().home, home, symlinks=True, ignore=shutil.ignore_patterns("run"))
        with up(home) as control:
            record(control)
        recorded, usual = learn(home)
        with up(home) as control:
            tokens = {name: _token(control, name) for name in usual}
            with Replaying(control, recorded, tokens) as replay:
                time.sleep(WINDOW_S)  # until a window holds nothing but replayed traffic
                false_s = watched(control, CALM_MINUTES * WINDOW_S)
                found_s = planted(control, recorded, usual, tokens)
    note = f"{replay.requests:,} requests of {len(usual)} callers, {replay.failed:,} refused or failed"
    report.figure(
        "false alarm minutes, ten times the recorded rate", [false_s / 60.0], "min", wanted="< 1", note=note
    )
    note = f"{PLANTED_TIMES} times as often as usual; shares are judged once a minute"
    report.figure("until who is planted is found", [found_s], "s", wanted="≤ 60", note=note)


@contextmanager
def up(home: Path) -> Iterator[Client]:
    """Run the platform; yield a client of its control."""
    from taut.entrypoints.client import SOCKET, answers, connect

    command = taut("--home", str(home), "up", "--port", str(free_port()), "--gateways", "2")
    with (
        (home.parent / "up.log").open("ab") as said,
        procs.running(command, env=environment(), stdout=said, stderr=said),
    ):
        procs.wait_until(lambda: answers(home / SOCKET), "control", within_s=60)
        with connect(home, url=None, token=None) as client:
            procs.wait_until(
                lambda: bool(client.call("status.show").get("data_plane")), "a gateway", within_s=60
            )
            yield client


def record(control: Client) -> None:
    """Have thirty callers ask what the endpoint was asked before, as they come."""
    from taut.entrypoints.load import from_instances, rendered
    from taut.entrypoints.load.profile import steady

    dice = random.Random(7)
    asked = control.call("prediction.recorded", {"endpoint": ENDPOINT, "limit": 1000})["requests"]
    bodies = from_instances([row for one in asked for row in one["instances"]], rows=1)
    weights = list(accumulate(dice.lognormvariate(0, 1) for _ in range(CALLERS)))
    tokens = [_token(control, f"recorded-{n}") for n in range(CALLERS)]
    host = _host(control)

    def requests() -> Iterator[tuple[float, bytes]]:
        for at_s in steady(RATE, f"{RECORD_S}s").arrivals("poisson", dice.random):
            (caller,) = dice.choices(range(CALLERS), cum_weights=weights)
            yield at_s, rendered(ENDPOINT, dice.choice(bodies), host=host, token=tokens[caller])

    driven(host, requests(), RECORD_S)


def driven(host: str, requests: Iterator[tuple[float, bytes]], seconds: float) -> Measured:
    from taut.entrypoints.load import Address, Driver

    name, _, port = host.partition(":")
    driver = Driver(
        Address(name, int(port)), requests, connections_max=64, timeout_s=10.0, expected_s=seconds
    )
    return asyncio.run(driver.run(lambda _said, _share: None))


def learn(home: Path) -> tuple[list[dict[str, Any]], dict[str, float]]:
    """Keep the record as the hour before, under the names that a replay gives; return it, and what each caller asked in it."""
    from taut.bootstrap.platform import open_platform
    from taut.entrypoints.operations.predictions import OPERATIONS, PredictionRecorded
    from taut.trust.shares import Hour, Hours, ShareWatch

    (operation,) = OPERATIONS
    with open_platform(home, environ=os.environ) as platform:
        caller: Any = None  # who asks makes no difference to the answer
        wanted = PredictionRecorded(endpoint=ENDPOINT, limit=int(RATE * RECORD_S * 0.9))
        recorded = operation.handle(platform, caller, wanted, lambda _said, _share: None)["requests"]
        counts = Counter(f"load-{one['caller']}" for one in recorded)
        usual = {name: float(count) for name, count in counts.items()}
        hour = Hour(hour=int(time.time() // 3600) - 1, known=usual, strangers={})
        Hours(platform.records).keep(hour, ShareWatch())
    return recorded, usual


class Replaying:
    """The record, ten times as fast, again and again, in a thread of its own."""

    def __init__(self, control: Client, recorded: list[dict[str, Any]], tokens: dict[str, str]) -> None:
        from taut.entrypoints.load import from_recorded, rendered

        self._host: Final = _host(control)
        self._requests: Final = [
            (at_s, rendered(ENDPOINT, body, host=self._host, token=tokens[f"load-{caller}"]))
            for at_s, caller, body in from_recorded(recorded, speed=SPEED)
        ]
        self._stop: Final = threading.Event()
        self._thread: Final = threading.Thread(target=self._run)
        self.requests = self.failed = 0

    def __enter__(self) -> Replaying:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._stop.set()
        self._thread.join()

    def _run(self) -> None:
        while not self._stop.is_set():
            measured = driven(self._host, iter(self._requests), self._requests[-1][0])
            self.requests += measured.offered
            well = sum(one.count for status, one in measured.by_status.items() if status < 400)
            self.failed += measured.offered - well


def watched(control: Client, seconds: float) -> float:
    """Return for how many of the seconds somebody stood as found."""
    end_s, bad, last_s = time.monotonic() + seconds, 0.0, time.monotonic()
    while last_s < end_s:
        time.sleep(1.0)
        now_s = time.monotonic()
        bad += (now_s - last_s) if _found(control) else 0.0
        last_s = now_s
    return bad


def planted(
    control: Client, recorded: list[dict[str, Any]], usual: dict[str, float], tokens: dict[str, str]
) -> float:
    """Let a caller in the middle ask more often; return after how many seconds he is found, and nobody else."""
    from taut.entrypoints.load import from_recorded, rendered
    from taut.entrypoints.load.profile import steady

    ranked = sorted(usual, key=usual.__getitem__)
    who = ranked[len(ranked) // 2]
    rate = SPEED * RATE * usual[who] / sum(usual.values()) * (PLANTED_TIMES - 1)
    dice, host = random.Random(8), _host(control)
    bodies = cycle(body for _, _, body in from_recorded(recorded, speed=SPEED))
    times = steady(rate, f"{FOUND_WITHIN_S:.0f}s").arrivals("poisson", dice.random)
    asks = ((at_s, rendered(ENDPOINT, next(bodies), host=host, token=tokens[who])) for at_s in times)

    def ask() -> None:
        driven(host, asks, FOUND_WITHIN_S)

    start_s = time.monotonic()
    threading.Thread(target=ask, daemon=True).start()
    while not (found := _found(control)):
        if time.monotonic() - start_s > FOUND_WITHIN_S:
            raise RuntimeError(f"{who} was not found within {FOUND_WITHIN_S:.0f} s")
        time.sleep(0.2)
    took_s = time.monotonic() - start_s
    if found != {who}:
        raise RuntimeError(f"{who} was planted, and {', '.join(sorted(found))} found")
    return took_s


def _found(control: Client) -> set[str]:
    alerts = control.call("alerts.list", {})["alerts"]
    return {one["principal"] or one["group"] for one in alerts if one["kind"] == "share"}


def _host(control: Client) -> str:
    return str(control.call("status.show")["data_plane"]).removeprefix("http://")


def _token(control: Client, who: str) -> str:
    request = {"principal": who, "roles": ["predictor"], "ttl": "30m", "enrol": "service"}
    return str(control.call("token.create", request)["token"])
