"""Which rows a graph is measured on: those that no node has seen, of one dataset and one label."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from types import SimpleNamespace
from typing import Any, cast

import polars as pl
import pytest

from taut.core.errors import InvalidInput
from taut.core.graphs import Node
from taut.core.schema import Column, DType, ModelInput, ModelSignature
from taut.ports.tables import ROW_ID
from taut.project.manifest import GraphSpec
from taut.workflows.graph_rows import common_rows, constant_baseline

SIGNATURE = ModelSignature(
    request=(Column("x", DType.FLOAT),), inputs=(ModelInput(column=Column("x", DType.FLOAT)),), output="probability",
    classes=(False, True), form="graph",
)  # fmt: skip
SPEC = GraphSpec(
    name="blend", output="all",
    nodes=(
        Node(name="a", kind="model", model="a"), Node(name="b", kind="model", model="b"),
        Node(name="all", kind="average", of=("a", "b")),
    ),
)  # fmt: skip


class Training:
    """Runs by id, each with the rows that it was tested on."""

    def __init__(self, **held: pl.DataFrame) -> None:
        self.held = held
        self.datasets = dict.fromkeys(held, "orders")

    def get(self, run: str) -> Any:
        started = datetime(2026, 1, 1, tzinfo=UTC) + timedelta(days=list(self.held).index(run))
        return SimpleNamespace(
            id=run, started_at=started, spec=SimpleNamespace(dataset=self.datasets[run], label="late")
        )

    def holdout(self, run: str) -> pl.DataFrame:
        return self.held[run]

    def known_labels(self, _run: str) -> pl.Series:
        return pl.Series("late", [False, False, False, True])


def frame(ids: range, **more: list[Any]) -> pl.DataFrame:
    columns = {
        ROW_ID: list(ids),
        "x": [float(one) for one in ids],
        "late": [one % 2 == 0 for one in ids],
        "y": [0] * len(ids),
    }
    return pl.DataFrame({**columns, **more})


def measured(training: Training, *, labels: tuple[str, str] = ("late", "late")) -> Any:
    infos = {
        name: SimpleNamespace(ref=f"{name}@1", candidate=SimpleNamespace(run=name, label=label))
        for name, label in zip(("a", "b"), labels, strict=True)
    }
    return common_rows(cast(Any, SimpleNamespace(training=training)), SPEC, cast(Any, infos), SIGNATURE)


def test_only_rows_that_every_node_was_tested_on_are_used() -> None:
    older, newer = frame(range(30)), frame(range(20, 50), x=[-1.0] * 30)
    found = measured(Training(a=older, b=newer))

    assert found.holdout[ROW_ID].to_list() == list(range(20, 30))
    assert found.holdout["x"].unique().to_list() == [-1.0]  # features as the newest run had them
    assert found.holdout.columns == [ROW_ID, "x", "late"]
    assert found.sample.height == 10
    assert constant_baseline(found, SIGNATURE)["accuracy"] == 0.5


def test_no_common_row_is_refused_with_what_to_do() -> None:
    with pytest.raises(
        InvalidInput, match="no row was held out from all of a@1, b@1: train them on one snapshot"
    ):
        measured(Training(a=frame(range(10)), b=frame(range(10, 20))))


def test_other_datasets_and_labels_are_refused() -> None:
    training = Training(a=frame(range(10)), b=frame(range(10)))
    training.datasets["b"] = "parcels"
    with pytest.raises(InvalidInput, match="trained on orders, parcels"):
        measured(training)
    with pytest.raises(InvalidInput, match="combines nodes of different labels: 'a' 'late', 'b' 'lost'"):
        measured(Training(a=frame(range(10)), b=frame(range(10))), labels=("late", "lost"))
