"""Stream serving: records a second through the guarded core, with dedupe, each once in effect, on each broker."""

from __future__ import annotations

import json
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

from benchmarks.planes import plane_of, row, train

if TYPE_CHECKING:
    from benchmarks.report import Report
    from taut.ports.bus import Bus

RECORDS, REPEATS, WIDTH = 60_000, 3, 30


def run(report: Report) -> None:
    with tempfile.TemporaryDirectory(prefix="taut-bench-") as folder:
        work = Path(folder)
        plane = plane_of(work / "home", train())
        for durable in (False, True):
            kept = "each write synchronised" if durable else "no persistence"
            with _redis(work / f"redis-{durable}", durable=durable) as (url, bus):
                rates = [_rate(url, bus, plane, n, RECORDS) for n in range(REPEATS)]
            report.figure(
                f"stream, one process, Redis, {kept}", rates, "records/s", wanted="≥ 10,000",
                note=f"{RECORDS:,} records of {WIDTH} columns, 100 trees; all guards, prediction log, dedupe; the server beside it",
            )  # fmt: skip
        with _records(plane.home) as (url, bus):
            rates = [_rate(url, bus, plane, n, RECORDS // 4) for n in range(REPEATS)]
        report.figure(
            "stream, one process, SQLite", rates, "records/s", note="offset and answer in one transaction"
        )


@contextmanager
def _redis(folder: Path, *, durable: bool) -> Iterator[tuple[str, Bus]]:
    from taut.adapters.bus.redis import RedisBus
    from taut.adapters.world import SystemClock, SystemRandom
    from taut.testing.brokers import RedisServer

    server = RedisServer(folder, durable=durable)
    server.start()
    bus = RedisBus(server.url, SystemClock(), SystemRandom())
    try:
        yield server.url, bus
    finally:
        bus.close()
        server.stop()


@contextmanager
def _records(home: Path) -> Iterator[tuple[str, Bus]]:
    from taut.adapters.bus.records import RecordsBus
    from taut.adapters.records import open_sqlite
    from taut.adapters.records.migration import migrate
    from taut.adapters.world import SystemClock, SystemRandom

    records = open_sqlite(home / "taut.db")
    migrate(records)
    try:
        yield "records:", RecordsBus(records, SystemClock(), SystemRandom())
    finally:
        records.close()


def _rate(url: str, bus: Bus, plane: Any, number: int, count: int) -> float:
    from taut.core.cloudevents import Event

    source, target = f"in-{number}", f"out-{number}"
    body = ("{" + ", ".join(f'"x{index}": {value}' for index, value in enumerate(row())) + "}").encode()
    for start in range(0, count, 5000):
        made = [
            Event(id=f"e{i}", source="bench", type="row", data=body)
            for i in range(start, min(start + 5000, count))
        ]
        bus.publish(source, made)
    command = [
        sys.executable, "-P", "-m", "taut.entrypoints.cli", "--json", "--home", str(plane.home), "--token",
        plane.token(ttl_s=3600), "stream", "run", "m", "--from", f"{url}/{source}", "--to", target, "--until-empty",
    ]  # fmt: skip
    done = subprocess.run(command, check=True, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL)
    counts = json.loads(done.stdout)
    assert counts["new"] == bus.state(target, "check").length == count, "not every record was answered once"
    return float(count / counts["seconds"])
