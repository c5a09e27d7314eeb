"""Experiments through the product's own code: how rarely equal versions are told apart, how soon others are, what a bandit loses while it learns."""

from __future__ import annotations

import statistics
import time
from collections.abc import Sequence
from typing import Final

from benchmarks.experimenting import (
    TICKS,
    Rates,
    ab_called,
    bandit,
    busy,
    plan_of,
    steady,
    switching,
    uniform,
)
from benchmarks.report import Report
from taut.lifecycle.release.experiment import ExperimentPlan

NULL_RUNS: Final = 1_000
RUNS: Final = 200
BANDITS: Final = 10
HOURS: Final = 3600.0


def run(report: Report) -> None:
    for rates, called in (((0.1,) * 2, "two"), ((0.1,) * 4, "four")):
        _false(
            report,
            f"A/B of {called} equal versions, 100 looks: any called better or worse",
            rates,
            runs=NULL_RUNS,
        )
    for times in (1.2, 1.5):
        _found(
            report,
            f"A/B of three versions, one {times} times as good: called better",
            (0.1, 0.1, 0.1 * times),
        )
    _regret(report, "a bandit of four versions over two days", plan_of(), steady, "≤ 35")
    _regret(report, "the same, outcomes up to two hours late", plan_of(), steady, "≤ 45", late=12)
    _regret(report, "the same, rates that rise and fall by half each day", plan_of(), busy, "≤ 40")
    _regret(report, "another is best from the middle on, nothing forgotten", plan_of(), switching, "")
    remembers = plan_of(memory_s=6 * HOURS)
    _regret(report, "the same, half forgotten in six hours", remembers, switching, "≤ 70")
    began = time.process_time()
    bandit(plan_of(), steady, seed=0)
    took = (time.process_time() - began) / TICKS
    report.figure(
        "a look at a bandit of four versions and its weights", [took * 1e3], "ms of CPU", wanted="≤ 20"
    )


def _false(report: Report, name: str, rates: Sequence[float], *, runs: int) -> None:
    called = [one for one in ab_called(rates, runs=runs) if one is not None]
    report.figure(name, [100 * len(called) / runs], "%", wanted="≤ 5")


def _found(report: Report, name: str, rates: Sequence[float]) -> None:
    best = f"delay@{len(rates)} better"
    called = [one for one in ab_called(rates, runs=RUNS, looks=200) if one is not None]
    right = [outcomes for outcomes, said in called if said == best]
    report.figure(name, [100 * len(right) / RUNS], "% of runs")
    if right:
        report.figure("… after so many outcomes, median", [statistics.median(right)], "outcomes")


def _regret(
    report: Report, name: str, plan: ExperimentPlan, rates: Rates, wanted: str, *, late: int = 0
) -> None:
    lost = [bandit(plan, rates, seed=seed, late=late).regret for seed in range(BANDITS)]
    report.figure(
        f"{name}: regret", [100 * one / uniform(rates) for one in lost], "% of equal parts'", wanted=wanted
    )
