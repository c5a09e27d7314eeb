"""What one gateway lets pass: a token bucket for each key, as large as the lease that it holds allows.

Taking is arithmetic on numbers in memory; control is asked once a second, off the path. Tokens come only with time, at the
rate of the share: a share that grows brings none, and one that shrinks takes at once what is too many. So, at any moment,
all gateways together hold no more tokens than the shares of the burst that are out, and gain no faster than the shares of
the rate; as both never exceed the whole, no span of time sees more than `burst + rate * span`.
"""

from __future__ import annotations

from collections.abc import Mapping
from itertools import islice
from math import inf
from typing import Final

from taut.core.errors import Exhausted, InvalidInput, TautError, Unavailable
from taut.trust.quota.account import Account, Bucket
from taut.trust.quota.limit import SAFE_PART, WHOLE, Kind, Limit, digest_limits
from taut.trust.quota.messages import Claim, Key, Lease, Use
from taut.trust.quota.purse import Purse, Purses
from taut.trust.quota.spent import spent

_SWEEP_EVERY_S: Final = 1.0
_SCANNED: Final = 4096
_TOLD: Final = 32
_MAX_PRESSED: Final = 128


class Quota:
    """Buckets by (limit's name, who). One thread owns it.

    limits: by name, for example one an endpoint; names that are not there pass. max_buckets: bound on remembered keys. Full
    buckets are forgotten first, which changes nothing; where all are in use a new key is refused rather than an old one
    forgiven.

    It begins with a share of its own choice, `WHOLE` where it is alone (`declare`). Once it holds a lease it allows what
    that says, then its safe share, then nothing.

    Guarantees: over any span of t seconds a key is granted at most `burst + rate_per_s * t` of the shares held, whatever the
    clock does (time that goes back grants nothing).
    """

    def __init__(self, limits: Mapping[str, Limit] | None = None, *, max_buckets: int = 100_000) -> None:
        if max_buckets < 1:
            raise InvalidInput(f"max_buckets is {max_buckets}: give at least 1")
        self._limits: dict[str, Limit] = dict(limits or {})
        self._digest = digest_limits(self._limits)
        self._max: Final = max_buckets
        self._buckets: Final[dict[Key, Bucket]] = {}
        self._purses: Final = Purses()
        self._fresh: Final[dict[str, Bucket]] = {}  # by limit: what a key has that was never seen
        self._own = WHOLE
        self._share, self._until_s = WHOLE, inf
        self._keys: dict[Key, int] = {}
        self._lease: Lease | None = None
        self._turn = 0
        self._pressed: Final[dict[Key, None]] = {}
        self._claimed_s = -inf
        self._swept_s = -inf

    @property
    def share(self) -> int:
        """Return what this gateway may use of each limit, in millionths."""
        return self._share

    @property
    def limits(self) -> Mapping[str, Limit]:
        return self._limits

    def take(self, key: Key, n: float, now_s: float) -> None:
        """Spend `n` of a key's bucket at the monotonic time `now_s`.

        Raises Exhausted with the seconds after which the same request would pass; Unavailable while this gateway has no
        lease yet; InvalidInput when n is not in (0, burst], since then it would never pass.
        """
        if now_s >= self._until_s:
            self._lapse()
        bucket = self._buckets.get(key)
        if bucket is None or bucket.turn != self._turn:
            bucket = self._settled(key, bucket, now_s)
            if bucket is None:
                return
        tokens = bucket.tokens
        if now_s > bucket.then_s:
            tokens += (now_s - bucket.then_s) * bucket.rate
            if tokens > bucket.burst:
                tokens = bucket.burst
            bucket.then_s = now_s
        bucket.asked += n
        if 0 < n <= tokens:
            bucket.tokens = tokens - n
            return
        bucket.tokens = tokens
        raise self._refusal(key, n, bucket)

    def draw(self, account: Account, now_s: float) -> None:
        """Let one request pass where every level of its account holds; otherwise none of them gives anything.

        Raises as `take` does, by the first level that does not hold.
        """
        if now_s >= self._until_s:
            self._lapse()
        if account.turn != self._turn:
            self._open(account, now_s)
        for bucket in account.buckets:
            tokens, then_s = bucket.tokens, bucket.then_s
            if now_s > then_s:
                tokens += (now_s - then_s) * bucket.rate
                if tokens > bucket.burst:
                    tokens = bucket.burst
                bucket.then_s = now_s
            bucket.asked += 1.0
            bucket.tokens = tokens - 1.0
            if tokens < 1.0:
                raise self._undone(account, bucket)
        if account.owed:
            self._check_owed(account, now_s)

    def settle(self, account: Account, costs: Mapping[Kind, float], now_s: float) -> None:
        """Charge every level of an account with what a request cost, also beyond what is left.

        costs: by kind; a negative one gives back what was reserved and not used.
        """
        if account.turn != self._turn:
            self._open(account, now_s)
        for kind, _, bucket in account.owed:
            n = costs.get(kind, 0.0)
            bucket.fill(now_s)
            bucket.tokens = min(bucket.burst, bucket.tokens - n)
            bucket.asked = max(0.0, bucket.asked + n)

    def reserve(self, account: Account, kind: Kind, n: float, now_s: float) -> None:
        """Spend an estimate at every level ahead of the work; `settle` with the difference once it is known.

        Raises as `take` does, and nothing is spent then; an estimate beyond a burst is one that could never pass.
        """
        if now_s >= self._until_s:
            self._lapse()
        if account.turn != self._turn:
            self._open(account, now_s)
        levels = [(key, bucket) for of, key, bucket in account.owed if of == kind]
        for key, bucket in levels:
            bucket.fill(now_s)
            bucket.asked += n
            if not 0 < n <= bucket.tokens:
                raise self._refusal(key, n, bucket)
        for _, bucket in levels:
            bucket.tokens -= n

    def require(self, key: Key, now_s: float) -> None:
        """Raise as `take` does where a key has nothing left; for what is charged only when it is known what it cost."""
        if now_s >= self._until_s:
            self._lapse()
        bucket = self._settled(key, self._buckets.get(key), now_s)
        if bucket is not None:
            bucket.fill(now_s)
            if bucket.tokens <= 0:
                raise self._refusal(key, min(1.0, self._limits[key[0]].burst), bucket)

    def charge(self, key: Key, n: float, now_s: float) -> None:
        """Spend what something cost, also beyond what is left: the key then has a debt, which time pays at its rate."""
        bucket = self._settled(key, self._buckets.get(key), now_s)
        if bucket is not None:
            bucket.fill(now_s)
            bucket.tokens -= n
            bucket.asked += n

    def declare(self, limits: Mapping[str, Limit], *, parts: int, now_s: float) -> None:
        """Take other limits, at once and without a refill. parts: how many share them where no lease says it."""
        if parts < 1:
            raise InvalidInput(f"a limit cannot be shared by {parts}: give at least 1")
        own = WHOLE // parts
        if self._lease is None and own != self._own:
            self._turn_to(own if self._share == self._own else own // SAFE_PART, {}, inf)
        self._own = own
        if limits == self._limits:
            return
        for name in self._limits.keys() - limits.keys():
            self._fresh.pop(name, None)
        for key in [key for key in self._buckets if key[0] not in limits]:
            del self._buckets[key]
        self._limits = dict(limits)
        self._digest = digest_limits(limits)
        self._purses.keep(limits)
        self._turn_to(self._share, self._keys, self._until_s)
        self._settle_fresh(now_s)

    def await_lease(self, now_s: float) -> None:
        """Use a safe share, beginning with nothing, until control has said what others leave. For who never had a lease."""
        if self._lease is None:
            self._turn_to(self._own // SAFE_PART, {}, inf)
            self._settle_fresh(now_s)
            for fresh in self._fresh.values():
                fresh.tokens = 0.0

    def go_alone(self, now_s: float) -> None:
        """Use its own share, as before it waited: there is no control that could lend others more."""
        if self._lease is None:
            self._turn_to(self._own, {}, inf)
            for name, fresh in self._fresh.items():
                _, burst = self._limits[name].part(self._own)
                fresh.tokens = burst
            self._settle_fresh(now_s)

    def hear(self, lease: Lease, now_s: float) -> bool:
        """Take a lease; tell whether it allows less of anything, which whoever waits for it wants to hear at once.

        One that is older than what is in use changes nothing, so it may be repeated, or overtaken.
        """
        known = self._lease
        if known is not None and (lease.asked_s, lease.number) <= (known.asked_s, known.number):
            return False
        if now_s >= self._until_s:
            self._lapse()
        self._settle_fresh(now_s)
        before, keys = self._share, {one.key: one.share for one in lease.keys}
        less = lease.share < before or any(share < self._keys.get(key, before) for key, share in keys.items())
        self._lease = lease
        self._purses.hear(lease.credits, lease.asked_s)
        self._turn_to(lease.share, keys, lease.asked_s + lease.ttl_s)
        self._settle_fresh(now_s)
        for name, fresh in self._fresh.items():
            rate, _ = self._limits[name].part(max(0, lease.share - before))
            fresh.tokens = min(fresh.burst, fresh.tokens + rate * lease.idle_s)
        for key in keys:  # opened now: later it would come with the tokens of a key that was nobody's
            if len(self._buckets) < self._max:
                self._settled(key, self._buckets.get(key), now_s)
        return less

    def claim(self, now_s: float) -> Claim:
        """Return the question for the next lease, with what was asked of keys since the last one."""
        if now_s >= self._until_s:
            self._lapse()
        lease = self._lease
        over = lease is not None and now_s >= lease.asked_s + lease.ttl_s
        since_s = max(1e-3, now_s - self._claimed_s)
        self._claimed_s = now_s
        return Claim(
            asked_s=now_s,
            limits=self._digest,
            grantor="" if lease is None else lease.grantor,
            lease=0 if lease is None else lease.number,
            share=0 if lease is None or over else lease.share,
            safe=0 if lease is None else lease.safe,
            keys=() if lease is None or over else lease.keys,
            uses=self._uses(since_s),
            spendings=self._purses.spendings(now_s),
        )

    def __len__(self) -> int:
        return len(self._buckets)

    def _lapse(self) -> None:
        """The shares are over: go on with the safe one, and at last with none."""
        lease = self._lease
        assert lease is not None, "only a lease has an end"
        if self._until_s < lease.asked_s + lease.grace_s:
            keys = {key: share for key, share in self._keys.items() if share < lease.safe}
            self._purses.help(self._limits, self._own, self._until_s)
            self._turn_to(lease.safe, keys, lease.asked_s + lease.grace_s)
        else:
            self._turn_to(0, {}, inf)

    def _turn_to(self, share: int, keys: dict[Key, int], until_s: float) -> None:
        self._share, self._keys, self._until_s = share, keys, until_s
        self._turn += 1

    def _open(self, account: Account, now_s: float) -> None:
        """Find the buckets of an account for the shares of now."""
        self._settle_all(account, now_s)
        if account.turn != self._turn:  # room was made meanwhile, perhaps by forgetting one of them
            self._settle_all(account, now_s)

    def _settle_all(self, account: Account, now_s: float) -> None:
        account.turn = self._turn
        taken = [(key, self._settled(key, self._buckets.get(key), now_s)) for key in account.takes]
        owed = [(kind, key, self._settled(key, self._buckets.get(key), now_s)) for kind, key in account.dues]
        account.keys = tuple(key for key, bucket in taken if bucket is not None)
        account.buckets = tuple(bucket for _, bucket in taken if bucket is not None)
        account.owed = tuple((kind, key, bucket) for kind, key, bucket in owed if bucket is not None)

    def _check_owed(self, account: Account, now_s: float) -> None:
        for _, key, bucket in account.owed:
            bucket.fill(now_s)
            if bucket.tokens <= 0:
                for given in account.buckets:
                    given.tokens += 1.0
                raise self._refusal(key, min(1.0, self._limits[key[0]].burst), bucket)

    def _undone(self, account: Account, short: Bucket) -> TautError:
        """Give back what levels up to `short` gave, and return why that one refuses."""
        for key, bucket in zip(account.keys, account.buckets, strict=True):
            bucket.tokens += 1.0
            if bucket is short:
                return self._refusal(key, 1.0, bucket)
        raise AssertionError("a level that refuses is one of the account's")

    def _part(self, key: Key, limit: Limit) -> tuple[float, float]:
        return limit.part(self._keys.get(key, self._share))

    def _settle_fresh(self, now_s: float) -> None:
        """Bring what unseen keys have up to now, so that a bucket which opens later has no more than if it had been here."""
        for name, limit in self._limits.items():
            if limit.window_s:
                continue
            rate, burst = limit.part(self._share)
            fresh = self._fresh.get(name)
            if fresh is None:
                self._fresh[name] = Bucket(burst, now_s, rate, burst, self._turn)
            else:
                fresh.turn_to(rate, burst, self._turn, now_s)

    def _settled(self, key: Key, bucket: Bucket | None, now_s: float) -> Bucket | None:
        """Return a key's bucket for the shares of now, opened where there is none; None where nothing limits it."""
        limit = self._limits.get(key[0])
        if limit is None:
            return None
        if limit.window_s:
            return self._purses.open(key, limit, self._own, now_s, self._turn)
        rate, burst = self._part(key, limit)
        if bucket is not None:
            bucket.turn_to(rate, burst, self._turn, now_s)
            return bucket
        if len(self._buckets) >= self._max:
            self._sweep(now_s)
        if len(self._buckets) >= self._max:
            raise Exhausted("too many callers at once: try again shortly", retry_after_s=_SWEEP_EVERY_S)
        fresh = self._fresh.get(key[0])
        if fresh is None or fresh.turn != self._turn:
            self._settle_fresh(now_s)
            fresh = self._fresh[key[0]]
        fresh.fill(now_s)
        opened = self._buckets[key] = Bucket(min(fresh.tokens, burst), now_s, rate, burst, self._turn)
        return opened

    def _refusal(self, key: Key, n: float, bucket: Bucket) -> Exhausted | Unavailable | InvalidInput:
        limit = self._limits[key[0]]
        if not 0 < n <= limit.burst:
            return InvalidInput(
                f"a request for {n} units can never pass a burst of {limit.burst:g}: send less at once"
            )
        if isinstance(bucket, Purse):
            bucket.pressed = True
            return spent(key[0], limit, bucket.tokens, max(1.0, bucket.again_s - bucket.then_s))
        if len(self._pressed) < _MAX_PRESSED:
            self._pressed[key] = None
        if bucket.rate <= 0:
            return Unavailable(
                "this gateway holds no lease on quotas, and lets nothing pass before it does: try again shortly"
            )
        return spent(key[0], limit, bucket.tokens, (n - bucket.tokens) / bucket.rate)

    def _uses(self, since_s: float) -> tuple[Use, ...]:
        """Return what was asked of keys that are short or have shares of their own, and of the busiest others."""
        named = self._pressed.keys() | self._keys.keys()
        uses = []
        for key, bucket in islice(self._buckets.items(), _SCANNED):
            if bucket.asked or key in named:
                uses.append(self._use(key, bucket, since_s))
        seen = {use.key for use in uses}
        uses += [self._use(key, self._buckets[key], since_s) for key in named - seen if key in self._buckets]
        uses.sort(key=lambda use: (use.key not in named, -use.asked, use.key))
        self._pressed.clear()
        return tuple(uses[: max(_TOLD, len(named))])

    def _use(self, key: Key, bucket: Bucket, since_s: float) -> Use:
        asked = bucket.asked / since_s / self._limits[key[0]].rate_per_s
        bucket.asked = 0.0
        return Use(
            name=key[0],
            who=key[1],
            asked=min(1000 * WHOLE, round(asked * WHOLE)),
            share=self._keys.get(key, self._share),
            pressed=key in self._pressed,
        )

    def _sweep(self, now_s: float) -> None:
        """Forget buckets that are full again; at most once a second, since it looks at all of them."""
        if now_s - self._swept_s < _SWEEP_EVERY_S:
            return
        self._swept_s = now_s
        for key, bucket in list(self._buckets.items()):
            bucket.turn_to(*self._part(key, self._limits[key[0]]), self._turn, now_s)
            if bucket.tokens >= bucket.burst and key not in self._keys:
                del self._buckets[key]
        self._turn += 1  # accounts look for their buckets anew
