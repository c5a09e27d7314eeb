"""The workers of one lane: hired, welcomed once they have loaded the model, watched over, replaced when they end."""

from __future__ import annotations

import asyncio
import socket
from abc import ABC, abstractmethod
from collections.abc import Awaitable, Callable
from typing import Final

import msgspec

from taut.core.errors import Corrupt, InvalidInput, Unavailable
from taut.core.evidence import Check
from taut.serving.workers import wire
from taut.serving.workers.exam import Exam, Examiner
from taut.serving.workers.leave import Charge, Unwarded, Ward
from taut.serving.workers.member import Member
from taut.serving.workers.queue import Item
from taut.serving.workers.rota import Rota
from taut.serving.workers.settings import LaneSettings
from taut.serving.workers.worker import Loaded

Hire = Callable[[bool, Charge], Awaitable[tuple[socket.socket, int]]]
"""Starts one more worker of the lane's model, which may use an accelerator or may not, and is charged so; returns the gateway's end of
its socket, and its process."""

_FIRST_PAUSE_S: Final = 0.05
_LAST_PAUSE_S: Final = 10.0
_SAID_BYTES: Final = 1000
_LOOK_S: Final = 0.25
_STILLBORN_MAX: Final = 3
_LOAD_S: Final = 60.0
_MEMORY_SLACK: Final = 2**26  # pages that it shares with the process that forked it


