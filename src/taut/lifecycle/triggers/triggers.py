"""Triggers of models: looked at, fired, paused; one run at a time."""

from __future__ import annotations

from collections.abc import Callable
from datetime import datetime
from typing import Any, Final

import msgspec

from taut.core.errors import Conflict, Denied, InvalidInput
from taut.core.times import to_us
from taut.lifecycle.triggers import store
from taut.lifecycle.triggers.decide import State, decide, fired, first_state, next_due
from taut.lifecycle.triggers.seen import DAY, Seen
from taut.lifecycle.triggers.store import Firing
from taut.ports.records import Records, Tx, transact
from taut.ports.stories import Stories, StoryState
from taut.ports.world import Clock
from taut.project.manifest import RetrainingSpec, TriggerSpec
from taut.trust.ledger import Entry, Ledger

STORY: Final = "retrain"
_OVER: Final = (StoryState.DONE, StoryState.FAILED, StoryState.CANCELLED, StoryState.STRANDED)
_MAX_REASON: Final = 500


class Watched(msgspec.Struct, frozen=True, kw_only=True):
    """A model whose triggers are looked at. request: what the story is told, beside the number and the reasons of its firing."""

    model: str
    triggers: tuple[TriggerSpec, ...]
    rules: RetrainingSpec
    seen: Seen
    actor: str
    request: dict[str, Any] = {}


class Standing(msgspec.Struct, frozen=True, kw_only=True):
    """How the triggers of a model stand. waits: why no run begins. next_at: when the clock is a reason next."""

    model: str
    triggers: tuple[TriggerSpec, ...]
    rules: RetrainingSpec
    pending: tuple[str, ...]
    waits: str
    paused: str
    story: str
    next_at: datetime | None
    doubted: int
    firings: tuple[Firing, ...]


