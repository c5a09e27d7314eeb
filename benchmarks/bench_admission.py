"""What admission costs: a request's check on both sides as the fleet grows, a renewal, a replica from invitation to lease.

Real signatures, and Records on SQLite with every write on stable storage. A replica here is its protocol alone: what it takes to
start a process, to load, to warm and to probe a model comes on top.
"""

from __future__ import annotations

import statistics
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Final

from benchmarks.report import Report
from taut.adapters.keys.file import FileKeys
from taut.adapters.records import open_sqlite
from taut.adapters.world import SystemClock, SystemIds, SystemRandom
from taut.core.evidence import Check, Outcome
from taut.fleet.admission import AdmissionStore, Bundle, Holder, Pool, Terms, metadata
from taut.fleet.log import ScaleEvent
from taut.testing.records import create_tables
from taut.trust.ledger import Ledger
from taut.trust.ledger import metadata as ledger_tables

TERMS: Final = Terms(
    pools=(
        Pool(name="gateway", artifacts="sha256:g", quota=100_000, follows=True),
        Pool(name="model", artifacts="sha256:m", quota=100_000),
    ),
    ttl_s=600.0,  # nothing runs out while it is measured
)
SHOWN: Final = (
    ("warmed", ("golden", "latency")),
    ("probed", ("must_block", "must_pass", "tenant_isolation")),
)
SIZES: Final = (1, 20, 100)
CALLS, ROUNDS = 20_000, 7


class Fleet:
    """Control's admission, and replicas that talk with it by bytes."""

    def __init__(self, store: AdmissionStore, keys: FileKeys, clock: SystemClock) -> None:
        self.store, self.clock = store, clock
        self.trusted = keys.public_keys(purpose="admission")
        self.workers: list[Holder] = []
        for seq, (pool, n) in enumerate((("gateway", 1), ("model", 1000)), start=1):
            event = ScaleEvent(seq=seq, scale_id=f"scale_{seq}", pool=pool, n=n, reason="", at_us=0)
            store.step(lambda it, _, event=event: it.scaled(event))  # type: ignore[misc]
        self.gateway = self.admit("gateway", "gateway")

    def admit(self, replica: str, pool: str) -> Holder:
        invitation = self.store.provision(replica, pool)
        artifacts = TERMS.pool(pool).artifacts
        holder = Holder(
            invitation, TERMS, artifacts=artifacts, trusted=self.trusted, clock=self.clock,
            keep_floor=lambda _: None,
        )  # fmt: skip
        self.store.hear(holder.attest())
        self.talk(holder)
        self.talk(holder)
        for what, names in SHOWN:
            checks = tuple(Check(name=name, outcome=Outcome.PASSED) for name in names)
            self.store.step(lambda it, _, what=what, checks=checks: getattr(it, what)(replica, 1, checks))  # type: ignore[misc]
        self.talk(holder)
        assert holder.view.own.lease is not None, "it went through every step"
        return holder

    def talk(self, holder: Holder) -> None:
        holder.hear(self.store.hear(holder.beat()))
        for bundle in holder.view.own.offered:
            holder.load(bundle)

    def grow(self, n: int, *, listed: bool = True) -> list[float]:
        """Admit workers until there are `n`; return how long each took, in ms. listed: the gateway hears of them at once."""
        took = []
        while len(self.workers) < n:
            began = time.perf_counter()
            self.workers.append(self.admit(f"worker-{len(self.workers)}", "model"))
            took.append((time.perf_counter() - began) * 1e3)
        if listed:
            self.talk(self.gateway)
        return took


def run(report: Report) -> None:
    checks: dict[int, list[float]] = {}
    with opened_fleet() as fleet:
        for n in SIZES:
            took = fleet.grow(n)
            if n == SIZES[-1]:
                name = f"a replica from its invitation to its lease, {SIZES[-2]} to {n} replicas: all steps, stored"
                report.figure(name, took, "ms", wanted="≤ 1000 ms", note=f"p99 {_p99(took):.1f} ms")
            checks[n] = [_us(lambda: _check(fleet)) for _ in range(ROUNDS)]
            name = f"a request checked by its gateway and by its replica, {n} replicas"
            report.figure(name, checks[n], "µs", note="pin, ticket, leave; of the guard's 12 µs")
            renewals = [_us(lambda: fleet.talk(fleet.workers[0]), calls=100) for _ in range(ROUNDS)]
            report.figure(
                f"a worker's renewal, both ends with their signatures, {n} replicas", renewals, "µs"
            )
            rosters = [_us(lambda: fleet.talk(fleet.gateway), calls=20) for _ in range(ROUNDS)]
            report.figure(f"a gateway's renewal, with the roster of {n + 1}", rosters, "µs")
    pairs = [b / a for a, b in zip(checks[1], checks[20], strict=True)]
    report.figure("a request's check with 20 replicas, in checks with 1", pairs, "×", wanted="≤ 1.1×")


def _check(fleet: Fleet) -> None:
    gateway, worker = fleet.gateway, fleet.workers[-1]
    own = worker.view.own
    pin = gateway.pin("high")
    gateway.check(own.invitation.replica, own.invitation.incarnation, own.key, pin, "high")
    worker.may_serve(pin.epoch, "high")


def _us(do: Callable[[], None], *, calls: int = CALLS) -> float:
    began = time.process_time()
    for _ in range(calls):
        do()
    return (time.process_time() - began) / calls * 1e6


def _p99(values: list[float]) -> float:
    return statistics.quantiles(values, n=100)[-1]


@contextmanager
def opened_fleet() -> Iterator[Fleet]:
    """Yield an admission with its store, and the gateway that it has admitted."""
    with tempfile.TemporaryDirectory(prefix="taut-bench-") as folder:
        home, clock = Path(folder), SystemClock()
        keys = FileKeys(home / "keys", random=SystemRandom())
        records = open_sqlite(home / "admission.db")
        create_tables(records, ledger_tables, metadata)
        try:
            ledger = Ledger(records, keys, clock, SystemIds(), origin="example.org/taut")
            store = AdmissionStore(
                records=records, ledger=ledger, keys=keys, clock=clock, random=SystemRandom(), terms=TERMS,
                bundle=Bundle(epoch=1, policy="sha256:p"),
            )  # fmt: skip
            yield Fleet(store, keys, clock)
        finally:
            records.close()
