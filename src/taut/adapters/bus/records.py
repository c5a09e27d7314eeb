"""Bus in Records: a log of events by topic in the installation's own database, SQLite or PostgreSQL.

An event, the effect that it tells of and a consumer's offset can be committed in one transaction: see `publish_in`
and `settle_in`. An event's key is unique in its topic for ever.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from typing import Any, Final, TypeVar

from sqlalchemy import ColumnElement, Select, delete, func, insert, select, update

from taut.adapters.bus.messages import structured
from taut.adapters.bus.tables import events, groups, pending, topics
from taut.core.cloudevents import Event, check_json, encode_event, is_json
from taut.core.errors import Conflict, Unavailable
from taut.core.times import to_us
from taut.ports.bus import Delivery, Settled, TopicState, check_name
from taut.ports.records import Records, Tx, insert_many
from taut.ports.world import Clock, Random

T = TypeVar("T")

_POLL_S: Final = 0.02
_KEYS_AT_ONCE: Final = 500
_ATTEMPTS: Final = 40
_APART_S: Final = 0.004


class RecordsBus:
    """The bus of an installation.

    lease_s: how long a consumer may hold what it was handed before others may take it.
    """

    def __init__(self, records: Records, clock: Clock, random: Random, *, lease_s: float = 30.0) -> None:
        self._records: Final = records
        self._clock: Final = clock
        self._random: Final = random
        self._lease_s: Final = lease_s

    def publish(self, topic: str, events: Sequence[Event]) -> int:
        check_name("topic", topic)
        return self.transact(lambda tx: self.publish_in(tx, topic, events))

    def publish_in(self, tx: Tx, topic: str, events_: Sequence[Event]) -> int:
        """Publish within the caller's transaction: the events are there exactly when its effect is."""
        fresh = {event.key: event for event in events_}
        for event in fresh.values():
            if is_json(event.content_type):
                check_json(event.data)
        for keys in _chunks(list(fresh)):
            found = select(events.c.key).where(events.c.topic == topic, events.c.key.in_(keys))
            for key in tx.execute(found).scalars():
                del fresh[key]
        if not fresh:
            return 0
        first = _reserve(tx, topic, len(fresh))
        rows = [
            (topic, first + index, key, encode_event(event))
            for index, (key, event) in enumerate(fresh.items())
        ]
        insert_many(tx, events, ("topic", "position", "key", "event"), rows)
        return len(fresh)

    def subscribe(self, topic: str, group: str) -> RecordsSubscription:
        check_name("topic", topic)
        check_name("group", group)
        self.transact(lambda tx: _join(tx, topic, group))
        consumer = self._random.bytes(12).hex()
        return RecordsSubscription(
            self, self._records, self._clock, topic, group, consumer=consumer, lease_s=self._lease_s
        )

    def peek(self, topic: str, group: str, *, limit: int) -> list[Delivery]:
        with self._records.read() as tx:
            found = tx.execute(_after(topic, _handed(tx, topic, group), limit)).all()
        return [_delivery(topic, row) for row in found]

    def state(self, topic: str, group: str) -> TopicState:
        with self._records.read() as tx:
            length = tx.execute(select(topics.c.length).where(topics.c.topic == topic)).scalar() or 0
            handed = _handed(tx, topic, group)
            count = select(func.count()).where(pending.c.topic == topic, pending.c.name == group)
            return TopicState(
                length=length, waiting=length - handed, pending=int(tx.execute(count).scalar_one())
            )

    def close(self) -> None:
        """Nothing to do: Records is its opener's."""

    def transact(self, do: Callable[[Tx], T]) -> T:
        """Run `do` in a transaction, again where another won, after a short and random while: consumers do meet."""
        for attempt in range(1, _ATTEMPTS + 1):
            try:
                with self._records.begin() as tx:
                    return do(tx)
            except Conflict as error:
                lost = error
            self._clock.sleep(_APART_S * attempt * self._random.uniform())
        raise Unavailable(f"too many consumers and publishers at once: {lost.message}") from lost


