"""Reading and writing of the ledger's tables: leaves in, tiles and leaves out."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any, Final

from sqlalchemy import Insert, bindparam, delete, func, insert, literal, select, update

from taut.core.errors import Conflict
from taut.ports.records import Tx
from taut.trust.ledger import tables as t
from taut.trust.ledger.tiles import HASH_BYTES, ReadTile, Tile, grow

LOG: Final = "main"
_BULK: Final = 8  # leaves a statement; measured on PostgreSQL: 1 takes 17 us a leaf, 8 takes 10, 64 takes 14
_BULK_KEYS: Final = tuple(f"{name}_{at}" for at in range(_BULK) for name in t.LEAF_COLUMNS)
_INSERT_ONE: Final = insert(t.pending)

LeafRow = tuple[str, str, str, str, int, str, bytes]
"""Values in the order of LEAF_COLUMNS: id, kind, subject, actor, at_us, body, hash."""


def _bulk_insert() -> Insert:
    columns = t.pending.c
    return insert(t.pending).values(
        [
            {name: bindparam(f"{name}_{at}", type_=columns[name].type) for name in t.LEAF_COLUMNS}
            for at in range(_BULK)
        ]
    )


_INSERT_BULK: Final = _bulk_insert()


def add_pending(tx: Tx, rows: Sequence[LeafRow]) -> None:
    """Insert leaves, in few statements when they are many."""
    whole = len(rows) - len(rows) % _BULK
    if whole:
        tx.execute(
            _INSERT_BULK,
            [
                dict(zip(_BULK_KEYS, [v for row in rows[at : at + _BULK] for v in row], strict=True))
                for at in range(0, whole, _BULK)
            ],
        )
    if whole < len(rows):
        tx.execute(_INSERT_ONE, [dict(zip(t.LEAF_COLUMNS, row, strict=True)) for row in rows[whole:]])


def head_size(tx: Tx) -> int:
    """Return the number of sequenced leaves."""
    return tx.execute(select(t.head.c.size).where(t.head.c.log == LOG)).scalar_one_or_none() or 0


def lock_head(tx: Tx) -> int:
    """Make this transaction the only sequencer and return the number of sequenced leaves.

    A second sequencer waits here; on PostgreSQL it then loses with Conflict, since its snapshot is older.
    """
    locked = tx.execute(update(t.head).where(t.head.c.log == LOG).values(size=t.head.c.size))
    if locked.rowcount == 0:
        tx.execute(insert(t.head).values(log=LOG, size=0))
    return head_size(tx)


def sequence_group(tx: Tx, *, group_max: int) -> int:
    """Give places to up to `group_max` committed leaves, in the order of their ids, and grow the tiles.

    Takes whatever is pending rather than what lies above a mark: a transaction that commits late, with an id older
    than leaves that have their places, is taken by the next group. Returns how many were sequenced.
    """
    size = lock_head(tx)
    ids = t.pending.c.id
    last = tx.execute(select(ids).order_by(ids).offset(group_max - 1).limit(1)).scalar_one_or_none()
    last = last or tx.execute(select(func.max(ids))).scalar_one_or_none()
    if last is None:
        return 0
    place = literal(size - 1) + func.row_number().over(order_by=ids)
    taken = select(place, *(t.pending.c[name] for name in t.LEAF_COLUMNS)).where(ids <= last).order_by(ids)
    tx.execute(insert(t.leaves).from_select(["seq", *t.LEAF_COLUMNS], taken))
    gone = tx.execute(delete(t.pending).where(ids <= last)).rowcount
    hashes = list(
        tx.execute(select(t.leaves.c.hash).where(t.leaves.c.seq >= size).order_by(t.leaves.c.seq)).scalars()
    )
    if gone != len(hashes):
        # Only a store that is not serialisable can let a leaf slip in between the two statements.
        raise Conflict(f"{len(hashes)} leaves were placed but {gone} taken: nothing was sequenced, try again")
    write_tiles(tx, grow(tile_reader(tx), size, hashes))
    tx.execute(update(t.head).where(t.head.c.log == LOG).values(size=size + len(hashes)))
    return len(hashes)


def write_tiles(tx: Tx, tiles: Iterator[Tile]) -> None:
    """Store tiles; the first of a level may replace a narrower form of itself."""
    rows, levels = [], set()
    for tile in tiles:
        if tile.level not in levels:
            levels.add(tile.level)
            tx.execute(delete(t.tiles).where(t.tiles.c.level == tile.level, t.tiles.c.idx == tile.number))
        rows.append({"level": tile.level, "idx": tile.number, "hashes": tile.hashes})
    if rows:
        tx.execute(insert(t.tiles), rows)


def tile_reader(tx: Tx) -> ReadTile:
    def read(level: int, index: int) -> bytes:
        found = tx.execute(
            select(t.tiles.c.hashes).where(t.tiles.c.level == level, t.tiles.c.idx == index)
        ).scalar_one_or_none()
        return bytes(found) if found is not None else b""

    return read


def tile_bytes(tx: Tx, *, level: int, index: int, width: int) -> bytes | None:
    """Return the first `width` hashes of a tile, None when the tree is not that large."""
    hashes = tile_reader(tx)(level, index)[: width * HASH_BYTES]
    return hashes if len(hashes) == width * HASH_BYTES else None


def leaf_row(tx: Tx, leaf_id: str) -> tuple[Any, int | None] | None:
    """Return (row, place) of a leaf by id; the place is None while it is pending. None when there is no such leaf."""
    row = tx.execute(select(t.leaves).where(t.leaves.c.id == leaf_id)).one_or_none()
    if row is not None:
        return row, row.seq
    waiting = tx.execute(select(t.pending).where(t.pending.c.id == leaf_id)).one_or_none()
    return (waiting, None) if waiting is not None else None


def latest_about(tx: Tx, subject: str) -> str | None:
    """Return the id of the newest leaf about `subject`, sequenced or not."""
    waiting = select(t.pending.c.id).where(t.pending.c.subject == subject)
    found: str | None = tx.execute(waiting.order_by(t.pending.c.id.desc()).limit(1)).scalar_one_or_none()
    if found is not None:
        return found
    placed = select(t.leaves.c.id).where(t.leaves.c.subject == subject)
    newest: str | None = tx.execute(placed.order_by(t.leaves.c.seq.desc()).limit(1)).scalar_one_or_none()
    return newest
