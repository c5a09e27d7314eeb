"""Traffic that fails at planted rates, watched by the product's own tally and rules: `python -m benchmarks.burning FILE.svg` draws an outage."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Final, NamedTuple

import numpy as np

from taut.lifecycle.objectives import Objective, Standing, Tally, judge

PROMISE: Final = Objective(endpoint="delay", name="availability", target=0.999)
BEGIN_S: Final = 20_000 * 86_400.0
DAY_MIN: Final = 24 * 60


class Traffic(NamedTuple):
    """per_min: requests a minute. rate: share that fails, `then` from minute `onset` to `ends`. history: minutes before the first look."""

    per_min: float
    rate: float = 0.001
    then: float | None = None
    onset: int = 0
    ends: int = 1_000_000
    history: int = 3 * DAY_MIN


def looks(traffic: Traffic, minutes: int, *, seed: int, every: int = 1) -> Iterator[tuple[int, Standing]]:
    """Yield how the promise stands after each minute, or each `every` of them."""
    choose = np.random.default_rng(seed)
    tally = Tally(28 * 86_400.0)
    for minute in range(-traffic.history, minutes):
        late = traffic.then is not None and traffic.onset <= minute < traffic.ends
        total = int(choose.poisson(traffic.per_min))
        at_s = BEGIN_S + minute * 60.0
        if total:
            tally.add(
                int(choose.binomial(total, traffic.then if late and traffic.then else traffic.rate)),
                total,
                until_s=at_s,
            )
        if minute >= 0 and minute % every == 0:
            yield minute, judge(PROMISE, tally, at_s)
        if minute % 60 == 0:
            tally.kept(at_s)


def pages(standing: Standing) -> bool:
    """Whether somebody is paged."""
    return any(one.firing and one.severity == "critical" for one in standing.burns)


def ungated(standing: Standing) -> bool:
    """Whether somebody would be, by the workbook's rules alone."""
    return any(
        one.severity == "critical" and bool(one.bad) and one.rate >= one.limit and one.short_rate >= one.limit
        for one in standing.burns
    )


def alerts(
    traffic: Traffic, minutes: int, *, seed: int, fires: Callable[[Standing], bool], every: int = 1
) -> int:
    """Return how often an alert began."""
    began, before = 0, False
    for _, standing in looks(traffic, minutes, seed=seed, every=every):
        now = fires(standing)
        began += now and not before
        before = now
    return began


def delay(traffic: Traffic, minutes: int, *, seed: int, fires: Callable[[Standing], bool]) -> int | None:
    """Return after how many minutes since the onset the first alert came; None where none did in time."""
    for minute, standing in looks(traffic, minutes, seed=seed):
        if minute >= traffic.onset and fires(standing):
            return minute - traffic.onset + 1
    return None


_CALM: Final = 20
_SHOWN: Final = 90


def drawing() -> str:
    """Return an outage as SVG: burn rates of both fast windows, the budget, and when somebody is paged."""
    outage = [*looks(Traffic(600.0, then=0.05, onset=_CALM, ends=_CALM + 40), _SHOWN, seed=3)]
    width, height, left, top, right = 760, 320, 56, 20, 150

    def x(minute: float) -> float:
        return left + minute * (width - left - right) / _SHOWN

    def y(rate: float) -> float:
        return top + (1 - min(rate, 60.0) / 60) * (height - top - 40)

    lines = [
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {width} {height}" font-family="sans-serif" font-size="12">',
        f'<rect width="{width}" height="{height}" fill="white"/>',
    ]
    for tick in (0, 20, 40, 60):
        lines.append(
            f'<line x1="{left}" x2="{width - right}" y1="{y(tick):.1f}" y2="{y(tick):.1f}" stroke="#ddd"/>'
        )
        lines.append(
            f'<text x="{left - 8}" y="{y(tick) + 4:.1f}" text-anchor="end" fill="#444">{tick}x</text>'
        )
    fired = [minute for minute, standing in outage if pages(standing)]
    lines.append(
        f'<rect x="{x(fired[0]):.1f}" y="{top}" width="{x(fired[-1]) - x(fired[0]):.1f}" height="{height - top - 40}" fill="#ff725c" '
        'fill-opacity="0.15"/>'
    )
    lines.append(
        f'<text x="{x(fired[0]) + 4:.1f}" y="{top + 14}" fill="#c33">paged, minute {fired[0] - _CALM + 1}</text>'
    )
    for minute in range(_CALM % 10, _SHOWN + 1, 10):
        lines.append(
            f'<text x="{x(minute):.1f}" y="{height - 16}" text-anchor="middle" fill="#444">{minute - _CALM} min</text>'
        )
    lines.append(
        f'<line x1="{left}" x2="{width - right}" y1="{y(14.4):.1f}" y2="{y(14.4):.1f}" stroke="#222" stroke-dasharray="6 4"/>'
    )
    lines.append(f'<text x="{width - right + 8}" y="{y(14.4) + 4:.1f}" fill="#222">14.4x</text>')
    curves: tuple[tuple[str, str, Callable[[Standing], float]], ...] = (
        ("5 minutes", "#efb118", lambda one: one.burns[0].short_rate),
        ("1 hour", "#4269d0", lambda one: one.burns[0].rate),
        ("6 hours", "#6cc5b0", lambda one: one.burns[1].rate),
    )
    for at, (name, colour, of) in enumerate(curves):
        points = " ".join(f"{x(minute):.1f},{y(of(standing)):.1f}" for minute, standing in outage)
        lines.append(f'<polyline points="{points}" fill="none" stroke="{colour}" stroke-width="2"/>')
        lines.append(f'<text x="{width - right + 8}" y="{top + 14 + 18 * at}" fill="{colour}">{name}</text>')
    return "\n".join([*lines, "</svg>", ""])


if __name__ == "__main__":
    Path(sys.argv[1]).write_text(drawing())
