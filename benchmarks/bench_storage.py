"""Storage and keys: tables in bounded memory, what verification costs, sealing, detectors, signatures."""

from __future__ import annotations

import json
import random
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import closing
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

import polars as pl

from taut.adapters.blobs.local import LocalBlobs
from taut.adapters.keys.file import FileKeys
from taut.adapters.records import open_sqlite
from taut.adapters.tables.parquet import ParquetTables
from taut.adapters.world import SystemClock, SystemRandom
from taut.core.schema import Column, DType, Schema
from taut.ports.records import Records
from taut.ports.tables import TableManifest
from taut.testing.records import create_tables
from taut.trust.envelope import metadata
from taut.trust.pii import scan
from taut.trust.sealing import Sealer
from taut.trust.signing import sign_statement, verify_statement

if TYPE_CHECKING:
    from benchmarks.report import Report

SCHEMA = Schema(
    (
        *(Column(f"i{n}", DType.INT) for n in range(4)),
        *(Column(f"f{n}", DType.FLOAT) for n in range(4)),
        Column("carrier", DType.STRING),
        Column("tail", DType.STRING),
        Column("at", DType.DATETIME),
        Column("late", DType.BOOL),
    )
)
CHUNK_ROWS = 100_000
TABLE_ROWS = 10_000_000


def chunks(rows: int) -> Iterator[pl.DataFrame]:
    """Yield frames of 12 columns that compress about as real ones do: a few hundred carriers, noisy floats."""
    numbers = pl.int_range(CHUNK_ROWS, eager=True)
    base = pl.DataFrame({"row": numbers}).with_columns(noise=pl.col("row").hash(1).cast(pl.Float64) / 2.0**64)
    for start in range(0, rows, CHUNK_ROWS):
        row = pl.col("row") + start
        yield base.head(min(CHUNK_ROWS, rows - start)).select(
            *((row * (n + 1) % (10 ** (n + 3))).alias(f"i{n}") for n in range(4)),
            *((pl.col("noise") * (n + 1) + row % 97).alias(f"f{n}") for n in range(4)),
            carrier=pl.format("C{}", row % 16),
            tail=pl.format("N{}", row * 7919 % 4000),
            at=(row * 1_000_000).cast(pl.Datetime("us", "UTC")),
            late=row % 5 == 0,
        )


def stream(folder: str, rows: int) -> None:
    """Write and read a table in bounded memory; print what it took. Runs in a process of its own."""
    import resource

    tables = ParquetTables(LocalBlobs(Path(folder)))
    start = time.perf_counter()
    manifest = tables.write(chunks(rows), schema=SCHEMA, first_row_id=1)
    wrote = time.perf_counter()
    seen = sum(batch.height for batch in tables.batches(manifest, row_ids=True))
    read = time.perf_counter()
    assert seen == rows
    print(
        json.dumps(
            {
                "write_s": wrote - start,
                "read_s": read - wrote,
                "peak_bytes": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024,
                "stored_bytes": sum(file.size_bytes for file in manifest.files),
            }
        )
    )


def run(report: Report) -> None:
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        _tables(report, folder)
        _verification(report, folder)
        _sealing(report, folder)
        _keys(report, folder)
    _detectors(report)


def _tables(report: Report, folder: Path) -> None:
    done = subprocess.run(
        [sys.executable, "-c", f"from benchmarks.bench_storage import stream; stream({str(folder / 'big')!r}, {TABLE_ROWS})"],
        capture_output=True, text=True, check=True,
    )  # fmt: skip
    took = json.loads(done.stdout)
    rows = f"{TABLE_ROWS:,} rows × 12 columns"
    report.figure(
        f"tables: peak memory of writing and reading {rows}",
        [took["peak_bytes"] / 2**30],
        "GiB",
        wanted="< 2",
    )
    report.figure(
        f"tables: write {rows}", [took["write_s"]], "s", note=f"{took['stored_bytes'] / 2**20:.0f} MiB stored"
    )
    report.figure(f"tables: read {rows} in batches, verified", [took["read_s"]], "s")


def _verification(report: Report, folder: Path) -> None:
    blobs = LocalBlobs(folder / "verified")
    tables = ParquetTables(blobs)
    manifest = tables.write(chunks(1_000_000), schema=SCHEMA, first_row_id=1)
    paths = [_path(blobs, manifest, index) for index in range(len(manifest.files))]
    ours, theirs = [], []
    for _ in range(5):
        ours.append(_seconds(lambda: tables.scan(manifest).select(pl.all().max()).collect()))
        theirs.append(
            _seconds(
                lambda: pl.scan_parquet(paths, glob=False).drop("_row_id").select(pl.all().max()).collect()
            )
        )
    report.ratio("tables: verified scan of 1,000,000 rows against a bare scan_parquet", ours, theirs, "s")


