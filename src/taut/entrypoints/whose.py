"""When the person with access to the installation's files may act as its owner without a sign-in."""

from __future__ import annotations

from taut.core.errors import Unauthenticated
from taut.entrypoints.operations.operation import Caller, Platform
from taut.trust.identity.principals import OWNER


def owner_caller(platform: Platform, *, break_glass: str = "") -> Caller:
    """Return the owner as caller, as long as he is the only person and nothing is production.

    break_glass: the reason for which he acts as owner all the same; recorded in the ledger before anything is done.
    Raises Unauthenticated otherwise.
    """
    if platform.identity.is_single_user() and platform.plans.environment() != "production":
        return Caller(principal=OWNER, local=True)
    if not break_glass.strip():
        raise Unauthenticated(
            "this installation has several people or a production environment, so that access to its files is not "
            "enough: pass --token, or in an emergency --break-glass 'the reason', which is recorded"
        )
    _record(platform, break_glass.strip()[:500])
    return Caller(principal=OWNER, local=True)


def _record(platform: Platform, reason: str) -> None:
    from taut.ports.records import transact
    from taut.trust.ledger import Entry

    entry = Entry(kind="identity.break_glass", subject="owner", actor=OWNER.id, body={"reason": reason})
    transact(platform.records, lambda tx: platform.ledger.append(tx, entry))
