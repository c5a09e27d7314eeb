"""Graphs in the runtime: order, combination, what is asked about which rows, and failures of nodes."""

from __future__ import annotations

from typing import Any

import msgspec
import numpy as np
import pytest
from graphs import MODELS, artifacts_of, model, plan_of
from hypothesis import given, settings
from hypothesis import strategies as st

from taut.core.errors import Corrupt, InvalidInput, Unavailable
from taut.core.graphs import Face, Node, faces, graph_signature, read_plan
from taut.core.schema import Column, DType, ModelInput, ModelSignature
from taut.serving.errors import BadAnswer, WorkerLost
from taut.serving.runtime import LoadedGraph, Outputs, load, load_graph, score_rows
from taut.serving.runtime.combine import Combiner
from taut.serving.runtime.graph import Ask, Said, attempt, drive
from taut.serving.runtime.graph_trial import reference

AVERAGE = (
    model("steep"),
    model("flat"),
    Node(name="blend", kind="average", of=("steep", "flat"), weights=(3.0, 1.0)),
)
COLUMNS = {"x0": [0.5, -1.0, 0.0], "x1": [0.25, 0.0, 0.1], "x2": [-0.25, -0.5, -0.1]}


def loaded(*nodes: Node, output: str) -> LoadedGraph:
    plan = plan_of(*nodes, output=output)
    return load_graph(plan.to_bytes(), artifacts_of(plan))


def alone(name: str, columns: Any = COLUMNS) -> np.ndarray[Any, Any]:
    return np.asarray(load(*MODELS[name]).infer(columns).probabilities)


def failing(graph: LoadedGraph, *dead: str, asked: list[tuple[str, int]] | None = None) -> Any:
    """Drive a graph some of whose nodes fail; note who was asked about how many rows."""

    def answer(ask: Ask) -> Said:
        if asked is not None:
            asked.append((ask.node, ask.rows))
        return (
            WorkerLost(f"no worker of {ask.node}")
            if ask.node in dead
            else attempt(ask, graph.models[ask.node])
        )

    return drive(graph.steps(COLUMNS, 3), answer)


def test_an_average_is_the_weighted_mean_of_its_nodes() -> None:
    outputs = loaded(*AVERAGE, output="blend").infer(COLUMNS)

    np.testing.assert_allclose(
        outputs.probabilities, 0.75 * alone("steep") + 0.25 * alone("flat"), rtol=1e-12
    )
    assert outputs.labels == [int(row[1] > row[0]) for row in outputs.probabilities]


def test_a_node_is_fed_with_what_another_one_gives() -> None:
    graph = loaded(model("steep"), model("fed", inputs={"p": "steep.probability"}), output="fed")

    assert [column.name for column in graph.signature.request] == ["x0", "x1", "x2"]  # p is nobody's to send
    fed = {"x0": COLUMNS["x0"], "p": alone("steep")[:, 1].tolist()}
    np.testing.assert_allclose(graph.infer(COLUMNS).probabilities, alone("fed", fed))


def test_votes_are_counted_by_label() -> None:
    vote = Node(name="vote", kind="vote", of=("steep", "flat", "low"))
    outputs = loaded(model("steep"), model("flat"), model("low"), vote, output="vote").infer(COLUMNS)

    labels = [alone(name).argmax(axis=1) for name in ("steep", "flat", "low")]
    np.testing.assert_allclose([row[1] for row in outputs.probabilities], np.mean(labels, axis=0))


def test_only_rows_of_which_the_first_is_not_sure_go_on() -> None:
    cascade = Node(name="out", kind="first_confident", of=("steep", "flat"), at=0.9)
    asked: list[tuple[str, int]] = []
    outcome = failing(loaded(model("steep"), model("flat"), cascade, output="out"), asked=asked)

    sure = alone("steep").max(axis=1) >= 0.9
    assert sure.tolist() == [False, True, False]
    assert asked == [("steep", 3), ("flat", 2)]
    np.testing.assert_allclose(
        outcome.outputs.probabilities, np.where(sure[:, None], alone("steep"), alone("flat"))
    )


