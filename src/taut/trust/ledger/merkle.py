"""Merkle hashing and the two checks of RFC 6962 and RFC 9162: pure functions over 32-byte hashes.

The checks share no code with the makers of proofs in `tiles`, so that one cannot hide a fault of the other.
"""

from __future__ import annotations

from collections.abc import Sequence
from hashlib import sha256
from typing import Final

EMPTY_ROOT: Final = sha256(b"").digest()


def leaf_hash(data: bytes) -> bytes:
    """Return the hash of a leaf. The prefix keeps leaves and nodes apart (RFC 6962, 2.1)."""
    return sha256(b"\x00" + data).digest()


def node_hash(left: bytes, right: bytes) -> bytes:
    return sha256(b"\x01" + left + right).digest()


def root_of(hashes: Sequence[bytes]) -> bytes:
    """Return the Merkle tree hash over leaf hashes, or over the roots of equal full subtrees.

    Pairs level by level and promotes an odd last node, which is RFC 6962's recursion written as a loop.
    """
    if not hashes:
        return EMPTY_ROOT
    level = list(hashes)
    while len(level) > 1:
        odd = [level[-1]] if len(level) % 2 else []
        level = [
            sha256(b"\x01" + left + right).digest()
            for left, right in zip(level[0::2], level[1::2], strict=False)
        ] + odd
    return level[0]


class Frontier:
    """The roots of the full subtrees of a growing tree, from the largest: all that its root needs.

    Memory is O(log n). `push` takes subtrees of 2**level leaves in order, each aligned to its own size.
    """

    def __init__(self) -> None:
        self._peaks: list[tuple[int, bytes]] = []  # (level, hash), levels strictly falling
        self.size = 0

    def push(self, hash_: bytes, *, level: int = 0) -> None:
        assert self.size % (1 << level) == 0, "a subtree must start at a multiple of its size"
        self.size += 1 << level
        while self._peaks and self._peaks[-1][0] == level:
            hash_ = node_hash(self._peaks.pop()[1], hash_)
            level += 1
        self._peaks.append((level, hash_))

    def copy(self) -> Frontier:
        other = Frontier()
        other._peaks = list(self._peaks)
        other.size = self.size
        return other

    def root(self) -> bytes:
        if not self._peaks:
            return EMPTY_ROOT
        root = self._peaks[-1][1]
        for _, peak in reversed(self._peaks[:-1]):
            root = node_hash(peak, root)
        return root


def verify_inclusion(leaf: bytes, *, index: int, size: int, path: Sequence[bytes], root: bytes) -> bool:
    """Tell whether the leaf hash `leaf` is at `index` of the tree of `size` leaves with `root`.

    Source: RFC 9162, 2.1.3.2.
    """
    if not 0 <= index < size or any(len(part) != 32 for part in (*path, leaf, root)):
        return False
    node, last, current = index, size - 1, leaf
    for part in path:
        if last == 0:
            return False
        if node & 1 or node == last:
            current = node_hash(part, current)
            while not node & 1 and node:
                node, last = node >> 1, last >> 1
        else:
            current = node_hash(current, part)
        node, last = node >> 1, last >> 1
    return last == 0 and current == root


def verify_consistency(
    *, old_size: int, new_size: int, old_root: bytes, new_root: bytes, path: Sequence[bytes]
) -> bool:
    """Tell whether the tree of `new_size` leaves begins with the very tree of `old_size` leaves.

    Source: RFC 9162, 2.1.4.2. The empty tree is a beginning of any tree, with an empty path.
    """
    if not 0 <= old_size <= new_size or any(len(part) != 32 for part in (*path, old_root, new_root)):
        return False
    if old_size == new_size:
        return not path and old_root == new_root
    if old_size == 0:
        return not path and old_root == EMPTY_ROOT
    parts = list(path)
    if old_size & (old_size - 1) == 0:
        parts.insert(0, old_root)  # a full subtree is a node of the new tree, so the proof need not repeat it
    if not parts:
        return False
    node, last = old_size - 1, new_size - 1
    while node & 1:
        node, last = node >> 1, last >> 1
    old = new = parts[0]
    for part in parts[1:]:
        if last == 0:
            return False
        if node & 1 or node == last:
            old, new = node_hash(part, old), node_hash(part, new)
            while not node & 1 and node:
                node, last = node >> 1, last >> 1
        else:
            new = node_hash(new, part)
        node, last = node >> 1, last >> 1
    return last == 0 and old == old_root and new == new_root
