"""Merkle hashing, tiles and proofs against RFC 6962's own recursive definitions."""

from __future__ import annotations

from collections.abc import Sequence
from hashlib import sha256

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from taut.core.errors import Corrupt, InvalidInput
from taut.trust.ledger.merkle import (
    EMPTY_ROOT,
    Frontier,
    leaf_hash,
    root_of,
    verify_consistency,
    verify_inclusion,
)
from taut.trust.ledger.tiles import HASH_BYTES, TILE_WIDTH, Tree, grow, split


def naive_root(hashes: Sequence[bytes]) -> bytes:
    """MTH of RFC 6962, 2.1, word by word."""
    if not hashes:
        return sha256(b"").digest()
    if len(hashes) == 1:
        return hashes[0]
    k = 1
    while k * 2 < len(hashes):
        k *= 2
    return sha256(b"\x01" + naive_root(hashes[:k]) + naive_root(hashes[k:])).digest()


def leaves(count: int) -> list[bytes]:
    return [leaf_hash(str(number).encode()) for number in range(count)]


class MemoryTiles:
    def __init__(self) -> None:
        self.tiles: dict[tuple[int, int], bytes] = {}
        self.size = 0
        self.reads = 0

    def read(self, level: int, index: int) -> bytes:
        self.reads += 1
        return self.tiles.get((level, index), b"")

    def append(self, hashes: list[bytes]) -> int:
        """Append and return how many tiles changed."""
        changed = list(grow(self.read, self.size, hashes))
        for tile in changed:
            self.tiles[tile.level, tile.number] = tile.hashes
        self.size += len(hashes)
        return len(changed)

    def tree(self) -> Tree:
        self.reads = 0
        return Tree(self.read, self.size)


def grown(count: int) -> MemoryTiles:
    tiles = MemoryTiles()
    tiles.append(leaves(count))
    return tiles


