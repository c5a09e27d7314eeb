"""The reference is true: written from the commands, complete in codes and in the builder's words."""

from __future__ import annotations

import inspect
import re
from pathlib import Path

import taut
from taut.entrypoints.cli.reference import page
from taut.entrypoints.errors import TABLE
from taut.project.datasets import Contract, Promises

DOCS = Path(__file__).parents[3] / "docs"


def test_the_command_line_is_documented_as_it_is() -> None:
    assert (DOCS / "reference/command-line.md").read_text() == page(), (
        "write it again: python -P -m taut.entrypoints.cli.reference > docs/reference/command-line.md"
    )


def test_every_error_code_is_documented_with_its_status_and_exit_code() -> None:
    text = (DOCS / "reference/errors.md").read_text()
    rows = {
        code: (int(status), int(exit_))
        for code, status, exit_ in re.findall(r"^\| `(\w+)` \| (\d+) \| (\d+) \|", text, re.M)
    }

    assert rows == {code: (answer.status, answer.exit_code) for code, answer in TABLE.items()}


def test_every_word_of_the_builders_face_is_documented() -> None:
    text = (DOCS / "reference/project-file.md").read_text() + (
        DOCS / "how-to/use-from-a-notebook.md"
    ).read_text()

    assert not [name for name in taut.__all__ if f"taut.{name}" not in text]
    assert not [word for word in Promises.__annotations__ if word not in text]
    assert not [word for word in inspect.signature(Contract).parameters if f"{word}" not in text]


def test_every_word_of_the_builders_face_can_be_imported() -> None:
    for name in taut.__all__:
        assert getattr(taut, name) is not None
    assert set(taut.__all__) <= set(dir(taut))
