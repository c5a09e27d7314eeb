"""As whom somebody acts: by what he shows, or, while the rules of single-user hold, as owner of the files."""

from __future__ import annotations

from taut.core.errors import Unauthenticated
from taut.entrypoints.operations.operation import Caller, Platform, is_single_user
from taut.trust.breakglass import emergency
from taut.trust.identity.principals import OWNER
from taut.trust.signin import PREFIX


def caller_of(platform: Platform, bearer: str, *, local: bool, address: str = "") -> Caller:
    """Return who holds a bearer: a session's text, an API key or a token. Raises Unauthenticated."""
    if not bearer.startswith(PREFIX):
        return Caller(principal=platform.identity.authenticate(bearer), local=local, address=address)
    session = platform.people.sessions.find(bearer)
    return Caller(principal=session.principal, local=local, session=session, address=address)


def owner_caller(platform: Platform, *, break_glass: str = "") -> Caller:
    """Return the owner as caller, as long as he is the only person, nobody else can reach it and nothing is production.

    break_glass: the reason for which he acts as owner all the same; recorded in the ledger before anything is done. In an
    emergency, that of one command or one that holds, the built-in policies decide alone.
    Raises Unauthenticated otherwise.
    """
    if break_glass.strip():
        _record(platform, break_glass.strip()[:500])
        return Caller(principal=emergency("command"), local=True)
    holding = platform.policy.glass.holding()
    if holding is not None:
        return Caller(principal=emergency(holding.id), local=True)
    if is_single_user(platform) and platform.plans.environment() != "production":
        return Caller(principal=OWNER, local=True)
    raise Unauthenticated(
        "this installation has several people, a plane that other machines reach, or a production environment, so "
        "that access to its files is not enough: sign in with `taut login`, or pass --token, or in an emergency "
        "--break-glass 'the reason', which is recorded"
    )


def _record(platform: Platform, reason: str) -> None:
    from taut.ports.records import transact
    from taut.trust.ledger import Entry

    entry = Entry(kind="identity.break_glass", subject="owner", actor=OWNER.id, body={"reason": reason})
    transact(platform.records, lambda tx: platform.ledger.append(tx, entry))
