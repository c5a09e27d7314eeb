"""How soon a change is said, and how seldom without one: the detector on streams whose truth is known.

The whole table, 48 runs of 10,000 rows, is `make bench ONLY=drift`.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
import pytest

from taut.lifecycle.monitoring import Detector, cells_of, tally

COLUMNS = 6


def first_alarm(seed: int, *, rows: int, from_row: int, far: float = 0.0, wide: float = 1.0) -> int | None:
    """Return at which row a change of the first column is said. far, wide: what becomes of its mean and its spread."""
    rng = np.random.default_rng(seed)
    past = rng.normal(size=(2000, COLUMNS))
    stream = rng.normal(size=(rows, COLUMNS))
    stream[from_row:, 0] = stream[from_row:, 0] * wide + far
    cells = [cells_of(str(at), "number", past[::2, at].tolist()) for at in range(COLUMNS)]

    def encoded(values: npt.NDArray[np.float64]) -> npt.NDArray[np.int16]:
        return np.column_stack([one.encode(values[:, at]) for at, one in enumerate(cells)])

    detector = Detector(tally(encoded(past[1::2])), seed=seed)
    detector.observe(encoded(stream))
    return detector.alarmed_row


def test_nothing_is_said_of_a_stream_that_stays_as_it_was() -> None:
    assert [first_alarm(seed, rows=2500, from_row=2500) for seed in range(4)] == [None] * 4


@pytest.mark.parametrize(("far", "wide", "within"), [(1.0, 1.0, 150), (0.5, 1.0, 650), (0.0, 2.0, 400)])
def test_a_change_is_said_within_hundreds_of_rows(far: float, wide: float, within: int) -> None:
    found = first_alarm(1, rows=500 + within, from_row=500, far=far, wide=wide)
    assert found is not None
    assert 500 < found <= 500 + within