class Triggers:
    """The room of triggers.

    Guarantees: what is remembered of a model, the firing, its leaf in the ledger and the story that it starts commit
    together, so that whatever dies when, each reason begins one run, or is still there; of one model one run at a time
    is begun here.
    Not guaranteed: punctuality; that a run leads to a release, which its gates decide.
    """

    def __init__(self, records: Records, ledger: Ledger, clock: Clock, stories: Stories) -> None:
        self._records: Final = records
        self._ledger: Final = ledger
        self._clock: Final = clock
        self._stories: Final = stories

    def remembered(self, model: str) -> State | None:
        """Return what is remembered of a model; None where it was never looked at."""
        with self._records.read() as tx:
            found = store.remembered(tx, model)
        return None if found is None else found[0]

    def spent(self, model: str) -> int:
        """Return how many runs triggers began in the last 24 hours."""
        with self._records.read() as tx:
            return store.count_since(tx, model, to_us(self._clock.now() - DAY))

    def look(self, watched: Watched) -> Firing | None:
        """Note what ended, remember what is seen, and begin a run where one is due; return the run that ended just now."""
        ended = self._close(watched.model)
        now = self._clock.now()
        with self._records.read() as tx:
            found = store.remembered(tx, watched.model)
        if found is None:
            state = first_state(watched.triggers, watched.seen, now)
            self._keep(watched.model, state, turn=0)
            return ended
        state, turn = found
        if state.story:
            return ended
        decision = decide(watched.triggers, watched.rules, state, watched.seen, now)
        if decision.fire:
            transact(
                self._records,
                lambda tx: self._fire(
                    tx, watched, decision.state, decision.state.pending, turn, watched.actor
                ),
            )
        elif decision.state != state:
            self._keep(watched.model, decision.state, turn=turn)
        return ended

    def fire(self, watched: Watched, *, actor: str, reason: str) -> str:
        """Begin a run now because a person says so, whatever settles or is used up; return its story.

        Raises Conflict while one is under way or triggers are paused, Denied where whoever applied the plan, in whose name it
        would be, may not train, InvalidInput without a reason.
        """
        said = _reason(reason)
        if watched.seen.refused:
            raise Denied(watched.seen.refused)
        self._close(watched.model)
        if watched.seen.busy:
            raise Conflict(f"{watched.model} cannot be trained now: {watched.seen.busy}")
        begun: list[str] = []

        def do(tx: Tx) -> None:
            begun.clear()
            state, turn = self._state(tx, watched)
            if state.story:
                raise Conflict(f"run {state.number} of {watched.model} is under way: wait until it ends")
            if state.paused:
                raise Conflict(f"triggers of {watched.model} are paused {state.paused}: resume them first")
            begun.append(self._fire(tx, watched, state, (f"by hand: {said}",), turn, actor))

        transact(self._records, do)
        return begun[0]

    def pause(self, watched: Watched, *, actor: str, reason: str) -> None:
        """Let no trigger of the model begin a run until it is resumed; a run under way goes on."""
        said = f"by {actor}: {_reason(reason)}"
        self._set(
            watched, "trigger.paused", actor, reason, lambda state: _with(state, paused=said, pending=())
        )

    def resume(self, watched: Watched, *, actor: str, reason: str) -> None:
        """Let triggers begin runs again; times that passed meanwhile are left out, what else stands is a reason."""
        self._set(watched, "trigger.resumed", actor, reason, lambda state: _with(state, paused="", waits=""))

    def standing(self, watched: Watched, *, limit: int = 5) -> Standing:
        """Return how things stand as of now; nothing is remembered by it."""
        now = self._clock.now()
        with self._records.read() as tx:
            found = store.remembered(tx, watched.model)
            firings = store.listed(tx, watched.model, limit=limit)
        state = first_state(watched.triggers, watched.seen, now) if found is None else found[0]
        if not state.story:
            state = decide(watched.triggers, watched.rules, state, watched.seen, now).state
        return Standing(
            model=watched.model, triggers=watched.triggers, rules=watched.rules, pending=state.pending, waits=state.waits,
            paused=state.paused, story=state.story, next_at=next_due(watched.triggers, now), doubted=watched.seen.doubted,
            firings=firings,
        )  # fmt: skip

    def _fire(
        self, tx: Tx, watched: Watched, state: State, reasons: tuple[str, ...], turn: int, actor: str
    ) -> str:
        now, model, number = self._clock.now(), watched.model, state.number + 1
        arguments = {**watched.request, "model": model, "number": number, "reasons": list(reasons)}
        story = self._stories.start_in(tx, STORY, arguments, key=f"{STORY}/{model}/{number}")
        if not store.remember(tx, model, fired(state, watched.seen, now, story=story), turn=turn):
            raise Conflict(f"the triggers of {model} were changed meanwhile: try again")
        store.begin(tx, model, number, story=story, reasons=reasons, actor=actor, at_us=to_us(now))
        body = {
            "number": number,
            "story": story,
            "reasons": list(reasons),
            "snapshots": watched.seen.snapshots,
        }
        self._ledger.append(tx, Entry("trigger.fired", f"model:{model}", actor, body))
        return story

    def _close(self, model: str) -> Firing | None:
        """Note what became of a run that has ended, once."""
        with self._records.read() as tx:
            found = store.remembered(tx, model)
        if found is None or not found[0].story:
            return None
        state, turn = found
        status = self._stories.status(state.story)
        if status.state not in _OVER:
            return None
        outcome = {"state": str(status.state), "error": status.error, **(status.result or {})}
        now_us = to_us(self._clock.now())

        def do(tx: Tx) -> Firing | None:
            if not store.remember(tx, model, _with(state, story="", waits=""), turn=turn):
                return None
            store.end(tx, model, state.number, outcome=outcome, at_us=now_us)
            said = {name: outcome.get(name) for name in ("state", "error", "decision", "version", "run")}
            body = {"number": state.number, "story": state.story, **said}
            self._ledger.append(tx, Entry("trigger.ended", f"model:{model}", "control", body))
            return store.listed(tx, model, limit=1)[0]

        return transact(self._records, do)

    def _state(self, tx: Tx, watched: Watched) -> tuple[State, int]:
        found = store.remembered(tx, watched.model)
        return found or (first_state(watched.triggers, watched.seen, self._clock.now()), 0)

    def _keep(self, model: str, state: State, *, turn: int) -> None:
        """Write what was decided, unless somebody else wrote meanwhile: the next look decides anew."""

        def do(tx: Tx) -> None:
            if turn or store.remembered(tx, model) is None:
                store.remember(tx, model, state, turn=turn)

        transact(self._records, do)

    def _set(
        self, watched: Watched, kind: str, actor: str, reason: str, change: Callable[[State], State]
    ) -> None:
        said = _reason(reason)

        def do(tx: Tx) -> None:
            state, turn = self._state(tx, watched)
            if not store.remember(tx, watched.model, change(state), turn=turn):
                raise Conflict(f"the triggers of {watched.model} were changed meanwhile: try again")
            self._ledger.append(tx, Entry(kind, f"model:{watched.model}", actor, {"reason": said}))

        transact(self._records, do)


def _with(state: State, **values: object) -> State:
    return msgspec.structs.replace(state, **values)


def _reason(text: str) -> str:
    said = " ".join(text.split())
    if not said or len(said) > _MAX_REASON or not said.isprintable():
        raise InvalidInput(f"say why, in 1 to {_MAX_REASON} printable characters: --reason '...'")
    return said
