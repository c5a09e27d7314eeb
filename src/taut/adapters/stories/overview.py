"""What people see of stories, and what they decide about them."""

from __future__ import annotations

from sqlalchemy import RowMapping, select, update

from taut.adapters.stories.codec import decode, describe_error, encode_error
from taut.adapters.stories.journal import ENDED, unknown
from taut.adapters.stories.tables import NEVER, steps, stories
from taut.core.errors import Conflict, Corrupt
from taut.core.times import from_us, to_us
from taut.ports.records import Records, Tx
from taut.ports.stories import Json, StoryState, StoryStatus
from taut.ports.world import Clock


class Overview:
    """Reads every story; changes one only where nobody may run it afterwards, or nobody did."""

    def __init__(self, records: Records, *, clock: Clock) -> None:
        self._records = records
        self._clock = clock

    def cancel(self, tx: Tx, story_id: str, *, reason: str) -> None:
        row = self._row(tx, story_id)
        if row["state"] not in ENDED:
            ended = {
                "state": StoryState.CANCELLED, "error": encode_error(Conflict(f"story {story_id} was cancelled: {reason}")),
                "epoch": row["epoch"] + 1, "due_us": NEVER, "waiting_for": None, "updated_us": to_us(self._clock.now()),
            }  # fmt: skip
            tx.execute(update(stories).where(stories.c.id == story_id).values(ended))

    def strand(self, tx: Tx, story_id: str) -> None:
        """Set a story aside that no code here knows and that nobody holds."""
        row = self._row(tx, story_id)
        why = (
            f"story {story_id} is stranded: no code that is deployed knows {row['name']!r}."
            " Deploy it and resume the story, or cancel it"
        )
        if row["state"] in (StoryState.RUNNING, StoryState.WAITING) and row["due_us"] <= to_us(
            self._clock.now()
        ):
            aside = {
                "state": StoryState.STRANDED, "error": encode_error(Conflict(why)), "epoch": row["epoch"] + 1,
                "due_us": NEVER, "updated_us": to_us(self._clock.now()),
            }  # fmt: skip
            tx.execute(update(stories).where(stories.c.id == story_id).values(aside))

    def resume(self, tx: Tx, story_id: str) -> None:
        row = self._row(tx, story_id)
        if row["state"] != StoryState.STRANDED:
            raise Conflict(f"story {story_id} is {row['state']}, not stranded: there is nothing to resume")
        again = {
            "state": StoryState.RUNNING,
            "error": None,
            "attempts": 0,
            "due_us": to_us(self._clock.now()),
            "updated_us": to_us(self._clock.now()),
        }
        tx.execute(update(stories).where(stories.c.id == story_id).values(again))

    def root_of(self, story_id: str) -> str:
        with self._records.read() as tx:
            return str(self._row(tx, story_id)["root_id"])

    def end_of(self, story_id: str) -> tuple[StoryState, str | None, str | None]:
        """Return a story's state, result and error, the last two as they are kept."""
        with self._records.read() as tx:
            row = self._row(tx, story_id)
        return StoryState(row["state"]), row["result"], row["error"]

    def status(self, story_id: str) -> StoryStatus:
        with self._records.read() as tx:
            row = self._row(tx, story_id)
            names = tx.execute(
                select(steps.c.name).where(steps.c.story_id == story_id).order_by(steps.c.number)
            )
            return _status(row, tuple(names.scalars()))

    def list(self, *, state: StoryState | None, limit: int) -> tuple[StoryStatus, ...]:
        asked = select(stories).order_by(stories.c.started_us.desc(), stories.c.id.desc()).limit(limit)
        if state is not None:
            asked = asked.where(stories.c.state == state)
        with self._records.read() as tx:
            rows = tx.execute(asked).mappings().all()
            named = select(steps.c.story_id, steps.c.name).where(
                steps.c.story_id.in_([row["id"] for row in rows])
            )
            names: dict[str, list[str]] = {row["id"]: [] for row in rows}
            for story_id, name in tx.execute(named.order_by(steps.c.story_id, steps.c.number)):
                names[story_id].append(name)
        return tuple(_listed(row, tuple(names[row["id"]])) for row in rows)

    def _row(self, tx: Tx, story_id: str) -> RowMapping:
        row = tx.execute(select(stories).where(stories.c.id == story_id)).mappings().first()
        if row is None:
            raise unknown(story_id)
        return row


def _listed(row: RowMapping, names: tuple[str, ...]) -> StoryStatus:
    """As `_status`, with damage told as the story's error: one bad row must not hide the others."""
    try:
        return _status(row, names)
    except Corrupt as damage:
        return _told(row, names, error=f"{damage.code}: {damage.message}")


def _status(row: RowMapping, names: tuple[str, ...]) -> StoryStatus:
    what = f"story {row['id']}"
    return _told(
        row,
        names,
        arguments=decode(row["arguments"], what=f"arguments of {what}"),
        result=None if row["result"] is None else decode(row["result"], what=f"result of {what}"),
        error="" if row["error"] is None else describe_error(row["error"]),
    )


def _told(
    row: RowMapping, names: tuple[str, ...], *, arguments: Json = None, result: Json = None, error: str
) -> StoryStatus:
    return StoryStatus(
        id=row["id"],
        name=row["name"],
        state=StoryState(row["state"]),
        arguments=arguments,
        result=result,
        error=error,
        waiting_for=row["waiting_for"],
        steps=names,
        started_at=from_us(row["started_us"]),
        updated_at=from_us(row["updated_us"]),
    )
