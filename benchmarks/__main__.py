"""Runs every `bench_*.py` here, or those whose names are given: `python -m benchmarks ledger data`.

A figure that is not what is wanted is marked and listed, and the exit status stays 0: the table is there to be read. A
benchmark that breaks gives 1. A whole run, and one with `--keep`, writes its parts into `results.json` and the table in
`README.md`; a part that broke stays there as it was.
"""

from __future__ import annotations

import importlib
import os
import sys
import time
import traceback
from datetime import UTC, datetime
from pathlib import Path

from rich.console import Console

from benchmarks.report import Report
from benchmarks.results import Run, keep, parts_of, renew_table

HERE = Path(__file__).parent


def main(words: list[str]) -> int:
    names = [word for word in words if word != "--keep"]
    known = sorted(path.stem.removeprefix("bench_") for path in HERE.glob("bench_*.py"))
    unknown = sorted(set(names) - set(known))
    if unknown:
        print(f"no benchmark {', '.join(unknown)}: there are {', '.join(known)}", file=sys.stderr)
        return 2
    report = Report(alone=bool(names))
    console = Console(width=None if sys.stdout.isatty() else 180)
    run = Run(began=f"{datetime.now(tz=UTC):%Y-%m-%d %H:%M} UTC", load=_load())
    if run.load > 0.5:
        console.print(
            f"the machine is busy (load {run.load:.1f} a core): figures will be worse than they are",
            style="yellow",
        )
    seconds, failed = _measure(names or known, report, console)
    report.show(console)
    console.print(f"{sum(seconds.values()):.0f} s in all", highlight=False)
    if not names or "--keep" in words:
        fine = {name: took_s for name, took_s in seconds.items() if name not in failed}
        parts = keep(HERE / "results.json", parts_of(report, run, seconds=fine), known=known)
        renew_table(parts, HERE / "README.md")
    if failed:
        console.print(f"broken: {', '.join(failed)}", style="bold red")
    return 1 if failed else 0


def _measure(names: list[str], report: Report, console: Console) -> tuple[dict[str, float], list[str]]:
    """Run benchmarks; return how long each took, and those that broke."""
    seconds: dict[str, float] = {}
    failed = []
    for name in names:
        console.print(f"[bold]{name}[/] …", highlight=False)
        start, report.bench = time.perf_counter(), name
        try:
            importlib.import_module(f"benchmarks.bench_{name}").run(report)
        except Exception:  # noqa: BLE001 - one broken benchmark must not hide the others' figures
            traceback.print_exc()
            failed.append(name)
            report.missing(name, "the benchmark itself failed; see above")
        seconds[name] = time.perf_counter() - start
        console.print(f"  {seconds[name]:.0f} s", highlight=False)
    return seconds, failed


def _load() -> float:
    return os.getloadavg()[0] / (os.cpu_count() or 1)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
