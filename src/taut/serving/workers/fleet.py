"""All workers of one gateway: a zygote that forks them, and a lane a model."""

from __future__ import annotations

import asyncio
import contextlib
import os
import socket
import subprocess
from collections.abc import Callable
from typing import Final

import msgspec

from taut.core.canonical import digest_bytes
from taut.core.errors import InvalidInput, Unavailable
from taut.core.schema import ModelSignature
from taut.serving.runtime import ModelForm, code_tensors
from taut.serving.workers import wire, zygote
from taut.serving.workers.exam import Examiner
from taut.serving.workers.lane import Lane
from taut.serving.workers.leave import Charge, Unwarded, Ward
from taut.serving.workers.rota import Rota, Tell
from taut.serving.workers.settings import LaneSettings
from taut.serving.workers.worker import Order

StartZygote = Callable[[int], subprocess.Popen[bytes]]
"""Starts the zygote's process with one inherited descriptor, its end of the door."""

Warden = Callable[[str, str, str], Ward]
"""Returns who admits the workers of a model: of its name, its artifact's digest and its endpoint's class of risk."""

_FORK_TIMEOUT_S: Final = 30.0


class WorkerModel(ModelForm):
    """A model that lies in worker processes: `lane.run` is awaited where a loaded one's `run` would be called."""

    def __init__(
        self, lane: Lane, signature: ModelSignature, *, artifact_bytes: int = 0, processes: int = 1
    ) -> None:
        assert lane.loaded is not None, "a lane is started before its model is used"
        super().__init__(signature, lane.loaded.inputs)
        self.lane: Final = lane
        self.cost = lane.loaded.cost
        self._artifact_bytes: Final = artifact_bytes
        self._processes: Final = processes

    @property
    def bytes_of_all(self) -> int:
        """Return what its workers take beside what they share, with the artifact that further ones are made from."""
        loaded = self.lane.loaded
        return self._artifact_bytes + (0 if loaded is None else self._processes * loaded.private_bytes)


class Fleet:
    """Workers of one gateway. `open` may be called from another thread than the loop's; the rest not.

    The zygote is started with the first model that needs workers, and again when it died; workers that it has forked
    live on without it. tell: of models that change their device. warden: who admits the workers of a model.
    """

    def __init__(
        self,
        start_zygote: StartZygote,
        *,
        tell: Tell = lambda _what, _why: None,
        warden: Warden = lambda _name, _artifact, _risk: Unwarded(),
    ) -> None:
        self._warden: Final = warden
        self._start_zygote: Final = start_zygote
        self._tell: Final = tell
        self._loop: Final = asyncio.get_running_loop()
        self._models: Final[dict[str, WorkerModel]] = {}
        self._retiring: Final[set[asyncio.Task[None]]] = set()
        self._door: socket.socket | None = None
        self._zygote: subprocess.Popen[bytes] | None = None
        self._forking: Final = asyncio.Lock()

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
        known = self._models.get(key)
        if known is not None:
            return known

        artifact = order.artifact or digest_bytes(model)

        async def hire(accelerated: bool, charge: Charge) -> tuple[socket.socket, int]:
            placed = order if accelerated else order.on_cpu()
            return await self._fork(model, msgspec.structs.replace(placed, charge=charge))

        width = len(order.signature.inputs) if order.signature.tensor == "matrix" else None
        rota = Rota(
            order.wish.devices if order.signature.form == "onnx" else (),
            workers=settings.workers + settings.spares, pause_s=settings.device_pause_s,
            tell=lambda what, why: self._tell(f"{name}: {what}", why),
        )  # fmt: skip
        lane = Lane(
            name,
            hire,
            settings,
            matrix_width=width,
            answer_width=len(order.signature.classes) or 1,
            rota=rota,
            ward=self._warden(name, artifact, settings.risk),
            examiner=Examiner(order.signature, artifact=artifact, width=width, hang_s=settings.hang_s),
        )
        try:
            loaded = await lane.start()
            if order.signature.form == "code" and loaded.inputs != code_tensors(order.signature):
                raise InvalidInput(f"{name}: its code says in its worker that it takes other inputs")
        except BaseException:
            lane.close()
            raise
        processes = settings.workers + settings.spares
        made = self._models[key] = WorkerModel(
            lane, order.signature, artifact_bytes=len(model), processes=processes
        )
        return made

    def let_go(self, model: WorkerModel) -> None:
        """Let the workers of a model go, once their requests are answered. May be called from any thread."""
        self._loop.call_soon_threadsafe(self._let_go, model)

    def _let_go(self, model: WorkerModel) -> None:
        for key, known in tuple(self._models.items()):
            if known is model:
                del self._models[key]
                task = self._loop.create_task(model.lane.retire())
                self._retiring.add(task)
                task.add_done_callback(self._retiring.discard)

    async def close(self) -> None:
        """End all workers and the zygote."""
        for task in self._retiring:
            task.cancel()
        for model in self._models.values():
            model.lane.close()
        self._models.clear()
        await self._loop.run_in_executor(None, self._close_door)

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
