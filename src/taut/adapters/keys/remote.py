"""Asking a holder of keys over HTTP: time limits, retries within a budget, and answers that are looked at."""

from __future__ import annotations

import ssl
from collections.abc import Callable
from typing import Final, TypeVar
from urllib.parse import urlsplit

import httpx
import msgspec

from taut.core.errors import InvalidInput, Unavailable
from taut.core.hosts import LOOPBACK
from taut.ports.world import Clock, Random

T = TypeVar("T")

ANSWER_BYTES_MAX: Final = 1 << 20
_PAUSE_S: Final = 0.05
_PAUSE_S_MAX: Final = 1.0


class Answer(msgspec.Struct, frozen=True):
    """What came back, whole and within the bound."""

    status: int
    body: bytes


class Limits(msgspec.Struct, frozen=True, kw_only=True):
    """How long a holder is waited for.

    try_s: for connecting, and for each read. budget_s: for one question with all its tries.
    """

    try_s: float = 3.0
    budget_s: float = 10.0


LIMITS: Final = Limits()


class Remote:
    """Sends requests to one holder and gives back its answers.

    what: names the holder in messages. ca: PEM file of the authority that vouches for it; "" are the machine's.
    secure: it is asked over TLS; plain HTTP is for this machine only (`check_address`), and needs no authorities read.
    transport: carries the requests; None is the network.
    A fault of the connection and an answer that `again` calls transient are tried again, with pauses that
    double and are jittered, until the budget would be passed; then Unavailable. Requests must bear being sent twice.
    """

    def __init__(
        self, what: str, *, clock: Clock, random: Random, limits: Limits, transport: httpx.BaseTransport | None,
        ca: str = "", secure: bool = True,
    ) -> None:  # fmt: skip
        self._what = what
        self._clock = clock
        self._random = random
        self._budget_s = limits.budget_s
        try:
            trusted = ssl.create_default_context(cafile=ca or None) if secure else False
        except (OSError, ssl.SSLError) as error:
            raise InvalidInput(f"{ca} holds no authority's certificate: name a PEM file ({error})") from error
        # no proxies of the environment: what a holder is asked goes to it alone
        self._client = httpx.Client(
            timeout=limits.try_s, trust_env=False, follow_redirects=False, transport=transport, verify=trusted
        )

    def ask(self, make: Callable[[], httpx.Request], *, again: Callable[[Answer], bool]) -> Answer:
        """Return the first answer that is not transient. make: called for each try, since signatures carry a time."""
        end_s = self._clock.monotonic_s() + self._budget_s
        pause_s = _PAUSE_S
        while True:
            try:
                answer = self._once(make(), end_s)
                if answer.status < 500 and answer.status != 429 and not again(answer):
                    return answer
                said = f"answers {answer.status}"
            except httpx.HTTPError as error:
                said = f"does not answer ({type(error).__name__})"
            wait_s = pause_s * (0.5 + self._random.uniform())
            if self._clock.monotonic_s() + wait_s >= end_s:
                raise Unavailable(f"the {self._what} {said}: see that it is there, then try again")
            self._clock.sleep(wait_s)
            pause_s = min(pause_s * 2, _PAUSE_S_MAX)

    def _once(self, request: httpx.Request, end_s: float) -> Answer:
        response = self._client.send(request, stream=True)
        try:
            body = bytearray()
            for part in response.iter_bytes():
                body += part
                if len(body) > ANSWER_BYTES_MAX:
                    raise Unavailable(f"the {self._what} answers without end: look at it, then try again")
                if self._clock.monotonic_s() > end_s:
                    raise Unavailable(f"the {self._what} answers too slowly: look at it, then try again")
        finally:
            response.close()
        return Answer(response.status_code, bytes(body))

    def read(self, answer: Answer, type: type[T]) -> T:
        """Decode an answer. Raises Unavailable, without a word of what came, when it is nothing of that type."""
        try:
            return msgspec.json.decode(answer.body, type=type)
        except (msgspec.MsgspecError, ValueError, RecursionError):
            raise Unavailable(
                f"the {self._what} answers with {answer.status} and something else than was asked: look at it"
            ) from None

    def close(self) -> None:
        self._client.close()


def check_address(url: str) -> None:
    """Refuse plain HTTP to anywhere but this machine: what is asked for are keys."""
    parts = urlsplit(url)
    if parts.scheme not in ("http", "https") or not parts.hostname:
        raise InvalidInput(f"{parts.scheme}://{parts.hostname or ''} is no address of a holder of keys")
    if parts.scheme == "http" and parts.hostname not in LOOPBACK:
        raise InvalidInput(
            f"{parts.hostname} would be asked for keys without encryption: use https, or a holder on this machine"
        )
