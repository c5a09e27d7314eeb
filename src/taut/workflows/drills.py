"""A drill: a fault planted in a release of an endpoint's own live version, and whether the alarm, the page and the rollback came."""

from __future__ import annotations

from datetime import datetime, timedelta
from functools import partial
from typing import Any, Final

import msgspec

from taut.core.errors import Conflict, Denied, NotFound, TautError, Unavailable
from taut.core.evidence import Check, Evidence, Gate, Outcome
from taut.core.times import from_us
from taut.core.units import parse_duration
from taut.lifecycle.release import ReleaseState
from taut.ports.records import Tx, transact
from taut.ports.stories import Stories, Story, StoryState
from taut.project.declared import endpoint_of
from taut.project.responses import DrillSpec
from taut.trust.deliveries import Delivery
from taut.trust.findings import Finding
from taut.trust.incidents import Fault
from taut.workflows.alarms.policy import is_of
from taut.workflows.incidents.effect import effect_at
from taut.workflows.release import push_back, take_back
from taut.workflows.rooms import Rooms

DRILL_GATE: Final = Gate(name="drill", required=frozenset({"fault", "alarm"}))
_PAUSE: Final = timedelta(seconds=1)
_RELEASED_WITHIN: Final = 120
_SPARE: Final = timedelta(seconds=30)


class DrillRequest(msgspec.Struct, frozen=True, kw_only=True):
    """spec: as it was declared when the drill began. unfreezes: whether it is a person's word that its release starts though
    releases are frozen."""

    spec: DrillSpec
    actor: str
    unfreezes: bool = False


class Seen(msgspec.Struct, frozen=True, kw_only=True):
    """What followed so far, each in seconds after the fault was planted; None where it did not come.

    failed, asked: of the requests since then, over every release of the endpoint. said: about each, for people.
    """

    asked: int = 0
    failed: int = 0
    alarm_s: float | None = None
    page_s: float | None = None
    rollback_s: float | None = None
    said: dict[str, str] = {}

    def complete(self, spec: DrillSpec) -> bool:
        """Whether everything that is wanted came."""
        told = self.page_s is not None or not spec.page
        back = self.rollback_s is not None or spec.rollback_within is None
        return self.alarm_s is not None and told and back


def check_drill(rooms: Rooms, spec: DrillSpec) -> str:
    """Return the live version of a drill's endpoint. Raises Denied in production, NotFound where nothing is live."""
    if rooms.plans.environment() == "production" and not spec.in_production:
        raise Denied(
            f"drill {spec.name} makes answers fail, and this is production: run it where it hurts nobody, or declare "
            "in_production=True"
        )
    with rooms.records.read() as tx:
        live = next((one for one in rooms.releases.routes(tx) if one.endpoint == spec.endpoint), None)
    if live is None:
        raise NotFound(f"nothing is live at {spec.endpoint}: release a version first, then drill")
    for alert in rooms.watches.findings.list(state="open", limit=1000):
        if _is_alarm(spec, alert):
            raise Conflict(
                f"alert {alert.id} ({alert.kind}) of {spec.endpoint} is open: drill {spec.name} would not see another one come; "
                "wait until it is over"
            )
    return str(live.version)


def drill(rooms: Rooms, story: Story, request: DrillRequest) -> dict[str, Any]:
    """Tell the story. However it ends, the fault is lifted and what was live before answers again."""
    spec = request.spec
    begun = story.step("begin", lambda: [check_drill(rooms, spec), _strategy(rooms, spec)])
    story.progress(f"releasing {begun[0]} to {spec.endpoint} once more, to plant a fault in it", 0.1)
    story.fork(
        "release", "release",
        {
            "endpoint": spec.endpoint, "version": begun[0], "strategy": begun[1], "actor": request.actor,
            "reason": _reason(story, spec), "despite": f"drill {spec.name}" if request.unfreezes else "",
        },
    )  # fmt: skip
    try:
        release = _released(rooms, story, spec)
        planted = story.commit("plant", lambda tx: _plant(rooms, tx, story, request, release))
        story.step("push", lambda: msgspec.to_builtins(rooms.publish()))
        seen = _watch(rooms, story, spec, release, from_us(planted))
    except TautError:  # recorded, and raised again on replay: whatever fails, the fault goes
        left = story.step("which", lambda: _release_of(rooms, story, spec)[0])
        story.commit("lift", lambda tx: _lift(rooms, tx, story.id, spec.name, left, request.actor))
        raise
    story.commit("lift", lambda tx: _lift(rooms, tx, story.id, spec.name, release, request.actor))
    story.step("push again", lambda: msgspec.to_builtins(push_back(rooms, spec.endpoint, request.actor)))
    evidence = evidence_of(story.id, spec, seen)
    verdict = story.commit("judge", lambda tx: _judge(rooms, tx, evidence, request.actor))
    checks = msgspec.to_builtins(evidence.checks)
    return {"drill": spec.name, "release": release, **verdict, "checks": checks, "asked": seen.asked, "failed": seen.failed}  # fmt: skip


