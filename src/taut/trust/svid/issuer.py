"""Control's authority: roots whose keys the holder of keys has, an intermediate in memory, and the bundle of who is trusted."""

from __future__ import annotations

import threading
from datetime import datetime, timedelta
from typing import Final

from cryptography import x509
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import Encoding
from sqlalchemy import insert, select, update

from taut.core.errors import Conflict
from taut.core.times import from_us, to_us
from taut.ports.keys import Keys, PublicKey
from taut.ports.records import Records, Tx, transact
from taut.ports.world import Clock
from taut.trust.svid.bundle import Bundle
from taut.trust.svid.ids import SpiffeId
from taut.trust.svid.mint import LIFE, Intermediate, Sign, make_intermediate, make_root, mint
from taut.trust.svid.tables import authorities

KEPT: Final = 2 * LIFE
"""For how long a root that signs no more is trusted: every leaf below it has ended by then."""


class Issuer:
    """Issues leaves. Safe for threads; one process of an installation issues.

    domain: the trust domain. Guarantees: a root's key is used through the Keys port alone, once for its certificate and once for
    each intermediate; after a rotation of the purpose `svid` the next leaf is below the new root, and the former one is trusted
    for as long as a leaf below it may live. An intermediate is replaced at half of its life, and with each start.
    """

    def __init__(self, records: Records, keys: Keys, clock: Clock, *, domain: str) -> None:
        self.domain: Final = domain
        self._records: Final = records
        self._keys: Final = keys
        self._clock: Final = clock
        self._lock: Final = threading.Lock()
        self._above: tuple[str, Intermediate] | None = None

    def bundle(self) -> Bundle:
        """Return who is trusted now."""
        self._authority()
        with self._records.read() as tx:
            rows = tx.execute(select(authorities).order_by(authorities.c.made_at_us.desc())).all()
        now = self._clock.now()
        live = [row for row in rows if row.retired_at_us is None or now < from_us(row.retired_at_us) + KEPT]
        roots = (x509.load_pem_x509_certificate(row.cert.encode()) for row in live)
        # a root that comes and one that goes are both a change
        return Bundle(
            roots=tuple(root.public_bytes(Encoding.DER) for root in roots), sequence=2 * len(rows) - len(live)
        )

    def issue(self, who: SpiffeId, key: ec.EllipticCurvePublicKey, *, at: datetime) -> tuple[bytes, bytes]:
        """Return a leaf and the certificate above it, DER. at: when it counts as issued, in whole seconds.

        Whoever shows such a leaf gives both away, since only the roots are known everywhere.
        """
        above = self._authority()
        leaf = mint(above, who, key, issued_at=at)
        middle = x509.load_pem_x509_certificate(above.cert)
        return leaf.public_bytes(Encoding.DER), middle.public_bytes(Encoding.DER)

    def _authority(self) -> Intermediate:
        """Return what signs leaves now, below the root of the current key."""
        with self._lock:
            current = self._keys.public_keys(purpose="svid")[0]
            now = self._clock.now()
            if self._above is None or self._above[0] != current.key_id or self._above[1].due(now):
                root = transact(self._records, lambda tx: self._root(tx, current, now))
                made = make_intermediate(self.domain, root, self._sign(current), now=now)
                self._above = (current.key_id, made)
            return self._above[1]

    def _root(self, tx: Tx, current: PublicKey, now: datetime) -> bytes:
        """Return the certificate of the current key, made where there is none yet; every other root signs no more."""
        row = tx.execute(select(authorities).where(authorities.c.key_id == current.key_id)).one_or_none()
        if row is not None:
            return bytes(row.cert.encode())
        made = make_root(self.domain, current.pem, self._sign(current), now=now)
        tx.execute(
            update(authorities).where(authorities.c.retired_at_us.is_(None)).values(retired_at_us=to_us(now))
        )
        tx.execute(
            insert(authorities).values(key_id=current.key_id, cert=made.decode(), made_at_us=to_us(now))
        )
        return made

    def _sign(self, wanted: PublicKey) -> Sign:
        def sign(data: bytes) -> bytes:
            used, signature = self._keys.sign(data, purpose="svid")
            if used != wanted.key_id:
                raise Conflict("the key of identities was rotated meanwhile: ask again")
            return signature

        return sign


def whole_second(moment: datetime) -> datetime:
    """Return the first whole second that is not before a moment: certificates know no others."""
    cut = moment.replace(microsecond=0)
    return cut if cut == moment else cut + timedelta(seconds=1)
