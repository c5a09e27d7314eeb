"""What a gateway claims, once a second, and what it is lent in answer; shares are millionths of every limit."""

from __future__ import annotations

import msgspec

from taut.core.errors import Corrupt

Key = tuple[str, str]
"""The limit's name, and who spends it."""


class Use(msgspec.Struct, frozen=True, array_like=True):
    """What was asked of one key here since the last claim.

    asked: a second, in millionths of the limit's rate. share: that this gateway may use of it. pressed: whether any was refused.
    """

    name: str
    who: str
    asked: int
    share: int
    pressed: bool

    @property
    def key(self) -> Key:
        return self.name, self.who


class KeyShare(msgspec.Struct, frozen=True, array_like=True):
    """What a gateway may use of one key, where that is another share than of all others."""

    name: str
    who: str
    share: int

    @property
    def key(self) -> Key:
        return self.name, self.who


class Spending(msgspec.Struct, frozen=True, array_like=True):
    """What one gateway spent of a budget since it began, and what it may spend at most; in the limit's own unit.

    pressed: whether any request was refused since the last claim for want of it.
    """

    name: str
    who: str
    granted: float
    spent: float
    pressed: bool

    @property
    def key(self) -> Key:
        return self.name, self.who


class Credit(msgspec.Struct, frozen=True, array_like=True):
    """What one gateway may spend of a budget in all, since it began; less than before where it has not spent it yet.

    wait_s: how long from the asking until there is more; 0 where that is not known, or there is some.
    """

    name: str
    who: str
    up_to: float
    wait_s: float

    @property
    def key(self) -> Key:
        return self.name, self.who


class Claim(msgspec.Struct, frozen=True, kw_only=True):
    """A gateway's question for its next lease.

    asked_s: by its monotonic clock. limits: digest of those that it enforces. grantor, lease: which lease is in use, 0 none; none before it will be used
    again. share, safe, keys: what that allows. uses: of keys that are asked for most, that are short, or that it has shares of. spendings: of budgets, what control has not confirmed.
    """

    asked_s: float
    limits: str
    grantor: str = ""
    lease: int = 0
    share: int = 0
    safe: int = 0
    keys: tuple[KeyShare, ...] = ()
    uses: tuple[Use, ...] = ()
    spendings: tuple[Spending, ...] = ()


class Lease(msgspec.Struct, frozen=True, kw_only=True):
    """What one gateway may let pass, from the moment at which it asked and by its own clock (docs/decisions/0009).

    number: grows with each lease of this grantor. ttl_s: how long the shares hold. safe: what it may go on using when they are
    over and nobody answers, for grace_s. idle_s: how long what is new in it lay unused, at least, so that a bucket which opens
    may have filled meanwhile. keys: where the share is another. credits: of budgets, what changed.
    """

    grantor: str
    number: int
    asked_s: float
    ttl_s: float
    grace_s: float
    share: int
    safe: int
    idle_s: float = 0.0
    keys: tuple[KeyShare, ...] = ()
    credits: tuple[Credit, ...] = ()


def decode_claim(data: bytes | msgspec.Raw) -> Claim | None:
    """Return a claim, None where there is none. Raises Corrupt for what is neither."""
    try:
        return msgspec.json.decode(data, type=Claim | None)
    except (msgspec.MsgspecError, UnicodeDecodeError) as error:
        raise Corrupt(f"this is no claim on quotas: {error}") from error


def decode_lease(data: bytes) -> Lease:
    """Raises Corrupt for what is no lease."""
    try:
        return msgspec.json.decode(data, type=Lease)
    except (msgspec.MsgspecError, UnicodeDecodeError) as error:
        raise Corrupt(f"this is no lease on quotas: {error}") from error
