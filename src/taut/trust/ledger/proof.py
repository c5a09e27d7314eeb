"""Proofs as JSON, and their check by anybody who has the public key and nothing else."""

from __future__ import annotations

from base64 import b64encode
from typing import Any, Final

import msgspec

from taut.core.errors import Corrupt, InvalidInput
from taut.trust.ledger.leaf import proof_bytes
from taut.trust.ledger.merkle import leaf_hash, verify_inclusion
from taut.trust.ledger.note import decode_base64, open_checkpoint, verify_key
from taut.trust.ledger.values import Leaf, Proof

FORMAT: Final = "taut-ledger-proof/1"


class _LeafForm(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    id: str
    kind: str
    subject: str
    actor: str
    at_us: int
    body: dict[str, Any]


class _ProofForm(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    format: str
    leaf: _LeafForm
    index: int
    size: int
    path: list[str]  # base64
    checkpoint: str


def proof_as_json(proof: Proof) -> dict[str, Any]:
    """Return the JSON that `verify_proof` checks: the leaf, its audit path and the signed checkpoint."""
    leaf = proof.leaf
    return {
        "format": FORMAT,
        "leaf": {
            "id": leaf.id,
            "kind": leaf.kind,
            "subject": leaf.subject,
            "actor": leaf.actor,
            "at_us": leaf.at_us,
            "body": leaf.body,
        },
        "index": proof.index,
        "size": proof.size,
        "path": [b64encode(part).decode() for part in proof.path],
        "checkpoint": proof.checkpoint,
    }


def proof_as_text(proof: Proof) -> str:
    """Return the proof as a C2SP tlog-proof, for tools that know that format; the leaf's bytes are its `extra`."""
    lines = ["c2sp.org/tlog-proof@v1", f"extra {b64encode(proof_bytes(proof.leaf)).decode()}"]
    lines += [f"index {proof.index}", *(b64encode(part).decode() for part in proof.path)]
    return "\n".join(lines) + "\n\n" + proof.checkpoint


def verify_proof(proof: bytes | str | dict[str, Any], public_key_pem: str) -> Leaf:
    """Check a proof offline and return the leaf that it proves, `seq` being its place.

    proof: what `taut ledger prove --json` printed. public_key_pem: the ledger's, got by a way that you trust.
    Needs no database and no network. Proves that the holder of the key signed a log with exactly this leaf at this
    place; not that nobody showed somebody else another log (compare checkpoints for that).
    Raises InvalidInput for what is no proof, Corrupt when any part does not fit the others or the key.
    """
    try:
        if isinstance(proof, dict):
            form = msgspec.convert(proof, _ProofForm)
        else:
            form = msgspec.json.decode(proof, type=_ProofForm)
    except msgspec.MsgspecError as error:
        raise InvalidInput(f"this is no ledger proof: {error}") from error
    if form.format != FORMAT:
        raise InvalidInput(f"proof format {form.format[:40]!r} is not known: expected {FORMAT}")
    path = tuple(decode_base64(part) for part in form.path)
    checkpoint = open_checkpoint(form.checkpoint, [verify_key(public_key_pem)])
    leaf = Leaf(**msgspec.structs.asdict(form.leaf), seq=form.index)
    if form.size != checkpoint.size or not verify_inclusion(
        leaf_hash(proof_bytes(leaf)), index=form.index, size=checkpoint.size, path=path, root=checkpoint.root
    ):
        raise Corrupt(
            f"leaf {leaf.id[:80]!r} is not at place {form.index} of the log that the checkpoint signs: the leaf, "
            "its path or the checkpoint was changed"
        )
    return leaf
