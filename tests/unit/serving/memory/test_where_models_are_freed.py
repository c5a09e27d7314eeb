"""Models that leave memory are freed beside the event loop, whose every request would wait for it."""

from __future__ import annotations

import asyncio
import threading
import time
import weakref
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest

from taut.serving.gateway.stocking import Stocking
from taut.serving.memory import Heap, Resident, Residents, Shelf, Want
from taut.serving.runtime import load
from taut.testing.serving import matrix_model, matrix_signature

MODELS = 6


class Keeping:
    """A planted fault: somebody on the loop keeps a model until the next comes, and so is the one who frees it."""

    def __init__(self) -> None:
        self.kept: list[Any] = []

    def __call__(self, resident: Resident) -> None:
        if resident.model is not None:
            self.kept[:] = [resident.model]


def freed_on(home: Path, changed: Any) -> tuple[int, list[int], int]:
    """Ask six models in turn of which one at a time has room.

    Returns the loop's thread, those that freed models, and how many were evicted.
    """
    freed: list[int] = []
    data, signature = matrix_model(3), matrix_signature(3)

    def want(name: str) -> Want:
        def loaded() -> tuple[Any, int]:
            model = load(data, signature)
            weakref.finalize(model, lambda: freed.append(threading.get_ident()))
            return model, 10 * 2**20

        return Want(key=name, name=name, live=True, keep=False, load=loaded, check=lambda: 2**20)

    async def run() -> int:
        stocking = Stocking(home=home, fleet=None, heap=Heap())
        with ThreadPoolExecutor(2) as loader:
            residents = Residents(
                shelf=Shelf(15 * 2**20), loader=loader, let_go=stocking.let_go, changed=changed
            )
            wants = [want(f"m{number}") for number in range(MODELS)]
            found = await residents.stock(wants, budget_bytes=15 * 2**20)
            residents.adopt(wants)
            for resident in found.values():
                resident.pin()
                await residents.ready(resident, timeout_s=20.0)
                resident.unpin()
            until_s = time.monotonic() + 90
            while len(freed) < MODELS - 1 and time.monotonic() < until_s:
                await asyncio.sleep(0.001)
            await residents.close()
        return residents.evictions

    evictions = asyncio.run(run())
    return threading.get_ident(), freed[: MODELS - 1], evictions


def test_every_evicted_model_is_freed_on_another_thread_than_the_loops(tmp_path: Path) -> None:
    loop, freed, evictions = freed_on(tmp_path, lambda _: None)

    assert evictions == len(freed) == MODELS - 1
    assert loop not in freed


def test_a_reference_that_the_loop_keeps_is_found(tmp_path: Path) -> None:
    loop, freed, _ = freed_on(tmp_path, Keeping())

    with pytest.raises(AssertionError):
        assert loop not in freed