def evidence_of(id: str, spec: DrillSpec, seen: Seen) -> Evidence:
    """Return what a drill proves, link by link in the order in which one follows from the other."""
    struck = seen.failed > 0 if spec.failing else seen.asked > 0
    message = (
        f"{seen.failed:,} of {seen.asked:,} requests failed"
        if seen.asked
        else "nobody asked the endpoint: a fault that strikes nobody is not noticed"
    )
    checks = [
        Check(
            name="fault", outcome=Outcome.PASSED if struck else Outcome.FAILED, message=message, observed=seen.asked
        ),
        _link("alarm", seen.alarm_s, spec.alarm_within, seen.said),
    ]  # fmt: skip
    if spec.page:
        checks.append(_link("page", seen.page_s, spec.page_within, seen.said))
    if spec.rollback_within is not None:
        checks.append(_link("rollback", seen.rollback_s, spec.rollback_within, seen.said))
    broken = next((one.name for one in checks if one.outcome is not Outcome.PASSED), "")
    return Evidence(
        subject=f"drill:{spec.name}", checks=tuple(checks),
        facts={"drill": spec.name, "endpoint": spec.endpoint, "story": id, "broken": broken},
    )  # fmt: skip


def _link(name: str, after_s: float | None, within: str, said: dict[str, str]) -> Check:
    limit_s = parse_duration(within).total_seconds()
    came = after_s is not None and after_s <= limit_s
    return Check(
        name=name, outcome=Outcome.PASSED if came else Outcome.FAILED, observed=after_s, limit=limit_s,
        message=said.get(name, "it did not come") + ("" if after_s is None or came else ": too late"),
    )  # fmt: skip


def _strategy(rooms: Rooms, spec: DrillSpec) -> str:
    """Return how the drill's release comes: as a canary where the endpoint's releases do, else at once."""
    declared = endpoint_of(rooms.plans.require(), spec.endpoint).release.kind
    return "canary" if declared == "canary" else "direct"


def _reason(story: Story, spec: DrillSpec) -> str:
    return f"drill {spec.name} ({story.id})"


def _released(rooms: Rooms, story: Story, spec: DrillSpec) -> str:
    """Wait until the drill's release answers somebody, and return its id. Raises Unavailable where it does not come to that."""

    for at in range(_RELEASED_WITHIN):
        release, state = story.step(f"released {at}", lambda: list(_release_of(rooms, story, spec)))
        if state == "yes":
            return str(release)
        if state not in ("", "started"):
            raise Conflict(
                f"release {release} of drill {spec.name} was {state}: taut release status {release}"
            )
        story.wait(f"release {at}", timeout=_PAUSE)
    raise Unavailable(f"the release of drill {spec.name} did not come about within {_RELEASED_WITHIN} s")


def _release_of(rooms: Rooms, story: Story, spec: DrillSpec) -> tuple[str, str]:
    """Return the drill's release and its state, `yes` where it answers somebody; empty texts where there is none yet."""
    for one in rooms.releases.history(spec.endpoint, limit=10):
        if one.reason == _reason(story, spec):
            answers = rooms.releases.show(one.release)
            return one.release, "yes" if answers.weight else str(one.state)
    return "", ""


def _plant(rooms: Rooms, tx: Tx, story: Story, request: DrillRequest, release: str) -> int:
    spec = request.spec
    return rooms.alarms.drills.plant(
        tx, story.id, name=spec.name, endpoint=spec.endpoint, release=release, actor=request.actor,
        fault=Fault(failing=spec.failing, slow_ms=spec.slow_ms), lasts=timedelta(seconds=longest_s(spec)) + _SPARE,
    )  # fmt: skip


def longest_s(spec: DrillSpec) -> float:
    """Return how long a drill waits for what must follow, in seconds."""
    spans = [spec.alarm_within, *([spec.page_within] if spec.page else []), spec.rollback_within or "1s"]
    return max(parse_duration(one).total_seconds() for one in spans)


def _watch(rooms: Rooms, story: Story, spec: DrillSpec, release: str, planted: datetime) -> Seen:
    """Look each second until everything came, or the time for it is over."""
    until, at = planted + timedelta(seconds=longest_s(spec)), 0
    while True:
        found = story.step(f"look {at}", lambda: msgspec.to_builtins(_look(rooms, spec, release, planted)))
        seen, now = msgspec.convert(found[0], Seen), datetime.fromisoformat(found[1])
        if seen.complete(spec) or now >= until:
            return seen
        story.progress(f"waiting for what follows: {', '.join(sorted(seen.said)) or 'nothing yet'}", 0.5)
        story.wait(f"pause {at}", timeout=_PAUSE)
        at += 1