def flipped(data: bytes, bit: int) -> bytes:
    changed = bytearray(data)
    changed[bit // 8 % len(data)] ^= 1 << bit % 8
    return bytes(changed)


def test_roots_are_those_of_the_certificate_transparency_test_vectors() -> None:
    inputs = [
        "",
        "00",
        "10",
        "2021",
        "3031",
        "40414243",
        "5051525354555657",
        "606162636465666768696a6b6c6d6e6f",
    ]
    hashes = [leaf_hash(bytes.fromhex(text)) for text in inputs]

    assert [root_of(hashes[: n + 1]).hex() for n in range(8)] == [
        "6e340b9cffb37a989ca544e6bb780a2c78901d3fb33738768511a30617afa01d",
        "fac54203e7cc696cf0dfcb42c92a1d9dbaf70ad9e621f4bd8d98662f00e3c125",
        "aeb6bcfe274b70a14fb067a5e5578264db0fa9b51af5e0ba159158f329e06e77",
        "d37ee418976dd95753c1c73862b9398fa2a2cf9b4ff0fdfe8b30cd95209614b7",
        "4e3bbb1f7b478dcfe71fb631631519a3bca12c9aefca1612bfce4c13a86264d4",
        "76e67dadbcdf1e10e1b74ddc608abd2f98dfb16fbce75277b5232a127f2087ef",
        "ddb89be403809e325750d3d263cd78929c2942b7942a34b77e122c9594a74c8c",
        "5dc9da79a70659a9ad559cb701ded9a2ab9d823aad2f4960cfe370eff4604328",
    ]


@given(st.integers(0, 700))
@settings(max_examples=60, deadline=None)
def test_every_way_to_a_root_gives_the_recursive_definition(count: int) -> None:
    hashes, frontier = leaves(count), Frontier()
    for hash_ in hashes:
        frontier.push(hash_)

    assert naive_root(hashes) == root_of(hashes) == frontier.root() == grown(count).tree().root()


@given(st.lists(st.integers(1, 400), max_size=6))
@settings(max_examples=40, deadline=None)
def test_tiles_grown_in_any_steps_are_those_grown_at_once(steps: list[int]) -> None:
    tiles, hashes = MemoryTiles(), leaves(sum(steps))
    for step in steps:
        tiles.append(hashes[tiles.size : tiles.size + step])

    assert tiles.tiles == grown(sum(steps)).tiles
    assert all(
        tiles.tree().root(n) == naive_root(hashes[:n])
        for n in {0, 1, len(hashes) // 2, len(hashes)}
        if n <= len(hashes)
    )


def test_a_tree_of_70000_leaves_has_the_tiles_that_the_specification_counts() -> None:
    tiles = grown(70_000)
    widths = {key: len(hashes) // HASH_BYTES for key, hashes in tiles.tiles.items()}

    assert [widths[0, n] for n in range(274)] == [TILE_WIDTH] * 273 + [112]
    assert (widths[1, 0], widths[1, 1], widths[2, 0], len(widths)) == (TILE_WIDTH, 17, 1, 277)
    assert tiles.tree().root() == naive_root(leaves(70_000))


def test_one_more_leaf_changes_one_tile_a_level_and_a_proof_reads_few() -> None:
    tiles = grown(70_000)
    tree = tiles.tree()
    path = tree.inclusion(12_345)

    assert tiles.reads <= 6
    assert verify_inclusion(leaves(12_346)[-1], index=12_345, size=70_000, path=path, root=tree.root())
    assert tiles.append([leaf_hash(b"one more")]) == 1


@given(st.data())
@settings(max_examples=150, deadline=None)
def test_every_inclusion_proof_verifies_and_no_flipped_bit_does(data: st.DataObject) -> None:
    total = data.draw(st.integers(1, 600))
    size = data.draw(st.integers(1, total))
    index = data.draw(st.integers(0, size - 1))
    tree, hashes = grown(total).tree(), leaves(total)
    path, root = tree.inclusion(index, size), tree.root(size)
    bit = data.draw(st.integers(0, 255))
    leaf = hashes[index]

    assert root == naive_root(hashes[:size])
    assert verify_inclusion(leaf, index=index, size=size, path=path, root=root)
    assert not verify_inclusion(flipped(leaf, bit), index=index, size=size, path=path, root=root)
    assert not verify_inclusion(leaf, index=index, size=size, path=path, root=flipped(root, bit))
    assert not verify_inclusion(leaf, index=index, size=size, path=(*path, root), root=root)
    for at in range(len(path)):
        other = (*path[:at], flipped(path[at], bit), *path[at + 1 :])
        assert not verify_inclusion(leaf, index=index, size=size, path=other, root=root)
        assert not verify_inclusion(leaf, index=index, size=size, path=path[:at] + path[at + 1 :], root=root)
    wrong = data.draw(st.integers(0, size - 1).filter(lambda other: other != index)) if size > 1 else size
    assert not verify_inclusion(leaf, index=wrong, size=size, path=path, root=root)


def test_every_pair_up_to_40_has_proofs_that_verify() -> None:
    tree, hashes = grown(40).tree(), leaves(40)
    for size in range(1, 41):
        root = naive_root(hashes[:size])
        for index in range(size):
            assert verify_inclusion(
                hashes[index], index=index, size=size, path=tree.inclusion(index, size), root=root
            )
        for old in range(size + 1):
            assert verify_consistency(
                old_size=old,
                new_size=size,
                old_root=naive_root(hashes[:old]),
                new_root=root,
                path=tree.consistency(old, size),
            )


@given(st.data())
@settings(max_examples=150, deadline=None)
def test_every_consistency_proof_verifies_and_no_flipped_bit_does(data: st.DataObject) -> None:
    new = data.draw(st.integers(1, 600))
    old = data.draw(st.integers(1, new))
    tree, hashes = grown(new).tree(), leaves(new)
    old_root, new_root, path = naive_root(hashes[:old]), naive_root(hashes), tree.consistency(old)
    bit = data.draw(st.integers(0, 255))

    def check(a: bytes, b: bytes, parts: tuple[bytes, ...]) -> bool:
        return verify_consistency(old_size=old, new_size=new, old_root=a, new_root=b, path=parts)

    assert check(old_root, new_root, path)
    assert not check(flipped(old_root, bit), new_root, path)
    assert not check(old_root, flipped(new_root, bit), path)
    assert not check(old_root, new_root, (*path, new_root))
    for at in range(len(path)):
        assert not check(old_root, new_root, (*path[:at], flipped(path[at], bit), *path[at + 1 :]))
        assert not check(old_root, new_root, path[:at] + path[at + 1 :])


@given(st.integers(2, 300), st.data())
@settings(max_examples=60, deadline=None)
def test_a_log_whose_past_was_rewritten_has_no_consistency_proof(new: int, data: st.DataObject) -> None:
    old = data.draw(st.integers(1, new - 1))
    changed = data.draw(st.integers(0, old - 1))
    hashes = leaves(new)
    rewritten = [*hashes[:changed], leaf_hash(b"forged"), *hashes[changed + 1 :]]
    tiles = MemoryTiles()
    tiles.append(rewritten)

    assert not verify_consistency(
        old_size=old,
        new_size=new,
        old_root=naive_root(hashes[:old]),
        new_root=naive_root(rewritten),
        path=tiles.tree().consistency(old),
    )


def test_proofs_of_the_wrong_shape_are_refused() -> None:
    root = naive_root(leaves(4))
    path = grown(4).tree().inclusion(1)

    assert not verify_inclusion(leaves(2)[1], index=4, size=4, path=path, root=root)
    assert not verify_inclusion(leaves(2)[1], index=-1, size=4, path=path, root=root)
    assert not verify_inclusion(leaves(2)[1], index=1, size=4, path=(path[0][:31], path[1]), root=root)
    assert not verify_consistency(old_size=5, new_size=4, old_root=root, new_root=root, path=())
    assert not verify_consistency(old_size=3, new_size=4, old_root=root, new_root=root, path=())
    assert not verify_consistency(old_size=0, new_size=4, old_root=root, new_root=root, path=())
    assert verify_consistency(old_size=0, new_size=4, old_root=EMPTY_ROOT, new_root=root, path=())
    assert not verify_consistency(old_size=4, new_size=4, old_root=EMPTY_ROOT, new_root=root, path=())


def test_no_proof_is_made_about_what_the_tree_does_not_hold() -> None:
    tree = grown(10).tree()
    for ask in (lambda: tree.root(11), lambda: tree.inclusion(10), lambda: tree.inclusion(5, 5),
                lambda: tree.consistency(11), lambda: tree.inclusion(-2)):  # fmt: skip
        with pytest.raises(InvalidInput):
            ask()


def test_a_tile_that_is_too_short_is_corrupt_not_a_wrong_proof() -> None:
    tiles = grown(300)
    tiles.tiles[0, 1] = tiles.tiles[0, 1][:-HASH_BYTES]

    with pytest.raises(Corrupt):
        tiles.tree().root()
    with pytest.raises(Corrupt):
        tiles.append(leaves(1))


def test_a_subtree_must_start_at_a_multiple_of_its_size() -> None:
    frontier = Frontier()
    frontier.push(leaves(1)[0])
    with pytest.raises(AssertionError):
        frontier.push(leaves(1)[0], level=1)


def test_splitting_gives_the_hashes_back() -> None:
    assert split(b"".join(leaves(5))) == leaves(5)
