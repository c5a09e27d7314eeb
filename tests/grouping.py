"""Tests of one group run in one process of pytest-xdist, so that what they share is built once.

pytest-xdist 3.8 tells groups to its scheduler in node ids, which pytest 9.2 no longer lets it change: without a word,
the tests of a group are spread over all processes (pytest-xdist#1386). Here the group is read from the file, where
`pytestmark = pytest.mark.xdist_group("name")` says it, alone or first in a list. A file whose fixtures are its module's
is a group of its own, and so is every file of `tests/unit`. The order is that of the files: those of flows, which take
longest, come well before the units, whose files fill what is left at the end.
"""

from __future__ import annotations

import re
from functools import cache
from pathlib import Path
from typing import Any

import pytest

_GROUP = re.compile(r"^(?:pytestmark = \[?|    )pytest\.mark\.xdist_group\(\"([\w-]+)\"\)", re.MULTILINE)
_SHARED = '@pytest.fixture(scope="module")'


@cache
def group_of(path: Path) -> str:
    """The group of a test file, empty where its tests go to any process."""
    text = path.read_text(encoding="utf-8") if path.suffix == ".py" else ""
    found = _GROUP.search(text)
    if found:
        return found[1]
    return str(path) if "unit" in path.parts or _SHARED in text else ""


@pytest.hookimpl(optionalhook=True)
def pytest_xdist_make_scheduler(config: pytest.Config, log: Any) -> Any:
    if config.getvalue("dist") != "loadgroup":
        return None
    from xdist.scheduler import LoadGroupScheduling

    class GroupScheduling(LoadGroupScheduling):
        def _split_scope(self, nodeid: str) -> str:
            return group_of(config.rootpath / nodeid.partition("::")[0]) or nodeid

    config.option.loadscopereorder = False
    return GroupScheduling(config, log)
