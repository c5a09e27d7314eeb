"""The engine: finds due stories, claims, runs and ends them, in as many threads and processes as call `work`."""

from __future__ import annotations

import os
import socket
import threading
from collections.abc import Callable, Collection, Iterator
from contextlib import contextmanager
from datetime import timedelta
from functools import partial
from pathlib import Path
from typing import Final

from taut.adapters.stories.codec import decode, decode_error, encode
from taut.adapters.stories.journal import Claim, Fenced, Journal
from taut.adapters.stories.leases import Leases
from taut.adapters.stories.overview import Overview
from taut.adapters.stories.pause import Pause
from taut.adapters.stories.run import Away, Lost, Run, Stopping, Stranded, Suspended, Unwind, mismatch
from taut.core.errors import Conflict, Corrupt, DeadlineExceeded, InvalidInput, TautError, Unavailable
from taut.ports.records import Records, Tx
from taut.ports.stories import Json, StoryFailed, StoryState, StoryStatus, StoryTable
from taut.ports.world import Clock, Ids, Random

ATTEMPTS_MAX: Final = 20
"""Claims without a recorded step between them, after which a story is set aside: it kills whoever runs it."""

_ENDED: Final = (StoryState.DONE, StoryState.FAILED, StoryState.CANCELLED, StoryState.STRANDED)
_OBSERVERS_MAX: Final = 1000


