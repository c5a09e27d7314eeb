"""What a fresh worker must show before it is given anybody's rows, over the socket by which it will be."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from typing import Any, Final, Protocol

import numpy.typing as npt

from taut.core.errors import Corrupt, TautError
from taut.core.evidence import Check
from taut.core.schema import ModelSignature
from taut.serving.placement.golden import far_apart, golden_rows
from taut.serving.runtime import Feed, ModelForm
from taut.serving.workers import wire
from taut.serving.workers.leave import Charge, Leave, Ward, attested, check, passed
from taut.serving.workers.worker import Loaded

_ROWS: Final = 4
_EXAM_S: Final = 60.0

Outcome = tuple[bool, npt.NDArray[Any] | None]
"""Whether the rows were answered with what the signature allows, and what was answered."""


class Examined(Protocol):
    """The end of a worker's socket."""

    def ask(self, stamp: bytes, rows: int, buffers: Sequence[Any]) -> None:
        """Send rows under any stamp."""
        ...


class Examiner:
    """Examines the workers of one model, all by the same rows. One event loop owns it.

    artifact: digest of the model that they are given. width: of its matrix, None where it takes none. hang_s: what an answer may take.

    The first worker's answers are what all others must give, within the tolerance of golden rows, for as long as this gateway
    serves the model; unless it did not give the same twice, or none that its signature allows: then neither must the others.
    Not guaranteed: that the first worker's answers are right; its model's metrics were measured through the same runtime.
    """

    def __init__(self, signature: ModelSignature, *, artifact: str, width: int | None, hang_s: float) -> None:
        self.artifact: Final = artifact
        self.hang_s: Final = hang_s
        self._signature: Final = signature
        self._width: Final = width
        self._form: ModelForm | None = None
        self._feed: Feed = {}
        self._buffers: Sequence[Any] = ()
        self._wanted: tuple[Outcome, Outcome] | None = None
        self.rows = 0

    def begin(self, member: Examined, loaded: Loaded, charge: Charge, ward: Ward, done: Done) -> Exam | None:
        """Examine a worker that has loaded the model; None where it is not even what was forked. done: hears what it showed."""
        checks = attested(charge, loaded.attested, artifact=self.artifact)
        if not passed(checks):
            done(checks)
            return None
        if self._form is None:
            self._prepare(loaded)
        return Exam(self, member, checks, charge, ward.leave.epoch, done)

    @property
    def buffers(self) -> Sequence[Any]:
        return self._buffers

    def outcome(self, frame: wire.Frame) -> Outcome:
        """Read an answer to the rows. Raises Corrupt for what is none."""
        if frame.kind == wire.FAILED:
            return False, None
        assert self._form is not None, "it was asked"
        tensor = wire.output_tensor(frame.body, self.rows)
        try:
            self._form.check(tensor, self.rows)
        except TautError:
            return False, tensor
        return True, tensor

    def fault(self, answers: tuple[Outcome, Outcome]) -> str:
        """Return how a worker's answers differ from the first one's; nothing where they do not, or where it is the first."""
        if self._wanted is None:
            self._wanted = answers
            return ""
        if _unlike(*self._wanted):
            return ""  # the model does not repeat itself: it is compared with nothing
        return next((said for found in answers if (said := _unlike(self._wanted[0], found))), "")

    def _prepare(self, loaded: Loaded) -> None:
        form = self._form = ModelForm(self._signature, loaded.inputs)
        rows = golden_rows(self._signature, 1 if self._signature.form == "code" else _ROWS)
        self.rows = len(rows)
        self._feed = form.encode(rows if form.row_major else list(map(list, zip(*rows, strict=True))))
        self._buffers = wire.Layout(loaded.inputs, matrix_width=self._width).buffers([self._feed])


class Exam:
    """One worker's: two batches that it must refuse, two that it must answer."""

    def __init__(
        self,
        examiner: Examiner,
        member: Examined,
        checks: tuple[Check, ...],
        charge: Charge,
        epoch: int,
        done: Done,
    ) -> None:
        self._examiner: Final = examiner
        self._member: Final = member
        self._done: Final = done
        self._answers: list[Outcome] = []
        self._checks: Final = checks
        self._slowest_s = 0.0
        self._asked_s = 0.0
        good = Leave(0.0, epoch, time.monotonic_ns() + int(_EXAM_S * 1e9))
        over = Leave(0.0, epoch, time.monotonic_ns())
        mine, other = charge.incarnation, charge.incarnation - 1
        self._stamps = [over.stamp(mine), good.stamp(other), good.stamp(mine), good.stamp(mine)]
        self._refused: list[bool] = []
        self._next()

    def heard(self, frame: wire.Frame) -> None:
        """Take the next answer. Raises Corrupt for what is none."""
        self._slowest_s = max(self._slowest_s, time.monotonic() - self._asked_s)
        if len(self._refused) < 2:
            self._refused.append(frame.kind == wire.LAPSED)
        elif frame.kind not in (wire.DONE, wire.FAILED):
            raise Corrupt("refused rows that it was asked under a leave that is good")
        else:
            self._answers.append(self._examiner.outcome(frame))
        if self._stamps:
            self._next()
        else:
            self._end()

    def _next(self) -> None:
        self._asked_s = time.monotonic()
        self._member.ask(self._stamps.pop(0), self._examiner.rows, self._examiner.buffers)

    def _end(self) -> None:
        first, second = self._answers
        fault = self._examiner.fault((first, second))
        over, other = self._refused
        within = self._slowest_s <= self._examiner.hang_s
        self._done(
            (
                *self._checks,
                check("golden", not fault, fault),
                check("latency", within, f"{self._slowest_s:.3f} s"),
                check("must_block", over, "" if over else "it took a batch whose leave was over"),
                check("must_pass", first[0] == second[0], "" if first[0] == second[0] else "it answered once and not again"),
                check("tenant_isolation", other, "" if other else "it took a batch of another incarnation"),
            )
        )  # fmt: skip


Done = Callable[[tuple[Check, ...]], None]


def _unlike(one: Outcome, other: Outcome) -> str:
    if one[0] != other[0]:
        return "it answers rows that another refuses" if other[0] else "it refuses rows that another answers"
    if one[1] is None or other[1] is None or not one[0]:
        return ""
    return far_apart(other[1], one[1])
