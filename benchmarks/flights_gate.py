"""What the model gate says about a model of the demo's flights: `python -m benchmarks.flights_gate PATH.svg` draws its calibration and slices."""

from __future__ import annotations

import sys
import time
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import polars as pl
from sklearn.ensemble import HistGradientBoostingClassifier

from taut.core.probes import answers_to
from taut.core.schema import Column, DType, ModelInput, ModelSignature
from taut.entrypoints.demo.data import find_files, read_flights
from taut.lifecycle.registry.examination import Sight, examine, probes_for
from taut.lifecycle.registry.examination.calibration import reliability, sides
from taut.lifecycle.registry.examination.slices import table
from taut.project.gates import (
    attacked,
    calibrated,
    clean_labels,
    fairness,
    memorised,
    robust,
    simpler,
    slices,
)

Array = npt.NDArray[Any]
WORDS, NUMBERS = ["carrier", "origin", "dest"], ["distance", "departs_minute", "weekday"]
TRAINED, TESTED = (1, 2, 3, 4, 5), 6
RULES = (
    slices(["carrier", "origin"], metric="auc", drop=0.1, least=500), calibrated(maximum=0.05),
    fairness("origin", maximum=0.1), robust("auc", drop=0.02), attacked(maximum=0.05, step=0.1),
    simpler("auc", margin=0.01), clean_labels(maximum=0.2), memorised(maximum=0.6),
)  # fmt: skip
WIDTH, HEIGHT, SIDE, LEFT, TOP = 900, 380, 270, 60, 50
GREEN, RED, GREY = "#0b6e4f", "#c8553d", "#8a8a8a"


def signature() -> ModelSignature:
    columns = [Column(name, DType.STRING) for name in WORDS] + [Column(name, DType.INT) for name in NUMBERS]
    return ModelSignature(
        request=tuple(columns), inputs=tuple(ModelInput(column=column) for column in columns),
        output="probability", classes=(0, 1),
    )  # fmt: skip


def encoded(frame: pl.DataFrame, known: dict[str, list[str]]) -> Array:
    codes = [frame[name].cast(pl.Enum(known[name]), strict=False).to_physical() for name in WORDS]
    wide = [
        series.cast(pl.Float64).fill_null(float("nan")) for series in (*codes, *(frame[n] for n in NUMBERS))
    ]
    return np.stack([series.to_numpy() for series in wide], axis=1)


def examined() -> Sight:
    """Train on the first five months by the schedule alone, and look at the sixth."""
    flights = read_flights(find_files()).filter(pl.col("late").is_not_null())
    learned, rows = flights.filter(pl.col("month").is_in(TRAINED)), flights.filter(pl.col("month") == TESTED)
    known = {name: sorted(learned[name].unique().to_list()) for name in WORDS}
    model = HistGradientBoostingClassifier(max_iter=150, random_state=0)
    model.fit(encoded(learned, known), learned["late"].to_numpy())

    def ask(frame: pl.DataFrame) -> Array:
        return np.asarray(model.predict_proba(encoded(frame, known)))

    signed, sample = signature(), learned.gather_every(-(-learned.height // 20_000))
    probes = {
        probe.name: (probe, answers_to(probe, rows, signed, ask, seed=0))
        for rule in RULES
        for probe in probes_for(rule)
    }
    return Sight(signed, "late", rows, ask(rows), probes=probes, learned=(sample, ask(sample)))


def draw(sight: Sight) -> str:
    parts = [
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {HEIGHT}" font-family="sans-serif" font-size="12">',
        f'<rect width="{WIDTH}" height="{HEIGHT}" fill="#fff"/>',
        text(LEFT, 24, "Calibration: what was said and what came true, June", size=14),
        f'<line x1="{LEFT}" y1="{TOP + SIDE}" x2="{LEFT + SIDE}" y2="{TOP}" stroke="{GREY}" stroke-dasharray="4 4"/>',
        f'<rect x="{LEFT}" y="{TOP}" width="{SIDE}" height="{SIDE}" fill="none" stroke="#333"/>',
        text(LEFT, TOP + SIDE + 34, "probability that was said, 15 bins of equal numbers"),
    ]
    said, came_true = sides(sight)
    bins = reliability(said, came_true)
    top = max(max(one.high for one in bins), max(one.said for one in bins)) * 1.05
    for share in (0.0, top / 2, top):
        at = share / top * SIDE
        parts += [
            text(LEFT - 6, TOP + SIDE - at + 4, f"{share:.2f}", anchor="end"),
            text(LEFT + at, TOP + SIDE + 16, f"{share:.2f}", anchor="middle"),
        ]
    for one in bins:
        x, low, high, y = (
            LEFT + one.said / top * SIDE, *(TOP + SIDE - share / top * SIDE for share in (one.low, one.high, one.true)),
        )  # fmt: skip
        colour = GREEN if one.low <= one.said <= one.high else RED
        parts.append(
            f'<line x1="{x:.0f}" y1="{low:.0f}" x2="{x:.0f}" y2="{high:.0f}" stroke="{colour}" stroke-width="2"/>'
        )
        parts.append(f'<circle cx="{x:.0f}" cy="{y:.0f}" r="3.5" fill="{colour}"/>')
    return "\n".join([*parts, *bars(sight), "</svg>", ""])


def bars(sight: Sight) -> list[str]:
    """The AUC of each carrier with its interval, the smallest group last."""
    left, width = LEFT + SIDE + 150, 360
    found = sorted(table("auc", sight, "carrier"), key=lambda one: -one["rows"])
    parts = [text(left, 24, "Slices: AUC of each carrier with its interval (95%)", size=14)]
    step = SIDE / len(found)
    for share in (0.4, 0.5, 0.6, 0.7, 0.8):
        x = left + (share - 0.4) / 0.4 * width
        parts += [
            f'<line x1="{x:.0f}" y1="{TOP}" x2="{x:.0f}" y2="{TOP + SIDE}" stroke="#ddd"/>',
            text(x, TOP + SIDE + 16, f"{share:.1f}", anchor="middle"),
        ]
    for at, one in enumerate(found):
        y = TOP + (at + 0.5) * step
        low, high, middle = (
            left + (min(max(share, 0.4), 0.8) - 0.4) / 0.4 * width
            for share in (one["low"], one["high"], one["auc"])
        )
        colour = GREY if one["rows"] < 500 else GREEN
        parts += [
            text(left - 8, y + 4, f"{one['group'].removeprefix('carrier ')} ({one['rows']:,})", anchor="end"),
            f'<line x1="{low:.0f}" y1="{y:.0f}" x2="{high:.0f}" y2="{y:.0f}" stroke="{colour}" stroke-width="2"/>',
            f'<circle cx="{middle:.0f}" cy="{y:.0f}" r="3.5" fill="{colour}"/>',
        ]
    parts.append(text(left, TOP + SIDE + 34, "grey: fewer than 500 flights, named and not judged"))
    return parts


def text(x: float, y: float, said: str, *, anchor: str = "start", size: int = 12) -> str:
    return (
        f'<text x="{x:.0f}" y="{y:.0f}" font-size="{size}" text-anchor="{anchor}" fill="#333">{said}</text>'
    )


def main() -> None:
    sight = examined()
    for rule in RULES:
        began = time.process_time()
        (check,) = examine([rule], sight)
        print(f"{check.outcome:7} {time.process_time() - began:6.2f} s  {check.name}: {check.message}")
    if len(sys.argv) > 1:
        Path(sys.argv[1]).write_text(draw(sight))


if __name__ == "__main__":
    main()
