"""What a device counted: kept through every death, bounded for ever, told once."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import msgspec
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from taut.core.edge import Counts, Report
from taut.core.errors import Conflict, Corrupt
from taut.serving.edge import state as module
from taut.serving.edge.inputs import Inputs
from taut.serving.edge.state import EdgeState, Period
from taut.testing.world import SequenceIds

Open = Callable[..., EdgeState]
ONE = Counts(requests=1, rows=2, edge_rows=2, labels={"0": 2}, latency={7: 1}, nulls={"x": 1})


@pytest.fixture
def open_state(tmp_path: Path) -> Open:
    def make(*, bundle: str = "edge_a", waiting_max: int = 4, folder: Path = tmp_path / "state") -> EdgeState:
        return EdgeState(folder, bundle=bundle, now_us=10, ids=SequenceIds(), waiting_max=waiting_max)

    return make


def die(state: EdgeState) -> None:
    """Leave everything as a killed process does: nothing is saved, the kernel frees the lock."""
    state.close(save=False)


def told(state: EdgeState) -> list[Report]:
    """Tell everything that waits, and have it acknowledged."""
    state.turn(99)
    found = []
    while (report := state.next_report()) is not None:
        found.append(report)
        state.acknowledge(report.sequence)
    return found


def test_counts_outlive_the_death_of_the_process(open_state: Open) -> None:
    state = open_state()
    for _ in range(3):
        state.count(ONE, 20)
    die(state)

    again = open_state()

    assert again.device == state.device
    assert again.now.counts == ONE.plus(ONE).plus(ONE)
    assert [report.counts.requests for report in told(again)] == [3]


def test_a_torn_line_loses_itself_and_nothing_else(open_state: Open, tmp_path: Path) -> None:
    state = open_state()
    state.count(ONE, 20)
    (journal,) = (tmp_path / "state").glob("counts.*.jsonl")
    with journal.open("ab") as file:
        file.write(b'\n[20,{"requests":1,"ro')  # the power went here
    state.count(ONE, 21)
    die(state)

    assert open_state().now.counts.requests == 2


def test_a_death_between_snapshot_and_journal_counts_nothing_twice(open_state: Open, tmp_path: Path) -> None:
    """The snapshot of the next generation is in place, and the journal that it holds was not yet removed."""
    state = open_state()
    state.count(ONE, 20)
    (old,) = (tmp_path / "state").glob("counts.*.jsonl")
    left = old.read_bytes()
    state.turn(30)
    old.write_bytes(left)
    die(state)

    assert [report.counts.requests for report in told(open_state())] == [1]


def test_a_report_that_was_perhaps_received_is_the_same_one_each_time(open_state: Open) -> None:
    state = open_state()
    state.count(ONE, 20)
    state.turn(30)
    first = state.next_report()
    for _ in range(20):  # it never gets through, and far more periods end than are kept
        state.count(ONE, 40)
        state.turn(50)
        assert state.next_report() == first
    die(state)
    again = open_state()

    assert again.next_report() == first
    reports = told(again)
    assert [report.sequence for report in reports] == list(range(1, len(reports) + 1))
    assert sum(report.counts.requests for report in reports) == 21
    assert len(reports) == 5
    assert sum(report.merged for report in reports) == 16


def test_what_never_gets_through_stays_small(open_state: Open, tmp_path: Path) -> None:
    state = open_state()
    for period in range(200):
        for _ in range(20):
            state.count(ONE, period)
        state.turn(period)

    size = sum(path.stat().st_size for path in (tmp_path / "state").iterdir())
    assert state.waiting == 4
    assert size < 8192
    assert sum(report.counts.requests for report in told(state)) == 4000


def test_the_journal_is_bounded_within_one_period(open_state: Open, tmp_path: Path) -> None:
    state = open_state()
    for _ in range(6000):
        state.count(ONE, 20)
        assert sum(1 for _ in (tmp_path / "state").glob("counts.*.jsonl")) == 1
    size = sum(path.stat().st_size for path in (tmp_path / "state").iterdir())

    assert size < 2 * module.JOURNAL_BYTES_MAX
    die(state)
    assert open_state().now.counts.requests == 6000


def test_another_bundle_in_the_same_folder_is_told_apart(open_state: Open) -> None:
    state = open_state()
    state.count(ONE, 20)
    die(state)
    state = open_state(bundle="edge_b")
    state.count(ONE, 30)

    assert [(report.bundle, report.counts.requests) for report in told(state)] == [
        ("edge_a", 1),
        ("edge_b", 1),
    ]


def test_more_bundles_than_periods_are_counted_as_dropped(open_state: Open) -> None:
    for number in range(7):
        state = open_state(bundle=f"edge_{number}")
        state.count(ONE, number)
        die(state)
    reports = told(open_state(bundle="edge_9"))

    assert [report.bundle for report in reports] == ["edge_3", "edge_4", "edge_5", "edge_6"]
    assert sum(report.dropped for report in reports) == 3


def test_a_folder_that_is_in_use_or_damaged_is_refused(open_state: Open, tmp_path: Path) -> None:
    state = open_state()
    with pytest.raises(Conflict, match="another process"):
        open_state()
    die(state)
    (tmp_path / "state" / "state.json").write_bytes(b"{")
    with pytest.raises(Corrupt, match="move the folder away"):
        open_state()


def test_a_disk_that_takes_nothing_keeps_no_answer_from_being_given(open_state: Open, tmp_path: Path) -> None:
    state = open_state()
    state.count(ONE, 20)
    folder = tmp_path / "state"
    moved = folder.rename(tmp_path / "gone")  # whoever writes a snapshot now finds no folder
    state.turn(30)
    state.count(ONE, 40)

    assert state.faults == 1
    moved.rename(folder)
    assert sum(report.counts.requests for report in told(state)) == 2


class Forgetful(EdgeState):
    """A planted fault: what was sent is not frozen, and grows with what comes after."""

    def next_report(self) -> Report | None:
        report = super().next_report()
        if report is not None:
            kept = self._kept
            first = Period(
                bundle=report.bundle, began_us=report.began_us, ended_us=report.ended_us, counts=report.counts
            )
            self._kept = msgspec.structs.replace(
                kept, sending=None, sequence=report.sequence, waiting=(first, *kept.waiting)
            )
        return report


@pytest.mark.parametrize("kind", [EdgeState, Forgetful])
def test_the_books_show_a_state_that_lets_sent_reports_grow(tmp_path: Path, kind: type[EdgeState]) -> None:
    """Shown by the planted fault: the same books balance with the real one."""
    state = kind(tmp_path / "state", bundle="edge_a", now_us=1, ids=SequenceIds(), waiting_max=1)
    control: dict[int, int] = {}
    for _ in range(4):
        state.count(ONE, 2)
        state.turn(3)
        report = state.next_report()  # received each time, and the answer is lost
        assert report is not None
        control.setdefault(report.sequence, report.counts.requests)
    told_last: set[int] = set()
    for _ in range(9):
        report = state.next_report()
        if report is None or report.sequence in told_last:
            break
        control.setdefault(report.sequence, report.counts.requests)
        state.acknowledge(report.sequence)
        told_last.add(report.sequence)
    state.close()

    assert (sum(control.values()) == 4) == (kind is EdgeState)


@settings(max_examples=40, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(acts=st.lists(st.sampled_from(["count", "turn", "send", "acknowledge", "die"]), max_size=40))
def test_every_answer_is_told_exactly_once_whatever_happens(
    acts: list[str], tmp_path_factory: pytest.TempPathFactory, open_state: Open
) -> None:
    folder = tmp_path_factory.mktemp("state") / "state"
    state, counted = open_state(folder=folder, waiting_max=2), 0
    control: dict[int, int] = {}
    for act in acts:
        if act == "count":
            state.count(ONE, 20)
            counted += 1
        elif act == "turn":
            state.turn(30)
        elif act == "die":
            die(state)
            state = open_state(folder=folder, waiting_max=2)
        elif (report := state.next_report()) is not None:
            assert control.setdefault(report.sequence, report.counts.requests) == report.counts.requests
            if act == "acknowledge":
                state.acknowledge(report.sequence)
    for report in told(state):
        control.setdefault(report.sequence, report.counts.requests)
    die(state)

    assert sum(control.values()) == counted


def test_kept_inputs_stay_within_their_bound(tmp_path: Path) -> None:
    inputs = Inputs(tmp_path, bytes_max=4096)
    for number in range(200):
        inputs.keep(f"req_{number}", [{"x": number}])
    inputs.close()

    files = sorted(path.name for path in tmp_path.iterdir())
    assert files == ["inputs.jsonl", "inputs.old.jsonl"]
    assert sum(path.stat().st_size for path in tmp_path.iterdir()) <= 4096
    assert "req_199" in (tmp_path / "inputs.jsonl").read_text()