def test_a_node_that_is_asked_about_every_row_anyhow_is_asked_once() -> None:
    cascade = Node(name="out", kind="first_confident", of=("steep", "flat"), at=0.9)
    both = Node(name="both", kind="average", of=("out", "flat"))
    asked: list[tuple[str, int]] = []
    failing(loaded(model("steep"), model("flat"), cascade, both, output="both"), asked=asked)

    assert sorted(asked) == [("flat", 3), ("steep", 3)]


@pytest.mark.parametrize("kind", ["average", "vote", "first_confident"])
def test_what_may_be_left_out_is_left_out_and_named(kind: Any) -> None:
    at = 0.99 if kind == "first_confident" else None
    node = Node(name="out", kind=kind, of=("steep", "flat"), at=at, tolerate=1)
    graph = loaded(model("steep"), model("flat"), node, output="out")

    outcome = failing(graph, "steep")

    assert (outcome.answered, outcome.without) == (("flat",), ("steep",))
    wanted = np.eye(2)[alone("flat").argmax(axis=1)] if kind == "vote" else alone("flat")
    np.testing.assert_allclose(outcome.outputs.probabilities, wanted)
    with pytest.raises(WorkerLost, match="no worker of"):
        failing(graph, "steep", "flat")


def test_without_leave_a_failed_node_fails_the_answer_and_all_that_it_feeds() -> None:
    with pytest.raises(WorkerLost):
        failing(loaded(*AVERAGE, output="blend"), "flat")
    stacked = (model("steep"), model("flat"), model("fed", inputs={"p": "steep.probability"}))
    tolerant = Node(name="out", kind="average", of=("flat", "fed"), tolerate=1)
    asked: list[tuple[str, int]] = []
    outcome = failing(loaded(*stacked, tolerant, output="out"), "steep", asked=asked)
    assert (outcome.without, [name for name, _ in asked]) == (("fed",), ["steep", "flat"])


def test_the_nodes_that_an_answer_cannot_do_without_are_known() -> None:
    tolerant = Node(name="out", kind="average", of=("flat", "fed"), tolerate=1)
    graph = loaded(
        model("steep"), model("flat"), model("fed", inputs={"p": "steep.probability"}), tolerant, output="out"
    )
    assert graph.required() == set()
    assert loaded(*AVERAGE, output="blend").required() == {"steep", "flat"}


def test_a_bad_answer_names_the_node() -> None:
    graph = loaded(*AVERAGE, output="blend")

    class Broken:
        def run(self, *_: object) -> Outputs:
            raise BadAnswer("the model gave a value that is not finite")

    graph.models["flat"] = Broken()  # type: ignore[assignment]  # as far as it is asked
    with pytest.raises(BadAnswer, match="node 'flat': the model gave a value"):
        graph.infer(COLUMNS)


def test_a_value_that_a_node_cannot_take_names_the_node() -> None:
    with pytest.raises(InvalidInput, match=r"node 'steep': .*'x0'"):
        loaded(*AVERAGE, output="blend").infer({**COLUMNS, "x0": [1e39, 0.0, 0.0]})


def test_artifacts_other_than_the_plan_names_are_refused() -> None:
    plan = plan_of(*AVERAGE, output="blend")
    with pytest.raises(Corrupt, match="node 'flat' is flat@1 of digest"):
        load_graph(plan.to_bytes(), {**artifacts_of(plan), "flat": MODELS["low"][0]})


@pytest.mark.parametrize(
    "change",
    [
        lambda text: text + b" ",
        lambda text: text.replace(b'"weights":[3.0,1.0]', b'"weights":[3.0]'),
        lambda text: text.replace(b'"output":"blend"', b'"output":"bland"'),
        lambda text: text.replace(b'"of":["steep","flat"]', b'"of":["steep","blend"]'),
        lambda text: text.replace(b'"format"', b'"more":1,"format"'),
        lambda text: b"\x80\x04pickle",
        lambda text: b"[" * 100_000,
    ],
)
def test_a_plan_in_any_other_form_is_refused(change: Any) -> None:
    data = plan_of(*AVERAGE, output="blend").to_bytes()
    assert read_plan(data).to_bytes() == data
    assert change(data) != data
    with pytest.raises(Corrupt):
        read_plan(change(data))


