"""Following the prediction log: each record once, over restarts, and no more of a flood than there is time for."""

from __future__ import annotations

from pathlib import Path
from typing import cast

from taut.serving.predictions import PredictionReader, RecordHead, Segment, encode_head, encode_record
from taut.workflows.monitor import Follower

HEAD = encode_head(RecordHead("delay", "delay@1", "rel_1", 7, ("x",)))
HOUR_US = 3600 * 10**6


class FakeLog:
    """Segments as lists of records, by name."""

    def __init__(self) -> None:
        self.held: dict[str, list[bytes]] = {}
        self.states: dict[str, str] = {}

    def write(self, name: str, numbers: range, *, state: str = "open") -> None:
        at = "req_" + 26 * "0"
        payloads = [encode_record(at, number, HEAD, "ana", "", 200, 0, ((1.0,),)) for number in numbers]
        self.held.setdefault(name, []).extend(payloads)
        self.states[name] = state

    def segments(self) -> list[Segment]:
        return [
            Segment(path=Path(f"{name}.{self.states[name]}"), started_us=int(name.split("-")[0]), writer="g", state=self.states[name])
            for name in sorted(self.held)
        ]  # fmt: skip

    def tail(self, segment: Segment, after: int) -> list[bytes]:
        return self.held[segment.path.stem][after:]


def follow(log: FakeLog, positions: dict[str, int] | None = None, *, at_once: int = 20_000) -> Follower:
    return Follower(cast(PredictionReader, log), positions, now_us=10 * HOUR_US, at_once=at_once)


def times(follower: Follower) -> list[int]:
    return [record.time_us for record in follower.fresh()]


def test_each_record_is_yielded_once_also_of_a_segment_that_grows_and_is_closed() -> None:
    log = FakeLog()
    log.write(f"{10 * HOUR_US}-a", range(3))
    follower = follow(log)
    assert (times(follower), times(follower)) == ([0, 1, 2], [])
    log.write(f"{10 * HOUR_US}-a", range(3, 5), state="closed")
    assert (times(follower), times(follower)) == ([3, 4], [])


def test_another_follower_goes_on_where_the_last_one_was_kept() -> None:
    log = FakeLog()
    log.write(f"{10 * HOUR_US}-a", range(3))
    first = follow(log)
    times(first)
    kept = dict(first.positions)
    log.write(f"{10 * HOUR_US}-a", range(3, 5), state="sealed")
    assert times(first) == times(follow(log, kept)) == [3, 4]


def test_the_first_one_begins_with_the_last_hour_and_forgets_what_is_gone() -> None:
    log = FakeLog()
    log.write(f"{8 * HOUR_US}-old", range(3), state="sealed")
    log.write(f"{10 * HOUR_US}-new", range(3, 4), state="sealed")
    follower = follow(log)
    assert times(follower) == [3]
    del log.held[f"{8 * HOUR_US}-old"]
    times(follower)
    assert list(follower.positions) == [f"{10 * HOUR_US}-new"]


def test_a_flood_is_read_in_part_and_says_how_much_was_left_out() -> None:
    log = FakeLog()
    log.write(f"{10 * HOUR_US}-a", range(100))
    follower = follow(log, at_once=10)
    assert times(follower) == list(range(0, 100, 10))
    assert (follower.left_out, times(follower)) == (90, [])
