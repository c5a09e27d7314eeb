"""A playbook carried out: a durable story that acts as a named principal, within a budget, and says in the ledger what it did."""

from __future__ import annotations

import re
from datetime import timedelta
from typing import Any, Final

import msgspec

from taut.core.errors import Denied, NotFound, TautError
from taut.core.refs import VersionRef
from taut.core.units import parse_duration
from taut.lifecycle.plans import right_of
from taut.lifecycle.release import ReleaseInfo, ReleaseState
from taut.ports.records import Tx
from taut.ports.stories import Story
from taut.project.responses import PlaybookSpec, PlayStepSpec
from taut.trust.containment import Order
from taut.trust.findings import Finding
from taut.trust.incidents import Act, Outcome
from taut.workflows.release import push_back, roll_back_in
from taut.workflows.rooms import Rooms

_FIELD: Final = re.compile(r"\{(endpoint|principal|severity|since|title)\}")
_BUDGET: Final = timedelta(hours=1)
_DRILLS_MOST: Final = 20
"""How many drills in a row are looked through for the release before them."""

Said = tuple[Outcome, str]


class Respond(msgspec.Struct, frozen=True, kw_only=True):
    """playbook: as it was declared when the alert came; a plan that is applied meanwhile does not change it."""

    incident: str
    alert: str
    playbook: PlaybookSpec


class Target(msgspec.Struct, frozen=True, kw_only=True):
    """What a rollback would do. ends: the release under way that it ends. leaves: the live release that it leaves for `to`."""

    ends: str = ""
    leaves: str = ""
    to: str = ""
    version: str = ""
    why_not: str = ""


def respond(rooms: Rooms, story: Story, request: Respond) -> dict[str, Any]:
    """Do what a playbook says, step by step; what one step may or cannot do does not keep the next one from being done."""
    found = story.step("look", lambda: msgspec.to_builtins(rooms.watches.findings.get(request.alert)))
    finding = msgspec.convert(found, Finding)
    acts = []
    for number, step in enumerate(request.playbook.steps):
        outcome, said = _Step(rooms, story, request, finding, number, step).do()
        acts.append({"act": step.do, "outcome": outcome, "said": said})
    return {"incident": request.incident, "playbook": request.playbook.name, "acts": acts}


