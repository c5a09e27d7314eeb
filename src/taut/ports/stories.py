"""Stories: work of several steps that survives the death of whoever runs it."""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping
from datetime import datetime, timedelta
from enum import StrEnum
from typing import Any, Protocol

import msgspec

from taut.core.errors import TautError
from taut.ports.records import Tx

Json = Any
"""A JSON value. Everything that a story keeps is JSON: nothing is ever unpickled."""


class StoryState(StrEnum):
    RUNNING = "running"
    WAITING = "waiting"  # for a signal or a time
    DONE = "done"
    FAILED = "failed"
    CANCELLED = "cancelled"
    STRANDED = "stranded"  # its recorded steps do not fit the code that is deployed now; a person must decide


class StoryStatus(msgspec.Struct, frozen=True, kw_only=True):
    """Where a story stands; `steps` are the names of those that ended, in order."""

    id: str
    name: str
    state: StoryState
    arguments: Json
    result: Json = None
    error: str = ""  # "code: message" of the TautError, or of the exception, that ended it
    waiting_for: str | None = None
    steps: tuple[str, ...] = ()
    started_at: datetime
    updated_at: datetime


class StoryFailed(TautError):
    """The story's own code broke: mend it and start the story anew under another key."""

    code = "internal"


class Story(Protocol):
    """What a running story may do. Its function must be deterministic apart from these calls.

    The n-th call in the code is the n-th entry of the journal; a replay returns what was recorded.
    """

    @property
    def id(self) -> str: ...

    def step(self, name: str, do: Callable[[], Json]) -> Json:
        """Run `do` and record its result. At least once: make its effect idempotent by a key, or fence it.

        While it raises Unavailable it is run again, a few times over a few seconds. Any other TautError, and the last
        Unavailable, that `do` raises is recorded and raised again, the same on replay; other exceptions are not
        recorded (the story fails, or the step runs again after a crash).
        """
        ...

    def commit(self, name: str, do: Callable[[Tx], Json]) -> Json:
        """Run `do` in a transaction that also records the step: exactly once in effect."""
        ...

    def wait(self, signal: str, *, timeout: timedelta | None = None) -> Json:
        """Wait for `Stories.signal(story, signal, value)` and return the value; None after `timeout`.

        The wait is durable and may last days; it holds no thread while it lasts.
        """
        ...

    def fork(self, name: str, story: str, arguments: Json) -> str:
        """Start another story exactly once and return its id."""
        ...

    def progress(self, message: str, fraction: float | None = None) -> None:
        """Tell observers where the work stands. Not recorded, never replayed."""
        ...


StoryFunction = Callable[[Story, Json], Json]


class Stories(Protocol):
    """Runs stories on Records.

    Guarantees: a story that `start` returned is not lost: whichever process lives resumes it from its last recorded
    step, also when the first one was killed at any instant or lost its lease while asleep (a zombie's next recorded
    step or commit fails and changes nothing: every write is fenced by the lease's epoch). `commit` steps happen
    exactly once in effect. Nothing recorded is executable.

    Not guaranteed: that a `step` runs at most once; order between stories; that code deployed between two steps fits
    the journal: a story whose next call differs from its journal becomes STRANDED and says where.

    Errors: InvalidInput for an unknown story name or arguments that are not JSON; NotFound for an unknown id.
    """

    def start(self, name: str, arguments: Json, *, key: str) -> str:
        """Start a story once for `key` and return its id; the same key again returns the same id."""
        ...

    def start_in(self, tx: Tx, name: str, arguments: Json, *, key: str) -> str:
        """Start a story if and only if `tx` commits."""
        ...

    def signal(self, story_id: str, signal: str, value: Json) -> None:
        """Deliver a value; kept until it is waited for. The first value for a name wins."""
        ...

    def signal_in(self, tx: Tx, story_id: str, signal: str, value: Json) -> None: ...

    def status(self, story_id: str) -> StoryStatus: ...

    def list(self, *, state: StoryState | None = None, limit: int = 100) -> tuple[StoryStatus, ...]: ...

    def result(self, story_id: str, *, timeout: timedelta | None = None) -> Json:
        """Wait until a story ends, running it in this process where nobody else does; return or raise its end."""
        ...

    def watch(self, story_id: str, observe: Callable[[str, float | None], None]) -> None:
        """Call `observe(message, fraction)` for progress of a story that runs in this process."""
        ...

    def cancel(self, story_id: str, *, reason: str) -> None:
        """End a story. Whoever runs it is fenced off: its next call fails. One that has ended stays as it is."""
        ...

    def resume(self, story_id: str) -> None:
        """Run a stranded story again, after the code that fits its journal was deployed. Conflict on any other."""
        ...

    def work(self, *, until_idle: bool = False, only: Collection[str] | None = None) -> None:
        """Run due stories in this thread until `stop`; with `until_idle`, until none is due.

        only: names of stories that this thread is kept for, so that others, however long, hold none of them up.
        Raises InvalidInput for a name that is not known.
        """
        ...

    def stop(self) -> None: ...


StoryTable = Mapping[str, StoryFunction]
"""The stories that this version of the code knows, by name; given to the engine when it is made."""
