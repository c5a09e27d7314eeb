"""Signed statements: JSON that says who vouches for it, checked strictly before it is believed."""

from taut.trust.signing.statement import (
    SignedStatement,
    as_dsse,
    sign_statement,
    verify_signature,
    verify_statement,
)

__all__ = ["SignedStatement", "as_dsse", "sign_statement", "verify_signature", "verify_statement"]
