"""Recording what was made from what, and asking for it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import datetime
from typing import Any, Final
from uuid import UUID

from sqlalchemy import delete, func, insert, select

from taut.core.canonical import canonical_json, digest_json
from taut.core.errors import Exhausted, InvalidInput
from taut.core.evidence import Scalar
from taut.core.refs import Kind, Ref
from taut.core.times import to_us
from taut.ports.records import Tx
from taut.ports.world import Clock
from taut.trust.lineage import tables as t
from taut.trust.lineage.graph import Activity, Upstream, made_from, read_facts
from taut.trust.lineage.openlineage import run_events
from taut.trust.lineage.values import LineageNode, LineageStep

REF_LENGTH_MAX: Final = 1024
DEPTH_MAX: Final = 100  # of a tree, whose making and printing recurse
CHAIN_MAX: Final = 10_000
NODES_MAX: Final = 100_000
_NAME_LENGTH_MAX: Final = 128


class Lineage:
    """The graph of activities and what they read and made.

    Guarantees: what `record` wrote is there exactly when its transaction committed; recording the same once more
    changes nothing, so that a step may be repeated. Answers are bounded and say what they leave out.

    Not guaranteed: that a reference exists elsewhere; facts are what rooms said, and no personal data belongs there.
    """

    def __init__(self, clock: Clock) -> None:
        self._clock = clock

    def record(
        self,
        tx: Tx,
        *,
        activity: str,
        inputs: Sequence[Ref],
        outputs: Sequence[Ref],
        facts: Mapping[str, Scalar] | None = None,
    ) -> None:
        """Record that `activity` made `outputs` from `inputs`; `facts` are about the activity.

        References name things that never change, so nothing is made from itself.
        Raises InvalidInput for no output, an output that is also an input, or a name beyond its bound.
        """
        read, made = _texts(inputs), _texts(outputs)
        if not activity or len(activity) > _NAME_LENGTH_MAX or not made:
            raise InvalidInput(
                f"lineage needs an activity of 1 to {_NAME_LENGTH_MAX} characters and at least one output; got "
                f"{activity[:80]!r} with {len(made)}"
            )
        circle = sorted(set(read) & set(made))
        if circle:
            raise InvalidInput(
                f"{circle[0]} would be made from itself by {activity}: give the new thing a name of its own"
            )
        said = dict(facts or {})
        id_ = _activity_id(activity, read, made, said)
        known = select(t.activities.c.id).where(t.activities.c.id == id_)
        if tx.execute(known).scalar_one_or_none() is not None:
            return
        tx.execute(insert(t.activities).values(id=id_, activity=activity, at_us=to_us(self._clock.now())))
        tx.execute(
            insert(t.edges),
            [
                {"activity_id": id_, "output": output, "ref": ref}
                for output, refs in ((False, read), (True, made))
                for ref in refs
            ],
        )
        self._write_facts(tx, id_, said)

    def describe(self, tx: Tx, ref: Ref, facts: Mapping[str, Scalar]) -> None:
        """Say facts about a reference; a fact said again takes the place of the older one."""
        owner = _texts([ref])[0]
        for at in range(0, len(facts), 500):
            names = list(facts)[at : at + 500]
            tx.execute(delete(t.facts).where(t.facts.c.owner == owner, t.facts.c.name.in_(names)))
        self._write_facts(tx, owner, facts)

    def facts(self, tx: Tx, ref: Ref) -> dict[str, Scalar]:
        """Return what was said about a reference."""
        return dict(read_facts(tx, [str(ref)]).get(str(ref), {}))

    def why(self, tx: Tx, ref: Ref, *, depth: int = 64, nodes_max: int = 10_000) -> LineageNode:
        """Return how `ref` came to be, up to its sources, as a tree in which each thing is expanded once.

        depth: activities above `ref`, 1 to 100. nodes_max: references read, 1 to 100,000. What lies beyond is marked
        (`deeper`, `omitted`), never dropped in silence. A reference that nothing made is a node without steps.
        """
        graph = self._gather(tx, ref, depth=depth, depth_max=DEPTH_MAX, nodes_max=nodes_max)
        return _Tree(graph, read_facts(tx, [*graph.home, *graph.activities])).node(str(ref))

    def downstream(self, tx: Tx, ref: Ref, *, nodes_max: int = NODES_MAX) -> tuple[Ref, ...]:
        """Return everything that was made from `ref`, directly or not, nearest first.

        Raises Exhausted beyond `nodes_max`: an answer with gaps would be taken for a whole one.
        """
        found, cut = made_from(tx, str(ref), nodes_max=nodes_max)
        if cut:
            raise Exhausted(
                f"more than {nodes_max} things were made from {ref}: raise nodes_max to list them all"
            )
        return tuple(Ref.parse(text) for text in found)

    def sources(self, tx: Tx, name: str) -> tuple[Ref, ...]:
        """Return the sources of that name that something was made from, one for each digest, newest first."""
        ref, made_at = t.edges.c.ref, func.max(t.activities.c.at_us)
        query = (
            select(ref)
            .join(t.activities, t.activities.c.id == t.edges.c.activity_id)
            .where(ref.startswith(f"{Kind.SOURCE}:"), ref.endswith(f"#{name}", autoescape=True))
            .group_by(ref)
            .order_by(made_at.desc(), ref)
        )
        return tuple(Ref.parse(text) for text in tx.execute(query).scalars())

    def openlineage(
        self, tx: Tx, ref: Ref, *, depth: int = 1_000, nodes_max: int = NODES_MAX
    ) -> list[dict[str, Any]]:
        """Return the activities above `ref` as OpenLineage run events, oldest first: a START and a COMPLETE each.

        depth: 1 to 10,000. What the bounds leave out is said in facets `taut_bounds` of the run or the dataset.
        """
        graph = self._gather(tx, ref, depth=depth, depth_max=CHAIN_MAX, nodes_max=nodes_max)
        graph.load_outputs(tx, nodes_max=nodes_max)
        owners = {*graph.home, *graph.activities}
        for activity in graph.activities.values():
            owners.update(activity.outputs)
        return run_events(graph.activities.values(), read_facts(tx, owners), beyond=graph.beyond)

    def event(
        self,
        *,
        activity: str,
        at: datetime,
        inputs: Sequence[Ref],
        outputs: Sequence[Ref],
        facts: Mapping[str, Scalar],
    ) -> list[dict[str, Any]]:
        """Return the OpenLineage events of an activity that is kept elsewhere, such as an answer of the prediction log."""
        read, made = _texts(inputs), _texts(outputs)
        id_ = _activity_id(activity, read, made, dict(facts))
        found = Activity(id=id_, activity=activity, at_us=to_us(at), inputs=read, outputs=made)
        return run_events([found], {id_: facts})

    def _gather(self, tx: Tx, ref: Ref, *, depth: int, depth_max: int, nodes_max: int) -> Upstream:
        if not 0 < depth <= depth_max or not 0 < nodes_max <= NODES_MAX:
            raise InvalidInput(
                f"depth {depth} or nodes_max {nodes_max} is out of range: 1 to {depth_max}, 1 to {NODES_MAX}"
            )
        graph = Upstream()
        graph.gather(tx, str(ref), depth=depth, nodes_max=nodes_max)
        return graph

    def _write_facts(self, tx: Tx, owner: str, facts: Mapping[str, Scalar]) -> None:
        at_us = to_us(self._clock.now())
        rows = []
        for name, value in facts.items():
            if not 0 < len(name) <= _NAME_LENGTH_MAX:
                raise InvalidInput(
                    f"fact name {name[:80]!r} is not allowed: 1 to {_NAME_LENGTH_MAX} characters"
                )
            rows.append(
                {"owner": owner, "name": name, "value": canonical_json(value).decode(), "at_us": at_us}
            )
        if rows:
            tx.execute(insert(t.facts), rows)


class _Tree:
    """Builds the tree of a gathered graph; every reference and activity is expanded where it was found first."""

    def __init__(self, graph: Upstream, facts: Mapping[str, dict[str, Scalar]]) -> None:
        self._graph = graph
        self._facts = facts
        self._expanded: set[str] = set()

    def node(self, ref: str) -> LineageNode:
        return LineageNode(
            ref=Ref.parse(ref),
            facts=self._facts.get(ref, {}),
            steps=tuple(self._step(id_) for id_ in self._graph.made_by.get(ref, ())),
            deeper=ref in self._graph.beyond,
        )

    def _step(self, id_: str) -> LineageStep:
        activity = self._graph.activities[id_]
        if id_ in self._expanded:
            return LineageStep(activity=activity.activity, at_us=activity.at_us, repeated=True)
        self._expanded.add(id_)
        return LineageStep(
            activity=activity.activity,
            at_us=activity.at_us,
            facts=self._facts.get(id_, {}),
            inputs=tuple(
                self.node(ref)
                if self._graph.home[ref] == id_
                else LineageNode(ref=Ref.parse(ref), repeated=True)
                for ref in activity.inputs
            ),
            omitted=activity.omitted,
        )


def _activity_id(activity: str, read: list[str], made: list[str], facts: dict[str, Scalar]) -> str:
    """The same activity always has the same id, a UUID as OpenLineage wants it."""
    return str(UUID(digest_json([activity, read, made, facts])[-32:], version=5))


def _texts(refs: Sequence[Ref]) -> list[str]:
    """Return the references as text, each once, in order of text."""
    found = sorted({str(ref) for ref in refs})
    for text in found:
        if len(text) > REF_LENGTH_MAX or not text.isprintable():
            raise InvalidInput(
                f"reference {text[:80]!r} is not allowed: use at most {REF_LENGTH_MAX} printable characters"
            )
    return found
