"""Keeps the figures of a whole run: `results.json` for machines, and the table in `README.md` for people."""

from __future__ import annotations

import os
import platform
from pathlib import Path
from typing import Any, Final

import msgspec

from benchmarks.report import Missing, Report, cells, mark

_START: Final = "<!-- results: written by `make bench` -->"
_END: Final = "<!-- end of results -->"


def machine() -> dict[str, Any]:
    """Return what the figures depend on: no names, no paths."""
    memory = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    return {
        "cpu": _cpu(), "cores": len(os.sched_getaffinity(0)), "memory_gib": round(memory / 2**30, 1),
        "system": platform.system(), "machine": platform.machine(), "python": platform.python_version(),
    }  # fmt: skip


def _cpu() -> str:
    for line in Path("/proc/cpuinfo").read_text().splitlines():
        if line.startswith("model name"):
            return line.partition(":")[2].strip()
    return platform.processor() or "unknown"


def write_json(report: Report, path: Path, *, load: tuple[float, float], seconds: float) -> None:
    """Write every figure. load: the machine's load a core before and after, own work included after."""
    document = {
        "machine": machine(), "load_before": round(load[0], 2), "load_after": round(load[1], 2), "seconds": round(seconds),
        "figures": report.rows,
    }  # fmt: skip
    path.write_bytes(msgspec.json.format(msgspec.json.encode(document), indent=1) + b"\n")


def renew_table(report: Report, readme: Path, *, load: float) -> None:
    """Put the figures of this run into the page, between its two marks."""
    text = readme.read_text()
    before, start, rest = text.partition(_START)
    _, end, after = rest.partition(_END)
    if not start or not end:
        raise ValueError(f"{readme.name} lacks {_START!r} or {_END!r}: put both where the table belongs")
    facts = machine()
    said = (
        f"{facts['cores']} cores of {facts['cpu']}, {facts['memory_gib']} GiB, {facts['system']}, Python {facts['python']}, "
        f"load {load:.1f} a core when it began. Medians; ✓ as wanted, ✗ missed."
    )
    readme.write_text(f"{before}{start}\n{said}\n\n{_table(report)}\n{end}{after}")


def _table(report: Report) -> str:
    lines, bench = [], ""
    for row in report.rows:
        if row.bench != bench:
            bench = row.bench
            lines += [
                "",
                f"**{bench}**",
                "",
                "| | what | median | min … max | wanted | note |",
                "|---|---|---|---|---|---|",
            ]
        if isinstance(row, Missing):
            lines.append(f"| – | {_cell(row.name)} | not measured | | | {_cell(row.missing)} |")
            continue
        what, median, spread, _, wanted, note = map(_cell, cells(row))
        lines.append(f"| {mark(row)} | {what} | {median} | {spread} | {wanted} | {note} |")
    return "\n".join(lines).lstrip("\n") + "\n"


def _cell(text: str) -> str:
    return text.replace("|", "\\|").replace("\n", " ")
