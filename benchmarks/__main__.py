"""Runs every `bench_*.py` here, or those whose names are given: `python -m benchmarks ledger data`.

A figure that is not what is wanted is marked and listed, and the exit status stays 0: the table is there to be read. A
benchmark that breaks gives 1. A whole run, and one with `--keep`, writes its parts into `results.json` and the table in
`README.md`; a part that broke stays there as it was.
"""

from __future__ import annotations

import importlib
import os
import signal
import sys
import time
import traceback
from datetime import UTC, datetime
from pathlib import Path

from rich.console import Console

from benchmarks.report import Report, line
from benchmarks.results import Run, keep, parts_of, renew_table

HERE = Path(__file__).parent


def main(words: list[str]) -> int:
    names = [word for word in words if word != "--keep"]
    known = sorted(path.stem.removeprefix("bench_") for path in HERE.glob("bench_*.py"))
    unknown = sorted(set(names) - set(known))
    if unknown:
        print(f"no benchmark {', '.join(unknown)}: there are {', '.join(known)}", file=sys.stderr)
        return 2
    console = Console(width=None if sys.stdout.isatty() else 180)
    report = Report(
        alone=bool(names),
        on_row=lambda row: console.print(line(row), highlight=False, markup=False, style="dim"),
    )
    run = Run(began=f"{datetime.now(tz=UTC):%Y-%m-%d %H:%M} UTC", load=_load())
    if run.load > 0.5:
        console.print(
            f"the machine is busy (load {run.load:.1f} a core): figures will be worse than they are",
            style="yellow",
        )
    began, failed = time.perf_counter(), []
    for name in names or known:
        seconds = _measure(name, report, console)
        if seconds is None:
            failed.append(name)
        elif not names or "--keep" in words:  # at once: whatever becomes of those that follow
            parts = keep(HERE / "results.json", parts_of(report, run, seconds={name: seconds}), known=known)
            renew_table(parts, HERE / "README.md")
    report.show(console)
    console.print(f"{time.perf_counter() - began:.0f} s in all", highlight=False)
    if failed:
        console.print(f"broken: {', '.join(failed)}", style="bold red")
    return 1 if failed else 0


def _measure(name: str, report: Report, console: Console) -> float | None:
    """Run a benchmark; return how long it took, None when it broke."""
    console.print(f"[bold]{name}[/] …", highlight=False)
    start, report.bench = time.perf_counter(), name
    try:
        importlib.import_module(f"benchmarks.bench_{name}").run(report)
    except Exception:  # noqa: BLE001 - one broken benchmark must not hide the others' figures
        traceback.print_exc()
        report.missing(name, "the benchmark itself failed; see above")
        return None
    seconds = time.perf_counter() - start
    console.print(f"  {seconds:.0f} s", highlight=False)
    return seconds


def _load() -> float:
    return os.getloadavg()[0] / (os.cpu_count() or 1)


if __name__ == "__main__":
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))  # so that servers are ended and folders removed
    sys.exit(main(sys.argv[1:]))
