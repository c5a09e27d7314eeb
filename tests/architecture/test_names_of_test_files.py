"""Each test file has a name of its own: pytest imports it by that name alone, and two of one name stop the whole run."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable
from pathlib import Path

TESTS = Path(__file__).parents[1]


def taken_twice(paths: Iterable[Path]) -> list[str]:
    counted = Counter(path.name for path in paths if path.name not in ("conftest.py", "__init__.py"))
    return sorted(name for name, count in counted.items() if count > 1)


def test_no_two_files_of_tests_have_one_name() -> None:
    assert taken_twice(TESTS.rglob("*.py")) == []


def test_a_planted_second_one_is_found() -> None:
    assert taken_twice([Path("flows/test_a.py"), Path("unit/test_a.py"), Path("unit/test_b.py")]) == [
        "test_a.py"
    ]
