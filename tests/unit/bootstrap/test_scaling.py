"""Scaling says on the log what it will do, does it, and leaves a person's number alone."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from taut.adapters.keys.file import FileKeys
from taut.adapters.world import SystemRandom
from taut.bootstrap.scaling import Scaling
from taut.bootstrap.wanted import Wanted
from taut.core.errors import Unavailable
from taut.fleet.admission import Stage
from taut.fleet.scaling import metadata
from taut.project.manifest import AutoscaleSpec, Manifest
from taut.serving.meters import LAYOUT, MeterReading, encode_reading
from taut.serving.snapshot import Beat, GatewayState
from taut.testing.records import MemoryRecords, memory_records
from taut.testing.world import ManualClock, SequenceIds
from taut.trust.ledger import Ledger
from taut.trust.ledger import metadata as ledger_tables

DECLARED = AutoscaleSpec(name="gateway", maximum=4, cpu=0.5, window="4s", cooldown="4s")


class Control:
    """An installation whose gateways are as busy as it is told, and what its admission was told to expect."""

    def __init__(self, home: Path, records: MemoryRecords, keys: FileKeys) -> None:
        (home / "run").mkdir(exist_ok=True)
        self.home, self.records, self.gateways = home, records, 1
        self.clock = ManualClock()
        self.ledger = Ledger(records, keys, self.clock, SequenceIds(), origin="example.org/taut")
        self.published: tuple[object, ...] | None = ("known",)
        self.plan, self.manifest = "plan-1", Manifest(autoscalers=(DECLARED,))
        self.intents: list[tuple[int, str, str]] = []
        self.broken = False
        self.busy = 0.0
        self.used = 0.0
        self.scaling = self.started()

    def started(self) -> Scaling:
        """Return the scaling of a control process that begins now."""
        self.gateways = Wanted(self.home).read() or 1
        return Scaling(self, self)  # type: ignore[arg-type]

    def run(self, seconds: int, busy: float) -> None:
        for _ in range(seconds):
            self.clock.advance(1.0)
            self.used += busy
            self.scaling.look()

    # admission, as scaling knows it

    def have(self, gateways: int, *, reason: str, actor: str) -> None:
        if self.broken:
            raise Unavailable("the database is away")
        self.gateways = gateways
        self.intents.append((gateways, reason, actor))

    @property
    def reception(self) -> Any:
        names = [f"gateway-{number}" for number in range(self.gateways)]
        members = {
            name: SimpleNamespace(replica=name, pool="gateway", stage=Stage.ADMITTED)
            for name in (*names, "gateway-0@far")
        }
        return SimpleNamespace(store=SimpleNamespace(state=SimpleNamespace(members=members)))

    # its other rooms

    @property
    def plans(self) -> Any:
        return SimpleNamespace(current_id=lambda: self.plan, current=lambda: self.manifest)

    @property
    def publisher(self) -> Any:
        now_s = self.clock.monotonic_s()
        reading = MeterReading(
            layout=LAYOUT, started_us=1, up_us=int(now_s * 1e6), in_flight=0, slots=9, cpu_us=int(self.used * 1e6)
        )  # fmt: skip
        states = [
            GatewayState(
                gateway=f"gateway-{number}", pid=number, serving=1, heard_s=now_s,
                beat=Beat(
                    gateway=f"gateway-{number}", epoch=1, ready=True, answers=0, refusals=0, meters=encode_reading(reading)
                ),
            )
            for number in range(self.gateways)
        ]  # fmt: skip
        return SimpleNamespace(gateways=lambda: states)


@pytest.fixture(scope="module")
def keys(tmp_path_factory: pytest.TempPathFactory) -> FileKeys:
    return FileKeys(tmp_path_factory.mktemp("keys"), random=SystemRandom())


@pytest.fixture
def control(tmp_path: Path, keys: FileKeys) -> Iterator[Control]:
    records = memory_records(ledger_tables, metadata)
    yield Control(tmp_path, records, keys)
    records.close()


def test_load_becomes_an_intent_on_the_log_and_then_a_number_for_the_supervisor(control: Control) -> None:
    control.run(3, busy=0.8)

    n, reason, actor = control.intents[0]
    assert (n, actor) == (2, "autoscaler")
    assert "processors busy" in reason
    assert Wanted(control.home).read() == 2
    assert control.published is None  # gateways hear how many share a quota
    assert control.scaling.outlook().why.startswith(reason)


def test_jobs_stand_back_while_more_is_needed_than_there_is(control: Control) -> None:
    control.run(10, busy=0.1)
    assert not control.scaling.strained
    control.run(5, busy=0.8)
    assert control.scaling.strained
    control.run(30, busy=0.1)
    assert not control.scaling.strained

    control.manifest = Manifest()
    control.plan = "plan-2"
    control.run(10, busy=1.0)
    assert not control.scaling.strained  # nobody said what gateways should be able to do


def test_without_a_declaration_nothing_is_done(control: Control) -> None:
    control.manifest = Manifest()
    control.run(20, busy=1.0)

    assert control.intents == []
    assert "declares no autoscaler" in control.scaling.outlook().why


def test_an_intent_that_could_not_be_said_is_not_acted_on_and_said_again(control: Control) -> None:
    control.broken = True
    with pytest.raises(Unavailable):
        control.run(10, busy=0.8)
    assert (control.gateways, Wanted(control.home).read()) == (1, None)

    control.broken = False
    control.run(10, busy=0.8)
    assert control.gateways > 1
    assert Wanted(control.home).read() == control.gateways


def test_a_control_that_dies_between_intent_and_capacity_says_it_again(control: Control) -> None:
    def die(*_: Any, **__: Any) -> None:
        raise KeyboardInterrupt

    control.scaling._wanted.write = die  # type: ignore[method-assign]
    with pytest.raises(KeyboardInterrupt):
        control.run(10, busy=0.8)
    assert [n for n, _, _ in control.intents] == [2]

    control.scaling = control.started()
    control.run(10, busy=0.8)
    assert [n for n, _, _ in control.intents][:2] == [2, 2]
    assert Wanted(control.home).read() == control.gateways >= 2


def test_a_persons_number_holds_over_a_restart_of_control_until_it_is_handed_back(control: Control) -> None:
    control.scaling.set(3, reason="the sale begins", actor="ann")
    control.run(20, busy=0.0)
    control.scaling = control.started()
    control.run(20, busy=0.0)
    assert control.intents == [(3, "the sale begins", "ann")]
    assert control.scaling.outlook().pinned
    assert "--auto" in control.scaling.outlook().why

    control.scaling.hand_back(actor="ann")
    control.run(20, busy=0.0)
    assert control.gateways == 1
    kinds = [(leaf.kind, leaf.actor) for leaf in control.ledger.show(kind="fleet.", limit=9)]
    assert sorted(kinds) == [("fleet.handed-back", "ann"), ("fleet.pinned", "ann")]


def test_another_project_is_followed_at_once_and_its_bounds_are_kept(control: Control) -> None:
    control.run(30, busy=1.0)
    assert control.gateways == 4
    control.plan = "plan-2"
    control.manifest = Manifest(autoscalers=(AutoscaleSpec(name="gateway", maximum=2, cpu=0.5),))
    control.run(1, busy=1.0)
    assert control.gateways == 2


def test_what_was_learned_is_kept_each_minute(control: Control) -> None:
    control.run(130, busy=0.1)
    again = control.started()
    control.scaling = again
    control.run(1, busy=0.1)

    assert again._hours is not None
    assert again._hours.spent_s(control.clock.now().timestamp()) >= 118.0
