"""Rules over what was done: each looks at a window of acts beside those before it, and says what a person should look at.

They are signals, and refuse nothing. Each is a plain comparison that its notice repeats in words, so that whoever reads it can
judge it; none is a learned score.
"""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Callable, Iterator, Mapping
from datetime import timedelta
from typing import Any, Final, Literal

import msgspec

from taut.core.times import from_us
from taut.trust.notices.denials import DENIED

Severity = Literal["high", "medium", "low"]
_HOUR_US: Final = 3_600_000_000
_DAY_US: Final = 24 * _HOUR_US
ROTATED_EARLY: Final = timedelta(days=7)
DENIALS_MIN: Final = 10
HABIT_MIN: Final = 20
READS_MIN: Final = 20
READS_TIMES: Final = 5
MACHINES: Final = frozenset({"control", "admission", "watch", "system"})
"""Actors that are the platform itself: they have no habits."""


class Act(msgspec.Struct, frozen=True, kw_only=True):
    """A leaf as rules see it. action: what somebody did who left it, None for what the platform did by itself.

    administers: whether it changes who may do what, or what is served.
    """

    leaf: str
    at_us: int
    actor: str
    kind: str
    subject: str
    body: Mapping[str, Any] = {}
    action: str | None = None
    administers: bool = False
    discloses: bool = False


class Notice(msgspec.Struct, frozen=True, kw_only=True):
    """What should be looked at. leaf: the entry of the ledger that it is about, the last of several."""

    rule: str
    severity: Severity
    actor: str
    subject: str
    at_us: int
    said: str
    leaf: str


class Window(msgspec.Struct, frozen=True, kw_only=True):
    """Acts, oldest first: those to judge, and those before them, by which habits are known."""

    before: tuple[Act, ...]
    acts: tuple[Act, ...]
    night: tuple[int, int] = (22, 5)
    """Hours of UTC at which people are expected to sleep: from the first to before the second."""


Rule = Callable[[Window], Iterator[Notice]]


def analyse(window: Window) -> tuple[Notice, ...]:
    """Return every notice of every rule, the newest first."""
    found = [notice for rule in RULES.values() for notice in rule(window)]
    return tuple(sorted(found, key=lambda notice: (-notice.at_us, notice.rule, notice.leaf)))


def _notice(act: Act, rule: str, severity: Severity, said: str) -> Notice:
    return Notice(
        rule=rule, severity=severity, actor=act.actor, subject=act.subject, at_us=act.at_us, said=said, leaf=act.leaf,
    )  # fmt: skip


def new_admin(window: Window) -> Iterator[Notice]:
    """Somebody became an administrator who was none, or a key was made that acts as one."""
    for act in window.acts:
        was = str(act.body.get("before", "")).split()
        now = str(act.body.get("after", act.body.get("roles", ""))).split()
        if "admin" not in now or "admin" in was:
            continue
        if act.kind in ("identity.principal.created", "identity.principal.roles"):
            yield _notice(act, "new_admin", "high", f"{act.subject} became an administrator")
        elif act.kind == "identity.key.created":
            yield _notice(act, "new_admin", "medium", f"an API key of {act.subject} acts as an administrator")


def break_glass(window: Window) -> Iterator[Notice]:
    """The owner of the files acted over everybody's head, or an emergency was begun."""
    for act in window.acts:
        if act.kind == "identity.break_glass":
            yield _notice(
                act, "break_glass", "high", f"the owner's way in was used: {act.body.get('reason')}"
            )
        elif act.kind == "break_glass.begun":
            yield _notice(act, "break_glass", "high", f"an emergency was begun: {act.body.get('reason')}")
        elif act.kind == "break_glass.act":
            yield _notice(
                act, "break_glass", "medium", f"{act.body.get('operation')} was done in an emergency"
            )


def key_out_of_turn(window: Window) -> Iterator[Notice]:
    """A key was rotated again soon after, as one does who suspects something, or who wants an old one gone."""
    last: dict[str, int] = {}
    judged = set(map(id, window.acts))
    for act in (*window.before, *window.acts):
        if act.kind != "keys.rotated":
            continue
        before = last.get(act.subject)
        last[act.subject] = act.at_us
        if before is None or id(act) not in judged:
            continue
        apart = timedelta(microseconds=act.at_us - before)
        if apart < ROTATED_EARLY:
            said = f"{act.subject} was rotated again after {apart.total_seconds() / 3600:.1f} hours"
            yield _notice(act, "key_out_of_turn", "medium", said)


