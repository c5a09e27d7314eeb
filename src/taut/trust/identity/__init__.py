"""Who is calling: principals, their tokens and API keys, and a verifier that needs no database."""

from typing import TYPE_CHECKING

from taut.trust.identity.principals import (
    OWNER,
    ROLES,
    Principal,
    PrincipalKind,
    check_principal_id,
    check_roles,
    check_scopes,
)
from taut.trust.identity.verifier import ApiKeyHash, RevokedToken, TokenVerifier, VerifierData

if TYPE_CHECKING:
    from taut.trust.identity.rows import ApiKeyRow, PrincipalRow, TokenRow
    from taut.trust.identity.store import Identity
    from taut.trust.identity.tables import metadata

__all__ = [
    "OWNER",
    "ROLES",
    "ApiKeyHash",
    "ApiKeyRow",
    "Identity",
    "Principal",
    "PrincipalKind",
    "PrincipalRow",
    "RevokedToken",
    "TokenRow",
    "TokenVerifier",
    "VerifierData",
    "check_principal_id",
    "check_roles",
    "check_scopes",
    "metadata",
]

_CONTROL = {
    "ApiKeyRow": "rows",
    "Identity": "store",
    "PrincipalRow": "rows",
    "TokenRow": "rows",
    "metadata": "tables",
}


def __getattr__(name: str) -> object:
    """Import what control needs on first use: a gateway verifies bearers without loading SQLAlchemy."""
    if name not in _CONTROL:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    from importlib import import_module

    return getattr(import_module(f"{__name__}.{_CONTROL[name]}"), name)
