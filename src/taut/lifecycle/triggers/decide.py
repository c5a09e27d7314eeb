"""Shall a run begin now? A function of what is declared, what is remembered and what is seen."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime, time
from typing import Final

import msgspec

from taut.core.cron import Cron, zone_of
from taut.core.times import from_us, to_us
from taut.core.units import parse_duration
from taut.lifecycle.triggers.seen import Seen
from taut.project.manifest import RetrainingSpec, TriggerSpec
from taut.project.triggers import leaves

_REASONS: Final = 8
_IDLE: Final = "no trigger has a reason"


class State(msgspec.Struct, frozen=True, kw_only=True):
    """What is remembered of a model between looks.

    learned, code: what there was when the last run began, whatever became of it. acted: alerts that a run answered already. taken: schedule -> the latest time of it that was looked at.
    since_us: from when on outcomes count. pending: why a run is to begin, since `pending_us`; timed: where a time is among the reasons. waits: why
    none begins. paused: by whom and why. story: of the run under way, the `number`th.
    """

    learned: dict[str, int] = {}
    code: str = ""
    acted: tuple[str, ...] = ()
    taken: dict[str, int] = {}
    since_us: int = 0
    pending: tuple[str, ...] = ()
    pending_us: int = 0
    timed: bool = False
    waits: str = ""
    paused: str = ""
    story: str = ""
    number: int = 0


class Decision(msgspec.Struct, frozen=True, kw_only=True):
    """state: what is to be remembered; where `fire` is true, without the story that begins with it."""

    state: State
    fire: bool = False


def first_state(triggers: Sequence[TriggerSpec], seen: Seen, now: datetime) -> State:
    """Return what is remembered of a model that was never looked at: what is there now, and times before now, are no reason."""
    learned = {**seen.snapshots, **seen.learned}
    return State(
        learned=learned, code=seen.code or seen.now_code, taken=_due(triggers, now), since_us=to_us(now)
    )


def decide(
    triggers: Sequence[TriggerSpec], rules: RetrainingSpec, state: State, seen: Seen, now: datetime
) -> Decision:
    """Look at what stands, remember it, and say whether a run begins.

    Guarantees: a time that passed while nobody looked counts once; one alert is answered by one run; a reason that has arisen
    stays until a run begins. Where the same rows and code were learned from already it is dropped: the result would be the same; an alert
    that is still open then is a reason again as soon as something is new.
    """
    state = _learned_meanwhile(state, seen)
    before, state = state, _replace(state, taken={**state.taken, **_due(triggers, now)})
    if state.paused:
        return Decision(state=_replace(state, waits=f"paused {state.paused}"))
    due = {key for key, at_us in state.taken.items() if at_us > before.taken.get(key, at_us)}
    found, timed = _reasons(triggers, state, seen, due)
    if found and not state.pending:
        state = _replace(state, pending=found[:_REASONS], pending_us=to_us(now), timed=timed)
    elif found:
        newest = {_kind(one): one for one in (*state.pending, *found)}
        state = _replace(state, pending=tuple(newest.values())[:_REASONS], timed=state.timed and timed)
    if not state.pending:
        return Decision(state=_replace(state, waits=seen.refused or _IDLE))
    if state.learned == seen.snapshots and state.code == seen.now_code:
        why = f"{'; '.join(state.pending)}; but there is nothing new to learn from since the last run"
        return Decision(state=_replace(state, pending=(), pending_us=0, waits=why))
    waits = seen.refused or seen.busy or _settling(rules, state, now) or _bounded(rules, seen, now)
    return Decision(state=_replace(state, waits=waits), fire=not waits)


def fired(state: State, seen: Seen, now: datetime, *, story: str) -> State:
    """Return what is remembered once a run began."""
    return _replace(
        state, learned=dict(seen.snapshots), code=seen.now_code, acted=tuple(sorted({one for some in seen.alarms.values() for one in some})),
        since_us=to_us(now), pending=(), pending_us=0, timed=False, waits=f"run {state.number + 1} is under way", story=story,
        number=state.number + 1,
    )  # fmt: skip


def next_due(triggers: Sequence[TriggerSpec], now: datetime) -> datetime | None:
    """Return when the clock is a reason next; None where it never is."""
    found = [Cron(one.schedule or "", one.zone).next(now) for one in leaves(triggers) if one.kind == "cron"]
    return min((at for at in found if at is not None), default=None)


def _replace(state: State, **values: object) -> State:
    return msgspec.structs.replace(state, **values)


def _learned_meanwhile(state: State, seen: Seen) -> State:
    """What a person trained counts as learned too."""
    if all(number <= state.learned.get(name, 0) for name, number in seen.learned.items()):
        return state
    learned = {name: max(number, state.learned.get(name, 0)) for name, number in seen.learned.items()}
    return _replace(state, learned={**state.learned, **learned}, code=seen.code)


def _due(triggers: Sequence[TriggerSpec], now: datetime) -> dict[str, int]:
    """Return each schedule with its latest time up to now."""
    found = {}
    for one in leaves(triggers):
        if one.kind == "cron":
            last = Cron(one.schedule or "", one.zone).last(now)
            found[_key(one)] = 0 if last is None else to_us(last)
    return found


def _key(trigger: TriggerSpec) -> str:
    return f"{trigger.schedule} {trigger.zone}"


def _reasons(
    triggers: Sequence[TriggerSpec], state: State, seen: Seen, due: set[str]
) -> tuple[tuple[str, ...], bool]:
    """Return the reasons of triggers that say so, and whether each of these has a time in it."""
    found = [(trigger, _reason(trigger, state, seen, due)) for trigger in triggers]
    speaking = [(trigger, said) for trigger, said in found if said]
    timed = all(any(leaf.kind == "cron" for leaf in leaves([trigger])) for trigger, _ in speaking)
    return tuple(dict.fromkeys(one for _, said in speaking for one in said)), bool(speaking) and timed


def _reason(trigger: TriggerSpec, state: State, seen: Seen, due: set[str]) -> tuple[str, ...]:
    match trigger.kind:
        case "new_data":
            rows = seen.added.get(trigger.dataset or "", 0)
            return (f"new data: {rows:,} rows of {trigger.dataset}",) if rows >= trigger.count else ()
        case "drift" | "quality":
            fresh = [one for one in seen.alarms.get(trigger.kind, ()) if one not in state.acted]
            return (f"{trigger.kind}: alert {', '.join(fresh[:3])}",) if fresh else ()
        case "feedback":
            told = f"feedback: {seen.outcomes:,} outcomes"
            return (told,) if seen.outcomes >= trigger.count else ()
        case "cron":
            at = from_us(state.taken[_key(trigger)])
            return (f"schedule: {at:%Y-%m-%dT%H:%MZ}",) if _key(trigger) in due else ()
        case "all":
            each = [_reason(one, state, seen, due) for one in trigger.of]
            return tuple(one for said in each for one in said) if all(each) else ()
        case _:
            return tuple(one for part in trigger.of for one in _reason(part, state, seen, due))


def _kind(reason: str) -> str:
    """Return what a reason is about: a newer one of the same stands in its place."""
    head, _, rest = reason.partition(": ")
    return f"{head} {rest.rpartition(' ')[2]}" if head == "new data" else head


def _settling(rules: RetrainingSpec, state: State, now: datetime) -> str:
    """Return until when more is waited for. A time needs no waiting."""
    until = from_us(state.pending_us) + parse_duration(rules.settle)
    return (
        "" if state.timed or now >= until else f"waits for what else comes until {until:%Y-%m-%dT%H:%M:%SZ}"
    )


def _bounded(rules: RetrainingSpec, seen: Seen, now: datetime) -> str:
    if rules.window is not None and not inside(rules.window, rules.zone, now):
        return f"waits for its hours, {rules.window} {rules.zone}"
    if seen.spent.runs >= rules.runs_per_day:
        return f"its {rules.runs_per_day} runs of 24 hours are used up"
    hours = rules.cpu_hours_per_day
    if hours is not None and seen.spent.cpu_s >= hours * 3600:
        return f"its {hours:g} hours of processor time of 24 hours are used up"
    return ""


def inside(window: str, zone: str, now: datetime) -> bool:
    """Whether it is one of these hours of the day; of a window that ends before it begins, past midnight.

    >>> inside("22:00-06:00", "UTC", datetime.fromisoformat("2026-01-01T23:30:00Z"))
    True
    """
    begin, end = (time.fromisoformat(each) for each in window.split("-"))
    clock = now.astimezone(zone_of(zone)).time()
    return begin <= clock < end if begin <= end else clock >= begin or clock < end
