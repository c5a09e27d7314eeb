"""Runs every `bench_*.py` here, or those whose names are given: `python -m benchmarks ledger data`.

A figure that is not what is wanted is marked and listed, and the exit status stays 0: the table is there to be read. A
benchmark that breaks gives 1. Only a whole run writes `results.json` and the table in `README.md`.
"""

from __future__ import annotations

import importlib
import os
import sys
import time
import traceback
from pathlib import Path

from rich.console import Console

from benchmarks.report import Report
from benchmarks.results import renew_table, write_json

HERE = Path(__file__).parent


def main(names: list[str]) -> int:
    known = sorted(path.stem.removeprefix("bench_") for path in HERE.glob("bench_*.py"))
    unknown = sorted(set(names) - set(known))
    if unknown:
        print(f"no benchmark {', '.join(unknown)}: there are {', '.join(known)}", file=sys.stderr)
        return 2
    report, console, failed = Report(), Console(width=None if sys.stdout.isatty() else 180), []
    began, load = time.perf_counter(), _load()
    if load > 0.5:
        console.print(
            f"the machine is busy (load {load:.1f} a core): figures will be worse than they are",
            style="yellow",
        )
    for name in names or known:
        console.print(f"[bold]{name}[/] …", highlight=False)
        start, report.bench = time.perf_counter(), name
        try:
            importlib.import_module(f"benchmarks.bench_{name}").run(report)
        except Exception:  # noqa: BLE001 - one broken benchmark must not hide the others' figures
            traceback.print_exc()
            failed.append(name)
            report.missing(name, "the benchmark itself failed; see above")
        console.print(f"  {time.perf_counter() - start:.0f} s", highlight=False)
    seconds = time.perf_counter() - began
    report.show(console)
    console.print(f"{seconds:.0f} s in all", highlight=False)
    if not names and not failed:
        write_json(report, HERE / "results.json", load=(load, _load()), seconds=seconds)
        renew_table(report, HERE / "README.md", load=load)
    if failed:
        console.print(f"broken: {', '.join(failed)}", style="bold red")
    return 1 if failed else 0


def _load() -> float:
    return os.getloadavg()[0] / (os.cpu_count() or 1)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
