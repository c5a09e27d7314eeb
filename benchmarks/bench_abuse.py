"""What the signals of abuse find and whom they accuse wrongly, on the demo's model; what a stolen copy is worth, rounded or not.

Callers are simulated against the demo's real model, with the features of one moment, and asked about November's flights, of which
neither model nor baseline saw any; their queries go through the same watch as those of the prediction log.
"""

from __future__ import annotations

import statistics
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any, Final

import msgspec
import numpy as np
import polars as pl

from benchmarks import abusers
from benchmarks.abusers import Oracle, Play, Row, World
from benchmarks.demo_run import demo_run
from taut.trust.abuse import AbuseWatch, Baseline, Caller, Queries

if TYPE_CHECKING:
    from benchmarks.report import Report

MONTH: Final = 11
SEEDS: Final = 10
QUERIES: Final = 3000
TABLE_QUERIES: Final = 20_000
GANG: Final = 20
STOLEN: Final = (100, 1000, 10_000)
ROUNDED: Final = (("whole", 9), ("rounded to 2 digits", 2), ("to 1", 1), ("to none", 0))
CLIMBS, CLIMB_QUERIES = 40, 60
AT: Final = "endpoint:delay"
BEYOND_REACH: Final = frozenset({"extraction, real rows", "uniform, one in thirty"})
"""Attackers who ask as honest callers do, or who hide among them: reported, and wanted of nobody."""
AS_ATTACKS: Final = frozenset({"an analyst's what-if curves"})
"""Honest callers who do what attackers do: found, and a person's to dismiss."""


class Stage(msgspec.Struct, frozen=True, kw_only=True):
    """The demo's model and what it is asked."""

    baseline: Baseline
    world: World
    oracle: Oracle
    baseline_s: float
    planes: tuple[Baseline, list[str]]


def run(report: Report) -> None:
    with _stage() as stage:
        report.figure(
            "baseline made from training data",
            [stage.baseline_s],
            "s",
            note=f"blind: {_blind(stage.baseline)}",
        )
        _honest(report, stage)
        _attacks(report, stage)
        _crowds(report, stage)
        _scraping(report, stage)
        _cost(report, stage)
        _stolen(report, stage)
        _climbed(report, stage)


def _honest(report: Report, stage: Stage) -> None:
    wrongly, asked = 0, 0
    for name, play in abusers.HONEST.items():
        found = [_play(stage, play, seed) for seed in range(SEEDS)]
        accused = sum(one is not None for one in found)
        report.figure(
            f"honest, {name}: accused", [accused / SEEDS * 100], "%", wanted="" if name in AS_ATTACKS else "≤ 0",
            note="does what an attacker does: dismissed by a person" if name in AS_ATTACKS else "",
        )  # fmt: skip
        if name not in AS_ATTACKS:
            wrongly, asked = wrongly + accused, asked + SEEDS * QUERIES
    report.figure(
        "false alarms a million honest queries",
        [wrongly / asked * 1e6],
        "",
        wanted="≤ 1",
        note=f"of {asked:,}",
    )


def _attacks(report: Report, stage: Stage) -> None:
    for name, play in abusers.ATTACKS.items():
        found = [_play(stage, play, seed) for seed in range(SEEDS)]
        seen = [one for one in found if one is not None]
        after = f"after {statistics.median(seen):,.0f} queries (median)" if seen else "slips through"
        report.figure(
            f"{name}: found", [len(seen) / SEEDS * 100], "%", wanted="" if name in BEYOND_REACH else "≥ 90", note=after
        )  # fmt: skip


def _crowds(report: Report, stage: Stage) -> None:
    """One attack under many keys: each asks little; only their group asks much."""
    for grouped in (True, False):
        found: list[float] = []
        for seed in range(SEEDS):
            watch = _watch(stage)
            choose = np.random.default_rng(seed)
            asked = 0
            for rows in abusers.random_queries(stage.world, stage.oracle, choose):
                queries = _answered(stage, rows)
                watch.observe(AT, Caller(f"key-{asked // 10 % GANG}"), queries)
                if grouped:
                    watch.observe(AT, Caller("gang", is_group=True), queries)
                asked += len(rows)
                if watch.sightings():
                    found.append(asked)
                    break
                if asked >= QUERIES:
                    break
        name = f"uniform, by {GANG} keys {'of one enroller' if grouped else 'of nobody in common'}: found"
        note = f"after {statistics.median(found):,.0f} queries of all (median)" if found else "slips through"
        report.figure(name, [len(found) / SEEDS * 100], "%", wanted="≥ 90" if grouped else "", note=note)


