"""A gateway with peers on other machines: a request that would be answered sooner elsewhere goes there, once.

It stands before the gateway that answers. The caller's own bearer goes with the request, so that the peer's guard decides, takes
from its share of the quota, and writes the record; what it answers is passed on. A request that came by a hop goes no further.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from functools import partial
from typing import Final, NamedTuple
from urllib.parse import urlsplit

from taut.core.errors import DeadlineExceeded, InvalidInput, TautError, Unavailable
from taut.core.hosts import LOOPBACK
from taut.ports.world import Random
from taut.serving.gateway import Gateway
from taut.serving.gateway.compiled import Active, Endpoint, Route
from taut.serving.gateway.guard import Guard
from taut.serving.gateway.headers import single_headers
from taut.serving.gateway.replies import JSON, Headers, Pending, Reply
from taut.serving.peers.balance import HERE_NEVER, Balance, Choice, Load
from taut.serving.upstream import Answer, Secured, Upstream

HOP: Final = b"taut-hop"
LOAD: Final = "taut-load"
_CONNECTIONS: Final = 128
_PATIENCE: Final = 4.0
_LEAST_S: Final = 0.1
_DEFAULT_S: Final = 30.0
_PASSED: Final = (
    b"authorization", b"content-type", b"inference-header-content-length", b"taut-deadline-ms", b"taut-priority",
    b"taut-subject", b"traceparent",
)  # fmt: skip
_BACK: Final = ("inference-header-content-length", "retry-after", "www-authenticate")
_TOO_MANY: Final = 429
_ELSEWHERE: Final = frozenset({401, 404, 429, 503, 504})
"""Answers of a peer that this machine's own may be better than: it is behind or ahead by an epoch, or busy."""

HopTls = Callable[[str], Secured]
"""Returns by what a machine is verified, empty for the first; raises a TautError where this one has no identity."""


class _Address(NamedTuple):
    """Where a machine is, and since when its identity must have been issued: who was revoked is connected to anew."""

    url: str
    since_s: float


class _Hop(NamedTuple):
    """One request on its way to a peer. only: it cannot be answered on this machine."""

    choice: Choice
    route: Route
    rows: int
    only: bool
    since_s: float


