"""What load benchmarks make of what they saw: a failure is one, a recovery begins when it began, a drift is a drift."""

from __future__ import annotations

import math
from pathlib import Path

import pytest
from benchmarks import wrk
from benchmarks.bench_rivals import Rival, installed
from benchmarks.bench_soak import Reading, Watch, tell
from benchmarks.bench_survival import CALM_S, Answered, back_s
from benchmarks.report import Figure, Missing, Report


def answers(start_s: float, end_s: float, *, per_s: int = 200) -> list[Answered]:
    count = round((end_s - start_s) * per_s)
    return [Answered(0.0, start_s + index / per_s, True) for index in range(count)]


def test_recovery_counts_from_the_kill_to_the_first_window_as_full_as_before() -> None:
    gap = [*answers(10 - CALM_S, 10.0), *answers(10.4, 13.0)]
    slow = [*answers(10 - CALM_S, 10.0), *answers(10.0, 10.6, per_s=100), *answers(10.6, 13.0)]

    assert back_s(gap, 10.0) == pytest.approx(0.4, abs=0.03)
    assert back_s(slow, 10.0) == pytest.approx(0.6, abs=0.06)


def test_a_server_that_stays_slow_is_never_back() -> None:
    assert math.isinf(back_s([*answers(10 - CALM_S, 10.0), *answers(10.0, 13.0, per_s=150)], 10.0))


def figures(own: list[float]) -> list[Figure]:
    watch = Watch(0, Path())
    watch.readings += [Reading(float(at), 100.0, 80.0, mib, mib) for at, mib in enumerate(own)]
    report = Report()
    tell(report, watch, [(0.0, 0), (float(len(own)), 1000)], refused=30, strangers=20)
    return [row for row in report.rows if isinstance(row, Figure)]


def test_memory_that_grows_by_more_than_a_twentieth_is_missed_and_flat_memory_is_not() -> None:
    flat = figures([50.0 + at % 2 for at in range(100)])
    grown = figures([50.0 + at * 0.1 for at in range(100)])

    assert flat[0].missed is False
    assert grown[0].missed is True


def test_a_rival_that_is_not_installed_is_a_line_that_says_so(tmp_path: Path) -> None:
    log = tmp_path / ".venvs" / "rivals-slow" / "install.log"
    log.parent.mkdir(parents=True)
    log.write_text("no wheel for this platform")
    report = Report()

    assert not installed(report, Rival("slow", "Slow", "≥ 2", ("slow",)), root=tmp_path)
    [row] = report.rows
    assert isinstance(row, Missing)
    assert "no wheel for this platform" in row.missing


def test_many_bodies_lie_in_one_file_each_after_its_length(tmp_path: Path) -> None:
    path = wrk.write_bodies(tmp_path / "bodies", [b'{"a": 1}', b"line\nbreak"])
    assert path.read_bytes() == b'8\n{"a": 1}10\nline\nbreak'
