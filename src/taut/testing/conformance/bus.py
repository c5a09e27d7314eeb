"""What every Bus must do. Subclass in a test module and give `open`; each test works on topics of its own."""

from __future__ import annotations

import contextlib
import threading
import time
import uuid
from abc import ABC, abstractmethod
from collections.abc import Callable
from contextlib import AbstractContextManager
from pathlib import Path

import pytest

from taut.core.cloudevents import Event
from taut.core.errors import Conflict, InvalidInput
from taut.ports.bus import Bus, Delivery, Output, Settled, Subscription

LEASE_S = 0.4
"""How long a consumer under test may hold what it was handed."""


def event(name: str, data: bytes = b'{"x": 1}', *, source: str = "tests") -> Event:
    return Event(id=name, source=source, type="test", data=data, time="2026-01-01T00:00:00Z")


def events(count: int, *, start: int = 0) -> list[Event]:
    return [event(f"e{index}", b'{"x": %d}' % index) for index in range(start, start + count)]


def ids(deliveries: list[Delivery]) -> list[str]:
    return [delivery.event.id for delivery in deliveries if delivery.event is not None]


def take(
    subscription: Subscription, count: int, *, limit: int = 100, within_s: float = 90.0
) -> list[Delivery]:
    """Receive until `count` deliveries are there."""
    found: list[Delivery] = []
    end = time.monotonic() + within_s
    while len(found) < count:
        assert time.monotonic() < end, f"{len(found)} of {count} came: {ids(found)}"
        found += subscription.receive(limit=min(limit, count - len(found)), wait_s=0.2)
    return found