def number(name: str, dtype: DType = DType.FLOAT, **more: Any) -> Column:
    return Column(name, dtype, **more)


def signature(*columns: Column, output: Any = "probability", classes: Any = (0, 1)) -> ModelSignature:
    return ModelSignature(
        request=columns, inputs=tuple(ModelInput(column=column) for column in columns), output=output,
        classes=classes if output == "probability" else (),
    )  # fmt: skip


@pytest.mark.parametrize(
    ("nodes", "signatures", "said"),
    [
        ((model("a"), model("b", inputs={"y": "a.label"})), {"a": signature(number("x")), "b": signature(number("y", DType.STRING))}, "is string, 'a.label' gives int"),
        ((model("a"), model("b", inputs={"y": "a.value"})), {"a": signature(number("x")), "b": signature(number("y"))}, "gives no 'value': there is label, probability"),
        ((model("a"), model("b", inputs={"y": "a.probability.lat"})), {"a": signature(number("x"), classes=("late", "lost", "fine")), "b": signature(number("y"))}, "did you mean 'probability.late'"),
        ((model("a"), model("b", inputs={"z": "a.probability"})), {"a": signature(number("x")), "b": signature(number("y"))}, "'z' is no request column of b"),
        ((model("a"), model("c"), Node(name="b", kind="vote", of=("a", "c"))), {"a": signature(number("x")), "c": signature(number("x", DType.INT))}, "'x' as int, another as float"),
        ((model("a"), model("c"), Node(name="b", kind="average", of=("a", "c"))), {"a": signature(number("x")), "c": signature(number("x"), output="value")}, "only nodes that give the same"),
        ((model("a"), model("c"), Node(name="b", kind="average", of=("a", "c"))), {"a": signature(number("x")), "c": signature(number("x"), classes=(False, True))}, "only nodes that give the same"),
        ((model("a"), model("c"), Node(name="b", kind="vote", of=("a", "c"))), {"a": signature(number("x"), output="value"), "c": signature(number("x"), output="value")}, "vote needs classifiers"),
    ],
)  # fmt: skip
def test_nodes_that_do_not_fit_are_refused(nodes: Any, signatures: Any, said: str) -> None:
    with pytest.raises(InvalidInput, match=said):
        graph_signature(nodes, "b", signatures)


def test_null_is_legal_only_where_every_node_takes_it() -> None:
    signatures = {
        "a": signature(number("x", nullable=True), number("y", nullable=True)),
        "b": signature(number("x")),
    }
    found = graph_signature(
        (model("a"), model("b"), Node(name="c", kind="vote", of=("a", "b"))), "c", signatures
    )
    assert [(column.name, column.nullable) for column in found.request] == [("x", False), ("y", True)]
    assert [(item.column.name, item.column.nullable) for item in found.inputs] == [("x", False), ("y", True)]


def shares(rows: int) -> st.SearchStrategy[list[list[float]]]:
    row = st.lists(st.floats(0.01, 1), min_size=3, max_size=3).map(
        lambda found: [one / sum(found) for one in found]
    )
    return st.lists(row, min_size=rows, max_size=rows)


