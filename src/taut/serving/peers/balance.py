"""Whom to ask instead: the discipline of balancing between machines, free of clocks and sockets.

A request goes where its answer is expected first: what waits there and what the request itself costs there (its rows by the
measured cost of the model), with the way there and back. What a peer has to do is told on each of its answers; in between it is
what was told, less the time since, plus what was sent after it. Two peers are looked at, drawn at random, and the better one is
compared with this machine, which keeps a request unless a peer gains a fifth: that avoids both the herd (all flock to the one that
was idle a moment ago) and the scan. Source: Mitzenmacher, The power of two choices in randomized load balancing, 2001.

How much may be under way to a peer is a window, as TCP has it (RFC 5681): one at first, one more for each good answer, so that
a fresh machine is not flooded before it has shown how fast it is. An error, or answers that take far longer than expected, closes
it; after a pause that doubles each time a single request tries again.
"""

from __future__ import annotations

from typing import Final, NamedTuple

from taut.ports.world import Random

_GAIN: Final = 0.8
_WINDOW_MAX: Final = 128.0
_FIRST_PAUSE_S: Final = 0.5
_LAST_PAUSE_S: Final = 30.0
_SLOW: Final = 4.0
_SMOOTH: Final = 0.2
_NOTABLE_S: Final = 0.02
"""Less than that is noise, and no reason to call a peer slow."""
_HOP_S: Final = 0.001  # until it was measured
_TURNED_AWAY_S: Final = 0.5


class Load(NamedTuple):
    """What a model has to do on a machine. wait_s: until a request that comes now is begun, infinite where it never is.

    base_s, row_s: what a batch costs there, by itself and for each row. workers: that share the line.
    """

    wait_s: float
    base_s: float
    row_s: float
    workers: int = 1

    def answer_s(self, rows: int, *, ahead_rows: int = 0, age_s: float = 0.0) -> float:
        """Return until when a request of `rows` would be answered. ahead_rows: came since this was told, `age_s` ago."""
        ahead_s = ahead_rows * (self.base_s + self.row_s) / max(1, self.workers)
        return max(0.0, self.wait_s - age_s) + ahead_s + self.base_s + self.row_s * rows


HERE_NEVER: Final = Load(float("inf"), 0.0, 0.0)
"""Of a model that cannot answer on this machine."""


class Choice(NamedTuple):
    """Who is asked, and until when an answer is expected, in seconds from now. plain_s: were the peer as fast as it says."""

    peer: str
    expected_s: float
    plain_s: float


class _Known:
    """What is known of one endpoint at a peer. ahead_rows: sent and not answered yet."""

    def __init__(self) -> None:
        self.load: Load | None = None
        self.told_s = 0.0
        self.ahead_rows = 0
        self.turned_away_until_s = 0.0


class Peer:
    """One other machine. hop_s: what the way costs beside what the peer says that it took."""

    def __init__(self) -> None:
        self.window = 1.0
        self.in_flight = 0
        self.hop_s = _HOP_S
        self.ratio = 1.0
        self.pause_s = _FIRST_PAUSE_S
        self.closed_until_s = 0.0
        self.why = ""
        self.known: Final[dict[str, _Known]] = {}

    def of(self, endpoint: str) -> _Known:
        return self.known.setdefault(endpoint, _Known())

    def plain_s(self, endpoint: str, rows: int, here: Load, now_s: float) -> float:
        """Return until when an answer is expected, as far as the peer said. One that has said nothing yet is taken to be idle, and as fast as this
        machine: its window keeps that small."""
        known = self.of(endpoint)
        load = known.load or Load(0.0, here.base_s, here.row_s)
        age_s = 0.0 if known.load is None else now_s - known.told_s
        return self.hop_s + load.answer_s(rows, ahead_rows=known.ahead_rows, age_s=age_s)


