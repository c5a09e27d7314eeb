"""Batch serving from a snapshot to a committed result, against the model alone over the same encoded chunks."""

from __future__ import annotations

import contextlib
import io
import os
import resource
import tempfile
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
import polars as pl

if TYPE_CHECKING:
    from benchmarks.report import Report

ROWS = int(os.environ.get("TAUT_BENCH_BATCH_ROWS", "8000000"))
TRAINING_ROWS = 20_000
ROUNDS = 3
COLUMNS = 10

PROJECT = f"""
import taut

COLUMNS = [f"x{{i}}" for i in range({COLUMNS})]
CONTRACT = dict(
    columns=[taut.column("id", "int"), taut.column("at", "datetime"), *(taut.column(c, "float") for c in COLUMNS),
             taut.column("y", "bool")],
)

def dataset(name):
    return taut.Dataset(name, source=taut.files(f"{{name}}.parquet"), contract=taut.Contract(CONTRACT["columns"]),
                        entity="id", event_time="at")

small = dataset("small")
big = dataset("big")

@taut.model("score", dataset=small, request=COLUMNS, label="y", split=taut.by_time(test="1d"),
            gates=[taut.metric("auc", minimum=0.5)], resources=taut.Resources(cpu=1, memory="4GiB", timeout="10m"))
def train(ctx):
    from sklearn.ensemble import HistGradientBoostingClassifier
    model = HistGradientBoostingClassifier(max_iter=100, random_state=ctx.seed)
    model.fit(ctx.train.select(COLUMNS).to_numpy(), ctx.train["y"])
    return taut.Trained(model, inputs=COLUMNS, output="probability")

endpoint = taut.Endpoint("score", model=train)
"""


def run(report: Report) -> None:
    from taut.entrypoints.client import connect

    with tempfile.TemporaryDirectory() as folder, contextlib.chdir(folder):
        Path("project.py").write_text(PROJECT)
        _frame(TRAINING_ROWS, seed=1).write_parquet("small.parquet")
        _frame(ROWS, seed=2).write_parquet("big.parquet")
        for words in ("apply", "data ingest small", "data ingest big", "train score"):
            _taut(*words.split())
        with connect(Path(".taut").absolute()) as client:
            platform: Any = getattr(client.transport, "platform")  # noqa: B009 - of this process, as no platform runs
            own, batch = _measured(platform, client)
    note = (
        f"{ROWS:,} rows of {COLUMNS} floats, 100 boosted trees as one FP32 matrix, onnxruntime on one thread"
    )
    report.figure(
        "batch, snapshot to committed result", [ROWS / run.wall_s for run in batch], "rows/s", note=note
    )
    report.ratio(
        "batch / the model's own throughput", [run.wall_s for run in batch], [run.wall_s for run in own], "s",
        wanted="≥ 0.9", note=note,
    )  # fmt: skip
    report.ratio(
        "processor time of the job that scores, its start included / the model's own",
        [run.cpu_s for run in batch], [run.cpu_s for run in own], "s", wanted="≥ 0.9", note=note,
    )  # fmt: skip


class Run(NamedTuple):
    """What one pass over every row took. cpu_s: of whoever runs the model, this process or the job."""

    wall_s: float
    cpu_s: float


def _measured(platform: Any, client: Any) -> tuple[list[Run], list[Run]]:
    from taut.core.refs import VersionRef
    from taut.serving.batch import matrix
    from taut.serving.runtime import load
    from taut.workflows.batch_pin import CHUNK_ROWS

    loaded = platform.registry.load(VersionRef("score", 1))
    model = load(loaded.model, loaded.signature)
    assert model.row_major, "the benchmark is about matrix models"
    rows = platform.data.scan(VersionRef("big", 1))
    columns = [item.column for item in loaded.signature.inputs]
    chunks = [matrix(rows.slice(at, CHUNK_ROWS).collect(), columns) for at in range(0, ROWS, CHUNK_ROWS)]
    sizes = {size: _alone(model, chunks, size) for size in (CHUNK_ROWS, 8192)}
    best = min(sizes, key=lambda size: sizes[size].cpu_s)
    own, batch = [], []
    for turn in range(ROUNDS):
        own.append(_alone(model, chunks, best))
        start, before = time.perf_counter(), _children_s()
        told = client.call("batch.score", {"target": "score@1", "dataset": "big", "to": f"scores{turn}"})
        batch.append(Run(time.perf_counter() - start, _children_s() - before))
        assert (told["rows"], told["rejected_rows"]) == (ROWS, 0), told
    return own, batch


def _children_s() -> float:
    """Processor time of the jobs that have ended."""
    used = resource.getrusage(resource.RUSAGE_CHILDREN)
    return used.ru_utime + used.ru_stime


def _alone(model: Any, chunks: list[Any], rows: int) -> Run:
    """The model alone, in calls of so many rows."""
    start, before = time.perf_counter(), time.process_time()
    for chunk in chunks:
        for at in range(0, len(chunk), rows):
            model.raw({"input": chunk[at : at + rows]})
    return Run(time.perf_counter() - start, time.process_time() - before)


def _frame(rows: int, *, seed: int) -> pl.DataFrame:
    random = np.random.default_rng(seed)
    values = random.normal(size=(rows, COLUMNS))
    chance = 1 / (1 + np.exp(-values[:, 0] - 0.5 * values[:, 1] * values[:, 2]))
    start_us, span_us = 1_700_000_000_000_000, 30 * 86_400 * 10**6
    at = start_us + np.arange(rows) * (span_us // rows)
    return pl.DataFrame(
        {
            "id": np.arange(rows), "at": pl.Series(at).cast(pl.Datetime("us", "UTC")),
            **{f"x{i}": values[:, i] for i in range(COLUMNS)}, "y": random.random(rows) < chance,
        }
    )  # fmt: skip


def _taut(*words: str) -> None:
    from taut.entrypoints.cli import run

    out, err = io.StringIO(), io.StringIO()
    with contextlib.redirect_stdout(out), contextlib.redirect_stderr(err):
        code = run(["--json", *words])
    if code:
        raise RuntimeError(f"taut {' '.join(words)} ended with {code}: {out.getvalue()} {err.getvalue()}")
