"""Outcomes that people told of: the last one of an answer counts, those before it are its history."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, Final

import msgspec
from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import AESGCM
from sqlalchemy import Row, func, insert, select

from taut.core.errors import Corrupt
from taut.core.evidence import Scalar
from taut.lifecycle.monitoring.tables import outcomes as t
from taut.ports.records import Tx
from taut.ports.world import Random

_NONCE_BYTES: Final = 12


class Outcome(msgspec.Struct, frozen=True, kw_only=True):
    """What became true of row `row` of an answer. wrong: whether the answer was. cell: of its score. truth: 0 or 1 where there are two classes,
    else -1. principal, at_us: who told of it, and when a gateway took it."""

    request_id: str
    row: int
    endpoint: str
    version: str
    label: Scalar
    wrong: bool
    cell: int
    truth: int
    principal: str
    at_us: int


class _Sealed(msgspec.Struct, frozen=True, array_like=True):
    label: Scalar
    wrong: bool
    cell: int
    truth: int


class Outcomes:
    """The table of outcomes. keys: finds the installation's keys for them, 32 bytes each, the newest first.

    A label may be personal: it lies sealed, bound to its answer. Call `ready` outside any transaction before the others.
    """

    def __init__(self, keys: Callable[[], Sequence[bytes]], random: Random) -> None:
        self._find: Final = keys
        self._keys: Sequence[bytes] = ()
        self._random: Final = random

    def ready(self) -> None:
        """Find the keys, which may have been renewed."""
        self._keys = self._find()

    def history(self, tx: Tx, request_id: str, row: int) -> tuple[Outcome, ...]:
        """Return what was told of one answer, the oldest first. Raises Corrupt for what no key of ours opens."""
        query = select(t).where(t.c.request_id == request_id, t.c.row == row).order_by(t.c.number)
        return tuple(self._opened(found) for found in tx.execute(query))

    def since(self, tx: Tx, endpoints: Sequence[str], at_us: int, *, limit: int) -> tuple[Outcome, ...]:
        """Return what was told about endpoints since then, the newest `limit`, corrections each as one more. Raises Corrupt as `history`."""
        query = select(t).where(t.c.endpoint.in_(tuple(endpoints)), t.c.at_us > at_us)
        rows = tx.execute(query.order_by(t.c.at_us.desc()).limit(limit)).all()
        return tuple(self._opened(row) for row in reversed(rows))

    @staticmethod
    def count(tx: Tx, endpoints: Sequence[str], at_us: int) -> int:
        """Return how many outcomes were told about endpoints since then, corrections each as one more; cheap."""
        query = select(func.count()).where(t.c.endpoint.in_(tuple(endpoints)), t.c.at_us > at_us)
        return int(tx.execute(query).scalar_one())

    def add(self, tx: Tx, outcome: Outcome, *, number: int) -> None:
        """Keep an outcome as the `number`th of its answer, from 1."""
        plain = msgspec.msgpack.encode(_Sealed(outcome.label, outcome.wrong, outcome.cell, outcome.truth))
        nonce = self._random.bytes(_NONCE_BYTES)
        bound = f"{outcome.request_id}/{outcome.row}/{number}".encode()
        tx.execute(
            insert(t).values(
                request_id=outcome.request_id, row=outcome.row, number=number, endpoint=outcome.endpoint,
                version=outcome.version, principal=outcome.principal, at_us=outcome.at_us,
                sealed=nonce + AESGCM(self._keys[0]).encrypt(nonce, plain, bound),
            )
        )  # fmt: skip

    def _opened(self, row: Row[Any]) -> Outcome:
        nonce, body = row.sealed[:_NONCE_BYTES], row.sealed[_NONCE_BYTES:]
        bound = f"{row.request_id}/{row.row}/{row.number}".encode()
        for key in self._keys:
            try:
                said = msgspec.msgpack.decode(AESGCM(key).decrypt(nonce, body, bound), type=_Sealed)
            except InvalidTag:
                continue
            return Outcome(
                request_id=row.request_id, row=row.row, endpoint=row.endpoint, version=row.version, label=said.label,
                wrong=said.wrong, cell=said.cell, truth=said.truth, principal=row.principal, at_us=row.at_us,
            )  # fmt: skip
        raise Corrupt(
            f"the outcome of {row.request_id} is sealed under no key of this installation: restore its keys"
        )
