"""Point-in-time joins against DuckDB, online look-ups beside a writer, and the guard's own look-ups."""

from __future__ import annotations

import gc
import subprocess
import sys
import tempfile
import time
import timeit
from collections.abc import Callable
from contextlib import closing
from datetime import UTC, datetime
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import polars as pl

from taut.adapters.online import SqliteOnlineReader, open_online_writer
from taut.lifecycle.features import join_point_in_time
from taut.ports.online import OnlineRow

if TYPE_CHECKING:
    from benchmarks.report import Report

FLIGHTS, WEATHER, AIRPORTS, ENTITIES = 1_000_000, 200_000, 2_000, 100_000
ROUNDS = 5
_TIME = pl.Datetime("us", "UTC")
_START_US = int(datetime(2013, 1, 1, tzinfo=UTC).timestamp()) * 10**6

_WRITER = """
import pathlib, sys
from taut.adapters.online import open_online_writer
from taut.ports.online import OnlineRow
with open_online_writer(pathlib.Path(sys.argv[1])) as writer:
    for moment in range(1, 10**6):
        writer.put("departure", (((f"A{i}",), OnlineRow(10**9 + moment, (i * 1.5, 2.0, "x", None, True, i), "feat"))
                                 for i in range(100_000)))
        print(moment, flush=True)
"""


def run(report: Report) -> None:
    _joins(report)
    _online(report)
    _guard(report)


def _frames() -> tuple[pl.DataFrame, pl.DataFrame]:
    random = np.random.default_rng(7)
    year_us = 365 * 86_400 * 10**6
    flights = pl.DataFrame(
        {
            "flight": np.arange(FLIGHTS),
            "origin": random.integers(0, AIRPORTS, FLIGHTS),
            "scheduled_at": _START_US + random.integers(0, year_us, FLIGHTS),
            "distance": random.random(FLIGHTS),
        }
    ).with_columns(pl.format("A{}", "origin").alias("origin"), pl.col("scheduled_at").cast(_TIME))
    weather = pl.DataFrame(
        {
            "airport": random.integers(0, AIRPORTS, WEATHER),
            "hour": _START_US + random.integers(0, 365 * 24 * 60, WEATHER) * 60 * 10**6,
            "temperature": random.random(WEATHER),
            "wind": random.random(WEATHER),
            "visibility": random.random(WEATHER),
        }
    ).with_columns(pl.format("A{}", "airport").alias("airport"), pl.col("hour").cast(_TIME))
    return flights, weather.unique(["airport", "hour"], maintain_order=True)


def _ours(flights: pl.DataFrame, weather: pl.DataFrame) -> pl.DataFrame:
    return join_point_in_time(
        flights, weather, name="departure", keys={"origin": "airport"}, event_time="scheduled_at",
        feature_time="hour", columns=["temperature", "wind", "visibility"],
    )  # fmt: skip


def _joins(report: Report) -> None:
    flights, weather = _frames()
    try:
        import duckdb
        import pyarrow as pa  # noqa: F401 - DuckDB gives Arrow through it
    except ImportError as error:
        report.missing("point-in-time join against DuckDB", f"{error.name} is not installed")
        return
    con = duckdb.connect()
    con.execute("SET TimeZone = 'UTC'")
    con.register("flights_in", flights.to_arrow())
    con.register("weather_in", weather.to_arrow())
    con.execute("CREATE TABLE flights AS FROM flights_in; CREATE TABLE weather AS FROM weather_in")
    asof = """SELECT f.*, w.temperature, w.wind, w.visibility FROM flights f
              ASOF LEFT JOIN weather w ON f.origin = w.airport AND f.scheduled_at >= w.hour"""

    def theirs(query: str) -> Any:
        return con.sql(query).to_arrow_table()

    ordered = pl.DataFrame(pl.from_arrow(theirs(asof + " ORDER BY f.flight")))
    if not ordered.drop("scheduled_at").equals(_ours(flights, weather).drop("scheduled_at")):
        raise AssertionError("taut and DuckDB disagree about the join")
    note = f"{FLIGHTS:,} x {WEATHER:,} rows, {AIRPORTS:,} text keys, 3 features; both from memory to columns"
    pairs = _interleaved(lambda: _ours(flights, weather), lambda: theirs(asof))
    report.ratio(
        "point-in-time join / DuckDB ASOF", *pairs, "s", wanted="≥ 1.5", note=f"{note}; theirs unordered"
    )
    pairs = _interleaved(lambda: _ours(flights, weather), lambda: theirs(asof + " ORDER BY f.flight"))
    report.ratio("point-in-time join / DuckDB ASOF, rows in their order", *pairs, "s", note=note)
    con.close()


