"""What is looked at in a caller's queries: each signal says of each query how far it is what an attacker would ask."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any, Final, NamedTuple

import numpy as np
import numpy.typing as npt

from taut.trust.abuse.climbing import Climb
from taut.trust.abuse.space import Floats, Row, Space

SIGNALS: Final[dict[str, str]] = {
    "distances": "abuse.extraction", "combinations": "abuse.extraction", "sweeps": "abuse.extraction",
    "boundary": "abuse.extraction", "rises": "abuse.inversion", "falls": "abuse.inversion",
    "probes": "abuse.membership", "flips": "abuse.adversarial", "tail": "abuse.scraping", "order": "abuse.scraping",
    "strangeness": "inputs.out_of_distribution",
}  # fmt: skip
"""Each signal and the kind of finding that it speaks for."""

SAID: Final[dict[str, str]] = {
    "distances": "in groups of fifty lie to one another as no honest ones do",
    "combinations": "combine values as training never did",
    "sweeps": "move through one column alone",
    "boundary": "of those near the decision boundary lie right at it",
    "rises": "after a worse answer go back to the highest score so far",
    "falls": "after a worse answer go back to the lowest score so far",
    "probes": "differ from another in next to nothing",
    "flips": "of those that differ in next to nothing turn the label",
    "tail": "ask about keys that are hardly ever asked about",
    "order": "ask about keys in their order",
    "strangeness": "are as strange as one in twenty held-out rows",
}
"""What a share of queries does, in words."""

BACK: Final = 32
CLOSE: Final = 0.05
_KEYS_BACK: Final = 8
_GROUP: Final = 50
_CHAIN: Final = 3
_SAME: Final = 1e-12
NOTHING: Final[Floats] = np.empty(0)


class Queries(NamedTuple):
    """Queries of one caller, in the order in which they came, and what was answered.

    rows: values by column, as the baseline's. scores: of a classifier the probability of the positive class (of the most
    likely one where there are more than two), of a regressor the value. gaps: by how much the most likely class leads the
    next one, in [0, 1]; NaN of a regressor. labels: what was answered; equal where it does not matter.
    """

    rows: list[Row]
    scores: list[float]
    gaps: list[float]
    labels: list[Any]


class Memory:
    """What is remembered of a caller between two looks: his last 32 queries, four climbs each way, his last keys."""

    def __init__(self, space: Space) -> None:
        self.points: Floats = np.empty((0, len(space)))
        self.labels: list[Any] = []
        self.nearest: list[float] = []
        self.rises: Final = Climb(space)
        self.falls: Final = Climb(space)
        self.keys: Final[dict[int, list[Any]]] = {}


class Near(NamedTuple):
    """How queries lie to those before each: z of three signals, how far the nearest of 32 is (NaN where there is none, and
    of a repetition), and whether it was asked before."""

    sweeps: Floats
    probes: Floats
    flips: Floats
    nearest: Floats
    again: npt.NDArray[np.bool_]


def near(space: Space, memory: Memory, points: Floats, labels: Sequence[Any]) -> Near:
    """Compare queries with the 32 before each, and remember the last ones.

    sweeps: each of the last four differs from the one before it in one column only, always the same. probes: differs from one of them a little in numbers, and in no
    word. flips: does so, and was answered by another label; 0 where it does not, NaN where no query was close.
    """
    before, count = len(memory.points), len(points)
    everything = np.concatenate([memory.points, points])
    said = [*memory.labels, *labels]
    codes: npt.NDArray[np.int64] = np.unique([str(label) for label in said], return_inverse=True)[1]
    probes, flips, again = (np.zeros(count, np.bool_) for _ in range(3))
    nearest = np.full(count, math.inf)
    for lag in range(1, min(BACK, before + count - 1) + 1):
        start = max(before, lag)
        now, then = everything[start:], everything[start - lag : before + count - lag]
        gap = space.apart(now, then)
        changed = gap > _SAME
        columns = changed.sum(axis=1)
        at = slice(start - before, count)
        again[at] |= columns == 0
        close = (columns > 0) & (gap <= CLOSE).all(axis=1)
        probes[at] |= close
        flips[at] |= close & (codes[start:] != codes[start - lag : before + count - lag])
        nearest[at] = np.minimum(nearest[at], np.where(columns > 0, gap.sum(axis=1), math.inf))
    memory.points, memory.labels = everything[-BACK:], said[-BACK:]
    return Near(
        again=again,
        sweeps=_sweeps(space, everything)[before:],
        probes=probes.astype(float),
        flips=np.where(probes, flips, math.nan),
        nearest=np.where(np.isfinite(nearest) & ~again, nearest, math.nan),
    )


def _sweeps(space: Space, points: Floats) -> Floats:
    changed = space.apart(points[1:], points[:-1]) > _SAME
    only = np.where(changed.sum(axis=1) == 1, changed.argmax(axis=1), -1)
    found = np.zeros(len(points))
    if len(space) > 1 and len(points) > _CHAIN:
        same = only[_CHAIN - 1 :] >= 0
        for back in range(1, _CHAIN):
            same &= only[_CHAIN - 1 :] == only[_CHAIN - 1 - back : len(only) - back]
        found[_CHAIN:] = same
    return found


def departures(memory: Memory, nearest: Floats, usual: Floats, limit: float) -> Floats:
    """Return for every 50 distances to the nearest query whether their distribution departs from the usual one.

    usual: sorted distances of honest queries. limit: the Kolmogorov distance that counts as departed.
    Source: after Juuti et al., PRADA, 2019, who test such distances for normality; those of tables are not normal for honest
    callers either, so they are compared with honest ones.
    """
    memory.nearest += [one for one in nearest.tolist() if not math.isnan(one)]
    found = []
    while len(memory.nearest) >= _GROUP:
        group, memory.nearest = memory.nearest[:_GROUP], memory.nearest[_GROUP:]
        found.append(float(kolmogorov(np.sort(group), usual) > limit))
    return np.array(found)


def kolmogorov(one: Floats, other: Floats) -> float:
    """Return the greatest difference of two distributions, both sorted."""
    if not len(one) or not len(other):
        return 0.0
    places = np.concatenate([one, other])
    mine = np.searchsorted(one, places, side="right") / len(one)
    theirs = np.searchsorted(other, places, side="right") / len(other)
    return float(np.abs(mine - theirs).max())


def orders(memory: Memory, column: int, values: Sequence[Any]) -> Floats:
    """Return for each key whether it lies beyond the 8 different ones before it, on either side; NaN for repetitions.

    Of keys in no order that happens in 2 of 9 cases, of a sweep that rises or falls always.
    """
    last = memory.keys.setdefault(column, [])
    found = []
    for value in values:
        if value is None or value in last:
            found.append(math.nan)
            continue
        try:
            outside = len(last) == _KEYS_BACK and (value > max(last) or value < min(last))
        except TypeError:  # numbers and words in one column have no order
            outside = False
        found.append(float(outside) if len(last) == _KEYS_BACK else math.nan)
        last.append(value)
        del last[:-_KEYS_BACK]
    return np.array(found)
