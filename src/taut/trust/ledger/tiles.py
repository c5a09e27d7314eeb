"""The tree as tiles: C2SP tlog-tiles of height 8, grown without rereading what is below, and proofs read from them."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import Final, NamedTuple

from taut.core.errors import Corrupt, InvalidInput
from taut.trust.ledger.merkle import EMPTY_ROOT, node_hash, root_of

HASH_BYTES: Final = 32
TILE_WIDTH: Final = 256
TILE_HEIGHT: Final = 8
TILE_BYTES: Final = HASH_BYTES * TILE_WIDTH

ReadTile = Callable[[int, int], bytes]
"""(level, index) -> the tile's hashes, joined; at least as wide as the tree's size asks, b"" where there is none."""


class Tile(NamedTuple):
    """`hashes` of up to 256 subtrees of 256**level leaves each, the first of them number `number` * 256."""

    level: int
    number: int
    hashes: bytes


def split(hashes: bytes) -> list[bytes]:
    return [hashes[at : at + HASH_BYTES] for at in range(0, len(hashes), HASH_BYTES)]


def grow(read: ReadTile, size: int, hashes: Sequence[bytes]) -> Iterator[Tile]:
    """Yield the tiles that change when `hashes` are appended to a tree of `size` leaves.

    Reads at most one partial tile a level. Only the first tile of a level may have been there before.
    Raises Corrupt when a partial tile is not as wide as `size` says.
    """
    level, new = 0, list(hashes)
    while new:
        index, filled = divmod(size, TILE_WIDTH)
        joined = read(level, index) if filled else b""
        if len(joined) != filled * HASH_BYTES:
            raise Corrupt(
                f"ledger tile {level}/{index} holds {len(joined)} bytes, expected {filled * HASH_BYTES}: "
                "run `taut ledger verify`, then restore"
            )
        joined += b"".join(new)
        new = []
        for at in range(0, len(joined), TILE_BYTES):
            tile = joined[at : at + TILE_BYTES]
            yield Tile(level, index, tile)
            if len(tile) == TILE_BYTES:
                new.append(root_of(split(tile)))
            index += 1
        size >>= TILE_HEIGHT
        level += 1


class Tree:
    """The first `size` leaves, read through tiles: roots and proofs in O(log size) reads.

    Keeps the tiles that it read; make one a question.
    """

    def __init__(self, read: ReadTile, size: int) -> None:
        self._read = read
        self._tiles: dict[tuple[int, int], bytes] = {}
        self.size = size

    def root(self, size: int | None = None) -> bytes:
        """Return the root of the first `size` leaves, all when None."""
        size = self.size if size is None else size
        self._check(0, size)
        return self._range(0, size) if size else EMPTY_ROOT

    def inclusion(self, index: int, size: int | None = None) -> tuple[bytes, ...]:
        """Return the audit path of leaf `index` in the tree of `size` leaves (RFC 6962, 2.1.1)."""
        size = self.size if size is None else size
        self._check(index + 1, size)
        path: list[bytes] = []
        begin, end = 0, size
        while end - begin > 1:
            middle = begin + _split_point(end - begin)
            if index < middle:
                path.append(self._range(middle, end))
                end = middle
            else:
                path.append(self._range(begin, middle))
                begin = middle
        return tuple(reversed(path))

    def consistency(self, old_size: int, size: int | None = None) -> tuple[bytes, ...]:
        """Return the proof that the first `old_size` leaves begin the tree of `size` (RFC 6962, 2.1.2)."""
        size = self.size if size is None else size
        self._check(old_size, size)
        path: list[bytes] = []
        begin, end, whole = 0, size, True
        while old_size not in (end, 0):
            middle = begin + _split_point(end - begin)
            if old_size <= middle:
                path.append(self._range(middle, end))
                end = middle
            else:
                path.append(self._range(begin, middle))
                begin, whole = middle, False
        if not whole:
            path.append(self._range(begin, end))
        return tuple(reversed(path))

    def _check(self, low: int, size: int) -> None:
        if not 0 <= low <= size <= self.size:
            raise InvalidInput(
                f"the ledger holds {self.size} leaves: no proof about {low} in a tree of {size}"
            )

    def _range(self, begin: int, end: int) -> bytes:
        """Return the hash over leaves [begin, end); `begin` is a multiple of the largest power of 2 within."""
        count = end - begin
        if count & (count - 1) == 0:
            return self._node(count.bit_length() - 1, begin // count)
        middle = begin + _split_point(count)
        return node_hash(self._range(begin, middle), self._range(middle, end))

    def _node(self, height: int, index: int) -> bytes:
        """Return the root of the full subtree of 2**height leaves, number `index`."""
        level, rest = divmod(height, TILE_HEIGHT)
        tile_index, offset = divmod(index << rest, TILE_WIDTH)
        hashes = self._tile(level, tile_index)
        part = hashes[offset * HASH_BYTES : (offset + (1 << rest)) * HASH_BYTES]
        if len(part) != HASH_BYTES << rest:
            raise Corrupt(
                f"ledger tile {level}/{tile_index} is too short: run `taut ledger verify`, then restore"
            )
        return root_of(split(part))

    def _tile(self, level: int, index: int) -> bytes:
        key = (level, index)
        if key not in self._tiles:
            self._tiles[key] = self._read(level, index)
        return self._tiles[key]


def _split_point(count: int) -> int:
    """Return the largest power of two below `count`, which is at least 2."""
    return 1 << (count - 1).bit_length() - 1