def _look(rooms: Rooms, spec: DrillSpec, release: str, planted: datetime) -> tuple[Seen, str]:
    now = rooms.clock.now()
    effect = effect_at(rooms, spec.endpoint, planted, now)
    said: dict[str, str] = {}
    alarms = _alarms(rooms, spec, planted)
    alarm_s = page_s = rollback_s = None
    if alarms:
        alarm_s = (alarms[0].since - planted).total_seconds()
        said["alarm"] = f"{alarms[0].kind} ({alarms[0].id})"
        told = _pages(rooms, spec, alarms)
        if told and told[0].tried_at is not None:
            page_s = (told[0].tried_at - planted).total_seconds()
            said["page"] = f"{spec.page} was told of {told[0].alert}"
        else:
            said |= _unpaged(rooms, spec, alarms)
    info = rooms.releases.show(release)
    if info.state in (ReleaseState.ROLLED_BACK, ReleaseState.ABORTED) and info.ended_at is not None:
        rollback_s = (info.ended_at - planted).total_seconds()
        said["rollback"] = f"release {release} is {info.state}"
    asked = effect.answered + effect.stood_in + effect.failed + effect.refused
    seen = Seen(asked=asked, failed=effect.failed + effect.stood_in, alarm_s=alarm_s, page_s=page_s, rollback_s=rollback_s, said=said)  # fmt: skip
    return seen, now.isoformat()


def _alarms(rooms: Rooms, spec: DrillSpec, planted: datetime) -> list[Finding]:
    """Return the alerts about the endpoint since the fault was planted, the first one first."""
    with rooms.records.read() as tx:
        found = rooms.watches.findings.since(tx, planted)
    return [one for one in reversed(found) if _is_alarm(spec, one)]


def _is_alarm(spec: DrillSpec, alert: Finding) -> bool:
    named = not spec.alarm or any(is_of(alert.kind, kind) for kind in spec.alarm)
    return named and alert.resource == f"endpoint:{spec.endpoint}"


def _pages(rooms: Rooms, spec: DrillSpec, alarms: list[Finding]) -> list[Delivery]:
    """Return what the receiver was told of the alerts and of their incidents, the first one first."""
    found = [
        one for one in _deliveries(rooms, spec, alarms) if one.state == "delivered" and one.change != "ended"
    ]
    return sorted(found, key=lambda one: (one.tried_at or one.made_at, one.id))


def _unpaged(rooms: Rooms, spec: DrillSpec, alarms: list[Finding]) -> dict[str, str]:
    """Say how far a page came that was not taken: not even made, or made and not delivered."""
    if not spec.page:
        return {}
    made = _deliveries(rooms, spec, alarms)
    if not made:
        return {
            "page": f"nothing was sent to {spec.page}: it hears of no such alert, and no playbook pages it"
        }
    return {
        "page": f"{spec.page} did not take it, {made[0].attempts} attempts: {made[0].said or 'not tried yet'}"
    }


def _deliveries(rooms: Rooms, spec: DrillSpec, alarms: list[Finding]) -> list[Delivery]:
    about = [one.id for one in alarms]
    about += [one.id for one in rooms.alarms.incidents.of_alerts(about)]
    return [
        delivery
        for one in about
        for delivery in rooms.alarms.deliveries.list(alert=one, limit=1000)
        if delivery.receiver == spec.page
    ]


def _lift(rooms: Rooms, tx: Tx, drill: str, name: str, release: str, actor: str) -> bool:
    """Lift the fault, and return to what was live before where nobody has yet. release: empty where none came about."""
    reason = f"drill {name} is over"
    rooms.alarms.drills.lift(tx, drill, actor=actor)
    if not release:
        return False
    rooms.releases.abort(tx, release, actor=actor, reason=reason)
    return take_back(rooms, tx, release, actor, reason)


def lift_forsaken(rooms: Rooms, stories: Stories) -> int:
    """Lift the faults whose drills nobody tells any more, such as one that was cancelled, and return how many."""
    count = 0
    for one in rooms.alarms.drills.planted():
        if stories.status(one.drill).state not in (StoryState.RUNNING, StoryState.WAITING):
            lift = partial(_lift, rooms, drill=one.drill, name=one.name, release=one.release, actor="control")
            transact(rooms.records, lift)
            count += 1
    return count


def _judge(rooms: Rooms, tx: Tx, evidence: Evidence, actor: str) -> dict[str, Any]:
    verdict = DRILL_GATE.judge(evidence)
    rooms.ledger.record_verdict(tx, verdict, actor=actor, evidence=evidence)
    return {"verdict": str(verdict.decision), "reasons": list(verdict.reasons), "broken": evidence.facts["broken"]}  # fmt: skip
