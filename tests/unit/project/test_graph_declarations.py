"""What a graph may be made of, and what is refused in words before anything is trained."""

from __future__ import annotations

from pathlib import Path

import pytest

from taut.core.errors import InvalidInput
from taut.project.load import load_project
from taut.project.manifest import GraphSpec

PROJECT = """
import taut

COLUMNS = [
    taut.column("at", "datetime"), taut.column("late", "bool"), taut.column("early", "bool"),
    taut.column("items", "int"), taut.column("weight", "float"), taut.column("p_late", "float"),
]
orders = taut.Dataset("orders", source=taut.files("orders.csv"), contract=taut.Contract(COLUMNS), event_time="at")
others = taut.Dataset("others", source=taut.files("others.csv"), contract=taut.Contract(COLUMNS), event_time="at")

def declared(name, label="late", dataset=orders, request=("items", "weight"), risk="low"):
    def train(ctx: taut.TrainContext) -> taut.Trained: ...
    train.__qualname__ = name
    globals()[name] = train
    return taut.model(name, dataset=dataset, request=request, label=label, risk=risk)(train)

trees = declared("trees")
linear = declared("linear", request=["items"], risk="medium")
risk = declared("risk", request=["items", "p_late"])
early = declared("early", label="early")
elsewhere = declared("elsewhere", dataset=others)

TREES, LINEAR = taut.node(trees), taut.node(linear)
blend = taut.Graph("blend", GRAPH)
late = taut.Endpoint("late", model=blend)
"""

PAIR = '"trees": TREES, "linear": LINEAR'


def graph(folder: Path, text: str) -> GraphSpec:
    (folder / "project.py").write_text(PROJECT.replace("GRAPH", text))
    return load_project(folder / "project.py").manifest.graphs[0]


def test_what_is_declared_is_in_the_manifest(tmp_path: Path) -> None:
    found = graph(
        tmp_path,
        'nodes={"trees": TREES, "risk": taut.node(risk, inputs={"p_late": "trees.probability"}), '
        '"blend": taut.average("trees", "risk", weights=(2, 1), tolerate=1)}, output="blend", '
        'gates=[taut.metric("auc", minimum=0.6)], approval=taut.approval(1)',
    )

    assert [(node.name, node.kind, node.model) for node in found.nodes] == [
        ("trees", "model", "trees"), ("risk", "model", "risk"), ("blend", "average", ""),
    ]  # fmt: skip
    assert (found.nodes[1].inputs, found.nodes[2].weights) == ({"p_late": "trees.probability"}, (2.0, 1.0))
    assert (found.output, found.approvals, found.risk) == ("blend", 1, "low")


def test_a_graph_is_as_risky_as_its_riskiest_node(tmp_path: Path) -> None:
    assert (
        graph(tmp_path, f'nodes={{{PAIR}, "all": taut.vote("trees", "linear")}}, output="all"').risk
        == "medium"
    )
    with pytest.raises(InvalidInput, match="its risk is low, that of its node 'linear' is medium"):
        graph(tmp_path, f'nodes={{{PAIR}, "all": taut.vote("trees", "linear")}}, output="all", risk="low"')


@pytest.mark.parametrize(
    ("text", "said"),
    [
        (f'nodes={{{PAIR}, "all": taut.average("trees", "liner")}}, output="all"', "'liner': did you mean 'linear'"),
        (f'nodes={{{PAIR}, "all": taut.average("trees", "linear")}}, output="al"', "'al': did you mean 'all'"),
        (f'nodes={{{PAIR}}}, output="trees"', "node 'linear' leads to no answer"),
        (f'nodes={{{PAIR}, "a": taut.vote("trees", "b"), "b": taut.vote("linear", "a")}}, output="a"', "circle: a → b → a"),
        ('nodes={"risk": taut.node(risk, inputs={"p_lat": "trees.probability"}), "trees": TREES}, output="risk"', "did you mean 'p_late'"),
        ('nodes={"risk": taut.node(risk, inputs={"p_late": "tree.probability"}), "trees": TREES}, output="risk"', "did you mean 'trees'"),
        ('nodes={"risk": taut.node(risk, inputs={"p_late": "trees.probabilty"}), "trees": TREES}, output="risk"', "did you mean 'probability'"),
        ('nodes={"risk": taut.node(risk, inputs={"p_late": "trees"}), "trees": TREES}, output="risk"', "Write NODE.probability"),
        (f'nodes={{{PAIR}, "all": taut.average("trees", "linear", weights=(1,))}}, output="all"', "1 weights for 2 nodes"),
        (f'nodes={{{PAIR}, "all": taut.average("trees", "linear", weights=(1, 0))}}, output="all"', "numbers above 0"),
        (f'nodes={{{PAIR}, "all": taut.average("trees", "linear", tolerate=2)}}, output="all"', "tolerate is 2"),
        (f'nodes={{{PAIR}, "all": taut.first_confident(["trees", "linear"], at=1.5)}}, output="all"', "at is 1.5"),
        ('nodes={"trees": TREES, "early": taut.node(early), "all": taut.average("trees", "early")}, output="all"', "predicts 'late', 'early' predicts 'early'"),
        ('nodes={"trees": TREES, "e": taut.node(elsewhere), "all": taut.average("trees", "e")}, output="all"', "trained on orders, others"),
        ('nodes={"trees": trees}, output="trees"', "node 'trees' is train"),
        ('nodes={"inner": taut.node(taut.Graph("inner", nodes={"trees": TREES}, output="trees"))}, output="inner"', "'inner' is a graph"),
        ('nodes={"trees": taut.node(orders)}, output="trees"', "is no model"),
        (f'nodes={{{PAIR}, "all": taut.avrage("trees", "linear")}}, output="all"', "did you mean 'average'"),
    ],
)  # fmt: skip
def test_what_cannot_be_is_refused_with_the_nearest_word(tmp_path: Path, text: str, said: str) -> None:
    with pytest.raises((InvalidInput, AttributeError), match=".*" + said.replace("(", "\\(")):
        graph(tmp_path, text)


def test_a_graph_and_a_model_have_different_names(tmp_path: Path) -> None:
    text = PROJECT.replace('Graph("blend", GRAPH)', 'Graph("trees", nodes={"a": TREES}, output="a")')
    (tmp_path / "project.py").write_text(text)
    with pytest.raises(InvalidInput, match="a model has this name"):
        load_project(tmp_path / "project.py")