def _path(blobs: LocalBlobs, manifest: TableManifest, index: int) -> Path:
    with blobs.local(manifest.files[index].digest) as path:
        return path


def _sealing(report: Report, folder: Path) -> None:
    with closing(open_sqlite(folder / "bench.db")) as records:
        create_tables(records, metadata)
        sealer = Sealer(
            records, FileKeys(folder / "keys", random=SystemRandom()), SystemRandom(), SystemClock()
        )
        for people, label in (
            (5_000, "20 rows a person"),
            (100_000, "each row its own person, known"),
            (None, "each row a new person"),
        ):
            sealed, opened = _seal_rates(records, sealer, people)
            wanted = "≥ 300,000" if people == 5_000 else ""
            report.figure(f"sealing: seal, {label}", sealed, "values/s a core", wanted=wanted)
            report.figure(f"sealing: unseal, {label}", opened, "values/s a core")


def _seal_rates(records: Records, sealer: Sealer, people: int | None) -> tuple[list[float], list[float]]:
    rows = 100_000
    sealed: list[float] = []
    opened: list[float] = []
    for turn in range(3):
        modulus = people or rows
        who = [f"{turn if people is None else ''}person{index % modulus}" for index in range(rows)]
        frame = pl.DataFrame({
            "who": who, "name": [f"Name Surname {index % 977}" for index in range(rows)],
            "mail": [f"user{index}@example.org" for index in range(rows)],
        })  # fmt: skip
        if people is not None and not turn:
            with records.begin() as tx:
                sealer.seal(tx, dataset="bench", frame=frame, subject="who", columns=["name"])
        start = time.process_time()
        with records.begin() as tx:
            done = sealer.seal(tx, dataset="bench", frame=frame, subject="who", columns=["name", "mail"])
        middle = time.process_time()
        back = sealer.unseal(done, dataset="bench", columns=["name", "mail"], subject="who")
        end = time.process_time()
        assert back.frame.equals(frame)
        sealed.append(2 * rows / (middle - start))
        opened.append(2 * rows / (end - middle))
    return sealed, opened


def _keys(report: Report, folder: Path) -> None:
    keys = FileKeys(folder / "keys", random=SystemRandom())
    statement = sign_statement(
        keys, purpose="model", payload_type="x/y", payload={"digest": "sha256:" + "0" * 64}
    )
    public = keys.public_keys(purpose="model")
    report.figure(
        "keys: sign (P-256)",
        [_each(lambda: keys.sign(b"m" * 200, purpose="ledger"), 500) for _ in range(5)],
        "µs",
    )
    report.figure(
        "signing: verify a statement",
        [_each(lambda: verify_statement(statement, public, payload_type="x/y"), 300) for _ in range(5)],
        "µs",
    )
    blobs = LocalBlobs(folder / "small")
    count = iter(range(10**6))
    report.figure(
        "blobs: put 1 KiB, on stable storage",
        [_each(lambda: blobs.put(b"%1024d" % next(count)), 50) / 1000 for _ in range(5)],
        "ms",
    )


def _detectors(report: Report) -> None:
    source = random.Random(0)
    plain = {
        "short words": pl.Series(
            [source.choice(["AA", "UA", "JFK"]) + str(index % 997) for index in range(1_000_000)]
        ),
        "numbers as text": pl.Series([str(source.randrange(10**6)) for _ in range(1_000_000)]),
        "integers": pl.Series(range(1_000_000)),
    }
    for name, series in plain.items():
        report.figure(f"pii: scan 1,000,000 {name}", [_seconds(partial(scan, series)) for _ in range(3)], "s")
    mails = pl.Series([f"user{index}@example.org" for index in range(100_000)])
    report.figure(
        "pii: scan 100,000 e-mail addresses", [_seconds(lambda: scan(mails)) for _ in range(3)], "s"
    )


def _seconds(do: Callable[[], object]) -> float:
    start = time.perf_counter()
    do()
    return time.perf_counter() - start


def _each(do: Callable[[], object], times: int) -> float:
    """Return microseconds a call."""
    return _seconds(lambda: [do() for _ in range(times)]) / times * 1e6