def _scraping(report: Report, stage: Stage) -> None:
    """Who asks about every plane in turn, beside who asks about those that fly: keys only, of the planes of November."""
    baseline, tails = stage.planes
    every = sorted(set(tails))
    for name, wanted in (("as they fly", "≤ 0"), ("in order", "≥ 90"), ("at random", "≥ 90")):
        found = []
        for seed in range(SEEDS):
            choose = np.random.default_rng(seed)
            start = int(choose.integers(len(tails) - QUERIES))
            asked = {
                "as they fly": tails[start : start + QUERIES], "in order": every,
                "at random": [every[at] for at in choose.permutation(len(every))],
            }[name][:QUERIES]  # fmt: skip
            watch = AbuseWatch()
            watch.adopt(AT, baseline)
            for at in range(0, len(asked), 10):
                rows: list[Row] = [(tail, 1) for tail in asked[at : at + 10]]
                watch.observe(AT, Caller("him"), Queries(list(rows), [], [], [0] * len(rows)))
                if "abuse.scraping" in watch.suspected(AT, Caller("him")):
                    found.append(at + 10)
                    break
        note = f"after {statistics.median(found):,.0f} queries (median)" if found else ""
        report.figure(
            f"planes asked about {name}: found", [len(found) / SEEDS * 100], "%", wanted=wanted, note=note
        )


def _cost(report: Report, stage: Stage) -> None:
    choose = np.random.default_rng(0)
    watch = _watch(stage)
    each = []
    for _ in range(7):
        queries = _answered(stage, [stage.world.any(choose) for _ in range(2000)])
        start = time.process_time()
        watch.observe(AT, Caller("him"), queries)
        each.append((time.process_time() - start) / 2000 * 1e6)
    report.figure("a query looked at, in control", each, "µs", note="CPU; nothing on a request's path")


def _stolen(report: Report, stage: Stage) -> None:
    """Train copies on answers as they are and rounded, and compare them with the model on November's flights."""
    from sklearn.ensemble import HistGradientBoostingRegressor
    from threadpoolctl import threadpool_limits

    judged = stage.world.real[-10_000:]
    asked_of = abusers.numbers(stage.world, judged)
    truth = np.array(stage.oracle(judged))
    always = float(max((truth >= 0.5).mean(), (truth < 0.5).mean()) * 100)
    report.figure("no copy: labels agree with the commoner one in", [always], "%")
    for attack, play in (("uniform", abusers.random_queries), ("real rows", abusers.real_rows)):
        takes = [_take(stage, play, seed) for seed in range(3)]  # a smaller copy has the first of them
        for name, digits in ROUNDED:
            for size in STOLEN:
                correlated, agreed = [], []
                for inputs, answers in takes:
                    copy = HistGradientBoostingRegressor(max_iter=100, random_state=0)
                    with threadpool_limits(
                        1
                    ):  # several wait for one another longer than they work, on a busy machine
                        copy.fit(inputs[:size], np.round(answers[:size], digits))
                        guess = copy.predict(asked_of)
                    correlated.append(float(1 - ((guess - truth) ** 2).mean() / truth.var()))
                    agreed.append(float(((guess >= 0.5) == (truth >= 0.5)).mean() * 100))
                report.figure(
                    f"copy from {size:,} {attack}, scores {name}: R² of its scores", correlated, "",
                    note=f"labels agree in {statistics.median(agreed):.1f}%",
                )  # fmt: skip


def _take(stage: Stage, play: Play, seed: int) -> tuple[Any, Any]:
    """Return what a thief gets of the largest number of queries: inputs as numbers, and the answers as they are."""
    rows: list[Row] = []
    for some in play(stage.world, stage.oracle, np.random.default_rng(seed)):
        rows += some
        if len(rows) >= STOLEN[-1]:
            break
    return abusers.numbers(stage.world, rows), np.array(stage.oracle(rows))


