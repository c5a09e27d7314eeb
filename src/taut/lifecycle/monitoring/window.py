"""How far is the traffic of a window from the reference at the same hours of the week, and how far at least?"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Final

import msgspec
import numpy as np
import numpy.typing as npt

from taut.lifecycle.monitoring.cells import CELLS, MISSING, NONFINITE, UNSEEN, Cells, Counts

Floats = npt.NDArray[np.float64]

HOURS: Final = 168
CHANCE: Final = 0.001
"""That any bound of a look is wrong, where the window's blocks have nothing to do with one another."""
_FEW: Final = 20
_EVENTS: Final = 2 * CELLS


class Shift(msgspec.Struct, frozen=True, kw_only=True):
    """How far a column is from its reference: the largest difference in the share of an event.

    value: of a number the distance of Kolmogorov and Smirnov over its cells, of words the largest change of one word's share or of
    the most frequent ones' together; 0 to 1. lower, upper: bounds that hold for all columns of a look together. event: where it is
    largest, in words. psi: the population stability index, for those who are used to it; it decides nothing.
    """

    column: str
    value: float
    lower: float
    upper: float
    event: str
    psi: float


class Window:
    """Counts of a window's rows, by block of time and hour of the week.

    block_s: how long a block is, an hour at most. blocks: how many make the window; older ones are forgotten.
    """

    def __init__(self, columns: int, *, block_s: float, blocks: int) -> None:
        self._columns: Final = columns
        self.block_s: Final = block_s
        self.blocks: Final = blocks
        self._counts: dict[tuple[int, int], Counts] = {}

    def add(self, at_s: float, hour: int, counts: Counts) -> None:
        """Count rows of one moment. counts: [columns, CELLS]. hour: of the week that they ask about, 0 for Monday's first."""
        key = int(at_s // self.block_s), hour
        before = self._counts.get(key)
        self._counts[key] = counts.astype(np.int64) if before is None else before + counts
        newest = max(block for block, _ in self._counts)
        for old in [one for one in self._counts if one[0] <= newest - self.blocks]:
            del self._counts[old]

    @property
    def rows(self) -> int:
        return sum(int(counts[0].sum()) for counts in self._counts.values())

    @property
    def kept(self) -> Mapping[tuple[int, int], Counts]:
        """Return the counts by block and hour, oldest first."""
        return {key: self._counts[key] for key in sorted(self._counts)}

    def total(self) -> Counts:
        """Return the counts of the whole window: [columns, CELLS]."""
        return sum(self._counts.values(), np.zeros((self._columns, CELLS), np.int64))


class Usual:
    """What is usual of each column at each hour of the week.

    counts: [HOURS, columns, CELLS] of reference rows; an hour of the week with fewer than 20 rows is taken for an average one.
    spread: by how much reference rows of one hour are alike, [columns]: what the variance of a share is more than that of
    independent rows, 1 at least.
    """

    def __init__(self, cells: Sequence[Cells], counts: Counts, spread: Floats) -> None:
        self._cells: Final = tuple(cells)
        self._events, self._names = _events_of(self._cells)
        few = counts.sum(axis=2) < _FEW
        self._few: Final = few[..., None].astype(
            np.float64
        )  # [HOURS, columns, 1]: who shares the average hour
        counts = np.where(few[..., None], counts.sum(axis=0), counts)
        rows = np.maximum(counts.sum(axis=2), 1)[..., None]
        self._shares: Final = counts / rows
        self._expected: Final = np.einsum("hck,csk->hcs", self._shares, self._events)
        # half a row more on either side: a share of nothing is known no better than by the rows that could have shown it
        padded = (self._expected * rows + 0.5) / (rows + 1)
        self._variance: Final = padded * (1 - padded) / rows * spread[:, None]

    def shifts(self, window: Window, *, chance: float = CHANCE) -> tuple[Shift, ...]:
        """Return how far each column is from what is usual at the window's hours; nothing for an empty window.

        Of each event, such as `x ≤ cut`, the share is compared with the reference's at the same hours, each hour weighted as the
        window has it. Its variance is that of whole blocks around their expectation, since rows of one hour are alike, and as much
        more than that of independent rows as for the column's mean event at least; the bounds are Student's with as many degrees of freedom as there are blocks but one, for
        all events and columns together (Bonferroni), so that few blocks give wide ones and a single one none at all. They
        are asymptotic: measured by simulation, not proved.
        Sources: Liang & Zeger 1986 (cluster-robust variance); Massart 1990 bounds the same distance for independent rows.
        """
        kept = window.kept
        if not kept:
            return ()
        counts = np.array(list(kept.values()), dtype=np.float64)
        hours = np.array([hour for _, hour in kept])
        _, block = np.unique([at for at, _ in kept], return_inverse=True)
        blocks, rows = int(block.max()) + 1, counts[:, 0].sum(axis=1)
        seen = np.einsum("bck,csk->bcs", counts, self._events)
        apart = np.zeros((blocks, *seen.shape[1:]))
        np.add.at(apart, block, seen - rows[:, None, None] * self._expected[hours])
        of_block: Floats = np.bincount(block, weights=rows).astype(np.float64)
        total = rows.sum()
        gap = apart.sum(axis=0) / total
        error = np.sqrt(self._own_variance(apart, of_block, gap, seen.sum(axis=0) / total)
                        + self._reference_variance(hours, rows / total))  # fmt: skip
        wide = _quantile(chance / (2 * len(self._cells) * _EVENTS), blocks - 1) * error
        psi = self._psi(counts, hours, rows)
        return tuple(self._shift(at, gap[at], wide[at], float(psi[at])) for at in range(len(self._cells)))

    def _own_variance(self, apart: Floats, rows: Floats, gap: Floats, share: Floats) -> Floats:
        blocks, total = len(rows), rows.sum()
        padded = (share * total + 0.5) / (total + 1)
        independent = padded * (1 - padded) / total
        if blocks < 2:
            return np.asarray(independent)
        around = ((apart - rows[:, None, None] * gap) ** 2).sum(axis=0) / total**2 * blocks / (blocks - 1)
        alike = around / independent
        known = self._events.any(axis=2)
        usual = (alike * known).sum(axis=1) / known.sum(
            axis=1
        )  # of a rare event few blocks have any rows that could differ
        return np.asarray(independent * np.maximum(np.maximum(alike, usual[:, None]), 1.0))

    def _reference_variance(self, hours: npt.NDArray[np.int64], weights: Floats) -> Floats:
        of_hour = np.bincount(hours, weights=weights, minlength=HOURS)
        own = np.einsum("h,hcs->cs", of_hour**2, self._variance * (1 - self._few))
        # hours that are taken for an average one err together
        shared = np.einsum("h,hcs->cs", of_hour, np.sqrt(self._variance) * self._few)
        return np.asarray(own + shared**2)

    def _psi(self, counts: Floats, hours: npt.NDArray[np.int64], rows: Floats) -> Floats:
        of_hour = np.bincount(hours, weights=rows / rows.sum(), minlength=HOURS)
        was = np.einsum("h,hck->ck", of_hour, self._shares) + 1e-4
        now = counts.sum(axis=0) / rows.sum() + 1e-4
        return np.asarray(((now - was) * np.log(now / was)).sum(axis=1))

    def _shift(self, at: int, gap: Floats, wide: Floats, psi: float) -> Shift:
        size = np.abs(gap)
        where = int(size.argmax())
        return Shift(
            column=self._cells[at].name, value=float(size[where]), lower=float(max(0.0, (size - wide).max())),
            upper=float(min(1.0, (size + wide)[: len(self._names[at])].max())),
            event=f"{self._names[at][where]}: {gap[where]:+.1%}", psi=psi,
        )  # fmt: skip


def _events_of(columns: Sequence[Cells]) -> tuple[Floats, list[list[str]]]:
    """Return the events of each column as sets of cells, [columns, events, CELLS], and their names."""
    events, names = np.zeros((len(columns), _EVENTS, CELLS)), []
    for at, cells in enumerate(columns):
        said: list[str] = []
        if cells.kind == "number":
            for upto, end in enumerate((cells.low, *cells.cuts, cells.high)):
                events[at, len(said), : upto + 1] = 1
                said.append(f"below {end:g}" if upto == 0 else f"at most {end:g}")
        else:
            for one, word in enumerate(cells.words):
                events[at, len(said), one] = 1
                said.append(repr(word))
            for upto in range(1, len(cells.words)):
                events[at, len(said), : upto + 1] = 1
                said.append(f"the {upto + 1} most frequent words")
            events[at, len(said), UNSEEN] = 1
            said.append("rare or unseen words")
        for special, word in ((MISSING, "null"), (NONFINITE, "not finite")):
            events[at, len(said), special] = 1
            said.append(word)
        names.append(said)
    return events, names


def _quantile(chance: float, freedom: int) -> float:
    """Return what a variable of Student exceeds with this chance; infinite without any freedom."""
    if freedom < 1:
        return float("inf")
    from scipy.special import stdtrit

    return float(-stdtrit(freedom, chance))


def spread_of(
    codes: npt.NDArray[np.int16], clusters: npt.NDArray[np.int64], cells: Sequence[Cells]
) -> Floats:
    """Return by how much rows of one cluster are alike, for each column: [columns], 1 at least.

    codes: [n, columns]. clusters: [n], such as the hour of each row. It is the mean over events of the variance of a share by whole
    clusters, as a part of that of independent rows.
    """
    events, names = _events_of(cells)
    _, of = np.unique(clusters, return_inverse=True)
    size = np.bincount(of).astype(float)
    found = np.ones(len(cells))
    for at, said in enumerate(names):
        counts = np.bincount(of * CELLS + codes[:, at], minlength=len(size) * CELLS).reshape(-1, CELLS)
        sums = counts @ events[at, : len(said)].T
        share = sums.sum(axis=0) / len(codes)
        usual = share * (1 - share) * len(codes)
        whole = ((sums - size[:, None] * share) ** 2).sum(axis=0)
        known = usual > 1
        if known.any():
            found[at] = max(1.0, float((whole[known] / usual[known]).mean()))
    return found
