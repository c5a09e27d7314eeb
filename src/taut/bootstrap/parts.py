"""The platform's own parts, furnished: who issues their identities, who is a machine, and what this one holds itself."""

from __future__ import annotations

from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Protocol

from taut.core.errors import TautError
from taut.ports.keys import Keys
from taut.ports.records import Records
from taut.ports.world import Clock, Random

if TYPE_CHECKING:
    from taut.trust.identity import Identity
    from taut.trust.ledger import Ledger
    from taut.trust.svid import Machines, Svid
    from taut.trust.svid.held import HeldFiles
    from taut.trust.svid.tls import PartTls


class House(Protocol):
    """What these rooms are made from."""

    @property
    def home(self) -> Path: ...
    @property
    def clock(self) -> Clock: ...
    @property
    def random(self) -> Random: ...
    @property
    def records(self) -> Records: ...
    @property
    def keys(self) -> Keys: ...
    @property
    def ledger(self) -> Ledger: ...
    @property
    def identity(self) -> Identity: ...


class Parts:
    """Rooms of the identities of parts. door: the port at which machines speak to control; 0 where none is open."""

    def __init__(self, house: House) -> None:
        self._house = house
        self.door = 0

    @cached_property
    def domain(self) -> str:
        """The trust domain: this installation, named by the first key of its ledger, as its database is."""
        return f"taut-{self._house.keys.public_keys(purpose='ledger')[-1].key_id}"

    @cached_property
    def machines(self) -> Machines:
        from taut.trust.svid import Issuer, Machines

        house = self._house
        issuer = Issuer(house.records, house.keys, house.clock, domain=self.domain)
        return Machines(house.records, house.identity, issuer, house.ledger, house.clock, house.random)

    @cached_property
    def files(self) -> HeldFiles:
        from taut.trust.svid.held import HeldFiles

        return HeldFiles(self._house.home)

    def open_tls(self) -> PartTls:
        """Return control's side of the machines' door. Raises where this machine holds no identity."""
        from taut.trust.svid.tls import PartTls

        def judge(shown: Svid) -> None:
            self.machines.accept(shown)

        return PartTls(self.files, now=self._house.clock.now, judge=judge)

    def keep(self) -> None:
        """See to it that this machine holds a fresh identity, of control, below the root of now. Control calls it again and again."""
        from cryptography.hazmat.primitives.asymmetric import ec

        from taut.trust.svid import FIRST, SpiffeId
        from taut.trust.svid.issuer import whole_second

        issuer, now = self.machines.issuer, self._house.clock.now()
        who, bundle = SpiffeId(domain=self.domain, kind="control", name=FIRST), issuer.bundle()
        try:
            held = self.files.read()
            fresh = held.svid.not_before <= now and now.timestamp() < held.half_s()
            if fresh and held.svid.id == who and held.bundle == bundle:
                return
        except TautError:
            pass  # there is none, or none that can be used: it is made anew
        key = ec.generate_private_key(ec.SECP256R1())
        chain = issuer.issue(who, key.public_key(), at=whole_second(now))
        self.files.write(key, chain, bundle, now=now)
