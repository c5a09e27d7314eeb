"""Ending tasks."""

from __future__ import annotations

import asyncio
from typing import Any


async def end_task(task: asyncio.Task[Any]) -> None:
    """Cancel a task and wait until it has ended. Raises what it raised instead.

    Whoever awaits a cancelled task and suppresses CancelledError also swallows his own cancellation when it comes in
    that moment, and lives on for ever: a gateway that was told to stop while control went away did.
    """
    task.cancel()
    await asyncio.wait([task])
    if not task.cancelled():
        task.result()
