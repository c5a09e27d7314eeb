"""Telling control what was counted: when it can be reached, oldest first, each report until it is acknowledged."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Final

import msgspec

from taut.core.edge import Report
from taut.core.errors import Conflict, InvalidInput, NotFound, TautError, Unavailable
from taut.ports.world import Random
from taut.serving.edge.calling import Called, Caller
from taut.serving.edge.state import EdgeState

_TIMEOUT_S: Final = 10.0
_RETRY_MAX_S: Final = 300.0


_WITHDRAWN: Final = ("retired", "rejected")


class _Acknowledged(msgspec.Struct, frozen=True):
    """What control answers. sequence: the highest that it has of this device. state: of the version that reported."""

    sequence: int
    state: str = ""


class _Error(msgspec.Struct, frozen=True):
    code: str = ""
    message: str = "no reason"


class _Refusal(msgspec.Struct, frozen=True):
    error: _Error = _Error()


class Reporter:
    """Sends the reports of a state. One event loop owns it.

    every_s: a period is ended and told so often. trouble: why the last attempt failed, "" when it did not. notice: what
    control says of the version that answers here.
    """

    def __init__(
        self,
        state: EdgeState,
        caller: Caller,
        *,
        every_s: float,
        random: Random,
        now_us: Callable[[], int],
        log_failure: Callable[[str, BaseException], None],
    ) -> None:
        self.trouble = ""
        self.notice = ""
        self.sent = 0
        self._state: Final = state
        self._caller: Final = caller
        self._every_s: Final = every_s
        self._random: Final = random
        self._now_us: Final = now_us
        self._log_failure: Final = log_failure
        self._failures = 0

    def reasons(self) -> list[str]:
        """Return what the device's owner should know."""
        found = [f"reports do not get through: {self.trouble}"] if self.trouble else []
        return [*found, self.notice] if self.notice else found

    async def run(self) -> None:
        """Tell for ever, until cancelled."""
        while True:
            await asyncio.sleep(self._pause_s())
            try:
                await self.tell()
            except Exception as error:  # noqa: BLE001 - a failure of ours must not end the telling: it is said, and shown
                self._log_failure("report", error)
                self.trouble = f"{type(error).__name__}: see what the runner wrote"
                self._failures += 1

    async def tell(self) -> bool:
        """End the running period and send everything that waits; return whether all of it was acknowledged."""
        self._state.turn(self._now_us())
        try:
            while (report := self._state.next_report()) is not None:
                await self._tell_one(report)
        except TautError as error:
            self.trouble = error.message
            self._failures += 1
            return False
        self.trouble, self._failures = "", 0
        return True

    async def _tell_one(self, report: Report) -> None:
        try:
            known = await asyncio.to_thread(self._send, report)
        except (InvalidInput, NotFound):
            if report.bundle == self._state.now.bundle:
                raise
            self._state.give_up(report.sequence)  # of a former bundle, which this control does not know
            return
        except Conflict:
            self._state.give_up(report.sequence, anew=True)
            return
        if known.sequence > report.sequence:  # nobody but a copy of this device can have sent it
            self._state.give_up(report.sequence, anew=True)
            return
        self._state.acknowledge(report.sequence)
        self.sent += 1
        if report.bundle == self._state.now.bundle:
            self.notice = (
                f"control says that this version is {known.state}" if known.state in _WITHDRAWN else ""
            )

    def _send(self, report: Report) -> _Acknowledged:
        found = self._caller.post(msgspec.json.encode({"report": report}), timeout_s=_TIMEOUT_S)
        if found.status != 200:
            raise _refusal(self._caller.where, found)
        try:
            known = msgspec.json.decode(found.body, type=_Acknowledged)
        except (msgspec.MsgspecError, UnicodeDecodeError) as error:
            raise Unavailable(
                f"{self._caller.where} answered, but not as control does: check --report-to"
            ) from error
        if known.sequence < report.sequence:
            raise Unavailable(f"{self._caller.where} did not take report {report.sequence}")
        return known

    def _pause_s(self) -> float:
        """A device that cannot get through tries less often; jitter keeps a fleet of them apart."""
        pause_s = min(self._every_s * 2.0 ** min(self._failures, 10), max(_RETRY_MAX_S, self._every_s))
        return pause_s * (0.8 + 0.4 * self._random.uniform())


def _refusal(where: str, found: Called) -> TautError:
    """Return what control refused a report with, in its own words, so that whoever looks at the device knows what to mend."""
    try:
        error = msgspec.json.decode(found.body, type=_Refusal).error
    except (msgspec.MsgspecError, UnicodeDecodeError):
        error = _Error()
    said = f"{where} answered {found.status}: {error.message[:500]}"
    kinds: tuple[type[InvalidInput | NotFound | Conflict], ...] = (InvalidInput, NotFound, Conflict)
    return next((kind(said) for kind in kinds if kind.code == error.code), Unavailable(said))