class _Step:
    """One step of a playbook in its story."""

    def __init__(
        self,
        rooms: Rooms,
        story: Story,
        request: Respond,
        finding: Finding,
        number: int,
        step: PlayStepSpec,
    ) -> None:
        self._rooms, self._story, self._request, self._finding = rooms, story, request, finding
        self._number, self._step, self._book = number, step, request.playbook
        self._endpoint = endpoint_of_alert(finding)

    def do(self) -> Said:
        action, resource = right_of(self._step, endpoint=self._endpoint, principal=self._finding.principal)
        self._wait()
        refusal = self._story.step(
            self._named("may"), lambda: self._rooms.alarms.refusal(self._book.principal, action, resource)
        )
        if refusal:
            return self._note("refused", refusal)
        match self._step.do:
            case "page" | "notify":
                return self._tell()
            case "contain":
                return self._contain()
            case "rollback":
                return self._roll_back()

    def _wait(self) -> None:
        after = parse_duration(self._step.after)
        if self._step.do == "page" and after:
            self._story.wait(self._named("taken"), timeout=after)

    def _tell(self) -> Said:
        """Make a delivery and let it be told; a page that had to wait is left where somebody answers for it by now."""

        def do(tx: Tx) -> dict[str, str]:
            incident = self._rooms.alarms.incidents.get_in(tx, self._request.incident)
            if self._step.after != "0s" and (incident.owner or incident.status != "open"):
                said = f"{incident.owner or 'nobody'} answers for it, and it is {incident.status}"
                return {"said": self._keep(tx, "left", said)[1], "delivery": ""}
            words = words_of(self._step, self._book, incident, self._finding)
            change = "page" if self._step.do == "page" else "notice"
            delivery = self._rooms.alarms.deliveries.add(
                tx, alert=incident.id, change=change, receiver=self._step.receiver, words=words
            )
            self._keep(tx, "done", f"{self._step.receiver} is told: {words}")
            return {"said": self._step.receiver, "delivery": delivery}

        made = self._story.commit(self._named("deliver"), do)
        if not made["delivery"]:
            return "left", made["said"]
        self._story.fork(self._named("tell"), "tell", {"delivery": made["delivery"]})
        return "done", made["said"]

    def _contain(self) -> Said:
        finding, step = self._finding, self._step
        if not finding.principal:
            return self._note("left", f"alert {finding.id} names no principal")
        order = Order(
            principal=finding.principal, action=step.action, lasts=parse_duration(step.lasts), per_s=step.per_s,
            allowed=step.allow, alert=finding.id, reason=f"playbook {self._book.name}: {finding.kind}",
        )  # fmt: skip

        def do(tx: Tx) -> Said:
            try:
                held = self._rooms.alarms.containments.begin_in(tx, order, actor=self._book.principal)
            except (Denied, NotFound) as error:
                return self._keep(tx, "refused", error.message)
            return self._keep(tx, "done", f"{held.action} of {held.principal} until {held.until:%H:%M:%S}")

        outcome, said = self._story.commit(self._named("contain"), do)
        return outcome, said

    def _roll_back(self) -> Said:
        found = self._story.step(
            self._named("which"),
            lambda: msgspec.to_builtins(target_of(self._rooms, self._endpoint, self._step.newer_than)),
        )
        target = msgspec.convert(found, Target)
        if target.why_not:
            return self._note("left", target.why_not)
        if target.to:
            try:  # a rollback to a damaged version would be worse than none
                self._story.step(self._named("verify"), lambda: self._verify(target))
            except TautError as error:
                return self._note("refused", f"{target.version} cannot be served: {error.message}")
        outcome, said = self._story.commit(self._named("rollback"), lambda tx: self._move(tx, target))
        if outcome == "done":
            try:
                self._story.step(self._named("push"), self._push)
            except TautError as error:  # what control keeps is pushed again until gateways have it
                self._story.progress(f"gateways or feature sets are not there yet: {error.message}")
        return outcome, said

    def _verify(self, target: Target) -> bool:
        self._rooms.registry.load(VersionRef.parse(target.version), to_serve=True)
        return True

    def _push(self) -> dict[str, Any]:
        pushed = push_back(self._rooms, self._endpoint, self._book.principal)
        return dict(msgspec.to_builtins(pushed))

    def _move(self, tx: Tx, target: Target) -> Said:
        book, releases = self._book, self._rooms.releases
        since = self._rooms.clock.now() - _BUDGET
        done = self._rooms.alarms.incidents.acts.count(tx, book.name, "rollback", since=since)
        if done >= book.rollbacks_per_hour:
            said = f"{done} rollbacks in an hour are what {book.name} may: a person decides about this one"
            return self._keep(tx, "left", said)
        why = f"playbook {book.name}: {self._finding.kind} ({self._finding.id})"
        if target.ends:
            under_way = [one.release for one in releases.canaries.under_way(tx)]
            under_way += [one.release for one in releases.experiments.under_way(tx)]
            if target.ends not in under_way:
                return self._keep(tx, "left", f"release {target.ends} is over already")
            releases.abort(tx, target.ends, actor=book.principal, reason=why)
            return self._keep(tx, "done", f"release {target.ends} of {self._endpoint} ended")
        live = {route.endpoint: route.release for route in releases.routes(tx)}
        if live.get(self._endpoint) != target.leaves:
            said = f"{self._endpoint} is at release {live.get(self._endpoint)} by now, not at {target.leaves}"
            return self._keep(tx, "left", said)
        info = roll_back_in(self._rooms, tx, self._endpoint, target.to, book.principal, why)
        return self._keep(tx, "done", f"{self._endpoint} answers by {info.version} again ({info.release})")

    def _note(self, outcome: Outcome, said: str) -> Said:
        self._story.commit(self._named("note"), lambda tx: list(self._keep(tx, outcome, said)))
        return outcome, said

    def _keep(self, tx: Tx, outcome: Outcome, said: str) -> Said:
        act = Act(
            story=self._story.id, number=self._number, incident=self._request.incident, playbook=self._book.name,
            act=self._step.do, outcome=outcome, said=said, by=self._book.principal,
        )  # fmt: skip
        self._rooms.alarms.incidents.acts.note(tx, act)
        return outcome, said

    def _named(self, what: str) -> str:
        return f"{what} {self._number}"


