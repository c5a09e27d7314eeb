"""People whom an OpenID provider knows: who they are here, and in which roles."""

from __future__ import annotations

import hashlib
import hmac
import re
from typing import Any, Final
from urllib.parse import urlsplit

import msgspec
from sqlalchemy import insert, select

from taut.core.errors import Conflict, Denied, InvalidInput, Unauthenticated
from taut.core.times import to_us
from taut.ports.records import Records, Tx, transact
from taut.ports.world import Clock, Random
from taut.trust.identity.people import People
from taut.trust.identity.principals import check_principal_id, check_roles
from taut.trust.identity.rows import find_principal, get_principal
from taut.trust.ledger import Entry, Ledger
from taut.trust.signin.ceremonies import Ceremonies, secret_text
from taut.trust.signin.idtoken import Told
from taut.trust.signin.provider import Provider
from taut.trust.signin.sessions import SessionKind, Sessions, Started
from taut.trust.signin.tables import links

_KIND: Final = "oidc"
_NOT_IN_A_NAME: Final = re.compile(r"[^a-z0-9_.\-]+")
_LOOPBACK: Final = ("127.0.0.1", "::1")


class Mapping(msgspec.Struct, frozen=True, kw_only=True):
    """How a provider's claims become principals here.

    name: the claim that names a person. roles: (claim, value, role); without any, roles are given here, and nobody is let in who was not linked.
    """

    name: str = "preferred_username"
    roles: tuple[tuple[str, str, str], ...] = ()

    @classmethod
    def parse(cls, name: str, roles: str) -> Mapping:
        """Read `CLAIM:VALUE=ROLE …`. Raises InvalidInput for anything else."""
        found = []
        for word in roles.split():
            claim, colon, rest = word.partition(":")
            value, equals, role = rest.rpartition("=")
            if not (claim and colon and value and equals):
                raise InvalidInput(
                    f"{word[:80]!r} maps nothing: write CLAIM:VALUE=ROLE, as in groups:ml-ops=operator"
                )
            found.append((claim, value, check_roles([role])[0]))
        return cls(name=name, roles=tuple(found))

    def roles_of(self, claims: dict[str, Any]) -> tuple[str, ...]:
        """Return the roles that claims stand for: the claim is the value, or a list that has it."""
        found = []
        for claim, value, role in self.roles:
            said = claims.get(claim)
            if said == value or (isinstance(said, list) and value in said):
                found.append(role)
        return tuple(sorted(set(found)))


