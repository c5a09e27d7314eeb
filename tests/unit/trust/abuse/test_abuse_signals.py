"""Attackers are found and honest heavy callers are not, on a synthetic table whose columns depend on each other."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator

import numpy as np
import pytest

from taut.core.errors import InvalidInput
from taut.trust.abuse import SIGNALS, AbuseWatch, Baseline, Caller, Queries
from taut.trust.abuse.evidence import bets, fresh, step
from taut.trust.abuse.space import Row, Space

COLUMNS = ("shop", "good", "price", "age", "size", "customer")
AT = "endpoint:shop"
Choose = np.random.Generator


def honest(choose: Choose) -> Row:
    """A row whose good, price and size follow from the shop, of a customer whom a heavy tail makes common or rare."""
    shop = int(choose.integers(12))
    good = (shop * 3 + int(choose.integers(4))) % 36
    price = 10.0 * good + float(choose.normal(0, 4))
    customer = min(int(choose.zipf(1.4)), 3000)
    return (
        f"s{shop}",
        f"g{good}",
        price,
        int(choose.integers(18, 80)),
        price / 5 + float(choose.normal(0, 2)),
        customer,
    )


def anything(choose: Choose) -> Row:
    return (
        f"s{choose.integers(12)}", f"g{choose.integers(36)}", float(choose.uniform(0, 360)),
        int(choose.integers(18, 80)), float(choose.uniform(0, 72)), int(choose.integers(3000)),
    )  # fmt: skip


def score(row: Row) -> float:
    return 1 / (1 + math.exp(-(row[2] - 180) / 60 - (row[3] - 50) / 30))


@pytest.fixture(scope="module")
def baseline() -> Baseline:
    choose = np.random.default_rng(1)
    known, held = ([honest(choose) for _ in range(2000)] for _ in range(2))
    return Baseline(COLUMNS, known=known, held=held, keys=("customer",))


def kinds(baseline: Baseline, caller: Iterator[Row], *, queries: int = 700) -> frozenset[str]:
    """Return what is held against a caller after so many queries."""
    watch = AbuseWatch()
    watch.adopt(AT, baseline)
    for _ in range(queries // 50):
        rows = [next(caller) for _ in range(50)]
        watch.observe(AT, Caller("him"), answered(rows))
    return watch.suspected(AT, Caller("him"))


def answered(rows: list[Row]) -> Queries:
    scores = [score(row) for row in rows]
    return Queries(rows, scores, [abs(2 * p - 1) for p in scores], [p >= 0.5 for p in scores])


def forever(make: Callable[[Choose], Row], seed: int = 7) -> Iterator[Row]:
    choose = np.random.default_rng(seed)
    while True:
        yield make(choose)


def climbing(seed: int = 3) -> Iterator[Row]:
    choose = np.random.default_rng(seed)
    while True:
        best = honest(choose)
        yield best
        for _ in range(40):
            at = int(choose.integers(len(best)))
            tried = (*best[:at], anything(choose)[at], *best[at + 1 :])
            yield tried
            if score(tried) > score(best):
                best = tried


def jittering(seed: int = 3) -> Iterator[Row]:
    choose = np.random.default_rng(seed)
    while True:
        row = honest(choose)
        yield row
        for _ in range(9):
            yield (*row[:2], row[2] + float(choose.normal(0, 0.5)), *row[3:])


def sweeping() -> Iterator[Row]:
    choose = np.random.default_rng(3)
    while True:
        row = honest(choose)
        for price in range(0, 360, 12):
            yield (*row[:2], float(price), *row[3:])


def enumerating(*, in_order: bool) -> Iterator[Row]:
    choose = np.random.default_rng(3)
    ids = np.arange(3000) if in_order else choose.permutation(3000)
    for customer in ids.tolist():
        yield (*honest(choose)[:5], customer)


@pytest.mark.parametrize("seed", range(3))
def test_nothing_is_held_against_an_honest_heavy_caller(baseline: Baseline, seed: int) -> None:
    assert kinds(baseline, forever(honest, seed), queries=1500) == frozenset()


def test_nothing_is_held_against_callers_who_ask_of_one_shop_or_repeat_themselves(baseline: Baseline) -> None:
    rows = [row for row, _ in zip(forever(honest), range(9_000), strict=False) if row[0] == "s3"]
    again = (rows[at % 40] for at in range(10_000))
    assert kinds(baseline, iter(rows), queries=600) == frozenset()
    assert kinds(baseline, again) == frozenset()


@pytest.mark.parametrize(
    ("caller", "kind"),
    [
        (forever(anything), "abuse.extraction"),
        (sweeping(), "abuse.extraction"),
        (climbing(), "abuse.inversion"),
        (jittering(), "abuse.membership"),
        (enumerating(in_order=True), "abuse.scraping"),
        (enumerating(in_order=False), "abuse.scraping"),
        (forever(lambda choose: ("s99", *anything(choose)[1:2], 9000.0, 400, -50.0, 1)), "inputs.out_of_distribution"),
    ],
    ids=["random", "sweeps", "climbs", "jitter", "keys in order", "keys at random", "from elsewhere"],
)  # fmt: skip
def test_an_attacker_by_the_books_is_found(baseline: Baseline, caller: Iterator[Row], kind: str) -> None:
    assert kind in kinds(baseline, caller)


def test_an_attack_that_begins_after_months_of_honest_use_is_found_as_fast(baseline: Baseline) -> None:
    watch, caller = AbuseWatch(), forever(honest)
    watch.adopt(AT, baseline)
    for who in (caller, forever(anything)):
        assert watch.suspected(AT, Caller("him")) == frozenset()
        for _ in range(40 if who is caller else 4):
            watch.observe(AT, Caller("him"), answered([next(who) for _ in range(50)]))
    assert "abuse.extraction" in watch.suspected(AT, Caller("him"))


def test_a_blind_signal_is_none_that_bets(baseline: Baseline) -> None:
    assert {name for name, bound in baseline.bounds.items() if bound > 0.9} <= baseline.blind
    without = Baseline(
        COLUMNS[:5],
        known=[honest(np.random.default_rng(2))[:5]] * 300,
        held=[("s1", "g3", 30.0, 20, 6.0)] * 300,
    )
    assert {"tail", "order"} <= without.blind


def test_p_values_of_held_out_rows_are_conformal(baseline: Baseline) -> None:
    rows = [row for row, _ in zip(forever(honest, 99), range(2000), strict=False)]
    p = baseline.p_values(rows)
    for level in (0.05, 0.2, 0.5):
        assert (p <= level).mean() <= level + 0.04
    assert baseline.p_values([("s99", "g99", 9000.0, 400, -50.0, 1)])[0] <= 0.002


def test_the_same_queries_give_the_same_evidence_however_they_are_cut(baseline: Baseline) -> None:
    rows = [row for row, _ in zip(climbing(), range(300), strict=False)]
    found = []
    for size in (300, 100, 7):
        watch = AbuseWatch()
        watch.adopt(AT, baseline)
        for at in range(0, 300, size):
            watch.observe(AT, Caller("him"), answered(rows[at : at + size]))
        found.append(watch.evidence(AT, Caller("him")))
    assert found[1] == pytest.approx(found[0])
    assert found[2] == pytest.approx(found[0])
    assert set(found[0]) <= set(SIGNALS)


def test_memory_is_bounded_and_whoever_was_seen_longest_ago_is_forgotten(baseline: Baseline) -> None:
    watch = AbuseWatch(callers_max=3)
    watch.adopt(AT, baseline)
    some = answered([honest(np.random.default_rng(at)) for at in range(20)])
    for name in ("a", "b", "c", "a", "d"):
        watch.observe(AT, Caller(name), some)
    assert len(watch) == 3
    assert watch.evidence(AT, Caller("b")) == {}
    assert watch.evidence(AT, Caller("a")) != {}


def test_a_sighting_says_by_what_and_is_said_once_for_each_look(baseline: Baseline) -> None:
    watch = AbuseWatch()
    watch.adopt(AT, baseline)
    rows = [row for row, _ in zip(forever(anything), range(500), strict=False)]
    watch.observe(AT, Caller("gang", is_group=True), answered(rows))
    found = {one.kind: one for one in watch.sightings()}
    said = found["abuse.extraction"]
    assert (said.group, said.principal, said.resource) == ("gang", "", AT)
    assert said.evidence["signal"] == "combinations"
    assert said.evidence["queries"] == 500
    assert (said.severity, found["inputs.out_of_distribution"].severity) == ("critical", "info")
    assert 0 < watch.exposure(AT, Caller("gang", is_group=True)) <= 1
    assert watch.sightings() == ()


def test_evidence_raises_few_false_alarms_at_the_bound_and_finds_what_is_beyond_it() -> None:
    choose = np.random.default_rng(5)
    bound, alarm = 0.3, math.log(2000)

    def first(mean: float, observations: int) -> int | None:
        sums = fresh()
        for at in range(observations):
            z = float(choose.binomial(10, mean)) / 10
            if step(sums, z, bound, bets(bound), alarm) >= alarm:
                return at
        return None

    false = sum(first(bound, 200) is not None for _ in range(300))
    assert false / 300 <= 200 / 2000
    assert all((found := first(0.9, 200)) is not None and found < 30 for _ in range(20))


def test_too_few_rows_are_refused_and_words_that_are_all_different_are_keys() -> None:
    with pytest.raises(InvalidInput, match="too few"):
        Baseline(("a",), known=[(1,)] * 10, held=[(1,)] * 10)
    space = Space(("id", "n", "none"), [(f"id-{at}", at, None) for at in range(300)])
    assert space.positions == (1, 2)
    points = space.points([("id-1", 150, None), ("id-2", 1e9, 5), ("id-3", None, None)])
    assert points[0, 0] == pytest.approx(0.5, abs=0.01)
    assert 1.9 < points[1, 0] < 2.0
    assert points[2, 0] == -2.0


def test_what_is_remembered_does_not_grow_with_columns_or_words() -> None:
    choose = np.random.default_rng(4)
    rows: list[Row] = [tuple(f"w{choose.integers(150)}" for _ in range(80)) for _ in range(400)]
    wide = Baseline(tuple(f"c{at}" for at in range(80)), known=rows[:200], held=rows[200:])
    assert len(wide.space) == 64
    assert wide.marks <= 4096
    seen = np.zeros(wide.marks, np.bool_)
    wide.visit(seen, rows[:200])
    assert seen.all()


def test_bets_that_are_not_fair_are_found_out_by_the_test_of_false_alarms() -> None:
    """The guard above means something: with the stake of a bound that is too low by a third, it fails."""
    choose, false = np.random.default_rng(5), 0
    for _ in range(100):
        sums = fresh()
        for _ in range(200):
            z = float(choose.binomial(10, 0.3)) / 10
            if step(sums, z, 0.2, bets(0.2), math.log(2000)) >= math.log(2000):
                false += 1
                break
    assert false / 100 > 200 / 2000