class Hopping:
    """Answers as its gateway does, or has a peer answer. One event loop owns it.

    machine: the name of this one; the first has none. features_here: whether online features can be had here. first_at: the host of the first machine, where it listens on every
    address; its own announcement cannot say it. tls: by what those that speak it are verified. say: hears when a peer is left alone, and why.

    Guarantees: only requests of callers whom this machine's snapshot admits leave it; each makes one hop at most; where a peer
    fails, turns away or is slow, the request is answered here if it can be.
    Not guaranteed: that a request which a peer was slow over was not scored and recorded there as well.
    """

    def __init__(
        self,
        gateway: Gateway,
        *,
        machine: str,
        features_here: bool,
        first_at: str,
        random: Random,
        tls: HopTls,
        now_us: Callable[[], int],
        say: Callable[[str, str], None],
    ) -> None:
        self._gateway: Final = gateway
        self._machine: Final = machine
        self._features_here: Final = features_here
        self._first_at: Final = first_at
        self._tls: Final = tls
        self._now_us: Final = now_us
        self._say: Final = say
        self.balance: Final = Balance(random)
        self._ways: dict[str, tuple[_Address, Upstream]] = {}
        self._active: Active | None = None
        self._guard: Guard | None = None

    # what a server asks of whoever answers

    @property
    def max_body_bytes(self) -> int:
        return self._gateway.max_body_bytes

    def turn_away(self, method: str, path: str, headers: Headers) -> Reply | None:
        return self._gateway.turn_away(method, path, headers)

    def refuse(self, error: TautError, *, close: bool) -> Reply:
        return self._gateway.refuse(error, close=close)

    def answer(self, method: str, path: str, headers: Headers, body: bytes) -> Reply | Pending:
        """Answer one request here, or have it answered; a coroutine where that takes waiting. Never raises."""
        active = self._gateway.active
        if active is not self._active:
            self._adopt(active)
        if not self._ways or active is None or method != "POST":
            return self._gateway.answer(method, path, headers, body)
        route = active.routes.get(path)
        if route is None:
            return self._gateway.answer(method, path, headers, body)
        if any(name == HOP for name, _ in headers):
            return self._told(route.endpoint, self._gateway.answer(method, path, headers, body))
        hop = self._choose(route, headers, body)
        if hop is None:
            return self._gateway.answer(method, path, headers, body)
        return self._elsewhere(hop, path, headers, body)

    def close(self) -> None:
        for _, way in self._ways.values():
            way.close()

    # whom to ask

    def _choose(self, route: Route, headers: Headers, body: bytes) -> _Hop | None:
        """Return the hop that a request takes; None where it stays, as do those that the guard refuses."""
        endpoint = route.endpoint
        here = self._here(endpoint)
        if here is None or endpoint.config.cache is not None:
            return None
        rows = _rows(route, body)
        now_s = time.monotonic()
        choice = self.balance.choose(endpoint.name, rows, here, now_s)
        if choice is None:
            return None
        try:
            sent = single_headers(headers)
            if b"content-encoding" in sent or b"text/event-stream" in sent.get(b"accept", b""):
                return None
            guard = self._guard
            assert guard is not None, "it came with the snapshot"
            guard.authorise(
                guard.identify(sent.get(b"authorization"), self._now_us()), endpoint, self._now_us()
            )
        except TautError:
            return None  # refused here, with its record
        return _Hop(choice, route, rows, here is HERE_NEVER, now_s)

    def _here(self, endpoint: Endpoint) -> Load | None:
        """Return what an endpoint has to do on this machine; None where it is answered at once."""
        if endpoint.lookups and not self._features_here:
            return HERE_NEVER
        lane = endpoint.live.lane
        if lane is None:
            return None
        load = Load(*lane.load())
        return load if load.workers else HERE_NEVER

    def _adopt(self, active: Active | None) -> None:
        """Take over who is there now."""
        self._active, self._guard = active, None if active is None else Guard(active)
        found = {} if active is None else self._addresses(active)
        for name, (address, way) in tuple(self._ways.items()):
            if found.get(name) != address:
                way.close()
                del self._ways[name]
        for name, address in found.items():
            if name not in self._ways:
                try:
                    self._ways[name] = address, self._way(name, address.url)
                except TautError as error:
                    self._say(name or "the first machine", error.message)
        self.balance.keep(set(self._ways))

    def _way(self, name: str, url: str) -> Upstream:
        """Return the way to a machine. Raises InvalidInput for one on which bearers would go in clear."""
        parts = urlsplit(url)
        host, port = str(parts.hostname), parts.port
        if port is None or (parts.scheme != "https" and host not in LOOPBACK):
            raise InvalidInput(f"{url} is asked nothing: bearers would cross the network in clear")
        tls = partial(self._tls, name) if parts.scheme == "https" else None
        return Upstream(host, port, connections=_CONNECTIONS, tls=tls)

    def _addresses(self, active: Active) -> Mapping[str, _Address]:
        """Return where the other machines are, by their names; not those that are disabled."""
        snapshot = active.snapshot
        known = snapshot.identity
        urls = {
            one.name: one.url
            for one in snapshot.machines
            if one.name != self._machine and one.name not in known.disabled
        }
        if self._machine and snapshot.url:
            parts = urlsplit(snapshot.url)
            host = self._first_at if parts.hostname in ("0.0.0.0", "::") else str(parts.hostname)  # noqa: S104 - to be replaced
            urls[""] = f"{parts.scheme}://{f'[{host}]' if ':' in host else host}:{parts.port}"
        return {name: _Address(url, known.tokens_from_s.get(name, 0.0)) for name, url in urls.items()}

    # the way there

    async def _elsewhere(self, hop: _Hop, path: str, headers: Headers, body: bytes) -> Reply:
        """Have a peer answer; here where it does not and this machine can."""
        endpoint, choice, balance = hop.route.endpoint.name, hop.choice, self.balance
        balance.sent(choice, endpoint, hop.rows)
        try:
            answer = await self._ask(hop, path, headers, body)
        except (Unavailable, DeadlineExceeded) as error:
            balance.failed(choice, endpoint, hop.rows, why=error.message, now_s=time.monotonic())
            self._say(choice.peer or "the first machine", error.message)
            answer = None
        except BaseException:
            balance.left(choice, endpoint, hop.rows)
            raise
        if answer is not None and self._judge(hop, answer):
            return _passed_on(answer, choice.peer)
        reply = self._gateway.answer("POST", path, headers, body)
        return reply if isinstance(reply, Reply) else await reply

    async def _ask(self, hop: _Hop, path: str, headers: Headers, body: bytes) -> Answer:
        way = self._ways[hop.choice.peer][1]
        sent = [
            (name.decode("latin-1"), value.decode("latin-1")) for name, value in headers if name in _PASSED
        ]
        deadline = dict(headers).get(b"taut-deadline-ms")
        allowed_s = int(deadline) / 1e3 if deadline is not None and deadline.isdigit() else _DEFAULT_S
        if not hop.only:  # else nobody could answer after it
            allowed_s = min(allowed_s, max(_LEAST_S, _PATIENCE * hop.choice.expected_s))
        return await way.ask("POST", path, [*sent, (HOP.decode(), "1")], body, timeout_s=allowed_s)

    def _judge(self, hop: _Hop, answer: Answer) -> bool:
        """Learn from an answer; return whether it is passed on."""
        endpoint, now_s = hop.route.endpoint.name, time.monotonic()
        load, took_s = _read_load(answer.headers.get(LOAD, ""))
        if answer.status in (500, 502):
            self.balance.failed(
                hop.choice, endpoint, hop.rows, why=f"it answered {answer.status}", now_s=now_s
            )
            return False
        if answer.status in _ELSEWHERE:
            self.balance.turned_away(hop.choice, endpoint, hop.rows, now_s=now_s)
            return hop.only and answer.status == _TOO_MANY
        self.balance.answered(
            hop.choice, endpoint, hop.rows, load, elapsed_s=now_s - hop.since_s, took_s=took_s, now_s=now_s
        )
        return True

    def _told(self, endpoint: Endpoint, found: Reply | Pending) -> Reply | Pending:
        """Say with the answer to a hop what there is to do here."""
        start_s = time.monotonic()

        def with_load(reply: Reply) -> Reply:
            lane = endpoint.live.lane
            load = Load(0.0, 0.0, 0.0) if lane is None else Load(*lane.load())
            said = _write_load(load, time.monotonic() - start_s)
            return reply._replace(head=reply.head + said) if said else reply

        async def later(pending: Pending) -> Reply:
            return with_load(await pending)

        return with_load(found) if isinstance(found, Reply) else later(found)


