"""Each line of what is asked wrongly of a release names a test that is there."""

from __future__ import annotations

import re
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
LINES = (
    "no traffic",
    "one caller",
    "contradict",
    "clocks",
    "nobody measures",
    "schemas",
    "no numbers",
    "flood",
    "his own",
    "two releases",
)


def test_each_bad_input_is_shown_by_tests_that_exist() -> None:
    text = (ROOT / "docs/explanation/guarded-releases.md").read_text()
    table = text.partition("## What is asked of it wrongly")[2].partition("\n## ")[0]
    rows = [row for row in table.splitlines() if row.startswith("| ") and "`" in row]
    assert [word for word in LINES if not any(word in row.split("|")[1] for row in rows)] == []
    for row in rows:
        shown = re.findall(r"`(tests/[^`]+)`: `(test_\w+)`", row)
        assert shown, row
        for path, name in shown:
            assert f"def {name}(" in (ROOT / path).read_text(), (path, name)
