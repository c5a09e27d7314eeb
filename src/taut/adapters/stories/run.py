"""One run of one story: replays what the journal holds, then does and records what comes next."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import timedelta
from typing import Final, NoReturn, Protocol, TypeVar

from taut.adapters.stories.codec import decode, decode_error, encode, encode_error
from taut.adapters.stories.journal import Claim, Entry, Fenced, Journal, short
from taut.adapters.stories.tables import NEVER
from taut.core.errors import Conflict, Corrupt, DeadlineExceeded, Exhausted, TautError, Unavailable
from taut.core.room import room_for
from taut.ports.records import Tx
from taut.ports.stories import Json
from taut.ports.world import Clock

_PAUSES_S: Final = (0.5, 1.5, 4.5)
"""Between tries of a step that found something unavailable: as long as a database takes to start again."""

T = TypeVar("T")
E = TypeVar("E", Entry, Entry | None)


class Unwind(BaseException):
    """Leaves a story's function without ending the story. No Exception, so that stories do not catch it by habit."""


class Suspended(Unwind):
    """It waits; the journal says for what."""


class Lost(Unwind):
    """The lease is somebody else's, or the story was cancelled: this run may write nothing more."""


class Stopping(Unwind):
    """The engine stops, or the caller's time is over: the story goes on elsewhere."""


class Stranded(Unwind):
    """The code does not fit the journal."""


class Away(Unwind):
    """The database did not come back in time: the lease runs out, somebody resumes."""


class Host(Protocol):
    """What a run needs of its engine."""

    def stopping(self) -> bool: ...

    def progress(self, story_id: str, message: str, fraction: float | None) -> None: ...

    def ring(self) -> None: ...

    def known(self, story: str) -> None:
        """Raise InvalidInput unless this version of the code knows the story."""


class _Raised(Exception):
    """Carries a TautError of the step's own out of a transaction, past the errors of the transaction itself."""

    def __init__(self, error: TautError) -> None:
        super().__init__(str(error))
        self.error = error


