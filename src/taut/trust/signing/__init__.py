"""Signed statements: JSON that says who vouches for it, checked strictly before it is believed."""

from taut.trust.signing.statement import SignedStatement, sign_statement, verify_signature, verify_statement

__all__ = ["SignedStatement", "sign_statement", "verify_signature", "verify_statement"]
