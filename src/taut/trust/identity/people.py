"""Acts on principals inside an open transaction, each with its ledger leaf."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final, Literal

from sqlalchemy import BigInteger, String, insert, literal, select, update

from taut.core.canonical import canonical_json
from taut.core.errors import Conflict, Denied, InvalidInput
from taut.core.evidence import Scalar
from taut.core.times import to_us
from taut.ports.records import Tx
from taut.ports.world import Clock
from taut.trust.identity import rows
from taut.trust.identity.principals import OWNER, check_kind, check_principal_id, check_roles
from taut.trust.identity.rows import PrincipalRow
from taut.trust.identity.tables import principals, revocations, tokens
from taut.trust.ledger import Entry, Ledger

Enrol = Literal["human", "service"]
SECOND_US: Final = 1_000_000
MAX_TEXT: Final = 200


def json_text(values: tuple[str, ...]) -> str:
    return canonical_json(values).decode("ascii")


class People:
    """The principals. Every method takes the transaction in which its effect and its leaf commit together."""

    def __init__(self, ledger: Ledger, clock: Clock) -> None:
        self._ledger: Final = ledger
        self._clock: Final = clock

    def holder(
        self, tx: Tx, id_: str, wanted: tuple[str, ...], *, actor: str, enrol: Enrol | None
    ) -> PrincipalRow:
        """Return who shall hold a credential with the roles `wanted`; see `Identity.create_token`."""
        if id_ == OWNER.id:
            raise Denied("the owner's rights do not travel: make a principal and give the credential to it")
        person = rows.find_principal(tx, id_)
        if person is None and enrol is not None:
            return self.add(tx, id_, kind=enrol, roles=wanted, actor=actor, display="")
        person = person or rows.get_principal(tx, id_)
        if person.disabled:
            raise Denied(f"principal {id_!r} is disabled: enable it first")
        lacking = sorted(set(wanted) - set(person.roles))
        if lacking and enrol is None:
            raise Denied(f"principal {id_!r} has not the role {lacking[0]!r}: grant it first")
        if lacking:
            return self.set_roles(tx, person, check_roles((*person.roles, *lacking)), actor=actor)
        return person

    def add(
        self, tx: Tx, id_: str, *, kind: str, roles: tuple[str, ...], actor: str, display: str
    ) -> PrincipalRow:
        check_principal_id(id_)
        if id_ == OWNER.id or check_kind(kind) == "owner":
            raise InvalidInput("the owner is whoever holds the installation's files and cannot be added")
        if len(display) > MAX_TEXT:
            raise InvalidInput(f"the display name has {len(display)} characters: use at most {MAX_TEXT}")
        if rows.find_principal(tx, id_) is not None:
            raise Conflict(f"principal {id_!r} exists already: change its roles, or choose another id")
        tx.execute(
            insert(principals).values(
                id=id_, kind=kind, display=display, roles=json_text(roles), disabled=False, tokens_from_us=0,
                created_at_us=to_us(self._clock.now()), created_by=actor,
            )
        )  # fmt: skip
        self.note(tx, "identity.principal.created", id_, actor, {"kind": kind, "roles": " ".join(roles)})
        return rows.get_principal(tx, id_)

    def set_roles(self, tx: Tx, person: PrincipalRow, roles: tuple[str, ...], *, actor: str) -> PrincipalRow:
        tx.execute(update(principals).where(principals.c.id == person.id).values(roles=json_text(roles)))
        if set(person.roles) - set(roles):
            self.cut_tokens(tx, person.id, actor=actor)
        facts = {"before": " ".join(person.roles), "after": " ".join(roles)}
        self.note(tx, "identity.principal.roles", person.id, actor, facts)
        return rows.get_principal(tx, person.id)

    def cut_tokens(self, tx: Tx, principal: str, *, actor: str) -> None:
        """Refuse the tokens issued so far.

        They carry whole seconds, so the cut lies at the next one, and never goes back with the clock. Those that
        were issued for that second or later (after an earlier cut, or before the clock was set back) are named.
        """
        now_us = to_us(self._clock.now())
        before_us = rows.get_principal(tx, principal).tokens_from_us
        cut_us = max(before_us, (now_us // SECOND_US + 1) * SECOND_US)
        tx.execute(update(principals).where(principals.c.id == principal).values(tokens_from_us=cut_us))
        late = select(
            tokens.c.jti, tokens.c.expires_at_us, literal(now_us, BigInteger), literal(actor, String)
        ).where(
            tokens.c.principal == principal,
            tokens.c.issued_at_us >= cut_us,
            tokens.c.jti.not_in(select(revocations.c.jti)),
        )
        named = ("jti", "expires_at_us", "revoked_at_us", "revoked_by")
        tx.execute(insert(revocations).from_select(named, late))

    def note(
        self,
        tx: Tx,
        kind: str,
        principal: str,
        actor: str,
        facts: Mapping[str, Scalar] | None = None,
        *,
        known_by_itself: bool = False,
    ) -> None:
        """Write the leaf, and let verifiers know that something changed.

        known_by_itself: nothing that verifiers hold changed; a signed token brings all that they need.
        """
        body: dict[str, object] = {**(facts or {})}
        leaf = self._ledger.append(
            tx, Entry(kind=kind, subject=f"principal:{principal}", actor=actor, body=body)
        )
        if not known_by_itself:
            rows.add_change(tx, leaf)
