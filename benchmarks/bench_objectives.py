"""Burn-rate alerts through the product's own code: how often nobody should have been paged, how soon harm pages, what a look costs."""

from __future__ import annotations

import statistics
import time
import timeit
from collections.abc import Callable
from typing import Final

from benchmarks.burning import BEGIN_S, DAY_MIN, PROMISE, Traffic, alerts, delay, looks, pages, ungated
from benchmarks.report import Report
from taut.lifecycle.objectives import Standing, Tally, judge

WEEKS: Final = 4
RUNS: Final = 20
OBJECTIVES: Final = 300


def run(report: Report) -> None:
    for said, per_min in (
        ("1 an hour", 1 / 60),
        ("10 an hour", 1 / 6),
        ("1 a minute", 1.0),
        ("10 a minute", 10.0),
    ):
        met = Traffic(per_min)
        _false(report, f"99.9% just met, requests {said}: pages a week", met, pages, "≤ 0.05")
        _false(report, f"the same by the workbook's rules alone, requests {said}", met, ungated, "")
    edge = Traffic(60.0, rate=0.0143, history=DAY_MIN)
    _false(report, "a steady burn of 14.3, 60 a minute: pages a week by the fast rule", edge, _fast, "")
    for said, share in (("all fail", 0.9999), ("5% fail", 0.05), ("2% fail", 0.02)):
        for per_min in (1.0, 10.0, 600.0):
            sick = Traffic(per_min, then=share)
            _found(report, f"{said}, {per_min:g} a minute: minutes until a page", sick, pages)
            _found(
                report, f"the same by the workbook's rules alone, {said}, {per_min:g} a minute", sick, ungated
            )
    _cost(report)


def _fast(standing: Standing) -> bool:
    return standing.burns[0].firing


def _false(
    report: Report, name: str, traffic: Traffic, fires: Callable[[Standing], bool], wanted: str
) -> None:
    weeks = [alerts(traffic, 7 * DAY_MIN, seed=seed, fires=fires, every=5) for seed in range(WEEKS)]
    report.figure(name, [statistics.fmean(weeks)], "", wanted=wanted, note=f"{WEEKS} weeks")


def _found(report: Report, name: str, traffic: Traffic, fires: Callable[[Standing], bool]) -> None:
    found = [delay(traffic, 12 * 60, seed=seed, fires=fires) for seed in range(RUNS)]
    there = [one for one in found if one is not None]
    if there:
        report.figure(name, there, "min", note=f"found in {len(there) / RUNS:.0%} of runs within 12 hours")


def _cost(report: Report) -> None:
    """Judge as many objectives as 100 endpoints have, each with 28 days behind it."""
    tally = Tally(28 * 86_400.0)
    for minute in range(28 * DAY_MIN):
        tally.add(minute % 700 == 0, 60, until_s=BEGIN_S - minute * 60.0)
    tally.kept(BEGIN_S)

    def look() -> None:
        for _ in range(OBJECTIVES):
            judge(PROMISE, tally, BEGIN_S)

    took = timeit.repeat(look, number=1, repeat=7, timer=time.process_time)
    report.figure(
        f"{OBJECTIVES} objectives, a look each 5 s",
        [one / 5 * 100 for one in took],
        "% of a core",
        wanted="≤ 3",
    )
    assert next(iter(looks(Traffic(60.0), 1, seed=0)))[1].budget.events > 0
