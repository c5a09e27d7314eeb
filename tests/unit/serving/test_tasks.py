"""Ending a task from within one that is itself ended in that moment."""

from __future__ import annotations

import asyncio

import pytest

from taut.serving.tasks import end_task


async def for_ever() -> None:
    while True:
        try:
            await asyncio.sleep(3600)
        finally:
            await asyncio.sleep(0.01)  # its last words take a moment


def test_who_is_cancelled_while_he_ends_a_task_ends_too() -> None:
    async def work() -> None:
        inner = asyncio.create_task(for_ever())
        await asyncio.sleep(0)
        await end_task(inner)
        await asyncio.sleep(3600)

    async def main() -> None:
        outer = asyncio.create_task(work())
        await asyncio.sleep(0.002)  # it waits for the inner one now
        outer.cancel()
        done, _ = await asyncio.wait([outer], timeout=5)
        assert outer in done
        assert outer.cancelled()

    asyncio.run(main())


def test_a_task_that_failed_is_not_forgotten() -> None:
    async def fails() -> None:
        raise ValueError("broken")

    async def main() -> None:
        task = asyncio.create_task(fails())
        await asyncio.sleep(0)
        with pytest.raises(ValueError, match="broken"):
            await end_task(task)

    asyncio.run(main())
