"""The rooms by which people sign in, furnished."""

from __future__ import annotations

from functools import cached_property
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from taut.bootstrap.platform import Platform
    from taut.trust.signin import Accounts, Passwords, Sessions


class People:
    """Where people prove who they are. Each room is made on first use, from the platform's ports."""

    def __init__(self, platform: Platform) -> None:
        self._platform: Final = platform

    @cached_property
    def passwords(self) -> Passwords:
        from taut.trust.signin import Passwords

        return Passwords(self._platform.random)

    @cached_property
    def sessions(self) -> Sessions:
        from taut.trust.signin import Sessions

        platform = self._platform
        return Sessions(platform.records, platform.ledger, platform.clock, platform.ids, platform.random)

    @cached_property
    def accounts(self) -> Accounts:
        from taut.trust.signin import Accounts

        platform = self._platform
        return Accounts(
            platform.records, platform.keys, platform.ledger, platform.clock, platform.random,
            sessions=self.sessions, passwords=self.passwords,
        )  # fmt: skip
