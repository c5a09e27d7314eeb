"""Leave to serve, before everything else: what a gateway may start now, whoever asks and whatever it would be answered."""

from __future__ import annotations

from collections.abc import Callable
from typing import Final

import msgspec

from taut.core.errors import TautError
from taut.serving.errors import NotAdmitted
from taut.serving.gateway import repository
from taut.serving.gateway.core import Gateway
from taut.serving.gateway.replies import Answering, Headers, Pending, Reply


class Leave(msgspec.Struct, frozen=True, kw_only=True):
    """What a gateway may start, by its own monotonic clock, in nanoseconds.

    until_ns: anything until then. grace_until_ns: by class of risk, what may go on where nobody answers who could renew it.
    why: in words, why there is no leave; empty where there is.
    """

    until_ns: int = 0
    grace_until_ns: dict[str, int] = {}
    why: str = "it has not joined yet"


class Admitted:
    """Answers as what stands behind it does, and nothing without leave. One event loop owns it.

    inner: answers. gateway: knows what is served. monotonic_ns: the clock of `Leave`. lapsed: hears once when the first request
    is served by grace alone, and once when leave has come again.

    Guarantees: no request for an answer of a model, nor for a change of what is loaded, gets beyond this without leave, and what
    is served by grace is told apart. Health and metadata are answered all the same.
    Not guaranteed: that what has begun ends with the leave; parts of an answer that is a stream go on.
    """

    def __init__(
        self,
        inner: Answering,
        gateway: Gateway,
        *,
        monotonic_ns: Callable[[], int],
        lapsed: Callable[[bool], None] = lambda _degraded: None,
    ) -> None:
        self._inner: Final = inner
        self._pass_on: Final = inner.answer
        self._gateway: Final = gateway
        self._monotonic_ns: Final = monotonic_ns
        self._lapsed: Final = lapsed
        self._leave = Leave()
        self._until_ns = 0
        self._degraded = False
        gateway.barred = self.reasons

    @property
    def leave(self) -> Leave:
        return self._leave

    @leave.setter
    def leave(self, leave: Leave) -> None:
        self._leave, self._until_ns = leave, leave.until_ns
        if self._degraded and self._monotonic_ns() < leave.until_ns:
            self._degraded = False
            self._lapsed(False)

    @property
    def max_body_bytes(self) -> int:
        return self._inner.max_body_bytes

    @property
    def degraded(self) -> bool:
        """Whether what is served now is served by grace alone."""
        return self._degraded

    def reasons(self) -> list[str]:
        """Return why this gateway may start nothing; nothing when it may, be it by grace."""
        leave, now_ns = self._leave, self._monotonic_ns()
        if now_ns < leave.until_ns or any(now_ns < until_ns for until_ns in leave.grace_until_ns.values()):
            return []
        return [f"not admitted: {leave.why or 'its lease is over, and control does not renew it'}"]

    def answer(self, method: str, path: str, headers: Headers, body: bytes) -> Reply | Pending:
        if self._monotonic_ns() < self._until_ns:
            return self._pass_on(method, path, headers, body)
        return self._without_lease(method, path, headers, body)

    def turn_away(self, method: str, path: str, headers: Headers) -> Reply | None:
        if self._monotonic_ns() >= self._until_ns and self._is_guarded(method, path):
            refused = self._refusal(path)
            if refused is not None:
                return self._inner.refuse(refused, close=True)
        return self._inner.turn_away(method, path, headers)

    def refuse(self, error: TautError, *, close: bool) -> Reply:
        return self._inner.refuse(error, close=close)

    def _without_lease(self, method: str, path: str, headers: Headers, body: bytes) -> Reply | Pending:
        if self._is_guarded(method, path):
            refused = self._refusal(path)
            if refused is not None:
                return self._inner.refuse(refused, close=False)
        return self._pass_on(method, path, headers, body)

    def _is_guarded(self, method: str, path: str) -> bool:
        active = self._gateway.active
        routes = () if active is None else active.routes
        return method == "POST" and (path in routes or path.startswith(repository.REPOSITORY))

    def _refusal(self, path: str) -> NotAdmitted | None:
        """Return why a request is refused; None where grace allows it."""
        active = self._gateway.active
        route = None if active is None else active.routes.get(path)
        if route is not None:
            risk = route.endpoint.config.risk
            if self._monotonic_ns() < self._leave.grace_until_ns.get(risk, 0):
                if not self._degraded:
                    self._degraded = True
                    self._lapsed(True)
                return None
        why = self._leave.why or "its lease is over, and control does not renew it"
        return NotAdmitted(
            f"this gateway may not serve now, {why}: try again shortly, or look at taut status"
        )