class JournalStories:
    """Stories in a journal on Records; see the port for what is guaranteed.

    lease_s: how long a story waits for a runner that died before another takes it. Runners renew at a third of it.
    poll_s: how often an idle worker looks for stories that other processes started; within this process, at once.
    patience_s: how long a run waits for a database that went away before it leaves the story to others.
    strange_after_s: how long a due story whose name this code does not know is left to processes that may know it.
    steps_max: how many calls one story may make.

    Leases compare the clocks of machines: where those differ by more than a lease, stories change hands too early,
    which costs repeated steps and never a repeated commit.
    """

    def __init__(
        self,
        records: Records,
        table: StoryTable,
        *,
        clock: Clock,
        ids: Ids,
        random: Random,
        lease_s: float = 30.0,
        poll_s: float = 0.5,
        patience_s: float = 60.0,
        strange_after_s: float = 300.0,
        steps_max: int = 10_000,
    ) -> None:
        self._host = _host()
        owner = f"{self._host}:{os.getpid()}"
        self._journal = Journal(
            records, clock=clock, ids=ids, random=random, owner=owner, lease_s=lease_s, patience_s=patience_s
        )
        self._overview = Overview(records, clock=clock)
        self._leases = Leases(self._journal)
        self._table = dict(table)
        self._clock = clock
        self._random = random
        self._poll_s = poll_s
        self._steps_max = steps_max
        self._strange_after_us = int(strange_after_s * 1_000_000)
        self._strange_checked_s = float("-inf")
        self._bell = threading.Condition()
        self._rings = 0
        self._workers = 0
        self._stopped = threading.Event()
        self._looked_for_dead = False
        self._observers: dict[str, list[Callable[[str, float | None], None]]] = {}

    # What callers do

    def start(self, name: str, arguments: Json, *, key: str) -> str:
        self.known(name)
        story_id = self._journal.insist(
            lambda tx: self._journal.start(tx, name, arguments, key=key), patient=False
        )
        self.ring()
        return story_id

    def start_in(self, tx: Tx, name: str, arguments: Json, *, key: str) -> str:
        self.known(name)
        self.ring()  # workers look often for a while, so they find it soon after the caller's commit
        return self._journal.start(tx, name, arguments, key=key)

    def signal(self, story_id: str, signal: str, value: Json) -> None:
        self._journal.insist(lambda tx: self._journal.signal(tx, story_id, signal, value), patient=False)
        self.ring()

    def signal_in(self, tx: Tx, story_id: str, signal: str, value: Json) -> None:
        self.ring()
        self._journal.signal(tx, story_id, signal, value)

    def status(self, story_id: str) -> StoryStatus:
        return self._overview.status(story_id)

    def list(self, *, state: StoryState | None = None, limit: int = 100) -> tuple[StoryStatus, ...]:
        return self._overview.list(state=state, limit=limit)

    def cancel(self, story_id: str, *, reason: str) -> None:
        self._journal.insist(lambda tx: self._overview.cancel(tx, story_id, reason=reason), patient=False)
        self.ring()

    def resume(self, story_id: str) -> None:
        self._journal.insist(lambda tx: self._overview.resume(tx, story_id), patient=False)
        self.ring()

    def watch(self, story_id: str, observe: Callable[[str, float | None], None]) -> None:
        if len(self._observers) >= _OBSERVERS_MAX:
            self._observers.pop(
                next(iter(self._observers))
            )  # the oldest watched longest; it is progress, not record
        self._observers.setdefault(story_id, []).append(observe)

    def result(self, story_id: str, *, timeout: timedelta | None = None) -> Json:
        until_s = None if timeout is None else self._clock.monotonic_s() + timeout.total_seconds()
        root_id, pause = self._overview.root_of(story_id), Pause(self._poll_s)
        self._free_stories_of_the_dead()
        while True:
            state, result, error = self._overview.end_of(story_id)
            if state in _ENDED:
                return _ended(story_id, result, error)
            if self._stopped.is_set():
                raise Unavailable(
                    f"story {story_id} goes on elsewhere: the engine of this process has stopped"
                )
            if until_s is not None and self._clock.monotonic_s() > until_s:
                raise DeadlineExceeded(f"story {story_id} is still {state}: ask again, or allow more time")
            # Where workers of this process run, they do the work; else this thread does, for what the story forked too.
            if self._workers == 0 and self._run_one(root_id=root_id, until_s=until_s):
                pause = Pause(self._poll_s)
                continue
            left_s = (
                pause.next_s()
                if until_s is None
                else min(pause.next_s(), until_s - self._clock.monotonic_s())
            )
            self._await_ring(max(0.001, left_s), pause)

    # What workers do

    def work(self, *, until_idle: bool = False, only: Collection[str] | None = None) -> None:
        for name in only or ():
            self.known(name)
        pause = Pause(self._poll_s)
        counts = int(only is None)  # who waits for a result may leave it to a worker that takes every story
        self._count_worker(counts)
        try:
            while not self._stopped.is_set():
                try:
                    self._free_stories_of_the_dead()
                    if self._run_one(only=only):
                        pause = Pause(self._poll_s)
                        continue
                    self._set_strange_aside()
                except (Conflict, Unavailable):
                    if until_idle:
                        raise
                if until_idle:
                    return
                self._await_ring(pause.next_s(), pause)
        finally:
            self._count_worker(-counts)

    def stop(self) -> None:
        self._stopped.set()
        self.ring()

    # What a run needs (run.Host)

    def stopping(self) -> bool:
        return self._stopped.is_set()

    def progress(self, story_id: str, message: str, fraction: float | None) -> None:
        for observe in tuple(self._observers.get(story_id, ())):
            observe(message, fraction)

    def ring(self) -> None:
        with self._bell:
            self._rings += 1
            self._bell.notify_all()

    def known(self, story: str) -> None:
        if story not in self._table:
            raise InvalidInput(
                f"no story {story!r}: this version of the code knows {', '.join(sorted(self._table))}"
            )

    def _count_worker(self, change: int) -> None:
        with self._bell:
            self._workers += change

    def _await_ring(self, seconds: float, pause: Pause) -> None:
        with self._bell:
            if self._rings != pause.heard or self._bell.wait(seconds):
                pause.rung(self._rings)

    def _run_one(
        self, *, root_id: str | None = None, until_s: float | None = None, only: Collection[str] | None = None
    ) -> bool:
        """Claim and run one due story; False when there is none to have."""
        names = tuple(self._table if only is None else only)
        candidates = list(self._journal.due(names, root_id=root_id))
        candidates.sort(
            key=lambda _: self._random.uniform()
        )  # so that several workers do not race for the same one
        for story_id in candidates:
            try:
                claim = self._journal.claim(story_id)
            except Conflict:
                continue
            if claim is not None:
                self._run(claim, until_s=until_s)
                return True
        return False

    def _run(self, claim: Claim, *, until_s: float | None) -> None:
        run = Run(claim, self._journal, self, self._clock, steps_max=self._steps_max, until_s=until_s)
        with self._leases.renewing(run), self._letting_go(claim):
            try:
                self._tell(run, claim)
            except Suspended:
                return
            except (Lost, Fenced):
                return  # somebody else has it
            except Away as away:  # whoever takes it when the lease ends goes on; who waits here is told now
                raise Unavailable(f"story {claim.id} was left to be resumed: {away}") from away
            except Stranded as why:
                self._end(claim, StoryState.STRANDED, error=mismatch(claim, str(why)))
        self._observers.pop(claim.id, None)
        self.ring()

    def _tell(self, run: Run, claim: Claim) -> None:
        """Run the story's function and write down how it ended."""
        if claim.attempts > ATTEMPTS_MAX:
            raise Stranded(f"{ATTEMPTS_MAX} runs in a row died after step {len(claim.entries)}")
        try:
            arguments = decode(claim.arguments, what=f"arguments of story {claim.id}")
        except Corrupt as damage:
            raise Stranded(str(damage)) from damage
        try:
            result = self._table[claim.name](run, arguments)
            text = encode(result, what=f"result of story {claim.name}")
            error = None
        except TautError as raised:
            text, error = None, raised
        except Exception as raised:  # noqa: BLE001 - a fault in a story's code ends the story, not the worker
            text, error = None, StoryFailed(f"story {claim.name} broke: {type(raised).__name__}: {raised}")
        if isinstance(run.broken, Unwind):
            raise run.broken  # the story's code swallowed it
        run.finish()
        self._end(claim, StoryState.DONE if error is None else StoryState.FAILED, result=text, error=error)

    def _end(
        self, claim: Claim, state: StoryState, *, result: str | None = None, error: TautError | None = None
    ) -> None:
        try:
            self._journal.insist(lambda tx: self._journal.end(tx, claim, state, result=result, error=error))
        except (Conflict, Unavailable) as away:
            raise Away(str(away)) from away

    @contextmanager
    def _letting_go(self, claim: Claim) -> Iterator[None]:
        """Where a run is broken off from outside, give the story back at once instead of by its lease's end."""
        try:
            yield
        except Stopping:
            self._release(claim)
        except (KeyboardInterrupt, SystemExit):
            self._release(claim)
            raise

    def _release(self, claim: Claim) -> None:
        try:
            self._journal.insist(lambda tx: self._journal.release(tx, claim), patient=False)
        except (Fenced, Conflict, Unavailable):
            return  # it is not ours any more, or the lease's end gives it back

    def _free_stories_of_the_dead(self) -> None:
        """Once: let go what processes of this machine hold that were killed, instead of waiting for their leases.

        A process that lives in spite of all is fenced off as by the lease's end: it repeats steps, never commits.
        """
        if self._looked_for_dead:
            return
        for story_id, epoch, owner in self._journal.held():
            host, _, pid = owner.rpartition(":")
            if host == self._host and pid.isdigit() and _is_dead(int(pid)):
                self._journal.insist(
                    partial(self._journal.free, story_id=story_id, epoch=epoch), patient=False
                )
        self._looked_for_dead = True

    def _set_strange_aside(self) -> None:
        """Strand stories that no code here knows and that nobody else has taken up: silence would hide them."""
        now = self._clock.monotonic_s()
        if now - self._strange_checked_s < min(30.0, self._strange_after_us / 1_000_000):
            return
        self._strange_checked_s = now
        for story_id in self._journal.overdue(tuple(self._table), by_us=self._strange_after_us):
            self._journal.insist(partial(self._overview.strand, story_id=story_id), patient=False)


def _host() -> str:
    """This machine, and where the system tells, the process namespace: within it a process id names one process."""
    try:
        space = os.readlink("/proc/self/ns/pid")
    except OSError:
        space = ""
    return f"{socket.gethostname()[:64]}:{space}"


def _is_dead(pid: int) -> bool:
    try:
        os.kill(pid, 0)
        state = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]
    except ProcessLookupError:
        return True
    except OSError:  # not ours to signal, or a system without /proc: it lives
        return False
    return state in "ZX"


def _ended(story_id: str, result: str | None, error: str | None) -> Json:
    if error is not None:
        raise decode_error(error)
    return decode(result or "null", what=f"result of story {story_id}")
