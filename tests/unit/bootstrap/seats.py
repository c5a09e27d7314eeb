"""A gateway at its admission for tests: everything but the processes and the sockets between them."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from taut.adapters.world import SystemClock, SystemIds, SystemRandom
from taut.bootstrap.applicant import Applicant
from taut.bootstrap.grace import GraceFile
from taut.bootstrap.replicas import FloorFile
from taut.bootstrap.wards import Wards
from taut.fleet.admission import AdmissionStore, Bundle, Pool, Reception, Stage, Terms
from taut.fleet.admission import metadata as admission_tables
from taut.fleet.log import ScaleLog
from taut.fleet.log import metadata as log_tables
from taut.serving.gateway import Gateway, Reply, compile_snapshot
from taut.serving.snapshot import ServingSnapshot
from taut.testing.records import memory_records
from taut.testing.serving import DataPlane
from taut.trust.ledger import Ledger
from taut.trust.ledger import metadata as ledger_tables

PATH = "/v1/predict/delay"
FORBID = 'forbid(principal == Principal::"nobody", action, resource);'


class Said:
    """What a gateway said of itself."""

    def __init__(self) -> None:
        self.events: list[str] = []

    def info(self, event: str, **_fields: Any) -> None:
        self.events.append(event)

    def warning(self, event: str, **_fields: Any) -> None:
        self.events.append(event)


class Fleet:
    """Admission, and gateways that are connected to it without sockets."""

    def __init__(self, plane: DataPlane, home: Path, records: Any) -> None:
        self.ended: set[int] = set()
        self.plane, self.home, keys, clock = plane, home, plane.keys, SystemClock()
        ledger = Ledger(records, keys, clock, SystemIds(), origin="test")
        pool = Pool(name="gateway", artifacts="sha256:a", quota=0, follows=True)
        self.store = AdmissionStore(
            records=records, ledger=ledger, keys=keys, clock=clock, random=SystemRandom(),
            terms=Terms(pools=(pool,), ttl_s=600.0, patience_s=600.0, prepare_s=900.0), bundle=Bundle(epoch=0, policy=""),
        )  # fmt: skip
        log = ScaleLog(records=records, ledger=ledger, keys=keys, clock=clock, ids=SystemIds())
        self.reception = Reception(
            self.store, pool="gateway", records=records, log=log, runs=lambda pid: pid not in self.ended, credentials=self.credentials,
            trusted=lambda: keys.public_keys(purpose="admission"),
        )  # fmt: skip
        self.reception.expect(2, reason="test", actor="test")
        self.connected: dict[str, Applicant] = {}

    def credentials(self) -> dict[str, str]:
        return {
            "insider": self.plane.token("probe-insider", jti="t2"),
            "stranger": self.plane.token("probe-stranger", roles=(), jti="t3"),
        }

    def connect(self, name: str, applicant: Applicant, pid: int) -> None:
        self.connected[name] = applicant
        loop = asyncio.get_running_loop()

        def say(data: bytes) -> None:
            loop.call_soon(lambda: self.tell(self.reception.hear(name, pid, data)))

        applicant.opened(say)

    def tell(self, letters: list[tuple[str, bytes]]) -> None:
        for name, data in letters:
            if name in self.connected:
                self.connected[name].heard(data)

    def stage(self, name: str = "gateway-0") -> Stage:
        return self.store.state.members[name].stage


class Seated:
    """A gateway with an endpoint, and its applicant."""

    def __init__(
        self, fleet: Fleet, gateway: Gateway, name: str = "gateway-0", inner: Any = None,
        of: type[Applicant] = Applicant,
    ) -> None:  # fmt: skip
        self.fleet, self.gateway, self.name, self.said = fleet, gateway, name, Said()
        self.over = asyncio.Event()
        serving = fleet.home / "serving"
        self.applicant = of(
            gateway, inner or gateway, artifacts="sha256:a", floor=FloorFile(serving / f"{name}.floor"), log=gateway._log,
            grace=GraceFile(serving / f"{name}.grace"), said=self.said, ended=self.over.set,
            workers=lambda seat, speak: Wards(name, seat=seat, speak=speak, build="b", random=SystemRandom(), patience_s=0.0),
        )  # fmt: skip

    def install(self, snapshot: ServingSnapshot) -> None:
        self.gateway.install(compile_snapshot(snapshot, home=self.fleet.plane.home, before=None))
        self.applicant.installed()

    def status(self) -> int:
        found = self.applicant.door.answer("POST", PATH, [], b"{}")
        assert isinstance(found, Reply)
        return found.status


@contextmanager
def open_fleet(plane: DataPlane) -> Iterator[Fleet]:
    records = memory_records(ledger_tables, log_tables, admission_tables)
    try:
        yield Fleet(plane, plane.home, records)
    finally:
        records.close()


def run(story: Callable[[], Awaitable[None]]) -> None:
    async def bounded() -> None:
        async with asyncio.timeout(90.0):
            await story()

    asyncio.run(bounded())


async def settled(condition: Callable[[], bool]) -> None:
    while not condition():
        await asyncio.sleep(0)
