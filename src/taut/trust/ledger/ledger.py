"""The ledger itself: what rooms append to, and what people ask."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from datetime import datetime
from typing import Any, Final

import msgspec
from sqlalchemy import Select, delete, func, insert, select

from taut.core.canonical import canonical_json, digest_bytes
from taut.core.errors import Corrupt, InvalidInput, NotFound
from taut.core.evidence import Evidence, Verdict
from taut.core.times import to_us
from taut.ports.keys import Keys
from taut.ports.records import Records, Tx, transact
from taut.ports.world import Clock, Ids
from taut.trust.ledger import tables as t
from taut.trust.ledger.audit import Audit
from taut.trust.ledger.checkpoints import Checkpoints, latest_checkpoint
from taut.trust.ledger.copies import CheckpointCopy
from taut.trust.ledger.leaf import DETAILS_BYTES_MAX, encode_entry, leaf_of_row
from taut.trust.ledger.note import check_origin, verify_keys
from taut.trust.ledger.resources import resource
from taut.trust.ledger.store import (
    GROUP_MAX,
    Group,
    add_group,
    head_size,
    is_waiting,
    latest_about,
    leaf_row,
    newest_rows,
    select_leaves,
    sequence_some,
    tile_reader,
)
from taut.trust.ledger.tiles import Tree
from taut.trust.ledger.values import Checkpoint, Entry, Leaf, LedgerReport, Proof

SHOW_MAX: Final = 10_000
_ATTEMPTS: Final = 32
_IN_MAX: Final = 500


class Ledger:
    """An append-only log in Records that cannot be changed unseen.

    Guarantees: a leaf is there exactly when the effect in its transaction is; once sequenced, leaves have the places
    0, 1, 2 … without a gap and keep them; `checkpoint` never signs a log that contradicts an earlier checkpoint
    that it can see. Any number of threads and processes may append, sequence and sign.

    Not guaranteed: that leaves have their places before `sequence` ran, or in the order of their times; that a cut
    tail is found without a copy of a checkpoint outside the database; anything about a leaf that was removed or
    changed together with its effect before it was sequenced.

    origin: the log's name in its checkpoints, like `example.org/taut`; one log, one origin, for ever.
    copies: where checkpoints are published. leaves_max: leaves a transaction of the sequencer, bounding its memory.
    """

    def __init__(
        self,
        records: Records,
        keys: Keys,
        clock: Clock,
        ids: Ids,
        *,
        origin: str,
        copies: Sequence[CheckpointCopy] = (),
        leaves_max: int = 32_768,
    ) -> None:
        self._records = records
        self._keys = keys
        self._clock = clock
        self._ids = ids
        self._origin = check_origin(origin)
        self._copies = tuple(copies)
        self._leaves_max = leaves_max
        self._checkpoints = Checkpoints(records, keys, clock, origin=origin, copies=copies)

    def append(self, tx: Tx, entry: Entry) -> str:
        """Log `entry` in the effect's transaction and return the leaf's id. Raises InvalidInput as Entry says."""
        return self._add(tx, [entry])

    def append_many(self, tx: Tx, entries: Iterable[Entry]) -> None:
        """Log entries together; cheaper by far than one by one. Up to 4,096 keep their order in the log."""
        waiting: list[Entry] = []
        for entry in entries:
            waiting.append(entry)
            if len(waiting) == GROUP_MAX:
                self._add(tx, waiting)
                waiting = []
        if waiting:
            self._add(tx, waiting)

    def record_verdict(
        self, tx: Tx, verdict: Verdict, *, actor: str, evidence: Evidence | None = None
    ) -> str:
        """Log a gate's verdict and return the leaf's id.

        The leaf says what was decided and commits to why; reasons and evidence, which may quote data, are kept as
        erasable details. Raises InvalidInput when `evidence` is not what the verdict was given on.
        """
        if evidence is not None and evidence.digest != verdict.evidence_digest:
            raise InvalidInput(
                f"the evidence given is not that of the {verdict.gate} verdict on {verdict.subject}: its digest is "
                f"{evidence.digest}, the verdict names {verdict.evidence_digest}"
            )
        body = {
            "gate": verdict.gate,
            "decision": str(verdict.decision),
            "degraded": verdict.degraded,
            "evidence": verdict.evidence_digest,
            "reasons": len(verdict.reasons),
        }
        details: dict[str, Any] = {"reasons": list(verdict.reasons)}
        if evidence is not None:
            details["evidence"] = msgspec.to_builtins(evidence)
        return self.append(tx, Entry(f"verdict.{verdict.gate}", verdict.subject, actor, body, details))

    def sequence(self) -> int:
        """Give every leaf that has committed by now its place and return how many got one.

        Safe to run anywhere at any time. Leaves that commit meanwhile may wait for the next call: each run costs the
        writers something, so whoever calls rests between runs.
        """
        total, more = 0, self._is_waiting()
        while more:
            taken, more = transact(
                self._records, lambda tx: sequence_some(tx, leaves_max=self._leaves_max), attempts=_ATTEMPTS
            )
            total += taken
        return total

    def checkpoint(self) -> Checkpoint:
        """Sequence what is committed, sign it and publish the checkpoint to every copy.

        Raises Corrupt, and signs nothing, when the log does not continue what a copy or the database has seen
        signed; Unavailable when a copy cannot be reached (the checkpoint is then kept and published next time).
        """
        self.sequence()
        checkpoint = self._checkpoints.make()
        self._checkpoints.publish(checkpoint)
        return checkpoint

    def verify(self, *, progress: Callable[[float], None] | None = None) -> LedgerReport:
        """Read everything again and compare: leaves, tiles, checkpoints and their copies. Memory is bounded.

        progress: called with the fraction done, 0 to 1.
        """
        return Audit(self._records, self._keys, origin=self._origin, copies=self._copies).run(progress)

    def prove(self, what: str) -> Proof:
        """Prove a leaf, by its id or as the newest about a subject, against a signed checkpoint.

        Sequences and signs when no checkpoint covers the leaf yet. Raises NotFound for what is not in the log.
        """
        public = verify_keys(self._keys)
        for _ in range(2):
            with self._records.read() as tx:
                row = self._find(tx, what)
                checkpoint = latest_checkpoint(tx, public, origin=self._origin)
                if row.seq is not None and checkpoint is not None and checkpoint.size > row.seq:
                    return Proof(
                        leaf=leaf_of_row(row),
                        index=row.seq,
                        size=checkpoint.size,
                        path=Tree(tile_reader(tx), head_size(tx)).inclusion(row.seq, checkpoint.size),
                        checkpoint=checkpoint.note,
                    )
            self.checkpoint()
        raise Corrupt(
            f"leaf {what} is in no checkpoint, though one was just signed: run `taut ledger verify`"
        )

    def consistency(self, old_size: int, new_size: int) -> tuple[bytes, ...]:
        """Return the proof that the log of `old_size` leaves begins that of `new_size`; see `verify_consistency`."""
        with self._records.read() as tx:
            return Tree(tile_reader(tx), head_size(tx)).consistency(old_size, new_size)

    def show(
        self,
        *,
        kind: str | None = None,
        subject: str | None = None,
        actor: str | None = None,
        since: datetime | None = None,
        limit: int = 50,
        details: bool = False,
    ) -> tuple[Leaf, ...]:
        """Return the newest leaves that fit every filter, newest first, those without a place before all.

        kind: whole, or a prefix that ends with a dot, such as `verdict.`. limit: 1 to 10,000.
        details: read those that were not erased too; Corrupt when one is not what its leaf commits to.
        """
        if not 0 < limit <= SHOW_MAX:
            raise InvalidInput(f"limit {limit} is out of range: show 1 to {SHOW_MAX} leaves at a time")
        query = _filtered(select_leaves(), kind=kind, actor=actor, since=since)
        with self._records.read() as tx:
            rows = newest_rows(tx, query, subject=subject, limit=limit)
            kept = _details(tx, [row.id for row in rows]) if details else {}
        return tuple(_with_details(leaf_of_row(row), kept.get(row.id)) for row in rows)

    def get(self, leaf_id: str) -> Leaf:
        """Return a leaf with its details, as far as they were not erased. Raises NotFound, or Corrupt."""
        with self._records.read() as tx:
            row = self._find(tx, leaf_id)
            return _with_details(leaf_of_row(row), _details(tx, [row.id]).get(row.id))

    def erase_details(self, tx: Tx, leaf_id: str) -> bool:
        """Destroy a leaf's details; its commitment, salted, then tells nothing. Return whether there were any."""
        return tx.execute(delete(t.details).where(t.details.c.leaf_id == leaf_id)).rowcount > 0

    def resource(self, path: str) -> bytes:
        """Return a C2SP tlog-tiles resource; see `resources.resource`."""
        with self._records.read() as tx:
            return resource(tx, path)

    def size(self) -> int:
        """Return the number of sequenced leaves."""
        with self._records.read() as tx:
            return head_size(tx)

    def is_signed(self) -> bool:
        """Return whether a checkpoint covers every sequenced leaf; an empty log needs none."""
        with self._records.read() as tx:
            return head_size(tx) == (tx.execute(select(func.max(t.checkpoints.c.size))).scalar_one() or 0)

    def _is_waiting(self) -> bool:
        with self._records.read() as tx:
            return is_waiting(tx)

    def _add(self, tx: Tx, entries: Sequence[Entry]) -> str:
        """Write entries as one group and return the id of its first leaf."""
        group = Group(self._ids.new("leaf"), to_us(self._clock.now()), [], [])
        for number, entry in enumerate(entries):
            leaf_id = f"{group.id}.{number}"
            body = entry.body
            if entry.details is not None:
                body = {**body, "details": self._keep_details(tx, leaf_id, entry)}
            text, hash_ = encode_entry(entry, body, id=leaf_id, at_us=group.at_us)
            group.rows.append((number, leaf_id, entry.kind, entry.subject, entry.actor, text))
            group.hashes.append(hash_)
        add_group(tx, group)
        return group.rows[0][1]

    def _keep_details(self, tx: Tx, leaf_id: str, entry: Entry) -> str:
        encoded = canonical_json(entry.details).decode()
        if len(encoded) > DETAILS_BYTES_MAX:
            raise InvalidInput(
                f"details of {entry.kind} about {entry.subject} are longer than {DETAILS_BYTES_MAX} bytes: keep them "
                "as a blob and log its digest"
            )
        if "details" in entry.body:
            raise InvalidInput(f"body of {entry.kind} has a field `details`: that name holds the commitment")
        salt = self._ids.new(
            "salt"
        )  # 80 random bits: without it, short details could be guessed from the digest
        tx.execute(insert(t.details).values(leaf_id=leaf_id, salt=salt, body=encoded))
        return _commitment(salt, encoded)

    def _find(self, tx: Tx, what: str) -> Any:
        row = leaf_row(tx, what) or latest_about(tx, what)
        if row is None:
            raise NotFound(f"the ledger has no leaf {what[:120]!r} and none about it: see `taut ledger show`")
        return row


