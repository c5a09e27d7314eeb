"""The rooms that look for what should not happen, furnished."""

from __future__ import annotations

import threading
from collections.abc import Callable
from functools import cached_property
from typing import TYPE_CHECKING, Final, Protocol

from taut.bootstrap import people

if TYPE_CHECKING:
    from taut.lifecycle.monitoring.outcomes import Outcomes
    from taut.lifecycle.objectives import Standing
    from taut.serving.snapshot import Publisher
    from taut.trust.findings import Findings, Hear
    from taut.trust.notices import Denials
    from taut.trust.supply import Advisories
    from taut.workflows.abuse import Lookout
    from taut.workflows.monitor import Monitor
    from taut.workflows.objectives import Objectives
    from taut.workflows.rooms import Rooms


class House(people.House, Protocol):
    """What these rooms are made from."""

    @property
    def publisher(self) -> Publisher | None: ...


class Watches:
    """What looks on while others work, and where it keeps what it finds. Each room is made on first use.

    hearing: gets ready what follows from findings, ahead of any transaction, and returns it.
    """

    def __init__(self, house: House, *, hearing: Callable[[], Hear]) -> None:
        self._house: Final = house
        self._hearing: Final = hearing
        self._monitor: Monitor | None = None
        self._objectives: Objectives | None = None
        self._making: Final = threading.Lock()

    @cached_property
    def findings(self) -> Findings:
        from taut.trust.findings import Findings

        house = self._house
        return Findings(house.records, house.ledger, house.clock, house.ids, hear=self._hearing())

    @cached_property
    def denials(self) -> Denials:
        from taut.trust.notices import Denials

        house = self._house
        return Denials(house.records, house.ledger, house.clock)

    @cached_property
    def outcomes(self) -> Outcomes:
        """What people told of answers."""
        from taut.lifecycle.monitoring.outcomes import Outcomes

        house = self._house
        return Outcomes(lambda: house.data_keys.versions("outcomes"), house.random)

    def suspects(self) -> tuple[tuple[str, str], ...]:
        """Return (resource, principal) of each open finding of abuse, in order."""
        return self.findings.principals("abuse.")

    def lookout(self, rooms: Rooms) -> Lookout:
        """Return what reads the prediction log for abuse; it begins anew each time."""
        from taut.workflows.abuse import Lookout

        return Lookout(rooms, self.findings, group_of=lambda principal: made_by(rooms, principal))

    def monitor(self, rooms: Rooms) -> Monitor:
        """Return what watches the versions that answer; there is one, which goes on where the last process was."""
        if self._monitor is None:
            from taut.lifecycle.monitoring.store import Kept
            from taut.workflows.monitor import Monitor

            kept = Kept(self._house.records, self._house.clock)
            self._monitor = Monitor(rooms, self.findings, kept, self.outcomes)
        return self._monitor

    def objectives(self, rooms: Rooms) -> Objectives:
        """Return what counts the events of objectives; there is one, since two would count everything twice."""
        from taut.lifecycle.objectives import Kept
        from taut.workflows.objectives import Objectives

        with self._making:
            if self._objectives is None:
                kept = Kept(self._house.records, self._house.clock)
                self._objectives = Objectives(rooms, self.findings, kept)
            return self._objectives

    def standings(self, rooms: Rooms) -> tuple[Standing, ...]:
        """Count what happened by now, and return how each objective stands; by what was kept, where gateways are not followed here."""
        objectives, publisher = self.objectives(rooms), self._house.publisher
        if publisher is None:
            return objectives.standings()
        return objectives.look(publisher.gateways(), {} if self._monitor is None else self._monitor.said)

    @property
    def promised(self) -> Objectives | None:
        """What counts the events of objectives, once it does."""
        return self._objectives

    @property
    def monitoring(self) -> Monitor | None:
        """What watches the versions that answer, once it does."""
        return self._monitor

    @property
    def advisories(self) -> Advisories | None:
        """What is known of vulnerable packages; None where the operator mirrors nothing."""
        from taut.trust.supply import Advisories, parse_max_age

        config = self._house.config
        if not config.advisories:
            return None
        return Advisories(config.advisories, max_age=parse_max_age(config.advisories_max_age))


def made_by(rooms: Rooms, principal: str) -> str:
    """Return the group of those whom the same one enrolled; nothing for a principal who is not known any more."""
    from taut.core.errors import NotFound

    try:
        return f"enrolled-by:{rooms.identity.principal(principal).created_by}"
    except NotFound:
        return ""
