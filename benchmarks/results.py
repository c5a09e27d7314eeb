"""Keeps figures: `results.json` for machines, and from it the table in `README.md` for people.

Each part (a `bench_*.py`) has its own date, load and machine, so that one which was measured alone replaces its own
figures and nobody else's.
"""

from __future__ import annotations

import os
import platform
from collections.abc import Iterable
from pathlib import Path
from typing import Any, Final

import msgspec

from benchmarks.report import Figure, Missing, Report, cells, mark

_START: Final = "<!-- results: written by `make bench` -->"
_END: Final = "<!-- end of results -->"
_COLUMNS: Final = ["| | what | median | min … max | wanted | note |", "|---|---|---|---|---|---|"]


class Run(msgspec.Struct, frozen=True, kw_only=True):
    """One run of `python -m benchmarks`. began: UTC, to the minute. load: the machine's a core when it began."""

    began: str
    load: float


class Part(msgspec.Struct, frozen=True, kw_only=True):
    """What one benchmark said. began, load: of the run that it was measured in. seconds: None where they were not kept. figures: as
    `Report` keeps them.
    """

    began: str
    load: float
    machine: dict[str, Any]
    seconds: float | None = None
    figures: list[dict[str, Any]]


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


def parts_of(report: Report, run: Run, *, seconds: dict[str, float]) -> dict[str, Part]:
    """Return what the benchmarks of `seconds` reported. seconds: how long each took."""
    return {
        name: Part(
            began=run.began, load=round(run.load, 2), seconds=round(took_s, 1), machine=machine(),
            figures=[msgspec.to_builtins(row) for row in report.rows if row.bench == name],
        )
        for name, took_s in seconds.items()
    }  # fmt: skip


def keep(path: Path, fresh: dict[str, Part], *, known: Iterable[str]) -> dict[str, Part]:
    """Put parts in the place of their former selves and return all. known: the benchmarks that there are; others go."""
    former: dict[str, Part] = {}
    if path.exists():
        former = msgspec.json.decode(path.read_bytes(), type=dict[str, Part])
    parts = {name: part for name, part in sorted({**former, **fresh}.items()) if name in set(known)}
    path.write_bytes(msgspec.json.format(msgspec.json.encode(parts), indent=1) + b"\n")
    return parts


def renew_table(parts: dict[str, Part], readme: Path) -> None:
    """Put the figures into the page, between its two marks."""
    text = readme.read_text()
    before, start, rest = text.partition(_START)
    _, end, after = rest.partition(_END)
    if not start or not end:
        raise ValueError(f"{readme.name} lacks {_START!r} or {_END!r}: put both where the table belongs")
    usual = max(parts.values(), key=lambda part: part.began).machine if parts else machine()
    lines = [f"{_said(usual)}. Medians; ✓ as wanted, ✗ missed.", ""]
    for name, part in parts.items():
        elsewhere = "" if part.machine == usual else f", {_said(part.machine)}"
        lines += [f"**{name}** ({part.began}, load {part.load:.1f} a core when its run began{elsewhere})", ""]
        lines += [*_COLUMNS, *map(_line, part.figures), ""]
    readme.write_text(f"{before}{start}\n" + "\n".join(lines) + f"\n{end}{after}")


def _said(facts: dict[str, Any]) -> str:
    return (
        f"{facts['cores']} cores of {facts['cpu']}, {facts['memory_gib']} GiB, {facts['system']}, "
        f"Python {facts['python']}"
    )


def _line(figure: dict[str, Any]) -> str:
    if "missing" in figure:
        row = msgspec.convert(figure, Missing)
        return f"| – | {_cell(row.name)} | not measured | | | {_cell(row.missing)} |"
    found = msgspec.convert(figure, Figure)
    what, median, spread, _, wanted, note = map(_cell, cells(found))
    return f"| {mark(found)} | {what} | {median} | {spread} | {wanted} | {note} |"


def _cell(text: str) -> str:
    return text.replace("|", "\\|").replace("\n", " ")
