"""The journal: every statement that reads or writes the story tables."""

from __future__ import annotations

from collections.abc import Callable, Collection, Sequence
from typing import Final, TypeVar

import msgspec
from sqlalchemy import Row, and_, insert, select, update

from taut.adapters.stories.codec import encode, encode_error
from taut.adapters.stories.tables import NEVER, signals, steps, stories
from taut.core.errors import Conflict, InvalidInput, NotFound, TautError, Unavailable
from taut.core.times import to_us
from taut.ports.records import Records, Tx
from taut.ports.stories import Json, StoryState
from taut.ports.world import Clock, Ids, Random

T = TypeVar("T")

ENDED: Final = (StoryState.DONE, StoryState.FAILED, StoryState.CANCELLED)
_CONFLICTS_MAX: Final = 32


class Fenced(BaseException):
    """Somebody else runs the story now, or it was cancelled. Never leaves the engine."""


class Entry(msgspec.Struct, frozen=True, kw_only=True):
    """One recorded call: its result or its error, as JSON text."""

    number: int
    kind: str
    name: str
    value: str | None = None
    error: str | None = None


class Claim(msgspec.Struct, frozen=True, kw_only=True):
    """The right to run a story until the lease ends, proved by its epoch at every write."""

    id: str
    name: str
    root_id: str
    epoch: int
    attempts: int
    arguments: str
    wait_number: int | None
    wait_until_us: int | None
    entries: tuple[Entry, ...] = ()