class Balance:
    """Chooses between this machine and its peers. One event loop owns it; times by one monotonic clock.

    Guarantees: nobody is chosen beyond his window (where this machine cannot answer, beyond the largest), while he is closed, or who turned the endpoint away a moment ago; of a
    request that was `sent`, `answered`, `failed` or `turned_away` must be told.
    """

    def __init__(self, random: Random) -> None:
        self._random: Final = random
        self._peers: dict[str, Peer] = {}

    @property
    def peers(self) -> dict[str, Peer]:
        return self._peers

    def keep(self, names: set[str]) -> None:
        """Know these peers and no others; one that is new begins slowly."""
        self._peers = {name: self._peers.get(name) or Peer() for name in sorted(names)}

    def choose(self, endpoint: str, rows: int, here: Load, now_s: float) -> Choice | None:
        """Return whom to ask; None for this machine. here: what the endpoint's model has to do on it."""
        never = here.wait_s == float("inf")  # then to ask too many is better than to refuse
        may = [
            name
            for name, peer in self._peers.items()
            if peer.in_flight < (_WINDOW_MAX if never else int(peer.window))
            and now_s >= peer.closed_until_s
            and now_s >= peer.of(endpoint).turned_away_until_s
        ]
        if not may:
            return None
        found = []
        for name in self._two(may):
            peer = self._peers[name]
            plain_s = peer.plain_s(endpoint, rows, here, now_s)
            found.append(Choice(name, plain_s * max(1.0, peer.ratio), plain_s))
        best = min(found, key=lambda choice: choice.expected_s)
        return best if best.expected_s < _GAIN * here.answer_s(rows) else None

    def sent(self, choice: Choice, endpoint: str, rows: int) -> None:
        """Count a request as under way."""
        peer = self._peers[choice.peer]
        peer.in_flight += 1
        peer.of(endpoint).ahead_rows += rows

    def answered(
        self,
        choice: Choice,
        endpoint: str,
        rows: int,
        load: Load | None,
        *,
        elapsed_s: float,
        took_s: float,
        now_s: float,
    ) -> None:
        """Learn from an answer. load: as it was told with it. took_s: what the peer says that it took itself."""
        peer = self._back(choice, endpoint, rows)
        if peer is None:
            return
        known = peer.of(endpoint)
        if load is not None:
            known.load, known.told_s = load, now_s
            peer.hop_s += _SMOOTH * (max(0.0, elapsed_s - took_s) - peer.hop_s)
        peer.ratio += _SMOOTH * (elapsed_s / max(choice.plain_s, _NOTABLE_S) - peer.ratio)
        if peer.ratio > _SLOW:
            self._close(peer, now_s, f"answers take {peer.ratio:.0f} times as long as expected")
            return
        peer.window = min(_WINDOW_MAX, peer.window + 1.0)
        peer.pause_s, peer.why = _FIRST_PAUSE_S, ""

    def failed(self, choice: Choice, endpoint: str, rows: int, *, why: str, now_s: float) -> None:
        """Learn that a peer did not answer, or not as one that is well: it is left alone for a while."""
        peer = self._back(choice, endpoint, rows)
        if peer is not None:
            self._close(peer, now_s, why)

    def turned_away(self, choice: Choice, endpoint: str, rows: int, *, now_s: float) -> None:
        """Learn that a peer is well and does not take this endpoint's requests now."""
        peer = self._back(choice, endpoint, rows)
        if peer is not None:
            peer.of(endpoint).turned_away_until_s = now_s + _TURNED_AWAY_S
            peer.window = max(1.0, peer.window / 2)

    def left(self, choice: Choice, endpoint: str, rows: int) -> None:
        """Forget a request whose caller hung up."""
        self._back(choice, endpoint, rows)

    def _two(self, names: list[str]) -> list[str]:
        """Return two of them, drawn at random; all where there are no more."""
        if len(names) <= 2:
            return names
        first = int(self._random.uniform() * len(names))
        second = int(self._random.uniform() * (len(names) - 1))
        return [names[first], names[second + (second >= first)]]

    def _back(self, choice: Choice, endpoint: str, rows: int) -> Peer | None:
        """Take a request back from those under way; None where the peer is not known any more."""
        peer = self._peers.get(choice.peer)
        if peer is None or not peer.in_flight:
            return None
        peer.in_flight -= 1
        known = peer.of(endpoint)
        known.ahead_rows = max(0, known.ahead_rows - rows)
        return peer

    def _close(self, peer: Peer, now_s: float, why: str) -> None:
        if now_s < peer.closed_until_s:
            return  # one of several that were under way when it went wrong
        peer.closed_until_s = now_s + peer.pause_s * (0.75 + 0.5 * self._random.uniform())
        peer.pause_s = min(_LAST_PAUSE_S, 2 * peer.pause_s)
        peer.window, peer.ratio, peer.why = 1.0, 1.0, why
