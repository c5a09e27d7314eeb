"""What playbooks did in incidents, on record once."""

from __future__ import annotations

from datetime import datetime
from typing import Final

from sqlalchemy import func, insert, select

from taut.core.times import to_us
from taut.ports.records import Tx
from taut.ports.world import Clock
from taut.trust.incidents.tables import acts
from taut.trust.incidents.values import Act
from taut.trust.ledger import Entry, Ledger

_MAX_SAID: Final = 4000


class Acts:
    """The register of what playbooks did. Each act is a row, by which budgets are counted, and a leaf about its incident.

    What it said lies in the leaf's details, which can be erased: it repeats the title that a person wrote.
    """

    def __init__(self, ledger: Ledger, clock: Clock) -> None:
        self._ledger: Final = ledger
        self._clock: Final = clock

    def note(self, tx: Tx, act: Act) -> None:
        """Put an act on record, if and only if `tx` commits."""
        row = {
            name: getattr(act, name) for name in ("story", "number", "incident", "playbook", "act", "outcome")
        }
        tx.execute(insert(acts).values({**row, "at_us": to_us(self._clock.now())}))
        told, said = {"playbook": act.playbook, "act": act.act}, {"said": act.said[:_MAX_SAID]}
        self._ledger.append(
            tx, Entry(f"playbook.{act.outcome}", f"incident:{act.incident}", act.by, told, said)
        )

    def count(self, tx: Tx, playbook: str, act: str, *, since: datetime) -> int:
        """Return how often a playbook did something since then, in whatever incident."""
        query = select(func.count()).where(acts.c.playbook == playbook, acts.c.act == act)
        query = query.where(acts.c.outcome == "done", acts.c.at_us >= to_us(since))
        return tx.execute(query).scalar_one()
