"""A canary under traffic: the gateways' own counters, control's own rows, and callers who come and go by a seed."""

from __future__ import annotations

import random
from collections.abc import Callable, Sequence
from pathlib import Path
from types import SimpleNamespace
from typing import Any

from taut.adapters.keys.file import FileKeys
from taut.core.refs import VersionRef
from taut.lifecycle.release import Lesson, Releases, metadata
from taut.lifecycle.release.canary import CanaryPlan
from taut.ports.records import Tx
from taut.project.manifest import Manifest
from taut.serving.meters import EndpointMeter
from taut.serving.snapshot import Beat, GatewayState
from taut.serving.trials import Arm, Side, Split, Trials, encode_trials
from taut.testing.records import memory_records
from taut.testing.world import ManualClock, SeededRandom, SequenceIds
from taut.trust.findings import Sighting
from taut.trust.ledger import Ledger
from taut.trust.ledger import metadata as ledger_tables
from taut.trust.lineage import Lineage
from taut.trust.lineage import metadata as lineage_tables
from taut.workflows import canary

PLAN = CanaryPlan(steps=(0.1, 0.5), every_s=300.0, least=50, guardrails=("errors", "latency"))


Tell = Callable[[random.Random, bool], dict[str, float]]


class Killed(BaseException):
    """Control is gone, at this edge."""


class Gateway:
    """What a gateway does of a canary: it draws callers, counts, and tells."""

    def __init__(self, name: str) -> None:
        self.name, self.pid = name, 1
        self._trials = Trials()
        self._meters = (EndpointMeter(), EndpointMeter())
        self.split: Split | None = None
        self._serving: tuple[str, int] | None = None

    def follow(self, share: tuple[str, float, int] | None) -> None:
        """Serve what the newest snapshot says."""
        if share is None:
            self.split, self._serving = None, None
            self._trials.keep(set())
        elif self._serving != (share[0], share[2]):
            release, weight, stage = share
            self.split = Split(release, [Side(0, 1.0 - weight, None, None), Side(1, weight, None, None)])
            trial = self._trials.of(release, stage)
            trial.count_by(*self._meters, by_model=False)
            self.split.count_in([trial])
            self._serving = (release, stage)

    def answer(
        self, unit: str, now_us: int, fails: Callable[[bool], bool], took_ns: Callable[[bool], int]
    ) -> Arm | None:
        """Answer; return the arm of whom was answered, None where nothing is tried or he was not."""
        if self.split is None:
            return None
        arm = self.split.arms.get(unit) or self.split.draw(unit)
        if fails(not arm.live):
            arm.fail("unavailable", now_us)
            self._meters[arm.live].refusals.add(503, "unavailable")
            return None
        took = took_ns(not arm.live)
        self._meters[arm.live].answered(0, took, took)
        return arm

    def state(self) -> GatewayState:
        beat = Beat(gateway=self.name, epoch=1, ready=True, answers=0, refusals=0, trials=encode_trials(self._trials.reading()))  # fmt: skip
        return GatewayState(gateway=self.name, pid=self.pid, serving=1, beat=beat)