class BusSuite(ABC):
    """The suite.

    counts_attempts: a redelivery says that it is one. leases: see `LeasedBusSuite`. one_order: a topic has one order, and not one a partition.
    """

    counts_attempts = True
    leases = False
    one_order = True

    @abstractmethod
    def open(self, folder: Path) -> AbstractContextManager[Bus]:
        """Open the broker of the test; the same one for the same folder. Its leases last `LEASE_S`."""

    @pytest.fixture
    def topic(self) -> str:
        return f"t{uuid.uuid4().hex}"

    @pytest.fixture
    def out(self) -> str:
        return f"o{uuid.uuid4().hex}"

    def test_events_come_whole_and_in_their_order(self, tmp_path: Path, topic: str) -> None:
        odd = Event(
            id="ü/1", source="/a b", type="x.y", data="\0\xff".encode("latin-1"), content_type="text/plain",
            subject="s", inputid="i", inputsource="j", traceparent="00-1-2-03",
        )  # fmt: skip
        sent = [*events(20), odd, event("null", b"null"), event("long", b'"' + b"x" * 100_000 + b'"')]
        with self.open(tmp_path) as bus:
            assert bus.publish(topic, sent) == len(sent)
            subscription = bus.subscribe(topic, "g")
            found = take(subscription, len(sent))
            came = [delivery.event for delivery in found if delivery.event is not None]
            assert self._ordered(came) == self._ordered(sent)
            assert len({delivery.position for delivery in found}) == len(sent)
            assert {delivery.attempts for delivery in found} == {0}
            subscription.close()

    def test_a_group_begins_with_what_was_there_before_it(self, tmp_path: Path, topic: str) -> None:
        with self.open(tmp_path) as bus:
            bus.publish(topic, events(3))
            for group in ("one", "two"):
                subscription = bus.subscribe(topic, group)
                assert self._order(ids(take(subscription, 3))) == ["e0", "e1", "e2"]
                subscription.close()

    def test_receive_returns_at_once_with_what_is_there_and_waits_for_no_more(
        self, tmp_path: Path, topic: str
    ) -> None:
        with self.open(tmp_path) as bus:
            bus.publish(topic, events(2))
            subscription = bus.subscribe(topic, "g")
            first = take(subscription, 2)
            start = time.monotonic()
            subscription.settle([Settled(delivery) for delivery in first])
            assert subscription.receive(limit=10, wait_s=0.1) == []
            later = threading.Timer(0.2, lambda: bus.publish(topic, events(1, start=5)))
            later.start()
            assert ids(take(subscription, 1)) == ["e5"]
            later.join()
            assert time.monotonic() - start < 8
            subscription.close()

    def test_no_more_than_the_limit_comes_at_once(self, tmp_path: Path, topic: str) -> None:
        with self.open(tmp_path) as bus:
            bus.publish(topic, events(30))
            subscription = bus.subscribe(topic, "g")
            sizes: list[int] = []
            while sum(sizes) < 30:
                sizes.append(len(subscription.receive(limit=7, wait_s=1.0)))
            assert max(sizes) <= 7
            subscription.close()

    def test_what_was_settled_never_comes_again(self, tmp_path: Path, topic: str) -> None:
        with self.open(tmp_path) as bus:
            bus.publish(topic, events(4))
            subscription = bus.subscribe(topic, "g")
            subscription.settle([Settled(delivery) for delivery in take(subscription, 4)])
            subscription.close()
            time.sleep(LEASE_S * 1.5)
            again = bus.subscribe(topic, "g")
            assert again.receive(limit=10, wait_s=LEASE_S) == []
            again.close()

    def test_what_was_not_settled_comes_again_to_whoever_follows(self, tmp_path: Path, topic: str) -> None:
        with self.open(tmp_path) as bus:
            bus.publish(topic, events(6))
            first = bus.subscribe(topic, "g")
            held = take(first, 6)
            first.settle([Settled(delivery) for delivery in held[:2]])
            first.close()
            time.sleep(LEASE_S * 1.2)
            second = bus.subscribe(topic, "g")
            found = take(second, 4)
            assert sorted(ids(found)) == sorted(ids(held[2:]))
            if self.counts_attempts:
                assert {delivery.attempts for delivery in found} == {1}
            second.close()

    def test_a_slow_consumer_is_not_handed_again_what_it_holds(self, tmp_path: Path, topic: str) -> None:
        with self.open(tmp_path) as bus:
            bus.publish(topic, events(3))
            subscription = bus.subscribe(topic, "g")
            held = take(subscription, 3)
            end = time.monotonic() + LEASE_S * 3
            while time.monotonic() < end:
                assert subscription.receive(limit=3, wait_s=0.1) == []
            subscription.settle([Settled(delivery) for delivery in held[:2]])
            subscription.close()
            time.sleep(LEASE_S * 1.2)
            after = bus.subscribe(topic, "g")
            (left,) = take(after, 1)
            if self.counts_attempts:
                assert left.attempts == 1
            after.close()

    def test_outputs_are_there_when_settle_returns(self, tmp_path: Path, topic: str, out: str) -> None:
        with self.open(tmp_path) as bus:
            bus.publish(topic, events(5))
            subscription = bus.subscribe(topic, "g")
            settled = [_answered(delivery, out) for delivery in take(subscription, 5)]
            assert subscription.settle(settled) == 5
            reader = bus.subscribe(out, "check")
            assert self._order(ids(take(reader, 5))) == [f"answer-e{index}" for index in range(5)]
            reader.close()
            subscription.close()

    def test_settling_again_changes_nothing(self, tmp_path: Path, topic: str, out: str) -> None:
        with self.open(tmp_path) as bus:
            bus.publish(topic, events(3))
            subscription = bus.subscribe(topic, "g")
            settled = [_answered(delivery, out) for delivery in take(subscription, 3)]
            subscription.settle(settled)
            assert subscription.settle(settled) == 0
            assert self._all(bus, out, 3) == [f"answer-e{index}" for index in range(3)]
            subscription.close()

    def test_an_event_that_is_published_twice_has_one_answer(
        self, tmp_path: Path, topic: str, out: str
    ) -> None:
        with self.open(tmp_path) as bus:
            assert bus.publish(topic, events(3)) == 3
            assert bus.publish(topic, [*events(4), event("e0", source="elsewhere"), event("e9")]) == 3
            assert self._all(bus, topic, 6) == self._order(["e0", "e1", "e2", "e3", "e0", "e9"])
            subscription = bus.subscribe(topic, "g")
            same = event("one-answer")
            settled = [Settled(delivery, (Output(out, same),)) for delivery in take(subscription, 6)]
            assert subscription.settle(settled) == 1
            assert self._all(bus, out, 1) == ["one-answer"]
            subscription.close()

    def test_consumers_of_a_group_share_and_miss_nothing(self, tmp_path: Path, topic: str, out: str) -> None:
        with self.open(tmp_path) as bus:
            bus.publish(topic, events(200))
            stop = threading.Event()
            failures: list[Exception] = []

            def work() -> None:
                try:
                    mine = bus.subscribe(topic, "g")
                    while not stop.is_set():
                        found = mine.receive(limit=10, wait_s=0.1)
                        with contextlib.suppress(Conflict):  # taken away: it comes again
                            mine.settle([_answered(delivery, out) for delivery in found])
                    mine.close()
                except Exception as error:  # noqa: BLE001 - a thread's failure is the test's
                    failures.append(error)

            threads = [threading.Thread(target=work) for _ in range(3)]
            for thread in threads:
                thread.start()
            found = self._all(bus, out, 200)
            stop.set()
            for thread in threads:
                thread.join()
            assert not failures, failures
            assert sorted(found) == sorted(f"answer-e{index}" for index in range(200))

    def test_state_and_peek_say_what_waits_and_take_nothing(self, tmp_path: Path, topic: str) -> None:
        with self.open(tmp_path) as bus:
            assert bus.state(topic, "g").length == 0
            assert bus.peek(topic, "g", limit=5) == []
            bus.publish(topic, events(5))
            subscription = bus.subscribe(topic, "g")
            assert (bus.state(topic, "g").length, bus.state(topic, "g").waiting) == (5, 5)
            if self.one_order:
                assert ids(bus.peek(topic, "g", limit=2)) == ["e0", "e1"]
            assert len(bus.peek(topic, "g", limit=2)) == 2
            held = take(subscription, 2, limit=2)
            subscription.settle([Settled(held[0])])
            if self.leases:
                state = bus.state(topic, "g")
                assert (state.waiting, state.pending) == (3, 1)
                assert ids(bus.peek(topic, "g", limit=2)) == ["e2", "e3"]
            subscription.close()

    @pytest.mark.parametrize("name", ["", "a b", "a/b", "-a", "a*", "x" * 129, "a\n"])
    def test_a_name_that_a_broker_cannot_carry_is_refused(self, tmp_path: Path, name: str) -> None:
        with self.open(tmp_path) as bus:
            for refused in (
                lambda: bus.publish(name, [event("e")]),
                lambda: bus.subscribe(name, "g"),
                lambda: bus.subscribe("topic", name),
            ):
                with pytest.raises(InvalidInput, match=r"topic|group"):
                    refused()

    def test_data_that_claims_to_be_json_and_is_not_is_refused(self, tmp_path: Path, topic: str) -> None:
        with self.open(tmp_path) as bus, pytest.raises(InvalidInput, match="JSON"):
            bus.publish(topic, [event("e", b'{"x": 1}, {"injected": 2}')])

    def _all(self, bus: Bus, topic: str, count: int) -> list[str]:
        """Every id on a topic: `count` of them, and then no more."""
        reader = bus.subscribe(topic, f"check{uuid.uuid4().hex[:8]}")
        found = take(reader, count, within_s=90.0)
        more = reader.receive(limit=10, wait_s=0.3)
        reader.close()
        return self._order(ids(found) + ids(more))

    def _order(self, names: list[str]) -> list[str]:
        return names if self.one_order else sorted(names)

    def _ordered(self, found: list[Event]) -> list[Event]:
        return found if self.one_order else sorted(found, key=lambda one: one.id)


