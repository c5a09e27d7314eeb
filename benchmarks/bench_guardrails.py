"""The guardrails of releases through the product's own code: false rollbacks, how soon harm is found, and what a look costs."""

from __future__ import annotations

import time
import timeit
from typing import Final

from benchmarks.canaries import (
    Judged,
    World,
    flagger_rule,
    judged,
    kayenta_rule,
    label_rule,
    latency_judged,
    several_judged,
    slower_by,
    z_rule,
)
from benchmarks.means import conversions, costs, means_judged
from benchmarks.report import Report
from benchmarks.shadows import Pair, held
from taut.lifecycle.release.guardrails import Stage, label_log_e

NULL_RUNS: Final = 1_000
RUNS: Final = 300
HEALTHY: Final = World()
ENDPOINTS: Final = 100
RAILS: Final = 8


def run(report: Report) -> None:
    rule = label_rule()
    _false(report, "healthy canaries rolled back", judged(HEALTHY, rule, runs=NULL_RUNS), "≤ 5")
    _false(report, "with a sixfold shock that both arms share", judged(World(shock=6.0), rule, runs=NULL_RUNS), "≤ 5")  # fmt: skip
    _false(report, "with weights 1, 5, 25, 50%", judged(World(weights=(0.01, 0.05, 0.25, 0.5)), rule, runs=NULL_RUNS), "≤ 5")  # fmt: skip
    _false(report, "with storms of 10 failures of one principal, each counted", judged(World(storms=10.0), rule, runs=RUNS), "")  # fmt: skip
    _false(report, "with storms, a principal counted once", judged(World(rate=0.0005), rule, runs=RUNS), "≤ 5")  # fmt: skip
    _false(report, "with a machine of its own, noise 0.4, ratio 1", judged(World(noise=0.4), rule, runs=RUNS), "")  # fmt: skip
    _false(report, "the same, ratio 1.5", judged(World(noise=0.4), label_rule(ratio=1.5), runs=RUNS), "")
    four = World(noise=0.4, replicas=4)
    _false(report, "on four machines, ratio 1.2", judged(four, label_rule(ratio=1.2), runs=RUNS), "≤ 5")
    report.figure("eight guardrails at 5% together: healthy rolled back", [several_judged(8, runs=NULL_RUNS) * 100], "%", wanted="≤ 5")  # fmt: skip
    _found(report, "errors ×1.5", judged(World(times=1.5), rule, runs=RUNS), "≤ 8,000")
    _found(report, "errors ×2", judged(World(times=2.0), rule, runs=RUNS), "≤ 2,500")
    _found(report, "errors ×4", judged(World(times=4.0), rule, runs=RUNS), "≤ 500")
    _found(report, "half of all fail", judged(World(times=100.0), rule, runs=RUNS), "≤ 100")
    thirds = label_rule(alpha=0.05 / 3, ratio=1.2)
    _found(report, "errors ×2, three guardrails, ratio 1.2", judged(World(times=2.0), thirds, runs=RUNS), "≤ 5,800")  # fmt: skip
    late = World(times=2.0, onset=120)
    _found(report, "errors ×2 from minute 120 (12,000), one process", judged(late, rule, runs=RUNS), "")
    _found(report, "the same, begun anew with each of four stages", judged(late, label_rule(restarts=4), runs=RUNS), "≤ 16,000")  # fmt: skip
    _false(report, "healthy, begun anew with each of four stages", judged(HEALTHY, label_rule(restarts=4), runs=NULL_RUNS), "≤ 5")  # fmt: skip
    _latency(report)
    _shadows(report)
    _means(report)
    _others(report)
    _cost(report)


def _latency(report: Report) -> None:
    _false(report, "latency: healthy rolled back", latency_judged([1.0] * 4, runs=NULL_RUNS), "≤ 5")
    for times, wanted in ((1.1, "≤ 1,500"), (1.2, "≤ 450")):
        _found(report, f"latency ×{times}", latency_judged(slower_by(times), runs=RUNS), wanted)
    _found(report, "latency: three times as many in the tail", latency_judged([1.0, 1.0, 3.0, 3.0], runs=RUNS), "≤ 500")  # fmt: skip


def _shadows(report: Report) -> None:
    report.figure("a shadow as good as the live version: held", [held(Pair(), runs=RUNS).share * 100], "%", wanted="≤ 5")  # fmt: skip
    report.figure("a shadow that differs just as often as is borne: held", [held(Pair(differ=0.05), runs=RUNS).share * 100], "%", wanted="≤ 5")  # fmt: skip
    for name, pair in (
        ("errors ×2", Pair(fails=2.0)), ("errors ×4", Pair(fails=4.0)), ("time ×1.1", Pair(slower=1.1)), ("time ×1.2", Pair(slower=1.2)),
        ("8% of decisions differ", Pair(differ=0.08)), ("probabilities 0.05 higher", Pair(shift=0.05)),
    ):  # fmt: skip
        found = held(pair, runs=RUNS)
        note = f"held in {found.share:.0%} of runs, by {found.by}"
        report.figure(f"a shadow, {name}: pairs until held", [found.median], "", note=note)


def _means(report: Report) -> None:
    """Judge what answers bring and cost, at the very margin that is borne and beyond it."""
    for name, draw, margin, worse, wanted in (
        ("outcome", conversions, 0.95, 0.7, "≤ 4,000"), ("cost", costs, 1.1, 1.2, "≤ 2,000"),
    ):  # fmt: skip
        _false(
            report,
            f"{name}: as the live version, held",
            means_judged(name, draw, 1.0, end=False, runs=RUNS),
            "≤ 5",
        )
        _false(report, f"{name}: {margin} times the live one's, which is borne, held", means_judged(name, draw, margin, end=False, runs=RUNS), "≤ 5")  # fmt: skip
        _found(report, f"{name}: {worse} times the live one's, held", means_judged(name, draw, worse, end=False, runs=RUNS // 3), wanted)  # fmt: skip


def _others(report: Report) -> None:
    for name, rule in (("a z-test each minute", z_rule), ("Flagger's check, as documented", flagger_rule), ("Kayenta-like", kayenta_rule)):  # fmt: skip
        runs = NULL_RUNS if rule is not kayenta_rule else RUNS
        _false(report, f"{name}: healthy rolled back", judged(HEALTHY, rule, runs=runs), "")
        _found(report, f"{name}: errors ×1.5", judged(World(times=1.5), rule, runs=RUNS), "")
        _found(report, f"{name}: errors ×2", judged(World(times=2.0), rule, runs=RUNS), "")


def _cost(report: Report) -> None:
    """Judge 100 endpoints with eight guardrails each, in the middle of four stages, from what is stored."""
    stages = tuple(Stage(weight, 40, 400) for weight in (0.01, 0.05, 0.25, 0.5))

    def look() -> None:
        for _ in range(ENDPOINTS * RAILS):
            label_log_e(stages, ratio=1.2, restarts=4)

    took = timeit.repeat(look, number=1, repeat=7, timer=time.process_time)
    report.figure(f"{ENDPOINTS} endpoints × {RAILS} guardrails, a look each second", [one * 100 for one in took], "% of a core", wanted="≤ 5")  # fmt: skip


def _false(report: Report, name: str, found: Judged, wanted: str) -> None:
    report.figure(name, [found.share * 100], "%", wanted=wanted)


def _found(report: Report, name: str, found: Judged, wanted: str) -> None:
    note = f"found in {found.share:.0%} of runs"
    report.figure(f"{name}: canary requests until found", [found.median], "", wanted=wanted, note=note)
