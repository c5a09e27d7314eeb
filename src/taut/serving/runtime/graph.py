"""A graph of models, free of transport: which node is asked with what, and what becomes of the answers.

The order of things is a generator: it says which nodes are to be asked at once, is told what they said, and ends with the
answer. Whoever drives it decides where they run: one after the other in this process, or side by side in workers.
"""

from __future__ import annotations

from collections.abc import Callable, Generator, Mapping, Sequence
from typing import Final, NamedTuple, Protocol, TypeVar

from taut.core.canonical import digest_bytes
from taut.core.errors import Corrupt, Exhausted, InvalidInput, TautError, Unavailable
from taut.core.graphs import (
    Face,
    GraphPlan,
    Node,
    Pin,
    face_of,
    faces,
    graph_signature,
    layers,
    needs,
    read_plan,
)
from taut.core.schema import ModelSignature
from taut.serving.runtime.combine import Combiner, fed
from taut.serving.runtime.encode import Feed
from taut.serving.runtime.form import CAUTIOUS_ROWS, Cost, ModelForm
from taut.serving.runtime.loaded import LoadedModel
from taut.serving.runtime.outputs import Outputs
from taut.serving.runtime.rows import Value
from taut.serving.runtime.session import load as load_onnx

E = TypeVar("E", bound=TautError)
Load = Callable[[bytes, ModelSignature], LoadedModel]
Columns = Mapping[str, Sequence[Value]]
Said = Outputs | Unavailable


class Ask(NamedTuple):
    """A node that is to be asked: its tensors and how many rows they are."""

    node: str
    feed: Feed
    rows: int


class Outcome(NamedTuple):
    """The answer of a graph.

    answered: the nodes whose models did. without: those of its nodes that failed and that a combiner left out.
    """

    outputs: Outputs
    answered: tuple[str, ...]
    without: tuple[str, ...]


Steps = Generator[list[Ask], list[Said], Outcome]
Inner = Generator[list[Ask], list[Said], None]


class _Frame:
    """Rows on their way through the graph. said: by node. answered, without: shared by the parts of a request."""

    __slots__ = ("answered", "columns", "count", "said", "without")

    def __init__(
        self,
        columns: Columns,
        count: int,
        said: dict[str, Said],
        answered: dict[str, None],
        without: dict[str, None],
    ) -> None:
        self.columns = columns
        self.count = count
        self.said = said
        self.answered = answered
        self.without = without

    def part(self, rows: Sequence[int]) -> _Frame:
        """Return a frame of some rows, with what is known of them."""
        columns = {name: [values[row] for row in rows] for name, values in self.columns.items()}
        said = {
            name: _part(one, rows) if isinstance(one, Outputs) else one for name, one in self.said.items()
        }
        return _Frame(columns, len(rows), said, self.answered, self.without)


def _part(said: Outputs, rows: Sequence[int]) -> Outputs:
    return Outputs(
        labels=[said.labels[row] for row in rows] if said.labels else (),
        probabilities=[said.probabilities[row] for row in rows] if said.probabilities else (),
        values=[said.values[row] for row in rows] if said.values else (),
    )


def _take(node: Node, column: str, known: Mapping[str, Face]) -> Callable[[_Frame], Sequence[Value]]:
    """Return what finds the values of a node's input: what the caller sent or was looked up, or what another node gave."""
    reference = node.inputs.get(column)
    if reference is None:
        return lambda frame: frame.columns[column]
    source, _, output = reference.partition(".")
    face = known[source]

    def take(frame: _Frame) -> Sequence[Value]:
        said = frame.said[source]
        assert isinstance(said, Outputs), "a node whose source failed is not asked"
        return fed(said, output, face)

    return take