def _commitment(salt: str, body: str) -> str:
    return digest_bytes(f"{salt}\n{body}".encode())


def _filtered(
    query: Select[Any], *, kind: str | None, actor: str | None, since: datetime | None
) -> Select[Any]:
    if kind is not None:
        column = t.leaves.c.kind
        query = query.where(
            column.startswith(kind, autoescape=True) if kind.endswith(".") else column == kind
        )
    if actor is not None:
        query = query.where(t.leaves.c.actor == actor)
    return query if since is None else query.where(t.groups.c.at_us >= to_us(since))


def _details(tx: Tx, leaf_ids: Sequence[str]) -> dict[str, Any]:
    found: dict[str, Any] = {}
    for at in range(0, len(leaf_ids), _IN_MAX):
        wanted = t.details.c.leaf_id.in_(leaf_ids[at : at + _IN_MAX])
        found.update((row.leaf_id, row) for row in tx.execute(select(t.details).where(wanted)))
    return found


def _with_details(leaf: Leaf, row: Any | None) -> Leaf:
    if row is None:
        return leaf
    if leaf.body.get("details") != _commitment(row.salt, row.body):
        raise Corrupt(f"details of leaf {leaf.id} are not those that it commits to: they were changed")
    return msgspec.structs.replace(leaf, details=msgspec.json.decode(row.body))
