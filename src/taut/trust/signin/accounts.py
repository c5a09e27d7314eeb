"""Local accounts: an invitation, a password, a second factor, and the sign-in that asks for them."""

from __future__ import annotations

import hashlib
import hmac
from base64 import b32encode
from datetime import timedelta
from typing import Final

import msgspec
from sqlalchemy import delete, func, insert, select, update

from taut.core.errors import Conflict, Denied, InvalidInput, Unauthenticated
from taut.core.times import from_us, to_us
from taut.ports.keys import Keys
from taut.ports.records import Records, Tx, transact
from taut.ports.world import Clock, Random
from taut.trust.identity.principals import check_principal_id
from taut.trust.identity.rows import find_principal, get_principal
from taut.trust.ledger import Entry, Ledger
from taut.trust.signin import throttle
from taut.trust.signin import totp as codes
from taut.trust.signin.passwords import Passwords, check_password
from taut.trust.signin.sessions import SessionKind, Sessions, Started
from taut.trust.signin.tables import invitations, passwords, recovery_codes, totp

RECOVERY_CODES: Final = 10
INVITATION_MAX: Final = timedelta(days=7)
_RECOVERY_BYTES: Final = 10
_INVITATION_BYTES: Final = 20
_WRONG: Final = (
    "the name, the password or the code is wrong: try again; an account with a second factor needs its code too, "
    "and one without a password an invitation of an administrator"
)


class Factors(msgspec.Struct, frozen=True, kw_only=True):
    """What an account has to sign in with."""

    password: bool
    totp: bool
    recovery_codes: int


class NewTotp(msgspec.Struct, frozen=True, kw_only=True):
    """A second factor that is not asked for before it was confirmed. Shown once."""

    secret: str
    uri: str


