"""What one stream does, and how far it has come."""

from __future__ import annotations

from typing import Final

import msgspec

from taut.core.cloudevents import event_key
from taut.core.errors import InvalidInput
from taut.ports.bus import check_name

ANSWER: Final = "taut.prediction"
STAGES: Final = 5
"""Batches that are under way at once: received, waiting, being scored, waiting, being settled."""


class StreamPlan(msgspec.Struct, frozen=True, kw_only=True):
    """One stream.

    endpoint: what scores. source, target, dead_letters: topics. group: whose offset it is; processes with one group
    share the work. replay: the source holds dead letters, and what they wrap is scored.
    max_in_flight: events that are under way at once; max_bytes: their bytes, as far as the sizes of the last ones
    foretell those of the next. max_attempts: after so many deaths of the process with an event in hand, it is put aside.
    """

    endpoint: str
    source: str
    target: str
    dead_letters: str
    group: str
    replay: bool = False
    max_in_flight: int = 1280
    max_bytes: int = 64 * 2**20
    max_attempts: int = 5

    def __post_init__(self) -> None:
        for topic in (self.source, self.target, self.dead_letters):
            check_name("topic", topic)
        check_name("group", self.group)
        if self.target in (self.source, self.dead_letters) or (
            self.source == self.dead_letters and not self.replay
        ):
            raise InvalidInput(
                f"source {self.source!r}, target {self.target!r} and dead letters {self.dead_letters!r} must be "
                "different topics: a stream that reads what it writes never ends"
            )
        if self.max_in_flight < STAGES:
            raise InvalidInput(f"{self.max_in_flight} events in flight are too few: allow at least {STAGES}")

    @property
    def batch_events(self) -> int:
        return self.max_in_flight // STAGES


class Counts(msgspec.Struct, kw_only=True):
    """What a process has done since it started.

    received: deliveries, repeated ones too. answered, dead: settled by an answer, by a dead letter. new: outputs that
    were not on their topic before. waits: times that scoring stood still for a quota or for something that was away.
    """

    received: int = 0
    answered: int = 0
    dead: int = 0
    new: int = 0
    waits: int = 0
    in_flight_max: int = 0
    seconds: float = 0.0


def answer_id(endpoint: str, source: str, id_: str) -> str:
    """Return the id of an endpoint's answer to an event: the same for the same event, whoever answers and how often."""
    return event_key("answer", endpoint, source, id_)