def _climbed(report: Report, stage: Stage) -> None:
    """How high a climber gets in sixty trials from a row, by answers whole and rounded."""
    for name, digits in ROUNDED:
        reached = []
        for seed in range(CLIMBS):
            last: list[Row] = []

            def rounded(rows: list[Row], digits: int = digits) -> list[float]:
                return [round(p, digits) for p in stage.oracle(rows)]

            for rows in abusers.climber(stage.world, rounded, np.random.default_rng(seed)):
                last += rows
                if len(last) > CLIMB_QUERIES:
                    break
            said = rounded(last)
            reached.append(stage.oracle([last[int(np.argmax(said))]])[0])
        report.figure(f"a climb of {CLIMB_QUERIES} queries reaches, scores {name}", reached, "")


def _play(stage: Stage, play: Play, seed: int) -> int | None:
    """Return after how many queries a caller was found, None where he was not."""
    watch, asked, waiting = _watch(stage), 0, list[Row]()
    for rows in play(stage.world, stage.oracle, np.random.default_rng(seed)):
        waiting += rows
        if len(waiting) < 10:
            continue
        watch.observe(AT, Caller("him"), _answered(stage, waiting))
        asked += len(waiting)
        waiting = []
        if watch.suspected(AT, Caller("him")):
            return asked
        if asked >= QUERIES:
            return None
    return None


def _watch(stage: Stage) -> AbuseWatch:
    watch = AbuseWatch()
    watch.adopt(AT, stage.baseline)
    return watch


def _answered(stage: Stage, rows: list[Row]) -> Queries:
    scores = stage.oracle(rows)
    return Queries(list(rows), scores, [abs(2 * p - 1) for p in scores], [p >= 0.5 for p in scores])


def _blind(baseline: Baseline) -> str:
    return ", ".join(sorted(baseline.blind)) or "none"


@contextmanager
def _stage() -> Iterator[Stage]:
    from taut.bootstrap.platform import open_platform
    from taut.entrypoints.demo.data import find_files, read_flights
    from taut.serving.runtime import load
    from taut.workflows.abuse import baseline_of

    with open_platform(demo_run().home, environ={}) as platform:
        with platform.records.read() as tx:
            version = next(one.version for one in platform.releases.routes(tx) if one.endpoint == "delay")
        start = time.process_time()
        baseline = baseline_of(platform, version)
        took = time.process_time() - start
        loaded = platform.registry.load(version)
        held = platform.training.holdout(platform.registry.show(version).candidate.run)
    columns = baseline.space.columns
    flights = read_flights(find_files()).filter(pl.col("late").is_not_null())
    asked = flights.filter(pl.col("month") == MONTH)
    world = World(columns, [tuple(row) for row in asked.select(columns).drop_nulls().rows()])
    oracle = _oracle(load(loaded.model, loaded.signature), columns, held)
    yield Stage(
        baseline=baseline, world=world, oracle=oracle, baseline_s=took,
        planes=(_planes(flights), asked["tailnum"].drop_nulls().to_list()),
    )  # fmt: skip


def _planes(flights: pl.DataFrame) -> Baseline:
    """A baseline of keys alone: the planes that fly, of the months before."""

    def rows(month: int) -> list[Row]:
        tails = flights.filter(pl.col("month") == month)["tailnum"].drop_nulls()
        return [(tail, 1) for tail in tails.head(TABLE_QUERIES)]

    return Baseline(("tailnum", "one"), known=rows(MONTH - 2), held=rows(MONTH - 1), keys=("tailnum",))


def _oracle(model: Any, columns: tuple[str, ...], held: pl.DataFrame) -> Oracle:
    """Answer as the endpoint would, at one moment: with the last features of each origin."""
    features = [one.column.name for one in model.signature.inputs if one.feature_set is not None]
    full = held.drop_nulls(features)
    last = {
        one: full.filter(pl.col("origin") == one).tail(1).select(features).row(0)
        for one in full["origin"].unique()
    }
    unknown = tuple(None for _ in features)
    origin = columns.index("origin")
    known: dict[Row, float] = {}

    def ask(rows: list[Row]) -> list[float]:
        fresh = [row for row in dict.fromkeys(rows) if row not in known]
        if fresh:
            table: dict[str, list[Any]] = {
                name: [row[at] for row in fresh] for at, name in enumerate(columns)
            }
            for at, name in enumerate(features):
                table[name] = [last.get(row[origin], unknown)[at] for row in fresh]
            for row, said in zip(fresh, model.infer(table).probabilities, strict=True):
                known[row] = said[1]
        return [known[row] for row in rows]

    return ask
