"""Principals and the words for what they may be."""

from __future__ import annotations

import re
from collections.abc import Iterable
from typing import Final, Literal, get_args

import msgspec

from taut.core.errors import InvalidInput

PrincipalKind = Literal["human", "service", "owner"]

ROLES: Final = frozenset(
    {"admin", "operator", "builder", "approver", "predictor", "device", "responder", "machine", "auditor"}
)
"""The built-in roles. A role outside this set gives nobody any right."""

_ID: Final = re.compile(r"[a-z][a-z0-9_.\-]{0,62}")
_KEY_ID: Final = re.compile(r"[0-9a-f]{16}")
_SCOPE: Final = re.compile(r"[a-z]+(?:\.[a-z]+)*(?:@[a-z]+:[a-z0-9_.@\-]{1,128})?")
_MAX_SCOPES: Final = 32


class Principal(msgspec.Struct, frozen=True, kw_only=True, cache_hash=True):
    """An authenticated caller; what policy decides about and what records name as the actor.

    scopes: narrows what the roles permit; each is `ACTION` or `ACTION@RESOURCE`, and none means no narrowing.
    credential: the token's jti or the key's id, for records; never a secret.
    """

    id: str
    kind: PrincipalKind
    roles: tuple[str, ...]
    scopes: tuple[str, ...] = ()
    credential: str = ""


OWNER: Final = Principal(id="owner", kind="owner", roles=("admin",))
"""The person with access to the installation's files, while the rules of single-user hold."""


def shows_key(principal: Principal) -> bool:
    """Whether somebody shows an API key itself, and not a token or a session that he got for it."""
    return _KEY_ID.fullmatch(principal.credential) is not None


def check_principal_id(text: str) -> str:
    """Return `text` when it may name a principal. Raises InvalidInput otherwise.

    Ids are in records that are never deleted, so mail addresses are refused: use a short name, and put what
    people read into `display`.
    """
    if not _ID.fullmatch(text):
        raise InvalidInput(
            f"principal {text[:80]!r} is not allowed: use 1 to 63 of a-z, 0-9, -, _ and ., beginning with a letter"
        )
    return text


def check_kind(text: str) -> PrincipalKind:
    for kind in get_args(PrincipalKind):
        if text == kind:
            found: PrincipalKind = kind
            return found
    raise InvalidInput(f"kind {text[:40]!r} is unknown: use human or service")


def check_roles(roles: Iterable[str]) -> tuple[str, ...]:
    """Return the roles sorted and without duplicates. Raises InvalidInput on none at all or an unknown one."""
    found = tuple(sorted(set(roles)))
    unknown = [role for role in found if role not in ROLES]
    if unknown or not found:
        said = f"role {unknown[0][:40]!r} is unknown" if unknown else "no role is given"
        raise InvalidInput(f"{said}: use one or more of {', '.join(sorted(ROLES))}")
    return found


def check_scopes(scopes: Iterable[str]) -> tuple[str, ...]:
    """Return the scopes sorted. Raises InvalidInput on one that is not `ACTION` or `ACTION@RESOURCE`."""
    found = tuple(sorted(set(scopes)))
    if len(found) > _MAX_SCOPES:
        raise InvalidInput(f"{len(found)} scopes are too many: give at most {_MAX_SCOPES}")
    for scope in found:
        if not _SCOPE.fullmatch(scope):
            raise InvalidInput(
                f"scope {scope[:80]!r} is not understood: write ACTION or ACTION@RESOURCE, "
                "for example predict@endpoint:delay"
            )
    return found
