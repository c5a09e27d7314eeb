"""Progress of long work as NDJSON: lines with `progress`, then one with `result` or `error`."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import AsyncIterator, Callable
from typing import Any, Final

import msgspec

NDJSON: Final = "application/x-ndjson"
_MAX_WAITING: Final = 1_000
"""Lines that wait for a slow reader; further progress is dropped, never the end."""

Work = Callable[[Callable[[str, float | None], None]], Any]


async def stream(work: Work, describe: Callable[[BaseException], dict[str, object]]) -> AsyncIterator[bytes]:
    """Run `work` in a thread of its own and yield its lines.

    When the reader goes away the work goes on to its end: what it began is durable and its result can be read later.
    """
    loop = asyncio.get_running_loop()
    lines: asyncio.Queue[bytes | None] = asyncio.Queue()

    def send(line: dict[str, Any] | None) -> None:
        data = None if line is None else msgspec.json.encode(line) + b"\n"
        try:
            loop.call_soon_threadsafe(lines.put_nowait, data)
        except RuntimeError:
            return  # the server's loop is gone, and with it the reader

    def progress(message: str, fraction: float | None) -> None:
        if lines.qsize() < _MAX_WAITING:
            send({"progress": {"message": message, "fraction": fraction}})

    def run() -> None:
        try:
            send({"result": work(progress)})
        except BaseException as error:  # noqa: BLE001 - whatever ended the work must reach the reader
            send(describe(error))
        send(None)

    threading.Thread(target=run, name="taut-operation", daemon=True).start()
    while (line := await lines.get()) is not None:
        yield line
