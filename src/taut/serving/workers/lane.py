"""One model's workers and the line before them: batches out, answers in, the dead replaced."""

from __future__ import annotations

import asyncio
import socket
from collections.abc import Awaitable, Callable
from typing import Any, Final

import msgspec
import numpy.typing as npt

from taut.core.errors import Corrupt, DeadlineExceeded, InvalidInput, Unavailable
from taut.serving.errors import BadAnswer, Shed, WorkerLost
from taut.serving.meters import BATCH_ROWS, Histogram
from taut.serving.runtime import Cost, Feed
from taut.serving.workers import wire
from taut.serving.workers.member import Member
from taut.serving.workers.queue import Item, Line, Pace, Wait
from taut.serving.workers.rota import Rota
from taut.serving.workers.settings import LaneSettings
from taut.serving.workers.worker import Loaded

Hire = Callable[[bool], Awaitable[tuple[socket.socket, int]]]
"""Starts one more worker of the lane's model, which may use an accelerator or may not, and returns the gateway's end of its socket, and its process."""

_FIRST_PAUSE_S: Final = 0.05
_LAST_PAUSE_S: Final = 10.0
_RETRIES_SAVED: Final = 16.0
_RETRY_SHARE: Final = 0.1
_SLOW: Final = 4.0
_NOTABLE: Final = 0.15
_HANGS: Final = 20.0  # times as long as the fit says
_SAID_BYTES: Final = 1000
_LOOK_S: Final = 0.25
_STILLBORN_MAX: Final = 3
_LOAD_S: Final = 60.0
_MEMORY_SLACK: Final = 2**26  # pages that it shares with the process that forked it
_CAUTIOUS: Final = Cost(base_us=1000.0, row_us=100.0)


