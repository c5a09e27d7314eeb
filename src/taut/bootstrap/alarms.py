"""The rooms of alerts and containments, furnished, and the duties by which control keeps them."""

from __future__ import annotations

from datetime import timedelta
from functools import cached_property
from typing import TYPE_CHECKING, Final, Protocol

from taut.bootstrap.config import Config
from taut.ports.records import Records, Tx
from taut.ports.secrets import Secrets
from taut.ports.stories import Stories
from taut.ports.world import Clock, Ids

if TYPE_CHECKING:
    from taut.bootstrap.admitting import Admitting
    from taut.bootstrap.people import People
    from taut.bootstrap.watches import Watches
    from taut.lifecycle.plans import Plans
    from taut.serving.snapshot import Publisher
    from taut.trust.containment import Contained, Containments
    from taut.trust.deliveries import Deliveries, Outcome
    from taut.trust.findings import Finding, Hear
    from taut.trust.identity import Identity
    from taut.trust.incidents import Drills, Incidents
    from taut.trust.ledger import Ledger
    from taut.workflows.alarms import CostSentry, Sentry
    from taut.workflows.alarms.telling import Teller
    from taut.workflows.rights import Rights

_FORGOTTEN: Final = timedelta(hours=1)
_TOLD: Final = timedelta(days=1)


class House(Protocol):
    """What these rooms are made from: a platform, whose own rooms are made on first use."""

    @property
    def clock(self) -> Clock: ...
    @property
    def ids(self) -> Ids: ...
    @property
    def records(self) -> Records: ...
    @property
    def ledger(self) -> Ledger: ...
    @property
    def people(self) -> People: ...
    @property
    def identity(self) -> Identity: ...
    @property
    def policy(self) -> Rights: ...
    @property
    def config(self) -> Config: ...
    @property
    def secrets(self) -> Secrets: ...
    @property
    def plans(self) -> Plans: ...
    @property
    def stories(self) -> Stories: ...
    @property
    def watches(self) -> Watches: ...
    @property
    def admitting(self) -> Admitting | None: ...
    @property
    def publisher(self) -> Publisher | None: ...