class Journal:
    """Reads and writes stories in Records; holds no state but its collaborators."""

    def __init__(
        self,
        records: Records,
        *,
        clock: Clock,
        ids: Ids,
        random: Random,
        owner: str,
        lease_s: float,
        patience_s: float,
    ) -> None:
        self._records = records
        self._clock = clock
        self._ids = ids
        self._random = random
        self._owner = owner
        self._patience_s = patience_s
        self.lease_us = int(lease_s * 1_000_000)

    def now_us(self) -> int:
        return to_us(self._clock.now())

    def insist(self, do: Callable[[Tx], T], *, patient: bool = True) -> T:
        """Run `do` in a transaction, again after a conflict, and again while the database is away.

        Between tries it sleeps with growing, jittered pauses. Raises the last Conflict after 32 of them and, where
        it may be patient, Unavailable after `patience_s`; where not, at once.
        """
        give_up = self._clock.monotonic_s() + self._patience_s
        conflicts, pause_s = 0, 0.002
        while True:
            try:
                with self._records.begin() as tx:
                    return do(tx)
            except Conflict:
                conflicts += 1
                if conflicts == _CONFLICTS_MAX:
                    raise
                pause_s = min(pause_s * 1.5, 0.1)
            except Unavailable:
                if not patient or self._clock.monotonic_s() > give_up:
                    raise
                pause_s = min(pause_s * 2, 2.0)
            self._clock.sleep(pause_s * (0.5 + self._random.uniform()))

    # Starting and signalling

    def start(self, tx: Tx, name: str, arguments: Json, *, key: str, root_id: str | None = None) -> str:
        short(key, 255, "key")
        found = tx.execute(select(stories.c.id, stories.c.name).where(stories.c.key == key)).first()
        if found is not None:
            if found.name != name:
                raise Conflict(f"key {key!r} already started story {found.name}, not {name}: use another key")
            return str(found.id)
        id_, now = self._ids.new("story"), self.now_us()
        row = {
            "id": id_, "key": key, "name": short(name, 128, "story name"),
            "root_id": root_id or id_, "arguments": encode(arguments, what=f"arguments of story {name}"),
            "state": StoryState.RUNNING, "epoch": 0, "attempts": 0, "due_us": now, "started_us": now, "updated_us": now,
        }  # fmt: skip
        tx.execute(insert(stories).values(row))
        return id_

    def signal(self, tx: Tx, story_id: str, signal: str, value: Json) -> None:
        text = encode(value, what=f"value of signal {short(signal, 128, 'signal name')}")
        state = tx.execute(select(stories.c.state).where(stories.c.id == story_id)).scalar_one_or_none()
        if state is None:
            raise unknown(story_id)
        sent = select(signals.c.name).where(signals.c.story_id == story_id, signals.c.name == signal)
        if tx.execute(sent).first() is not None:
            return  # the first value won
        if state in ENDED:
            raise Conflict(f"story {story_id} is {state}: nothing will read signal {signal!r}")
        row = {
            "story_id": story_id,
            "name": signal,
            "value": text,
            "sent_us": self.now_us(),
        }
        tx.execute(insert(signals).values(row))
        waits = and_(stories.c.id == story_id, stories.c.waiting_for == signal)
        tx.execute(
            update(stories).where(waits, stories.c.state == StoryState.WAITING).values(due_us=self.now_us())
        )

    # Claiming, holding, letting go

    def due(self, names: Collection[str], *, root_id: str | None = None, limit: int = 16) -> Sequence[str]:
        """Return ids of stories that may be run now, those that wait longest first."""
        asked = select(stories.c.id).where(stories.c.due_us <= self.now_us(), stories.c.name.in_(names))
        if root_id is not None:
            asked = asked.where(stories.c.root_id == root_id)
        with self._records.read() as tx:
            return tx.execute(asked.order_by(stories.c.due_us).limit(limit)).scalars().all()

    def overdue(self, names: Collection[str], *, by_us: int) -> Sequence[str]:
        """Return ids of stories that are none of `names` and that nobody has taken up for `by_us`."""
        asked = select(stories.c.id).where(
            stories.c.due_us <= self.now_us() - by_us, stories.c.name.not_in(names)
        )
        with self._records.read() as tx:
            return tx.execute(asked.limit(16)).scalars().all()

    def held(self) -> Sequence[tuple[str, int, str]]:
        """Return (id, epoch, owner) of the stories whose lease has not ended."""
        asked = select(stories.c.id, stories.c.epoch, stories.c.owner).where(
            stories.c.state == StoryState.RUNNING,
            stories.c.due_us > self.now_us(),
            stories.c.owner.is_not(None),
        )
        with self._records.read() as tx:
            return [(row.id, row.epoch, row.owner) for row in tx.execute(asked)]

    def free(self, tx: Tx, story_id: str, epoch: int) -> None:
        """Let anybody take a story at once, unless somebody has done so meanwhile."""
        same = and_(stories.c.id == story_id, stories.c.epoch == epoch, stories.c.state == StoryState.RUNNING)
        tx.execute(update(stories).where(same).values(due_us=self.now_us()))

    def claim(self, story_id: str) -> Claim | None:
        """Take a due story, or return None when somebody else was faster. Raises Conflict when he was just so."""
        now = self.now_us()
        with self._records.begin() as tx:
            row = (
                tx.execute(select(stories).where(stories.c.id == story_id, stories.c.due_us <= now))
                .mappings()
                .first()
            )
            if row is None:
                return None
            taken = {
                "state": StoryState.RUNNING, "epoch": row["epoch"] + 1, "attempts": row["attempts"] + 1,
                "owner": self._owner, "due_us": now + self.lease_us, "waiting_for": None, "updated_us": now,
            }  # fmt: skip
            tx.execute(update(stories).where(stories.c.id == story_id).values(taken))
        # Read after the claim is committed: from here no other run of this story can add an entry.
        with self._records.read() as tx:
            rows = tx.execute(
                select(steps).where(steps.c.story_id == story_id).order_by(steps.c.number)
            ).all()
        return Claim(
            id=story_id, name=row["name"], root_id=row["root_id"], epoch=row["epoch"] + 1,
            attempts=row["attempts"] + 1, arguments=row["arguments"],
            wait_number=row["wait_number"], wait_until_us=row["wait_until_us"],
            entries=tuple(_entry(step) for step in rows),
        )  # fmt: skip

    def hold(self, tx: Tx, claim: Claim, **values: object) -> None:
        """Prove the claim by writing its row, and renew its lease. Raises Fenced when it is no longer held.

        A write, not a read: two transactions that write one row cannot both commit at any isolation level, so a
        zombie's effect and its successor's replay never overlap. A claim ends with its run, though nobody took the story
        since: a renewal that comes a moment too late would make one due again that has ended, or waits.
        """
        now = self.now_us()
        written = {"due_us": now + self.lease_us, "updated_us": now} | values
        mine = and_(
            stories.c.id == claim.id, stories.c.epoch == claim.epoch, stories.c.state == StoryState.RUNNING
        )
        if tx.execute(update(stories).where(mine).values(written)).rowcount == 0:
            raise Fenced

    def record(self, tx: Tx, claim: Claim, entry: Entry) -> None:
        """Add an entry in the transaction of its effect, after `hold`."""
        row = {"story_id": claim.id, "ended_us": self.now_us()} | msgspec.structs.asdict(entry)
        tx.execute(insert(steps).values(row))

    def recorded(self, tx: Tx, claim: Claim, number: int) -> Entry | None:
        """Return an entry that an earlier try of this very claim wrote, whose answer was lost."""
        row = tx.execute(select(steps).where(steps.c.story_id == claim.id, steps.c.number == number)).first()
        return None if row is None else _entry(row)

    def signal_value(self, tx: Tx, claim: Claim, signal: str) -> str | None:
        sent = select(signals.c.value).where(signals.c.story_id == claim.id, signals.c.name == signal)
        return tx.execute(sent).scalar_one_or_none()

    def suspend(self, tx: Tx, claim: Claim, *, signal: str, number: int, until_us: int) -> None:
        """Let a story go that waits, as call `number`, for a signal until a time."""
        waits = {"waiting_for": signal, "wait_number": number, "wait_until_us": until_us}
        self.hold(tx, claim, state=StoryState.WAITING, due_us=until_us, **waits)

    def end(
        self,
        tx: Tx,
        claim: Claim,
        state: StoryState,
        *,
        result: str | None = None,
        error: TautError | None = None,
    ) -> None:
        text = None if error is None else encode_error(error)
        self.hold(tx, claim, state=state, result=result, error=text, due_us=NEVER, waiting_for=None)

    def release(self, tx: Tx, claim: Claim) -> None:
        """Let a story go unharmed, so that anybody may take it at once."""
        self.hold(tx, claim, due_us=self.now_us(), attempts=claim.attempts - 1)


def _entry(row: Row[tuple[object, ...]]) -> Entry:
    return Entry(number=row.number, kind=row.kind, name=row.name, value=row.value, error=row.error)


def unknown(story_id: str) -> NotFound:
    """The error for an id that names no story."""
    return NotFound(f"there is no story {story_id!r}: list them to see their ids")


def short(text: str, length: int, what: str) -> str:
    """Return `text` when a column of `length` holds it. Raises InvalidInput otherwise."""
    if not 0 < len(text) <= length or "\0" in text:
        raise InvalidInput(
            f"{what} {text[:40]!r} has {len(text)} characters: use 1 to {length}, none of them NUL"
        )
    return text
