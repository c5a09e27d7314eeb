"""From hashes that disagree to names: changed, moved, removed, rewritten, cut."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Final, NamedTuple

from taut.trust.ledger.values import Fault

FAULTS_MAX: Final = 100
MISMATCHES_MAX: Final = 100_000


class Mismatch(NamedTuple):
    """A place where leaf and tile disagree and the tile is believed.

    leaf, content: the id and hash of what lies there, None when nothing does. entry: the hash that was logged there.
    stored: the hash kept beside it.
    """

    seq: int
    leaf: str | None
    content: bytes | None
    entry: bytes | None
    stored: bytes | None


class Findings:
    """Faults up to a bound, and mismatches waiting to be named until all of the log was seen."""

    def __init__(self) -> None:
        self.faults: list[Fault] = []
        self.more = 0
        self._mismatches: list[Mismatch] = []
        self._unnamed: tuple[int, int] | None = None

    @property
    def found(self) -> bool:
        return bool(self.faults or self._mismatches)

    def add(
        self,
        kind: str,
        message: str,
        *,
        seq: int | None = None,
        last: int | None = None,
        leaf: str | None = None,
    ) -> None:
        if len(self.faults) >= FAULTS_MAX:
            self.more += 1
            return
        self.faults.append(Fault(kind=kind, message=message, seq=seq, last=last, leaf=leaf))

    def mismatch(self, mismatch: Mismatch) -> None:
        if len(self._mismatches) < MISMATCHES_MAX:
            self._mismatches.append(mismatch)
            return
        first = self._unnamed[0] if self._unnamed else mismatch.seq
        self._unnamed = (first, mismatch.seq)

    def resolve(self, *, end: int, size: int) -> None:
        """Name the mismatches: what lies elsewhere was moved, what lies nowhere was removed, the rest is new.

        end: where the walk ended; nothing lies between it and `size`.
        """
        lies_at = {m.content: m.seq for m in self._mismatches if m.content is not None}
        logged_at = {m.entry: m.seq for m in self._mismatches if m.entry is not None}
        removed = [m.seq for m in self._mismatches if _is_removed(m, lies_at, logged_at)]
        moved: list[tuple[int, int]] = []
        for m in self._mismatches:
            if m.content is None:
                continue
            if m.content in logged_at:
                moved.append((m.seq, logged_at[m.content]))
            else:
                self._add_changed(m)
        self._add_removed(removed, end=end, size=size)
        self._add_moved(moved)
        if self._unnamed is not None:
            first, last = self._unnamed
            self.add(
                "leaves_disagree",
                f"more leaves between {first} and {last} are not those that were logged: too many to name",
                seq=first,
                last=last,
            )

    def _add_changed(self, m: Mismatch) -> None:
        if m.stored == m.entry:
            kind, what = (
                "leaf_changed",
                "was changed after it was logged: its body, kind, subject, actor or time",
            )
        else:
            kind = "leaf_rewritten"
            what = "is not what was logged there: it was rewritten together with its hash, or put in another's place"
        self.add(kind, f"leaf {m.leaf} at {m.seq} {what}", seq=m.seq, leaf=m.leaf)

    def _add_removed(self, places: list[int], *, end: int, size: int) -> None:
        runs = list(_runs([(place, 0) for place in places]))
        if end < size and not (runs and runs[-1][1] == end - 1):
            runs.append((end, end - 1))
        for first, last in runs:
            if last == end - 1:
                last = size - 1
                self.add(
                    "tail_cut",
                    f"leaves {first} to {last}, the end of the log, are gone",
                    seq=first,
                    last=last,
                )
            else:
                what = f"leaf {first} is gone" if first == last else f"leaves {first} to {last} are gone"
                self.add(
                    "leaf_removed",
                    f"{what}: removed after being logged, or the first of their group was",
                    seq=first,
                    last=last,
                )

    def _add_moved(self, moves: list[tuple[int, int]]) -> None:
        home = dict(moves)
        for first, last in _runs([(place, logged - place) for place, logged in moves]):
            what = f"leaf at {first}" if first == last else f"leaves at {first} to {last}"
            self.add(
                "leaf_moved",
                f"{what} belong at {home[first]}{'' if first == last else f' to {home[last]}'}: the order was changed",
                seq=first,
                last=last,
            )


def _is_removed(m: Mismatch, lies_at: dict[bytes, int], logged_at: dict[bytes, int]) -> bool:
    """Tell whether what was logged at this place lies nowhere; a new leaf in its place is named rewritten instead."""
    if m.entry is not None and m.entry in lies_at:
        return False
    return m.content is None or m.content in logged_at


def _runs(places: list[tuple[int, int]]) -> Iterator[tuple[int, int]]:
    """Yield (first, last) of consecutive places that share their second value."""
    start = 0
    for at in range(1, len(places) + 1):
        before = places[at - 1]
        if at == len(places) or places[at] != (before[0] + 1, before[1]):
            yield places[start][0], before[0]
            start = at
