"""Canaries as they could have been: minutes of traffic over two arms, drawn from a seed, for whatever rule judges them."""

from __future__ import annotations

import math
import statistics
from collections.abc import Callable, Sequence
from typing import Final, NamedTuple

import msgspec
import numpy as np

from taut.lifecycle.release.guardrails import Stage, label_log_e, latency_log_e

PER_MINUTE: Final = 1_000
MINUTES: Final = 240
QUANTILES: Final = (0.5, 0.1, 0.05, 0.01)  # of answers beyond the reference times


class Minute(NamedTuple):
    """Requests and failures of each arm in one minute, and the canary's weight."""

    weight: float
    canary: int
    baseline: int
    bad_canary: int
    bad_baseline: int


class World(msgspec.Struct, frozen=True, kw_only=True):
    """What a canary is like.

    times: its error rate to the baseline's, from minute `onset`. shock: by which both arms' rates are multiplied in minutes
    60 to 90. weights: each for an equal part of the time. noise: deviation (log) of a factor of the canary's own that stays
    for the run, as of a slower machine, over `replicas` of them. storms: mean size of the cluster in which failures come, all of one principal.
    """

    times: float = 1.0
    rate: float = 0.005
    onset: int = 0
    shock: float = 1.0
    weights: tuple[float, ...] = (0.1,)
    noise: float = 0.0
    replicas: int = 1
    storms: float = 1.0


