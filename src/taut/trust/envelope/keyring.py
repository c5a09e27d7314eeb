"""Keys of persons and of datasets: made on first use, wrapped, found by pseudonym, forgotten."""

from __future__ import annotations

import base64
import hashlib
import hmac
from collections.abc import Iterable, Iterator, Sequence
from typing import Final, NamedTuple

from sqlalchemy import delete, insert, select, update

from taut.core.times import to_us
from taut.ports.keys import Keys, Purpose
from taut.ports.records import Tx
from taut.ports.world import Clock, Random
from taut.trust.envelope.tables import data_keys, subject_keys
from taut.trust.envelope.tenant import TenantKeys, named_context, unwrap_named, unwrap_subject

KEY_BYTES: Final = 32
KEY_ID_BYTES: Final = 6
_PSEUDONYM_BYTES: Final = 16
_PSEUDONYM_KEY: Final = "subject-pseudonyms"
_ROWS_AT_ONCE: Final = 2000


class SubjectKey(NamedTuple):
    """A person's key, and 6 bytes of its digest that tell it from one made after it was forgotten."""

    key: bytes
    id: bytes


class Keyring:
    """Reads and writes wrapped keys in the caller's transaction.

    No person's key is kept in memory between calls: one that another process forgot must be gone here too.
    """

    def __init__(self, keys: Keys, random: Random, clock: Clock) -> None:
        self._keys = keys
        self._random = random
        self._clock = clock
        self.tenant = TenantKeys(keys, random, clock)

    def pseudonyms(self, tx: Tx, subjects: Sequence[str], *, create: bool) -> dict[str, str]:
        """Return the pseudonym of each subject: HMAC-SHA256, 128 bits, the same for ever in this installation.

        create: make the key on first use; otherwise nobody has a pseudonym yet and the result is empty.
        """
        key = self.data_key(tx, _PSEUDONYM_KEY, size=KEY_BYTES, purpose="subject", create=create)
        if key is None:
            return {}
        return {subject: mac_text(key, subject.encode()) for subject in subjects}

    def subject_keys(self, tx: Tx, pseudonyms: Iterable[str]) -> dict[str, SubjectKey]:
        """Return the keys of those who have one."""
        found: dict[str, SubjectKey] = {}
        ciphers = self.tenant.open(tx)
        table = subject_keys.c
        for some in _batches(sorted(pseudonyms)):
            rows = tx.execute(
                select(table.pseudonym, table.under, table.wrapped).where(table.pseudonym.in_(some))
            ).all()
            for pseudonym, under, body in rows:
                key = unwrap_subject(ciphers, body, under=under, pseudonym=pseudonym)
                found[pseudonym] = SubjectKey(key, _key_id(key))
        return found

    def make_subject_keys(self, tx: Tx, pseudonyms: Iterable[str]) -> dict[str, SubjectKey]:
        now_us = to_us(self._clock.now())
        under = self.tenant.current(tx, create=True)
        cipher = self.tenant.open(tx)[under]
        made: dict[str, SubjectKey] = {}
        for some in _batches(list(pseudonyms)):
            rows = []
            for pseudonym in some:
                key = self._random.bytes(KEY_BYTES)
                body = self.tenant.wrap(cipher, key, under=under, pseudonym=pseudonym)
                rows.append({"pseudonym": pseudonym, "under": under, "wrapped": body, "created_us": now_us})
                made[pseudonym] = SubjectKey(key, _key_id(key))
            tx.execute(insert(subject_keys), rows)
        return made

    def forget(self, tx: Tx, pseudonym: str) -> bool:
        """Destroy a person's key; say whether there was one."""
        mine = subject_keys.c.pseudonym == pseudonym
        # Overwritten first: a row that is only deleted stays readable in the free space of its page.
        found = tx.execute(update(subject_keys).where(mine).values(wrapped=bytes(128), created_us=0)).rowcount
        tx.execute(delete(subject_keys).where(mine))
        return found > 0

    def data_key(self, tx: Tx, name: str, *, size: int, purpose: Purpose, create: bool) -> bytes | None:
        """Return the data key of that name, made on first use when `create`."""
        wrapped = tx.execute(select(data_keys.c.wrapped).where(data_keys.c.name == name)).scalar()
        if wrapped is not None:
            return unwrap_named(self._keys, name, purpose, wrapped)
        if not create:
            return None
        key = self._random.bytes(size)
        wrapped = self._keys.wrap(key, purpose=purpose, context=named_context(name))
        row = {"name": name, "purpose": purpose, "wrapped": wrapped, "created_us": to_us(self._clock.now())}
        tx.execute(insert(data_keys), [row])
        return key


def mac_text(key: bytes, message: bytes) -> str:
    """Return 128 bits of HMAC-SHA256 as 22 characters of URL-safe base64."""
    digest = hmac.digest(key, message, "sha256")[:_PSEUDONYM_BYTES]
    return base64.urlsafe_b64encode(digest)[:22].decode()


def _key_id(key: bytes) -> bytes:
    return hashlib.sha256(b"taut/seal/key-id" + key).digest()[:KEY_ID_BYTES]


def _batches(items: Sequence[str]) -> Iterator[Sequence[str]]:
    for start in range(0, len(items), _ROWS_AT_ONCE):
        yield items[start : start + _ROWS_AT_ONCE]
