"""The request gate: who calls, whether he may, how often, and within what time."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import UTC, datetime
from typing import Final

import msgspec

from taut.core.errors import Denied, InvalidInput, TautError, Unauthenticated, Unavailable
from taut.serving.errors import Malformed
from taut.serving.gateway.callers import Callers, Tally
from taut.serving.gateway.compiled import Active, Endpoint
from taut.serving.gateway.headers import whole_number
from taut.trust.identity.principals import Principal
from taut.trust.identity.verifier import KEY_PREFIX
from taut.trust.quota import Account

_JSON_BYTES: Final = b"inference-header-content-length"
_MAX_SESSIONS: Final = 16_384
_MAX_DEADLINE_MS: Final = 600_000
_MAX_SUBJECT: Final = 128
_MAX_STREAM_ROWS: Final = 1000
_HOUR_US: Final = 3_600_000_000
_FOREVER_US: Final = 2**62
_ASKING: Final = frozenset((
    b"taut-deadline-ms", b"taut-priority", b"taut-subject", b"content-encoding", _JSON_BYTES,
))  # fmt: skip
"""Headers by which a request asks for more than an answer, or says that its body is another than JSON as it is."""
DEFAULT_PRIORITY: Final = 5


class Grant(msgspec.Struct, gc=False):
    """That a caller may ask an endpoint. account: of his quotas. tally: where he is counted. until_us: when it is looked at anew: his
    bearer ends, or the decision's hour, or the snapshot is too old for the endpoint."""

    account: Account
    until_us: int
    tally: Tally


class Session(msgspec.Struct, gc=False):
    """One bearer that was accepted at this epoch. until_us: when it expires. grants: by endpoint, filled as endpoints are
    asked for."""

    principal: Principal
    bearer: str
    until_us: int
    grants: dict[str, Grant]


class Caller(msgspec.Struct, frozen=True, gc=False):
    """What the request's headers say, checked."""

    deadline_ms: int
    priority: int
    subject: str


