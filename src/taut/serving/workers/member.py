"""The gateway's end of one worker: what it was given, what it says, and when it is gone."""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
import socket
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any, Final

from taut.core.errors import Corrupt
from taut.serving.placement import Placement
from taut.serving.runtime import Cost
from taut.serving.workers import wire
from taut.serving.workers.leave import ALWAYS, Charge, Leave
from taut.serving.workers.polling import Poll
from taut.serving.workers.queue import Item
from taut.serving.workers.share import Credit, processor_seconds

if TYPE_CHECKING:
    from taut.serving.workers.exam import Exam

OnFrame = Callable[["Member", wire.Frame], None]
OnGone = Callable[["Member", str], None]
_SETTLING: Final = ((4, 0.25), (8, 0.5))
_SMOOTH: Final = 0.1
_STALL: Final = (
    4.0  # times what is usual that one batch counts at most: to stand still once is not to have become slow
)
_NICE: Final = 5  # jobs have 10
_NICE_MAX: Final = 19
_POLL_NS: Final = 200_000  # what a model may take that is run on the loop itself
_LOOKS_S: Final = 0.0004  # for which a worker looks for the next batch before it sleeps, and a little
_OWN_MEMORY: Final = (b"\nRssAnon:", b"\nRssShmem:")
_STATUS_BYTES: Final = 16384
UNCHARGED: Final = Charge()
_TOLD_BYTES: Final = 2**20  # of what it says once it is loaded: its inputs by name


