"""One version of an endpoint, watched: rows and labels in, figures out, and all of it can be kept."""

from __future__ import annotations

import zlib
from collections.abc import Mapping
from typing import Final, Literal

import msgspec
import numpy as np
import numpy.typing as npt

from taut.core.errors import InvalidInput
from taut.lifecycle.monitoring.betting import ShareWatch
from taut.lifecycle.monitoring.cells import CELLS, MISSING, NONFINITE, UNSEEN, Codes, Counts, tally
from taut.lifecycle.monitoring.detector import Detector, DetectorState
from taut.lifecycle.monitoring.reference import CONFIDENCE, SCORE, Reference
from taut.lifecycle.monitoring.window import HOURS, Shift, Usual, Window

State = Literal["usual", "moved", "drifted"]
"""moved: its rows are not exchangeable with the reference, by whatever little. drifted: surely farther than is tolerated."""
FAULTS: Final = ("null", "not finite", "out of range or unseen")
_HOUR_S: Final = 3600.0
_BLOCKS: Final = 48
_ROUND: Final = 4


class Tolerance(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """What is put up with. shift: the largest difference in the share of any event of a column. faults: by how much the share of
    values that are null, not finite or never seen may be larger than in training. risk: by how much the share of wrong answers may.
    window_s: over which traffic is compared.
    """

    shift: float = 0.1
    faults: float = 0.02
    risk: float = 0.05
    window_s: float = 86_400.0

    def __post_init__(self) -> None:
        for name in ("shift", "faults", "risk"):
            if not 0 < getattr(self, name) < 1:
                raise InvalidInput(
                    f"the tolerated {name} is {getattr(self, name)}: choose more than 0 and less than 1"
                )
        if not _BLOCKS <= self.window_s <= 31 * 86_400:
            raise InvalidInput(f"a window of {self.window_s:g} s cannot be watched: choose 48s to 31d")


class ColumnFigures(msgspec.Struct, frozen=True, kw_only=True):
    """A column now. shift: None before the window has a row. faults: share of each kind of FAULTS in the window. faulty: kinds that
    are surely beyond tolerance. since_s: when it began to drift. evidence: that it changed at all, 1 being what raises an alarm."""

    column: str
    source: str
    state: State
    shift: Shift | None
    faults: tuple[float, float, float]
    faulty: tuple[str, ...] = ()
    evidence: float = 0.0
    since_s: float | None = None


class Quality(msgspec.Struct, frozen=True, kw_only=True):
    """How good answers are. usual: the share of held-out rows that were right. estimated: without labels, by calibrated confidence.
    labelled, right: rows whose outcome is known, and the share of them that was right. auc: of those, by cells of the score.
    evidence: that more are wrong than is tolerated, 1 being what raises an alarm. confidence: mean of the window.
    """

    usual: float | None
    estimated: float | None = None
    confidence: float | None = None
    labelled: int = 0
    right: float | None = None
    auc: float | None = None
    tolerated: float | None = None
    evidence: float = 0.0
    alarmed: bool = False


class Figures(msgspec.Struct, frozen=True, kw_only=True):
    """All that is known of a version's traffic. rows: ever; window_rows: in the window. moved_row: at which row it was first said
    that anything had changed. outliers: share of rows with a number out of range or a word unseen. stale_s: since the newest
    row that was learned from, as of the last row asked."""

    version: str
    rows: int
    window_rows: int
    window_s: float
    columns: tuple[ColumnFigures, ...]
    quality: Quality
    tolerance: Tolerance
    moved_row: int | None = None
    outliers: float = 0.0
    stale_s: float | None = None
    last_s: float | None = None


class WatchState(msgspec.Struct, frozen=True, kw_only=True):
    """All that a watch knows beside its reference."""

    version: str
    detector: DetectorState
    window: tuple[tuple[int, int, bytes], ...]
    faults: bytes
    risk: bytes
    since: dict[str, float]
    labels: bytes
    strange: float
    last_s: float


class EndpointWatch:
    """Watches what one version is asked and answers.

    seed: of the detector's random ties. Guarantees: a watch that resumes says the very same as one that never stopped. Its size is bounded by the
    window's 48 blocks (a block is an hour at most), whatever the traffic.
    """

    def __init__(self, reference: Reference, tolerance: Tolerance | None = None, *, seed: int = 0) -> None:
        self.reference: Final = reference
        self.tolerance: Final = tolerance or Tolerance()
        counts = reference.by_hour()
        whole = counts.sum(axis=0)
        self._usual: Final = Usual(reference.columns, counts, np.asarray(reference.spread))
        self._detector: Final = Detector(whole, seed=seed)
        window_s = self.tolerance.window_s
        block_s = min(_HOUR_S, window_s / _BLOCKS)
        self._window: Final = Window(len(whole), block_s=block_s, blocks=round(window_s / block_s))
        self._fault_cells: Final = _fault_cells(reference)
        usual = (whole[:, None] * self._fault_cells).sum(axis=2) / np.maximum(whole.sum(axis=1), 1)[:, None]
        self._bounds: Final = np.minimum(usual + self.tolerance.faults, 0.999)
        self._faults = ShareWatch(self._bounds.ravel())
        risk = None if reference.error is None else min(reference.error + self.tolerance.risk, 0.999)
        self._risk = None if risk is None else ShareWatch([risk])
        self._labels = np.zeros((2, CELLS), np.int64)  # by right and wrong, by the score's cell
        self._truths = np.zeros((2, CELLS), np.int64)  # by the truth, where there are two
        self._since: dict[str, float] = {}
        self._strange = 0.0
        self._last_s = 0.0

    def observe(self, codes: Codes, at_s: npt.NDArray[np.float64], hours: npt.NDArray[np.int64]) -> None:
        """Take answered rows in the order of time. codes: [n, columns]. at_s: when. hours: of the week that they ask about."""
        if not len(codes):
            return
        self._detector.observe(codes)
        blocks = (at_s // self._window.block_s).astype(np.int64)
        _, first, which = np.unique(blocks * HOURS + hours, return_index=True, return_inverse=True)
        for group, one in enumerate(first.tolist()):
            self._window.add(float(at_s[one]), int(hours[one]), tally(codes[which == group]))
        counted = tally(codes)
        self._faults.observe((counted[:, None] * self._fault_cells).sum(axis=2).ravel(), len(codes))
        inputs = [at for at, source in enumerate(self.reference.sources) if source != "model"]
        strange = np.zeros(len(codes), np.bool_)
        for at in inputs:
            strange |= self._fault_cells[at, 2][codes[:, at]]
        share = min(1.0, len(codes) / 1000)  # the newest thousand rows count most
        self._strange += share * (float(strange.mean()) - self._strange)
        self._last_s = max(self._last_s, float(at_s.max()))

    def learn(self, wrong: npt.NDArray[np.int64], score: Codes, truth: npt.NDArray[np.int64]) -> None:
        """Take outcomes that became known. wrong: [n] of 0 and 1. score: cells of the score. truth: 0, 1, or -1 where it is no two-class matter."""
        if self._risk is not None and len(wrong):
            self._risk.observe(np.array([int(wrong.sum())]), len(wrong))
        self._count(wrong, score, truth, 1)

    def correct(self, wrong: npt.NDArray[np.int64], score: Codes, truth: npt.NDArray[np.int64]) -> None:
        """Take outcomes in the place of others: they count, and are no new evidence, since who corrects may choose what."""
        self._count(wrong, score, truth, 1)

    def unlearn(self, wrong: npt.NDArray[np.int64], score: Codes, truth: npt.NDArray[np.int64]) -> None:
        """Take back outcomes that were corrected. The evidence that they gave stays: who looked at it has acted."""
        self._count(wrong, score, truth, -1)

    def _count(
        self, wrong: npt.NDArray[np.int64], score: Codes, truth: npt.NDArray[np.int64], by: int
    ) -> None:
        np.add.at(self._labels, (wrong, score), by)
        known = truth >= 0
        np.add.at(self._truths, (truth[known], score[known]), by)

    def figures(self) -> Figures:
        """Return everything that is known now."""
        shifts = self._usual.shifts(self._window) or (None,) * len(self.reference.columns)
        total = self._window.total()
        rows = np.maximum(total.sum(axis=1), 1)[:, None]
        shares = (total[:, None] * self._fault_cells).sum(axis=2) / rows
        faulty = self._faults.alarmed.reshape(shares.shape) & (shares > self._bounds)
        evidence = self._detector.evidence
        columns = tuple(
            self._column(at, shift, shares[at], faulty[at], float(evidence[at])) for at, shift in enumerate(shifts)
        )  # fmt: skip
        newest = self.reference.newest_us / 1e6
        return Figures(
            version=self.reference.version, rows=self._detector.rows, window_rows=self._window.rows,
            window_s=self.tolerance.window_s, columns=columns, quality=self._quality(total), tolerance=self.tolerance,
            moved_row=self._detector.alarmed_row, outliers=self._strange, last_s=self._last_s or None,
            stale_s=self._last_s - newest if newest and self._last_s else None,
        )  # fmt: skip

    def _column(
        self,
        at: int,
        shift: Shift | None,
        shares: npt.NDArray[np.float64],
        faulty: npt.NDArray[np.bool_],
        evidence: float,
    ) -> ColumnFigures:
        name, bound = self.reference.columns[at].name, self.tolerance.shift
        if shift is not None and shift.lower > bound:
            self._since.setdefault(name, self._last_s)
        elif shift is None or shift.value < bound:
            self._since.pop(name, None)
        drifted = name in self._since
        return ColumnFigures(
            column=name, source=self.reference.sources[at], shift=shift, evidence=evidence,
            state="drifted" if drifted else "moved" if evidence >= 1 else "usual", since_s=self._since.get(name),
            faults=(float(shares[0]), float(shares[1]), float(shares[2])),
            faulty=tuple(kind for kind, over in zip(FAULTS, faulty, strict=True) if over),
        )  # fmt: skip

    def _quality(self, total: Counts) -> Quality:
        reference = self.reference
        labelled = int(self._labels.sum())
        estimated = confidence = None
        at = reference.position(CONFIDENCE)
        if at is not None and total[at].sum():
            estimated = float(total[at] @ np.asarray(reference.calibration) / total[at].sum())
            confidence = float(total[at] @ _middles(reference, at) / total[at].sum())
        risk = self._risk
        return Quality(
            usual=None if reference.error is None else 1 - reference.error, estimated=estimated, confidence=confidence,
            labelled=labelled, right=float(self._labels[0].sum() / labelled) if labelled else None,
            auc=auc_of(self._truths), tolerated=None if risk is None else 1 - float(risk.bounds[0]),
            evidence=0.0 if risk is None else float(risk.evidence[0]),
            alarmed=risk is not None and bool(risk.alarmed[0]),
        )  # fmt: skip

    def state(self) -> bytes:
        """Return what `resume` goes on from."""
        window = tuple(
            (block, hour, counts.astype(np.uint32).tobytes()) for (block, hour), counts in self._window.kept.items()
        )  # fmt: skip
        state = WatchState(
            version=self.reference.version, detector=self._detector.state(), window=window, faults=self._faults.state(),
            risk=b"" if self._risk is None else self._risk.state(), since=self._since, strange=self._strange,
            labels=self._labels.tobytes() + self._truths.tobytes(), last_s=self._last_s,
        )  # fmt: skip
        return zlib.compress(msgspec.msgpack.encode(state), 1)

    def resume(self, kept: bytes) -> None:
        """Go on where another watch of the same reference and tolerance was. Raises InvalidInput for one of another version."""
        state = msgspec.msgpack.decode(zlib.decompress(kept), type=WatchState)
        if state.version != self.reference.version:
            raise InvalidInput(
                f"what is kept is of {state.version}, not of {self.reference.version}: begin anew"
            )
        self._detector.resume(state.detector)
        for block, hour, counts in state.window:
            found = np.frombuffer(counts, np.uint32).reshape(len(self.reference.columns), CELLS)
            self._window.add((block + 0.5) * self._window.block_s, hour, found.astype(np.int64))
        self._faults = ShareWatch(self._bounds.ravel(), state.faults)
        if self._risk is not None:
            self._risk = ShareWatch(self._risk.bounds.tolist(), state.risk)
        labels = np.frombuffer(state.labels, np.int64).reshape(2, 2, CELLS)
        self._labels, self._truths = labels[0].copy(), labels[1].copy()
        self._since, self._strange, self._last_s = dict(state.since), state.strange, state.last_s

    def cell_of_score(self, values: Mapping[str, list[float]]) -> Codes:
        """Return the cells of scores, [n]; the first cell where the version has none."""
        at, scores = self.reference.position(SCORE), values[SCORE]
        return np.zeros(len(scores), np.int16) if at is None else self.reference.columns[at].encode(scores)


def auc_of(truths: Counts) -> float | None:
    """Return how often a positive row has a higher score than a negative one, ties in a cell counting half; None without both.

    truths: [2, CELLS], rows by truth and cell of the score.
    """
    negative, positive = truths
    pairs = negative.sum() * positive.sum()
    if pairs <= 0:
        return None
    below = np.cumsum(negative) - negative
    return float((positive * (below + negative / 2)).sum() / pairs)


def _fault_cells(reference: Reference) -> npt.NDArray[np.bool_]:
    """Return which cells are which fault: [columns, faults, CELLS]."""
    found = np.zeros((len(reference.columns), len(FAULTS), CELLS), np.bool_)
    found[:, 0, MISSING] = True
    found[:, 1, NONFINITE] = True
    for at, cells in enumerate(reference.columns):
        found[at, 2, [UNSEEN] if cells.kind == "word" else [0, cells.above]] = True
    return found


def _middles(reference: Reference, at: int) -> npt.NDArray[np.float64]:
    """Return about what a number in each cell is."""
    cells, found = reference.columns[at], np.zeros(CELLS)
    bounds = np.array([cells.low, cells.low, *cells.cuts, cells.high, cells.high])
    middles = (bounds[:-1] + bounds[1:]) / 2
    found[: len(middles)] = middles
    return found
