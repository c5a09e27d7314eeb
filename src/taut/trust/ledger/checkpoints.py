"""Making checkpoints: never one that contradicts what was signed or published before."""

from __future__ import annotations

from collections.abc import Sequence

from sqlalchemy import insert, select

from taut.core.errors import Conflict, Corrupt, TautError
from taut.core.times import to_us
from taut.ports.keys import Keys
from taut.ports.records import Records, Tx, transact
from taut.ports.world import Clock
from taut.trust.ledger import tables as t
from taut.trust.ledger.copies import CheckpointCopy
from taut.trust.ledger.merkle import verify_consistency
from taut.trust.ledger.note import VerifyKey, open_checkpoint, sign_checkpoint, verify_keys
from taut.trust.ledger.store import head_size, tile_reader
from taut.trust.ledger.tiles import Tree
from taut.trust.ledger.values import Checkpoint


class Checkpoints:
    """Signs the tree's state and spreads it."""

    def __init__(
        self, records: Records, keys: Keys, clock: Clock, *, origin: str, copies: Sequence[CheckpointCopy]
    ) -> None:
        self._records = records
        self._keys = keys
        self._clock = clock
        self._origin = origin
        self._copies = tuple(copies)

    def make(self) -> Checkpoint:
        """Sign all sequenced leaves, after proving that they continue every copy's and our own last checkpoint.

        Raises Corrupt, before anything is signed, when they do not: somebody cut or rewrote the log, or two logs
        run under one origin (a split view). Raises Unavailable when a copy cannot be read.
        """
        public = verify_keys(self._keys)
        before = [
            (copy.name, open_checkpoint(note, public, origin=self._origin))
            for copy in self._copies
            if (note := copy.latest()) is not None
        ]
        with self._records.read() as tx:
            size = head_size(tx)
            tree = Tree(tile_reader(tx), size)
            ours = latest_checkpoint(tx, public, origin=self._origin)
            if ours is not None:
                before.append(("the database", ours))
            root = tree.root()
            for where, old in before:
                _check_continues(tree, old, root=root, where=where)
        if ours is not None and ours.size == size:
            return ours
        return self._keep(sign_checkpoint(self._keys, origin=self._origin, size=size, root=root), public)

    def publish(self, checkpoint: Checkpoint) -> None:
        """Bring a checkpoint to every copy; one that fails does not keep the others from theirs.

        Raises Corrupt when a copy keeps a checkpoint of this size with another root (a split view), else the first
        error of a copy.
        """
        errors: list[TautError] = []
        for copy in self._copies:
            try:
                self._publish_to(copy, checkpoint)
            except TautError as error:
                errors.append(error)
        if errors:
            raise min(errors, key=lambda found: not isinstance(found, Corrupt))

    def _publish_to(self, copy: CheckpointCopy, checkpoint: Checkpoint) -> None:
        try:
            copy.publish(checkpoint.size, checkpoint.note)
        except Conflict as error:
            kept = copy.read(checkpoint.size)
            if kept is None:
                raise
            other = open_checkpoint(kept, verify_keys(self._keys), origin=self._origin)
            if (other.size, other.root) != (checkpoint.size, checkpoint.root):
                raise Corrupt(_split_view(copy.name, other.size)) from error

    def _keep(self, made: Checkpoint, public: Sequence[VerifyKey]) -> Checkpoint:
        """Store the checkpoint, or return the one that another process stored first: one note a size, everywhere."""

        def do(tx: Tx) -> Checkpoint:
            note = tx.execute(
                select(t.checkpoints.c.note).where(t.checkpoints.c.size == made.size)
            ).scalar_one_or_none()
            if note is not None:
                first = open_checkpoint(note, public, origin=self._origin)
                if first.root != made.root:
                    raise Corrupt(_split_view("the database", made.size))
                return first
            tx.execute(
                insert(t.checkpoints).values(
                    size=made.size, root=made.root, note=made.note, at_us=to_us(self._clock.now())
                )
            )
            return made

        return transact(self._records, do)


def latest_checkpoint(tx: Tx, keys: Sequence[VerifyKey], *, origin: str) -> Checkpoint | None:
    """Return the newest signed checkpoint. Raises Corrupt when its signature is wrong."""
    newest = select(t.checkpoints.c.note).order_by(t.checkpoints.c.size.desc()).limit(1)
    note = tx.execute(newest).scalar_one_or_none()
    return None if note is None else open_checkpoint(note, keys, origin=origin)


def _check_continues(tree: Tree, old: Checkpoint, *, root: bytes, where: str) -> None:
    if old.size > tree.size:
        raise Corrupt(
            f"{where} keeps a checkpoint of {old.size} leaves, but the ledger has {tree.size}: its tail was cut or "
            "an old backup restored; run `taut ledger verify`, restore, and sign nothing before"
        )
    path = tree.consistency(old.size)
    if not verify_consistency(
        old_size=old.size, new_size=tree.size, old_root=old.root, new_root=root, path=path
    ):
        raise Corrupt(_split_view(where, old.size))


def _split_view(where: str, size: int) -> str:
    return (
        f"{where} keeps a checkpoint of {size} leaves with another root (a split view): leaves were rewritten after "
        "it was signed, or two ledgers run under one origin; run `taut ledger verify` and sign nothing before"
    )