class RecordsSubscription:
    """One consumer of a group in Records."""

    def __init__(
        self, bus: RecordsBus, records: Records, clock: Clock, topic: str, group: str, *, consumer: str, lease_s: float
    ) -> None:  # fmt: skip
        self._bus: Final = bus
        self._records: Final = records
        self._clock: Final = clock
        self._topic: Final = topic
        self._group: Final = group
        self._consumer: Final = consumer
        self._lease_us: Final = int(lease_s * 1e6)
        self._held: Final[set[int]] = set()

    def receive(self, *, limit: int, wait_s: float) -> list[Delivery]:
        end_s = self._clock.monotonic_s() + wait_s
        while True:
            if self._something_waits():
                found = self._bus.transact(lambda tx: self._take(tx, limit))
                if found:
                    self._held.update(int(delivery.position) for delivery in found)
                    return found
            left_s = end_s - self._clock.monotonic_s()
            if left_s <= 0:
                return []
            self._clock.sleep(min(_POLL_S, left_s))

    def settle(self, settled: Sequence[Settled]) -> int:
        published = self._bus.transact(lambda tx: self.settle_in(tx, settled))
        self.forget(settled)
        return published

    def settle_in(self, tx: Tx, settled: Sequence[Settled]) -> int:
        """Settle within the caller's transaction, so that offset and effect are one; then call `forget`."""
        mine = self._settle_own(tx, [int(item.delivery.position) for item in settled])
        outputs: dict[str, list[Event]] = {}
        for item in settled:
            if int(item.delivery.position) in mine:
                for output in item.outputs:
                    outputs.setdefault(output.topic, []).append(output.event)
        return sum(self._bus.publish_in(tx, topic, made) for topic, made in outputs.items())

    def forget(self, settled: Iterable[Settled]) -> None:
        """No longer count these as held: their transaction is committed."""
        self._held.difference_update(int(item.delivery.position) for item in settled)

    def close(self) -> None:
        """Give back what was not settled, at once."""
        self._bus.transact(
            lambda tx: tx.execute(
                update(pending).where(self._of_group(), pending.c.consumer == self._consumer).values(due_us=0)
            ),
        )

    def _of_group(self) -> ColumnElement[bool]:
        return (pending.c.topic == self._topic) & (pending.c.name == self._group)

    def _now_us(self) -> int:
        return to_us(self._clock.now())

    def _something_waits(self) -> bool:
        """Look without writing: an idle consumer takes no turn among the writers."""
        with self._records.read() as tx:
            if tx.execute(_after(self._topic, _handed(tx, self._topic, self._group), 1)).first():
                return True
            due = select(pending.c.position).where(self._of_group(), pending.c.due_us <= self._now_us())
            return tx.execute(due.limit(1)).first() is not None

    def _take(self, tx: Tx, limit: int) -> list[Delivery]:
        again = self._take_over(tx, limit)
        room = limit - len(again)
        fresh = self._take_fresh(tx, room) if room > 0 else []
        return [*again, *fresh]

    def _take_over(self, tx: Tx, limit: int) -> list[Delivery]:
        """Take what others held too long; of what this consumer itself holds, the lease is renewed."""
        due = (
            select(pending.c.position, pending.c.attempts, events.c.event)
            .join(events, (events.c.topic == pending.c.topic) & (events.c.position == pending.c.position))
            .where(self._of_group(), pending.c.due_us <= self._now_us())
            .order_by(pending.c.position)
            .limit(limit)
        )
        found = tx.execute(due).all()
        taken = [row for row in found if row.position not in self._held]
        self._lease(tx, [row.position for row in found if row.position in self._held], again=0)
        self._lease(tx, [row.position for row in taken], again=1)
        return [_delivery(self._topic, row, attempts=row.attempts + 1) for row in taken]

    def _lease(self, tx: Tx, positions: list[int], *, again: int) -> None:
        """Make these this consumer's from now on. again: 1 where somebody else held them and went away."""
        for some in _chunks(positions):
            tx.execute(
                update(pending)
                .where(self._of_group(), pending.c.position.in_(some))
                .values(
                    consumer=self._consumer,
                    attempts=pending.c.attempts + again,
                    due_us=self._now_us() + self._lease_us,
                )
            )

    def _take_fresh(self, tx: Tx, limit: int) -> list[Delivery]:
        found = tx.execute(_after(self._topic, _handed(tx, self._topic, self._group), limit)).all()
        if not found:
            return []
        due_us = self._now_us() + self._lease_us
        rows = [(self._topic, self._group, row.position, self._consumer, 0, due_us) for row in found]
        insert_many(tx, pending, ("topic", "name", "position", "consumer", "attempts", "due_us"), rows)
        tx.execute(
            update(groups)
            .where(groups.c.topic == self._topic, groups.c.name == self._group)
            .values(handed=found[-1].position)
        )
        return [_delivery(self._topic, row) for row in found]

    def _settle_own(self, tx: Tx, positions: list[int]) -> set[int]:
        """Drop these from what is pending, and return those that were still this consumer's."""
        mine: set[int] = set()
        for some in _chunks(positions):
            own = (self._of_group(), pending.c.consumer == self._consumer, pending.c.position.in_(some))
            mine.update(tx.execute(select(pending.c.position).where(*own)).scalars())
            tx.execute(delete(pending).where(*own))
        return mine


def _join(tx: Tx, topic: str, group: str) -> None:
    known = select(groups.c.handed).where(groups.c.topic == topic, groups.c.name == group)
    if tx.execute(known).first() is None:
        tx.execute(insert(groups).values(topic=topic, name=group, handed=0))


def _handed(tx: Tx, topic: str, group: str) -> int:
    found = select(groups.c.handed).where(groups.c.topic == topic, groups.c.name == group)
    return tx.execute(found).scalar() or 0


def _after(topic: str, position: int, limit: int) -> Select[Any]:
    return (
        select(events.c.position, events.c.event)
        .where(events.c.topic == topic, events.c.position > position)
        .order_by(events.c.position)
        .limit(limit)
    )


def _reserve(tx: Tx, topic: str, count: int) -> int:
    """Return the first of `count` positions. Writers of one topic take turns here, so that no position shows late."""
    taken = update(topics).where(topics.c.topic == topic).values(length=topics.c.length + count)
    length = tx.execute(taken.returning(topics.c.length)).scalar()
    if length is None:
        tx.execute(insert(topics).values(topic=topic, length=count))
        return 1
    return int(length) - count + 1


def _delivery(topic: str, row: Any, *, attempts: int = 0) -> Delivery:
    return structured(topic, str(row.position), bytes(row.event), attempts=attempts)


def _chunks(items: list[T]) -> list[list[T]]:
    return [items[at : at + _KEYS_AT_ONCE] for at in range(0, len(items), _KEYS_AT_ONCE)]
