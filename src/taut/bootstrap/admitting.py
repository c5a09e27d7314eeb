"""Control's side of admission: the books of the fleet, and the gateways that come, speak and end."""

from __future__ import annotations

import os
import threading
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Final, Protocol

from taut.bootstrap.artifacts import artifacts_digest
from taut.bootstrap.replicas import PROBING, highest_floor
from taut.core.errors import TautError
from taut.fleet.admission import (
    Admission,
    AdmissionStore,
    Bundle,
    Letters,
    Pool,
    Reception,
    Step,
    Terms,
    is_local,
)
from taut.fleet.log import ScaleLog
from taut.ports.keys import Keys
from taut.ports.records import Records
from taut.ports.world import Clock, Ids, Random
from taut.serving.snapshot import Machine, Publisher
from taut.trust.identity import jws
from taut.trust.ledger import Ledger

if TYPE_CHECKING:
    from taut.trust.identity import Identity

POOL: Final = "gateway"
_FIRST: Final = Bundle(epoch=0, policy="")
_PROBE_S: Final = 60
_RETURN_S: Final = 30.0  # after so long a machine that is silent has no part in anything any more
_ACTOR: Final = "control"
_TOLD: Final = "as many as the platform was told to run, on all machines"

Failed = Callable[[str, BaseException], None]
"""Called with what could not be done, and why."""


class House(Protocol):
    """What admission needs of an installation: rooms, how many gateways run here, and where else."""

    gateways: int

    @property
    def home(self) -> Path: ...
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
    def identity(self) -> Identity: ...
    @property
    def machines(self) -> tuple[Machine, ...]: ...
    @property
    def publisher(self) -> Publisher | None: ...


class Admitting:
    """Admits the gateways of one installation. Safe for threads.

    failed: hears what could not be taken; who said it asks again within a second.
    """

    def __init__(self, house: House, *, failed: Failed) -> None:
        self._house: Final = house
        self._failed: Final = failed
        self._said = ""
        self._counting: Final = threading.Lock()
        self._least: Final = highest_floor(house.home / "serving")
        self._began_s: Final = house.clock.monotonic_s()
        store = AdmissionStore(
            records=house.records, ledger=house.ledger, keys=house.keys, clock=house.clock,
            random=house.random, terms=Terms(pools=(_gateways(),)), bundle=_FIRST,
        )  # fmt: skip
        log = ScaleLog(
            records=house.records, ledger=house.ledger, keys=house.keys, clock=house.clock, ids=house.ids
        )  # fmt: skip
        self.reception: Final = Reception(
            store, pool=POOL, records=house.records, log=log,
            trusted=lambda: house.keys.public_keys(purpose="admission"), credentials=self._credentials, runs=_runs,
        )  # fmt: skip
        self.reception.only({f"gateway-{number}" for number in range(house.gateways)}, of=is_local)
        self.expect(reason=_TOLD, actor=_ACTOR)

    def heard(self, gateway: str, pid: int | None, data: bytes) -> Letters:
        """Take what a gateway said and return what is to be told to whom. Raises nothing: what fails is said, once."""
        try:
            letters = self.reception.hear(gateway, pid, data)
            self._said = ""
        except TautError as error:
            if self._said != error.message:
                self._said = error.message
                self._failed(f"what {gateway} said to admission could not be taken", error)
            return []
        return letters

    def offer(self, epoch: int, policy: str) -> None:
        """Have an epoch of policy prepared, where it is another policy, before anybody is given it."""
        self._tell(self.reception.offer(epoch, policy, least=self._least))

    def tick(self) -> None:
        """Do what is due; called several times a second."""
        self.expect(reason=_TOLD, actor=_ACTOR)
        self._tell(self.reception.tick())

    def revoke(self, identity: str) -> None:
        """Revoke a replica's name, key or SVID for ever, and tell everybody."""
        self._tell(self.reception.revoke(identity))

    def have(self, gateways: int, *, reason: str, actor: str) -> None:
        """Have as many gateways on this machine, said on the scale log. What could not be said changes nothing."""
        with self._counting:  # else whoever says on the way what was told would say it first, in his own name
            before, self._house.gateways = self._house.gateways, gateways
            try:
                self._expect(reason=reason, actor=actor)
            except BaseException:
                self._house.gateways = before
                raise

    def expel(self, machine: str) -> None:
        """Trust the gateways that a machine has now no more; those of one that joins anew are others."""
        store = self.reception.store
        for member in tuple(store.state.members.values()):
            if member.lives and member.replica.endswith(f"@{machine}"):
                store.step(partial(_expel, member.replica))
        self._tell(self.reception.tick())

    def expect(self, *, reason: str, actor: str) -> None:
        """Say on the scale log how many gateways there shall be, where that is news."""
        with self._counting:
            self._expect(reason=reason, actor=actor)

    def _expect(self, *, reason: str, actor: str) -> None:
        n = self._house.gateways + sum(machine.gateways for machine in self._house.machines)
        target = self.reception.store.state.targets.get(POOL)
        early = self._house.clock.monotonic_s() - self._began_s < _RETURN_S
        if target is not None and actor == _ACTOR and early:
            n = max(n, target.n)  # machines of before may come back
        self.reception.expect(n, reason=reason, actor=actor)

    def _tell(self, letters: Letters) -> None:
        publisher = self._house.publisher
        for gateway, data in letters:
            if publisher is not None:
                publisher.tell(gateway, data)

    def _credentials(self) -> dict[str, str]:
        """Return bearers for the probes of one replica, of a minute's life."""
        data, now_s = self._house.identity.verifier_data(), int(self._house.clock.now().timestamp())
        return {
            who: jws.encode(
                self._house.keys,
                jws.Claims(
                    iss=data.issuer, sub=principal.id, kind=principal.kind, aud=data.audience, roles=principal.roles,
                    iat=now_s, exp=now_s + _PROBE_S, jti=self._house.ids.new("tok"),
                ),
            )
            for who, principal in PROBING.items()
        }  # fmt: skip


def _expel(replica: str, state: Admission, _now_s: float) -> Step:
    return state.quarantine(replica, "its machine was revoked")


def _gateways() -> Pool:
    return Pool(name=POOL, artifacts=artifacts_digest(), quota=0, follows=True)


def _runs(pid: int) -> bool:
    """Tell whether a process of this machine lives; one that nobody has waited for yet is taken for one that does."""
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except PermissionError:
        return True
    return True
