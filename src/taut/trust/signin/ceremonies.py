"""What was begun and waits for its end: each is found by a secret of whoever began it, once, for ten minutes."""

from __future__ import annotations

import hashlib
from base64 import urlsafe_b64encode
from datetime import timedelta
from typing import Any, Final

import msgspec
from sqlalchemy import delete, func, insert, select

from taut.core.canonical import canonical_json
from taut.core.errors import Exhausted, Unauthenticated
from taut.core.times import to_us
from taut.ports.records import Records, Tx, transact
from taut.ports.world import Clock, Random
from taut.trust.signin.tables import ceremonies
from taut.trust.signin.throttle import address_key

LIFE: Final = timedelta(minutes=10)
EACH_MAX: Final = 100
ALL_MAX: Final = 10_000


def secret_text(random: Random) -> str:
    """256 random bits as text for URLs."""
    return urlsafe_b64encode(random.bytes(32)).rstrip(b"=").decode("ascii")


class Ceremonies:
    """Challenges and states between two requests of one sign-in. Bounded in number, for who begins is not known yet."""

    def __init__(self, records: Records, clock: Clock, random: Random) -> None:
        self._records: Final = records
        self._clock: Final = clock
        self._random: Final = random

    def begin(self, kind: str, body: dict[str, Any], *, address: str = "") -> str:
        """Keep `body` and return the handle by which it is found again.

        Raises Exhausted while 100 of one address wait. Where 10,000 wait in all, the oldest goes: refusing would let who fills
        the table once keep everybody out.
        """
        handle, now, where = secret_text(self._random), self._clock.now(), address_key(address)

        def do(tx: Tx) -> None:
            tx.execute(delete(ceremonies).where(ceremonies.c.expires_at_us <= to_us(now)))
            waiting = select(func.count()).select_from(ceremonies)
            if tx.execute(waiting.where(ceremonies.c.address == where)).scalar_one() >= EACH_MAX:
                raise Exhausted(
                    "too many sign-ins were begun from here and not ended: try again in a while",
                    retry_after_s=60.0,
                )
            if tx.execute(waiting).scalar_one() >= ALL_MAX:
                oldest = select(func.min(ceremonies.c.expires_at_us)).scalar_subquery()
                tx.execute(delete(ceremonies).where(ceremonies.c.expires_at_us == oldest))
            tx.execute(
                insert(ceremonies).values(
                    handle_sha256=_digest(handle), kind=kind, body=canonical_json(body).decode(), address=where,
                    expires_at_us=to_us(now + LIFE),
                )
            )  # fmt: skip

        transact(self._records, do, attempts=32)
        return handle

    def take(self, kind: str, handle: str) -> dict[str, Any]:
        """Return what was begun, which is over with this. Raises Unauthenticated for what is not there, or not any more."""

        def do(tx: Tx) -> str | None:
            found = (ceremonies.c.handle_sha256 == _digest(handle)) & (ceremonies.c.kind == kind)
            row = tx.execute(select(ceremonies).where(found)).one_or_none()
            tx.execute(delete(ceremonies).where(found))
            now_us = to_us(self._clock.now())
            # from the future means that the clock was set back: it might be of any age
            alive = row is not None and now_us < row.expires_at_us <= now_us + LIFE // timedelta(
                microseconds=1
            )
            return str(row.body) if row is not None and alive else None

        body = transact(self._records, do)
        if body is None:
            raise Unauthenticated("this sign-in was not begun here, is over, or waited too long: begin again")
        decoded: dict[str, Any] = msgspec.json.decode(body)
        return decoded


def _digest(handle: str) -> str:
    return hashlib.sha256(handle.encode("utf-8", "surrogatepass")).hexdigest()
