"""One model's workers and the line before them: batches out, answers in, the dead replaced."""

from __future__ import annotations

import asyncio
from typing import Any, Final

import numpy.typing as npt

from taut.core.errors import Corrupt, DeadlineExceeded, Unavailable
from taut.serving.errors import BadAnswer, NotAdmitted, Shed, WorkerLost
from taut.serving.meters import BATCH_ROWS, Histogram
from taut.serving.runtime import Cost, Feed
from taut.serving.workers import wire
from taut.serving.workers.crew import Crew, Hire, said
from taut.serving.workers.exam import Examiner
from taut.serving.workers.leave import Ward
from taut.serving.workers.member import Member
from taut.serving.workers.queue import Item, Line, Pace, Wait
from taut.serving.workers.rota import Rota
from taut.serving.workers.settings import LaneSettings
from taut.serving.workers.worker import Loaded

_RETRIES_SAVED: Final = 16.0
_RETRY_SHARE: Final = 0.1
_SLOW: Final = 4.0
_NOTABLE: Final = 0.15
_HANGS: Final = 20.0  # times as long as the fit says
_CAUTIOUS: Final = Cost(base_us=1000.0, row_us=100.0)


class Lane(Crew):
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
        ward: Ward | None = None,
        examiner: Examiner | None = None,
    ) -> None:
        super().__init__(
            name, hire, settings, answer_width=answer_width, rota=rota, ward=ward, examiner=examiner
        )
        self.sizes: Final = Histogram(BATCH_ROWS)
        self.shed = 0
        self._width: Final = matrix_width
        self._line = Line(settings.plan(_CAUTIOUS))
        self._layout: wire.Layout | None = None
        self._retries = _RETRIES_SAVED
        self._cost = _CAUTIOUS
        self._pace: Final = Pace()
        self._planned_for = 1.0

    # from outside

    async def run(
        self,
        feed: Feed,
        rows: int,
        *,
        within_s: float,
        priority: int,
        caller: str,
        wait: Wait | None = None,
    ) -> npt.NDArray[Any]:
        """Return the raw tensor of a feed. within_s: how long that may take. wait: told how long the
        feed waited for a worker.

        Raises Shed, with the seconds to wait, when the line is full; DeadlineExceeded; BadAnswer when the model
        fails on the feed; WorkerLost when its worker died.
        """
        if self._retired:
            raise Unavailable(f"{self.name} is being taken out of service: try again")
        now_s = self._loop.time()
        deadline_s = now_s + within_s
        answer: asyncio.Future[npt.NDArray[Any]] = self._loop.create_future()
        item = Item(rows, deadline_s, priority, caller, feed, answer, wait=wait, since_s=now_s)
        self._retries = min(_RETRIES_SAVED, self._retries + _RETRY_SHARE)
        if not len(self._line) and (idle := self._idle_member()):
            self._at_once(idle, item, now_s)  # nobody waits: there is no line to stand in
            if len(self._members) == 1 or not any(one.batch for one in self._members if one is not idle):
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
        for member in self._members:
            self._ward.drains(member.charge.incarnation)
        while len(self._line) or any(member.batch for member in self._members):
            await asyncio.sleep(0.01)
        self.close()

    def close(self) -> None:
        """End every worker now; what waits fails."""
        self.dismiss()
        for item in self._line.clear():
            _fail(item, Unavailable(f"{self.name} was taken out of service: try again"))

    @property
    def waiting_rows(self) -> int:
        return self._line.rows

    def load(self) -> tuple[float, float, float, int]:
        """Return (seconds until a request that comes now is begun, seconds of a batch, and of each row of it, workers)."""
        alive, cost = self.alive, self._line.plan.cost
        if self.idle:
            return 0.0, cost.base_us / 1e6, cost.row_us / 1e6, alive
        running = sum(member.rows for member in self._working() if member.batch)
        ahead_s = self._line.plan.seconds(self._line.rows + running // 2) / alive if alive else float("inf")
        return ahead_s, cost.base_us / 1e6, cost.row_us / 1e6, alive

    # batches

    def _at_once(self, member: Member, item: Item, now_s: float) -> None:
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
        leave = self._ward.leave
        if now_s >= leave.until_s:
            for item in batch:
                _fail(item, _without_leave(self.name))
            return
        rows = batch[0].rows if len(batch) == 1 else sum(item.rows for item in batch)
        member.allowed_s = max(self._settings.hang_s, _HANGS * self._line.plan.seconds(rows))
        for item in batch:
            if item.wait is not None:
                item.wait.seconds = now_s - item.since_s
        stamp = member.stamp if leave is member.under else member.stamped(leave)
        member.give(batch, rows, self._layout.buffers([item.feed for item in batch], stamp), now_s)
        self.sizes.observe(rows)  # the worker is at it meanwhile

    # what workers say

    def begins(self, loaded: Loaded) -> None:
        self._layout = wire.Layout(loaded.inputs, matrix_width=self._width)
        self._cost = loaded.cost or _CAUTIOUS
        self._planned_for = 0.0

    def staffed(self) -> None:
        self._plan_anew()
        self._dispatch()

    def heard(self, member: Member, frame: wire.Frame) -> None:
        if frame.kind in (wire.DONE, wire.FAILED, wire.MOVED) and member.batch:
            self._answered(member, frame)
        elif frame.kind == wire.LAPSED and member.batch:
            batch, member.batch = member.batch, []
            self.dropped(batch, f"refused a batch that {said(frame)}")
        else:
            member.end("said what nobody asked for")
        self._dispatch()

    def dropped(self, batch: list[Item], why: str) -> None:
        for item in batch:
            self._lost(item, why)
        self._dispatch()

    def _answered(self, member: Member, frame: wire.Frame) -> None:
        if frame.kind == wire.FAILED:
            batch = self._done(member)
            for item in batch:
                if len(batch) > 1:  # one row may be to blame: the others must not pay
                    self._again(item)
                else:
                    _fail(item, BadAnswer(said(frame)))
            return
        try:
            moved = frame.kind == wire.MOVED
            body = self.rota.moved(member, frame.body, self._loop.time()) if moved else frame.body
            tensor = wire.output_tensor(body, member.rows)
        except Corrupt as error:
            member.end(str(error))
            return
        batch = self._done(member)
        if len(batch) == 1:
            if not batch[0].answer.done():
                _settle(batch[0], tensor, member.name)
        else:
            at = 0
            for item in batch:
                if not item.answer.done():
                    _settle(item, tensor[at : at + item.rows], member.name)
                at += item.rows
        self._look_for_slow(member)

    def _done(self, member: Member) -> list[Item]:
        """Take a batch back and learn from how long it took."""
        expected_s = (member.cost or self._cost).us(member.rows) / 1e6
        now_s = self._loop.time()
        self._pace.observe((now_s - member.sent_s) / max(expected_s, 1e-6))
        self._plan_anew()
        batch = member.done(expected_s, now_s)
        if self.rota.wanted:
            self.rota.answered(member)
        if member.leaving:
            member.leave_if_told()
        return batch

    def _plan_anew(self, *, doubting: bool = False) -> None:
        """Fit the line to what batches take now, where that has changed by more than a little.

        doubting: the estimate, by which everything would be too late: only a batch that is tried can correct it.
        """
        if doubting:
            self._pace.relax()
        slowest = self.rota.slowest() if self.rota.wanted else None
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

    def _lost(self, item: Item, why: str) -> None:
        item.attempts += 1
        if item.answer.done():
            return
        if item.attempts > 1 or item.deadline_s <= self._loop.time() or self._retries < 1 or self._retired:
            _fail(item, WorkerLost(f"the worker of {self.name} {why} over this request: try again"))
            return
        self._retries -= 1
        self._again(item)

    # refusals

    def _expire(self, item: Item) -> None:
        self._line.remove(item)
        if item.wait is not None and not item.wait.seconds:
            item.wait.seconds = self._loop.time() - item.since_s
        _fail(item, _too_late())


def _settle(item: Item, tensor: npt.NDArray[Any], worker: str) -> None:
    if item.wait is not None:
        item.wait.worker = worker
    item.answer.set_result(tensor)


def _fail(item: Item, error: Exception) -> None:
    if not item.answer.done():
        item.answer.set_exception(error)


def _full(name: str, clear_s: float) -> Shed:
    """Return why a request is turned away. clear_s: until the line is empty."""
    return Shed(
        f"{name} has more to do than it can: send less, or try again", retry_after_s=max(1.0, clear_s)
    )


def _without_leave(name: str) -> NotAdmitted:
    return NotAdmitted(
        f"workers of {name} may be given nothing now: their gateway's lease is over, try again shortly"
    )


def _too_late() -> DeadlineExceeded:
    return DeadlineExceeded("the answer would not be ready in time: allow more time or send less")