class World:
    """Control with its rows, two gateways and some callers. kill_at: the edge at which control dies, once."""

    def __init__(
        self,
        folder: Path,
        *,
        plan: Any = PLAN,
        kill_at: int = 0,
        clock: ManualClock | None = None,
        gateways: Sequence[Any] = (),
    ) -> None:
        self.records = memory_records(metadata, ledger_tables, lineage_tables)
        self.clock, self.ids = clock or ManualClock(), SequenceIds()
        self._keys = FileKeys(folder, random=SeededRandom())
        self.gateways: Sequence[Any] = gateways or [Gateway("gateway-0"), Gateway("gateway-1")]
        self.edges, self._kill_at = 0, kill_at
        self._published: tuple[str, float, int] | None = None
        self.weights: list[float] = []
        self.paged: list[Sighting] = []
        self.manifest = Manifest()
        self.restart()
        first = self._start(1, "direct")
        with self.records.begin() as tx:
            self.releases.promote(tx, first, actor="ann")
        self.release = self._start(2, "canary")
        with self.records.begin() as tx:
            self.begin(tx, plan)
        self.publish()

    def begin(self, tx: Tx, plan: Any) -> None:
        self.releases.canaries.begin(tx, self.release, plan, actor="ann")

    def restart(self) -> None:
        """Start control anew, with nothing but its rows."""
        self.ledger = Ledger(self.records, self._keys, self.clock, self.ids, origin="test")
        self.releases = Releases(
            records=self.records,
            ledger=self.ledger,
            lineage=Lineage(self.clock),
            clock=self.clock,
            ids=self.ids,
        )
        registry = SimpleNamespace(mark_answering=lambda *_args, **_more: self.edge())
        self.rooms: Any = SimpleNamespace(
            records=self.records,
            releases=self.releases,
            clock=self.clock,
            publish=self.publish,
            registry=registry,
            plans=SimpleNamespace(current=lambda: self.manifest),
            watches=SimpleNamespace(findings=SimpleNamespace(report_in=self._report_in)),
        )

    def _report_in(self, _tx: Tx, seen: Sequence[Sighting]) -> None:
        if seen:
            self.edge()
            self.paged += seen

    def _start(self, number: int, strategy: str) -> str:
        with self.records.begin() as tx:
            return self.releases.start(
                tx, endpoint="delay", version=VersionRef("delay", number), strategy=strategy, actor="ann", reason="",
            )  # fmt: skip

    def publish(self) -> None:
        self.edge()
        with self.records.read() as tx:
            shares = self.releases.canaries.shares(tx)
        self._published = (shares[0].release, shares[0].arms[0].weight, shares[0].stage) if shares else None
        if self._published is not None and self._published[1] not in self.weights:
            self.weights.append(self._published[1])
        for gateway in self.gateways:
            gateway.follow(self._published)

    def edge(self) -> None:
        """Die here, if this is the edge."""
        self.edges += 1
        if self.edges == self._kill_at:
            raise Killed

    def look(self, states: Sequence[GatewayState]) -> None:
        canary.look(self.rooms, states)

    def tick(self) -> None:
        """Let control look once; where it dies, the next one looks and publishes, as it does at its start."""
        try:
            self.edge()
            self.look([gateway.state() for gateway in self.gateways])
            self.edge()
        except Killed:
            self.restart()
            self.publish()

    def run(
        self, *, minutes: int, errors: float = 0.005, times: float = 1.0, slower: float = 1.0, callers: int = 500,
        asks: int = 200, seed: int = 3, tell: Tell | None = None,
    ) -> str:  # fmt: skip
        """Let callers ask and control look each minute until the canary is over; return how it ended.

        tell: what becomes true of an answer of the canary or of the live version: by guardrail, the amount.
        """
        choose = random.Random(seed)
        for _ in range(minutes):
            now_us = int(self.clock.now().timestamp() * 1e6)
            lessons: list[Lesson] = []
            for _ in range(asks):
                arm = self.gateways[choose.randrange(2)].answer(
                    f"u{choose.randrange(callers)}", now_us,
                    lambda own: choose.random() < errors * (times if own else 1.0),
                    lambda own: int(choose.lognormvariate(15.0, 0.5) * (slower if own else 1.0)),
                )  # fmt: skip
                if tell is not None and arm is not None:
                    lessons += self._lessons(arm, now_us, tell(choose, not arm.live))
            with self.records.begin() as tx:
                self.releases.canaries.learn(tx, lessons)
            self.clock.advance(60)
            self.tick()
            if self.state() != "started":
                break
        return self.state()

    def _lessons(self, arm: Arm, now_us: int, said: dict[str, float]) -> list[Lesson]:
        stage = 0 if self._published is None else self._published[2]
        minutes = {"quality": now_us // 60_000_000, "outcome": 0}
        return [
            Lesson(self.release, stage, name, arm.mark, minutes[name], not arm.live, of)
            for name, of in said.items()
        ]

    def state(self) -> str:
        return str(self.releases.show(self.release).state)

    def history(self) -> list[str]:
        leaves = self.ledger.show(subject=f"release:{self.release}", limit=50)
        return [str(leaf.body.get("move") or leaf.kind) for leaf in reversed(leaves)]
