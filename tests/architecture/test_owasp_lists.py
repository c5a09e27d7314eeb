"""The page on OWASP's lists is whole, and each of its lines names tests that exist."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
PAGE = ROOT / "docs/explanation/owasp.md"
LINES = {*(f"API{number}" for number in range(1, 11)), *(f"A{number:02d}" for number in range(1, 11))}
_ROW = re.compile(r"^\| (A(?:PI)?\d+) [^|]+ \| ([^|]+) \| ([^|]+) \|$", re.M)
_TEST = re.compile(r"`(tests/[\w/]+\.py)::(test_\w+)`")


def faults(page: str) -> list[str]:
    rows = {line: (defence.strip(), shown) for line, defence, shown in _ROW.findall(page)}
    found = [f"{line} is not there" for line in sorted(LINES - set(rows))]
    for line, (defence, shown) in rows.items():
        tests = _TEST.findall(shown)
        if not defence or not tests or _TEST.sub("", shown).strip(" ,"):
            found.append(f"{line} says no defence, or names something else than tests")
        for path, name in tests:
            file = ROOT / path
            if not file.exists() or not re.search(rf"^(?:async )?def {name}\(", file.read_text(), re.M):
                found.append(f"{line} names {path}::{name}, which is not there")
    return found


def test_every_line_of_both_lists_names_what_defends_and_tests_that_exist() -> None:
    assert faults(PAGE.read_text()) == []


@pytest.mark.parametrize(
    ("planted", "found"),
    [
        (("| API7 ", "| API77 "), "API7 is not there"),
        (("::test_nobody_ends_or", "::test_somebody_ends_or"), "which is not there"),
        (
            ("`tests/security/test_policy_escalation.py::test_names_are_data_and_never_policy`", "a review"),
            "something else",
        ),
    ],
)
def test_a_line_that_is_missing_or_names_no_test_is_found(planted: tuple[str, str], found: str) -> None:
    assert any(found in fault for fault in faults(PAGE.read_text().replace(*planted, 1)))
