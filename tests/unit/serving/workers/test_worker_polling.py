"""Looking instead of sleeping: only for what comes at once, and never where others want the processor."""

from __future__ import annotations

from taut.serving.workers.polling import Poll

MOST_NS = 100_000
YIELD_NS = 2_000


class Processor:
    """A clock that moves when somebody gives way; `wanted_ns`: how long the others then take."""

    def __init__(self) -> None:
        self.now_ns = 0
        self.wanted_ns = YIELD_NS

    def counter_ns(self) -> int:
        return self.now_ns

    def give_way(self) -> None:
        self.now_ns += self.wanted_ns


def waiter() -> tuple[Poll, Processor]:
    processor = Processor()
    return Poll(MOST_NS, counter_ns=processor.counter_ns, give_way=processor.give_way), processor


def wait(poll: Poll, processor: Processor, ns: int) -> int:
    """Wait for what comes after `ns`; return for how long it was looked for."""
    began_ns = processor.now_ns
    poll.begin()
    while processor.now_ns - began_ns < ns and poll.again():
        pass
    looked_ns = processor.now_ns - began_ns
    processor.now_ns = max(processor.now_ns, began_ns + ns)
    poll.end()
    return looked_ns


def test_who_has_not_waited_yet_sleeps() -> None:
    assert wait(*waiter(), 50_000) == 0


def test_what_comes_at_once_is_looked_for_from_then_on() -> None:
    poll, processor = waiter()
    wait(poll, processor, 50_000)

    assert wait(poll, processor, 60_000) == 60_000


def test_what_comes_rarely_is_soon_slept_for() -> None:
    poll, processor = waiter()
    wait(poll, processor, 50_000)

    looked_ns = [wait(poll, processor, 10_000_000) for _ in range(20)]

    assert looked_ns[0] == MOST_NS
    assert sum(looked_ns) < 3 * MOST_NS
    assert looked_ns[-1] == 0


def test_one_slow_answer_among_quick_ones_changes_little() -> None:
    poll, processor = waiter()
    wait(poll, processor, 50_000)
    wait(poll, processor, 10_000_000)

    assert wait(poll, processor, 50_000) == 50_000


def test_where_others_want_the_processor_it_is_left_to_them() -> None:
    poll, processor = waiter()
    wait(poll, processor, 50_000)
    processor.wanted_ns = 3_000_000

    looked = [wait(poll, processor, 50_000) for _ in range(2000)]

    assert looked[0] == 3_000_000
    assert looked[1:4] == [0] * 3
    assert sum(map(bool, looked)) < 16
    assert looked[-250:].count(0) >= 249


def test_who_was_disturbed_once_looks_again_soon() -> None:
    poll, processor = waiter()
    wait(poll, processor, 50_000)
    found = []
    for _ in range(20):
        processor.wanted_ns = 3_000_000
        wait(poll, processor, 50_000)
        processor.wanted_ns = YIELD_NS
        found += [wait(poll, processor, 50_000) for _ in range(99)]

    assert found.count(50_000) > 0.9 * len(found)


def test_who_is_disturbed_at_every_third_wait_soon_sleeps() -> None:
    poll, processor = waiter()
    wait(poll, processor, 50_000)
    disturbed = 0
    for at in range(3000):
        processor.wanted_ns = YIELD_NS if at % 3 else 3_000_000
        disturbed += wait(poll, processor, 50_000) > 50_000

    assert disturbed < 0.02 * 3000
