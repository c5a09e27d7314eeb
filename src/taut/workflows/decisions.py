"""What people decided about a version, told to the stories that wait for it."""

from __future__ import annotations

from typing import Final

from taut.core.refs import VersionRef
from taut.ports.stories import Stories, StoryState
from taut.workflows.rooms import Rooms

_DECISION: Final = "decision"


def decision_signal(version: VersionRef | str) -> str:
    """Name of the signal that tells a waiting story how people decided about a version."""
    return f"{_DECISION} {version}"


def tell_decisions(rooms: Rooms, engine: Stories) -> int:
    """Wake the stories whose version was decided about, and return how many.

    Called after a decision, and now and then, so that a crash between the two leaves nobody waiting.
    """
    told = 0
    for status in engine.list(state=StoryState.WAITING, limit=1000):
        word, _, name = (status.waiting_for or "").partition(" ")
        if word != _DECISION:
            continue
        from taut.lifecycle.registry import ModelState  # which reads frames: most of the time nobody waits

        info = rooms.registry.show(VersionRef.parse(name))
        if info.releasable or info.state is ModelState.REJECTED:
            engine.signal(status.id, decision_signal(info.ref), "approved" if info.releasable else "rejected")
            told += 1
    return told
