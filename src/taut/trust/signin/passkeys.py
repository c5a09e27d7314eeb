"""Passkeys: signing in by a key in a person's device, which the device asks him to unlock.

Source: W3C Web Authentication Level 3; python-fido2 verifies. What the device is (its attestation) is not asked.
"""

from __future__ import annotations

import hashlib
import hmac
import struct
from collections.abc import Callable
from datetime import datetime
from typing import TYPE_CHECKING, Any, Final, TypeVar
from urllib.parse import urlsplit

import msgspec
from cryptography.exceptions import InvalidSignature, UnsupportedAlgorithm
from sqlalchemy import delete, func, insert, select, update

from taut.core.errors import Conflict, Denied, InvalidInput, NotFound, Unauthenticated
from taut.core.times import from_us, to_us
from taut.ports.records import Records, Tx, transact
from taut.ports.world import Clock
from taut.trust.ledger import Entry, Ledger
from taut.trust.signin.ceremonies import Ceremonies
from taut.trust.signin.sessions import SessionKind, Sessions, Started
from taut.trust.signin.tables import passkeys

if TYPE_CHECKING:
    from fido2.server import Fido2Server
    from fido2.webauthn import AuthenticatorData

T = TypeVar("T")
Json = dict[str, Any]

EACH_MAX: Final = 10
_ALGORITHMS: Final = (-7, -8, -257)  # ES256, EdDSA, RS256
_MAX_NAME: Final = 80
_ADD, _ENTER = "passkey-add", "passkey-enter"
_BROKEN: Final = (
    ValueError, TypeError, KeyError, IndexError, AttributeError, AssertionError, RecursionError, OverflowError,
    struct.error, InvalidSignature, UnsupportedAlgorithm,
)  # fmt: skip
"""All that the library raises on an answer that no device gives."""


class Passkey(msgspec.Struct, frozen=True, kw_only=True):
    """A passkey as it is listed."""

    id: str
    name: str
    created_at: datetime


