"""How far each month of the demo's flights is from those before: `python -m benchmarks.flights_drift PATH.svg` draws it."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any, Final

import numpy as np
import polars as pl

from taut.entrypoints.demo.data import find_files, read_flights
from taut.lifecycle.monitoring import EndpointWatch, Figures, Reference, Tolerance, freeze
from taut.lifecycle.monitoring.reference import Learned

LEARNED: Final = (1, 2, 3, 4, 5)
MONTHS: Final = (6, 7, 8, 9, 10, 11, 12)
COLUMNS: Final[dict[str, Any]] = {
    "carrier": ("word", "request"), "origin": ("word", "request"), "distance": ("number", "request"),
    "departs_minute": ("number", "request"), "temp": ("number", "sky"), "humid": ("number", "sky"),
    "pressure": ("number", "sky"), "wind_speed": ("number", "sky"),
}  # fmt: skip
_COLOURS: Final = ("#4269d0", "#efb118", "#ff725c", "#6cc5b0", "#3ca951", "#ff8ab7", "#a463f2", "#97bbf5")


def flights() -> pl.DataFrame:
    """Return the year's flights with the weather of their hour, in the order of time."""
    folder = find_files()
    weather = pl.read_csv(folder / "weather.csv", infer_schema_length=None, null_values=["NA"]).select(
        "origin", "temp", "humid", "pressure", "wind_speed",
        hour_at=pl.col("time_hour").str.to_datetime("%Y-%m-%dT%H:%M:%SZ", time_zone="UTC"),
    ).unique(["origin", "hour_at"])  # fmt: skip
    return (
        read_flights(folder).join(weather, on=["origin", "hour_at"], how="left").sort("hour_at", "flight_id")
    )


def reference(rows: pl.DataFrame) -> Reference:
    """Return what the first five months were like."""
    known = rows.filter(pl.col("month").is_in(LEARNED))
    known = known.gather_every(max(1, known.height // 40_000))
    return freeze(
        "delay@1", COLUMNS, {name: known[name].to_list() for name in COLUMNS}, _hours(known),
        known["hour_at"].dt.epoch("s").to_numpy() // 3600, learned=Learned(scores={}, wrong=np.empty(0)),
        newest_us=int(known["hour_at"].dt.epoch("us").max()),  # type: ignore[arg-type]
    )  # fmt: skip


def month(rows: pl.DataFrame, usual: Reference, number: int) -> Figures:
    """Return how far a month is, as a window of its own."""
    some = rows.filter(pl.col("month") == number)
    watch = EndpointWatch(usual, Tolerance(shift=0.15, window_s=31 * 86_400.0))
    codes = usual.encode({name: some[name].to_list() for name in COLUMNS}, some.height)
    watch.observe(codes, some["hour_at"].dt.epoch("s").to_numpy().astype(float), _hours(some))
    return watch.figures()


def _hours(rows: pl.DataFrame) -> Any:
    return ((rows["hour_at"].dt.weekday().cast(pl.Int64) - 1) * 24 + rows["hour_at"].dt.hour()).to_numpy()


def drawing(figures: dict[int, Figures], tolerated: float) -> str:
    """Return a plot as SVG: a line for each column, its lower bound as a whisker, and what is tolerated."""
    width, height, left, top, right = 760, 360, 56, 20, 150
    months = sorted(figures)

    def x(number: int) -> float:
        return left + (number - months[0]) * (width - left - right) / (months[-1] - months[0])

    def y(value: float) -> float:
        return top + (1 - value / 0.8) * (height - top - 40)

    lines = [
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {width} {height}" font-family="sans-serif" font-size="12">',
        f'<rect width="{width}" height="{height}" fill="white"/>',
    ]
    for tick in (0, 20, 40, 60, 80):
        at = y(tick / 100)
        lines.append(f'<line x1="{left}" x2="{width - right}" y1="{at:.1f}" y2="{at:.1f}" stroke="#ddd"/>')
        lines.append(f'<text x="{left - 8}" y="{at + 4:.1f}" text-anchor="end" fill="#444">{tick}%</text>')
    for number in months:
        lines.append(
            f'<text x="{x(number):.1f}" y="{height - 16}" text-anchor="middle" fill="#444">2013-{number:02}</text>'
        )
    at = y(tolerated)
    lines.append(
        f'<line x1="{left}" x2="{width - right}" y1="{at:.1f}" y2="{at:.1f}" stroke="#222" stroke-dasharray="6 4"/>'
    )
    lines.append(f'<text x="{width - right + 8}" y="{at + 4:.1f}" fill="#222">tolerated</text>')
    last: list[tuple[float, str, str]] = []
    for colour, name in zip(_COLOURS, COLUMNS, strict=True):
        shifts = [
            next(one.shift for one in figures[number].columns if one.column == name) for number in months
        ]
        points = [
            (x(number), y(shift.value), y(shift.lower))
            for number, shift in zip(months, shifts, strict=True)
            if shift
        ]
        path = " ".join(f"{px:.1f},{py:.1f}" for px, py, _ in points)
        lines.append(f'<polyline points="{path}" fill="none" stroke="{colour}" stroke-width="2"/>')
        for px, py, low in points:
            lines.append(f'<circle cx="{px:.1f}" cy="{py:.1f}" r="3" fill="{colour}"/>')
            lines.append(
                f'<line x1="{px:.1f}" x2="{px:.1f}" y1="{py:.1f}" y2="{low:.1f}" stroke="{colour}" stroke-opacity="0.4"/>'
            )
        last.append((points[-1][1], name, colour))
    floor = 0.0
    for at, name, colour in sorted(last):
        floor = max(at, floor + 14)
        lines.append(f'<text x="{width - right + 8}" y="{floor + 4:.1f}" fill="{colour}">{name}</text>')
    return "\n".join([*lines, "</svg>", ""])


def main(path: str) -> None:
    rows = flights()
    usual = reference(rows)
    figures = {number: month(rows, usual, number) for number in MONTHS}
    Path(path).write_text(drawing(figures, 0.15))
    for number, one in figures.items():
        shown = "  ".join(
            f"{column.column} {column.shift.value:.0%}/{column.shift.lower:.0%}{'!' if column.state == 'drifted' else ''}"
            for column in one.columns
            if column.shift
        )
        print(f"2013-{number:02}  {one.window_rows:6,}  moved at {one.moved_row}  {shown}")


if __name__ == "__main__":
    main(sys.argv[1])