class Alarms:
    """Who is told what, and who is held back because of it. Each room is made on first use."""

    def __init__(self, house: House) -> None:
        self._house: Final = house
        self._costly = False

    @cached_property
    def containments(self) -> Containments:
        from taut.trust.containment import Containments

        house = self._house
        return Containments(house.records, house.ledger, house.clock, house.ids, cut_off=self._cut_off)

    @cached_property
    def deliveries(self) -> Deliveries:
        from taut.trust.deliveries import Deliveries

        house = self._house
        return Deliveries(house.records, house.ledger, house.clock, house.ids)

    @cached_property
    def incidents(self) -> Incidents:
        from taut.trust.incidents import Incidents

        house = self._house
        return Incidents(house.records, house.ledger, house.clock, house.ids)

    @cached_property
    def drills(self) -> Drills:
        from taut.trust.incidents import Drills

        house = self._house
        return Drills(house.records, house.ledger, house.clock)

    @cached_property
    def sentry(self) -> Sentry:
        from taut.core.units import parse_duration
        from taut.trust.shares import Hours
        from taut.workflows.alarms import Sentry

        house = self._house
        window_s = parse_duration(house.config.watch_window).total_seconds()
        return Sentry(clock=house.clock, window_s=window_s, hours=Hours(house.records))

    @cached_property
    def costs(self) -> CostSentry:
        from taut.workflows.alarms import CostSentry

        return CostSentry(clock=self._house.clock)

    def refusal(self, principal: str, action: str, resource: str) -> str:
        """Return why a service principal may not do something now; an empty text where he may."""
        from taut.core.errors import NotFound
        from taut.trust.identity import Principal

        house = self._house
        try:
            row = house.identity.principal(principal)
        except NotFound as error:
            return error.message
        if row.disabled or row.kind != "service":
            return f"{principal} is {'disabled' if row.disabled else 'no service'}"
        context: dict[str, object] = {
            "plane": "control", "local": True, "now": house.clock.now(), "environment": house.plans.environment(),
        }  # fmt: skip
        who = Principal(id=row.id, kind=row.kind, roles=row.roles)
        decision = house.policy.decide(who, action, resource, context)
        said = "; ".join(decision.reasons)
        return "" if decision.allow else f"{principal} may not {action} on {resource}: {said}"

    def contained(self) -> tuple[Contained, ...]:
        """Return who is held back now, as gateways are told."""
        return self.containments.contained()

    def held(self, principal: str) -> tuple[Contained, ...]:
        """Return what holds one principal back now."""
        from taut.trust.containment.register import as_contained

        return tuple(as_contained(one) for one in self.containments.holding(principal))

    def look(self) -> None:
        """Tell what the scale log says, take what gateways counted, and open, renew and end findings by it once a window is over."""
        from taut.trust.costs import KINDS as COSTS
        from taut.workflows.alarms import KINDS, scaled
        from taut.workflows.canary import ROLLED_BACK

        house = self._house
        if house.admitting is not None:
            store = house.admitting.reception.store
            for untold in store.untold():
                house.watches.findings.report([scaled(untold.scale_id, untold.body)])
                store.told(untold.scale_id)
        if house.publisher is None:
            return
        incident = house.policy.glass.holding() is not None
        states = house.publisher.gateways()
        costly = self.costs.look(states)
        if costly or self._costly:
            house.watches.findings.observe(COSTS, costly)
            self._costly = bool(costly)
        seen = self.sentry.look(states, incident=incident)
        if seen is not None:
            house.watches.findings.observe(KINDS, seen)
            house.watches.findings.lapse(
                COSTS, unseen_for=_FORGOTTEN
            )  # that a run of control before left open
            house.watches.findings.lapse((ROLLED_BACK,), unseen_for=_TOLD)

    def dismiss(self, id: str, *, actor: str, why: str) -> Finding:
        """Say that what was found is right: whose share it was begins anew, and what he asks now will be usual."""
        from taut.core.errors import Conflict
        from taut.trust.costs import KINDS as COSTS
        from taut.workflows.alarms import SHARE
        from taut.workflows.objectives import KINDS as PROMISED

        if self._house.watches.findings.get(id).kind in PROMISED:
            raise Conflict(
                f"alert {id} counts what was bad, which nobody can dismiss, since the next outage would be silent too: it ends by itself, "
                "or change what is promised (taut.SLO)"
            )
        found = self._house.watches.findings.dismiss(id, why, actor=actor)
        if found.kind == SHARE and found.principal:
            self.sentry.watch.accept(found.principal)
        if found.kind in COSTS:
            self.costs.watch.accept(found.principal)
        return found

    def hearing(self) -> Hear:
        """Return what follows from a finding, with all that it needs furnished: nothing is opened inside its transaction."""
        from taut.workflows.alarms.policy import FollowUps

        house = self._house
        return FollowUps(
            house.plans, house.stories, self.containments, self.deliveries, self.incidents,
            since=lambda tx, at: house.watches.findings.since(tx, at), now=house.clock.now,
        )  # fmt: skip

    def attempt(self, delivery: str) -> Outcome:
        """Tell of a delivery once."""
        from taut.project.manifest import Manifest
        from taut.trust.deliveries import delivery_of

        house = self._house
        with house.records.read() as tx:
            found = delivery_of(tx, delivery)
        about = self.incidents.get(found.alert) if found.words else house.watches.findings.get(found.alert)
        manifest = house.plans.current() or Manifest()
        return self._teller.send(found, about, manifest, now=house.clock.now())

    @cached_property
    def _teller(self) -> Teller:
        from taut.bootstrap import adapters
        from taut.workflows.alarms.telling import Teller

        web, mail = adapters.open_outside(self._house.config)
        return Teller(web=web, mail=mail, secrets=self._house.secrets)

    def _cut_off(self, tx: Tx, principal: str, actor: str) -> None:
        from taut.trust.identity.people import People

        house = self._house
        people = People(house.ledger, house.clock)
        people.cut_tokens(tx, principal, actor=actor)
        people.note(tx, "identity.tokens.revoked", principal, actor)
        house.people.sessions.end_all(tx, principal, actor=actor)
