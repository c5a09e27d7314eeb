"""What happened, provably: an append-only Merkle log in the effects' own transactions, signed and copied elsewhere."""

from taut.trust.ledger.copies import BlobsCopy, CheckpointCopy, DirectoryCopy
from taut.trust.ledger.ledger import Ledger
from taut.trust.ledger.merkle import verify_consistency, verify_inclusion
from taut.trust.ledger.note import open_checkpoint, verify_key
from taut.trust.ledger.present import checkpoint_as_json, leaf_as_json, report_as_json
from taut.trust.ledger.proof import proof_as_json, proof_as_text, verify_proof
from taut.trust.ledger.tables import metadata
from taut.trust.ledger.values import Checkpoint, Entry, Fault, Leaf, LedgerReport, Proof

__all__ = [
    "BlobsCopy",
    "Checkpoint",
    "CheckpointCopy",
    "DirectoryCopy",
    "Entry",
    "Fault",
    "Leaf",
    "Ledger",
    "LedgerReport",
    "Proof",
    "checkpoint_as_json",
    "leaf_as_json",
    "metadata",
    "open_checkpoint",
    "proof_as_json",
    "proof_as_text",
    "report_as_json",
    "verify_consistency",
    "verify_inclusion",
    "verify_key",
    "verify_proof",
]
