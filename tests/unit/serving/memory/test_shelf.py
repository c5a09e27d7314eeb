"""Who stays in memory and who goes."""

from __future__ import annotations

from pathlib import Path
from typing import Any, cast

import pytest

from taut.serving.memory import Heap, Resident, Shelf, machine_memory_bytes

MIB = 2**20
MODEL = cast(Any, object())


def put(
    shelf: Shelf, name: str, *, mib: int = 10, load_s: float = 0.1, used_ns: int = 1, **more: Any
) -> Resident:
    one = Resident(name, name, **more)
    gone = shelf.take(one, mib * MIB)
    assert gone is not None
    for other in gone:
        other.set(None)
    one.load_s, one.used_ns = load_s, used_ns
    one.set(MODEL)
    shelf.loaded(one)
    return one


def names(gone: list[Resident] | None) -> list[str] | None:
    return None if gone is None else [one.key for one in gone]


def test_of_equal_models_the_one_that_was_asked_least_recently_goes() -> None:
    shelf = Shelf(30 * MIB)
    first, second, _ = (put(shelf, name, used_ns=at) for at, name in enumerate("abc"))
    first.used_ns, second.used_ns = 20, 10

    assert names(shelf.take(Resident("d", "d"), 10 * MIB)) == ["c"]
    assert names(shelf.take(Resident("e", "e"), 10 * MIB)) == ["b"]


def test_of_two_that_are_asked_alike_the_one_that_is_quicker_to_load_again_goes() -> None:
    shelf = Shelf(20 * MIB)
    put(shelf, "slow", load_s=2.0, used_ns=1)
    put(shelf, "quick", load_s=0.01, used_ns=2)

    assert names(shelf.take(Resident("d", "d"), 10 * MIB)) == ["quick"]


def test_of_two_that_are_asked_alike_the_one_that_takes_more_room_goes() -> None:
    shelf = Shelf(60 * MIB)
    put(shelf, "large", mib=50, used_ns=2)
    put(shelf, "small", mib=10, used_ns=1)

    assert names(shelf.take(Resident("d", "d"), 10 * MIB)) == ["large"]


def test_a_costly_model_that_nobody_asks_any_more_goes_in_the_end() -> None:
    shelf = Shelf(20 * MIB)
    put(shelf, "costly", load_s=1.0)
    gone: list[str] = []
    for turn in range(40):
        one = Resident(f"m{turn}", f"m{turn}")
        one.load_s, one.used_ns = 0.1, turn + 2
        found = shelf.take(one, 10 * MIB)
        assert found is not None
        gone += [victim.key for victim in found]
        one.set(MODEL)
        shelf.loaded(one)

    assert gone.index("costly") in range(5, 20)


def test_a_model_that_is_kept_or_in_use_never_goes() -> None:
    shelf = Shelf(30 * MIB)
    put(shelf, "kept", keep=True)
    used = put(shelf, "used")
    put(shelf, "idle")
    used.pin()

    assert names(shelf.take(Resident("d", "d"), 20 * MIB)) is None
    assert shelf.used_bytes == 30 * MIB  # and nobody went in vain
    assert names(shelf.take(Resident("d", "d"), 10 * MIB)) == ["idle"]
    used.unpin()
    assert names(shelf.take(Resident("e", "e"), 10 * MIB)) == ["used"]


def test_what_is_being_loaded_takes_room_and_does_not_go() -> None:
    shelf = Shelf(20 * MIB)
    loading = Resident("loading", "loading")
    assert shelf.take(loading, 15 * MIB) == []

    assert shelf.take(Resident("d", "d"), 10 * MIB) is None
    assert shelf.take(loading, 10 * MIB) == []  # it turned out to be smaller
    assert shelf.take(Resident("d", "d"), 10 * MIB) == []


def test_a_smaller_budget_takes_the_least_valuable_out_and_leaves_who_is_in_use() -> None:
    shelf = Shelf(40 * MIB)
    busy = put(shelf, "busy", used_ns=1)
    for at, name in enumerate("abc", start=2):
        put(shelf, name, used_ns=at)
    busy.pin()

    assert names(shelf.resize(20 * MIB)) == ["a", "b"]
    assert names(shelf.resize(5 * MIB)) == ["c"]
    assert shelf.used_bytes == 10 * MIB
    busy.unpin()
    assert names(shelf.shrink()) == ["busy"]


def test_the_allocator_says_what_a_load_took() -> None:
    heap = Heap()
    before = heap.used_bytes()
    held = bytearray(64 * MIB)
    taken = heap.used_bytes() - before
    del held
    heap.give_back()

    assert taken >= 60 * MIB or not heap.exact
    assert heap.used_bytes() - before < 4 * MIB or not heap.exact


@pytest.mark.parametrize("limits", [{"": "max"}, {"": "max", "a": "1048576", "a/b": "max"}, {"a/b": "4096"}])
def test_the_memory_of_the_machine_is_what_its_control_groups_leave(
    tmp_path: Path, limits: dict[str, str]
) -> None:
    own = tmp_path / "own"
    own.write_text("0::/a/b\n")
    for inner, limit in limits.items():
        (tmp_path / inner).mkdir(parents=True, exist_ok=True)
        (tmp_path / inner / "memory.max").write_text(f"{limit}\n")

    found = machine_memory_bytes(cgroups=tmp_path, own=own)

    numbers = [int(limit) for limit in limits.values() if limit.isdigit()]
    assert found == min(numbers) if numbers else found > 2**26
