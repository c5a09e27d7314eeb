"""One pass over leaves and tiles in order, with whatever signed roots there are as witnesses."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence
from typing import Any, Final, NamedTuple

from sqlalchemy import select

from taut.ports.records import Tx
from taut.trust.ledger import tables as t
from taut.trust.ledger.leaf import row_bytes
from taut.trust.ledger.merkle import Frontier, leaf_hash, root_of
from taut.trust.ledger.naming import Findings, Mismatch
from taut.trust.ledger.store import GROUP_MAX, select_range, tile_reader
from taut.trust.ledger.tiles import HASH_BYTES, TILE_HEIGHT, TILE_WIDTH, split

_UNREADABLE: Final = bytes(HASH_BYTES)  # no value hashes to this, so an unreadable row agrees with nothing


class Anchor(NamedTuple):
    """A signed root: `where` keeps a checkpoint that says so."""

    where: str
    size: int
    root: bytes


class Held(NamedTuple):
    """A leaf that claims a place: its id, the hash of its fields, and the hash kept in its group."""

    leaf: str
    content: bytes
    stored: bytes


class Place(NamedTuple):
    """What one place of the log holds: a leaf's id and hashes, and the hash in its tile; None where nothing is."""

    seq: int
    leaf: str | None
    content: bytes | None  # computed from the leaf's fields
    stored: bytes | None  # in the leaf's group
    entry: bytes | None  # in the tile

    @property
    def agrees(self) -> bool:
        return self.content is not None and self.content == self.entry == self.stored


def content_hash(row: Any) -> bytes:
    """Return the leaf hash of a row's fields, whatever types somebody has put into them."""
    try:
        return leaf_hash(row_bytes(row))
    except (AttributeError, TypeError, ValueError):
        return _UNREADABLE