class LeasedBusSuite(BusSuite):
    """For brokers that hand to others what a consumer holds too long, while it lives."""

    leases = True

    def test_a_dead_consumers_messages_are_taken_over(self, tmp_path: Path, topic: str) -> None:
        with self.open(tmp_path) as bus:
            bus.publish(topic, events(3))
            dead, living = bus.subscribe(topic, "g"), bus.subscribe(topic, "g")
            began_s = time.monotonic()
            assert len(take(dead, 3)) == 3
            early = living.receive(limit=3, wait_s=0.05)
            assert (
                early == [] or time.monotonic() - began_s >= LEASE_S
            )  # a machine may stand still as long as a lease
            time.sleep(LEASE_S)
            assert sorted(ids(early + take(living, 3 - len(early)))) == ["e0", "e1", "e2"]
            living.close()
            dead.close()

    def test_two_consumers_that_both_answer_have_one_effect(
        self, tmp_path: Path, topic: str, out: str
    ) -> None:
        with self.open(tmp_path) as bus:
            bus.publish(topic, events(3))
            slow, fast = bus.subscribe(topic, "g"), bus.subscribe(topic, "g")
            held = take(slow, 3)
            time.sleep(LEASE_S * 1.2)
            taken = take(fast, 3)
            fast.settle([_answered(delivery, out) for delivery in taken])
            slow.settle([_answered(delivery, out) for delivery in held])
            assert sorted(self._all(bus, out, 3)) == [f"answer-e{index}" for index in range(3)]
            slow.close()
            fast.close()


def _answered(delivery: Delivery, out: str) -> Settled:
    assert delivery.event is not None
    return Settled(delivery, (Output(out, event(f"answer-{delivery.event.id}")),))


def refuses(deliver: Callable[[], list[Delivery]], fault: str) -> None:
    """Assert that what comes is no event, and says why."""
    (found,) = deliver()
    assert found.event is None
    assert fault in found.fault