class Accounts:
    """People's own credentials.

    Guarantees: an attempt is counted before it is judged, also for names that nobody has; the answer and the work are the same
    whatever is wrong; a code and an invitation are good once; administrators never learn a password, since they
    give out invitations. Each act is a leaf in the same transaction.
    Not guaranteed: that nobody learns from outside that an account is made to wait.
    """

    def __init__(
        self,
        records: Records,
        keys: Keys,
        ledger: Ledger,
        clock: Clock,
        random: Random,
        *,
        sessions: Sessions,
        passwords: Passwords,
        issuer: str = "taut",
    ) -> None:
        self._records: Final = records
        self._keys: Final = keys
        self._ledger: Final = ledger
        self._clock: Final = clock
        self._random: Final = random
        self._sessions: Final = sessions
        self._passwords: Final = passwords
        self._issuer: Final = issuer

    # Signing in

    def sign_in(
        self, principal: str, password: str, *, code: str = "", address: str = "", kind: SessionKind
    ) -> Started:
        """Begin a session by password, and a code where the account has a second factor.

        code: of the authenticator app, or one of the recovery codes. address: of who asks; empty on the machine itself.
        Raises Unauthenticated when anything is wrong, Exhausted while the account or the address has to wait.
        """
        self.count(principal, address)
        principal = _askable(principal)
        with self._records.read() as tx:
            stored = tx.execute(
                select(passwords.c.hash).where(passwords.c.principal == principal)
            ).scalar_one_or_none()
        if not self._passwords.verify(stored, password) or stored is None:
            raise Unauthenticated(_WRONG)
        renewed = self._passwords.hash(password) if self._passwords.is_outdated(stored) else None

        def do(tx: Tx) -> Started:
            method = self._second_factor(tx, principal, code)
            # read again: it may have been changed while it was compared
            held = tx.execute(
                select(passwords.c.hash).where(passwords.c.principal == principal)
            ).scalar_one_or_none()
            if method is None or held != stored:
                raise Unauthenticated(_WRONG)
            if renewed is not None:
                tx.execute(update(passwords).where(passwords.c.principal == principal).values(hash=renewed))
            throttle.forgive(tx, principal, address)
            return self._sessions.start(
                tx, principal, kind=kind, method=method, proved_at=self._clock.now(), address=address
            )

        return transact(self._records, do)

    def count(self, principal: str, address: str) -> None:
        """Count an attempt to sign in as `principal`, before it is judged. Raises Exhausted while one has to wait."""

        def do(tx: Tx) -> None:
            waits = throttle.take(tx, principal, address, now_us=to_us(self._clock.now()))
            if waits and find_principal(tx, _askable(principal)) is not None:
                self._leaf(tx, "identity.signin.slowed", principal, actor="control")

        transact(self._records, do, attempts=32)

    def _second_factor(self, tx: Tx, principal: str, code: str) -> str | None:
        """Return how the person proved himself, or None where a second factor is missing or wrong. Uses the code up."""
        row = tx.execute(select(totp).where(totp.c.principal == principal)).one_or_none()
        if row is None or not row.confirmed:
            return "password"
        if not code:
            return None
        secret = self._keys.unwrap(row.wrapped, purpose="data", context=_context(principal))
        step = codes.matching_step(secret, code, now_s=self._clock.now().timestamp(), after=row.last_step)
        if step is not None:
            tx.execute(update(totp).where(totp.c.principal == principal).values(last_step=step))
            return "password+totp"
        used = (recovery_codes.c.principal == principal) & (recovery_codes.c.code_sha256 == _digest(code))
        if not tx.execute(delete(recovery_codes).where(used)).rowcount:
            return None
        self._leaf(tx, "identity.recovery_code.used", principal, actor=principal)
        return "password+recovery"

    # Invitations and passwords

    def invite(self, principal: str, *, actor: str, ttl: timedelta = timedelta(hours=24)) -> tuple[str, str]:
        """Return a code with which a person sets his password, and when it ends. An earlier one ends now.

        Also for who forgot his password; second factors stay. Raises NotFound, InvalidInput on a bad ttl, Conflict for a service.
        """
        if not timedelta(minutes=1) <= ttl <= INVITATION_MAX:
            raise InvalidInput(f"an invitation cannot hold for {ttl}: give 1m to 7d")
        code = _text(self._random.bytes(_INVITATION_BYTES))

        def do(tx: Tx) -> str:
            if get_principal(tx, principal).kind != "human":
                raise Conflict(
                    f"{principal!r} is a service, which does not sign in: make it a key or a token"
                )
            expires_at = self._clock.now() + ttl
            tx.execute(delete(invitations).where(invitations.c.principal == principal))
            tx.execute(
                insert(invitations).values(
                    principal=principal, code_sha256=_digest(code), expires_at_us=to_us(expires_at)
                )
            )
            self._leaf(tx, "identity.invited", principal, actor=actor, body={"until": expires_at.isoformat()})
            return expires_at.isoformat()

        return code, transact(self._records, do)

    def accept(
        self,
        principal: str,
        invitation: str,
        password: str,
        *,
        code: str = "",
        address: str = "",
        kind: SessionKind,
    ) -> Started:
        """Set the password by an invitation, end all former sessions, and begin one. Errors as in `sign_in`."""
        self.count(principal, address)
        principal = _askable(principal)
        check_password(password, principal=principal)
        made = self._passwords.hash(password)

        def do(tx: Tx) -> Started:
            row = tx.execute(select(invitations).where(invitations.c.principal == principal)).one_or_none()
            held = "" if row is None else row.code_sha256
            right = hmac.compare_digest(held, _digest(invitation))
            if row is None or not right or from_us(row.expires_at_us) <= self._clock.now():
                raise Unauthenticated(
                    "the name or the invitation is wrong, or it has ended: ask for another one"
                )
            method = self._second_factor(tx, principal, code)
            if method is None:
                raise Unauthenticated(_WRONG)
            tx.execute(delete(invitations).where(invitations.c.principal == principal))
            self._set(tx, principal, made)
            throttle.forgive(tx, principal, address)
            return self._sessions.start(
                tx, principal, kind=kind, method=method, proved_at=self._clock.now(), address=address
            )

        return transact(self._records, do)

    def change_password(self, principal: str, current: str, new: str, *, address: str = "") -> None:
        """Set a password by the current one, and end all sessions, this one too. Errors as in `sign_in`."""
        self.count(principal, address)
        check_password(new, principal=principal)
        with self._records.read() as tx:
            stored = tx.execute(
                select(passwords.c.hash).where(passwords.c.principal == principal)
            ).scalar_one_or_none()
        if not self._passwords.verify(stored, current):
            raise Unauthenticated("the current password is wrong: try again")
        made = self._passwords.hash(new)

        def do(tx: Tx) -> None:
            throttle.forgive(tx, principal, address)
            self._set(tx, principal, made)

        transact(self._records, do)

    def _set(self, tx: Tx, principal: str, made: str) -> None:
        values = {"hash": made, "set_at_us": to_us(self._clock.now())}
        if not tx.execute(
            update(passwords).where(passwords.c.principal == principal).values(**values)
        ).rowcount:
            tx.execute(insert(passwords).values(principal=principal, **values))
        self._sessions.end_all(tx, principal, actor=principal)
        self._leaf(tx, "identity.password.set", principal, actor=principal)

    # Second factors

    def factors(self, principal: str) -> Factors:
        with self._records.read() as tx:
            count = select(func.count()).select_from(recovery_codes)
            row = tx.execute(select(totp.c.confirmed).where(totp.c.principal == principal)).one_or_none()
            return Factors(
                password=tx.execute(
                    select(passwords.c.principal).where(passwords.c.principal == principal)
                ).one_or_none()
                is not None,
                totp=row is not None and row.confirmed,
                recovery_codes=tx.execute(count.where(recovery_codes.c.principal == principal)).scalar_one(),
            )

    def begin_totp(self, principal: str) -> NewTotp:
        """Make a secret for an authenticator app. Raises Conflict where one is in use: remove it first."""
        secret = self._random.bytes(codes.SECRET_BYTES)
        wrapped = self._keys.wrap(secret, purpose="data", context=_context(principal))

        def do(tx: Tx) -> None:
            held = tx.execute(select(totp).where(totp.c.principal == principal)).one_or_none()
            if held is not None and held.confirmed:
                raise Conflict("this account has an authenticator app: remove it first")
            tx.execute(delete(totp).where(totp.c.principal == principal))
            tx.execute(
                insert(totp).values(principal=principal, wrapped=wrapped, confirmed=False, last_step=0)
            )

        transact(self._records, do)
        return NewTotp(
            secret=b32encode(secret).decode("ascii"),
            uri=codes.uri(secret, principal=principal, issuer=self._issuer),
        )

    def confirm_totp(self, principal: str, code: str, *, address: str = "") -> tuple[str, ...]:
        """Ask for codes from now on, and return the recovery codes, shown once. Raises Denied on a wrong code."""
        self.count(principal, address)
        fresh = tuple(_text(self._random.bytes(_RECOVERY_BYTES)) for _ in range(RECOVERY_CODES))

        def do(tx: Tx) -> None:
            row = tx.execute(select(totp).where(totp.c.principal == principal)).one_or_none()
            if row is None or row.confirmed:
                raise Conflict("no authenticator app waits to be confirmed: begin with `taut account totp`")
            secret = self._keys.unwrap(row.wrapped, purpose="data", context=_context(principal))
            step = codes.matching_step(secret, code, now_s=self._clock.now().timestamp(), after=0)
            if step is None:
                raise Denied("the code is wrong: check the clock of the device, and give the newest one")
            throttle.forgive(tx, principal, address)
            values = {"confirmed": True, "last_step": step}
            tx.execute(update(totp).where(totp.c.principal == principal).values(**values))
            self._put_recovery(tx, principal, fresh)
            self._leaf(tx, "identity.totp.added", principal, actor=principal)

        transact(self._records, do)
        return fresh

    def remove_totp(self, principal: str, *, actor: str) -> None:
        """Ask for no code any more. An administrator does so for who lost both his device and his recovery codes."""

        def do(tx: Tx) -> None:
            removed = tx.execute(delete(totp).where(totp.c.principal == principal)).rowcount
            tx.execute(delete(recovery_codes).where(recovery_codes.c.principal == principal))
            if removed:
                self._leaf(tx, "identity.totp.removed", principal, actor=actor)

        transact(self._records, do)

    def _put_recovery(self, tx: Tx, principal: str, fresh: tuple[str, ...]) -> None:
        tx.execute(delete(recovery_codes).where(recovery_codes.c.principal == principal))
        for code in fresh:
            tx.execute(insert(recovery_codes).values(code_sha256=_digest(code), principal=principal))

    def _leaf(
        self, tx: Tx, kind: str, principal: str, *, actor: str, body: dict[str, object] | None = None
    ) -> None:
        entry = Entry(kind=kind, subject=f"principal:{principal}", actor=actor, body=body or {})
        self._ledger.append(tx, entry)


def _askable(name: str) -> str:
    """Return a name as a database can be asked about it: one that nobody can have becomes one that nobody has."""
    try:
        return check_principal_id(name)
    except InvalidInput:
        return "nobody?"


def _context(principal: str) -> bytes:
    return b"signin/totp/" + principal.encode()


def _text(data: bytes) -> str:
    """Random bytes as people can copy them: groups of four, without letters that look alike in base 32."""
    text = b32encode(data).rstrip(b"=").decode("ascii").lower()
    return "-".join(text[at : at + 4] for at in range(0, len(text), 4))


def _digest(code: str) -> str:
    """Of a code that carries 80 random bits or more, so that no slow hash is needed."""
    plain = "".join(code.lower().split()).replace("-", "")
    return hashlib.sha256(plain.encode("utf-8", "surrogatepass")).hexdigest()