class Walk:
    """Rebuilds the tree from the leaves and compares it with tiles and anchors as it goes.

    Where leaf and tile disagree, a signed root that covers them decides which to believe, else the tile above.
    """

    def __init__(self, findings: Findings, *, size: int, end: int) -> None:
        self._findings = findings
        self._size = size
        self._end = end
        self._tree = Frontier()
        self._above: dict[int, list[bytes]] = defaultdict(
            list
        )  # level -> hashes of a tile that is not full yet
        self._tiles_done: dict[int, int] = defaultdict(int)
        self._disagreed: set[str] = set()
        self.compared = 0
        self.signed_until = 0

    def root(self) -> bytes:
        return self._tree.root()

    def begin(self, anchors: Sequence[Anchor]) -> None:
        """Compare what is signed about the empty log."""
        for anchor in anchors:
            self._compare(anchor, self._tree)

    def chunk(self, tx: Tx, start: int, stop: int, anchors: Sequence[Anchor]) -> None:
        """Walk leaves [start, stop); `start` is a multiple of a tile's width. anchors: within, by size."""
        stored = _read_stored(tx, start, stop)
        by_place: dict[int, list[Held]] = defaultdict(list)
        # places held twice must not fill the memory
        for row in tx.execute(select_range(start, stop).limit(2 * (stop - start) + 1)):
            hash_ = stored.get(row.group_id, b"")[row.number * HASH_BYTES : (row.number + 1) * HASH_BYTES]
            by_place[row.seq].append(Held(row.id, content_hash(row), hash_))
        read = tile_reader(tx)
        for first in range(start, stop, TILE_WIDTH):
            last = min(first + TILE_WIDTH, stop)
            hashes = read(0, first // TILE_WIDTH)
            places = self._places(first, last, by_place, hashes)
            inside = [anchor for anchor in anchors if first < anchor.size <= last]
            self._tile(tx, first, places, inside)

    def finish(self, tx: Tx) -> None:
        """Compare what is left of the upper tiles once every leaf was seen."""
        if self._end == self._size:
            for level in sorted(self._above):
                self._compare_tile(tx, level)

    def _places(self, first: int, last: int, held: dict[int, list[Held]], hashes: bytes) -> list[Place]:
        entries = split(hashes[: (last - first) * HASH_BYTES])
        if len(entries) < last - first or len(hashes) % HASH_BYTES:
            self._findings.add(
                "tile_disagrees",
                f"tile 0/{first // TILE_WIDTH} holds {len(entries)} hashes, expected {last - first}: it was cut",
                seq=first,
            )
        places = []
        for seq in range(first, last):
            entry = entries[seq - first] if seq - first < len(entries) else None
            places.append(self._place(seq, held.get(seq, ()), entry))
        return places

    def _place(self, seq: int, held: Sequence[Held], entry: bytes | None) -> Place:
        if not held:
            return Place(seq, None, None, None, entry)
        one = held[0]
        if len(held) > 1:
            one = next((leaf for leaf in held if leaf.content == entry), one)
            others = ", ".join(str(other.leaf) for other in held if other is not one)
            self._findings.add(
                "seq_duplicated",
                f"place {seq} is held more than once: beside leaf {one.leaf} there is {others}",
                seq=seq,
            )
        return Place(seq, *one, entry)

    def _tile(self, tx: Tx, first: int, places: list[Place], anchors: Sequence[Anchor]) -> None:
        if all(place.agrees for place in places):
            hashes = [place.entry for place in places if place.entry is not None]
        else:
            hashes = self._judge(tx, first, places, anchors)
        self._compare_all(hashes, anchors)
        if len(hashes) < TILE_WIDTH:
            for hash_ in hashes:
                self._tree.push(hash_)
            return
        root = root_of(hashes)
        self._tree.push(root, level=TILE_HEIGHT)
        self._raise(tx, 1, root)

    def _judge(self, tx: Tx, first: int, places: list[Place], anchors: Sequence[Anchor]) -> list[bytes]:
        """Say what is wrong in a tile with a disagreement, and return the hashes to believe."""
        by_leaf = [place.content or place.entry or _UNREADABLE for place in places]
        by_tile = [place.entry or place.content or _UNREADABLE for place in places]
        believed = by_tile
        if by_leaf != by_tile:
            witness = self._witness(tx, first, by_leaf, by_tile, anchors)
            if witness is by_leaf:
                bad = next(p.seq for p in places if p.content is not None and p.content != p.entry)
                self._findings.add(
                    "tile_disagrees",
                    f"tile 0/{first // TILE_WIDTH} was changed: its hash for leaf {bad} is not the leaf's, and the "
                    "signed tree has the leaf's",
                    seq=bad,
                )
                believed = by_leaf
            elif witness is None and all(p.content == p.stored for p in places if p.content is not None):
                self._name_undecided(places)
                return by_tile
        for place in places:
            if not place.agrees:
                self._name(place, tile_wrong=believed is by_leaf)
        return believed

    def _name_undecided(self, places: list[Place]) -> None:
        for place in places:
            if place.content is None or place.entry is None:
                self._name(place, tile_wrong=False)
            elif place.content != place.entry:
                self._findings.add(
                    "leaf_disagrees",
                    f"leaf {place.leaf} at {place.seq} and its tile disagree, and nothing signed covers them: one of "
                    "the two was changed",
                    seq=place.seq,
                    leaf=place.leaf,
                )

    def _name(self, place: Place, *, tile_wrong: bool) -> None:
        seq, leaf, content, stored, entry = place
        if content is not None and stored != content and (content == entry or tile_wrong):
            self._findings.add(
                "hash_changed",
                f"leaf {leaf} at {seq} is as it was logged, but the hash beside it was changed",
                seq=seq,
                leaf=leaf,
            )
        elif (
            content is None
            or (content != stored and entry is None)
            or not (tile_wrong or entry in (content, None))
        ):
            self._findings.mismatch(Mismatch(seq, leaf, content, stored if entry is None else entry, stored))

    def _witness(
        self, tx: Tx, first: int, by_leaf: list[bytes], by_tile: list[bytes], anchors: Sequence[Anchor]
    ) -> list[bytes] | None:
        """Return which of the two a signed root, or the tile above, has; None when neither says."""
        differs = max(at for at, pair in enumerate(zip(by_leaf, by_tile, strict=True)) if pair[0] != pair[1])
        for anchor in anchors:
            if anchor.size - first <= differs:
                continue
            for hashes in (by_tile, by_leaf):
                tree = self._tree.copy()
                for hash_ in hashes[: anchor.size - first]:
                    tree.push(hash_)
                if tree.root() == anchor.root:
                    return hashes
        if len(by_leaf) == TILE_WIDTH:
            above, at = divmod(first // TILE_WIDTH, TILE_WIDTH)
            parent = tile_reader(tx)(1, above)[at * HASH_BYTES : (at + 1) * HASH_BYTES]
            for hashes in (by_tile, by_leaf):
                if root_of(hashes) == parent:
                    return hashes
        return None

    def _compare_all(self, hashes: list[bytes], anchors: Sequence[Anchor]) -> None:
        if not anchors:
            return
        tree, done = self._tree.copy(), 0
        start = tree.size
        for anchor in anchors:
            for hash_ in hashes[done : anchor.size - start]:
                tree.push(hash_)
            done = anchor.size - start
            self._compare(anchor, tree)

    def _compare(self, anchor: Anchor, tree: Frontier) -> None:
        self.compared += 1
        if tree.root() == anchor.root:
            self.signed_until = max(self.signed_until, anchor.size)
        elif anchor.where not in self._disagreed:  # all later ones disagree too: the first says where
            self._disagreed.add(anchor.where)
            self._findings.add(
                "checkpoint_disagrees",
                f"{anchor.where} keeps a signed checkpoint of {anchor.size} leaves that the log no longer fits: leaves "
                f"from {self.signed_until} to {anchor.size - 1} were rewritten after it was signed",
                seq=self.signed_until,
                last=anchor.size - 1,
            )

    def _raise(self, tx: Tx, level: int, hash_: bytes) -> None:
        self._above[level].append(hash_)
        if len(self._above[level]) == TILE_WIDTH:
            root = root_of(self._above[level])
            self._compare_tile(tx, level)
            self._raise(tx, level + 1, root)

    def _compare_tile(self, tx: Tx, level: int) -> None:
        expected = b"".join(self._above[level])
        index = self._tiles_done[level]
        if expected and tile_reader(tx)(level, index)[: len(expected)] != expected:
            start = index * TILE_WIDTH ** (level + 1)
            self._findings.add(
                "tile_disagrees",
                f"tile {level}/{index} does not fit the tiles below it: it was changed",
                seq=start,
                last=min(self._size, start + TILE_WIDTH ** (level + 1)) - 1,
            )
        self._above[level] = []
        self._tiles_done[level] += 1


def _read_stored(tx: Tx, start: int, stop: int) -> dict[str, bytes]:
    """Return the hashes kept in the groups that may hold places in [start, stop)."""
    first = t.leaves.c.first_seq
    rows = tx.execute(
        select(t.leaves.c.group_id, t.leaves.c.hashes)
        .where(first > start - GROUP_MAX, first < stop)
        .where(first + t.leaves.c.width > start, t.leaves.c.number == 0)
    )
    return {row.group_id: bytes(row.hashes) for row in rows}
