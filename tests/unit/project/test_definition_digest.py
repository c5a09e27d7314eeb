"""What counts as another definition of a feature set, and what is only another state of the project."""

from __future__ import annotations

import pytest

from taut.core.errors import Corrupt
from taut.project.definition import definition_digest
from taut.project.manifest import FunctionRef

PROJECT = '''
"""The shop."""
import polars as pl
import taut
from helpers.numbers import scaled

FACTOR = 2.0
UNUSED = 1

orders = taut.Dataset("orders")

def twice(value):
    return value * FACTOR

@taut.features("load", entity="warehouse", event_time="hour", sources=[orders], online=True)
def load(orders):
    """How much work lay there."""
    from helpers import late
    return orders.select("warehouse", "hour", waiting=twice(scaled(pl.col("waiting"))))

@taut.model("late", dataset=orders)
def train(ctx):
    return 1
'''
FILES = {
    "project.py": PROJECT,
    "helpers/__init__.py": "",
    "helpers/numbers.py": "from helpers import deep\n\ndef scaled(value):\n    return deep.HALF * value\n",
    "helpers/deep.py": "HALF = 0.5\n",
    "helpers/late.py": "NOW = 1\n",
    "other.py": "X = 1\n",
}


def digest(changed: dict[str, str] | None = None) -> str:
    files = {**FILES, **(changed or {})}
    return definition_digest(
        {name: text.encode() for name, text in files.items()}, FunctionRef("project", "load")
    )


@pytest.mark.parametrize(
    ("was", "becomes"),
    [
        ("value * FACTOR", "value + FACTOR"), ("FACTOR = 2.0", "FACTOR = 3.0"), ('pl.col("waiting")', 'pl.col("busy")'),
        ("from helpers.numbers import scaled", "from helpers.deep import HALF as scaled"),
    ],
)  # fmt: skip
def test_code_that_the_function_runs_is_its_definition(was: str, becomes: str) -> None:
    assert was in PROJECT

    assert digest({"project.py": PROJECT.replace(was, becomes)}) != digest()


@pytest.mark.parametrize("module", ["numbers.py", "deep.py", "late.py", "__init__.py"])
def test_modules_of_the_project_that_it_imports_are_too(module: str) -> None:
    assert digest({f"helpers/{module}": "def scaled(value):\n    return value\n"}) != digest()


@pytest.mark.parametrize(
    ("was", "becomes"),
    [
        ("return 1", "return 2"), ("UNUSED = 1", "UNUSED = 2"), ('taut.Dataset("orders")', 'taut.Dataset("orders", keep=1)'),
        ("How much work lay there.", "Other words."), ("    return value", "    # a comment\n\n    return  value"),
        ("online=True", "online=True, max_age='1h'"), ('    """How much work lay there."""\n', ""),
    ],
)  # fmt: skip
def test_whatever_else_changes_in_the_project_is_not(was: str, becomes: str) -> None:
    assert was in PROJECT

    assert digest({"project.py": PROJECT.replace(was, becomes), "other.py": "X = 2\n"}) == digest()


@pytest.mark.parametrize("text", ["def load(:", "def other(): ...", "\x00"])
def test_a_bundle_without_the_function_is_said_to_be_none(text: str) -> None:
    with pytest.raises(Corrupt, match="apply the project again"):
        digest({"project.py": text})