def many_denials(window: Window) -> Iterator[Notice]:
    """A principal was denied again and again within an hour."""
    for act in window.acts:
        times = act.body.get("times")
        if act.kind == DENIED and isinstance(times, int) and times >= DENIALS_MIN:
            severity: Severity = "medium" if times < 100 else "high"
            said = f"{act.actor} was denied {times} times within an hour, at last {act.body.get('action')}"
            yield _notice(act, "many_denials", severity, said)


def slowed_sign_in(window: Window) -> Iterator[Notice]:
    """Somebody tried to sign in as a person so often that he was slowed down."""
    for act in window.acts:
        if act.kind == "identity.signin.slowed":
            yield _notice(act, "slowed_sign_in", "medium", f"sign-ins as {act.subject} were slowed down")


def new_sign_in(window: Window) -> Iterator[Notice]:
    """A person signed in from where, or in a way in which, he never did, who has signed in before."""
    known: dict[str, set[str]] = defaultdict(set)
    judged = set(map(id, window.acts))
    for act in (*window.before, *window.acts):
        if act.kind != "identity.session.started":
            continue
        marks = {f"{name} {str(act.body[name])[:8]}" for name in ("method", "from") if act.body.get(name)}
        fresh = marks - known[act.subject]
        if fresh and known[act.subject] and id(act) in judged:
            said = f"{act.subject} signed in by what was never seen of him: {', '.join(sorted(fresh))}"
            yield _notice(act, "new_sign_in", "medium", said)
        known[act.subject] |= marks


def at_night(window: Window) -> Iterator[Notice]:
    """A person administered at night, who did not use to act at that hour."""
    habits: dict[str, Counter[int]] = defaultdict(Counter)
    for act in window.before:
        habits[act.actor][_hour(act)] += 1
    start, end = window.night
    for act in window.acts:
        hour = _hour(act)
        asleep = start <= hour or hour < end if start > end else start <= hour < end
        if act.administers and asleep and act.actor not in MACHINES and not habits[act.actor][hour]:
            said = f"{act.action} at {from_us(act.at_us):%H:%M} UTC, an hour at which {act.actor} did nothing before"
            yield _notice(act, "at_night", "low", said)


def first_use(window: Window) -> Iterator[Notice]:
    """Somebody with a history used a right to administer or to read data for the first time."""
    used: dict[str, set[str]] = defaultdict(set)
    acts: Counter[str] = Counter()
    for act in window.before:
        acts[act.actor] += 1
        if act.action is not None:
            used[act.actor].add(act.action)
    for act in window.acts:
        if act.action is None or not (act.administers or act.discloses):
            continue
        if acts[act.actor] >= HABIT_MIN and act.action not in used[act.actor]:
            said = f"{act.actor} used {act.action} for the first time in {acts[act.actor]} recorded acts"
            yield _notice(act, "first_use", "low", said)
        used[act.actor].add(act.action)


def much_reading(window: Window) -> Iterator[Notice]:
    """Somebody had rows handed out far more often on a day than on any day before."""
    before = Counter((act.actor, act.at_us // _DAY_US) for act in window.before if act.discloses)
    usual: dict[str, int] = defaultdict(int)
    for (actor, _), times in before.items():
        usual[actor] = max(usual[actor], times)
    days: dict[tuple[str, int], list[Act]] = defaultdict(list)
    for act in window.acts:
        if act.discloses:
            days[act.actor, act.at_us // _DAY_US].append(act)
    for (actor, _), found in days.items():
        if len(found) >= max(READS_MIN, READS_TIMES * usual[actor]):
            said = f"{actor} read data {len(found)} times in a day, {usual[actor]} at most before"
            yield _notice(found[-1], "much_reading", "medium", said)


def _hour(act: Act) -> int:
    return act.at_us // _HOUR_US % 24


RULES: Final[dict[str, Rule]] = {
    rule.__name__: rule
    for rule in (
        new_admin, break_glass, key_out_of_turn, many_denials, slowed_sign_in, new_sign_in, at_night, first_use,
        much_reading,
    )
}  # fmt: skip
