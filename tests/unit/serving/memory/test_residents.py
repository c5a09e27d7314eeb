"""Models that come into memory when they are asked for: one load for all, within the budget, off the loop."""

from __future__ import annotations

import asyncio
import functools
from collections.abc import Awaitable, Callable, Coroutine
from concurrent.futures import Executor, Future
from typing import Any, cast

import pytest

from taut.core.errors import Corrupt, InvalidInput, Unavailable
from taut.serving.memory import NotLoaded, Resident, Residents, Shelf, Want

MIB = 2**20


def on_loop(test: Callable[[], Coroutine[Any, Any, None]]) -> Callable[[], None]:
    @functools.wraps(test)
    def run() -> None:
        asyncio.run(test())

    return run


class Forgetful(Shelf):
    """A planted fault: it forgets to look at pins."""

    def _may_go(self) -> list[Resident]:
        return [one for one in self if one.model is not None and not one.keep]


class ByHand(Executor):
    """Runs what it is given when the test says so; checks and freeing at once."""

    def __init__(self) -> None:
        self.waiting: list[tuple[Future[Any], Callable[[], Any]]] = []

    def submit(self, fn: Callable[..., Any], /, *args: Any, **_: Any) -> Future[Any]:
        future: Future[Any] = Future()
        if getattr(fn, "by_hand", False):
            self.waiting.append((future, lambda: fn(*args)))
        else:
            _run(future, lambda: fn(*args))
        return future

    def run_one(self) -> None:
        _run(*self.waiting.pop(0))


def _run(future: Future[Any], fn: Callable[[], Any]) -> None:
    try:
        future.set_result(fn())
    except Exception as error:  # noqa: BLE001 - as any executor hands it on
        future.set_exception(error)


class Model:
    """Stands for a model; the house never looks into it."""

    def __init__(self, name: str) -> None:
        self.name = name


class House:
    """Models with the sizes that a test gives them, and what became of them."""

    def __init__(
        self, budget_mib: int, *, by_hand: bool = False, slow_to_go: bool = False, shelf: type[Shelf] = Shelf
    ) -> None:
        self.loader = ByHand()
        self.by_hand = by_hand
        self.loads: list[str] = []
        self.gone: list[str] = []
        self.changes: list[str] = []
        self.faults: dict[str, Exception] = {}
        self.peak_bytes = 0
        self.budget_bytes = budget_mib * MIB
        self.residents = Residents(
            shelf=shelf(self.budget_bytes),
            loader=self.loader,
            let_go=self._let_go_by_hand if slow_to_go else self._let_go,
            changed=self._changed,
        )

    def _let_go(self, held: list[Any]) -> None:
        self.gone.append(held.pop().name)

    def _let_go_by_hand(self, held: list[Any]) -> None:
        self._let_go(held)

    _let_go_by_hand.by_hand = True  # type: ignore[attr-defined]  # read by the executor above

    def _changed(self, resident: Resident) -> None:
        self.changes.append(resident.name)
        used = self.residents.reading().used_bytes
        self.peak_bytes = max(self.peak_bytes, used)
        assert used <= self.budget_bytes

    def want(
        self, name: str, *, mib: int = 10, live: bool = True, keep: bool | None = False, artifact_mib: int = 1
    ) -> Want:
        def load() -> tuple[Any, int]:
            self.loads.append(name)
            if name in self.faults:
                raise self.faults[name]
            return Model(name), mib * MIB

        def check() -> int:
            if name in self.faults:
                raise self.faults[name]
            return artifact_mib * MIB

        load.by_hand = self.by_hand  # type: ignore[attr-defined]  # read by the executor above
        return Want(key=name, name=name, live=live, keep=keep, load=load, check=check)

    async def serve(self, *wants: Want) -> dict[str, Resident]:
        found = await self.residents.stock(wants, budget_bytes=self.budget_bytes)
        self.residents.adopt(wants)
        await settled()
        return found

    async def ask(
        self, resident: Resident, *, timeout_s: float = 5.0, during: Awaitable[Any] | None = None
    ) -> str:
        """Do as a request does: pin, wait, work, unpin."""
        resident.pin()
        try:
            await self.residents.ready(resident, timeout_s=timeout_s)
            if during is not None:
                await during
            assert resident.model is not None, "evicted beneath a request"
            return cast(Any, resident.model).name
        finally:
            resident.unpin()


async def settled() -> None:
    for _ in range(20):
        await asyncio.sleep(0)


