"""Every reachable state of a small fleet: one gateway, two workers, two epochs, and a network that may do anything.

A message that was sent may arrive at any later moment, any number of times, or never: that is loss, delay, repetition and
reordering at once. It is always now: a tick makes everything older, and what is older than a lease is simply old, so that
time has no end and the states have. The real code is asked for each transition, once; a state is a tuple of numbers of
the values that it made.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterator
from functools import cache
from typing import Any, NamedTuple

import msgspec
import pytest
from fleet_bugs import BUGS
from fleet_world import Broken, Rules

from taut.core.canonical import canonical_json
from taut.core.errors import TautError
from taut.core.evidence import Check, Outcome
from taut.fleet.admission import (
    Admission,
    Answer,
    Beat,
    Bundle,
    Epochs,
    GatewayView,
    Lease,
    Pool,
    ReplicaView,
    Stage,
    Terms,
)
from taut.fleet.log import ScaleEvent

TTL, QUOTA = 1, 10
OLD, NOT_YET = TTL + 1, -1
TERMS = Terms(
    pools=(
        Pool(name="gateway", artifacts="x", quota=QUOTA, follows=True),
        Pool(name="model", artifacts="x", quota=QUOTA),
    ),
    ttl_s=TTL, skew=0.0, join_s=100.0, patience_s=1.0, prepare_s=100.0, grace=(),
)  # fmt: skip
GATEWAY, FIRST, SECOND = 0, 1, 2
NAMES = ("gateway", "first", "second")
BEATS = 2  # of three parties, who may each send one more: gateway and first are admitted, second is synced


replace = msgspec.structs.replace


def bits(number: int) -> Iterator[int]:
    while number:
        lowest = number & -number
        yield lowest.bit_length() - 1
        number ^= lowest


def passed(*names: str) -> tuple[Check, ...]:
    return tuple(Check(name=name, outcome=Outcome.PASSED) for name in names)


def loaded(view: Any) -> Any:
    """Load at once whatever is offered."""
    own = view.own if isinstance(view, GatewayView) else view
    for bundle in own.offered:
        own = own.load(bundle)
    return replace(view, own=own) if isinstance(view, GatewayView) else own


SHOWN = (
    ("warmed", Stage.SYNCED, passed("golden", "latency")),
    ("probed", Stage.WARMED, passed("must_block", "must_pass", "tenant_isolation")),
)


class State(NamedTuple):
    """control, views: numbers of values. sent: a bit for each message on its way that could still change anything.

    committed, revoked: how many ticks ago, at most OLD; NOT_YET. shown: how much of warming and probing `second` did.
    """

    control: int
    views: tuple[int, int, int]
    sent: int
    beats: tuple[int, int, int]
    committed: int
    revoked: int
    shown: int


class Explorer:
    """Breadth first over all states; each value and each transition of a part is computed once."""

    def __init__(self, rules: Rules) -> None:
        self.rules = rules
        self.values: list[Any] = []
        self.numbers: dict[bytes, int] = {}
        self.messages: list[int] = []
        self.places: dict[int, int] = {}
        self.hear_control = cache(self._hear_control)
        self.hear_view = cache(self._hear_view)
        self.beat = cache(self._beat)
        self.control_does = cache(self._control_does)
        self.may = cache(self._may)
        self.uses = cache(self._uses)
        self.older = cache(self._older)

    def number(self, value: Any) -> int:
        key = type(value).__name__.encode() + canonical_json(value)
        found = self.numbers.get(key)
        if found is None:
            found = self.numbers[key] = len(self.values)
            self.values.append(value)
        return found

    def place(self, message: int) -> int:
        """Return the bit of a message."""
        if message not in self.places:
            self.places[message] = len(self.messages)
            self.messages.append(message)
        return self.places[message]

    # -- parts, each remembered

    def _beat(self, view: int) -> tuple[int, int]:
        value = self.values[view]
        own, beat = (value.own if isinstance(value, GatewayView) else value).beat(now_s=0.0)
        if isinstance(value, GatewayView):
            own = replace(value, own=own)
        return self.number(own), self.place(self.number(beat))

    def _hear_control(self, control: int, message: int) -> tuple[int, int | None]:
        try:
            step = self.values[control].hear(self.values[message], now_s=0.0)
        except TautError:
            return control, None
        return self.number(step.state), self.place(self.number(step.answer))

    def _hear_view(self, view: int, message: int) -> int:
        try:
            return self.number(loaded(self.values[view].hear(self.values[message], now_s=0.0)))
        except TautError:
            return view

    def _control_does(self, control: int, what: str, *arguments: Any, **timed: float) -> int:
        try:
            return self.number(getattr(self.values[control], what)(*arguments, **timed).state)
        except TautError:
            return control

    def _may(self, view: int) -> tuple[int, ...]:
        """Return the epochs under which a worker would serve a request of high risk now."""
        found = []
        for epoch in (1, 2):
            try:
                served = self.values[view].may_serve(epoch, "high", now_s=0.0)
            except TautError:
                continue
            if served.bundle.epoch != epoch:
                raise Broken(f"I5: a request pinned to {epoch} would be served under {served.bundle.epoch}")
            found.append(epoch)
        return tuple(found)

    def _uses(self, gateway: int, worker: int) -> int:
        """Return the epoch under which the gateway would start a request and send it to the worker now, or 0."""
        view, mine = self.values[gateway], self.values[worker]
        try:
            pin = view.pin("high", now_s=0.0)
            view.check(mine.invitation.replica, mine.invitation.incarnation, mine.key, pin, "high", now_s=0.0)
        except TautError:
            return 0
        return int(pin.epoch)

    def _older(self, number: int) -> int:
        """Return a value one tick later: every moment in it lies one further back, at most OLD."""
        value = self.values[number]
        if isinstance(value, Admission):
            members = {
                name: replace(one, since_s=0.0, heard_s=0.0, granted_s=max(one.granted_s - 1, -TTL))
                for name, one in value.members.items()
            }
            holds = tuple(replace(one, until_s=one.until_s - 1) for one in value.holds if one.until_s > 1)
            return self.number(replace(value, members=members, holds=holds))
        if isinstance(value, GatewayView):
            listed = {name: self.older_lease(one) for name, one in value.listed.items()}
            return self.number(replace(value, own=self.older_replica(value.own), listed=listed))
        return self.number(self.older_replica(value))

    def older_replica(self, view: ReplicaView) -> ReplicaView:
        return replace(
            view,
            asked={beat: max(at_s - 1, -TTL) for beat, at_s in view.asked.items()},
            lease=None if view.lease is None else self.older_lease(view.lease),
            before_until_s=max(view.before_until_s - 1, 0.0),
        )

    def older_lease(self, lease: Lease) -> Lease:
        return replace(lease, until_s=max(lease.until_s - 1, 0.0))

    # -- the whole

    def tick(self, state: State) -> State:
        return state._replace(
            control=self.older(state.control),
            views=tuple(self.older(view) for view in state.views),
            committed=min(state.committed + (state.committed != NOT_YET), OLD),
            revoked=min(state.revoked + (state.revoked != NOT_YET), OLD),
        )

    def start(self) -> State:
        control = self.rules.admission(terms=TERMS, epochs=Epochs(committed=Bundle(epoch=1, policy="p1")))
        for seq, (pool, n) in enumerate((("gateway", 1), ("model", 2)), start=1):
            event = ScaleEvent(seq=seq, scale_id=f"s{seq}", pool=pool, n=n, reason="", at_us=0)
            control = control.scaled(event).state
        views: list[Any] = []
        for name in NAMES:
            pool = "gateway" if name == "gateway" else "model"
            step = control.provision(name, pool, token=f"t-{name}", nonce=f"n-{name}", now_s=0.0)
            assert step.invitation is not None
            view = self.rules.replica(terms=TERMS, invitation=step.invitation, key=f"k-{name}", artifacts="x")
            control = step.state.attest(view.attest(), now_s=0.0).state
            views.append(self.rules.gateway(own=view) if pool == "gateway" else view)
        for place in (SECOND, FIRST, GATEWAY):
            for _ in range(2):
                control, views[place] = self.talk(control, views[place])
            if place != SECOND:
                for what, _, checks in SHOWN:
                    number = self.control_does(self.number(control), what, NAMES[place], 1, checks)
                    control = self.values[number]
                control, views[place] = self.talk(control, views[place])
        numbers = tuple(self.number(view) for view in views)
        return State(self.number(control), numbers, 0, (0, 0, 0), NOT_YET, NOT_YET, 0)  # type: ignore[arg-type]

    def talk(self, control: Admission, view: Any) -> tuple[Admission, Any]:
        own, beat = (view.own if isinstance(view, GatewayView) else view).beat(now_s=0.0)
        view = replace(view, own=own) if isinstance(view, GatewayView) else own
        step = control.hear(beat, now_s=0.0)
        return step.state, loaded(view.hear(step.answer, now_s=0.0))

    def next(self, state: State) -> Iterator[State]:
        control = state.control
        yield self.tick(state)
        for place in (GATEWAY, FIRST, SECOND):
            if state.beats[place] == 0 and sum(state.beats) < BEATS:
                view, bit = self.beat(state.views[place])
                beats = tuple(n + (place == at) for at, n in enumerate(state.beats))
                yield self.seen(state, place, view)._replace(beats=beats, sent=state.sent | 1 << bit)
        yield from self.arrivals(state)
        if state.shown < len(SHOWN):
            what, _, checks = SHOWN[state.shown]
            after = self.control_does(control, what, NAMES[SECOND], 1, checks)
            if after != control:
                yield state._replace(control=after, shown=state.shown + 1)
        after = self.control_does(control, "prepare", Bundle(epoch=2, policy="p2"), now_s=0.0)
        if after != control:
            yield state._replace(control=after)
        after = self.control_does(control, "commit", now_s=0.0)
        if after != control:
            self.look_at_commit(control, after)
            yield state._replace(control=after, committed=0)
        if state.revoked == NOT_YET:
            yield state._replace(control=self.control_does(control, "revoke", "k-first"), revoked=0)

    def arrivals(self, state: State) -> Iterator[State]:
        for bit in bits(state.sent):
            message = self.messages[bit]
            if isinstance(self.values[message], Beat):
                control, answer = self.hear_control(state.control, message)
                if answer is not None:
                    after = state._replace(control=control, sent=state.sent | 1 << answer)
                    yield self.without_dead(after, Beat, control)
            else:
                place = NAMES.index(self.values[message].replica)
                view = self.hear_view(state.views[place], message)
                if view != state.views[place]:
                    yield self.without_dead(self.seen(state, place, view), Answer, view, NAMES[place])

    def without_dead(self, state: State, kind: type, hearer: int, to: str = "") -> State:
        """Drop messages that the hearer refuses now: what came late, came twice or answers nothing is refused for ever."""
        sent = state.sent
        for bit in bits(sent):
            value = self.values[self.messages[bit]]
            if isinstance(value, kind) and (kind is Beat or value.replica == to):
                if kind is Beat:
                    dead = self.hear_control(hearer, self.messages[bit])[1] is None
                else:
                    dead = self.hear_view(hearer, self.messages[bit]) == hearer
                sent &= ~(dead << bit)
        return state._replace(sent=sent)

    def seen(self, state: State, place: int, view: int) -> State:
        before, after = (self.own(state.views[place]), self.own(view))
        if after.floor < before.floor:
            raise Broken(f"I4: {NAMES[place]} went from epoch {before.floor} to {after.floor}")
        return state._replace(views=tuple(view if at == place else old for at, old in enumerate(state.views)))  # type: ignore[arg-type]

    def own(self, view: int) -> ReplicaView:
        value = self.values[view]
        own: ReplicaView = value.own if isinstance(value, GatewayView) else value
        return own

    def look(self, state: State) -> None:
        """Judge what everybody would do now."""
        quota = 0
        for place in (FIRST, SECOND):
            view = state.views[place]
            for epoch in (*self.may(view), self.uses(state.views[GATEWAY], view)):
                if epoch == 0:
                    continue
                if place == SECOND and state.shown < len(SHOWN):
                    raise Broken(f"I1: second serves after {state.shown} of {len(SHOWN)} checks")
                if epoch == 1 and state.committed > TTL:
                    raise Broken(
                        f"I2: epoch 1 is served {state.committed} ticks or more after 2 was committed"
                    )
                if place == FIRST and state.revoked > TTL:
                    raise Broken(f"I6: first serves {state.revoked} ticks or more after it was revoked")
            lease = self.values[view].lease
            quota += lease.ticket.quota if lease is not None and lease.until_s > 0 else 0
        if quota > QUOTA:
            raise Broken(f"I3: {quota} are out of {QUOTA}")

    def look_at_commit(self, before: int, after: int) -> None:
        for pool in ("gateway", "model"):
            counts = [
                sum(one.pool == pool and control._serves(one, 0.0) for one in control.members.values())
                for control in (self.values[before], self.values[after])
            ]
            if counts[1] < min(1, counts[0]):
                raise Broken(f"I10: a commit left {counts[1]} of {counts[0]} in {pool}")

    def explore(self) -> tuple[int, int]:
        """Visit every state. Returns how many states and transitions there are; raises Broken in the first bad one."""
        first = self.start()
        found, waiting, transitions = {first}, deque([first]), 0
        while waiting:
            state = waiting.popleft()
            self.look(state)
            for after in self.next(state):
                transitions += 1
                if after not in found:
                    found.add(after)
                    waiting.append(after)
        return len(found), transitions


def test_no_reachable_state_of_a_small_fleet_breaks_an_invariant() -> None:
    states, transitions = Explorer(Rules()).explore()

    assert states > 100_000, f"only {states} states and {transitions} transitions were reached"


@pytest.mark.parametrize(
    ("bug", "breaks"),
    [
        ("AdmitsUnprobed", "I1"),
        ("GrantsFairShares", "I3"),
        ("ServesUnderTheNewest", "I5"),
        ("RenewsTheRevoked", "I6"),
        ("LeasesFromReceipt", "I6"),
        ("CommitsWithoutLooking", "I10"),
    ],
)
def test_the_exploration_comes_upon_a_forgotten_guard(bug: str, breaks: str) -> None:
    with pytest.raises(Broken, match=f"^{breaks}: "):
        Explorer(BUGS[bug][1]).explore()
