"""What honest queries look like, learned from the rows that a model was trained on and held out from."""

from __future__ import annotations

import itertools
import math
from collections.abc import Iterator, Sequence
from typing import Any, Final

import numpy as np
import numpy.typing as npt

from taut.core.errors import InvalidInput
from taut.trust.abuse.signals import SIGNALS, Memory, Queries, departures, kolmogorov, near, orders
from taut.trust.abuse.space import Floats, Row, Space

_BINS: Final = 8
_PAIR_COLUMNS: Final = 8
_NEIGHBOURS: Final = 512
_CALIBRATION: Final = 1000
_MARKS: Final = 4096
_AT_ONCE: Final = 2**20  # numbers in one table of distances
_STRANGE_P: Final = 0.05
_BAND: Final = (0.05, 0.15)
_HEAD_MASS: Final = 0.8
_FEW_KEYS: Final = 50
_ENOUGH: Final = 200
_SLICE_ROWS: Final = 2000
_SLICE_LEAST: Final = 100
_SLICES: Final = 40
_GROUP: Final = 50
_USUAL: Final = 1001
_HIGH: Final = 0.95
_MARGIN: Final = 1.25
_LEAST: Final[dict[str, float]] = {
    "distances": 0.15, "combinations": 0.1, "sweeps": 0.3, "boundary": 0.55, "rises": 0.4, "falls": 0.4,
    "probes": 0.25, "flips": 0.2, "tail": 0.4, "order": 0.35, "strangeness": 0.1,
}  # fmt: skip
_BLIND: Final = 0.9
_LARGE: Final = np.int64(2**31)