class Run:
    """The Story that a story's function sees. For one thread."""

    def __init__(
        self,
        claim: Claim,
        journal: Journal,
        host: Host,
        clock: Clock,
        *,
        steps_max: int,
        until_s: float | None = None,
    ) -> None:
        self._claim = claim
        self._journal = journal
        self._host = host
        self._clock = clock
        self._until_s = until_s
        self._steps_max = steps_max
        self._number = 0
        self._inside = ""  # the step whose function runs now: calls do not nest
        self._held_s = clock.monotonic_s()  # when the lease was last known to be ours
        self.broken: BaseException | None = None
        self.lost = False  # set by whoever renews leases

    @property
    def id(self) -> str:
        return self._claim.id

    @property
    def claim(self) -> Claim:
        return self._claim

    def step(self, name: str, do: Callable[[], Json]) -> Json:
        entry = self._next("step", name)
        if entry is None:
            with self._doing(name):
                value, error = self._tried(do)
            entry = self._save("step", name, value, error)
        return self._outcome(entry)

    def _tried(self, do: Callable[[], Json]) -> tuple[Json, TautError | None]:
        """Run a step's function, again while what it needs is unavailable; its last error is the step's own."""
        for pause_s in (*_PAUSES_S, None):
            try:
                with room_for("a step of the story"):
                    return do(), None
            except DeadlineExceeded as raised:  # somebody waits no longer: trying again helps nobody
                return None, raised
            except Unavailable as raised:
                if pause_s is None:
                    return None, raised
                self._host.progress(self.id, f"will try again: {raised.message}", None)
                self._clock.sleep(pause_s)
                self._still_ours()
            except TautError as raised:
                return None, raised
        raise AssertionError("the last pause is None")

    def commit(self, name: str, do: Callable[[Tx], Json]) -> Json:
        entry = self._next("commit", name)
        if entry is not None:
            return self._outcome(entry)

        def effect(tx: Tx) -> Entry:
            try:
                value = do(tx)
            except TautError as error:
                raise _Raised(error) from error
            return self._entry("commit", name, encode(value, what=f"result of commit {name!r}"))

        with self._doing(name):
            try:
                return self._outcome(self._recording(effect))
            except _Raised as raised:
                failure = raised.error
            except (
                Conflict
            ) as conflict:  # other transactions won again and again: as good as the step's own word
                failure = conflict
        return self._outcome(self._save("commit", name, None, failure))

    def wait(self, signal: str, *, timeout: timedelta | None = None) -> Json:
        entry = self._next("wait", signal)
        if entry is not None:
            return self._outcome(entry)
        claim = self._claim
        until = NEVER if timeout is None else self._journal.now_us() + timeout // timedelta(microseconds=1)
        if claim.wait_number == self._number and claim.wait_until_us is not None:
            until = claim.wait_until_us  # this wait began in an earlier run

        def look(tx: Tx) -> Entry | None:
            value = self._journal.signal_value(tx, claim, signal)
            if value is None and self._journal.now_us() < until:
                self._journal.suspend(tx, claim, signal=signal, number=self._number, until_us=until)
                return None
            return self._entry("wait", signal, value or "null")

        found = self._recording(look)
        if found is None:
            self._leave(Suspended(signal))
        return self._outcome(found)

    def fork(self, name: str, story: str, arguments: Json) -> str:
        entry = self._next("fork", name)
        if entry is None:
            claim, key = self._claim, f"{self.id}/{self._number}"

            def start(tx: Tx) -> Entry:
                child = self._journal.start(tx, story, arguments, key=key, root_id=claim.root_id)
                return self._entry("fork", name, encode(child, what="id"))

            self._host.known(story)
            entry = self._recording(start)
            self._host.ring()
        return str(self._outcome(entry))

    def progress(self, message: str, fraction: float | None = None) -> None:
        self._host.progress(self.id, message, fraction)

    def finish(self) -> None:
        """Prove that the code made every call that is on record. Unwinds as Stranded otherwise."""
        if self.broken is None and self._number < len(self._claim.entries):
            entry = self._claim.entries[self._number]
            self._leave(
                Stranded(
                    f"the code ended where the journal has call {entry.number}, {entry.kind} {entry.name!r}"
                )
            )

    def _next(self, kind: str, name: str) -> Entry | None:
        """Go on to the next call; return its entry when it is on record."""
        assert not self._inside, f"{kind} {name!r} inside {self._inside!r}: call it after that has returned"
        if self.broken is not None:
            raise self.broken
        short(name, 128, f"name of a {kind}")
        self._number += 1
        if self._number > self._steps_max:
            self._break(
                Exhausted(
                    f"story {self.id} has made {self._steps_max} calls: fork a story for each part of the work"
                )
            )
        if self._number <= len(self._claim.entries):
            entry = self._claim.entries[self._number - 1]
            if (entry.number, entry.kind, entry.name) != (self._number, kind, name):
                self._leave(Stranded(
                    f"call {self._number} is {kind} {name!r} in the code and {entry.kind} {entry.name!r} in the journal"
                ))  # fmt: skip
            return entry
        self._still_ours()
        return None

    def _still_ours(self) -> None:
        """Before anything is done: unwind where this run should not go on, as far as that can be known."""
        if self.lost:
            self._leave(Lost())
        now = self._clock.monotonic_s()
        if self._host.stopping() or (self._until_s is not None and now > self._until_s):
            self._leave(Stopping())
        if (
            now - self._held_s > self._journal.lease_us / 2_000_000
        ):  # asleep, or nobody renews: ask before acting
            self._written(lambda tx: self._journal.hold(tx, self._claim))

    @contextmanager
    def _doing(self, name: str) -> Iterator[None]:
        """Mark that the function of a step runs; what it raises, and the journal does not record, breaks the run.

        A story that caught such an error and went on would not replay: the failed call has no entry.
        """
        self._inside = name
        try:
            yield
        except BaseException as error:
            self.broken = self.broken or error
            raise
        finally:
            self._inside = ""

    def _save(self, kind: str, name: str, value: Json, error: TautError | None) -> Entry:
        try:
            text = None if error else encode(value, what=f"result of {kind} {name!r}")
        except TautError as unfit:
            self._break(unfit)
        return self._recording(lambda _: self._entry(kind, name, text, error))

    def _entry(self, kind: str, name: str, value: str | None, error: TautError | None = None) -> Entry:
        failure = None if error is None else encode_error(error)
        return Entry(number=self._number, kind=kind, name=name, value=value, error=failure)

    def _recording(self, do: Callable[[Tx], E]) -> E:
        """Run `do` in a transaction that holds the claim, and record the entry that it returns, if it does."""
        claim = self._claim

        def transaction(tx: Tx) -> E:
            self._journal.hold(tx, claim, attempts=0)
            earlier = self._journal.recorded(tx, claim, self._number)
            if earlier is not None:  # ours, since we hold the claim: only the answer to that commit was lost
                return earlier
            entry = do(tx)
            if entry is not None:
                self._journal.record(tx, claim, entry)
            return entry

        return self._written(transaction)

    def _written(self, do: Callable[[Tx], T]) -> T:
        try:
            result = self._journal.insist(do)
        except Fenced:
            self._leave(Lost())
        except Unavailable as away:
            self._leave(Away(str(away)))
        self.renewed()
        return result

    def renewed(self) -> None:
        """Note that the lease was renewed just now."""
        self._held_s = self._clock.monotonic_s()

    def _outcome(self, entry: Entry) -> Json:
        """Return or raise what is on record: the same value, decoded anew, in the first run and in every replay."""
        try:
            error = None if entry.error is None else decode_error(entry.error)
            value = decode(entry.value or "null", what=f"{entry.kind} {entry.name!r} of story {self.id}")
        except Corrupt as damage:  # the journal itself; a step that finds damage elsewhere fails with it
            self._leave(Stranded(str(damage)))
        if error is not None:
            raise error
        return value

    def _leave(self, unwind: Unwind) -> NoReturn:
        self.broken = unwind
        raise unwind

    def _break(self, error: TautError) -> NoReturn:
        self.broken = error
        raise error


def mismatch(claim: Claim, why: str) -> Conflict:
    """The error of a stranded story: where it stands and what a person can do."""
    return Conflict(
        f"story {claim.id} ({claim.name}) is stranded: {why}. Deploy the code that it was started with and resume it,"
        " or cancel it"
    )
