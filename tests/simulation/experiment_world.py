"""An experiment under traffic: gateways draw, count and log, outcomes come late, control's own rows and code decide."""

from __future__ import annotations

import random
from collections.abc import Callable, Sequence
from datetime import timedelta
from pathlib import Path
from types import SimpleNamespace
from typing import Any

from canary_world import Killed

from taut.adapters.keys.file import FileKeys
from taut.core.refs import VersionRef
from taut.lifecycle.release import Releases, Share, metadata
from taut.lifecycle.release.experiment import ExperimentPlan
from taut.ports.records import transact
from taut.project.manifest import FreezeSpec, Manifest
from taut.serving.meters import EndpointMeter
from taut.serving.predictions import Answer, PredictionRecord, RecordHead
from taut.serving.snapshot import Beat, GatewayState
from taut.serving.trials import Side, Split, Trials, encode_trials
from taut.testing.records import memory_records
from taut.testing.world import ManualClock, SeededRandom, SequenceIds
from taut.trust.ledger import Ledger
from taut.trust.ledger import metadata as ledger_tables
from taut.trust.lineage import Lineage
from taut.trust.lineage import metadata as lineage_tables
from taut.workflows import experiment

Worth = Callable[[int, float], float]
"""How much an answer of an arm brings at a time, seconds from the start: the chance of a payoff of 1."""


def versions(count: int) -> tuple[str, ...]:
    return tuple(f"delay@{number}" for number in range(1, count + 1))


def bandit(arms: int, **how: Any) -> ExperimentPlan:
    told = {"metric": "reward", "every_s": 60.0, "least": 20, "floor": 0.02, **how}
    return ExperimentPlan(kind="bandit", arms=versions(arms), weights=(1 / arms,) * arms, **told)


def ab(arms: int, **how: Any) -> ExperimentPlan:
    told = {"metric": "reward", "least": 20, **how}
    return ExperimentPlan(kind="ab", arms=versions(arms), weights=(1 / arms,) * arms, **told)


class Gateway:
    """What a gateway does of an experiment: it draws callers, counts, and logs the weight under which each was drawn."""

    def __init__(self, name: str, arms: int) -> None:
        self.name, self.pid = name, 1
        self._trials = Trials()
        self._meters = [EndpointMeter() for _ in range(arms)]
        self.split: Split | None = None
        self._share: Share | None = None

    def follow(self, share: Share | None) -> None:
        if share is None:
            self.split, self._share = None, None
            self._trials.keep(set())
        elif share != self._share:
            weights = {0: 1.0 - sum(arm.weight for arm in share.arms)} | {
                arm.slot: arm.weight for arm in share.arms
            }
            self.split = Split(
                share.release, [Side(slot, weight, slot, weight) for slot, weight in weights.items()]
            )
            trials = []
            for arm in share.arms:
                trial = self._trials.of(share.release, share.stage, str(arm.version))
                trial.count_by(self._meters[arm.slot], self._meters[0], by_model=False)
                trials.append(trial)
            self.split.count_in(trials)
            self._share = share

    def answer(self, unit: str, at: int, now_us: int, fails: bool) -> tuple[int, PredictionRecord] | None:
        """Answer one unit; return the arm and the record, None where nobody is drawn."""
        if self.split is None or self._share is None:
            return None
        arm = self.split.arms.get(unit) or self.split.draw(unit)
        if fails:
            arm.fail("unavailable", now_us)
            return None
        self._meters[arm.endpoint].answered(0, 1_000_000, 1_000_000)
        head = RecordHead(
            endpoint="delay", version=f"delay@{arm.endpoint + 1}", release="", epoch=1, columns=(), share=arm.routes,
            trial=self._share.release, stage=self._share.stage,
        )  # fmt: skip
        answer = Answer(labels=(True,), probabilities=((0.5, 0.5),))
        record = PredictionRecord(f"req_{at:026}", now_us, head, unit, "", 200, 0, answer=answer)
        return arm.endpoint, record

    def state(self) -> GatewayState:
        beat = Beat(gateway=self.name, epoch=1, ready=True, answers=0, refusals=0, trials=encode_trials(self._trials.reading()))  # fmt: skip
        return GatewayState(gateway=self.name, pid=self.pid, serving=1, beat=beat)


