"""Where a benchmark puts its figures: medians with their spread, ratios pair by pair, and what is missing."""

from __future__ import annotations

import json
import platform
import statistics
from collections.abc import Sequence
from pathlib import Path

from rich.console import Console
from rich.table import Table


class Report:
    """Collects figures, prints one table and writes them as JSON.

    A figure is a list of repeated measurements; the median is reported with its minimum and maximum. A ratio takes
    two lists measured alternately in one run, so that a machine that speeds up or slows down does so for both.
    """

    def __init__(self) -> None:
        self.rows: list[dict[str, object]] = []

    def figure(
        self, name: str, values: Sequence[float], unit: str, *, wanted: str = "", note: str = ""
    ) -> None:
        self._add(name, values, unit, wanted, note)

    def ratio(
        self,
        name: str,
        ours: Sequence[float],
        theirs: Sequence[float],
        unit: str,
        *,
        wanted: str = "",
        note: str = "",
        more_is_better: bool = False,
    ) -> None:
        """Report how many times better `ours` is than `theirs`: above 1 means that taut wins."""
        if len(ours) != len(theirs) or not ours:
            raise ValueError(f"{name}: a ratio needs pairs, got {len(ours)} and {len(theirs)} measurements")
        pairs = [(a / b if more_is_better else b / a) for a, b in zip(ours, theirs, strict=True)]
        spread = f"ours {statistics.median(ours):.4g} {unit}, theirs {statistics.median(theirs):.4g} {unit}"
        self._add(name, pairs, "×", wanted, f"{spread}{'; ' + note if note else ''}")

    def missing(self, name: str, why: str) -> None:
        self.rows.append({"name": name, "missing": why})

    def _add(self, name: str, values: Sequence[float], unit: str, wanted: str, note: str) -> None:
        if not values:
            raise ValueError(f"{name}: nothing was measured")
        self.rows.append(
            {
                "name": name, "median": statistics.median(values), "min": min(values), "max": max(values),
                "n": len(values), "unit": unit, "wanted": wanted, "note": note,
            }
        )  # fmt: skip

    def show(self, console: Console) -> None:
        table = Table("what", "median", "min … max", "n", "wanted", "note", title="taut benchmarks")
        for row in self.rows:
            if "missing" in row:
                table.add_row(str(row["name"]), "not measured", "", "", "", str(row["missing"]), style="dim")
                continue
            table.add_row(
                str(row["name"]), f"{row['median']:.4g} {row['unit']}", f"{row['min']:.4g} … {row['max']:.4g}",
                str(row["n"]), str(row["wanted"]), str(row["note"]),
            )  # fmt: skip
        console.print(table)

    def write(self, path: Path, *, cores: int) -> None:
        machine = {"python": platform.python_version(), "machine": platform.machine(), "cores": cores}
        path.write_text(json.dumps({"machine": machine, "figures": self.rows}, indent=1) + "\n")