class Baseline:
    """What honest queries of an endpoint look like, and how often each signal speaks of them.

    columns: of a request. known: rows that the model learned from; held: rows that it did not, in the order of time. keys: columns that name entities.

    bounds: for each signal the share of queries that honest callers may have it speak of: the largest share among
    pseudo-callers, the held rows as a whole and those of each common word or range of a number, times 1.25, and at least what
    some exploring by hand brings. blind: signals that speak of nearly all honest queries here, or have nothing to look at; no
    attacker can be told by them. Not guaranteed: that honest callers ask as the training rows do; who asks otherwise is found,
    and is a person's to judge.
    """

    def __init__(
        self,
        columns: Sequence[str],
        *,
        known: Sequence[Row],
        held: Sequence[Row],
        keys: Sequence[str] = (),
        seed: int = 0,
    ) -> None:
        if len(known) < _ENOUGH or len(held) < _ENOUGH:
            raise InvalidInput(
                f"{len(known)} and {len(held)} rows are too few to say what is usual: give at least {_ENOUGH} of each"
            )
        choose = np.random.default_rng(seed)
        self.space: Final = Space(columns, known)
        self._choose: Final = choose
        points, held_points = self.space.points(known), self.space.points(held)
        self._pairs: Final = list(itertools.combinations(range(min(len(self.space), _PAIR_COLUMNS)), 2))
        self._cells: Final = [np.unique(codes) for codes in self._codes(points)]
        self._offsets: Final = np.cumsum([0, *(len(cells) for cells in self._cells)])
        self._stride: Final = max(1, -(-int(self._offsets[-1]) // _MARKS))
        self._reference: Final = points[choose.permutation(len(points))[:_NEIGHBOURS]]
        some = choose.permutation(len(held))[:_CALIBRATION]
        self._calibration: Final = np.sort(self._strange(held_points[some]))
        self._heads: Final = dict(self._find_heads(known, keys))
        self._usual = np.empty(0)
        self._departed = 1.0
        self.bounds: Final = self._calibrate(held, held_points)
        self.blind: Final = frozenset(name for name in SIGNALS if self.bounds.get(name, 1.0) > _BLIND)

    @property
    def marks(self) -> int:
        """Return by how many of training's combinations of two columns' values (numbers in eight ranges) exposure is told: at most
        4,096, spread evenly over them."""
        return -(-int(self._offsets[-1]) // self._stride)

    def look(self, memory: Memory, queries: Queries) -> dict[str, Floats]:
        """Return for each signal what it says of each query, in [0, 1]; without those of which it has nothing to say."""
        points = self.space.points(queries.rows)
        found = self._relations(memory, points, queries) | self._single(points)
        found["distances"] = departures(memory, found.pop("nearest"), self._usual, self._departed)
        return {name: z[~np.isnan(z)] for name, z in found.items()}

    def visit(self, seen: npt.NDArray[np.bool_], rows: Sequence[Row]) -> None:
        """Mark the combinations of training that rows have. seen: [marks]."""
        for at, codes in enumerate(self._codes(self.space.points(rows))):
            place, known = _among(self._cells[at], codes)
            cells = self._offsets[at] + place[known]
            seen[cells[cells % self._stride == 0] // self._stride] = True

    def p_values(self, rows: Sequence[Row]) -> Floats:
        """Return for each row the chance that an honest one is at least as strange: conformal, valid if honest rows are exchangeable
        with the held ones. Source: Vovk, Gammerman & Shafer, Algorithmic Learning in a Random World, 2005.
        """
        return self._p_values(self.space.points(rows))

    def _single(self, points: Floats) -> dict[str, Floats]:
        """Return what each query says by itself."""
        return {
            "combinations": self._new_combinations(points),
            "strangeness": (self._p_values(points) <= _STRANGE_P).astype(float),
        }

    def _relations(self, memory: Memory, points: Floats, queries: Queries) -> dict[str, Floats]:
        """Return what queries say by how they lie to those before them."""
        close = near(self.space, memory, points, queries.labels)
        found = {
            "sweeps": close.sweeps, "probes": close.probes, "flips": close.flips, "nearest": close.nearest,
        }  # fmt: skip
        if len(queries.gaps):
            gaps = np.where(close.again, math.nan, np.asarray(queries.gaps, dtype=float))
            found["boundary"] = np.where(gaps <= _BAND[1], gaps <= _BAND[0], math.nan)
        if len(queries.scores):
            scores = [float(score) for score in queries.scores]
            found["rises"] = memory.rises.follow(points, scores)
            found["falls"] = memory.falls.follow(points, [-score for score in scores])
        if self._heads:
            found |= self._keys(memory, queries.rows)
        return found

    def _keys(self, memory: Memory, rows: Sequence[Row]) -> dict[str, Floats]:
        tails, outside = [], []
        for at, head in self._heads.items():
            values = [row[at] for row in rows]
            tails.append([float(value not in head) for value in values])
            outside.append(orders(memory, at, values))
        return {"tail": np.max(tails, axis=0), "order": np.fmax.reduce(outside)}

    def _codes(self, points: Floats) -> Iterator[npt.NDArray[np.int64]]:
        bins = self.space.bins(points, _BINS) + 3
        for one, other in self._pairs:
            yield bins[:, one] * _LARGE + bins[:, other]

    def _new_combinations(self, points: Floats) -> Floats:
        new = np.zeros(len(points), np.bool_)
        for at, codes in enumerate(self._codes(points)):
            new |= ~_among(self._cells[at], codes)[1]
        return new.astype(float)

    def _strange(self, points: Floats) -> Floats:
        """Return how strange points are: how far the nearest of 512 training rows is, and by how much numbers lie out of range."""
        found = np.empty(len(points))
        rows = max(1, _AT_ONCE // (len(self._reference) * max(1, len(self.space))))
        for start in range(0, len(points), rows):
            some = points[start : start + rows]
            gaps = self.space.apart(some[:, None, :], self._reference[None, :, :]).sum(axis=2)
            found[start : start + rows] = gaps.min(axis=1)
        out = np.where(self.space.is_word, 0.0, np.maximum(0.0, np.abs(points - 0.5) - 0.5)).sum(axis=1)
        return np.asarray(found + 2 * out + self.space.unseen(points).sum(axis=1))

    def _p_values(self, points: Floats) -> Floats:
        at_least = len(self._calibration) - np.searchsorted(self._calibration, self._strange(points) - 1e-12)
        return np.asarray((at_least + 1) / (len(self._calibration) + 1))

    def _find_heads(self, known: Sequence[Row], keys: Sequence[str]) -> Iterator[tuple[int, frozenset[Any]]]:
        """Yield the keys that make most of what training saw, of each column in which there are many."""
        for at in (self.space.columns.index(key) for key in keys if key in self.space.columns):
            values: dict[Any, int] = {}
            for row in known:
                values[row[at]] = values.get(row[at], 0) + 1
            if len(values) < _FEW_KEYS:
                continue
            head, mass = set(), 0
            for value in sorted(values, key=lambda one: (-values[one], str(one))):
                if mass >= _HEAD_MASS * len(known):
                    break
                head.add(value)
                mass += values[value]
            yield at, frozenset(head)

    def _calibrate(self, held: Sequence[Row], points: Floats) -> dict[str, float]:
        shares: dict[str, list[float]] = {}
        single = self._single(points)
        distances = []
        for rows in self._slices(points):
            some = Queries([held[at] for at in rows], [], [], [0] * len(rows))
            found = self._relations(Memory(self.space), points[rows], some)
            found |= {name: zs[rows] for name, zs in single.items()}
            nearest = found.pop("nearest")
            distances.append(nearest[~np.isnan(nearest)])
            for name, z in found.items():
                if not np.isnan(z).all():
                    shares.setdefault(name, []).append(float(np.nanmean(z)))
        together = np.concatenate(distances)
        self._usual = np.quantile(together, np.linspace(0.0, 1.0, _USUAL)) if len(together) else together
        apart = [
            [kolmogorov(np.sort(one[at : at + _GROUP]), self._usual) for at in range(0, len(one) - _GROUP + 1, _GROUP)]
            for one in distances
        ]  # fmt: skip
        every = [gap for gaps in apart for gap in gaps]
        self._departed = float(np.quantile(every, _HIGH)) if every else 1.0
        shares["distances"] = [
            float(np.mean(np.array(gaps) > self._departed)) for gaps in apart if len(gaps) >= 4
        ]
        shares |= {name: [0.0] for name in ("boundary", "rises", "falls", "flips")}
        return {
            name: max(_LEAST[name], max(found, default=0.0) * _MARGIN) for name, found in shares.items() if name in SIGNALS
        }  # fmt: skip

    def _slices(self, points: Floats) -> Iterator[npt.NDArray[np.int64]]:
        """Yield pseudo-callers: rows in the order of time, of everybody and of each common word or quarter of a number.

        Not of keys: who asks about rare ones only is whom the tail is to tell.
        """
        yield np.arange(len(points))[-_SLICE_ROWS:]
        found = []
        for at, word in enumerate(self.space.is_word.tolist()):
            if self.space.positions[at] in self._heads:
                continue
            column = points[:, at] if word else np.clip(np.floor(points[:, at] * 4), 0, 3)
            for value, count in zip(*np.unique(column, return_counts=True), strict=True):
                if count >= _SLICE_LEAST and count < len(points):
                    found.append((int(count), np.flatnonzero(column == value)[:_SLICE_ROWS]))
        found.sort(key=lambda one: -one[0])
        for _, rows in found[:_SLICES]:
            yield rows


def _among(
    cells: npt.NDArray[np.int64], codes: npt.NDArray[np.int64]
) -> tuple[npt.NDArray[np.int64], npt.NDArray[np.bool_]]:
    """Return for each code its place among sorted cells, and whether it is there."""
    place = np.minimum(np.searchsorted(cells, codes), len(cells) - 1)
    return place, cells[place] == codes