class Lane:
    """Scores feeds of one model in worker processes. One event loop owns it.

    Guarantees: a feed is answered, refused or failed by its deadline. When a worker dies, only the requests that it
    worked on notice: each is tried once more, alone, while the retry budget (a tenth of the requests) lasts. One bad
    row fails its own request only.
    """

    def __init__(
        self,
        name: str,
        hire: Hire,
        settings: LaneSettings,
        *,
        matrix_width: int | None,
        answer_width: int = wire.WIDTH_MAX,
        rota: Rota | None = None,
    ) -> None:
        self.name: Final = name
        self.loaded: Loaded | None = None
        self.sizes: Final = Histogram(BATCH_ROWS)
        self.shed = 0
        self.lost = 0
        self.held_s = 0.0
        self.rota: Final = rota or Rota()
        self._members: Final = self.rota.members
        self._hire: Final = hire
        self._settings: Final = settings
        self._width: Final = matrix_width
        self._answer_width: Final = answer_width
        self._loop: Final = asyncio.get_running_loop()
        self._line = Line(settings.plan(_CAUTIOUS))
        self._layout: wire.Layout | None = None
        self._first: Final[asyncio.Future[None]] = self._loop.create_future()
        self._retries = _RETRIES_SAVED
        self._pause_s = _FIRST_PAUSE_S
        self._hiring: Final[set[asyncio.Task[None]]] = set()
        self._stillborn = 0
        self._retired = False
        self._sweep: asyncio.TimerHandle | None = None
        self._cost = _CAUTIOUS
        self._pace: Final = Pace()
        self._planned_for = 1.0

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

    async def run(
        self,
        feed: Feed,
        rows: int,
        *,
        deadline_s: float,
        priority: int,
        caller: str,
        wait: Wait | None = None,
    ) -> npt.NDArray[Any]:
        """Return the raw tensor of a feed. deadline_s: by the loop's clock. wait: told how long the
        feed waited for a worker.

        Raises Shed, with the seconds to wait, when the line is full; DeadlineExceeded; BadAnswer when the model
        fails on the feed; WorkerLost when its worker died.
        """
        if self._retired:
            raise Unavailable(f"{self.name} is being taken out of service: try again")
        answer: asyncio.Future[npt.NDArray[Any]] = self._loop.create_future()
        item = Item(rows, deadline_s, priority, caller, feed, answer, wait=wait, since_s=self._loop.time())
        self._retries = min(_RETRIES_SAVED, self._retries + _RETRY_SHARE)
        if not len(self._line) and (idle := self._idle_member()):
            self._at_once(idle, item)  # nobody waits: there is no line to stand in
            if sum(map(bool, (member.batch for member in self._members))) == 1:
                idle.look()  # alone: it may well be answered before the loop could be told of it
        else:
            for turned_away in self._line.offer(item):
                self.shed += 1
                _fail(
                    turned_away,
                    _full(self.name, self._line.plan.seconds(self._line.rows) / max(1, self.alive)),
                )
            self._dispatch()
        timer = None if answer.done() else self._loop.call_at(deadline_s, self._expire, item)
        try:
            return await answer
        finally:
            if timer is not None:
                timer.cancel()
            if not answer.done() or answer.cancelled():
                self._line.remove(item)  # whoever asked is gone
            del answer, item  # a refusal in it holds this frame, and would be held by it

    async def retire(self) -> None:
        """Finish what is under way, then let the workers go."""
        self._retired = True
        while len(self._line) or any(member.batch for member in self._members):
            await asyncio.sleep(0.01)
        self.close()

    def close(self) -> None:
        """End every worker now; what waits fails."""
        self._retired = True
        if self._sweep is not None:
            self._sweep.cancel()
        for task in self._hiring:
            task.cancel()
        for member in tuple(self._members):
            member.end("is not needed any more")
        for item in self._line.clear():
            _fail(item, Unavailable(f"{self.name} was taken out of service: try again"))

    @property
    def waiting_rows(self) -> int:
        return self._line.rows

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

    def load(self) -> tuple[float, float, float, int]:
        """Return (seconds until a request that comes now is begun, seconds of a batch, and of each row of it, workers)."""
        alive, cost = self.alive, self._line.plan.cost
        if self.idle:
            return 0.0, cost.base_us / 1e6, cost.row_us / 1e6, alive
        running = sum(member.rows for member in self._working() if member.batch)
        ahead_s = self._line.plan.seconds(self._line.rows + running // 2) / alive if alive else float("inf")
        return ahead_s, cost.base_us / 1e6, cost.row_us / 1e6, alive

    # batches

    def _idle_member(self) -> Member | None:
        """Return the fastest worker that has nothing to do."""
        idle = [member for member in self._working() if member.idle]
        return min(idle, key=lambda one: one.row_us) if idle else None

    def _working(self) -> list[Member]:
        """Return the workers that take batches; those that came after them are spares, until one of these is gone."""
        if not self._settings.spares:
            return self._members
        return [member for member in self._members if member.ready][: self._settings.workers]

    def _at_once(self, member: Member, item: Item) -> None:
        now_s = self._loop.time()
        if now_s + self._line.plan.seconds(item.rows) > item.deadline_s:
            _fail(item, _too_late())
            self._plan_anew(doubting=True)
        else:
            self._give(member, [item], now_s)

    def _dispatch(self) -> None:
        while len(self._line) and (member := self._idle_member()):
            now_s = self._loop.time()
            batch, late = self._line.take(now_s, share=member.share)
            for item in late:
                _fail(item, _too_late())
            if batch:
                self._give(member, batch, now_s)
            elif late:
                self._plan_anew(doubting=True)

    def _give(self, member: Member, batch: list[Item], now_s: float) -> None:
        assert self._layout is not None
        rows = sum(item.rows for item in batch)
        self.sizes.observe(rows)
        member.allowed_s = max(self._settings.hang_s, _HANGS * self._line.plan.seconds(rows))
        for item in batch:
            if item.wait is not None:
                item.wait.seconds = now_s - item.since_s
        member.give(batch, rows, self._layout.buffers([item.feed for item in batch]), now_s)

    def _heard(self, member: Member, frame: wire.Frame) -> None:
        if frame.kind == wire.LOADED and not member.ready:
            self._welcome(member, frame)
        elif frame.kind == wire.FAILED and not member.ready:
            self._cannot_load(member, frame.body[:_SAID_BYTES].decode("utf-8", "replace"))
        elif frame.kind in (wire.DONE, wire.FAILED, wire.MOVED) and member.batch:
            self._answered(member, frame)
        else:
            member.end("said what nobody asked for")
        self._dispatch()

    def _answered(self, member: Member, frame: wire.Frame) -> None:
        if frame.kind == wire.FAILED:
            batch = self._done(member)
            said = frame.body[:_SAID_BYTES].decode("utf-8", "replace")
            for item in batch:
                if len(batch) > 1:  # one row may be to blame: the others must not pay
                    self._again(item)
                else:
                    _fail(item, BadAnswer(said))
            return
        try:
            moved = frame.kind == wire.MOVED
            body = self.rota.moved(member, frame.body, self._loop.time()) if moved else frame.body
            tensor = wire.output_tensor(body, member.rows)
        except Corrupt as error:
            member.end(str(error))
            return
        batch = self._done(member)
        at = 0
        for item in batch:
            if not item.answer.done():
                item.answer.set_result(tensor[at : at + item.rows])
            at += item.rows
        self._look_for_slow(member)

    def _done(self, member: Member) -> list[Item]:
        """Take a batch back and learn from how long it took."""
        expected_s = (member.cost or self._cost).us(member.rows) / 1e6
        now_s = self._loop.time()
        self._pace.observe((now_s - member.sent_s) / max(expected_s, 1e-6))
        self._plan_anew()
        batch = member.done(expected_s, now_s)
        self.rota.answered(member)
        member.leave_if_told()
        return batch

    def _plan_anew(self, *, doubting: bool = False) -> None:
        """Fit the line to what batches take now, where that has changed by more than a little.

        doubting: the estimate, by which everything would be too late: only a batch that is tried can correct it.
        """
        if doubting:
            self._pace.relax()
        slowest = self.rota.slowest()
        if slowest is not None and slowest != self._cost:
            self._cost, self._planned_for = slowest, 0.0
        factor = self._pace.factor
        if abs(factor - self._planned_for) > _NOTABLE * self._planned_for:
            self._planned_for = factor
            cost = Cost(base_us=self._cost.base_us * factor, row_us=self._cost.row_us * factor)
            self._line.plan = self._settings.plan(cost)

    def _again(self, item: Item) -> None:
        if not item.answer.done():
            item.alone = True
            self._line.put_back(item)

    def _look_for_slow(self, member: Member) -> None:
        """Eject a worker that has become far slower than its siblings."""
        if len(self._members) < 2:
            return
        others = [one.ratio for one in self._members if one is not member and one.ready]
        if others and member.share == 1.0 and member.ratio > _SLOW * max(1.0, min(others)):
            member.end(f"takes {member.ratio:.0f} times as long as it did")

    # workers come and go

    def _welcome(self, member: Member, frame: wire.Frame) -> None:
        try:
            loaded = msgspec.json.decode(frame.body, type=Loaded)
        except msgspec.DecodeError as error:  # a builder's code may speak here too
            self._cannot_load(member, f"its worker said what is no load ({error})")
            return
        if self.loaded is None:
            self.loaded = loaded
            self._layout = wire.Layout(loaded.inputs, matrix_width=self._width)
            self._cost = loaded.cost or _CAUTIOUS
            self._planned_for = 0.0
            self._plan_anew()
        member.welcome()
        member.placement = loaded.placement
        member.cost = loaded.cost if self.rota.wanted else None
        self._pause_s = _FIRST_PAUSE_S
        member.allow(self._settings.cpus * self.rota.threads(member))
        self.rota.welcome(member, self._loop.time())
        self._plan_anew()
        if not self._first.done():
            self._first.set_result(None)

    def _cannot_load(self, member: Member, said: str) -> None:
        if not self._first.done():
            self._first.set_exception(InvalidInput(f"{self.name}: {said}"))
            self._retired = True
        member.end(f"cannot load the model: {said}")

    def _gone(self, member: Member, why: str) -> None:
        self._members.remove(member)
        batch, member.batch = member.batch, []
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
        for item in batch:
            self._lost(item, why)
        self._dispatch()

    def _lost(self, item: Item, why: str) -> None:
        item.attempts += 1
        if item.answer.done():
            return
        if item.attempts > 1 or item.deadline_s <= self._loop.time() or self._retries < 1 or self._retired:
            _fail(item, WorkerLost(f"the worker of {self.name} {why} over this request: try again"))
            return
        self._retries -= 1
        self._again(item)

    def _look_at_members(self) -> None:
        """Kill workers that do not answer or take too much memory, and hold those that take too much of the processors; looked
        for at intervals, since a timer a batch would cost each of them."""
        now_s, most = self._loop.time(), self._settings.memory_bytes
        for member in tuple(self._members):
            self.held_s += member.govern(now_s)
            load_s = self._settings.device_load_s if member.accelerated else _LOAD_S
            if not member.ready and now_s > member.born_s + load_s:
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
        self._sweep = self._loop.call_later(min(_LOOK_S, self._settings.hang_s / 8), self._look_at_members)

    def _replace(self, *, pause_s: float) -> None:
        task = self._loop.create_task(self._hire_one(pause_s))
        self._hiring.add(task)
        task.add_done_callback(self._hiring.discard)

    async def _hire_one(self, pause_s: float) -> None:
        while not self._retired:
            await asyncio.sleep(pause_s)
            try:
                accelerated = self.rota.accelerated(self._loop.time())
                sock, pid = await self._hire(accelerated)
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
                )
            )
            return

    # refusals

    def _expire(self, item: Item) -> None:
        self._line.remove(item)
        if item.wait is not None and not item.wait.seconds:
            item.wait.seconds = self._loop.time() - item.since_s
        _fail(item, _too_late())


def _fail(item: Item, error: Exception) -> None:
    if not item.answer.done():
        item.answer.set_exception(error)


def _full(name: str, clear_s: float) -> Shed:
    """Return why a request is turned away. clear_s: until the line is empty."""
    return Shed(
        f"{name} has more to do than it can: send less, or try again", retry_after_s=max(1.0, clear_s)
    )


def _too_late() -> DeadlineExceeded:
    return DeadlineExceeded("the answer would not be ready in time: allow more time or send less")