def _rows(route: Route, body: bytes) -> int:
    """Return about how many rows a body has, without reading it: what it costs to be wrong is a worse guess."""
    if route.kind == "v1":
        return max(1, body.count(b"{") - 1)
    columns = max(1, len(route.endpoint.signature.request))
    return max(1, len(body) // (16 * columns))


def _write_load(load: Load, took_s: float) -> bytes:
    """Return the header line that tells a load, in microseconds; nothing where the model never answers here."""
    if load.wait_s == float("inf"):
        return b""
    wait_us, base_us, row_us, took_us = (
        int(value * 1e6) for value in (load.wait_s, load.base_s, load.row_s, took_s)
    )
    return f"{LOAD}: {wait_us} {base_us} {row_us} {load.workers} {took_us}\r\n".encode()


def _read_load(text: str) -> tuple[Load | None, float]:
    """Return what a peer told of itself, and how long it took over the request; None and 0 where it told nothing readable."""
    words = text.split()
    if len(words) != 5 or not all(word.isascii() and word.isdigit() and len(word) < 16 for word in words):
        return None, 0.0
    wait_us, base_us, row_us, workers, took_us = map(int, words)
    return Load(wait_us / 1e6, base_us / 1e6, row_us / 1e6, max(1, workers)), took_us / 1e6


def _passed_on(answer: Answer, peer: str) -> Reply:
    """Return a peer's answer as this gateway's: its type, what is taut's own in its head, and who it was."""
    kind = answer.headers.get("content-type", "")
    lines = [JSON] if kind == "application/json" else [f"content-type: {kind}\r\n".encode("latin-1")]
    lines += [
        f"{name}: {value}\r\n".encode("latin-1")
        for name, value in answer.headers.items()
        if name in _BACK or (name.startswith("taut-") and name != LOAD)
    ]
    lines.append(b"taut-hop: %b\r\n" % (peer or "first").encode())
    return Reply(answer.status, b"".join(lines), answer.body)
