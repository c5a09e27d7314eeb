"""Stream serving on Redis streams: records a second through the guarded core, with dedupe, each once in effect."""

from __future__ import annotations

import subprocess
import sys
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from benchmarks.report import Report

RECORDS, REPEATS, WIDTH = 60_000, 3, 30


def run(report: Report) -> None:
    from taut.testing.brokers import RedisServer

    with tempfile.TemporaryDirectory(prefix="taut-bench-") as folder:
        work = Path(folder)
        plane = _plane(work / "home")
        for durable in (False, True):
            server = RedisServer(work / f"redis-{durable}", durable=durable)
            server.start()
            try:
                rates = [_rate(server.url, plane, f"in-{n}", f"out-{n}") for n in range(REPEATS)]
            finally:
                server.stop()
            kept = "each write synchronised" if durable else "no persistence"
            report.figure(
                f"stream, one process, Redis, {kept}", rates, "records/s", wanted="≥ 10,000",
                note=f"{RECORDS:,} records of {WIDTH} columns, 100 trees; all guards, prediction log, dedupe, a server beside it",
            )  # fmt: skip


def _plane(home: Path) -> Any:
    from benchmarks.bench_serving import _plane as plane
    from benchmarks.bench_serving import _train

    return plane(home, _train())


def _rate(url: str, plane: Any, source: str, target: str) -> float:
    import redis

    from benchmarks.bench_serving import _row
    from taut.adapters.bus.redis import RedisBus
    from taut.adapters.world import SystemClock, SystemRandom
    from taut.core.cloudevents import Event

    bus = RedisBus(url, SystemClock(), SystemRandom())
    body = ("{" + ", ".join(f'"x{index}": {value}' for index, value in enumerate(_row())) + "}").encode()
    for start in range(0, RECORDS, 5000):
        made = [Event(id=f"e{i}", source="bench", type="row", data=body) for i in range(start, start + 5000)]
        bus.publish(source, made)
    command = [
        sys.executable, "-P", "-m", "taut.entrypoints.cli", "--json", "--home", str(plane.home), "--token",
        plane.token(ttl_s=3600), "stream", "run", "m", "--from", f"{url}/{source}", "--to", target, "--until-empty",
    ]  # fmt: skip
    subprocess.run(command, check=True, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    client = redis.Redis.from_url(url)
    assert client.xlen(target) == RECORDS, "not every record was answered once"
    first, last = client.xrange(target, count=1), client.xrevrange(target, count=1)
    took_ms = int(last[0][0].partition(b"-")[0]) - int(first[0][0].partition(b"-")[0])
    client.delete(source, target)
    client.close()
    bus.close()
    return (RECORDS - 1) / took_ms * 1000