def minutes_of(world: World, rng: np.random.Generator) -> list[Minute]:
    own = 1.0
    if world.noise:
        mean = math.exp(world.noise**2 / 2)  # that of the baseline's many machines
        own = float(np.exp(rng.normal(0.0, world.noise, world.replicas)).mean()) / mean
    found = []
    for minute in range(MINUTES):
        weight = world.weights[minute * len(world.weights) // MINUTES]
        rate = world.rate * (world.shock if 60 <= minute < 90 else 1.0)
        times = own * (world.times if minute >= world.onset else 1.0)
        canary = round(PER_MINUTE * weight)
        bad = [
            _failures(rng, count, min(1.0, p), world.storms)
            for count, p in ((canary, rate * times), (PER_MINUTE - canary, rate))
        ]
        found.append(Minute(weight, canary, PER_MINUTE - canary, bad[0], bad[1]))
    return found


def _failures(rng: np.random.Generator, count: int, rate: float, storm: float) -> int:
    if storm == 1.0:
        return int(rng.binomial(count, rate))
    principals = int(rng.binomial(count, rate / storm))
    return int(rng.geometric(1.0 / storm, principals).sum())


Rule = Callable[[Sequence[Minute]], int | None]
"""Returns how many minutes it took to roll back; None where it did not."""


def label_rule(*, alpha: float = 0.05, ratio: float = 1.0, restarts: int = 1) -> Rule:
    """The product's rule for errors, looked at each minute; with `restarts`, stages of equal length."""

    def judge(minutes: Sequence[Minute]) -> int | None:
        stages: list[Stage] = []
        long = len(minutes) // restarts
        for at, minute in enumerate(minutes, 1):
            if not stages or minute.weight != stages[-1].weight or (restarts > 1 and (at - 1) % long == 0):
                stages.append(Stage(minute.weight))
            if minute.bad_canary or minute.bad_baseline:
                stages[-1] = stages[-1].plus(minute.bad_canary, minute.bad_baseline)
                if label_log_e(stages, ratio=ratio, restarts=restarts) >= -math.log(alpha):
                    return at
        return None

    return judge


class Judged(NamedTuple):
    """share: of runs rolled back. median: canary requests until then, of those that were."""

    share: float
    median: float


def judged(world: World, rule: Rule, *, runs: int, seed: int = 5) -> Judged:
    found: list[int] = []
    for run in range(runs):
        minutes = minutes_of(world, np.random.default_rng([seed, run]))
        took = rule(minutes)
        if took is not None:
            found.append(sum(minute.canary for minute in minutes[:took]))
    return Judged(len(found) / runs, statistics.median(found) if found else math.nan)


def several_judged(count: int, *, runs: int, seed: int = 6) -> float:
    """Return the share of healthy runs that any of `count` guardrails rolls back, each at its part of 5%."""
    rule = label_rule(alpha=0.05 / count)
    hits = 0
    for run in range(runs):
        rng = np.random.default_rng([seed, run])
        hits += any(rule(minutes_of(World(), rng)) is not None for _ in range(count))
    return hits / runs


def latency_judged(slower: Sequence[float], *, runs: int, ratio: float = 1.0, seed: int = 7) -> Judged:
    """Judge answers beyond frozen reference times. slower: by how much likelier the canary's answers are beyond each."""
    found: list[int] = []
    for run in range(runs):
        rng = np.random.default_rng([seed, run])
        took = _latency_run(rng, slower, ratio)
        if took is not None:
            found.append(took * PER_MINUTE // 10)
    return Judged(len(found) / runs, statistics.median(found) if found else math.nan)


def _latency_run(rng: np.random.Generator, slower: Sequence[float], ratio: float) -> int | None:
    canary = round(PER_MINUTE * 0.1)
    stages = [Stage(0.1) for _ in QUANTILES]
    beyond = [min(1.0, one * by) for one, by in zip(QUANTILES, slower, strict=True)]
    for minute in range(1, MINUTES + 1):
        own, other = _beyond(rng, canary, beyond), _beyond(rng, PER_MINUTE - canary, QUANTILES)
        stages = [stage.plus(a, b) for stage, a, b in zip(stages, own, other, strict=True)]
        if latency_log_e([(stage,) for stage in stages], ratio=ratio) >= math.log(20):
            return minute
    return None


def _beyond(rng: np.random.Generator, count: int, shares: Sequence[float]) -> list[int]:
    """Return how many of `count` answers are beyond each time: who is beyond a later one is beyond those before."""
    found, before = [], 1.0
    for share in shares:
        count = int(rng.binomial(count, min(1.0, share / before)))
        found.append(count)
        before = share
    return found


def slower_by(times: float) -> list[float]:
    """Return what a canary that takes `times` as long does to answers beyond each reference time, of a lognormal with σ = 0.5."""
    normal = statistics.NormalDist()
    shift = math.log(times) / 0.5
    return [(1 - normal.cdf(normal.inv_cdf(1 - one) - shift)) / one for one in QUANTILES]


# what others do, on the same minutes


def z_rule(minutes: Sequence[Minute]) -> int | None:
    """A one-sided test of two proportions at 5% on all there is, looked at each minute."""
    a = b = bad_a = bad_b = 0
    for at, minute in enumerate(minutes, 1):
        a, b = a + minute.canary, b + minute.baseline
        bad_a, bad_b = bad_a + minute.bad_canary, bad_b + minute.bad_baseline
        pooled = (bad_a + bad_b) / (a + b)
        spread = math.sqrt(pooled * (1 - pooled) * (1 / a + 1 / b))
        if spread and (bad_a / a - bad_b / b) / spread > 1.645:
            return at
    return None


def flagger_rule(minutes: Sequence[Minute]) -> int | None:
    """Flagger's documented check: success of the last minute below 99%, five failed checks roll back."""
    failed = 0
    for at, minute in enumerate(minutes, 1):
        failed += minute.bad_canary / minute.canary > 0.01
        if failed >= 5:
            return at
    return None


def kayenta_rule(minutes: Sequence[Minute]) -> int | None:
    """Kayenta-like: at the end of each hour a Mann-Whitney test (98%, one-sided) of that hour's error rates by minute."""
    from scipy.stats import mannwhitneyu

    for end in range(60, len(minutes) + 1, 60):
        hour = minutes[end - 60 : end]
        canary = [minute.bad_canary / minute.canary for minute in hour]
        baseline = [minute.bad_baseline / minute.baseline for minute in hour]
        if mannwhitneyu(canary, baseline, alternative="greater", method="asymptotic").pvalue < 0.02:
            return end
    return None
