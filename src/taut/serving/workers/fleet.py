"""All workers of one gateway: a zygote that forks them, and a lane a model."""

from __future__ import annotations

import asyncio
import contextlib
import os
import socket
import subprocess
from collections.abc import Callable, Iterable, Sequence
from typing import Any, Final

import msgspec
import numpy.typing as npt

from taut.core.errors import Unavailable
from taut.core.schema import ModelSignature
from taut.serving.runtime import Cost, Feed, Matrix, Outputs
from taut.serving.runtime.encode import columns_encoder
from taut.serving.runtime.outputs import output_checker
from taut.serving.runtime.rows import Value
from taut.serving.workers import wire, zygote
from taut.serving.workers.lane import Lane, LaneSettings
from taut.serving.workers.worker import Order

StartZygote = Callable[[int], subprocess.Popen[bytes]]
"""Starts the zygote's process with one inherited descriptor, its end of the door."""

_FORK_TIMEOUT_S: Final = 30.0
_CAUTIOUS_ROWS: Final = 16


class WorkerModel:
    """A model that lies in worker processes; what a gateway needs to make its tensors and to check its answers.

    Its face is that of `LoadedModel`, except that `lane.run` is awaited where `run` would be called.
    """

    def __init__(self, lane: Lane, signature: ModelSignature) -> None:
        assert lane.loaded is not None, "a lane is started before its model is used"
        self.lane: Final = lane
        self.signature: Final = signature
        self.row_major: Final = signature.tensor == "matrix"
        self.tensors: Final = lane.loaded.inputs
        self.cost: Final[Cost | None] = lane.loaded.cost
        self.encode: Final[Callable[[Sequence[Sequence[Value]]], Feed]] = (
            Matrix([item.column for item in signature.inputs]).encode
            if self.row_major
            else columns_encoder(signature.inputs, self.tensors)
        )
        self.check: Final[Callable[[npt.NDArray[Any], int], Outputs]] = output_checker(signature)

    def rows_within(self, budget_us: float) -> int:
        """Return the largest batch that answers within the budget; a cautious one when the cost is not known."""
        return _CAUTIOUS_ROWS if self.cost is None else self.cost.rows_within(budget_us)


class Fleet:
    """Workers of one gateway. `open` may be called from another thread than the loop's; the rest not.

    The zygote is started with the first model that needs workers, and again when it died; workers that it has forked
    live on without it.
    """

    def __init__(self, start_zygote: StartZygote) -> None:
        self._start_zygote: Final = start_zygote
        self._loop: Final = asyncio.get_running_loop()
        self._lanes: Final[dict[str, tuple[Lane, WorkerModel]]] = {}
        self._retiring: Final[set[asyncio.Task[None]]] = set()
        self._door: socket.socket | None = None
        self._zygote: subprocess.Popen[bytes] | None = None
        self._forking: Final = asyncio.Lock()

    @property
    def lanes(self) -> list[Lane]:
        return [lane for lane, _ in self._lanes.values()]

    def open(
        self, key: str, name: str, model: bytes, order: Order, settings: LaneSettings, *, timeout_s: float
    ) -> WorkerModel:
        """Return the model of `key`, its first worker ready to score. Blocks: not for the loop's own thread.

        Raises InvalidInput when the model cannot be loaded, Unavailable when no worker can be started in time.
        """
        future = asyncio.run_coroutine_threadsafe(self._open(key, name, model, order, settings), self._loop)
        try:
            return future.result(timeout_s)
        except TimeoutError:
            future.cancel()
            raise Unavailable(
                f"{name}: no worker was ready within {timeout_s:g} s: see the gateway's log"
            ) from None

    async def _open(
        self, key: str, name: str, model: bytes, order: Order, settings: LaneSettings
    ) -> WorkerModel:
        known = self._lanes.get(key)
        if known is not None:
            return known[1]

        async def hire() -> tuple[socket.socket, int]:
            return await self._fork(model, order)

        width = len(order.signature.inputs) if order.signature.tensor == "matrix" else None
        lane = Lane(name, hire, settings, matrix_width=width)
        try:
            await lane.start()
        except BaseException:
            lane.close()
            raise
        made = WorkerModel(lane, order.signature)
        self._lanes[key] = (lane, made)
        return made

    def keep(self, models: Iterable[object]) -> None:
        """Let every lane go that none of these models works with, once its requests are answered."""
        kept = {id(model) for model in models}
        for key, (lane, model) in tuple(self._lanes.items()):
            if id(model) not in kept:
                del self._lanes[key]
                task = self._loop.create_task(lane.retire())
                self._retiring.add(task)
                task.add_done_callback(self._retiring.discard)

    async def close(self) -> None:
        """End all workers and the zygote."""
        for task in self._retiring:
            task.cancel()
        for lane, _ in self._lanes.values():
            lane.close()
        self._lanes.clear()
        if self._door is not None:
            self._door.close()
        if self._zygote is not None:
            await self._loop.run_in_executor(None, self._zygote.wait)

    async def _fork(self, model: bytes, order: Order) -> tuple[socket.socket, int]:
        async with self._forking:
            return await self._loop.run_in_executor(None, self._fork_now, model, msgspec.json.encode(order))

    def _fork_now(self, model: bytes, order: bytes) -> tuple[socket.socket, int]:
        """Ask the zygote for a worker; start the zygote where there is none. Raises OSError or Unavailable."""
        ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_STREAM)
        descriptors = [theirs.fileno()]
        try:
            descriptors.append(wire.anonymous_file([model]))
            descriptors.append(wire.anonymous_file([order]))
            door = self._open_door()
            try:
                socket.send_fds(door, [zygote.REQUEST.pack(len(model), len(order))], descriptors)
                said = door.recv(zygote.ANSWER.size, socket.MSG_WAITALL)
            except OSError:
                said = b""
            if len(said) != zygote.ANSWER.size:
                self._close_door()
                raise Unavailable("the process that forks workers ended: another is started")
        except BaseException:
            ours.close()
            raise
        finally:
            theirs.close()
            for descriptor in descriptors[1:]:
                os.close(descriptor)
        return ours, zygote.ANSWER.unpack(said)[0]

    def _open_door(self) -> socket.socket:
        if self._door is None or self._zygote is None or self._zygote.poll() is not None:
            self._close_door()
            ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_STREAM)
            with theirs:
                self._zygote = self._start_zygote(theirs.fileno())
            ours.settimeout(_FORK_TIMEOUT_S)
            self._door = ours
        return self._door

    def _close_door(self) -> None:
        if self._door is not None:
            self._door.close()
            self._door = None
        if self._zygote is not None:
            with contextlib.suppress(subprocess.TimeoutExpired):
                self._zygote.wait(timeout=5)
            if self._zygote.poll() is None:
                self._zygote.kill()
                self._zygote.wait()
