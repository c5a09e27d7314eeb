"""Token buckets: each key may spend `rate_per_s` on average and `burst` at once."""

from __future__ import annotations

import threading
from collections.abc import Mapping
from math import isfinite
from typing import Final

import msgspec

from taut.core.errors import Exhausted, InvalidInput

_SWEEP_EVERY_S: Final = 1.0


class Limit(msgspec.Struct, frozen=True, kw_only=True):
    """A rate and the burst that it allows; a new key starts with the whole burst."""

    rate_per_s: float
    burst: float

    def __post_init__(self) -> None:
        for name, value in (("rate_per_s", self.rate_per_s), ("burst", self.burst)):
            if not (isfinite(value) and value > 0):
                raise InvalidInput(f"{name} is {value}: give a finite number above 0")

    def share(self, parts: int) -> Limit:
        """Return what one of `parts` gateways may grant, so that together they stay within the limit.

        A burst that lets one request pass does so in each part: less than one would refuse every request for ever.
        Where `burst` is below `parts`, a caller who reaches all of them may so spend `parts` at once instead.
        """
        if parts < 1:
            raise InvalidInput(f"a limit cannot be shared by {parts}: give at least 1")
        return Limit(rate_per_s=self.rate_per_s / parts, burst=max(self.burst / parts, min(1.0, self.burst)))


class Quota:
    """Buckets by (limit's name, who).

    limits: by name, for example one an endpoint. default: for names that are not there; None lets them pass.
    max_buckets: bound on remembered keys. Full buckets are forgotten first, which changes nothing; where all are in
    use a new key is refused rather than an old one forgiven.

    Guarantees: over any span of t seconds a key is granted at most `burst + rate_per_s * t`, whatever the clock does
    (time that goes back grants nothing). Safe for threads.
    Not guaranteed: anything across processes; give each its `Limit.share`.
    """

    def __init__(
        self, limits: Mapping[str, Limit], *, default: Limit | None = None, max_buckets: int = 100_000
    ) -> None:
        if max_buckets < 1:
            raise InvalidInput(f"max_buckets is {max_buckets}: give at least 1")
        self._limits: Final = dict(limits)
        self._default: Final = default
        self._max: Final = max_buckets
        self._buckets: Final[dict[tuple[str, str], list[float]]] = {}  # [tokens, when, rate, burst]
        self._lock: Final = threading.Lock()
        self._swept_s = float("-inf")

    def take(self, key: tuple[str, str], n: float, now_s: float) -> None:
        """Spend `n` of a key's bucket at the monotonic time `now_s`.

        Raises Exhausted with the seconds after which the same request would pass; InvalidInput when n is not in
        (0, burst], since then it would never pass.
        """
        with self._lock:
            bucket = self._buckets.get(key)
            if bucket is None:
                bucket = self._open(key, now_s)
                if bucket is None:
                    return
            tokens, then, rate, burst = bucket
            if now_s > then:
                tokens = min(burst, tokens + (now_s - then) * rate)
                bucket[1] = now_s
            if 0 < n <= tokens:
                bucket[0] = tokens - n
                return
            bucket[0] = tokens
        if not 0 < n <= burst:
            raise InvalidInput(
                f"a request for {n} units can never pass a burst of {burst:g}: send less at once"
            )
        raise Exhausted(
            f"the quota of {rate:g} a second on {key[0]!r} is used up: slow down or ask for more",
            retry_after_s=(n - tokens) / rate,
        )

    def __len__(self) -> int:
        return len(self._buckets)

    def _open(self, key: tuple[str, str], now_s: float) -> list[float] | None:
        limit = self._limits.get(key[0], self._default)
        if limit is None:
            return None
        if len(self._buckets) >= self._max:
            self._sweep(now_s)
        if len(self._buckets) >= self._max:
            raise Exhausted("too many callers at once: try again shortly", retry_after_s=_SWEEP_EVERY_S)
        bucket = [limit.burst, now_s, limit.rate_per_s, limit.burst]
        self._buckets[key] = bucket
        return bucket

    def _sweep(self, now_s: float) -> None:
        """Forget buckets that are full again; at most once a second, since it looks at all of them."""
        if now_s - self._swept_s < _SWEEP_EVERY_S:
            return
        self._swept_s = now_s
        full = [
            key
            for key, (tokens, then, rate, burst) in self._buckets.items()
            if tokens + (now_s - then) * rate >= burst
        ]
        for key in full:
            del self._buckets[key]
