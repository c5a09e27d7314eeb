"""Shadows as they could have been: pairs drawn from a seed, judged each minute by the product's own functions."""

from __future__ import annotations

import statistics
from collections import Counter
from typing import Any, Final, NamedTuple

import msgspec
import numpy as np

from taut.lifecycle.release.canary.counts import BINS, reference_of
from taut.lifecycle.release.shadow import PairCounts, ShadowPlan, judge_pairs
from taut.serving.meters import TIME_NS

MINUTES: Final = 60
PAIRS: Final = 200  # a minute
PLAN: Final = ShadowPlan()


class Pair(msgspec.Struct, frozen=True, kw_only=True):
    """What a shadow is like. fails: its error rate to the live version's, of 0.5%. slower: how many times longer its model takes. differ:
    how often it decides otherwise. shift: by which its probabilities are higher, beside noise of 0.05 of their own.
    """

    fails: float = 1.0
    slower: float = 1.0
    differ: float = 0.02
    shift: float = 0.0


class Held(NamedTuple):
    """share: of the runs. median: pairs until then. by: by which guardrail, most often."""

    share: float
    median: float
    by: str


def held(pair: Pair, *, runs: int, seed: int = 5) -> Held:
    """Return how often a shadow is held within an hour, and after how many pairs."""
    rng = np.random.default_rng(seed)
    found = [one for one in (_run(pair, rng) for _ in range(runs)) if one is not None]
    by = Counter(name for name, _ in found).most_common(1)
    return Held(
        len(found) / runs,
        statistics.median(pairs for _, pairs in found) if found else 0.0,
        by[0][0] if by else "",
    )


def _run(pair: Pair, rng: np.random.Generator) -> tuple[str, int] | None:
    """Return by which guardrail a shadow is held, and after how many pairs; None where it is not within an hour."""
    scores = np.zeros((BINS, BINS), dtype=int)
    times = np.zeros((len(TIME_NS) + 1, len(TIME_NS) + 1), dtype=int)
    failed, differ = [0, 0], 0
    reference: tuple[int, ...] = ()
    since = PairCounts()
    for minute in range(1, MINUTES + 1):
        failed[0] += int(rng.binomial(PAIRS, 0.005 * pair.fails))
        failed[1] += int(rng.binomial(PAIRS, 0.005))
        differ += int(rng.binomial(PAIRS, pair.differ))
        live = rng.beta(2, 5, PAIRS)
        shadow = np.clip(live + rng.normal(pair.shift, 0.05, PAIRS), 0.0, 1.0)
        np.add.at(scores, (_tenth(live), _tenth(shadow)), 1)
        asked = rng.lognormal(13.0, 0.3, PAIRS // 2)
        own = [asked * rng.lognormal(0.0, 0.2, PAIRS // 2) * by for by in (1.0, pair.slower)]
        np.add.at(times, (np.searchsorted(TIME_NS, own[0]), np.searchsorted(TIME_NS, own[1])), 1)
        counts = PairCounts(
            minute * PAIRS,
            0,
            differ,
            (failed[0], failed[1]),
            _crossed(scores),
            _crossed(times),
            _whole(times.sum(axis=1)),
        )
        if not reference:
            reference = reference_of(counts.times)
            since = counts if reference else since
        for one in judge_pairs(PLAN, counts, since, reference):
            if one.decision != "admit":
                return one.guardrail, minute * PAIRS
    return None


def _tenth(probabilities: Any) -> Any:
    return np.minimum((probabilities * 10).astype(int), 9)


def _crossed(joint: Any) -> tuple[tuple[int, ...], tuple[int, ...]]:
    """Return at each edge how many pairs lie across it: the shadow beyond, and the live version beyond. joint: counts by live and shadow bucket."""
    both = np.diagonal(joint.cumsum(axis=0).cumsum(axis=1))
    up, down = joint.sum(axis=1).cumsum() - both, joint.sum(axis=0).cumsum() - both
    return _whole(up[:-1]), _whole(down[:-1])


def _whole(counts: Any) -> tuple[int, ...]:
    return tuple(int(one) for one in counts)