@on_loop
async def test_a_model_is_loaded_with_its_first_request_and_once_for_all_who_wait() -> None:
    house = House(100, by_hand=True)
    found = await house.serve(house.want("a"), house.want("b"))
    assert house.loads == []
    asked = [asyncio.create_task(house.ask(found["a"])) for _ in range(50)]
    await settled()
    assert (found["a"].state, found["b"].state) == ("loading", "on demand")
    assert len(house.loader.waiting) == 1

    house.loader.run_one()

    assert await asyncio.gather(*asked) == ["a"] * 50
    assert (house.loads, found["a"].state, found["a"].pins) == (["a"], "loaded", 0)
    reading = house.residents.reading()
    assert (reading.loaded, reading.known, reading.used_bytes) == (1, 2, 10 * MIB)


@on_loop
async def test_a_request_waits_no_longer_than_it_may_and_the_load_goes_on() -> None:
    house = House(100, by_hand=True)
    found = await house.serve(house.want("a"))

    with pytest.raises(NotLoaded, match="still being loaded") as refused:
        await house.ask(found["a"], timeout_s=0.01)

    assert refused.value.retry_after_s >= 1.0
    house.loader.run_one()
    await settled()
    assert found["a"].state == "loaded"
    assert await house.ask(found["a"], timeout_s=0.0) == "a"
    assert house.loads == ["a"]


@on_loop
async def test_as_many_models_as_there_is_room_for_are_loaded_ahead_kept_ones_first() -> None:
    house = House(38)
    wants = [house.want(name, keep=None) for name in "abcd"] + [house.want("kept", keep=True)]

    found = await house.serve(*wants)

    assert house.loads[0] == "kept"
    assert [name for name, one in found.items() if one.model] == ["kept", "a", "b"]
    assert house.loads == ["kept", *"abcd"]  # c before the switch, d after it: larger than they looked
    assert house.residents.evictions == 0  # nobody goes for one that nobody asked for


@on_loop
async def test_the_least_valuable_goes_when_another_is_asked_for() -> None:
    house = House(36)
    found = await house.serve(*(house.want(name, keep=None) for name in "abcd"))
    for name, used_ns in {"a": 3, "b": 1, "c": 2}.items():
        found[name].load_s, found[name].used_ns = 0.1, used_ns

    assert await house.ask(found["d"]) == "d"

    await settled()
    assert house.gone[-1] == "b"
    assert house.residents.evictions == 1


@on_loop
async def test_a_model_in_use_is_never_evicted_and_whoever_needs_its_room_waits_for_it() -> None:
    house = House(15)
    found = await house.serve(house.want("a"), house.want("b"))
    done = asyncio.Event()
    first = asyncio.create_task(house.ask(found["a"], during=done.wait()))
    await settled()
    second = asyncio.create_task(house.ask(found["b"]))
    await asyncio.sleep(0.12)
    assert (found["a"].state, found["b"].state) == ("loaded", "loading")

    done.set()

    assert await asyncio.gather(first, second) == ["a", "b"]
    assert house.gone == ["a"]


@on_loop
async def test_a_shelf_that_forgets_to_look_at_pins_is_caught_by_the_same_requests() -> None:
    house = House(15, shelf=Forgetful)
    found = await house.serve(house.want("a"), house.want("b"))
    done = asyncio.Event()
    first = asyncio.create_task(house.ask(found["a"], during=done.wait()))
    await settled()
    await house.ask(found["b"])
    done.set()

    with pytest.raises(AssertionError, match="evicted beneath a request"):
        await first


@on_loop
async def test_a_model_larger_than_it_looked_gets_the_room_that_it_takes_or_none() -> None:
    house = House(40)
    found = await house.serve(
        *(house.want(name, keep=None) for name in "abc"),
        house.want("big", mib=25),
        house.want("huge", mib=50),
    )

    assert await house.ask(found["big"]) == "big"
    with pytest.raises(NotLoaded, match=r"huge takes 50.0 MiB.*40.0 MiB.*raise TAUT_MODEL_MEMORY"):
        await house.ask(found["huge"])

    await settled()
    assert house.peak_bytes <= 40 * MIB
    assert "huge takes" in found["huge"].fault
    assert house.residents.failures == 1


@on_loop
async def test_a_snapshot_with_a_model_that_can_never_fit_is_refused() -> None:
    house = House(40)

    with pytest.raises(InvalidInput, match="raise TAUT_MODEL_MEMORY"):
        await house.serve(house.want("a"), house.want("huge", artifact_mib=50, keep=None))
    with pytest.raises(InvalidInput, match="is not kept by others"):
        await house.serve(*(house.want(name, mib=15, keep=True) for name in "abc"))


