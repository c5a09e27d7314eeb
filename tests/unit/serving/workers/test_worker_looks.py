"""When lanes look at their workers: together, however they began and however late or early a timer was."""

from __future__ import annotations

import pytest

from taut.serving.workers.crew import next_look_s


@pytest.mark.parametrize("began_s", [0.0, 0.1, 12.3449, 1e6 + 0.07])
@pytest.mark.parametrize("off_s", [-0.0005, 0.0, 0.002])
def test_lanes_look_at_shared_moments_one_step_apart(began_s: float, off_s: float) -> None:
    first = next_look_s(began_s, 0.25)

    assert 0.124 < first - began_s < 0.376
    assert first == pytest.approx(round(first / 0.25) * 0.25)
    assert next_look_s(first + off_s, 0.25) == pytest.approx(first + 0.25)