class Crew(ABC):
    """Keeps as many workers of one model as there should be. One event loop owns it. What they work on is the lane's.

    loaded: what the first worker said that had loaded the model. lost: workers that ended without being told to. held_s:
    for how long workers stood still that took more of the processors than they may. rota: where they run. ward: who admits them;
    examiner: what they show before; None for whoever has loaded the model.
    """

    def __init__(
        self, name: str, hire: Hire, settings: LaneSettings, *, answer_width: int, rota: Rota | None,
        ward: Ward | None, examiner: Examiner | None,
    ) -> None:  # fmt: skip
        self.name: Final = name
        self.loaded: Loaded | None = None
        self.lost = 0
        self.held_s = 0.0
        self.rota: Final = rota or Rota()
        self._members: Final = self.rota.members
        self._ward: Final = ward or Unwarded()
        self._examiner: Final = examiner
        self._hire: Final = hire
        self._settings: Final = settings
        self._answer_width: Final = answer_width
        self._loop: Final = asyncio.get_running_loop()
        self._first: Final[asyncio.Future[None]] = self._loop.create_future()
        self._pause_s = _FIRST_PAUSE_S
        self._hiring: Final[set[asyncio.Task[None]]] = set()
        self._stillborn = 0
        self._retired = False
        self._sweep: asyncio.TimerHandle | None = None

    # what the lane does with them

    @abstractmethod
    def begins(self, loaded: Loaded) -> None:
        """Hear what the first worker says of the model."""

    @abstractmethod
    def staffed(self) -> None:
        """Hear that a worker may be ready that was not."""

    @abstractmethod
    def heard(self, member: Member, frame: wire.Frame) -> None:
        """Take a frame of a worker that has loaded the model."""

    @abstractmethod
    def dropped(self, batch: list[Item], why: str) -> None:
        """Take back what a worker worked on that is gone."""

    # from outside

    async def start(self) -> Loaded:
        """Hire the workers and return what the first says once it has loaded the model.

        Raises Corrupt or InvalidInput for a model that no worker can load, Unavailable when none can be started.
        """
        self._look_at_members()
        for _ in range(self._settings.workers + self._settings.spares):
            self._replace(pause_s=0.0)
        await asyncio.shield(self._first)
        assert self.loaded is not None
        return self.loaded

    def dismiss(self) -> None:
        """End every worker now, and hire nobody any more."""
        self._retired = True
        if self._sweep is not None:
            self._sweep.cancel()
        for task in self._hiring:
            task.cancel()
        for member in tuple(self._members):
            member.end("is not needed any more")

    @property
    def wanted(self) -> int:
        """Return how many workers there should be, without spares."""
        return self._settings.workers

    @property
    def spares(self) -> int:
        """Return how many spares are ready."""
        return sum(1 for member in self._members if member.ready) - self.alive

    @property
    def alive(self) -> int:
        """Return how many workers are ready."""
        return sum(1 for member in self._working() if member.ready)

    @property
    def idle(self) -> int:
        """Return how many workers have nothing to do."""
        return sum(1 for member in self._working() if member.idle)

    # who works

    def _idle_member(self) -> Member | None:
        """Return the fastest worker that has nothing to do."""
        if len(self._members) == 1:
            return self._members[0] if self._members[0].idle else None
        idle = [member for member in self._working() if member.idle]
        return min(idle, key=lambda one: one.row_us) if idle else None

    def _working(self) -> list[Member]:
        """Return the workers that take batches; those that came after them are spares, until one of these is gone."""
        if not self._settings.spares:
            return self._members
        return [member for member in self._members if member.ready][: self._settings.workers]

    # they come and go

    def _heard(self, member: Member, frame: wire.Frame) -> None:
        if member.ready:
            self.heard(member, frame)
        elif member.exam is not None:
            self._examined(member, member.exam, frame)
        elif member.showed:
            member.end("said what nobody asked for")
        elif frame.kind == wire.LOADED:
            self._loaded(member, frame)
        elif frame.kind == wire.FAILED:
            self._cannot_load(member, said(frame))
        else:
            member.end("said what nobody asked for")

    def _loaded(self, member: Member, frame: wire.Frame) -> None:
        try:
            loaded = msgspec.json.decode(frame.body, type=Loaded)
        except msgspec.DecodeError as error:  # a builder's code may speak here too
            self._cannot_load(member, f"its worker said what is no load ({error})")
            return
        if self.loaded is None:
            self.loaded = loaded
            self.begins(loaded)
        member.placement = loaded.placement
        member.cost = loaded.cost if self.rota.wanted else None

        def done(checks: tuple[Check, ...]) -> None:
            member.exam, member.showed = None, True
            self._ward.showed(
                member.charge.incarnation, checks, lambda name: self._granted(member, name), lambda why: self._refused(member, why),
            )  # fmt: skip
            if not self._first.done() and not member.gone:
                self._first.set_result(None)

        if self._examiner is None:
            done(())
        else:
            exam = self._examiner.begin(member, loaded, member.charge, self._ward, done)
            if not member.gone:
                member.exam = exam

    def _examined(self, member: Member, exam: Exam, frame: wire.Frame) -> None:
        try:
            if frame.kind == wire.MOVED:
                body = self.rota.moved(member, frame.body, self._loop.time())
                frame = wire.Frame(wire.DONE, frame.rows, body)
            exam.heard(frame)
        except Corrupt as error:
            member.end(str(error))

    def _refused(self, member: Member, why: str) -> None:
        member.end(f"is not admitted: {why}")

    def _granted(self, member: Member, name: str) -> None:
        """Let a worker be given rows from now on, and record its answers by this name."""
        member.name = name
        if member.ready or member.gone:
            return
        member.welcome()
        self._pause_s = _FIRST_PAUSE_S
        member.allow(self._settings.cpus * self.rota.threads(member))
        self.rota.welcome(member, self._loop.time())
        self.staffed()

    def _cannot_load(self, member: Member, said: str) -> None:
        if not self._first.done():
            self._first.set_exception(InvalidInput(f"{self.name}: {said}"))
            self._retired = True
        member.end(f"cannot load the model: {said}")

    def _gone(self, member: Member, why: str) -> None:
        self._members.remove(member)
        batch, member.batch = member.batch, []
        self._ward.ended(member.charge.incarnation, why)
        if not (member.leaving or self._retired):
            self.rota.gone(member, why, self._loop.time())
        if not self._first.done() and not member.accelerated:
            self._stillborn += 1
            if self._stillborn >= _STILLBORN_MAX * self.wanted:
                said = f"{self.name}: {self._stillborn} workers {why} before they had loaded it"
                self._first.set_exception(
                    Unavailable(f"{said}: it may want more memory than they have, or crash")
                )
                self._retired = True
        if not self._retired and not member.leaving:
            self.lost += 1
            if self.rota.short(len(self._hiring)):
                self._replace(pause_s=0.0 if member.answered else self._pause_s)
            if not member.answered:
                self._pause_s = min(_LAST_PAUSE_S, 2 * self._pause_s)
        self.dropped(batch, why)

    def _look_at_members(self) -> None:
        """Kill workers that do not answer or take too much memory, and hold those that take too much of the processors; looked
        for at intervals, since a timer a batch would cost each of them."""
        now_s, most = self._loop.time(), self._settings.memory_bytes
        for member in tuple(self._members):
            self.held_s += member.govern(now_s)
            load_s = self._settings.device_load_s if member.accelerated else _LOAD_S
            if not member.showed and now_s > member.born_s + load_s:
                member.end(f"did not load the model within {load_s:g} s")
            elif most and member.memory_bytes() > most + _MEMORY_SLACK:
                member.end(f"took more than {most / 2**20:,.0f} MiB of memory")
            elif member.batch and now_s > member.sent_s + member.allowed_s:
                for item in member.batch:
                    item.attempts = max(
                        item.attempts, 1
                    )  # asked for again, it would hang the next worker too
                member.end(f"did not answer for {member.allowed_s:g} s")
        if self.rota.due(now_s):
            self._replace(pause_s=0.0)
        self._sweep = self._loop.call_at(
            next_look_s(now_s, min(_LOOK_S, self._settings.hang_s / 8)), self._look_at_members
        )

    def _replace(self, *, pause_s: float) -> None:
        task = self._loop.create_task(self._hire_one(pause_s))
        self._hiring.add(task)
        task.add_done_callback(self._hiring.discard)

    async def _hire_one(self, pause_s: float) -> None:
        while not self._retired:
            await asyncio.sleep(pause_s)
            try:
                accelerated = self.rota.accelerated(self._loop.time())
                charge = self._ward.charge()
                sock, pid = await self._hire(accelerated, charge)
            except (OSError, Unavailable) as error:
                pause_s = min(_LAST_PAUSE_S, 2 * max(pause_s, _FIRST_PAUSE_S))
                if pause_s == _LAST_PAUSE_S and not self._first.done():
                    self._first.set_exception(
                        Unavailable(f"{self.name}: no worker can be started ({error}): see the gateway's log")
                    )
                continue
            self._members.append(
                Member(
                    sock,
                    pid,
                    answer_width=self._answer_width,
                    on_frame=self._heard,
                    on_gone=self._gone,
                    cpus=self._settings.cpus * self.rota.threads(None),
                    accelerated=accelerated and self.rota.wanted,
                    charge=charge,
                )
            )
            return


def next_look_s(now_s: float, step_s: float) -> float:
    """Return when to look again: after a step, or half of one more or less, at a moment that all lanes share.

    A wake for each lane costs an idle gateway more than what it looks at, since each finds the processor's caches cold.
    """
    return (round(now_s / step_s) + 1) * step_s


def said(frame: wire.Frame) -> str:
    """Return the words of a frame that says why something failed, cut where they are too many."""
    return frame.body[:_SAID_BYTES].decode("utf-8", "replace")
