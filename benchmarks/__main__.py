"""Runs every `bench_*.py` here, or those whose names are given: `python -m benchmarks ledger data`."""

from __future__ import annotations

import importlib
import os
import sys
import time
import traceback
from pathlib import Path

from rich.console import Console

from benchmarks.report import Report

HERE = Path(__file__).parent


def main(names: list[str]) -> int:
    known = sorted(path.stem.removeprefix("bench_") for path in HERE.glob("bench_*.py"))
    unknown = sorted(set(names) - set(known))
    if unknown:
        print(f"no benchmark {', '.join(unknown)}: there are {', '.join(known)}", file=sys.stderr)
        return 2
    report, console, failed = Report(), Console(width=160), []
    for name in names or known:
        console.print(f"[bold]{name}[/] …", highlight=False)
        start = time.perf_counter()
        try:
            importlib.import_module(f"benchmarks.bench_{name}").run(report)
        except Exception:  # noqa: BLE001 - one broken benchmark must not hide the others' figures
            traceback.print_exc()
            failed.append(name)
            report.missing(name, "the benchmark itself failed; see above")
        console.print(f"  {time.perf_counter() - start:.0f} s", highlight=False)
    report.show(console)
    if not names:
        report.write(HERE / "results.json", cores=os.cpu_count() or 1)
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
