"""Reading and writing of the ledger's tables: groups of leaves in, places and tiles, leaves out."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any, Final, NamedTuple

from sqlalchemy import Select, and_, bindparam, delete, func, insert, literal, select, update

from taut.core.errors import Conflict, Corrupt
from taut.ports.records import Tx, Value, insert_late, insert_many
from taut.trust.ledger import tables as t
from taut.trust.ledger.tiles import HASH_BYTES, ReadTile, Tile, grow, split

LOG: Final = "main"
GROUP_MAX: Final = 4096  # leaves of a group; bounds the blob of hashes to 128 KiB
_GROUPS_MAX: Final = 4096  # groups looked at by one run of the sequencer
_WINDOW_MAX: Final = 65_536
_COLUMNS: Final = ("number", "id", "kind", "subject", "actor", "body")

LeafRow = tuple[int, str, str, str, str, str]
"""Values in the order of _COLUMNS."""


class Group(NamedTuple):
    """Leaves that were appended together, ready to be written."""

    id: str
    at_us: int
    rows: list[LeafRow]
    hashes: list[bytes]


_KEYS: Final = ("group_id", *_COLUMNS)


def add_group(tx: Tx, group: Group) -> None:
    """Insert a group: its first leaf with what all share, then the others together."""
    first, *rows = [(group.id, *row) for row in group.rows]
    shared: dict[str, Value] = {
        "waiting": True,
        "width": len(group.rows),
        "at_us": group.at_us,
        "hashes": b"".join(group.hashes),
    }
    columns = (*_KEYS, *shared)
    values: tuple[Value, ...] = (*first, *shared.values())
    if not rows:
        insert_late(tx, t.leaves, columns, values)
        return
    insert_many(tx, t.leaves, columns, [values])
    insert_many(tx, t.leaves, _KEYS, rows)


# Statements that a proof runs are built once: building them took longer than running them.
_HEAD_SIZE: Final = select(t.head.c.size).where(t.head.c.log == LOG)
_TILE: Final = select(t.tiles.c.hashes).where(
    t.tiles.c.level == bindparam("level"), t.tiles.c.idx == bindparam("number")
)


def head_size(tx: Tx) -> int:
    """Return the number of sequenced leaves."""
    return tx.execute(_HEAD_SIZE).scalar_one_or_none() or 0


def lock_head(tx: Tx) -> int:
    """Make this transaction the only sequencer and return the number of sequenced leaves.

    A second sequencer waits here; on PostgreSQL it then loses with Conflict, since its snapshot is older.
    """
    locked = tx.execute(update(t.head).where(t.head.c.log == LOG).values(size=t.head.c.size))
    if locked.rowcount == 0:
        tx.execute(insert(t.head).values(log=LOG, size=0))
    return head_size(tx)


def is_waiting(tx: Tx) -> bool:
    """Tell whether a committed group has no place yet."""
    waiting = select(t.leaves.c.group_id).where(t.leaves.c.waiting.is_not(None)).limit(1)
    return tx.execute(waiting).scalar_one_or_none() is not None


def sequence_some(tx: Tx, *, leaves_max: int) -> tuple[int, bool]:
    """Give places to waiting groups of about `leaves_max` leaves, by their ids, and grow the tiles.

    Takes whatever has committed and has no place, rather than what lies above a mark: a transaction that commits
    late, with an id older than leaves that have theirs, is taken by the next run. Returns how many leaves got one,
    and whether some that had committed are left. Raises Corrupt when a group was changed while it waited so that its hashes cannot be read.
    """
    start = lock_head(tx)
    first = t.leaves.c
    waiting = select(first.group_id, first.width).where(first.waiting.is_not(None)).order_by(first.group_id)
    taken: list[str] = []
    leaves = 0
    seen = tx.execute(waiting.limit(_GROUPS_MAX)).all()
    for row in seen:
        if taken and leaves + row.width > leaves_max:
            break
        taken.append(row.group_id)
        leaves += row.width
    if not taken:
        return 0, False
    hashes = _read_hashes(tx, taken[-1])
    if len(hashes) != leaves:
        raise Corrupt(
            f"groups waiting in the ledger hold {len(hashes)} hashes, not {leaves}: they were changed; run "
            "`taut ledger verify`"
        )
    _place(tx, start, taken)
    size = start + leaves
    write_tiles(tx, grow(tile_reader(tx), start, hashes))
    tx.execute(update(t.head).where(t.head.c.log == LOG).values(size=size))
    return leaves, len(taken) < len(seen) or len(seen) == _GROUPS_MAX


def _place(tx: Tx, start: int, group_ids: Sequence[str]) -> None:
    """Number the waiting groups up to the last of `group_ids`, in one statement however many they are."""
    first = t.leaves.c
    before = func.sum(first.width).over(order_by=first.group_id) - first.width
    places = (
        select(first.group_id, (literal(start) + before).label("place"))
        .where(first.waiting.is_not(None), first.group_id <= group_ids[-1])
        .subquery()
    )
    done = tx.execute(
        update(t.leaves)
        .where(first.group_id == places.c.group_id, first.number == 0)
        .values(first_seq=places.c.place, waiting=None)
    )
    if done.rowcount != len(group_ids):
        # Only a store that is not serialisable can show another set to the second statement.
        raise Conflict(f"{done.rowcount} groups were numbered, not {len(group_ids)}: nothing was sequenced")


def _read_hashes(tx: Tx, last: str) -> list[bytes]:
    """Return the hashes of the waiting groups up to `last`, in their order."""
    first = t.leaves.c
    waiting = select(first.hashes).where(first.waiting.is_not(None), first.group_id <= last)
    return split(b"".join(tx.execute(waiting.order_by(first.group_id)).scalars()))


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
        found = tx.execute(_TILE, {"level": level, "number": index}).scalar_one_or_none()
        return bytes(found) if found is not None else b""

    return read


def tile_bytes(tx: Tx, *, level: int, index: int, width: int) -> bytes | None:
    """Return the first `width` hashes of a tile, None when the tree is not that large."""
    hashes = tile_reader(tx)(level, index)[: width * HASH_BYTES]
    return hashes if len(hashes) == width * HASH_BYTES else None


def select_leaves() -> Select[Any]:
    """Select leaves with all that is hashed and `seq`, their place; NULL while their group waits."""
    place = (t.groups.c.first_seq + t.leaves.c.number).label("seq")
    own = (t.leaves.c[name] for name in _KEYS)
    same = and_(t.groups.c.group_id == t.leaves.c.group_id, t.groups.c.number == 0)
    return select(*own, t.groups.c.at_us, place).select_from(t.leaves.join(t.groups, same))


def select_range(start: int, stop: int) -> Select[Any]:
    """Select leaves whose place is in [start, stop), in order."""
    return _within(select_leaves(), start, stop).order_by(t.groups.c.first_seq, t.leaves.c.number)


def _within(query: Select[Any], start: int, stop: int) -> Select[Any]:
    first, number = t.groups.c.first_seq, t.leaves.c.number
    return query.where(
        first > start - GROUP_MAX, first < stop, first + number >= start, first + number < stop
    )


_LEAF: Final = select_leaves().where(
    t.leaves.c.group_id == bindparam("group"), t.leaves.c.number == bindparam("number")
)


def leaf_row(tx: Tx, leaf_id: str) -> Any | None:
    """Return a leaf's row by id, None when there is no such leaf."""
    group, _, number = leaf_id.rpartition(".")
    if not (group and number.isascii() and number.isdigit() and len(number) < 6):
        return None
    return tx.execute(_LEAF, {"group": group, "number": int(number)}).one_or_none()


