"""The event loop's time, shared out among endpoints: one that floods it waits, the others do not.

What a request needs of the loop itself (guards, decoding, a model that runs in this process) is paid by its endpoint. While
others are asked too, an endpoint that has had its millisecond lets its further requests wait, in their order, and each
round of the loop takes another millisecond's worth of them: so whoever asks another endpoint waits for one turn of
each, and not for all that came before. An endpoint that is alone pays nothing for that, and never waits.

This is deficit round robin with the loop's rounds as rounds (Shreedhar & Varghese 1995), over time instead of bytes.
"""

from __future__ import annotations

import asyncio
from collections import deque
from typing import Final

from taut.serving.errors import Shed

TURN_NS: Final = 1_000_000
_WINDOW_NS: Final = 2 * TURN_NS
_COMPANY_NS: Final = 1_000_000_000
_WAITING_MAX: Final = 1024
_SMOOTH: Final = 3  # an eighth of each


class Turns:
    """What the endpoints of one loop share: who was asked last, and whose requests wait.

    company_until_ns: more than one endpoint was asked within the second before; after that nothing need be counted.
    """

    def __init__(self) -> None:
        self.last: Turn | None = None
        self.company_until_ns = 0
        self._holding: Final[list[Turn]] = []

    def must_wait(self, turn: Turn, now_ns: int) -> bool:
        """Whether a request that comes now has to wait. To be asked where another endpoint was asked last, or this one has had
        more than `TURN_NS`; for all others the answer is no."""
        if self.last is not turn:
            if self.last is not None:
                self.company_until_ns = now_ns + _COMPANY_NS
            self.last = turn
        return turn.spent_ns > TURN_NS and turn.is_over(now_ns)

    def hold(self, turn: Turn) -> None:
        """Let an endpoint's requests wait for the rounds to come."""
        if not self._holding:
            asyncio.get_running_loop().call_soon(self._round)
        if turn not in self._holding:
            self._holding.append(turn)

    def _round(self) -> None:
        """Give each of those that wait a turn."""
        self._holding[:] = [turn for turn in self._holding if turn.let_go()]
        if self._holding:
            asyncio.get_running_loop().call_soon(self._round)


class Turn:
    """One endpoint's part of the loop's time. spent_ns: in this window; more than `TURN_NS` is worth a look.

    Guarantees: its requests are let go in the order in which they came; of what waits, one turn's worth a round, and one
    request at least. Not guaranteed: that one request takes no longer than a turn.
    """

    def __init__(self, turns: Turns) -> None:
        self.spent_ns = 0
        self._turns: Final = turns
        self._since_ns = 0
        self._cost_ns = 0
        self._waiting: Final[deque[asyncio.Future[None]]] = deque()

    def is_over(self, now_ns: int) -> bool:
        """Whether a request that comes now has to wait."""
        if self._waiting:
            return True
        if now_ns - self._since_ns >= _WINDOW_NS:
            self._since_ns, self.spent_ns = now_ns, 0
            return False
        return self.spent_ns > TURN_NS and now_ns < self._turns.company_until_ns

    def spend(self, began_ns: int, ended_ns: int) -> None:
        """Count what a request took of the loop."""
        if ended_ns - self._since_ns >= _WINDOW_NS and not self._waiting:
            self._since_ns, self.spent_ns = began_ns, 0
        took_ns = ended_ns - began_ns
        self.spent_ns += took_ns
        self._cost_ns += (took_ns - self._cost_ns) >> _SMOOTH

    async def come(self) -> None:
        """Return when it is this request's turn. Raises Shed where too many wait already."""
        if len(self._waiting) >= _WAITING_MAX:
            raise Shed(
                "this endpoint is asked more than its share of this gateway: send less, or try again",
                retry_after_s=1.0,
            )
        turn = asyncio.get_running_loop().create_future()
        self._waiting.append(turn)
        self._turns.hold(self)
        await turn

    def let_go(self) -> bool:
        """Let go a turn's worth of what waits; return whether more waits."""
        waiting = self._waiting
        for _ in range(min(len(waiting), max(1, TURN_NS // max(1, self._cost_ns)))):
            turn = waiting.popleft()
            if not turn.done():  # its caller may have hung up
                turn.set_result(None)
        if not waiting:
            self.spent_ns = 0
        return bool(waiting)