class Member:
    """One worker of a lane; it works on at most one batch at a time.

    ready: it has loaded its model, showed what it must and may be given rows; born_s: since when it is to load it. charge: what it
    was born with. name: by what its answers are recorded. exam: while it is examined; showed: it was. stamp: what a batch begins with that is given `under` a leave. batch: what it works on now, since `sent_s` and for no longer than `allowed_s`.
    answer_width: values of an answer's row at most: what says more is cut off unread.
    ratio: how long its batches take against what the fit says, smoothed. cpus: processors that it may keep busy, 0 for any.
    accelerated: whether it may use an accelerator; placement, cost: what it said of where its model runs. leaving: it takes
    no more batches, and nobody comes for it.
    """

    def __init__(
        self,
        sock: socket.socket,
        pid: int,
        *,
        answer_width: int,
        on_frame: OnFrame,
        on_gone: OnGone,
        cpus: float = 0.0,
        accelerated: bool = False,
        charge: Charge = UNCHARGED,
    ) -> None:
        sock.setblocking(False)
        self.charge: Final = charge
        self.name = ""
        self.exam: Exam | None = None
        self.showed = False
        self.under = ALWAYS
        self.stamp = ALWAYS.stamp(charge.incarnation)
        self.pid: Final = pid
        self.ready = False
        self.gone = False
        self.leaving = False
        self.accelerated: Final = accelerated
        self.placement: Placement | None = None
        self.cost: Cost | None = None
        self.batch: list[Item] = []
        self.rows = 0
        self.sent_s = 0.0
        self.answered = 0
        self.born_s: Final = asyncio.get_running_loop().time()
        self.ratio = 1.0
        self.allowed_s = 0.0
        self._poll: Final = Poll(_POLL_NS)
        self._held_s = 0.0
        self._held_since_s: float | None = None
        self._busy_s = 0.0
        self._credit: Final = Credit(cpus, self.born_s) if cpus else None
        self._status = -1  # the descriptor of what the system says of the process
        self._sock: Final = sock
        self._reader: Final = wire.Reader(sock, most=_TOLD_BYTES)
        self._answer_width: Final = answer_width
        self._on_frame: Final = on_frame
        self._on_gone: Final = on_gone
        self._loop: Final = asyncio.get_running_loop()
        self._loop.add_reader(sock.fileno(), self._readable)

    @property
    def idle(self) -> bool:
        return self.ready and not self.batch and not self.gone and not self.leaving

    @property
    def share(self) -> float:
        """Return how much of a whole batch it gets: a fresh worker has to show first that it is well."""
        return next((share for until, share in _SETTLING if self.answered < until), 1.0)

    @property
    def row_us(self) -> float:
        """Return about how long it takes over a row, to compare it with its siblings by."""
        return self.ratio * (1.0 if self.cost is None else self.cost.us(1))

    def memory_bytes(self) -> int:
        """Return the memory that the process itself takes, what it shares with itself included; 0 where the system does
        not say, or it is gone. The kernel's own limit counts private memory only.

        The file is kept open: this is looked at four times a second, for each worker of an idle gateway too.
        """
        try:
            if self._status < 0 and not self.gone:
                self._status = os.open(f"/proc/{self.pid}/status", os.O_RDONLY | os.O_CLOEXEC)
            said = os.pread(self._status, _STATUS_BYTES, 0)
            return sum(int(said[said.index(of) + len(of) :].split(None, 1)[0]) for of in _OWN_MEMORY) * 1024
        except (OSError, IndexError, ValueError):
            return 0

    def welcome(self) -> None:
        """Take it as ready, and let it stand back for the gateway, whose loop every endpoint shares.

        Not before: who is on the way to being ready is waited for.
        """
        self.ready = True
        self._busy_s = self._loop.time() - self.born_s
        with contextlib.suppress(
            OSError
        ):  # it is gone, or the system lets nobody adjust it: it serves all the same
            os.setpriority(
                os.PRIO_PROCESS, self.pid, min(_NICE_MAX, os.getpriority(os.PRIO_PROCESS, 0) + _NICE)
            )

    def give(self, batch: list[Item], rows: int, buffers: Sequence[Any], now_s: float) -> None:
        """Send a batch. When the worker is gone, `on_gone` is told."""
        self.batch, self.rows, self.sent_s = batch, rows, now_s
        self._poll.begin()
        if self._held_since_s is not None:
            self._go_on(now_s)  # it stood still for what it did with nothing to do
        self._reader.most = wire.answer_bytes(rows, self._answer_width)
        try:
            wire.send(self._sock, wire.RUN, rows, buffers)
        except OSError as error:
            self.end(f"did not take a batch ({error.strerror or error})")

    def stamped(self, leave: Leave) -> bytes:
        """Return what a batch begins with that is given under another leave than the one before."""
        self.under, self.stamp = leave, leave.stamp(self.charge.incarnation)
        return self.stamp

    def ask(self, stamp: bytes, rows: int, buffers: Sequence[Any]) -> None:
        """Send rows that are nobody's. When the worker is gone, `on_gone` is told."""
        self._reader.most = wire.answer_bytes(rows, self._answer_width)
        try:
            wire.send(self._sock, wire.RUN, rows, [stamp, *buffers])
        except OSError as error:
            self.end(f"did not take a batch ({error.strerror or error})")

    def look(self) -> None:
        """Look for the answer to the batch for a moment, where answers come at once: on this thread, which does nothing else
        meanwhile. What is not there by then is read when the loop hears of it."""
        while self.batch and not self.gone and self._poll.again():
            self._readable()

    def leave(self) -> None:
        """Let it end what it works on and then go, with nobody to take its place: another has it already."""
        self.leaving = True
        self.leave_if_told()

    def leave_if_told(self) -> None:
        if self.leaving and not self.batch:
            self.end("made room")

    def done(self, expected_s: float, now_s: float) -> list[Item]:
        """Take the batch back that was answered."""
        batch, self.batch = self.batch, []
        self.answered += 1
        self._poll.end()
        self._busy_s += now_s - self.sent_s + _LOOKS_S
        ratio = (now_s - self.sent_s) / max(expected_s, 1e-6)
        self.ratio += _SMOOTH * (min(ratio, _STALL * self.ratio) - self.ratio)
        return batch

    def allow(self, cpus: float) -> None:
        """Let it keep so many processors busy from now on, where there is a bound at all."""
        if self._credit is not None:
            self._credit.cpus = cpus

    def govern(self, now_s: float) -> float:
        """Let it stand still where it took more than its share of the processors, and go on once it has paid for that.

        Whoever has nothing to do pays until the next batch at most, whatever threads of a builder's code do meanwhile.
        Returns for how many seconds it has stood still since this was asked last.
        """
        used_s = None if self._credit is None else processor_seconds(self.pid)
        if self._credit is None or used_s is None:
            return 0.0
        since_s = self.born_s if not self.ready else self.sent_s if self.batch else now_s
        may_go_on = self._credit.settle(now_s, used_s=used_s, busy_s=self._busy_s + now_s - since_s)
        if may_go_on and self._held_since_s is not None:
            self._go_on(now_s)
        elif not may_go_on and self._held_since_s is None:
            self._held_since_s = now_s
            self._signal(signal.SIGSTOP)
        elif self._held_since_s is not None:
            self._held_s += now_s - self._held_since_s
            self._held_since_s = now_s
        held_s, self._held_s = self._held_s, 0.0
        return held_s

    def _go_on(self, now_s: float) -> None:
        assert self._held_since_s is not None, "it stands still"
        self._held_s += now_s - self._held_since_s
        self._held_since_s = None
        self._signal(signal.SIGCONT)

    def _signal(self, number: signal.Signals) -> None:
        with contextlib.suppress(ProcessLookupError):
            os.kill(self.pid, number)

    def end(self, why: str) -> None:
        """Kill the process, whatever it does, and tell `on_gone` once."""
        if self.gone:
            return
        self.gone = True
        self._loop.remove_reader(self._sock.fileno())
        self._reader.close()
        self._sock.close()
        if self._status >= 0:
            os.close(self._status)
            self._status = -1
        self._signal(signal.SIGKILL)
        self._on_gone(self, why)

    def _readable(self) -> None:
        try:
            frame = self._reader.read()
        except BlockingIOError:
            return
        except EOFError:
            self.end("ended")
        except (OSError, Corrupt) as error:
            self.end(f"broke its socket ({error})")
        else:
            if frame is not None:
                self._on_frame(self, frame)
