"""Walking the graph level by level: a few queries a level, however wide it is."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Iterator, Sequence
from typing import Any, Final

import msgspec
from sqlalchemy import func, select

from taut.core.errors import Exhausted
from taut.core.evidence import Scalar
from taut.ports.records import Tx
from taut.trust.lineage import tables as t

_IN_MAX: Final = 500


class Activity(msgspec.Struct, kw_only=True):
    """An activity as it was found, with the ends that were read of it."""

    id: str
    activity: str
    at_us: int
    inputs: list[str]
    outputs: list[str]
    omitted: int = 0


class Upstream:
    """What lies above a reference: gathered within bounds, ready to be shown as a tree or as events.

    made_by: reference -> ids of the activities that made it. home: reference -> the activity under which it is
    expanded, the shallowest one. beyond: references whose makers lie deeper than was asked.
    """

    def __init__(self) -> None:
        self.activities: dict[str, Activity] = {}
        self.made_by: dict[str, list[str]] = defaultdict(list)
        self.home: dict[str, str] = {}
        self.beyond: set[str] = set()

    def gather(self, tx: Tx, root: str, *, depth: int, nodes_max: int) -> None:
        self.home[root] = ""
        level = [root]
        for _ in range(depth):
            fresh = self._makers(tx, level)
            level = self._inputs(tx, fresh, nodes_max=nodes_max)
            if not level:
                return
        for part in _parts(level):
            self.beyond.update(
                tx.execute(select(t.edges.c.ref).where(t.edges.c.output, t.edges.c.ref.in_(part))).scalars()
            )

    def load_outputs(self, tx: Tx, *, nodes_max: int) -> None:
        """Read everything that the gathered activities made, not only what leads to the root.

        Raises Exhausted beyond `nodes_max`.
        """
        left = nodes_max
        for part in _parts(sorted(self.activities)):
            for row in tx.execute(_ends(part, output=True).limit(left + 1)):
                self.activities[row.activity_id].outputs.append(row.ref)
                left -= 1
            if left < 0:
                raise Exhausted(f"more than {nodes_max} things were made on the way: raise nodes_max")

    def _makers(self, tx: Tx, refs: Sequence[str]) -> list[str]:
        """Read the activities that made `refs`; return the ids of those not seen before."""
        fresh: list[str] = []
        for part in _parts(refs):
            query = (
                select(t.edges.c.ref, t.activities)
                .join(t.activities, t.activities.c.id == t.edges.c.activity_id)
                .where(t.edges.c.output, t.edges.c.ref.in_(part))
                .order_by(t.activities.c.at_us, t.activities.c.id)
            )
            for row in tx.execute(query):
                self.made_by[row.ref].append(row.id)
                if row.id not in self.activities:
                    self.activities[row.id] = Activity(
                        id=row.id, activity=row.activity, at_us=row.at_us, inputs=[], outputs=[]
                    )
                    fresh.append(row.id)
        return fresh

    def _inputs(self, tx: Tx, activity_ids: Sequence[str], *, nodes_max: int) -> list[str]:
        """Read what the activities read, up to the bound; return the references not seen before."""
        fresh: list[str] = []
        for part in _parts(activity_ids):
            left = max(0, nodes_max - len(self.home))
            rows = tx.execute(_ends(part, output=False).limit(left + 1)).all()
            for row in rows[:left]:
                self.activities[row.activity_id].inputs.append(row.ref)
                if row.ref not in self.home:
                    self.home[row.ref] = row.activity_id
                    fresh.append(row.ref)
            if len(rows) > left:
                self._count_omitted(tx, part)
        return fresh

    def _count_omitted(self, tx: Tx, activity_ids: Sequence[str]) -> None:
        counted = tx.execute(
            select(t.edges.c.activity_id, func.count())
            .where(t.edges.c.output.is_(False), t.edges.c.activity_id.in_(activity_ids))
            .group_by(t.edges.c.activity_id)
        )
        for activity_id, count in counted:
            activity = self.activities[activity_id]
            activity.omitted = count - len(activity.inputs)


def read_facts(tx: Tx, owners: Iterable[str]) -> dict[str, dict[str, Scalar]]:
    """Return the facts of references and activities, by owner and name."""
    found: dict[str, dict[str, Scalar]] = defaultdict(dict)
    for part in _parts(sorted(owners)):
        for row in tx.execute(select(t.facts).where(t.facts.c.owner.in_(part)).order_by(t.facts.c.name)):
            found[row.owner][row.name] = msgspec.json.decode(row.value)
    return found


def made_from(tx: Tx, root: str, *, nodes_max: int) -> tuple[list[str], bool]:
    """Return (everything made from `root`, nearest first; whether the bound cut it short)."""
    seen, level = {root}, [root]
    order: list[str] = []
    while level:
        outputs: set[str] = set()
        for part in _parts(level):
            reads = select(t.edges.c.activity_id).where(t.edges.c.output.is_(False), t.edges.c.ref.in_(part))
            made = select(t.edges.c.ref).where(t.edges.c.output, t.edges.c.activity_id.in_(reads))
            outputs.update(tx.execute(made).scalars())
        level = sorted(outputs - seen)
        if len(order) + len(level) > nodes_max:
            return order + level[: nodes_max - len(order)], True
        seen.update(level)
        order += level
    return order, False


def _ends(activity_ids: Sequence[str], *, output: bool) -> Any:
    edges = t.edges.c
    return (
        select(edges.activity_id, edges.ref)
        .where(edges.output.is_(output), edges.activity_id.in_(activity_ids))
        .order_by(edges.activity_id, edges.ref)
    )


def _parts(items: Sequence[str]) -> Iterator[Sequence[str]]:
    for at in range(0, len(items), _IN_MAX):
        yield items[at : at + _IN_MAX]
