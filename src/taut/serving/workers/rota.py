"""Which workers of a lane may use an accelerator, and who makes room for whom when one fails and comes back."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from typing import Final

import msgspec

from taut.core.devices import Device
from taut.core.errors import Corrupt
from taut.serving.meters import DevicesReading, TrialReading
from taut.serving.placement import Move, Trial
from taut.serving.runtime import Cost
from taut.serving.workers import wire
from taut.serving.workers.member import Member

Tell = Callable[[str, str], None]
"""Told that something happened to where a model runs, and what."""

_FIRST_PAUSE_S: Final = 5.0
_LAST_PAUSE_S: Final = 600.0
_PROVEN: Final = 50
_DISPLACED: Final = "model runs on the CPU in its accelerator's place"


class Rota:
    """Where the workers of one lane run. It knows no clock and no sockets.

    devices: on which its model may run beside one thread of the CPU; for each thread of them a worker may take as much of the
    processors as for one. workers: how many there should be, spares included. pause_s: after a failure, until a worker tries again; doubled with
    each failure, up to ten minutes, and forgotten when a worker has answered fifty batches there.
    members: the lane's, which it adds and removes. failures: of accelerators. tell: of what changes.

    Guarantees: while an accelerator is being left alone every worker is hired for the CPU, so that one which brings its
    process down at load, or hangs, costs the pause and not the endpoint; who runs on the CPU in an accelerator's place is
    replaced once a fresh worker is ready there, and serves until then.
    """

    def __init__(
        self, devices: Sequence[Device] = (), *, workers: int = 1, pause_s: float = _FIRST_PAUSE_S,
        tell: Tell = lambda _name, _said: None,
    ) -> None:  # fmt: skip
        self.wanted = any(one.accelerator for one in devices)
        self._threads: Final = {one.name: one.threads for one in devices}
        self.members: Final[list[Member]] = []
        self.failures = 0
        self._workers: Final = workers
        self._first_pause_s: Final = pause_s
        self._pause_s = pause_s
        self._until_s = 0.0
        self._tell: Final = tell
        self._probing = False
        self._lost = ""

    def threads(self, member: Member | None) -> int:
        """Return with how many threads a worker may run its model; None asks for one that is yet to choose."""
        if member is None:
            return max(self._threads.values(), default=1)
        return 1 if member.placement is None else self._threads.get(member.placement.device, 1)

    def accelerated(self, now_s: float) -> bool:
        """Whether a worker that is hired now may use an accelerator."""
        return self.wanted and now_s >= self._until_s

    def welcome(self, member: Member, now_s: float) -> None:
        """Take note of where a fresh worker runs, and let go who is not needed any more because of it."""
        if not self.wanted:
            return
        if member.accelerated:
            self._probing = False
            self._judge(member, now_s)
        if sum(1 for one in self.members if one.ready and not one.leaving) > self._workers:
            fallen = next(self._fallen(), member) if on_accelerator(member) else member
            fallen.leave()

    def _judge(self, member: Member, now_s: float) -> None:
        placement = member.placement
        if placement is None or not (placement.accelerated or any(one.again for one in placement.trials)):
            self.wanted = False  # the CPU serves it better, or it would be refused again
            if placement is not None and placement.lost:
                self._tell(_DISPLACED, placement.lost)
        elif not placement.accelerated:
            self.failed(placement.lost, now_s)
        elif self._lost:
            self._lost = ""
            self._tell("model runs on its accelerator again", placement.device)

    def moved(self, member: Member, body: bytes, now_s: float) -> bytes:
        """Take note that a worker had to change to the CPU over a batch; return its answer, the body of a DONE frame.

        Raises Corrupt for what is no MOVED frame, and for one of a worker that is on no accelerator.
        """
        if not on_accelerator(member):
            raise Corrupt("a worker says that it moved, and it was on no accelerator")
        word, answer = wire.split_moved(body)
        try:
            move = msgspec.json.decode(word, type=Move)
        except msgspec.DecodeError as error:
            raise Corrupt(f"a worker's word on where it moved cannot be read ({error})") from error
        member.placement, member.cost = move.placement, move.cost
        self.failed(move.placement.lost, now_s)
        return answer

    def gone(self, member: Member, why: str, now_s: float) -> None:
        """Take note that a worker ended without being told to."""
        if not self.wanted or not member.accelerated:
            return
        if not member.ready:
            self._probing = False
            self.failed(f"a worker {why} before it had loaded the model there", now_s)
        elif on_accelerator(member) and member.answered < _PROVEN:
            self.failed(f"a worker {why}", now_s)

    def answered(self, member: Member) -> None:
        if member.answered == _PROVEN and on_accelerator(member):
            self._pause_s = self._first_pause_s

    def failed(self, why: str, now_s: float) -> None:
        self.failures += 1
        self._lost = why
        self._tell(_DISPLACED, why)
        self._until_s = now_s + self._pause_s
        self._pause_s = min(_LAST_PAUSE_S, 2 * self._pause_s)

    def due(self, now_s: float) -> bool:
        """Whether one more worker is to be hired, to try the accelerator; said once for each."""
        if self._probing or not self.accelerated(now_s):
            return False
        self._probing = any(self._fallen())
        return self._probing

    def short(self, coming: int) -> bool:
        """Whether somebody is to be hired for a worker that ended. coming: who is being hired already."""
        staying = sum(1 for one in self.members if not one.leaving)
        return not self.wanted or staying + coming < self._workers + self._probing

    def slowest(self) -> Cost | None:
        """Return the cost by which batches are sized while workers run on unlike devices; None where they do not."""
        if not self.wanted:
            return None
        costs = [one.cost for one in self.members if one.ready and one.cost is not None]
        return max(costs, key=lambda cost: cost.us(1), default=None)

    @property
    def lost(self) -> str:
        """Return why workers run on the CPU in an accelerator's place; "" where none does."""
        if self.wanted:
            return self._lost if any(self._fallen()) else ""
        said = (one.placement.lost for one in self.members if one.ready and one.placement is not None)
        return next((one for one in said if one), "")

    def reading(self) -> DevicesReading:
        """Return where the workers that are ready run, and what was measured by the one that tried the most."""
        found = [one.placement for one in self.members if one.ready and one.placement is not None]
        trials = max((one.trials for one in found), key=len, default=())
        return DevicesReading(
            workers=dict(Counter(one.device for one in found)),
            failures=self.failures,
            lost=self.lost,
            trials=tuple(map(_read, trials)),
        )

    def _fallen(self) -> Iterator[Member]:
        return (one for one in self.members if one.ready and not one.leaving and not on_accelerator(one))


def on_accelerator(member: Member) -> bool:
    return member.placement is not None and member.placement.accelerated


def _read(trial: Trial) -> TrialReading:
    return TrialReading(
        device=trial.device,
        base_us=None if trial.cost is None else trial.cost.base_us,
        row_us=None if trial.cost is None else trial.cost.row_us,
        usd_per_million=trial.usd_per_million,
        refused=trial.refused,
    )
