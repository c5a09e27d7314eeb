"""The rooms by which people sign in, furnished."""

from __future__ import annotations

from functools import cached_property
from typing import TYPE_CHECKING, Final, Protocol

from taut.bootstrap import adapters
from taut.bootstrap.config import Config
from taut.core.errors import InvalidInput, NotFound
from taut.ports.keys import Keys
from taut.ports.records import Records
from taut.ports.secrets import Secrets
from taut.ports.web import Web
from taut.ports.world import Clock, Ids, Random

if TYPE_CHECKING:
    from taut.trust.envelope import InstallationKeys
    from taut.trust.ledger import Ledger
    from taut.trust.sealing import Sealer
    from taut.trust.signin import Accounts, Ceremonies, Passwords, Sessions
    from taut.trust.signin.federation import Federation
    from taut.trust.signin.passkeys import Passkeys

CLIENT_SECRET: Final = "oidc/client-secret"  # noqa: S105 - a secret's name


class House(Protocol):
    """What these rooms are made from: a platform, whose own rooms are made on first use."""

    @property
    def config(self) -> Config: ...
    @property
    def secrets(self) -> Secrets: ...
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
    @property
    def sealer(self) -> Sealer: ...
    @property
    def data_keys(self) -> InstallationKeys: ...


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

    @cached_property
    def ceremonies(self) -> Ceremonies:
        from taut.trust.signin import Ceremonies

        return Ceremonies(self._house.records, self._house.clock, self._house.random)

    @cached_property
    def web(self) -> Web:
        return adapters.open_web()

    @cached_property
    def federation(self) -> Federation:
        """Sign-in by the provider that the configuration names. Raises InvalidInput where it names none."""
        from taut.trust.signin.federation import Federation, Mapping
        from taut.trust.signin.provider import Provider

        house, config = self._house, self._house.config
        if not (config.oidc_issuer and config.oidc_client_id):
            raise InvalidInput(
                "no identity provider is known here: set TAUT_OIDC_ISSUER and TAUT_OIDC_CLIENT_ID where control runs"
            )
        provider = Provider(
            self.web, house.clock, issuer=config.oidc_issuer, client_id=config.oidc_client_id,
            client_secret=self._client_secret,
        )  # fmt: skip
        return Federation(
            house.records, house.ledger, house.clock, house.random, provider=provider, sessions=self.sessions,
            mapping=Mapping.parse(config.oidc_name, config.oidc_roles), ceremonies=self.ceremonies,
            origin=config.origin.rstrip("/"),
        )  # fmt: skip

    @cached_property
    def passkeys(self) -> Passkeys:
        from taut.trust.signin.passkeys import Passkeys

        house = self._house
        return Passkeys(
            house.records, house.ledger, house.clock, sessions=self.sessions, ceremonies=self.ceremonies,
            origin=house.config.origin.rstrip("/"),
        )  # fmt: skip

    def _client_secret(self) -> str | None:
        try:
            return self._house.secrets.get(CLIENT_SECRET)
        except NotFound:
            return None  # a public client: PKCE alone ties the code to who asked