class Graph:
    """A plan with the forms of its models.

    Guarantees: every node's answer was checked against its own signature, the combined one against the graph's; a node
    is asked once a request about the same rows; an error names the node.
    Raises InvalidInput for a plan whose nodes do not fit each other.
    """

    def __init__(self, plan: GraphPlan, forms: Mapping[str, ModelForm]) -> None:
        self.plan: Final = plan
        self.forms: Final = dict(forms)
        self.signature: Final = graph_signature(
            plan.nodes, plan.output, {name: pin.signature for name, pin in plan.pins.items()}
        )
        self._faces: Final = faces(
            plan.nodes, {name: face_of(pin.signature) for name, pin in plan.pins.items()}
        )
        self._always: Final = layers(plan.nodes, [plan.output])
        self._surely: Final = {node.name for layer in self._always for node in layer}
        self._layers: Final = {node.name: layers(plan.nodes, [node.name]) for node in plan.nodes}
        self._shared: Final = {name: self._surely_needed(found) for name, found in self._layers.items()}
        self._needs: Final = {node.name: needs(node) for node in plan.nodes}
        self._takes: Final = {
            name: [_take(plan.node(name), item.column.name, self._faces) for item in form.signature.inputs]
            for name, form in forms.items()
        }
        self._combiners: Final = {
            node.name: Combiner(node, self._faces[node.name], [self._faces[name] for name in node.of])
            for node in plan.nodes
            if node.kind != "model"
        }

    def _surely_needed(self, found: list[list[Node]]) -> list[list[Node]]:
        """Return what of these layers is asked about every row in any case."""
        return layers(
            self.plan.nodes, [node.name for layer in found for node in layer if node.name in self._surely]
        )

    @property
    def tolerant(self) -> bool:
        """Whether it can answer without some node."""
        return any(node.tolerate for node in self.plan.nodes)

    @property
    def cost(self) -> Cost | None:
        """What a batch costs at most, one node after the other; None where that of a node is not known."""
        costs = [form.cost for form in self.forms.values()]
        if None in costs:
            return None
        known = [cost for cost in costs if cost is not None]
        return Cost(base_us=sum(one.base_us for one in known), row_us=sum(one.row_us for one in known))

    def rows_within(self, budget_us: float) -> int:
        """Return the largest batch that answers within the budget, node after node; a cautious one where that is not known."""
        cost = self.cost
        return CAUTIOUS_ROWS if cost is None else cost.rows_within(budget_us)

    def required(self) -> set[str]:
        """Return the models without which there is no answer."""
        return {name for name in self.plan.pins if self._fails_without(name)}

    def _fails_without(self, dead: str) -> bool:
        lost: set[str] = set()
        for node in self.plan.nodes:  # each after those that it needs
            gone = sum(one in lost for one in self._needs[node.name])
            if node.name == dead or gone > node.tolerate:
                lost.add(node.name)
        return self.plan.output in lost

    def steps(self, columns: Columns, count: int) -> Steps:
        """Yield which nodes to ask at once; send what each said, or the Unavailable that kept it from it.

        columns: request columns and features by name, `count` values each.
        Raises InvalidInput for values that a node cannot take, and the Unavailable of a node that cannot be left out.
        """
        frame = _Frame(columns, count, {}, {}, {})
        yield from self._reach(frame, self._always)
        said = frame.said[self.plan.output]
        if not isinstance(said, Outputs):
            raise said
        return Outcome(said, tuple(frame.answered), tuple(frame.without))

    def _reach(self, frame: _Frame, wanted: list[list[Node]]) -> Inner:
        for layer in wanted:
            asks = []
            for node in layer:
                if node.kind == "model" and node.name not in frame.said:
                    lost = next(
                        (
                            one
                            for name in self._needs[node.name]
                            if isinstance(one := frame.said[name], Unavailable)
                        ),
                        None,
                    )
                    if lost is None:
                        asks.append(self._ask(frame, node))
                    else:
                        frame.said[node.name] = lost
            if asks:
                for ask, said in zip(asks, (yield asks), strict=True):
                    frame.said[ask.node] = said
                    if isinstance(said, Outputs):
                        frame.answered[ask.node] = None
            for node in layer:
                if node.kind == "first_confident" and node.name not in frame.said:
                    yield from self._cascade(frame, node)
                elif node.kind != "model" and node.name not in frame.said:
                    frame.said[node.name] = self._combined(frame, node)

    def _ask(self, frame: _Frame, node: Node) -> Ask:
        form = self.forms[node.name]
        given = [take(frame) for take in self._takes[node.name]]
        try:
            feed = form.encode(list(zip(*given, strict=True)) if form.row_major else given)
        except InvalidInput as error:
            raise named(node.name, error) from error
        return Ask(node.name, feed, frame.count)

    def _combined(self, frame: _Frame, node: Node) -> Said:
        said = [frame.said[name] for name in node.of]
        lost = [(name, one) for name, one in zip(node.of, said, strict=True) if isinstance(one, Unavailable)]
        if len(lost) > node.tolerate:
            return lost[0][1]
        frame.without.update(dict.fromkeys(name for name, _ in lost))
        return self._combiners[node.name].combine([one if isinstance(one, Outputs) else None for one in said])

    def _cascade(self, frame: _Frame, node: Node) -> Inner:
        """Take for each row the first node that is sure enough; the last one that answers is believed anyhow."""
        combiner, enough = self._combiners[node.name], node.at or 0.0
        taken: dict[int, Sequence[float]] = {}
        rows: Sequence[int] = range(frame.count)
        lost: list[tuple[str, Unavailable]] = []
        for at, name in enumerate(node.of):
            whole = len(rows) == frame.count or name in self._surely
            if not whole:
                yield from self._reach(frame, self._shared[name])  # once for all rows, not again for some
            part = frame if whole else frame.part(rows)
            yield from self._reach(part, self._layers[name])
            said = part.said[name]
            if isinstance(said, Unavailable):
                lost.append((name, said))
                if len(lost) > node.tolerate:
                    frame.said[node.name] = lost[0][1]
                    return
                continue
            found = combiner.aligned(said, at)
            taken |= {row: found[row if whole else place] for place, row in enumerate(rows)}
            rows = [row for row in rows if max(taken[row]) < enough]
            if not rows:
                break
        frame.without.update(dict.fromkeys(name for name, _ in lost))
        frame.said[node.name] = _labelled([taken[row] for row in range(frame.count)], combiner)


