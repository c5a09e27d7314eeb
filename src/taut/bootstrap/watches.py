"""The rooms that look for what should not happen, furnished."""

from __future__ import annotations

from functools import cached_property
from typing import TYPE_CHECKING, Final

from taut.bootstrap.people import House

if TYPE_CHECKING:
    from taut.trust.findings import Findings


class Watches:
    """What looks on while others work, and where it keeps what it finds. Each room is made on first use."""

    def __init__(self, house: House) -> None:
        self._house: Final = house

    @cached_property
    def findings(self) -> Findings:
        from taut.trust.findings import Findings

        house = self._house
        return Findings(house.records, house.ledger, house.clock, house.ids)
