"""Bus: topics of events that groups of consumers read; CloudEvents in, CloudEvents out."""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Final, Protocol

import msgspec

from taut.core.cloudevents import Event
from taut.core.errors import InvalidInput

_NAME: Final = re.compile(r"[A-Za-z0-9][A-Za-z0-9_.-]{0,127}")


class Delivery(msgspec.Struct, frozen=True, gc=False, kw_only=True):
    """One message as a group was handed it.

    position: its place in the topic; of no meaning beyond being the same at each delivery. event: None where the
    message is none, and then `fault` says why. raw: what lay on the topic. attempts: how often a consumer that had it
    went away without settling it, as far as the broker counts; 0 at first.
    """

    topic: str
    position: str
    event: Event | None
    raw: bytes = b""
    fault: str = ""
    attempts: int = 0


class Output(msgspec.Struct, frozen=True, gc=False):
    """An event to be put on a topic."""

    topic: str
    event: Event


class Settled(msgspec.Struct, frozen=True, gc=False):
    """A delivery that was dealt with, and what came of it."""

    delivery: Delivery
    outputs: tuple[Output, ...] = ()


class TopicState(msgspec.Struct, frozen=True, kw_only=True):
    """What waits on a topic for one group.

    length: messages that lie on the topic. waiting: those that the group was not handed yet, at most
    `WAITING_COUNTED` of them counted where the broker would have to walk. pending: handed out and not settled.
    """

    length: int
    waiting: int
    pending: int


WAITING_COUNTED: Final = 10_000


class Subscription(Protocol):
    """One consumer of a group. `receive` belongs to one thread and `settle` to one, which may be two.

    Guarantees: each message of the topic, those from before the group's first subscription too, is handed to one of
    the group's consumers at a time, and again to another (or the same after a restart) until it is settled. First
    deliveries come in the order of publishing (on Kafka: of each partition). What a consumer holds is not handed to
    it again while it lives. When `settle` returned, its outputs are on their topics and its deliveries never come
    again; each delivery's outputs are published once in effect, however often its delivery or the call was repeated,
    and not at all where another consumer has settled it meanwhile.

    Not guaranteed: order between consumers and after a redelivery; that a message is handed out soon after its
    consumer died (the lease, which the adapter's URL may set, must pass first); on NATS JetStream, "once" beyond the
    stream's duplicate window; attempts on Kafka, which does not count them.

    Errors: Unavailable when the broker does not answer: the same call may be repeated, also `settle`. Conflict from
    `settle` when the deliveries were taken away from this consumer as a whole: forget them and receive again.
    """

    def receive(self, *, limit: int, wait_s: float) -> list[Delivery]:
        """Return what waits, at most `limit`; wait up to `wait_s` for the first, and for no second."""
        ...

    def settle(self, settled: Sequence[Settled]) -> int:
        """Publish the outputs and acknowledge, in one step where the broker has one; return how many were new.

        On Kafka, deliveries are settled in the order in which they were received.
        """
        ...

    def close(self) -> None:
        """Leave the group. What was not settled is handed to others."""
        ...


class Bus(Protocol):
    """Topics on one broker, made when they are first named. Safe for threads.

    Guarantees: what `publish` returned from is on the topic as durably as the broker is configured to keep things. An
    event whose source and id are those of a recent one of the same topic (the adapter says how recent; in Records:
    of any) is not put there again.

    Not guaranteed: retention; a broker may be told to forget.

    Errors: Unavailable when the broker does not answer; InvalidInput for a name that is no topic's or group's.
    """

    def publish(self, topic: str, events: Sequence[Event]) -> int:
        """Put events on a topic in their order and return how many were new."""
        ...

    def subscribe(self, topic: str, group: str) -> Subscription:
        """Join a group, which begins with the oldest message when it is new."""
        ...

    def peek(self, topic: str, group: str, *, limit: int) -> list[Delivery]:
        """Return the oldest messages that the group was not handed yet, and leave them there."""
        ...

    def state(self, topic: str, group: str) -> TopicState: ...

    def close(self) -> None: ...


def check_name(kind: str, name: str) -> str:
    """Return the name of a topic or group. Raises InvalidInput where a broker could not carry it."""
    if not _NAME.fullmatch(name):
        raise InvalidInput(
            f"{kind} {name[:80]!r}: use 1 to 128 letters, digits, dots, dashes and underscores, a letter or digit first"
        )
    return name