def _labelled(rows: list[Sequence[float]], combiner: Combiner) -> Outputs:
    import numpy as np

    checked: Outputs = combiner.check(np.array(rows, dtype=np.float64), len(rows))
    return checked


def named(node: str, error: E) -> E:
    """Return the same error, saying in which node it arose."""
    said = f"node {node!r}: {error.message}"
    if isinstance(error, Unavailable | Exhausted):
        return type(error)(said, retry_after_s=error.retry_after_s)
    return type(error)(said)


class LoadedGraph(Graph):
    """A graph all of whose models are in this process. `infer` may be called from several threads."""

    def __init__(self, plan: GraphPlan, models: Mapping[str, LoadedModel]) -> None:
        super().__init__(plan, models)
        self.models: Final = dict(models)

    def infer(self, columns: Columns) -> Outputs:
        """Score columns by name, all of one length; raises as `outcome` does, and InvalidInput for absent columns."""
        missing = [item.column.name for item in self.signature.inputs if item.column.name not in columns]
        if missing:
            raise InvalidInput(f"columns {', '.join(missing)} are missing: the graph needs them")
        return self.outcome(columns, len(next(iter(columns.values())))).outputs

    def outcome(self, columns: Columns, count: int, *, timed: Timed | None = None) -> Outcome:
        """Score columns by name, `count` values each. timed: told of each node when it was asked, and what it said."""
        return drive(self.steps(columns, count), lambda ask: self._run(ask, timed))

    def _run(self, ask: Ask, timed: Timed | None) -> Said:
        model = self.models[ask.node]
        if timed is None:
            return attempt(ask, model)
        began = timed.begin()
        said = attempt(ask, model)
        timed.end(ask.node, began, said)
        return said


class Timed(Protocol):
    """Hears what nodes do."""

    def begin(self) -> int: ...

    def end(self, node: str, began: int, said: Said) -> None: ...


def attempt(ask: Ask, model: LoadedModel) -> Said:
    """Ask a model in this process. Raises InvalidInput, naming the node."""
    try:
        return model.run(ask.feed, ask.rows)
    except (Unavailable, InvalidInput) as error:
        told = named(ask.node, error)
        if isinstance(told, InvalidInput):
            raise told from error
        return told


def drive(steps: Steps, answer: Callable[[Ask], Said]) -> Outcome:
    """Take the steps one after the other."""
    try:
        asks = next(steps)
        while True:
            asks = steps.send([answer(ask) for ask in asks])
    except StopIteration as end:
        outcome: Outcome = end.value
        return outcome


def load_graph(plan: bytes, artifacts: Mapping[str, bytes], *, load: Load = load_onnx) -> LoadedGraph:
    """Load a graph into this process.

    plan: the bytes of its artifact. artifacts: node -> bytes. load: of one node; without it ONNX models only. Raises Corrupt where a node's bytes are not those that the
    plan names, or there are none; else as `load` does.
    """
    found = read_plan(plan)
    models = {}
    for name, pin in found.pins.items():
        data = artifacts.get(name, b"")
        check_artifact(name, pin, data)
        models[name] = load(data, pin.signature)
    return LoadedGraph(found, models)


def check_artifact(node: str, pin: Pin, data: bytes) -> None:
    """Raise Corrupt unless these are the bytes that a plan names for a node."""
    digest = digest_bytes(data)
    if digest != pin.artifact:
        raise Corrupt(
            f"node {node!r} is {pin.version} of digest {pin.artifact}, its artifact has {digest}: restore the artifact"
        )


def signature_of(plan: GraphPlan) -> ModelSignature:
    """Return what a plan's graph takes and gives; see `graph_signature`."""
    return graph_signature(plan.nodes, plan.output, {name: pin.signature for name, pin in plan.pins.items()})
