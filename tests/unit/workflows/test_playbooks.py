"""Playbooks: which alerts they are for, what they do, by whose rights, within which budget, and what they leave alone."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from datetime import timedelta
from pathlib import Path
from typing import Any

import msgspec
import pytest
from playbook_world import CONTAIN, DRIFT, OPS, PAGE, ROLLBACK, SHARE, World, book

from taut.adapters.stories import JournalStories
from taut.bootstrap.config import Config
from taut.bootstrap.platform import Platform
from taut.core.evidence import Decision
from taut.lifecycle.release.canary import Move
from taut.project.manifest import Manifest
from taut.project.responses import PlaybookSpec, PlayStepSpec
from taut.testing.world import SeededRandom
from taut.trust.findings import Sighting
from taut.trust.incidents import Fault
from taut.workflows.alarms.policy import is_for
from taut.workflows.canary import ROLLED_BACK, rolled_back
from taut.workflows.incidents.rehearse import rehearse, would_have
from taut.workflows.incidents.respond import Respond, respond, target_of


@pytest.fixture
def world(tmp_path: Path) -> Iterator[World]:
    home = tmp_path / "home"
    home.mkdir(mode=0o700)
    with ExitStack() as stack:
        made = World(Platform(Config(home=home), stack))
        stack.callback(made.platform.records.close)
        yield made


def test_a_playbook_pages_and_rolls_back_as_its_principal_once_for_an_incident(world: World) -> None:
    world.apply(book(PAGE, ROLLBACK, PlayStepSpec(do="notify", receiver="ops", words="{endpoint} answers as before {since}")))  # fmt: skip
    world.see(DRIFT)
    world.see(DRIFT)
    world.see(msgspec.structs.replace(DRIFT, kind="model.quality"))

    assert world.live() == "late@1"
    assert world.acts() == [("done", "page"), ("done", "rollback"), ("done", "notify")]
    (leaf,) = world.platform.ledger.show(kind="release.rolled_back")
    assert (leaf.actor, leaf.body["to"]) == ("bot", world.first)
    (incident,) = world.platform.alarms.incidents.list()
    notice, page = world.platform.alarms.deliveries.list(alert=incident.id)
    assert (page.change, notice.change) == ("page", "notice")
    assert incident.id in page.words
    assert notice.words == "late answers as before 2026-01-01 00:00 UTC"
    bodies = str([leaf.body for leaf in world.platform.ledger.show(subject=f"incident:{incident.id}")])
    assert "late drifts" not in bodies  # titles, which people write too, lie where they can be erased


def test_what_came_back_after_it_was_resolved_is_answered_again(world: World) -> None:
    world.apply(book(PAGE))
    world.see(DRIFT)
    incidents, findings = world.platform.alarms.incidents, world.platform.watches.findings
    findings.observe(["model.drift"], [])
    incidents.resolve(incidents.list()[0].id, "it was the weather", actor="ada")
    world.see(DRIFT)

    assert world.acts() == [("done", "page")] * 2


def test_a_release_under_way_is_ended_and_the_live_one_stays(world: World) -> None:
    world.apply(book(ROLLBACK))
    tried = world.release(3, beside="canary")
    world.see(DRIFT)

    assert world.live() == "late@2"
    assert world.platform.releases.show(tried).state == "aborted"
    assert world.acts() == [("done", "rollback")]


def test_an_experiment_under_way_is_ended_and_the_live_version_stays(world: World) -> None:
    world.apply(book(ROLLBACK))
    tried = world.release(3, beside="experiment")
    world.see(DRIFT)

    assert (world.live(), world.acts()) == ("late@2", [("done", "rollback")])
    assert world.platform.releases.show(tried).state == "aborted"
    with world.platform.records.read() as tx:
        assert not world.platform.releases.experiments.under_way(tx)


def test_a_shadow_that_answers_nobody_does_not_keep_the_live_release_from_being_left(world: World) -> None:
    world.apply(book(ROLLBACK))
    shadow = world.release(3, beside="shadow")
    world.see(DRIFT)

    assert (world.live(), world.acts()) == ("late@1", [("done", "rollback")])
    assert world.platform.releases.show(shadow).state == "aborted"  # it was compared with what is gone


def test_a_rollback_is_not_rolled_back_but_a_version_that_a_drill_took_the_place_of_is(world: World) -> None:
    releases, drills = world.platform.releases, world.platform.alarms.drills
    back = world.rolled_back()
    assert "is a rollback itself" in target_of(world.platform, "late", "24h").why_not
    third, drilled = world.release(3), world.release(3)
    with world.platform.records.begin() as tx:
        drills.plant(tx, "story_1", name="d", endpoint="late", release=drilled, fault=Fault(failing=1.0), lasts=timedelta(1), actor="ada")  # fmt: skip
    target = target_of(world.platform, "late", "24h")
    assert (target.leaves, target.to) == (drilled, third)  # the drill's own release is what a playbook leaves

    world.rolled_back()
    target = target_of(world.platform, "late", "24h")
    assert (target.version, target.to) == ("late@1", back)
    assert releases.show(target.leaves).strategy == "rollback"
    world.clock.advance(timedelta(hours=25))
    assert "25 hours old" in target_of(world.platform, "late", "24h").why_not


def test_a_release_that_is_old_is_not_the_cause_and_stays(world: World) -> None:
    world.apply(book(ROLLBACK))
    world.clock.advance(timedelta(hours=25))
    world.see(DRIFT)

    assert (world.live(), world.acts()) == ("late@2", [("left", "rollback")])
    assert "25 hours old" in world.said()


def test_a_way_back_to_a_damaged_version_is_not_gone_and_the_next_step_is(world: World) -> None:
    world.apply(book(ROLLBACK, PAGE))
    world.registry.damaged.add("late@1")
    world.see(DRIFT)

    assert (world.live(), world.acts()) == ("late@2", [("refused", "rollback"), ("done", "page")])


def test_rollbacks_have_a_budget_over_all_incidents(world: World) -> None:
    world.apply(book(ROLLBACK, rollbacks_per_hour=1))
    world.see(DRIFT)
    incidents = world.platform.alarms.incidents
    world.release(3)
    incidents.resolve(incidents.list()[0].id, "rolled back", actor="ada")
    world.see(msgspec.structs.replace(DRIFT, kind="model.quality"))
    assert (world.live(), world.acts()[-1]) == ("late@3", ("left", "rollback"))
    assert "a person decides" in world.said()

    incidents.resolve(incidents.list()[0].id, "rolled back", actor="ada")
    world.clock.advance(timedelta(hours=1, seconds=1))
    world.see(msgspec.structs.replace(DRIFT, kind="model.faults"))
    assert (world.live(), world.acts()[-1]) == ("late@1", ("done", "rollback"))


def test_somebody_whom_an_alert_names_is_contained_and_nobody_where_it_names_nobody(world: World) -> None:
    world.apply(book(CONTAIN, kinds=()))
    world.see(SHARE, DRIFT)

    assert sorted(world.acts()) == [("done", "contain"), ("left", "contain")]
    (held,) = world.platform.alarms.containments.list()
    assert (held.principal, held.action, held.begun_by) == ("app", "throttle", "bot")


def test_each_caller_whom_alerts_of_one_incident_name_is_contained_once(world: World) -> None:
    world.platform.identity.create_principal("loop", kind="service", roles=["predictor"], actor="owner")
    world.apply(book(CONTAIN, kinds=()))
    costs = [
        Sighting(kind=kind, principal=name, resource="endpoint:late", score=20.0, severity="critical")
        for kind, name in (("cost.amplification", "app"), ("cost.amplification", "loop"), ("abuse.inversion", "app"))
    ]  # fmt: skip
    world.see(*costs)

    assert len(world.platform.alarms.incidents.list()) == 1
    assert {one.principal for one in world.platform.alarms.containments.list()} == {"app", "loop"}
    assert world.acts() == [("done", "contain")] * 2


def test_a_principal_who_lost_the_right_is_refused_step_by_step_and_that_is_on_record(world: World) -> None:
    world.apply(book(PAGE, ROLLBACK))
    world.platform.identity.set_roles("bot", ["auditor"], actor="owner")
    world.see(DRIFT)

    assert (world.live(), world.acts()) == ("late@2", [("refused", "page"), ("refused", "rollback")])
    assert "bot may not release.rollback on endpoint:late" in world.said()


@pytest.mark.parametrize("taken", [True, False])
def test_the_next_one_is_paged_only_where_nobody_took_it(world: World, taken: bool) -> None:
    world.apply(book(PAGE, PlayStepSpec(do="page", receiver="ops", after="15m")))
    world.see(DRIFT)
    assert world.acts() == [("done", "page")]
    if taken:
        incidents = world.platform.alarms.incidents
        incidents.assign(incidents.list()[0].id, "owner", actor="ada")
    world.clock.advance(timedelta(minutes=15))
    world.work()

    assert world.acts()[1:] == [("left" if taken else "done", "page")]


def test_a_playbook_may_ask_for_several_alerts_about_the_same(world: World) -> None:
    warning = msgspec.structs.replace(DRIFT, severity="warning")
    world.apply(book(PAGE, severity="warning", count=2, within="10m"))
    world.see(warning, msgspec.structs.replace(warning, kind="model.faults", resource="endpoint:price"))
    assert not world.acts()
    world.clock.advance(timedelta(minutes=11))
    world.see(msgspec.structs.replace(warning, kind="model.faults"))
    assert not world.acts()
    world.see(msgspec.structs.replace(warning, kind="model.quality"))

    assert world.acts() == [("done", "page")]
    assert world.platform.alarms.incidents.list()[0].endpoint == "late"  # it opened one, of warnings


def test_kinds_endpoints_and_severities_say_whom_a_playbook_is_for(world: World) -> None:
    (found,) = world.platform.watches.findings.report([DRIFT])

    assert is_for(book(), found)
    assert not is_for(book(kinds=("mode",)), found)
    assert not is_for(book(endpoints=("price",)), found)
    assert is_for(book(kinds=(), endpoints=("late",), severity="info"), found)


@pytest.mark.parametrize(
    ("wrong", "said"),
    [
        (book(PAGE, principal="ghost"), "there is no such service"),
        (book(CONTAIN, principal="app"), "app, who may not contain.begin"),
        (book(PlayStepSpec(do="page", receiver="opps")), "no receiver 'opps'"),
        (book(PAGE, endpoints=("lat",)), "no endpoint 'lat'"),
    ],
)
def test_the_plan_gate_refuses_a_playbook_that_could_not_do_what_it_says(world: World, wrong: PlaybookSpec, said: str) -> None:  # fmt: skip
    verdict = world.apply(wrong).verdict

    assert verdict.decision is Decision.REJECT
    assert said in " ".join(verdict.reasons)


def test_a_rehearsal_says_what_would_be_done_about_an_alert_and_does_nothing(world: World) -> None:
    world.see(DRIFT)
    (alert,) = world.platform.watches.findings.list()
    late = PlayStepSpec(do="page", receiver="ops", after="15m")
    made = Manifest(receivers=(OPS,), playbooks=(book(PAGE, late, ROLLBACK, CONTAIN), book(PAGE, name="other", kinds=("share",))))  # fmt: skip
    quality, other = rehearse(world.platform, made, alert)

    assert (quality.begins, other.begins) == (True, False)
    assert quality.steps == (
        "page: tell ops",
        "page: tell ops, unless somebody answers for it after 15m",
        f"rollback: return to late@1 ({world.first})",
        "contain: nobody, the alert names none",
    )
    assert would_have(world.platform, made) == {"quality": (alert.id,), "other": ()}
    assert (world.live(), world.acts()) == ("late@2", [])


def test_a_canary_that_was_rolled_back_is_told_and_a_playbook_may_answer_it(world: World) -> None:
    world.apply(book(PAGE, kinds=("release",), severity="warning"))
    tried = world.release(3, beside="canary")
    with world.platform.records.read() as tx:
        (found,) = world.platform.releases.canaries.under_way(tx)
    move = Move(kind="roll_back", state=found.state, findings=(), reason="errors twice as often")
    world.see(rolled_back(found, move))

    (alert,) = world.platform.watches.findings.list()
    assert (alert.kind, alert.resource, alert.evidence["release"]) == (ROLLED_BACK, "endpoint:late", tried)
    assert "errors twice as often" in alert.summary
    assert world.acts() == [("done", "page")]


class Killed(BaseException):
    """Control is gone, at this edge."""


class DyingRecords:
    """Records with an edge after each transaction that committed."""

    def __init__(self, inner: Any, edge: Callable[[], None]) -> None:
        self._inner, self._edge = inner, edge

    def __getattr__(self, name: str) -> Any:
        return getattr(self._inner, name)

    @contextmanager
    def begin(self) -> Iterator[Any]:
        with self._inner.begin() as tx:
            yield tx
        self._edge()


class Dying:
    """Rooms that pass everything on, with an edge after what has an effect; control dies at one of them."""

    def __init__(self, inner: Any, edge: Callable[[], None]) -> None:
        self._inner, self._edge = inner, edge

    def __getattr__(self, name: str) -> Any:
        found = getattr(self._inner, name)
        if name in (
            "alarms",
            "incidents",
            "acts",
            "deliveries",
            "registry",
            "releases",
            "watches",
            "findings",
        ):
            return Dying(found, self._edge)
        if name == "records":
            return DyingRecords(found, self._edge)
        if name not in ("refusal", "note", "add", "load", "roll_back", "publish", "get", "status"):
            return found

        def call(*given: Any, **more: Any) -> Any:
            result = found(*given, **more)
            self._edge()
            return result

        return call


def responding(world: World, kill_at: int) -> JournalStories:
    """Return what carries out playbooks, and dies at an edge."""
    passed = itertools.count(1)

    def edge() -> None:
        if next(passed) == kill_at:
            raise Killed

    rooms: Any = Dying(world.platform, edge)
    table = {
        "respond": lambda story, asked: respond(rooms, story, msgspec.convert(asked, Respond)),
        "tell": lambda story, asked: asked,
    }
    records: Any = DyingRecords(world.platform.records, edge)
    return JournalStories(records, table, clock=world.clock, ids=world.platform.ids, random=SeededRandom())  # fmt: skip


def test_a_kill_at_any_edge_of_a_playbook_repeats_nothing_and_leaves_nothing_out(world: World) -> None:
    world.apply(book(PAGE, ROLLBACK))
    incidents, findings = world.platform.alarms.incidents, world.platform.watches.findings
    for edge in itertools.count(1):
        before = world.live()
        world.release(10 + edge)
        findings.report([DRIFT])
        try:
            responding(world, edge).work(until_idle=True)
        except Killed:
            killed = True
        else:
            killed = False
        world.clock.advance(60)  # its lease is over
        responding(world, 0).work(until_idle=True)

        assert world.live() == before, f"edge {edge}"
        assert world.acts() == [("done", "page"), ("done", "rollback")] * edge, f"edge {edge}"
        assert {one.state for one in world.platform.stories.list() if one.name == "respond"} == {"done"}
        (incident,) = incidents.list()
        assert len(world.platform.alarms.deliveries.list(alert=incident.id)) == edge
        if not killed:
            break
        findings.observe([DRIFT.kind], [])
        incidents.resolve(incident.id, "rolled back", actor="ada")
        world.clock.advance(timedelta(hours=2))
    assert edge > 15
