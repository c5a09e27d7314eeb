"""Drift: how long a million rows take, how seldom and how soon a change is said, and what a look costs control."""

from __future__ import annotations

import json
import os
import subprocess
import tempfile
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import numpy as np
import numpy.typing as npt
import polars as pl

from taut.lifecycle.monitoring import Detector, EndpointWatch, Reference, cells_of, freeze, tally
from taut.lifecycle.monitoring.reference import Learned

if TYPE_CHECKING:
    from benchmarks.report import Report

ROWS, COLUMNS = 1_000_000, 20
RUNS, STREAM = 48, 10_000
_ROUNDS: Final = 5
_SHIFTS: Final = ((1.0, 1.0), (0.5, 1.0), (0.25, 1.0), (0.0, 2.0), (0.0, 0.5))
"""What becomes of one column of six: its mean, and its spread."""


def run(report: Report) -> None:
    _batch(report)
    _look(report)
    _nothing(report)
    _delays(report)


def _table(rng: np.random.Generator, far: float = 0.0) -> pl.DataFrame:
    columns: dict[str, Any] = {f"x{at}": rng.normal(far, 1, ROWS) for at in range(COLUMNS - 2)}
    return pl.DataFrame(
        {**columns, "a": rng.integers(0, 12, ROWS).astype(str), "b": rng.integers(0, 5, ROWS).astype(str)}
    )


def _batch(report: Report) -> None:
    """Compare a table with another of as many rows, from values to shifts with bounds."""
    rng = np.random.default_rng(0)
    before, after = _table(rng), _table(rng, 0.1)
    seconds = []
    for _ in range(_ROUNDS):
        began = time.process_time()
        usual = _frozen(before)
        codes = usual.encode({name: _values(after, name) for name in after.columns}, ROWS)
        watch = EndpointWatch(usual)
        for block in range(24):
            part = codes[block::24]
            watch._window.add(block * 3600.0, block, tally(part))
        drifted = [one for one in watch.figures().columns if one.shift is not None and one.shift.lower > 0]
        seconds.append(time.process_time() - began)
    report.figure(
        f"drift of {ROWS:,} rows of {COLUMNS} columns against as many", seconds, "s", wanted="≤ 3",
        note=f"processor time, reference included; surely shifted: {len(drifted)} columns",
    )  # fmt: skip
    rival = _rival(before, after)
    if rival is None:
        report.missing("Evidently on the same tables", "name a Python that has it by TAUT_EVIDENTLY_PYTHON")
    else:
        report.figure(
            f"Evidently {rival['version']} on the same tables, by its defaults", [rival["seconds"]], "s"
        )
        ratio = [rival["seconds"] / one for one in seconds]
        report.figure("Evidently's time as a multiple of ours", ratio, "x", wanted="≥ 25")


def _frozen(table: pl.DataFrame) -> Reference:
    hours = np.arange(ROWS) % 24
    columns: dict[str, Any] = {
        name: ("word" if name in "ab" else "number", "request") for name in table.columns
    }
    rows = {name: _values(table, name) for name in table.columns}
    return freeze(
        "m@1", columns, rows, hours, hours, learned=Learned(scores={}, wrong=np.empty(0)), newest_us=0
    )


def _values(table: pl.DataFrame, name: str) -> Any:
    return table[name].to_list() if name in "ab" else table[name].to_numpy()


def _rival(before: pl.DataFrame, after: pl.DataFrame) -> dict[str, Any] | None:
    python = os.environ.get("TAUT_EVIDENTLY_PYTHON", "")
    if not python:
        return None
    with tempfile.TemporaryDirectory(prefix="taut-bench-") as folder:
        paths = [str(Path(folder, name)) for name in ("before.parquet", "after.parquet")]
        before.write_parquet(paths[0])
        after.write_parquet(paths[1])
        done = subprocess.run(
            [python, str(Path(__file__).with_name("evidently_drift.py")), *paths],
            capture_output=True, text=True, timeout=1200, check=True,
        )  # fmt: skip
    found: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
    return found


def _look(report: Report) -> None:
    """What a watch of 20 columns costs control for the rows of one look."""
    rng = np.random.default_rng(1)
    usual = _frozen(_table(rng))
    watch = EndpointWatch(usual)
    some = _table(rng).head(5000)
    values = {name: some[name].to_list() for name in some.columns}
    took, figures = [], []
    for block in range(8):
        began = time.process_time()
        codes = usual.encode(values, 5000)
        watch.observe(codes, np.full(5000, block * 3600.0), np.full(5000, block))
        took.append((time.process_time() - began) / 5000 * 1e6)
        began = time.process_time()
        watch.figures()
        figures.append((time.process_time() - began) * 1e3)
    report.figure(f"taking a row of {COLUMNS} columns", took[1:], "µs")
    report.figure("figures of a look", figures[1:], "ms")
    report.figure("what is kept of a watch", [len(watch.state()) / 1024], "KiB")


def _stream(seed: int, *, rows: int, from_row: int, far: float, wide: float) -> int | None:
    rng = np.random.default_rng(seed)
    past, stream = rng.normal(size=(2000, 6)), rng.normal(size=(rows, 6))
    stream[from_row:, 0] = stream[from_row:, 0] * wide + far
    cells = [cells_of(str(at), "number", past[::2, at].tolist()) for at in range(6)]

    def encoded(values: npt.NDArray[np.float64]) -> npt.NDArray[np.int16]:
        return np.column_stack([one.encode(values[:, at]) for at, one in enumerate(cells)])

    detector = Detector(tally(encoded(past[1::2])), seed=seed)
    detector.observe(encoded(stream))
    return detector.alarmed_row


def _nothing(report: Report) -> None:
    found = [_stream(seed, rows=STREAM, from_row=STREAM, far=0.0, wide=1.0) for seed in range(RUNS)]
    false = sum(one is not None for one in found)
    report.figure(
        f"false alarms in {RUNS} runs of {STREAM:,} unchanged rows", [float(false)], "runs", wanted="≤ 0"
    )


def _delays(report: Report) -> None:
    for far, wide in _SHIFTS:
        delays, missed = [], 0
        for seed in range(12):
            found = _stream(seed, rows=5000, from_row=1000, far=far, wide=wide)
            if found is None or found <= 1000:
                missed += 1
            else:
                delays.append(float(found - 1000))
        what = f"mean +{far:g} sd" if far else f"spread x{wide:g}"
        note = f"{missed} of 12 runs not found in 4,000 rows" if missed else ""
        report.figure(
            f"rows until it is said: {what} of one column of six", delays or [4000.0], "rows", note=note
        )
