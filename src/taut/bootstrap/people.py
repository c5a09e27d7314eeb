"""The rooms by which people sign in, furnished."""

from __future__ import annotations

from functools import cached_property
from typing import TYPE_CHECKING, Final, Protocol

from taut.ports.keys import Keys
from taut.ports.records import Records
from taut.ports.world import Clock, Ids, Random

if TYPE_CHECKING:
    from taut.trust.ledger import Ledger
    from taut.trust.signin import Accounts, Passwords, Sessions


class House(Protocol):
    """What these rooms are made from: a platform, whose own rooms are made on first use."""

    @property
    def clock(self) -> Clock: ...
    @property
    def ids(self) -> Ids: ...
    @property
    def random(self) -> Random: ...
    @property
    def records(self) -> Records: ...
    @property
    def keys(self) -> Keys: ...
    @property
    def ledger(self) -> Ledger: ...


class People:
    """Where people prove who they are. Each room is made on first use."""

    def __init__(self, house: House) -> None:
        self._house: Final = house

    @cached_property
    def passwords(self) -> Passwords:
        from taut.trust.signin import Passwords

        return Passwords(self._house.random)

    @cached_property
    def sessions(self) -> Sessions:
        from taut.trust.signin import Sessions

        house = self._house
        return Sessions(house.records, house.ledger, house.clock, house.ids, house.random)

    @cached_property
    def accounts(self) -> Accounts:
        from taut.trust.signin import Accounts

        house = self._house
        return Accounts(
            house.records, house.keys, house.ledger, house.clock, house.random,
            sessions=self.sessions, passwords=self.passwords,
        )  # fmt: skip
