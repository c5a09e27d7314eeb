"""How many gateways this machine has: said on the scale log, then asked of the supervisor; by a person, or by the autoscaler."""

from __future__ import annotations

import threading
from pathlib import Path
from typing import TYPE_CHECKING, Final, Protocol

import msgspec

from taut.bootstrap.admitting import POOL, Admitting
from taut.bootstrap.wanted import Wanted
from taut.fleet.admission import Stage, is_local
from taut.fleet.scaling import Autoscaler, Decision, HourStore, LoadHours, Look
from taut.ports.records import Records, transact
from taut.ports.world import Clock
from taut.trust.ledger import Entry, Ledger
from taut.workflows.scaling import LoadReader, rule_of

if TYPE_CHECKING:
    from taut.lifecycle.plans import Plans
    from taut.serving.snapshot import Publisher

ACTOR: Final = "autoscaler"
_KEEP_S: Final = 60.0


class House(Protocol):
    """What scaling needs of an installation."""

    gateways: int
    published: tuple[object, ...] | None

    @property
    def home(self) -> Path: ...
    @property
    def clock(self) -> Clock: ...
    @property
    def records(self) -> Records: ...
    @property
    def ledger(self) -> Ledger: ...
    @property
    def plans(self) -> Plans: ...
    @property
    def publisher(self) -> Publisher | None: ...


class Outlook(msgspec.Struct, frozen=True, kw_only=True):
    """What people are told of a pool's scaling. automatic: whether the project lets it follow the load. pinned: whether a person's number stands in front
    of that. minimum, maximum: None where it does not follow the load. decision: the autoscaler's last one, None before."""

    pool: str
    n: int
    ready: int
    automatic: bool
    pinned: bool
    minimum: int | None = None
    maximum: int | None = None
    decision: Decision | None = None

    @property
    def why(self) -> str:
        """Return why there are as many, in words."""
        if not self.automatic:
            return "as many as was said: the project declares no autoscaler"
        if self.pinned:
            return "a person chose it: `taut fleet scale gateway --auto` hands it back"
        return "nothing was looked at yet" if self.decision is None else self.decision.why


class Scaling:
    """Scales the gateways of the first machine. Safe for threads.

    Guarantees: what is asked of the supervisor stands on the scale log before; a person's number holds until he hands it back
    or the platform is started anew; without a declaration in the project nothing is done here.
    """

    def __init__(self, house: House, admitting: Admitting) -> None:
        self._house: Final = house
        self._admitting: Final = admitting
        self._wanted: Final = Wanted(house.home)
        self._store: Final = HourStore(house.records)
        self._lock: Final = threading.Lock()
        self._reader: Final = LoadReader()
        self._plan: str | None = None
        self._objectives_ms: dict[str, float] = {}
        self._autoscaler: Autoscaler | None = None
        self._hours: LoadHours | None = None
        self._kept_s = house.clock.monotonic_s()
        self._decision: Decision | None = None

    def set(self, n: int, *, reason: str, actor: str) -> None:
        """Have as many gateways as a person says, and no other number, until `hand_back`."""
        with self._lock:
            self._have(n, reason=reason, actor=actor, pinned=True)
            self._note("fleet.pinned", actor)

    def hand_back(self, *, actor: str) -> None:
        """Let the autoscaler decide again, where the project declares one."""
        with self._lock:
            self._wanted.write(self._house.gateways, pinned=False)
            self._note("fleet.handed-back", actor)

    def look(self) -> None:
        """Look at the load once and act on it; called about once a second."""
        house = self._house
        if house.publisher is None:
            return
        self._read_project()
        scaler = self._autoscaler
        if scaler is None:
            return
        seen = self._seen(house.publisher)
        with self._lock:
            if self._wanted.pinned:
                scaler.watch(seen)
                self._decision = None
            else:
                self._decision = decision = scaler.decide(seen, n=house.gateways)
                if decision.changes:
                    self._have(decision.n, reason=decision.why, actor=ACTOR, pinned=False)
        if seen.at_s - self._kept_s >= _KEEP_S:
            self._kept_s = seen.at_s
            self._store.keep(POOL, scaler.hours)

    def outlook(self) -> Outlook:
        """Return how many there shall be, and why."""
        scaler = self._autoscaler
        return Outlook(
            pool=POOL, n=self._house.gateways, ready=len(self._serving()), automatic=scaler is not None,
            pinned=scaler is not None and self._wanted.pinned, decision=self._decision,
            minimum=None if scaler is None else scaler.rule.minimum,
            maximum=None if scaler is None else scaler.rule.maximum,
        )  # fmt: skip

    @property
    def strained(self) -> bool:
        """Whether gateways have more to do than they should, so that jobs on this machine stand back."""
        decision = self._decision
        return decision is not None and decision.strained

    def _have(self, n: int, *, reason: str, actor: str, pinned: bool) -> None:
        """Say it on the log first; then have the supervisor act on it. What fails leaves the number as it was."""
        house, before = self._house, self._house.gateways
        self._admitting.have(n, reason=reason[:200], actor=actor)
        try:
            self._wanted.write(n, pinned=pinned)
        except BaseException:
            house.gateways = before  # else nobody would ask the supervisor again
            raise
        house.published = None  # gateways share quotas: they hear how many they are

    def _note(self, kind: str, actor: str) -> None:
        entry = Entry(kind, f"pool:{POOL}", actor, {"n": self._house.gateways})
        transact(self._house.records, lambda tx: self._house.ledger.append(tx, entry))

    def _read_project(self) -> None:
        """Take what the project declares, where it is another project."""
        plan = self._house.plans.current_id()
        if plan == self._plan:
            return
        manifest = self._house.plans.current()
        assert manifest is not None, "a plan holds"
        spec = next((one for one in manifest.autoscalers if one.name == POOL), None)
        if spec is None:
            self._autoscaler = None
        elif self._autoscaler is None or self._autoscaler.rule != rule_of(spec):
            self._hours = self._hours or self._store.recall(POOL)
            self._autoscaler = Autoscaler(rule_of(spec), hours=self._hours)
        self._decision = None
        self._objectives_ms = {
            one.name: one.slo.latency_p95_ms
            for one in manifest.endpoints
            if one.slo is not None and one.slo.latency_p95_ms is not None
        }
        self._plan = plan

    def _seen(self, publisher: Publisher) -> Look:
        clock = self._house.clock
        return self._reader.look(
            publisher.gateways(), serving=self._serving(), objectives_ms=self._objectives_ms,
            now_s=clock.monotonic_s(), wall_s=clock.now().timestamp(),
        )  # fmt: skip

    def _serving(self) -> frozenset[str]:
        """Return the gateways of this machine that are admitted."""
        members = tuple(self._admitting.reception.store.state.members.values())
        return frozenset(
            one.replica for one in members
            if one.pool == POOL and one.stage == Stage.ADMITTED and is_local(one.replica)
        )  # fmt: skip
