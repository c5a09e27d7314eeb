"""What a model version knew: how its training's columns and its own answers were distributed, frozen."""

from __future__ import annotations

import zlib
from collections.abc import Mapping, Sequence
from typing import Any, Final

import msgspec
import numpy as np
import numpy.typing as npt

from taut.core.errors import InvalidInput
from taut.lifecycle.monitoring.cells import CELLS, MISSING, Cells, Codes, Counts, Kind, cells_of, tally
from taut.lifecycle.monitoring.window import HOURS, spread_of

SCORE: Final = "(score)"
CONFIDENCE: Final = "(confidence)"
LABEL: Final = "(label)"
_LEAST: Final = 200
_TRUST: Final = 5.0
_HARD: Final = 0.9
"""The part of held-out errors of a regressor that are not large."""


class Learned(msgspec.Struct, frozen=True, kw_only=True):
    """What a version did on rows that it did not learn from. Each is [n]; confidence is empty of a regressor.

    wrong: 1 for a wrong label, or for a value's absolute error beyond `hard`. hard: of a regressor.
    """

    scores: Mapping[str, Sequence[Any]]
    wrong: npt.NDArray[np.float64]
    hard: float = 0.0


class Reference(msgspec.Struct, frozen=True, kw_only=True):
    """What is compared with: of which columns, how they were, and how often the version was wrong.

    columns: those of requests, then features, then what the version says. sources: where each comes from. counts: of rows that did
    not choose the cells, [HOURS, columns, CELLS] of 4 bytes, compressed. calibration: by cell of the confidence, the share that
    was right. error: share of held-out rows that were wrong; None where that is not known. newest_us: the newest row that was
    learned from.

    It holds counts and words that five rows had at least, and no row.
    """

    version: str
    columns: tuple[Cells, ...]
    sources: tuple[str, ...]
    rows: int
    counts: bytes
    spread: tuple[float, ...]
    calibration: tuple[float, ...] = ()
    error: float | None = None
    hard: float = 0.0
    newest_us: int = 0

    def by_hour(self) -> Counts:
        """Return the counts by hour of the week: [HOURS, columns, CELLS]."""
        found = np.frombuffer(zlib.decompress(self.counts), np.uint32)
        return found.reshape(HOURS, len(self.columns), CELLS).astype(np.int64)

    def encode(self, values: Mapping[str, Sequence[Any]], rows: int) -> Codes:
        """Return rows as cells, [rows, columns]; a column that is not there is null."""
        codes = np.full((rows, len(self.columns)), MISSING, np.int16)
        for at, cells in enumerate(self.columns):
            if cells.name in values:
                codes[:, at] = cells.encode(values[cells.name])
        return codes

    def position(self, name: str) -> int | None:
        """Return which column that is, None where there is none of the name."""
        return next((at for at, cells in enumerate(self.columns) if cells.name == name), None)


def freeze(
    version: str,
    columns: Mapping[str, tuple[Kind, str]],
    rows: Mapping[str, Sequence[Any]],
    hours: npt.NDArray[np.int64],
    clusters: npt.NDArray[np.int64],
    *,
    learned: Learned,
    newest_us: int,
) -> Reference:
    """Return the reference of a version.

    columns: name -> what it is and where it comes from. rows: by column, [n]. hours: of the week, [n]. clusters: what makes rows alike,
    such as their hour, [n]. Every second row chooses the cells, and the others are counted, so that conformal p-values are exact.
    Raises InvalidInput for fewer than 200 rows, which say too little.
    """
    if len(hours) < _LEAST:
        raise InvalidInput(
            f"{len(hours)} rows of training are too few to say what is usual: it takes {_LEAST}"
        )
    inputs = [cells_of(name, kind, rows[name][::2]) for name, (kind, _) in columns.items()]
    codes = np.column_stack([cells.encode(rows[cells.name][1::2]) for cells in inputs])
    said = {name: values for name, values in learned.scores.items() if len(values) >= _LEAST}
    kinds: dict[str, Kind] = {SCORE: "number", CONFIDENCE: "number", LABEL: "word"}
    outputs = [cells_of(name, kinds[name], values[::2]) for name, values in said.items()]
    counts = np.zeros((HOURS, len(inputs) + len(outputs), CELLS), np.uint32)
    for hour in np.unique(hours[1::2]).tolist():
        counts[hour, : len(inputs)] = tally(codes[hours[1::2] == hour])
    for at, cells in enumerate(outputs, start=len(inputs)):
        counts[0, at] = tally(cells.encode(said[cells.name][1::2])[:, None])[
            0
        ]  # of no hour: of the average one
    spread = spread_of(codes, clusters[1::2], inputs).tolist()
    confident = next((cells for cells in outputs if cells.name == CONFIDENCE), None)
    return Reference(
        version=version, columns=(*inputs, *outputs), sources=(*(of for _, of in columns.values()), *("model" for _ in outputs)),
        rows=len(hours), counts=zlib.compress(counts.tobytes(), 1), spread=(*spread, *(1.0 for _ in outputs)),
        calibration=() if confident is None else _calibrated(confident, said[CONFIDENCE], 1 - learned.wrong),
        error=float(learned.wrong.mean()) if len(learned.wrong) else None, hard=learned.hard, newest_us=newest_us,
    )  # fmt: skip


def learned_of_labels(
    probabilities: npt.NDArray[np.float64], truth: npt.NDArray[np.int64], classes: Sequence[Any]
) -> Learned:
    """Return how a classifier did. probabilities: [n, classes]. truth: the index of each row's class."""
    guess = probabilities.argmax(axis=1)
    scores: dict[str, Sequence[Any]] = {CONFIDENCE: probabilities.max(axis=1).tolist()}
    if len(classes) == 2:
        scores = {SCORE: probabilities[:, 1].tolist(), **scores}
    else:
        scores = {LABEL: [str(classes[one]) for one in guess], **scores}
    return Learned(scores=scores, wrong=(guess != truth).astype(np.float64))


def learned_of_values(values: npt.NDArray[np.float64], truth: npt.NDArray[np.float64]) -> Learned:
    """Return how a regressor did. An error is taken for wrong when it is larger than nine of ten held-out ones."""
    errors = np.abs(values - truth)
    hard = float(np.quantile(errors, _HARD)) if len(errors) else 0.0
    return Learned(scores={SCORE: values.tolist()}, wrong=(errors > hard).astype(np.float64), hard=hard)


def _calibrated(
    cells: Cells, confidence: Sequence[float], right: npt.NDArray[np.float64]
) -> tuple[float, ...]:
    """Return by cell which share was right; few rows are held by what the model said itself, as if it were five more rows.

    Source: the estimate that this is for is NannyML's CBPE, https://nannyml.readthedocs.io (expected accuracy from calibrated scores).
    """
    codes, said = cells.encode(confidence), np.asarray(confidence, dtype=np.float64)
    rows = np.bincount(codes, minlength=CELLS)
    mean = np.bincount(codes, weights=said, minlength=CELLS) / np.maximum(rows, 1)
    mean = np.where(rows == 0, said.mean(), mean)
    mean[0], mean[cells.above] = cells.low, cells.high
    correct = np.bincount(codes, weights=right, minlength=CELLS)
    return tuple(((correct + _TRUST * mean) / (rows + _TRUST)).tolist())