@settings(max_examples=60, deadline=None)
@given(
    data=st.data(), rows=st.integers(1, 4), kind=st.sampled_from(["average", "vote"]),
    order=st.permutations(["a", "b", "c"]), weights=st.lists(st.floats(0.1, 10), min_size=2, max_size=2),
)  # fmt: skip
def test_combining_is_a_mean_of_what_is_there_in_any_order_of_classes(
    data: st.DataObject, rows: int, kind: Any, order: list[str], weights: list[float]
) -> None:
    one, other = data.draw(shares(rows)), data.draw(shares(rows))
    first, second = Face("probability", ("a", "b", "c")), Face("probability", tuple(order))
    node = Node(name="n", kind=kind, of=("one", "other"), weights=tuple(weights), tolerate=1)
    combiner = Combiner(node, first, [first, second])
    swapped = [[row["abc".index(label)] for label in order] for row in other]

    found = combiner.combine([Outputs(probabilities=one), Outputs(probabilities=swapped)])

    def counted(given: list[list[float]]) -> Any:
        return np.eye(3)[np.argmax(given, axis=1)] if kind == "vote" else np.array(given)

    wanted = (weights[0] * counted(one) + weights[1] * counted(other)) / sum(weights)
    np.testing.assert_allclose(found.probabilities, wanted, atol=1e-9)
    assert np.all(np.asarray(found.probabilities) >= 0)
    np.testing.assert_allclose(np.sum(found.probabilities, axis=1), 1.0, atol=1e-9)
    left = combiner.combine(
        [None, Outputs(probabilities=swapped)]
    )  # the weights of the others sum to 1 again
    np.testing.assert_allclose(left.probabilities, counted(other), atol=1e-9)


@settings(max_examples=40, deadline=None)
@given(
    rows=st.lists(st.tuples(*[st.floats(-3, 3, width=32)] * 3), min_size=1, max_size=5),
    at=st.floats(0.55, 0.99), weights=st.sampled_from([(), (1.0, 2.0), (5.0, 0.5)]),
)  # fmt: skip
def test_the_serving_form_says_what_its_nodes_say_by_themselves(
    rows: list[tuple[float, ...]], at: float, weights: tuple[float, ...]
) -> None:
    """The reference of the gate's parity check is other code; here they are held together on every kind of node."""
    nodes = (
        model("steep"), model("flat"), model("low"), model("fed", inputs={"p": "mean.probability"}),
        Node(name="mean", kind="average", of=("steep", "flat"), weights=weights),
        Node(name="sure", kind="first_confident", of=("mean", "low", "fed"), at=at),
        Node(name="out", kind="vote", of=("sure", "low", "fed")),
    )  # fmt: skip
    given_rows = [{f"x{place}": value for place, value in enumerate(row)} for row in rows]
    for output in ("sure", "out"):
        plan = plan_of(*(nodes if output == "out" else nodes[:-1]), output=output)
        graph = load_graph(plan.to_bytes(), artifacts_of(plan))
        found = score_rows(graph, given_rows)
        wanted = reference(plan, graph.models, given_rows)
        np.testing.assert_allclose(found.probabilities, wanted, atol=1e-6)  # what is fed is rounded to FP32


def test_a_planted_fault_in_combining_shows_against_the_reference() -> None:
    plan = plan_of(*AVERAGE, output="blend")
    swapped = msgspec.structs.replace(
        plan, nodes=(*plan.nodes[:2], msgspec.structs.replace(plan.nodes[2], weights=(1.0, 3.0)))
    )
    rows = [{"x0": 1.0, "x1": 0.5, "x2": 0.0}]
    found = score_rows(load_graph(swapped.to_bytes(), artifacts_of(swapped)), rows)
    apart = np.abs(
        np.asarray(found.probabilities)
        - reference(plan, load_graph(plan.to_bytes(), artifacts_of(plan)).models, rows)
    )
    assert apart.max() > 0.01


def test_faces_of_combiners_are_those_of_their_first_node() -> None:
    found = faces(
        (model("a"), model("b"), Node(name="c", kind="vote", of=("b", "a"))),
        {"a": Face("probability", (0, 1)), "b": Face("probability", (1, 0))},
    )
    assert found["c"].classes == (1, 0)


def test_an_unavailable_node_is_a_value_and_not_an_exception() -> None:
    graph = loaded(*AVERAGE, output="blend")
    said = attempt(Ask("flat", {}, 1), graph.models["flat"])
    assert isinstance(said, Unavailable)
