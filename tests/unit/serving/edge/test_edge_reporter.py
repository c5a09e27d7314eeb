"""Telling control: until it is acknowledged, and what becomes of reports that will never be taken."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import msgspec
import pytest

from taut.core.edge import Counts, Report
from taut.core.errors import Unavailable
from taut.serving.edge.calling import Called, Caller
from taut.serving.edge.reporter import Reporter
from taut.serving.edge.state import EdgeState
from taut.testing.world import SeededRandom, SequenceIds

ONE = Counts(requests=1, rows=1)


class Control(Caller):
    """Control as a device sees it, without a network. mode: how it answers; taken: reports that it counted."""

    def __init__(self) -> None:
        super().__init__("http://127.0.0.1:1/", token_file=None)
        self.mode = "take"
        self.state = "live"
        self.taken: list[Report] = []

    def post(self, body: bytes, *, timeout_s: float) -> Called:
        report = msgspec.convert(msgspec.json.decode(body)["report"], Report, str_keys=True)
        if self.mode == "away":
            raise Unavailable("no line")
        if self.mode in ("not_found", "invalid_input", "conflict", "denied"):
            if self.mode == "conflict" and report.device.endswith("2"):
                self.mode = "take"
                return self.post(body, timeout_s=timeout_s)
            return Called(
                400,
                msgspec.json.encode({"error": {"code": self.mode, "message": "no", "request_id": ""}}),
                0.0,
            )
        if self.mode == "nonsense":
            return Called(200, b"<html>", 0.0)
        if self.mode == "later" and not report.device.endswith("2"):
            return self._say(report.sequence + 7)
        self.taken.append(report)
        if self.mode == "lost":
            raise Unavailable("the answer was lost")
        return self._say(report.sequence)

    def _say(self, sequence: int) -> Called:
        return Called(200, msgspec.json.encode({"sequence": sequence, "state": self.state}), 0.0)


Make = Callable[..., tuple[Reporter, EdgeState, Control]]


@pytest.fixture
def make(tmp_path: Path) -> Iterator[Make]:
    states: list[EdgeState] = []

    def reporter(bundle: str = "edge_a", *, ids: Any = None) -> tuple[Reporter, EdgeState, Control]:
        for state in states:
            state.close()
        states[:] = [EdgeState(tmp_path, bundle=bundle, now_us=1, ids=ids or SequenceIds())]
        control = Control()
        made = Reporter(
            states[0],
            control,
            every_s=60.0,
            random=SeededRandom(),
            now_us=lambda: 9,
            log_failure=lambda _, error: None,
        )
        return made, states[0], control

    yield reporter
    for state in states:
        state.close()


def tell(reporter: Reporter) -> bool:
    return asyncio.run(reporter.tell())


def test_what_was_counted_is_told_once_and_then_nothing_is_left(make: Make) -> None:
    reporter, state, control = make()
    assert tell(reporter)
    state.count(ONE, 5)

    assert tell(reporter)
    assert tell(reporter)
    assert [(report.sequence, report.counts) for report in control.taken] == [(1, ONE)]
    assert (state.waiting, reporter.reasons()) == (0, [])


@pytest.mark.parametrize("mode", ["away", "lost", "nonsense", "denied", "not_found"])
def test_a_report_is_sent_again_as_it_was_until_it_is_acknowledged(make: Make, mode: str) -> None:
    reporter, state, control = make()
    state.count(ONE, 5)
    control.mode = mode
    assert not tell(reporter)
    state.count(ONE, 6)
    assert not tell(reporter)
    assert reporter.reasons()[0].startswith("reports do not get through")
    control.mode = "take"

    assert tell(reporter)
    assert {report.sequence: report.counts.requests for report in control.taken} == {1: 1, 2: 1}
    assert reporter.reasons() == []


def test_a_former_bundle_that_control_does_not_know_does_not_hold_up_the_present_one(make: Make) -> None:
    _, state, _ = make("edge_old")
    state.count(ONE, 5)
    reporter, state, control = make("edge_new")
    control.mode = "not_found"
    assert tell(reporter)
    control.mode = "take"
    state.count(ONE, 6)

    assert tell(reporter)
    (report,) = control.taken
    assert (report.bundle, report.sequence, report.dropped, report.counts) == ("edge_new", 2, 1, ONE)


@pytest.mark.parametrize("mode", ["conflict", "later"])
def test_a_copied_state_goes_on_as_another_device_and_says_what_it_lost(make: Make, mode: str) -> None:
    reporter, state, control = make()
    before = state.device
    state.count(ONE, 5)
    control.mode = mode
    assert tell(reporter)
    state.count(ONE, 6)

    assert tell(reporter)
    (report,) = control.taken
    assert report.device != before
    assert (report.sequence, report.dropped, report.counts) == (1, 1, ONE)


def test_a_version_that_was_withdrawn_is_said(make: Make) -> None:
    reporter, state, control = make()
    control.state = "retired"
    state.count(ONE, 5)

    assert tell(reporter)
    assert reporter.reasons() == ["control says that this version is retired"]
