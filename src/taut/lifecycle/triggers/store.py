"""The rows of triggers."""

from __future__ import annotations

from datetime import datetime
from typing import Any, Final

import msgspec
from sqlalchemy import Row, func, insert, select, update

from taut.core.times import from_us
from taut.lifecycle.triggers import tables as t
from taut.lifecycle.triggers.decide import State
from taut.ports.records import Tx

_STATE: Final = msgspec.json.Decoder(State)


class Firing(msgspec.Struct, frozen=True, kw_only=True):
    """A run that began because of triggers, or because a person said so here. outcome: None while it is under way."""

    model: str
    number: int
    story: str
    reasons: tuple[str, ...]
    actor: str
    fired_at: datetime
    ended_at: datetime | None = None
    outcome: dict[str, Any] | None = None


def remembered(tx: Tx, model: str) -> tuple[State, int] | None:
    """Return what is remembered of a model and its turn; None where it was never looked at."""
    row = tx.execute(select(t.models).where(t.models.c.model == model)).one_or_none()
    return None if row is None else (_STATE.decode(row.state), row.turn)


def remember(tx: Tx, model: str, state: State, *, turn: int) -> bool:
    """Write the state of a turn that was read before; return whether it was still that turn. A turn of 0 begins."""
    body = msgspec.json.encode(state).decode()
    if turn == 0:
        tx.execute(insert(t.models).values(model=model, state=body, turn=1))
        return True
    query = update(t.models).where(t.models.c.model == model, t.models.c.turn == turn)
    return bool(tx.execute(query.values(state=body, turn=turn + 1)).rowcount)


def begin(tx: Tx, model: str, number: int, *, story: str, reasons: tuple[str, ...], actor: str, at_us: int) -> None:  # fmt: skip
    tx.execute(
        insert(t.firings).values(
            model=model, number=number, story=story, reasons=msgspec.json.encode(reasons).decode(), actor=actor,
            fired_us=at_us, ended_us=None, outcome="",
        )
    )  # fmt: skip


def end(tx: Tx, model: str, number: int, *, outcome: dict[str, Any], at_us: int) -> None:
    query = update(t.firings).where(t.firings.c.model == model, t.firings.c.number == number)
    tx.execute(query.values(outcome=msgspec.json.encode(outcome).decode(), ended_us=at_us))


def listed(tx: Tx, model: str, *, limit: int) -> tuple[Firing, ...]:
    """Return firings of a model, the newest first."""
    query = select(t.firings).where(t.firings.c.model == model)
    return tuple(_firing(row) for row in tx.execute(query.order_by(t.firings.c.number.desc()).limit(limit)))


def count_since(tx: Tx, model: str, since_us: int) -> int:
    """Return how many runs triggers began since then; what a person fired does not count."""
    query = select(func.count()).select_from(t.firings)
    mine = (
        t.firings.c.model == model,
        t.firings.c.fired_us >= since_us,
        ~t.firings.c.reasons.startswith('["by hand'),
    )
    return int(tx.execute(query.where(*mine)).scalar_one())


def _firing(row: Row[Any]) -> Firing:
    return Firing(
        model=row.model, number=row.number, story=row.story, reasons=tuple(msgspec.json.decode(row.reasons)), actor=row.actor,
        fired_at=from_us(row.fired_us), ended_at=None if row.ended_us is None else from_us(row.ended_us),
        outcome=msgspec.json.decode(row.outcome) if row.outcome else None,
    )  # fmt: skip