class World:
    """Control with its rows, a gateway and callers who come once each. kill_at: the edge at which control dies, once."""

    def __init__(self, folder: Path, plan: ExperimentPlan, *, kill_at: int = 0) -> None:
        self.manifest = Manifest()
        self.plan, self.records = plan, memory_records(metadata, ledger_tables, lineage_tables)
        self.clock, self.ids = ManualClock(), SequenceIds()
        self._keys = FileKeys(folder, random=SeededRandom())
        self.gateway = Gateway("gateway-0", len(plan.arms))
        self.edges, self._kill_at = 0, kill_at
        self.pushed: list[tuple[float, ...]] = []
        self.served = [0] * len(plan.arms)
        self.gained = 0.0
        self._late: list[tuple[int, PredictionRecord, bool]] = []
        self._asked = 0
        self.restart()
        with self.records.begin() as tx:
            first = self._start(tx, 1, "direct")
            self.releases.promote(tx, first, actor="ann")
            self.release = self._start(tx, 2, plan.kind)
            self.releases.experiments.begin(tx, self.release, plan, actor="ann")
        self.publish()

    def _start(self, tx: Any, number: int, strategy: str) -> str:
        return self.releases.start(
            tx,
            endpoint="delay",
            version=VersionRef("delay", number),
            strategy=strategy,
            actor="ann",
            reason="",
        )

    def restart(self) -> None:
        """Start control anew, with nothing but its rows."""
        self.ledger = Ledger(self.records, self._keys, self.clock, self.ids, origin="test")
        self.releases = Releases(
            records=self.records, ledger=self.ledger, lineage=Lineage(self.clock), clock=self.clock, ids=self.ids,
        )  # fmt: skip
        registry = SimpleNamespace(mark_answering=lambda *_args, **_more: self.edge())
        self.rooms: Any = SimpleNamespace(
            records=self.records, releases=self.releases, clock=self.clock, publish=self.publish, registry=registry,
            plans=SimpleNamespace(current=lambda: self.manifest),
        )  # fmt: skip

    def publish(self) -> None:
        self.edge()
        with self.records.read() as tx:
            shares = self.releases.shares(tx)
        share = shares[0] if shares else None
        if share is not None:
            self.pushed.append(self.weights())
        self.gateway.follow(share)

    def weights(self) -> tuple[float, ...]:
        return self.found().state.weights

    def found(self) -> Any:
        with self.records.read() as tx:
            return self.releases.experiments.find(tx, self.release)

    def edge(self) -> None:
        """Die here, if this is the edge."""
        self.edges += 1
        if self.edges == self._kill_at:
            raise Killed

    def freeze(self, *, hours: int) -> None:
        """Let releases wait from now on."""
        since, until = self.clock.now() + timedelta(seconds=1), self.clock.now() + timedelta(hours=hours)
        spec = FreezeSpec(name="audit", since=since.isoformat(), until=until.isoformat())
        self.manifest = Manifest(freezes=(spec,))

    def tick(self) -> None:
        """Let control hear outcomes and look once; where it dies, the next one looks and publishes, as it does at its start."""
        now_us = int(self.clock.now().timestamp() * 1e6)
        due = [(record, 0, label) for at, record, label in self._late if at <= now_us]
        self._late = [one for one in self._late if one[0] > now_us]
        try:
            self.edge()
            transact(self.records, lambda tx: self._learn(tx, due))
            due = []
            self.edge()
            experiment.look(self.rooms, [self.gateway.state()])
            self.edge()
        except Killed:
            self.restart()
            transact(self.records, lambda tx: self._learn(tx, due))
            self.publish()

    def _learn(self, tx: Any, told: Sequence[Any]) -> None:
        for release, payoffs in experiment.payoffs_of(self.rooms, tx, told).items():
            self.releases.experiments.learn(tx, release, payoffs)

    def run(
        self, *, ticks: int, worth: Worth, asks: int = 100, delay_s: Sequence[float] = (0.0,), errors: Sequence[float] = (),
        seed: int = 3,
    ) -> str:  # fmt: skip
        """Let callers ask and control look each minute until it is over; return how it ended."""
        choose = random.Random(seed)
        begun_s = self.clock.now().timestamp()
        for _ in range(ticks):
            now_s = self.clock.now().timestamp()
            for _ in range(asks):
                self._ask(choose, now_s, worth, delay_s, errors, now_s - begun_s)
            self.clock.advance(60)
            self.tick()
            if self.state() != "started":
                break
        return self.state()

    def _ask(
        self, choose: random.Random, now_s: float, worth: Worth, delay_s: Sequence[float], errors: Sequence[float],
        at_s: float,
    ) -> None:  # fmt: skip
        self._asked += 1
        unit, luck, fate, wait = f"u{self._asked}", choose.random(), choose.random(), choose.choice(delay_s)
        split = self.gateway.split
        if split is None:
            return
        slot = (split.arms.get(unit) or split.draw(unit)).endpoint
        found = self.gateway.answer(unit, self._asked, int(now_s * 1e6), bool(errors) and fate < errors[slot])
        if found is None:
            return
        arm, record = found
        self.served[arm] += 1
        self.gained += worth(arm, at_s)
        self._late.append((int((now_s + wait) * 1e6), record, luck < worth(arm, at_s)))

    def state(self) -> str:
        return str(self.releases.show(self.release).state)

    def leaves(self) -> list[Any]:
        return list(reversed(self.ledger.show(subject=f"release:{self.release}", limit=2_000)))

    def history(self) -> list[str]:
        return [str(leaf.body.get("move") or leaf.kind) for leaf in self.leaves()]