def _interleaved(ours: Callable[[], object], theirs: Callable[[], object]) -> tuple[list[float], list[float]]:
    seconds: tuple[list[float], list[float]] = ([], [])
    for turn in range(ROUNDS + 1):
        for function, into in zip((ours, theirs), seconds, strict=True):
            gc.collect()
            start = time.perf_counter()
            function()
            if turn:  # the first warms up
                into.append(time.perf_counter() - start)
    return seconds


def _online(report: Report) -> None:
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "online.db"
        with open_online_writer(path) as writer:
            start = time.perf_counter()
            writer.put(
                "departure",
                (
                    ((f"A{i}",), OnlineRow(i, (i * 1.5, 2.0, "x", None, True, i), "feat"))
                    for i in range(ENTITIES)
                ),
            )
            report.figure(
                "online write", [ENTITIES / (time.perf_counter() - start)], "rows/s", note="synchronised"
            )
        with closing(SqliteOnlineReader(path)) as reader:
            quiet = [_latencies(reader) for _ in range(ROUNDS)]
            with subprocess.Popen(
                [sys.executable, "-c", _WRITER, str(path)], stdout=subprocess.PIPE, text=True
            ) as child:
                assert child.stdout is not None
                child.stdout.readline()  # it writes now
                busy = [_latencies(reader) for _ in range(ROUNDS)]
                child.kill()
    for name, found in (("quiet", quiet), ("while another process writes", busy)):
        report.figure(f"online look-up p50, {name}", [p50 for p50, _ in found], "µs", wanted="≤ 8")
        report.figure(f"online look-up p99, {name}", [p99 for _, p99 in found], "µs", wanted="≤ 100")


def _latencies(reader: SqliteOnlineReader, count: int = 30_000) -> tuple[float, float]:
    """Return p50 and p99 in microseconds over keys in a scattered order, the timer's own cost included."""
    found = np.empty(count)
    clock, get = time.perf_counter_ns, reader.get_now
    for index in range(count):
        key = (f"A{index * 7919 % ENTITIES}",)
        start = clock()
        row = get("departure", key)
        found[index] = clock() - start
        if row is None:
            raise AssertionError(f"{key} is not online")
    p50, p99 = np.percentile(found, [50, 99]) / 1000
    return float(p50), float(p99)


def _guard(report: Report) -> None:
    try:
        from taut.trust.identity import Principal
        from taut.trust.policy import Policy
        from taut.trust.quota import Limit, Quota
    except ImportError as error:
        report.missing("guard's look-ups", f"{error.name} is not installed")
        return
    policy, alice = Policy(), Principal(id="alice", kind="service", roles=("predictor",))
    quota = Quota({"delay": Limit(rate_per_s=1e9, burst=1e9)})
    verifier, bearer, now_s = _verifier()
    verifier.verify(bearer, now_s)
    for name, function in (
        ("bearer verified, remembered", lambda: verifier.verify(bearer, now_s)),
        ("policy decided, remembered", lambda: policy.decide(alice, "predict", "endpoint:delay")),
        ("quota taken", lambda: quota.take(("delay", "alice"), 1, now_s)),
    ):
        found = [
            seconds / 100_000 * 1e6 for seconds in timeit.repeat(function, number=100_000, repeat=ROUNDS)
        ]
        report.figure(name, found, "µs", wanted="≤ 1" if "quota" not in name else "")
    cold = [_microseconds(partial(policy.decide, alice, "predict", f"endpoint:e{at}")) for at in range(200)]
    report.figure("policy decided, first time", cold, "µs")


def _microseconds(function: Callable[[], object]) -> float:
    start = time.perf_counter()
    function()
    return (time.perf_counter() - start) * 1e6


def _verifier() -> tuple[Any, str, float]:
    import hashlib

    from taut.trust.identity import ApiKeyHash, TokenVerifier, VerifierData

    secret = "s" * 52
    key = ApiKeyHash(
        id="0123456789abcdef", secret_sha256=hashlib.sha256(secret.encode()).hexdigest(), principal="alice",
        kind="service", roles=("predictor",),
    )  # fmt: skip
    data = VerifierData(issuer="taut", audience="taut", public_keys=(), api_keys=(key,))
    return TokenVerifier(data), f"taut_{key.id}_{secret}", 1_800_000_000.0
