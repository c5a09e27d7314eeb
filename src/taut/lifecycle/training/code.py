"""Who vouches for the code that a job runs: a signed statement over the bundle and its lock."""

from __future__ import annotations

from typing import Final

from taut.core.canonical import parse_digest
from taut.core.errors import Denied
from taut.lifecycle.training.values import Code
from taut.ports.keys import Keys
from taut.trust.signing import SignedStatement, sign_statement, verify_statement

PAYLOAD_TYPE: Final = "application/vnd.taut.bundle+json"


def sign_code(keys: Keys, *, bundle: str, lock: str, actor: str) -> Code:
    """Vouch for a bundle and the lock of its environment, both by digest, as `apply` does."""
    payload = {"bundle": parse_digest(bundle), "lock": lock, "actor": actor}
    statement = sign_statement(keys, purpose="bundle", payload_type=PAYLOAD_TYPE, payload=payload)
    return Code(bundle=bundle, lock=lock, statement=statement.to_json().decode())


def verify_code(keys: Keys, code: Code) -> None:
    """Raise Denied or Corrupt unless the statement is ours and speaks of this very code."""
    statement = SignedStatement.from_json(code.statement)
    payload = verify_statement(statement, keys.public_keys(purpose="bundle"), payload_type=PAYLOAD_TYPE)
    if (payload.get("bundle"), payload.get("lock")) != (code.bundle, code.lock):
        raise Denied(
            f"the signed statement speaks of another bundle than {code.bundle}: apply the project again"
        )