@on_loop
async def test_a_fault_is_told_remembered_for_a_while_and_tried_again() -> None:
    house = House(40)
    found = await house.serve(house.want("a"))
    house.faults["a"] = Corrupt("the artifact was changed: restore it")

    for _ in range(3):
        with pytest.raises(NotLoaded, match="a cannot be loaded: the artifact was changed") as refused:
            await house.ask(found["a"])
    assert house.loads == ["a"]  # asked again at once, it is not even tried
    assert refused.value.retry_after_s >= 1.0
    assert house.residents.reading().used_bytes == 0

    del house.faults["a"]
    await house.residents.load(found["a"], timeout_s=1.0)  # an operator need not wait
    assert (found["a"].state, found["a"].fault) == ("loaded", "")


@on_loop
async def test_a_corrupt_artifact_keeps_a_snapshot_out_unless_it_only_stands_in() -> None:
    house = House(40)
    house.faults["bad"] = Corrupt("changed")

    with pytest.raises(Corrupt):
        await house.serve(house.want("a"), house.want("bad"))
    found = await house.serve(house.want("a"), house.want("bad", live=False))

    assert (found["a"].fault, found["bad"].fault) == ("", "changed")


@on_loop
async def test_models_of_the_snapshot_before_go_once_their_requests_are_answered() -> None:
    house = House(40)
    before = await house.serve(house.want("a"), house.want("b"))
    done = asyncio.Event()
    under_way = asyncio.create_task(house.ask(before["a"], during=done.wait()))
    await house.ask(before["b"])

    after = await house.serve(house.want("b"))

    assert after["b"] is before["b"]
    assert house.gone == []
    done.set()
    assert await under_way == "a"
    await settled()
    assert house.gone == ["a"]
    with pytest.raises(NotLoaded, match="taken out of service"):
        await house.ask(before["a"])


@on_loop
async def test_a_model_that_comes_back_before_it_is_gone_is_the_same_one() -> None:
    house = House(40)
    before = await house.serve(house.want("a"), house.want("b"))
    done = asyncio.Event()
    under_way = asyncio.create_task(house.ask(before["a"], during=done.wait()))
    await settled()

    await house.serve(house.want("b"))
    again = await house.serve(house.want("a"), house.want("b"))
    done.set()

    assert await under_way == "a"
    assert again["a"] is before["a"]
    assert await house.ask(again["a"]) == "a"
    assert (house.loads, house.gone) == (["a"], [])


@on_loop
async def test_a_model_is_not_loaded_again_before_it_was_let_go() -> None:
    house = House(40, slow_to_go=True)
    found = await house.serve(house.want("a"))
    await house.ask(found["a"])
    await house.residents.unload(found["a"], timeout_s=1.0)
    asked = asyncio.create_task(house.ask(found["a"]))
    await settled()
    assert house.loads == ["a"]

    house.loader.run_one()

    assert await asked == "a"
    assert (house.loads, house.gone) == (["a", "a"], ["a"])


@on_loop
async def test_after_a_release_the_room_of_what_went_is_filled() -> None:
    house = House(15)
    await house.serve(house.want("old", keep=None))

    found = await house.serve(house.want("new", keep=None))
    await settled()

    assert house.gone == ["old"]
    assert found["new"].state == "loaded"


@on_loop
async def test_an_operator_unloads_what_is_idle_and_not_kept() -> None:
    house = House(40)
    found = await house.serve(house.want("a", keep=None), house.want("kept", keep=True))

    await house.residents.unload(found["a"], timeout_s=1.0)
    with pytest.raises(InvalidInput, match="keep_loaded"):
        await house.residents.unload(found["kept"], timeout_s=1.0)
    assert await house.ask(found["a"]) == "a"
    found["a"].pin()
    with pytest.raises(Unavailable, match="in use"):
        await house.residents.unload(found["a"], timeout_s=0.01)


@on_loop
async def test_two_endpoints_that_share_a_model_share_its_memory() -> None:
    house = House(40)
    found = await house.serve(house.want("a", keep=False), house.want("a", keep=True))

    assert house.loads == ["a"]
    assert found["a"].keep is True


@on_loop
async def test_what_lies_ready_beside_a_live_model_never_takes_its_place_and_says_what_it_would_take() -> (
    None
):
    house = House(20)
    live, beside = house.want("live", mib=15, keep=True), house.want("beside", mib=15, live=False, keep=True)

    found = await house.residents.stock([beside, live], budget_bytes=20 * MIB)

    assert found["live"].loaded
    assert not found["beside"].loaded
    assert "beside takes 15.0 MiB" in found["beside"].fault
    assert "raise TAUT_MODEL_MEMORY" in found["beside"].fault
