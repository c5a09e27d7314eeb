"""The key between the root and the persons: wraps theirs here, is itself wrapped by whoever holds the keys."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import AESGCM
from sqlalchemy import bindparam, delete, func, insert, select, update

from taut.core.errors import Corrupt
from taut.core.times import to_us
from taut.ports.keys import Keys, Purpose
from taut.ports.records import Tx
from taut.ports.world import Clock, Random
from taut.trust.envelope.tables import data_keys, subject_keys

KEY_BYTES: Final = 32
_NONCE_BYTES: Final = 12
_KNOWN_MAX: Final = 64
_PREFIX: Final = "tenant/"


class TenantKeys:
    """Versions of the tenant's key. One wrap by an HSM or a cloud costs milliseconds: a million persons, none.

    Opened versions are kept in memory: they open nothing without a person's row, and that is what is forgotten.
    """

    def __init__(self, keys: Keys, random: Random, clock: Clock) -> None:
        self._keys = keys
        self._random = random
        self._clock = clock
        self._known: dict[bytes, AESGCM] = {}

    def current(self, tx: Tx, *, create: bool = False) -> int:
        """Return the version that wraps now; 0 where there is none yet, or the first one, made, when `create`."""
        names = tx.execute(select(data_keys.c.name).where(data_keys.c.name.startswith(_PREFIX))).scalars()
        newest = max((int(name.removeprefix(_PREFIX)) for name in names), default=0)
        return self._add(tx, 1) if create and not newest else newest

    def rotate(self, tx: Tx) -> int:
        """Make a new version; persons' keys stay under the old one until `rewrap` has come to them."""
        return self._add(tx, self.current(tx) + 1)

    def _add(self, tx: Tx, version: int) -> int:
        key = self._random.bytes(KEY_BYTES)
        name = f"{_PREFIX}{version}"
        wrapped = self._keys.wrap(key, purpose="subject", context=named_context(name))
        row = {"name": name, "purpose": "subject", "wrapped": wrapped}
        tx.execute(insert(data_keys), [{**row, "created_us": to_us(self._clock.now())}])
        return version

    def open(self, tx: Tx) -> dict[int, AESGCM]:
        """Return the versions that there are in this transaction, ready for use."""
        rows = tx.execute(
            select(data_keys.c.name, data_keys.c.wrapped).where(data_keys.c.name.startswith(_PREFIX))
        ).all()
        return {int(name.removeprefix(_PREFIX)): self._cipher(name, wrapped) for name, wrapped in rows}

    def _cipher(self, name: str, wrapped: bytes) -> AESGCM:
        # known by what wraps it, not by its number: a transaction that failed may have made another of that number
        found = self._known.get(wrapped)
        if found is None:
            if len(self._known) >= _KNOWN_MAX:
                self._known.clear()
            found = self._known[wrapped] = AESGCM(unwrap_named(self._keys, name, "subject", wrapped))
        return found

    def wrap(self, cipher: AESGCM, key: bytes, *, under: int, pseudonym: str) -> bytes:
        nonce = self._random.bytes(_NONCE_BYTES)
        return nonce + cipher.encrypt(nonce, key, _aad(under, pseudonym))

    def behind(self, tx: Tx) -> int:
        """Return how many persons' keys are under an older version."""
        older = select(func.count()).where(subject_keys.c.under < self.current(tx))
        return int(tx.execute(older).scalar_one())

    def rewrap(self, tx: Tx, *, limit: int) -> int:
        """Bring up to `limit` persons' keys under the current version and return how many there were.

        After the last one the older versions are destroyed: nothing is under them any more.
        """
        current = self.current(tx)
        table = subject_keys.c
        rows = tx.execute(
            select(table.pseudonym, table.under, table.wrapped).where(table.under < current).limit(limit)
        ).all()
        ciphers = self.open(tx)
        changed = []
        for pseudonym, under, body in rows:
            key = unwrap_subject(ciphers, body, under=under, pseudonym=pseudonym)
            new = self.wrap(ciphers[current], key, under=current, pseudonym=pseudonym)
            changed.append({"who": pseudonym, "wrapped": new, "under": current})
        if changed:
            tx.execute(update(subject_keys).where(table.pseudonym == bindparam("who")), changed)
        if len(rows) < limit and current > 1:
            self._destroy(tx, [f"{_PREFIX}{version}" for version in range(1, current)])
        return len(rows)

    def _destroy(self, tx: Tx, names: list[str]) -> None:
        old = data_keys.c.name.in_(names)
        # Overwritten first: a row that is only deleted stays readable in the free space of its page.
        tx.execute(update(data_keys).where(old).values(wrapped=bytes(128)))
        tx.execute(delete(data_keys).where(old))

    def names(self, tx: Tx, *, purpose: str) -> list[str]:
        """Return the names of the keys that the holder's key of `purpose` wraps."""
        return list(tx.execute(select(data_keys.c.name).where(data_keys.c.purpose == purpose)).scalars())

    def rewrap_named(self, tx: Tx, name: str) -> None:
        """Have the holder wrap one key anew, under its current version; nothing when it is gone meanwhile."""
        table = data_keys.c
        row = tx.execute(select(table.purpose, table.wrapped).where(table.name == name)).first()
        if row is not None:
            key = unwrap_named(self._keys, name, row.purpose, row.wrapped)
            new = self._keys.wrap(key, purpose=row.purpose, context=named_context(name))
            tx.execute(update(data_keys).where(table.name == name).values(wrapped=new))


def unwrap_named(keys: Keys, name: str, purpose: Purpose, wrapped: bytes) -> bytes:
    return keys.unwrap(wrapped, purpose=purpose, context=named_context(name))


def named_context(name: str) -> bytes:
    return b"sealing/" + name.encode()


def unwrap_subject(ciphers: Mapping[int, AESGCM], body: bytes, *, under: int, pseudonym: str) -> bytes:
    """Return a person's key. Raises Corrupt when its row was changed or moved, or its version is missing."""
    cipher = ciphers.get(under)
    if cipher is None:
        raise Corrupt(f"version {under} of the tenant's key is missing: restore the table of keys")
    try:
        return cipher.decrypt(body[:_NONCE_BYTES], body[_NONCE_BYTES:], _aad(under, pseudonym))
    except (InvalidTag, ValueError) as error:
        raise Corrupt("a person's key does not open: its row was changed or moved; restore it") from error


def _aad(under: int, pseudonym: str) -> bytes:
    return b"taut/tenant/%d/" % under + pseudonym.encode()