def latest_about(tx: Tx, subject: str) -> Any | None:
    """Return the row of the newest leaf about `subject`; what waits for its place is newest."""
    return tx.execute(_LATEST_ABOUT, {"subject": subject}).one_or_none()


_NEWEST: Final = (
    t.groups.c.first_seq.is_(None).desc(),
    t.groups.c.first_seq.desc(),
    t.leaves.c.group_id.desc(),
    t.leaves.c.number.desc(),
)
_LATEST_ABOUT: Final = (
    select_leaves().where(t.leaves.c.subject == bindparam("subject")).order_by(*_NEWEST).limit(1)
)


def newest_rows(tx: Tx, query: Select[Any], *, subject: str | None, limit: int) -> list[Any]:
    """Return up to `limit` rows of `query`, a narrowed `select_leaves`, newest first.

    Goes back from the end of the log window by window, so that the newest are found without sorting all; with a
    subject its index finds them.
    """
    if subject is not None:
        return list(tx.execute(query.where(t.leaves.c.subject == subject).order_by(*_NEWEST).limit(limit)))
    waiting = query.where(t.groups.c.waiting.is_not(None)).order_by(*_NEWEST)
    rows = list(tx.execute(waiting.limit(limit)))
    stop, width = head_size(tx), max(limit, GROUP_MAX)
    while stop > 0 and len(rows) < limit:
        start = max(0, stop - width)
        window = _within(query, start, stop).order_by(*_NEWEST)
        rows += tx.execute(window.limit(limit - len(rows)))
        stop, width = start, min(2 * width, _WINDOW_MAX)
    return rows
