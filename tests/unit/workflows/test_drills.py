"""Drills: a planted fault must be noticed link by link; a link that is broken on purpose is the one that the drill names."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import ExitStack
from datetime import timedelta
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import msgspec
import pytest
from playbook_world import PAGE, ROLLBACK, World, book

from taut.adapters.stories import JournalStories
from taut.bootstrap.config import Config
from taut.bootstrap.platform import Platform
from taut.core.errors import Conflict, Denied, NotFound, TautError
from taut.core.refs import VersionRef
from taut.core.times import to_us
from taut.ports.stories import Story
from taut.project.manifest import EndpointSpec, Manifest
from taut.project.responses import DrillSpec
from taut.serving.predictions import RecordHead
from taut.serving.predictions.record import encode_head, encode_record
from taut.testing.world import SeededRandom
from taut.trust.findings import Sighting
from taut.trust.incidents import Fault
from taut.workflows.drills import DrillRequest, check_drill, drill, lift_forsaken
from taut.workflows.incidents.respond import Respond, respond
from taut.workflows.publish import planted
from taut.workflows.testscore.seen import passed_drills

BURN = Sighting(
    kind="slo.burn", group="availability", resource="endpoint:late", score=99.0, severity="critical", summary="it burns"
)  # fmt: skip
FAILS = DrillSpec(
    name="late-fails", endpoint="late", failing=1.0, alarm=("slo",), alarm_within="2s", page="ops", page_within="4s",
    rollback_within="4s",
)  # fmt: skip
ANSWERS_ALARM = book(PAGE, ROLLBACK, name="burning", kinds=("slo",))


class Drilled:
    """A world whose stories a test runs second by second. asked: whether anybody asks the endpoint meanwhile."""

    def __init__(self, platform: Platform) -> None:
        self.world = World(platform)
        self.platform = platform
        self.environment, self.asked, self.receiver_up, self.gate_admits = "development", True, True, True
        self.despite = ""
        manifest = Manifest(endpoints=(EndpointSpec(name="late", model="late"),))
        self.rooms: Any = SimpleNamespace(
            plans=SimpleNamespace(require=lambda: manifest, environment=lambda: self.environment),
            publish=dict, predictions=self, records=platform.records, clock=platform.clock,
            releases=platform.releases, registry=platform.registry, alarms=platform.alarms,
            watches=platform.watches, ledger=platform.ledger,
        )  # fmt: skip
        self.engine = JournalStories(
            platform.records,
            {"drill": self.drill, "release": self.release, "respond": self.respond, "tell": self.tell},
            clock=platform.clock, ids=platform.ids, random=SeededRandom(),
        )  # fmt: skip

    def drill(self, story: Story, asked: Any) -> Any:
        return drill(self.rooms, story, msgspec.convert(asked, DrillRequest))

    def respond(self, story: Story, asked: Any) -> Any:
        return respond(self.rooms, story, msgspec.convert(asked, Respond))

    def release(self, story: Story, asked: Any) -> Any:
        """What the story of a release comes to: live, or ended by its gate."""
        releases, self.despite = self.platform.releases, asked["despite"]

        def do(tx: Any) -> str:
            made = {name: asked[name] for name in ("endpoint", "strategy", "actor", "reason")}
            id_ = releases.start(tx, version=VersionRef.parse(asked["version"]), **made)
            if self.gate_admits:
                releases.promote(tx, id_, actor=asked["actor"])
            else:
                releases.abort(tx, id_, actor=asked["actor"], reason="not admitted")
            return id_

        return story.commit("go", do)

    def tell(self, story: Story, asked: Any) -> Any:
        state: Any = "delivered" if self.receiver_up else "waiting"
        said = "HTTP 204" if self.receiver_up else "HTTP 503"
        note = self.platform.alarms.deliveries.tried
        return story.commit(
            "told", lambda tx: note(tx, asked["delivery"], attempts=1, state=state, said=said)
        )

    # The prediction log, as far as it is looked at

    def segments(self) -> list[Any]:
        return [SimpleNamespace(started_us=0)] if self.asked else []

    def written_us(self, _segment: Any) -> int:
        return 2**62

    def payloads(self, _segment: Any) -> list[bytes]:
        head = encode_head(RecordHead(endpoint="late", version="late@2", release="r", epoch=1, columns=()))
        at_us = to_us(self.platform.clock.now())
        return [encode_record(f"req_{number:026d}", at_us, head, "app", "", 503, 1) for number in range(3)]

    def run(
        self, spec: DrillSpec = FAILS, *, alarm_at_s: int | None = 1, unfreezes: bool = False
    ) -> dict[str, Any]:
        """Run a drill to its end, with the alarm coming when the fault has been there for so long; return its result."""
        asked = msgspec.to_builtins(DrillRequest(spec=spec, actor="ada", unfreezes=unfreezes))
        story = self.engine.start("drill", asked, key="one")
        for _ in range(30):
            self.engine.work(until_idle=True)
            status = self.engine.status(story)
            if status.state not in ("running", "waiting"):
                break
            if alarm_at_s is not None and self.planted_s() == alarm_at_s:
                self.platform.watches.findings.report([BURN])
                self.engine.work(until_idle=True)
            self.world.clock.advance(1)
        found: dict[str, Any] = self.engine.result(story)
        return found

    def planted_s(self) -> int | None:
        """Return for how long the fault is planted."""
        leaves = self.platform.ledger.show(kind="drill.planted", limit=1)
        return (to_us(self.platform.clock.now()) - leaves[0].at_us) // 1_000_000 if leaves else None


@pytest.fixture
def drilled(tmp_path: Path) -> Iterator[Drilled]:
    home = tmp_path / "home"
    home.mkdir(mode=0o700)
    with ExitStack() as stack:
        made = Drilled(Platform(Config(home=home), stack))
        stack.callback(made.platform.records.close)
        yield made


def test_a_drill_whose_fault_is_noticed_paged_and_rolled_back_is_evidence_in_the_ledger(
    drilled: Drilled,
) -> None:
    drilled.world.apply(ANSWERS_ALARM)
    found = drilled.run()

    assert (found["verdict"], found["broken"]) == ("admit", "")
    assert [(one["name"], one["outcome"]) for one in found["checks"]] == [
        ("fault", "passed"), ("alarm", "passed"), ("page", "passed"), ("rollback", "passed")
    ]  # fmt: skip
    (leaf,) = drilled.platform.ledger.show(kind="verdict.drill")
    assert (leaf.subject, leaf.body["decision"], leaf.actor) == ("drill:late-fails", "admit", "ada")
    assert [one.name for one in passed_drills(drilled.rooms, (FAILS,), {"late"})] == ["late-fails"]
    assert not passed_drills(drilled.rooms, (FAILS,), {"price"})
    (rollback,) = drilled.platform.ledger.show(kind="release.rolled_back")
    assert (rollback.actor, rollback.body["from"]) == ("bot", found["release"])
    kinds = {one.kind for one in drilled.platform.ledger.show(subject=f"release:{found['release']}")}
    assert {"drill.planted", "drill.lifted"} <= kinds
    assert drilled.platform.alarms.drills.faults() == {}


def revoke(drilled: Drilled) -> None:
    drilled.platform.identity.set_roles("bot", ["auditor"], actor="owner")


def nobody_asks(drilled: Drilled) -> None:
    drilled.asked = False


def receiver_down(drilled: Drilled) -> None:
    drilled.receiver_up = False


def only_pages(drilled: Drilled) -> None:
    drilled.world.apply(msgspec.structs.replace(ANSWERS_ALARM, steps=(PAGE,)))


@pytest.mark.parametrize(
    ("breaks", "alarm_at_s", "broken", "said"),
    [
        (nobody_asks, 1, "fault", "nobody asked the endpoint"),
        (None, None, "alarm", "it did not come"),
        (None, 3, "alarm", "too late"),
        (receiver_down, 1, "page", "ops did not take it, 1 attempts: HTTP 503"),
        (revoke, 1, "page", "nothing was sent to ops"),
        (only_pages, 1, "rollback", "it did not come"),
    ],
)
def test_the_link_that_is_broken_is_named_and_what_was_live_is_live_again(
    drilled: Drilled, breaks: Callable[[Drilled], None] | None, alarm_at_s: int | None, broken: str, said: str
) -> None:
    drilled.world.apply(ANSWERS_ALARM)
    if breaks is not None:
        breaks(drilled)
    found = drilled.run(alarm_at_s=alarm_at_s)

    assert (found["verdict"], found["broken"]) == ("reject", broken)
    assert said in next(one["message"] for one in found["checks"] if one["name"] == broken)
    assert drilled.platform.releases.show(found["release"]).state == "rolled_back"
    assert drilled.world.live() == "late@2"
    assert drilled.platform.alarms.drills.faults() == {}


def test_a_drill_that_expects_no_page_and_no_rollback_ends_with_its_alarm(drilled: Drilled) -> None:
    spec = msgspec.structs.replace(FAILS, page="", rollback_within=None)
    found = drilled.run(spec)

    assert (found["verdict"], len(found["checks"])) == ("admit", 2)
    assert drilled.platform.releases.show(found["release"]).state == "rolled_back"  # by the drill's own end


def test_where_the_gate_refuses_the_release_nothing_is_planted(drilled: Drilled) -> None:
    drilled.gate_admits = False
    with pytest.raises(Conflict, match="was aborted"):
        drilled.run()

    assert drilled.planted_s() is None
    assert drilled.world.live() == "late@2"


@pytest.mark.parametrize("unfreezes", [False, True])
def test_a_drill_passes_a_freeze_by_a_persons_word_alone(drilled: Drilled, unfreezes: bool) -> None:
    drilled.run(unfreezes=unfreezes)
    assert drilled.despite == ("drill late-fails" if unfreezes else "")


def test_a_drill_that_cannot_plant_its_fault_leaves_no_release_behind(drilled: Drilled) -> None:
    with drilled.platform.records.begin() as tx:
        drilled.platform.alarms.drills.plant(
            tx, "story_other", name="other", endpoint="late", release=drilled.world.first, fault=Fault(failing=1.0),
            lasts=timedelta(hours=1), actor="ada",
        )  # fmt: skip
    with pytest.raises(Conflict, match="story_other is under way"):
        drilled.run()

    newest, *_ = drilled.platform.releases.history("late")
    assert (newest.strategy, newest.version) == ("rollback", "late@2")


def test_what_a_drill_left_that_was_cancelled_is_lifted_by_control_once(drilled: Drilled) -> None:
    asked = msgspec.to_builtins(DrillRequest(spec=FAILS, actor="ada"))
    story = drilled.engine.start("drill", asked, key="one")
    while drilled.planted_s() is None:
        drilled.engine.work(until_idle=True)
        drilled.world.clock.advance(1)
    assert lift_forsaken(drilled.rooms, drilled.engine) == 0
    drilled.engine.cancel(story, reason="enough")

    assert [lift_forsaken(drilled.rooms, drilled.engine) for _ in range(2)] == [1, 0]
    assert drilled.platform.alarms.drills.faults() == {}
    newest, *_ = drilled.platform.releases.history("late")
    assert (newest.strategy, newest.version) == ("rollback", "late@2")


def in_production(drilled: Drilled) -> None:
    drilled.environment = "production"


def already_burning(drilled: Drilled) -> None:
    drilled.platform.watches.findings.report([BURN])


@pytest.mark.parametrize(
    ("given", "spec", "error"),
    [
        (in_production, FAILS, Denied),
        (already_burning, FAILS, Conflict),
        (None, msgspec.structs.replace(FAILS, endpoint="price"), NotFound),
    ],
)
def test_a_drill_that_would_hurt_or_prove_nothing_is_refused(
    drilled: Drilled, given: Callable[[Drilled], None] | None, spec: DrillSpec, error: type[TautError]
) -> None:
    if given is not None:
        given(drilled)
    with pytest.raises(error):
        check_drill(drilled.rooms, spec)
    if error is Denied:
        assert check_drill(drilled.rooms, msgspec.structs.replace(spec, in_production=True)) == "late@2"


def test_a_fault_is_over_at_its_time_though_nobody_lifts_it(drilled: Drilled) -> None:
    asked = msgspec.to_builtins(DrillRequest(spec=FAILS, actor="ada"))
    drilled.engine.start("drill", asked, key="one")
    while drilled.planted_s() is None:
        drilled.engine.work(until_idle=True)
        drilled.world.clock.advance(1)
    assert [one.failing for one in drilled.platform.alarms.drills.faults().values()] == [1.0]
    drilled.world.clock.advance(60)

    assert drilled.platform.alarms.drills.faults() == {}


def test_a_fault_is_planted_in_its_release_alone() -> None:
    from taut.core.schema import ModelSignature
    from taut.serving.snapshot import EndpointConfig, ServedModel

    signature = ModelSignature(request=(), inputs=(), output="value")
    models = [ServedModel(version=f"late@{n}", release=f"rel_{n}", artifact="", path="", signature=signature) for n in (1, 2)]  # fmt: skip
    one, two = (EndpointConfig(name=f"late{at}", live=model) for at, model in enumerate(models))
    found = planted(one, {"rel_1": Fault(failing=0.5)}).live.fault

    assert found is not None
    assert found.failing == 0.5
    assert planted(two, {"rel_1": Fault(failing=0.5)}) == two