class Guard:
    """Identity and policy at one epoch; a new snapshot brings a new Guard, and nothing remembered survives it.

    callers: where requests are counted; none where another guard counts them.
    """

    def __init__(self, active: Active, callers: Callers | None = None) -> None:
        self._active: Final = active
        self._callers: Final = callers or Callers()
        self._sessions: Final[dict[bytes | None, Session]] = {}
        self.plain: Final = Caller(active.settings.default_deadline_ms, DEFAULT_PRIORITY, "")

    def recall(
        self, headers: Mapping[bytes, bytes], endpoint: Endpoint, now_us: int
    ) -> tuple[Session, Grant] | None:
        """Return what was found before of a caller who asks for nothing but an answer: he is who he was, he may, and the
        snapshot is fresh enough. None where anything has to be looked at.

        Most requests are such, and where caches are cold every further call and object costs them a microsecond.
        """
        session = self._sessions.get(headers.get(b"authorization"))
        if session is None or not _ASKING.isdisjoint(headers):
            return None
        grant = session.grants.get(endpoint.name)
        if grant is None or now_us >= grant.until_us:
            return None
        grant.tally.asked += 1
        return session, grant

    def identify(self, authorization: bytes | None, now_us: int) -> Session:
        """Return the session of a bearer. Raises Unauthenticated."""
        session = self._sessions.get(authorization)
        if session is None:
            return self._open(authorization, now_us)
        self._active.verifier.verify(session.bearer, now_us / 1e6)  # from memory; says when it has expired
        return session

    def _open(self, authorization: bytes | None, now_us: int) -> Session:
        if authorization is None:
            raise Unauthenticated("no identity came with the request: send Authorization: Bearer TOKEN")
        scheme, _, rest = authorization.partition(b" ")
        try:
            bearer = rest.strip().decode("ascii")
        except UnicodeDecodeError:
            raise Unauthenticated("the Authorization header is not ASCII: send Bearer TOKEN") from None
        if scheme.lower() != b"bearer" or not bearer:
            raise Unauthenticated("the Authorization header is not understood: send Bearer TOKEN")
        principal, expires_at_s = self._active.verifier.accept(bearer, now_us / 1e6)
        # remembered in one spelling: a header may be padded to its bound, and each would be another
        authorization = b"Bearer " + bearer.encode("ascii")
        known = self._sessions.get(authorization)
        if known is not None:
            return known
        session = Session(principal, bearer, int(min(expires_at_s * 1e6, _FOREVER_US)), {})
        if len(self._sessions) >= _MAX_SESSIONS:
            del self._sessions[next(iter(self._sessions))]
        self._sessions[authorization] = session
        return session

    def authorise(self, session: Session, endpoint: Endpoint, now_us: int) -> Grant:
        """Return what a caller is granted when policy allows `predict` on the endpoint. Raises Denied with the reasons.

        A decision is remembered to the end of its hour, the finest time that a policy can look at.
        """
        grant = session.grants.get(endpoint.name)
        if grant is None or now_us >= grant.until_us:
            grant = self._grant(session, endpoint, now_us)
        grant.tally.asked += 1
        return grant

    def _grant(self, session: Session, endpoint: Endpoint, now_us: int) -> Grant:
        """Decide anew. Of whoever is contained nothing is remembered, and what he is refused counts as asked."""
        principal = session.principal
        key = (endpoint.name, principal.id)
        try:
            held = self._active.restraints.hold(
                principal.id, endpoint.name, key=session.bearer.startswith(KEY_PREFIX), now_us=now_us
            )
        except TautError:
            self._callers.tally(key).asked += 1
            raise
        self._permit(principal, "predict", endpoint, now_us)
        until_us = min(now_us - now_us % _HOUR_US + _HOUR_US, session.until_us, endpoint.stale_us)
        grant = Grant(endpoint.account(principal, held or ()), until_us, self._callers.tally(key))
        if held is None:
            session.grants[endpoint.name] = grant
        return grant

    def require(self, session: Session, action: str, endpoint: Endpoint, now_us: int) -> None:
        """Raise Denied unless a caller may do to an endpoint what is no question to it; for what is not asked often."""
        principal, key = session.principal, session.bearer.startswith(KEY_PREFIX)
        self._active.restraints.hold(principal.id, endpoint.name, key=key, now_us=now_us)
        self._permit(principal, action, endpoint, now_us)

    def _permit(self, principal: Principal, action: str, endpoint: Endpoint, now_us: int) -> None:
        context = {
            "plane": "data",
            "risk": endpoint.config.risk,
            "now": datetime.fromtimestamp(now_us / 1e6, tz=UTC),
        }
        decision = self._active.policy.decide(principal, action, endpoint.resource, context)
        if not decision.allow:
            raise Denied(
                f"{principal.id} may not {action} on {endpoint.resource}: {'; '.join(decision.reasons)}. "
                "Ask for the role predictor"
            )

    def read_headers(self, headers: Mapping[bytes, bytes]) -> Caller:
        """Return what the request's own headers ask for. Raises Malformed, naming the header."""
        deadline = headers.get(b"taut-deadline-ms")
        priority = headers.get(b"taut-priority")
        subject = headers.get(b"taut-subject")
        if deadline is None and priority is None and subject is None:
            return self.plain
        deadline_ms = self.plain.deadline_ms
        if deadline is not None:
            deadline_ms = whole_number(b"taut-deadline-ms", deadline, 1, _MAX_DEADLINE_MS)
        number = DEFAULT_PRIORITY if priority is None else whole_number(b"taut-priority", priority, 0, 9)
        return Caller(deadline_ms, number, "" if subject is None else _subject(subject))


def _subject(value: bytes) -> str:
    text = value.decode("latin-1")
    if not text.isascii() or not text.isprintable() or not 0 < len(text) <= _MAX_SUBJECT:
        raise Malformed(f"taut-subject: wanted 1 to {_MAX_SUBJECT} printable ASCII characters")
    return text


def check_fresh(endpoint: Endpoint, now_us: int) -> None:
    """Raise Unavailable when control was silent for longer than this endpoint may be served without it."""
    if now_us > endpoint.stale_us:
        raise Unavailable(
            f"endpoint {endpoint.name!r}: the last snapshot is older than it may be served: restart control",
            retry_after_s=5.0,
        )


def json_bytes(headers: Mapping[bytes, bytes], body: bytes, kind: str) -> int | None:
    """Return how many bytes of a body are JSON, with raw tensors after it; None for all. Raises Malformed."""
    value = headers.get(_JSON_BYTES)
    if value is None:
        return None
    if kind != "v2":
        raise Malformed("inference-header-content-length is for /v2/models/NAME/infer: send JSON here")
    return whole_number(_JSON_BYTES, value, 0, len(body))


def stream_rows(headers: Mapping[bytes, bytes]) -> int | None:
    """Return how many rows an event has, None where no events are asked for. Raises Malformed."""
    if b"text/event-stream" not in headers.get(b"accept", b""):
        return None
    value = headers.get(b"taut-stream-rows")
    return 1 if value is None else whole_number(b"taut-stream-rows", value, 1, _MAX_STREAM_ROWS)


def check_key_parts(key: tuple[object, ...], row: int, names: tuple[str, ...]) -> None:
    if None in key:
        raise InvalidInput(
            f"row {row}, column {names[key.index(None)]!r}: saw null, wanted the key of an entity"
        )