def target_of(rooms: Rooms, endpoint: str, newer_than: str) -> Target:
    """Return what a rollback at an endpoint would do now, or why it would do nothing."""
    if not endpoint:
        return Target(why_not="the alert is about no endpoint")
    try:
        now = rooms.releases.status(endpoint)
    except NotFound:
        return Target(why_not=f"nothing is released to {endpoint}")
    if now.state is ReleaseState.STARTED and now.weight:
        return Target(ends=now.release, version=now.version)
    live = _live(rooms, endpoint)
    if live is None:
        return Target(why_not=f"nothing answers at {endpoint} yet")
    judged = _judged(rooms, live)
    age = rooms.clock.now() - judged.started_at
    if judged.strategy == "rollback" or age > parse_duration(newer_than):
        why = (
            "is a rollback itself"
            if judged.strategy == "rollback"
            else f"is {age.days * 24 + age.seconds // 3600} hours old"
        )
        return Target(why_not=f"live release {live.release} of {endpoint} {why}: it is hardly the cause")
    try:
        before = rooms.releases.rollback_target(endpoint)
    except TautError as error:
        return Target(why_not=error.message)
    return Target(leaves=live.release, to=before.release, version=before.version)


def _live(rooms: Rooms, endpoint: str) -> ReleaseInfo | None:
    """Return what answers callers, whatever lies beside it and answers nobody, such as a shadow."""
    with rooms.records.read() as tx:
        route = next((one for one in rooms.releases.routes(tx) if one.endpoint == endpoint), None)
    return None if route is None else rooms.releases.show(route.release)


def _judged(rooms: Rooms, live: ReleaseInfo) -> ReleaseInfo:
    """Return the release that a live one is judged by: what a drill took the place of is as old as it was before the drill."""
    for _ in range(_DRILLS_MOST):
        if live.strategy != "rollback":
            break
        about = f"release:{live.release}"
        leaves = rooms.ledger.show(kind="release.rolled_back", subject=about, limit=1)
        if not leaves or not rooms.alarms.drills.was_in(leaves[0].body["from"]):
            break
        live = rooms.releases.show(leaves[0].body["to"])
    return live


def words_of(step: PlayStepSpec, book: PlaybookSpec, incident: Any, finding: Finding) -> str:
    """Return what a receiver reads: of a notice its own words, of a page what is seen and where to look."""
    if step.do == "notify":
        known = {
            "endpoint": endpoint_of_alert(finding) or "the platform", "principal": finding.principal or "somebody",
            "severity": incident.severity, "since": f"{incident.opened_at:%Y-%m-%d %H:%M} UTC", "title": incident.title,
        }  # fmt: skip
        return _FIELD.sub(lambda found: known[found[1]], step.words)
    return (
        f"{incident.severity}: {incident.title} (since {incident.opened_at:%Y-%m-%d %H:%M:%S} UTC, playbook {book.name}). "
        f"Take it: taut incident assign {incident.id}; look: taut incident show {incident.id}"
    )


def endpoint_of_alert(finding: Finding) -> str:
    """Return the name of the endpoint that an alert is about; empty where it is about none."""
    kind, _, name = finding.resource.partition(":")
    return name if kind == "endpoint" and name != "any" else ""
