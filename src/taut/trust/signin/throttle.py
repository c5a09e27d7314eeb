"""How often somebody may try to sign in: doubling waits, per account and per address."""

from __future__ import annotations

import hashlib
import ipaddress
from typing import Final

from sqlalchemy import delete, insert, select, update

from taut.core.errors import Exhausted
from taut.ports.records import Tx
from taut.trust.signin.tables import throttle

ACCOUNT_FREE: Final = 5
ADDRESS_FREE: Final = 20
WAIT_MAX_S: Final = 900
_SECOND_US: Final = 1_000_000
_FORGET_US: Final = 3600 * _SECOND_US
_IPV6_NETWORK: Final = 64


def wait_s(failures: int, *, free: int) -> int:
    """Return for how long the next attempt waits after so many in a row: none for `free` of them, then doubling to 15 minutes."""
    return 0 if failures < free else min(WAIT_MAX_S, 2 ** min(failures - free, 10))


def account_key(name: str) -> str:
    """Names that nobody has are counted as those that exist, or the waits would tell them apart."""
    return _digest(f"account:{name}")


def address_key(address: str) -> str:
    """One machine has a whole /64 of IPv6 addresses to try from, so that is one address here."""
    try:
        parsed = ipaddress.ip_address(address)
    except ValueError:
        return _digest(f"address:{address}")
    if parsed.version == 6:
        return _digest(f"address:{ipaddress.ip_network((parsed, _IPV6_NETWORK), strict=False)}")
    return _digest(f"address:{parsed}")


def take(tx: Tx, name: str, address: str, *, now_us: int) -> bool:
    """Count an attempt before it is judged, so that many at once are not judged before one is counted.

    address: empty on the machine itself, where only the owner of the files gets so far.
    Returns whether the account's next attempt has to wait from now on. Raises Exhausted, without counting, while one has to.
    """
    tx.execute(delete(throttle).where(throttle.c.seen_us < now_us - _FORGET_US))
    wanted = [(account_key(name), ACCOUNT_FREE)]
    if address:
        wanted.append((address_key(address), ADDRESS_FREE))
    found = {key: _row(tx, key) for key, _ in wanted}
    wait_us = max(until_us - now_us for _, until_us in found.values())
    if wait_us > 0:
        # never longer than the longest wait, also after the clock was set back
        raise Exhausted(
            "there were too many attempts to sign in: wait, then try again",
            retry_after_s=min(WAIT_MAX_S, wait_us / _SECOND_US),
        )
    waits = {
        key: _count(tx, key, failures=found[key][0] + 1, free=free, now_us=now_us) for key, free in wanted
    }
    return waits[account_key(name)] > 0


def forgive(tx: Tx, name: str, address: str) -> None:
    """Take an attempt back that was right. The address keeps what others of its attempts came to."""
    tx.execute(delete(throttle).where(throttle.c.key == account_key(name)))
    if address:
        found = throttle.c.key == address_key(address)
        tx.execute(update(throttle).where(found).values(failures=throttle.c.failures - 1, until_us=0))


def _row(tx: Tx, key: str) -> tuple[int, int]:
    row = tx.execute(select(throttle).where(throttle.c.key == key)).one_or_none()
    return (0, 0) if row is None else (row.failures, row.until_us)


def _count(tx: Tx, key: str, *, failures: int, free: int, now_us: int) -> int:
    wait = wait_s(failures, free=free)
    values = {"failures": failures, "until_us": now_us + wait * _SECOND_US, "seen_us": now_us}
    if not tx.execute(update(throttle).where(throttle.c.key == key).values(**values)).rowcount:
        tx.execute(insert(throttle).values(key=key, **values))
    return wait


def _digest(text: str) -> str:
    return hashlib.sha256(text.encode("utf-8", "surrogatepass")).hexdigest()
