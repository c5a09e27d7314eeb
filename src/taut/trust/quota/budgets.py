"""What control knows of budgets: what each key spent in its window, and what every gateway may still spend of it.

Credit flow control: a gateway is told how much it may spend in all since it began, says how much that was, and is told
anew; nothing is lent for a time, so nothing has to be taken back (as windows are in HTTP/2, RFC 9113, 5.2).
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Mapping
from typing import Final
from zlib import crc32

import msgspec

from taut.trust.quota.limit import Limit
from taut.trust.quota.messages import Claim, Credit, Key, Spending

_PARTS: Final = 24
_CHUNK: Final = 1 / 50
"""Of a budget, what a gateway where it is spent has in hand at most; and the steps in which it is written down."""
_LEAST: Final = 1 / 1000
_MAX_KEYS: Final = 10_000
_TOLD: Final = 1024


class Row(msgspec.Struct, frozen=True, array_like=True):
    """What is written down of a key: by part of time, no less than what was spent or may be."""

    name: str
    who: str
    parts: dict[int, float]


class State(msgspec.Struct, frozen=True, kw_only=True):
    """What one may see of a key. lent: in the hands of gateways. wait_s: until more comes, 0 where some is left."""

    key: Key
    spent: float
    lent: float
    left: float
    wait_s: float


class _Entry(msgspec.Struct):
    """What one gateway has of a key. counted: what it said that it spent, as it was booked. most: what it may spend in all, by
    anything that may have reached it. told: last."""

    counted: float
    most: float
    told: float

    @property
    def open(self) -> float:
        return max(0.0, self.most - self.counted)


class _Book:
    """One key: what was spent by part of time, and what is written down of it."""

    __slots__ = ("entries", "spent", "written")

    def __init__(self, written: dict[int, float]) -> None:
        self.spent: dict[int, float] = dict(written)
        self.written: dict[int, float] = dict(written)
        self.entries: dict[str, _Entry] = {}


class Budgets:
    """Keeps budgets. One thread at a time; `now_s` is wall time, since windows outlive processes.

    grantor: names this run of control. rows: what the last one wrote down. keep: makes rows durable, before anything is allowed
    by them.

    A window is the last `window_s` seconds, in 24 parts; each key's parts begin at a moment of its own, so that not everybody's
    budget comes back at once, and a part counts until all of it is out of the window.
    Guarantees: what is spent of a key in any window is at most the budget, beside what `Purses` says of control's absence, a first
    part (a hundredth of an equal share) at each gateway that came to the key before control could tell it what is left, and the debt of
    what was under way. Not guaranteed: that all of it can be spent. What a gateway had in hand when it ended counts as spent, and so does what
    an earlier run of control may have allowed: a fiftieth for each. A wall clock that is set ahead forgets what is out of the window then.
    """

    def __init__(
        self,
        *,
        grantor: str,
        rows: tuple[Row, ...] = (),
        keep: Callable[[tuple[Row, ...]], None] = lambda _: None,
    ) -> None:
        self._grantor: Final = grantor
        self._keep: Final = keep
        self._limits: dict[str, Limit] = {}
        self._gateways = 1
        self._names: Final[set[str]] = set()
        self._books: Final[dict[Key, _Book]] = {(row.name, row.who): _Book(row.parts) for row in rows}

    def expect(self, gateways: int, limits: Mapping[str, Limit]) -> None:
        """Say how many gateways there shall be, and what the limits are; of budgets that are gone nothing is kept."""
        self._gateways = max(1, gateways)
        self._limits = {name: limit for name, limit in limits.items() if limit.window_s}
        for key in [key for key in self._books if key[0] not in self._limits]:
            del self._books[key]

    def hear(self, name: str, claim: Claim, now_s: float) -> tuple[Credit, ...]:
        """Book what a gateway spent; return what it may spend of keys for which that changes."""
        if not self._limits:
            return ()
        self._names.add(name)
        active = {one.key for one in claim.spendings if self._book(name, claim, one, now_s) or one.pressed}
        said = {one.key for one in claim.spendings}
        due = [key for key, book in self._books.items() if key in said or self._is_due(key, book, name)]
        changed = [self._allow(key, name, now_s, active=key in active) for key in due[:_TOLD]]
        self._write(due[:_TOLD], now_s)
        return tuple(one for one in changed if one is not None)

    def end(self, name: str, now_s: float) -> None:
        """Hear that a gateway has ended: what it had in hand counts as spent, since nobody knows."""
        self._names.discard(name)
        for key, book in self._books.items():
            entry = book.entries.pop(name, None)
            if entry is not None:
                self._add(key, book, entry.open, now_s)

    def keep_only(self, names: Collection[str], now_s: float) -> None:
        """Hear who may still spend anything; the others have ended."""
        for name in self._names.difference(names):
            self.end(name, now_s)

    def states(self, now_s: float) -> tuple[tuple[State, Limit], ...]:
        """Return what was spent of each key that has a history, by key."""
        found = []
        for key, book in sorted(self._books.items()):
            limit = self._limits[key[0]]
            spent, lent = self._spent(key, book, now_s), self._open(key, book, "")
            left = limit.burst - spent - lent
            wait_s = 0.0 if left > 0 else self._wait_s(key, book, now_s)
            found.append((State(key=key, spent=spent, lent=lent, left=max(0.0, left), wait_s=wait_s), limit))
        return tuple(found)

    def _book(self, name: str, claim: Claim, said: Spending, now_s: float) -> bool:
        """Take what a gateway says of one key; tell whether it spent anything since it said so last."""
        if said.name not in self._limits:
            return False
        book = self._books.get(said.key)
        if book is None:
            if len(self._books) >= _MAX_KEYS and not self._make_room(now_s):
                return False
            book = self._books[said.key] = _Book({})
        entry = book.entries.get(name)
        if entry is None:
            lent_before = claim.grantor not in ("", self._grantor) and bool(book.written)
            counted = said.granted if lent_before else 0.0
            entry = book.entries[name] = _Entry(counted=counted, most=said.granted, told=said.granted)
        spent = said.spent - entry.counted
        if spent > 0:
            self._add(said.key, book, spent, now_s)
            entry.counted = said.spent
        confirmed = said.granted == max(entry.told, said.spent)
        entry.most = said.granted if confirmed else max(entry.most, said.granted)
        return spent > 0

    def _is_due(self, key: Key, book: _Book, name: str) -> bool:
        """Whether a gateway that does not speak of a key must hear of it: it never did, did not say that it gave something
        back, or has more in hand than who spends nothing."""
        entry = book.entries.get(name)
        return entry is None or entry.most != entry.told or entry.open > self._first(key)

    def _first(self, key: Key) -> float:
        return self._limits[key[0]].first / self._gateways

    def _allow(self, key: Key, name: str, now_s: float, *, active: bool) -> Credit | None:
        book, limit = self._books[key], self._limits[key[0]]
        entry = book.entries.get(name)
        first = self._first(key)
        if entry is None:
            entry = book.entries[name] = _Entry(counted=0.0, most=first, told=first)
        left = limit.burst - self._spent(key, book, now_s) - self._open(key, book, name)
        most = limit.burst * _CHUNK if active else first
        up_to = entry.counted + max(0.0, min(left, most, max(left / 2, limit.burst * _LEAST)))
        wait_s = 0.0 if left > 0 else self._wait_s(key, book, now_s)
        same = up_to == entry.told
        entry.told, entry.most = up_to, max(entry.most, up_to)
        return None if same and entry.most == up_to and not active else Credit(key[0], key[1], up_to, wait_s)

    def _open(self, key: Key, book: _Book, besides: str) -> float:
        """Return what gateways may still spend; of one that was not told of the key yet, its first part."""
        first = self._first(key)
        known = sum(entry.open for name, entry in book.entries.items() if name != besides)
        untold = sum(name not in book.entries for name in self._names if name != besides)
        return known + first * untold

    def _spent(self, key: Key, book: _Book, now_s: float) -> float:
        """Return what was spent in the window; forget what is out of it."""
        oldest = self._part(key, now_s) - _PARTS
        for part in [part for part in book.spent if part < oldest]:
            book.spent.pop(part)
            book.written.pop(part, None)
        return sum(book.spent.values())

    def _part(self, key: Key, now_s: float) -> int:
        part_s = self._limits[key[0]].window_s / _PARTS
        return int((now_s + _offset(key) * part_s) // part_s)

    def _wait_s(self, key: Key, book: _Book, now_s: float) -> float:
        """Return how long until so much is out of the window that something is left."""
        part_s = self._limits[key[0]].window_s / _PARTS
        over = self._spent(key, book, now_s) + self._open(key, book, "") - self._limits[key[0]].burst
        for part in sorted(book.spent):
            over -= book.spent[part]
            if over < 0:
                return float((part + _PARTS + 1) * part_s - _offset(key) * part_s - now_s)
        return part_s

    def _add(self, key: Key, book: _Book, amount: float, now_s: float) -> None:
        part = self._part(key, now_s)
        book.spent[part] = book.spent.get(part, 0.0) + amount

    def _make_room(self, now_s: float) -> bool:
        """Forget a key of which nothing was spent in its window; tell whether there was one."""
        for key, book in self._books.items():
            if self._spent(key, book, now_s) == 0:
                del self._books[key]
                return True
        return False

    def _write(self, keys: Iterable[Key], now_s: float) -> None:
        """Write down what may be spent, before anybody may, in steps: so that a restart forgets nothing, and few are needed."""
        changes: dict[Key, dict[int, float]] = {}
        for key in keys:
            book, part = self._books[key], self._part(key, now_s)
            written = {at: spent for at, spent in book.spent.items() if at != part}
            kept = book.written.get(part, 0.0)
            needed = book.spent.get(part, 0.0) + self._open(key, book, "")
            written[part] = kept if needed <= kept else needed + self._limits[key[0]].burst * _CHUNK
            if written != book.written:
                changes[key] = written
        if changes:
            books = sorted(self._books.items())
            self._keep(tuple(Row(*key, changes.get(key, book.written)) for key, book in books))
            for key, written in changes.items():
                self._books[key].written = written


def _offset(key: Key) -> float:
    """Return at which share of a part this key's parts begin."""
    return crc32("\0".join(key).encode()) / 2**32
