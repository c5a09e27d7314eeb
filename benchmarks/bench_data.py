"""The data room: contract checks beside those of others, and a big ingest with sealed fields."""

from __future__ import annotations

import importlib.util
import json
import os
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

from benchmarks.report import Report

ROOT = Path(__file__).parents[1]
RIVALS = {
    "dataframely": "≥ 1×", "pandera": "≥ 1×", "pointblank": "≥ 1×", "great_expectations": "≥ 3×",
}  # fmt: skip
ROUNDS = 7
BIG_ROWS = 10_000_000


def run(report: Report) -> None:
    rivals(report)
    speed(report)
    memory(report)


def rivals(report: Report) -> None:
    """Compare in the environment that has the rivals: this one, or that of TAUT_BENCH_PYTHON."""
    python = sys.executable
    if importlib.util.find_spec("dataframely") is None:
        python = os.environ.get("TAUT_BENCH_PYTHON", "")
    if not python:
        for name in RIVALS:
            report.missing(
                f"contract check vs {name}",
                "not installed: set TAUT_BENCH_PYTHON to one with requirements/bench.txt",
            )
        return
    found = _output(python, "benchmarks.contract_rivals", str(ROUNDS))
    ours = found["seconds"]["taut"]
    report.figure("contract check, 1M × 12, 5 rules", [s * 1e3 for s in ours], "ms", note="with quarantine")
    for name, wanted in RIVALS.items():
        if name in found["missing"]:
            report.missing(f"contract check vs {name}", f"not installed: {found['missing'][name]}")
            continue
        theirs = found["seconds"][name]
        assert found["bad"][name] == found["bad"]["taut"], f"{name} found other rows"
        report.ratio(
            f"contract check vs {name}", ours[: len(theirs)], theirs, "s", wanted=wanted,
            note="1M × 12, 5 rules, bad rows set aside",
        )  # fmt: skip


def speed(report: Report) -> None:
    """Read, cast and check CSV without sealing: what the connector itself costs."""
    import io

    from benchmarks.contract_rivals import CODES, table
    from taut.core.schema import DType
    from taut.lifecycle.data import CompiledContract
    from taut.lifecycle.data.casts import to_types
    from taut.lifecycle.data.csv_records import read_csv
    from taut.lifecycle.data.records import Wanted
    from taut.project.manifest import ColumnSpec, ContractSpec

    frame = table()
    data = frame.write_csv().encode()
    types = {"String": DType.STRING, "Int64": DType.INT, "Float64": DType.FLOAT}
    columns = tuple(
        ColumnSpec(
            name=name, dtype=types[str(dtype)], nullable=True, allowed=CODES if name == "status" else None
        )
        for name, dtype in frame.schema.items()
    )
    contract = CompiledContract(ContractSpec(columns=columns))
    seconds = []
    for _ in range(3):
        start, rows = time.perf_counter(), 0
        wanted = Wanted(columns=columns, extra_columns="reject")
        for chunk in read_csv(io.BytesIO(data), wanted, file="orders.csv"):
            typed, broken = to_types(chunk.frame.drop("_row"), columns, null_values=("",))
            rows += typed.height
            contract.check(typed, broken_types=broken)
        assert rows == frame.height
        seconds.append(time.perf_counter() - start)
    report.figure("CSV read, cast and checked", [frame.height / s for s in seconds], "rows/s", note="1M × 12")


def memory(report: Report) -> None:
    """Ingest ten million rows with two sealed fields and a unique key, in a process of its own."""
    rows = int(os.environ.get("TAUT_BENCH_ROWS", BIG_ROWS))
    found = _output(sys.executable, "benchmarks.big_ingest", str(rows))
    name = f"ingest of {rows:,} × 12 with two sealed fields"
    report.figure(f"{name}: peak memory", [found["peak_mib"]], "MiB", wanted="≤ 2048")
    report.figure(
        f"{name}: speed",
        [rows / found["seconds"]],
        "rows/s",
        note=f"{found['csv_mib']:.0f} MiB of CSV, SQLite",
    )


def _output(python: str, module: str, argument: str) -> dict[str, Any]:
    """Run a module in another process and return the JSON that it printed."""
    environment = {
        **os.environ,
        "PYTHONPATH": f"{ROOT / 'src'}{os.pathsep}{ROOT}",
        "PYTHONWARNINGS": "ignore",
    }
    done = subprocess.run(
        [python, "-m", module, argument],
        capture_output=True,
        cwd=ROOT,
        env=environment,
        timeout=3600,
        check=False,
    )
    if done.returncode:
        raise RuntimeError(f"{module} failed: {done.stderr.decode()[-2000:]}")
    result: dict[str, Any] = json.loads(done.stdout.decode().splitlines()[-1])
    return result
