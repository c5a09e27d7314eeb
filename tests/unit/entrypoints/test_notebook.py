"""In a notebook everything works on the project's files: the same contract, the same join, nothing kept."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import polars as pl
import pytest

import taut
from taut.core.errors import InvalidInput, NotFound
from taut.entrypoints.templates import write_project

HEAD = "id,at,late\n"


def orders(tmp_path: Path, text: str, **words: object) -> taut.Dataset:
    (tmp_path / "orders.csv").write_text(text)
    contract = taut.Contract(
        [
            taut.column("id", "int", unique=True, minimum=1),
            taut.column("at", "datetime"),
            taut.column("late", "bool"),
        ]
    )
    return taut.Dataset(
        "orders", source=taut.files(str(tmp_path / "orders.csv")), contract=contract, event_time="at", **words  # type: ignore[arg-type]  # words of one test
    )  # fmt: skip


def test_reading_gives_the_rows_that_keep_the_contract_in_its_types(tmp_path: Path) -> None:
    text = (
        HEAD
        + "1,2026-01-01T00:00:00Z,true\n-1,2026-01-01T01:00:00Z,true\nx,2026-01-01T02:00:00Z,false\n2,2026-01-01T03:00:00Z,no\n1,2026-01-01T04:00:00Z,true\n3,2026-01-01T05:00:00Z,false\n"
    )
    data = orders(tmp_path, text)

    frame = data.read()

    assert frame["id"].to_list() == [1, 3]
    assert frame.schema["at"] == pl.Datetime("us", "UTC")
    found = data.check()
    assert (found.records, found.rows) == (6, 2)
    assert found.rules == {"id:minimum": 1, "id:type": 1, "late:type": 1, "id:unique": 1}
    assert data.read(rows=1).height == 1


def test_files_that_are_absent_empty_or_of_another_shape_are_named(tmp_path: Path) -> None:
    with pytest.raises(NotFound):
        taut.Dataset(
            "x", source=taut.files(str(tmp_path / "no.csv")), contract=taut.Contract({"a": "int"})
        ).read()
    with pytest.raises(InvalidInput, match="orders"):
        orders(tmp_path, "").read()
    with pytest.raises(InvalidInput, match="hold no record"):
        orders(tmp_path, HEAD).read()
    with pytest.raises(InvalidInput, match="late"):
        orders(tmp_path, "id,at\n1,2026-01-01T00:00:00Z\n").read()


@taut.features("twice", entity="id", event_time="at", sources=[], online=False)
def nothing() -> pl.LazyFrame:
    return pl.LazyFrame({"id": [1], "at": ["not a time"]})


def test_a_feature_function_that_gives_no_feature_set_is_refused() -> None:
    with pytest.raises(InvalidInput, match="twice"):
        nothing.preview()  # type: ignore[attr-defined]  # the decorator adds it


SESSION = """
import project, taut
assert project.orders.read(rows=10).height == 10
assert project.load.preview(rows=60).columns == ["warehouse", "hour", "waiting"]
tried = project.train.try_(rows=4000, params={"trees": 20})
assert tried.metrics["auc"] > 0.7, tried
assert tried.train_rows + tried.test_rows <= 4000
with taut.open() as session:
    assert session.call("data.list") == {"datasets": []}
    try:
        session.predict("late", {"items": 1})
    except taut_errors.NotFound as error:
        assert "taut release start" in str(error)
    else:
        raise AssertionError("nothing was released")
print("ok")
"""


def test_a_whole_session_on_the_sample_project(tmp_path: Path) -> None:
    write_project(tmp_path / "shop")
    code = "import taut.core.errors as taut_errors\n" + SESSION
    done = subprocess.run(
        [sys.executable, "-W", "error", "-c", code],
        cwd=tmp_path / "shop",
        capture_output=True,
        text=True,
        check=False,
    )

    assert (done.stdout, done.returncode) == ("ok\n", 0), done.stderr
