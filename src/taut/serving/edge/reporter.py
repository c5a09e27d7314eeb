"""Telling control what was counted: when it can be reached, oldest first, each report until it is acknowledged."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Final

import msgspec

from taut.core.edge import Report
from taut.core.errors import TautError, Unavailable
from taut.ports.world import Random
from taut.serving.edge.calling import Caller
from taut.serving.edge.state import EdgeState

_TIMEOUT_S: Final = 10.0
_RETRY_MAX_S: Final = 300.0


class _Acknowledged(msgspec.Struct, frozen=True):
    """What control answers. sequence: the highest that it has of this device."""

    sequence: int


class Reporter:
    """Sends the reports of a state. One event loop owns it.

    every_s: a period is ended and told so often. trouble: why the last attempt failed, "" when it did not.
    """

    def __init__(
        self, state: EdgeState, caller: Caller, *, every_s: float, random: Random, now_us: Callable[[], int]
    ) -> None:
        self.trouble = ""
        self.sent = 0
        self._state: Final = state
        self._caller: Final = caller
        self._every_s: Final = every_s
        self._random: Final = random
        self._now_us: Final = now_us
        self._failures = 0

    async def run(self) -> None:
        """Tell for ever, until cancelled."""
        while True:
            await asyncio.sleep(self._pause_s())
            await self.tell()

    async def tell(self) -> bool:
        """End the running period and send everything that waits; return whether all of it was acknowledged."""
        self._state.turn(self._now_us())
        try:
            while (report := self._state.next_report()) is not None:
                await asyncio.to_thread(self._send, report)
                self._state.acknowledge(report.sequence)
                self.sent += 1
        except TautError as error:
            self.trouble = error.message
            self._failures += 1
            return False
        self.trouble, self._failures = "", 0
        return True

    def _send(self, report: Report) -> None:
        found = self._caller.post(msgspec.json.encode({"report": report}), timeout_s=_TIMEOUT_S)
        if found.status != 200:
            raise Unavailable(f"{self._caller.where} answered {found.status}: {_said(found.body)}")
        try:
            known = msgspec.json.decode(found.body, type=_Acknowledged)
        except (msgspec.MsgspecError, UnicodeDecodeError) as error:
            raise Unavailable(
                f"{self._caller.where} answered, but not as control does: check --report-to"
            ) from error
        if known.sequence < report.sequence:
            raise Unavailable(f"{self._caller.where} did not take report {report.sequence}")

    def _pause_s(self) -> float:
        """A device that cannot get through tries less often; jitter keeps a fleet of them apart."""
        pause_s = min(self._every_s * 2.0 ** min(self._failures, 10), max(_RETRY_MAX_S, self._every_s))
        return pause_s * (0.8 + 0.4 * self._random.uniform())


def _said(body: bytes) -> str:
    """Return an error's own words, so that whoever looks at the device knows what to mend."""
    try:
        told = msgspec.json.decode(body)
        return str(told["error"]["message"])[:500]
    except (msgspec.MsgspecError, UnicodeDecodeError, KeyError, TypeError):
        return "no reason"
