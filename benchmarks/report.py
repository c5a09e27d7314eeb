"""Where a benchmark puts its figures: medians with their spread, ratios pair by pair, what is wanted, what is missing."""

from __future__ import annotations

import math
import operator
import re
import statistics
from collections.abc import Callable, Sequence
from typing import Final

import msgspec
from rich.console import Console
from rich.table import Table

_WANTED: Final = re.compile(r"(≥|≤|<|>) ?(\d{1,3}(?:,\d{3})+|\d+)(\.\d+)?")
_COMPARE: Final[dict[str, Callable[[float, float], bool]]] = {
    "≥": operator.ge, "≤": operator.le, "<": operator.lt, ">": operator.gt,
}  # fmt: skip


class Figure(msgspec.Struct, frozen=True, kw_only=True):
    """One line of the report. The median is what `wanted` is held against; `missed` is None where nothing is wanted."""

    bench: str
    name: str
    median: float
    min: float
    max: float
    n: int
    unit: str
    wanted: str = ""
    missed: bool | None = None
    note: str = ""


class Missing(msgspec.Struct, frozen=True, kw_only=True):
    """A figure that could not be measured here, and why."""

    bench: str
    name: str
    missing: str


class Report:
    """Collects figures and prints them.

    A figure is a list of repeated measurements; the median is reported with its minimum and maximum. A ratio takes
    two lists measured alternately in one run, so that a machine that speeds up or slows down does so for both.
    bench: the benchmark whose figures come next; set by whoever runs it. alone: whether benchmarks were asked for by
    name, so that one which takes long may take its time. on_row: hears of each line as soon as it is there.
    """

    def __init__(
        self, *, alone: bool = False, on_row: Callable[[Figure | Missing], None] = lambda _: None
    ) -> None:
        self.alone: Final = alone
        self._on_row: Final = on_row
        self.rows: list[Figure | Missing] = []
        self.bench = ""

    def figure(
        self, name: str, values: Sequence[float], unit: str, *, wanted: str = "", note: str = ""
    ) -> None:
        """Report repeated measurements. wanted: "≥ 1.5×", "≤ 8 µs", "< 2", with words after it or none."""
        if not values or not all(map(math.isfinite, values)):
            raise ValueError(f"{name}: nothing was measured, or no number: {values}")
        median = statistics.median(values)
        self._add(
            Figure(
                bench=self.bench, name=name, median=median, min=min(values), max=max(values), n=len(values), unit=unit,
                wanted=wanted, missed=not meets(median, wanted) if wanted else None, note=note,
            )
        )  # fmt: skip

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
        spread = f"ours {_digits(statistics.median(ours))} {unit}, theirs {_digits(statistics.median(theirs))} {unit}"
        self.figure(name, pairs, "×", wanted=wanted, note=f"{spread}{'; ' + note if note else ''}")

    def missing(self, name: str, why: str) -> None:
        self._add(Missing(bench=self.bench, name=name, missing=why))

    def _add(self, row: Figure | Missing) -> None:
        self.rows.append(row)
        self._on_row(row)

    def missed(self) -> list[Figure]:
        """Return the figures that are not what is wanted."""
        return [row for row in self.rows if isinstance(row, Figure) and row.missed]

    def not_measured(self) -> list[Missing]:
        return [row for row in self.rows if isinstance(row, Missing)]

    def show(self, console: Console) -> None:
        """Print the table, then what is missed and what could not be measured."""
        table = Table("", "what", "median", "min … max", "n", "wanted", "note", title="taut benchmarks")
        bench = ""
        for row in self.rows:
            if row.bench != bench:
                bench = row.bench
                table.add_section()
                table.add_row("", f"[bold]{bench}[/]")
            if isinstance(row, Missing):
                table.add_row("", row.name, "not measured", "", "", "", row.missing, style="dim")
            else:
                table.add_row(mark(row), *cells(row), style="red" if row.missed else "")
        console.print(table)
        for missed in self.missed():
            console.print(f"✗ missed: {missed.name}: {amount(missed)}, wanted {missed.wanted}", style="red")
        for absent in self.not_measured():
            console.print(f"– not measured: {absent.name}: {absent.missing}")
        wanted = [row for row in self.rows if isinstance(row, Figure) and row.wanted]
        console.print(
            f"{len(self.rows)} lines, {len(wanted)} with a wanted value, {len(self.missed())} of them missed"
        )


def meets(value: float, wanted: str) -> bool:
    """Return whether a value is as wanted. Raises ValueError for a `wanted` that says no comparison.

    >>> meets(1.62, "≥ 1.5×"), meets(9, "≤ 8 µs"), meets(60_000, "≥ 50,000"), meets(2, "< 2")
    (True, False, True, False)
    """
    found = _WANTED.match(wanted)
    if found is None:
        raise ValueError(f'wanted {wanted!r} is no comparison: write "≥ 1.5×" or "≤ 8 µs"')
    bound = float(found[2].replace(",", "") + (found[3] or ""))
    return _COMPARE[found[1]](value, bound)


def mark(row: Figure) -> str:
    return "" if row.missed is None else "✗" if row.missed else "✓"


def amount(row: Figure) -> str:
    return f"{_digits(row.median)} {row.unit}".strip()


def cells(row: Figure) -> tuple[str, str, str, str, str, str]:
    """Return a figure as words: what, median, spread, count, wanted, note."""
    spread = f"{_digits(row.min)} … {_digits(row.max)}" if row.n > 1 else ""
    return row.name, amount(row), spread, str(row.n), row.wanted, row.note


def _digits(value: float) -> str:
    """Return three digits or so, never in powers of ten.

    >>> _digits(123456.7), _digits(0.012345), _digits(12.345), _digits(7)
    ('123,457', '0.0123', '12.3', '7')
    """
    if abs(value) >= 1000:
        return f"{value:,.0f}"
    return f"{value:.3g}"


def line(row: Figure | Missing) -> str:
    """Return a row as one line of text, for whoever waits for the table."""
    if isinstance(row, Missing):
        return f"  – {row.name}: not measured: {row.missing}"
    _, amount_, spread, _, wanted, note = cells(row)
    said = f"{spread and f' ({spread})'}{wanted and f', wanted {wanted}'}"
    return f"  {mark(row) or '·'} {row.name}: {amount_}{said}{note and f'; {note}'}"