class Passkeys:
    """People's passkeys.

    Guarantees: an answer is accepted for its challenge once, from the console's own address, with the person verified by his
    device; one whose counter went back is refused, for then there is a copy of it. Nobody says a name to sign in,
    so that nobody learns which names exist.

    origin: address at which browsers reach control; empty takes `http://localhost` with any port.
    """

    def __init__(
        self,
        records: Records,
        ledger: Ledger,
        clock: Clock,
        *,
        sessions: Sessions,
        ceremonies: Ceremonies,
        origin: str = "",
    ) -> None:
        self._records: Final = records
        self._ledger: Final = ledger
        self._clock: Final = clock
        self._sessions: Final = sessions
        self._ceremonies: Final = ceremonies
        self._origin: Final = origin

    def begin(self, principal: str) -> tuple[Json, str]:
        """Return what `navigator.credentials.create` takes, and the handle with which the answer comes back."""
        from fido2.webauthn import ResidentKeyRequirement, UserVerificationRequirement

        user: Any = {"id": _user_handle(principal), "name": principal, "displayName": principal}
        with self._records.read() as tx:
            known = [_credential(row.credential) for row in self._rows(tx, principal)]
        options, state = self._server().register_begin(
            user, known, resident_key_requirement=ResidentKeyRequirement.REQUIRED,
            user_verification=UserVerificationRequirement.REQUIRED,
        )  # fmt: skip
        return _plain(options), self._ceremonies.begin(_ADD, {**_state(state), "principal": principal})

    def finish(self, principal: str, handle: str, response: Json, *, name: str) -> Passkey:
        """Keep a passkey. Raises Denied for an answer that is wrong, Conflict for the eleventh or one that exists."""
        begun = self._ceremonies.take(_ADD, handle)
        if begun.pop("principal") != principal:
            raise Denied("this passkey was begun by somebody else: begin again")
        if not 0 < len(name) <= _MAX_NAME or not name.isprintable():
            raise InvalidInput(f"a passkey has a name of 1 to {_MAX_NAME} characters that can be shown")
        try:
            found = self._server().register_complete(begun, response).credential_data
            known = found is not None and found.public_key.get(3) in _ALGORITHMS
        except _BROKEN as error:
            raise Denied("the device's answer is not right: begin again") from error
        if found is None or not known:
            raise Denied("the device's key is of a kind that is not taken here: use another device")
        id_, raw, now = _id(found.credential_id), bytes(found), self._clock.now()

        def do(tx: Tx) -> None:
            count = select(func.count()).select_from(passkeys).where(passkeys.c.principal == principal)
            taken = tx.execute(select(passkeys.c.id).where(passkeys.c.id == id_)).first()
            if taken is not None or tx.execute(count).scalar_one() >= EACH_MAX:
                raise Conflict(f"this passkey is known already, or there are {EACH_MAX}: remove one first")
            tx.execute(
                insert(passkeys).values(
                    id=id_,
                    principal=principal,
                    name=name,
                    credential=raw,
                    sign_count=0,
                    created_at_us=to_us(now),
                )
            )
            self._leaf(tx, "identity.passkey.added", principal, actor=principal, passkey=id_)

        transact(self._records, do)
        return Passkey(id=id_, name=name, created_at=now)

    def challenge(self, *, address: str = "") -> tuple[Json, str]:
        """Return what `navigator.credentials.get` takes, and the handle with which the answer comes back."""
        from fido2.webauthn import UserVerificationRequirement

        options, state = self._server().authenticate_begin(
            user_verification=UserVerificationRequirement.REQUIRED
        )
        return _plain(options), self._ceremonies.begin(_ENTER, _state(state), address=address)

    def enter(self, handle: str, response: Json, *, kind: SessionKind) -> Started:
        """Begin a session for whom a passkey proves. Raises Unauthenticated when anything is wrong."""
        begun = self._ceremonies.take(_ENTER, handle)
        read = _reading(lambda: self._parse(response))
        id_ = _id(read[0])
        with self._records.read() as tx:
            row = tx.execute(select(passkeys).where(passkeys.c.id == id_)).one_or_none()
        if row is None:
            raise _wrong()
        known, user = [_credential(row.credential)], read[2]
        _reading(lambda: self._server().authenticate_complete(begun, known, response))
        if user is not None and not hmac.compare_digest(user, _user_handle(row.principal)):
            raise _wrong()
        counter = read[1].counter
        if not self._count(id_, row.principal, counter):
            raise Unauthenticated("this passkey seems to exist twice: sign in otherwise, and remove it")
        return transact(
            self._records,
            lambda tx: self._sessions.start(
                tx, row.principal, kind=kind, method="passkey", proved_at=self._clock.now()
            ),
        )

    def of(self, principal: str) -> tuple[Passkey, ...]:
        """Return a person's passkeys, the oldest first."""
        with self._records.read() as tx:
            rows = self._rows(tx, principal)
        return tuple(Passkey(id=row.id, name=row.name, created_at=from_us(row.created_at_us)) for row in rows)

    def remove(self, principal: str, id: str | None, *, actor: str) -> None:
        """Forget a passkey of a person, or all of them. Raises NotFound for one that he has not."""

        def do(tx: Tx) -> None:
            wanted = passkeys.c.principal == principal
            wanted = wanted if id is None else wanted & (passkeys.c.id == id)
            if not tx.execute(delete(passkeys).where(wanted)).rowcount:
                if id is not None:
                    raise NotFound(f"{principal} has no passkey {id[:64]!r}: look at `taut account show`")
                return
            self._leaf(tx, "identity.passkey.removed", principal, actor=actor, passkey=id or "all")

        transact(self._records, do)

    def _count(self, id_: str, principal: str, counter: int) -> bool:
        """Whether a passkey's counter went up, or stays at 0 as those do that count nothing. Says so in the ledger if not."""

        def do(tx: Tx) -> bool:
            row = tx.execute(select(passkeys.c.sign_count).where(passkeys.c.id == id_)).one_or_none()
            if row is None:
                return False
            if counter <= row.sign_count and (counter or row.sign_count):
                self._leaf(tx, "identity.passkey.copied", principal, actor="control", passkey=id_)
                return False
            tx.execute(update(passkeys).where(passkeys.c.id == id_).values(sign_count=counter))
            return True

        return transact(self._records, do)

    def _parse(self, response: Json) -> tuple[bytes, AuthenticatorData, bytes | None]:
        from fido2.webauthn import AuthenticationResponse

        read = AuthenticationResponse.from_dict(response)
        return read.raw_id, read.response.authenticator_data, read.response.user_handle

    def _server(self) -> Fido2Server:
        from fido2.server import Fido2Server
        from fido2.webauthn import PublicKeyCredentialRpEntity

        host = urlsplit(self._origin).hostname if self._origin else "localhost"
        server = Fido2Server(PublicKeyCredentialRpEntity(name="taut", id=host), verify_origin=self._is_own)
        server.allowed_algorithms = [one for one in server.allowed_algorithms if one.alg in _ALGORITHMS]
        return server

    def _is_own(self, origin: str) -> bool:
        if self._origin:
            return origin == self._origin
        parts = urlsplit(origin)
        return (parts.scheme, parts.hostname) == ("http", "localhost")

    def _rows(self, tx: Tx, principal: str) -> list[Any]:
        query = select(passkeys).where(passkeys.c.principal == principal)
        return list(tx.execute(query.order_by(passkeys.c.created_at_us, passkeys.c.id)).all())

    def _leaf(self, tx: Tx, kind: str, principal: str, *, actor: str, passkey: str) -> None:
        entry = Entry(kind=kind, subject=f"principal:{principal}", actor=actor, body={"passkey": passkey})
        self._ledger.append(tx, entry)


def _reading(do: Callable[[], T]) -> T:
    try:
        return do()
    except _BROKEN as error:
        raise _wrong() from error


def _wrong() -> Unauthenticated:
    return Unauthenticated("no passkey that is known here answered: try again, or sign in otherwise")


def _credential(raw: bytes) -> Any:
    from fido2.webauthn import AttestedCredentialData

    return AttestedCredentialData(raw)


def _plain(options: Any) -> Json:
    """The options as JSON, byte strings in base64url, as browsers' `parse…FromJSON` take them."""
    found: Json = msgspec.json.decode(msgspec.json.encode(_unpacked(options.public_key)))
    return found


def _unpacked(value: Any) -> Any:
    from collections.abc import Mapping

    if isinstance(value, Mapping):
        return {str(name): _unpacked(item) for name, item in value.items() if item is not None}
    if isinstance(value, list | tuple):
        return [_unpacked(item) for item in value]
    return str(value) if isinstance(value, str) else int(value) if isinstance(value, int) else value


def _state(state: Any) -> Json:
    return {"challenge": str(state["challenge"]), "user_verification": str(state["user_verification"].value)}


def _id(credential_id: bytes) -> str:
    return hashlib.sha256(credential_id).hexdigest()


def _user_handle(principal: str) -> bytes:
    """How a device knows a person: not by his name, which it would show to other sites' scripts."""
    return hashlib.sha256(b"taut/passkey/" + principal.encode()).digest()