class Federation:
    """Sign-in by way of a provider.

    Guarantees: an account of the provider is known by its issuer and subject, never by a name or an address that he could
    give to somebody else; it never becomes a principal that exists already unless an administrator links them; a way that was begun is
    ended once, by whoever began it.
    """

    def __init__(
        self,
        records: Records,
        ledger: Ledger,
        clock: Clock,
        random: Random,
        *,
        provider: Provider,
        mapping: Mapping,
        sessions: Sessions,
        ceremonies: Ceremonies,
        origin: str = "",
    ) -> None:
        self._records: Final = records
        self._ledger: Final = ledger
        self._clock: Final = clock
        self._random: Final = random
        self._provider: Final = provider
        self._mapping: Final = mapping
        self._sessions: Final = sessions
        self._ceremonies: Final = ceremonies
        self._people: Final = People(ledger, clock)
        self._origin: Final = origin

    def begin(self, redirect_uri: str, *, kind: SessionKind, address: str = "") -> tuple[str, str]:
        """Return where the person goes, and the handle with which whoever began this ends it."""
        self._check_redirect(redirect_uri, kind)
        state, nonce, verifier = (secret_text(self._random) for _ in range(3))
        url = self._provider.authorization_url(
            state=state, nonce=nonce, verifier=verifier, redirect_uri=redirect_uri
        )
        body = {
            "state": state, "nonce": nonce, "verifier": verifier, "redirect_uri": redirect_uri, "kind": kind,
        }  # fmt: skip
        return url, self._ceremonies.begin(_KIND, body, address=address)

    def finish(
        self, handle: str, *, state: str, code: str, issuer: str | None = None, kind: SessionKind
    ) -> Started:
        """Begin a session for whom the provider names. kind: as it was begun. Raises Unauthenticated, or Denied for who has no place here."""
        begun = self._ceremonies.take(_KIND, handle)
        if begun["kind"] != kind or not hmac.compare_digest(
            begun["state"].encode(), state.encode("utf-8", "surrogatepass")
        ):
            raise Unauthenticated("the answer belongs to another sign-in: begin again")
        told = self._provider.redeem(
            code,
            verifier=begun["verifier"],
            redirect_uri=begun["redirect_uri"],
            nonce=begun["nonce"],
            issuer=issuer,
        )

        def do(tx: Tx) -> Started:
            principal = self._principal(tx, told)
            return self._sessions.start(tx, principal, kind=kind, method="oidc", proved_at=told.proved_at)

        return transact(self._records, do)

    def link(self, principal: str, subject: str, *, actor: str) -> None:
        """Let an account of the provider be a person that exists here. Raises NotFound, Conflict."""

        def do(tx: Tx) -> None:
            if get_principal(tx, principal).kind != "human":
                raise Conflict(f"{principal!r} is a service, which does not sign in")
            key = _account(self._provider.issuer, subject)
            if tx.execute(select(links).where(links.c.account_sha256 == key)).first() is not None:
                raise Conflict("this account of the provider belongs to somebody here already")
            self._link(tx, key, principal, actor=actor)

        transact(self._records, do)

    def _principal(self, tx: Tx, told: Told) -> str:
        """Return who an account is here, with the roles that he has now; make him on his first day."""
        key, roles = _account(told.issuer, told.subject), self._mapping.roles_of(told.claims)
        found = tx.execute(
            select(links.c.principal).where(links.c.account_sha256 == key)
        ).scalar_one_or_none()
        if self._mapping.roles and not roles:
            raise Denied(
                "the identity provider knows you, but you have no role here: ask an administrator for one"
            )
        if found is not None:
            person = get_principal(tx, found)
            if self._mapping.roles and person.roles != roles:
                self._people.set_roles(tx, person, roles, actor="control")
            return str(found)
        if not roles:
            raise Denied(
                "the identity provider knows you, but nobody here is linked to you: ask for `taut user link`"
            )
        name = self._name(told)
        if find_principal(tx, name) is not None:
            raise Conflict(
                f"there is a {name!r} here already, and it may be somebody else: ask for `taut user link`"
            )
        self._people.add(tx, name, kind="human", roles=roles, actor="control", display="")
        self._link(tx, key, name, actor="control")
        return name

    def _name(self, told: Told) -> str:
        said = str(told.claims.get(self._mapping.name, "")).partition("@")[0].lower()
        try:
            return check_principal_id(_NOT_IN_A_NAME.sub("-", said).strip("-")[:63])
        except InvalidInput:
            raise Denied(
                f"the provider's claim {self._mapping.name!r} does not name you in a way that can be used here: "
                "ask for another one in TAUT_OIDC_NAME"
            ) from None

    def _link(self, tx: Tx, key: str, principal: str, *, actor: str) -> None:
        now_us = to_us(self._clock.now())
        tx.execute(insert(links).values(account_sha256=key, principal=principal, linked_at_us=now_us))
        entry = Entry(
            kind="identity.linked", subject=f"principal:{principal}", actor=actor, body={"account": key}
        )
        self._ledger.append(tx, entry)

    def _check_redirect(self, uri: str, kind: SessionKind) -> None:
        """The code comes back to the command that asked, on this machine, or to the console, and nowhere else."""
        parts = urlsplit(uri)
        if kind == "command":
            right = parts.scheme == "http" and parts.hostname in _LOOPBACK and parts.path == "/callback"
        else:
            right = bool(self._origin) and uri == f"{self._origin}/oidc/callback"
        if not right or parts.query or parts.fragment:
            raise InvalidInput(
                f"the answer is not sent to {uri[:200]!r}: commands take it on loopback, the console at TAUT_ORIGIN"
            )


def _account(issuer: str, subject: str) -> str:
    """An account as it is kept: a hash, for a subject may be an address, and links outlive people's time here."""
    return hashlib.sha256(f"{issuer}\n{subject}".encode("utf-8", "surrogatepass")).hexdigest()
