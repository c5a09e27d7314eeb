"""What a command is told when the platform runs and its control does not answer."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

import pytest

from taut.core.errors import Conflict, Unavailable
from taut.entrypoints.absent import absent_control
from taut.entrypoints.children import alive
from taut.entrypoints.client import connect, home_lock


def platform(home: Path, *, log: str = "", pid: int = 0, **control: Any) -> Path:
    """A home as a supervisor leaves it whose control is away; this very process stands for the supervisor."""
    for name in ("run", "log"):
        (home / name).mkdir(parents=True)
    child = {"name": "control", "pid": None, "state": "waiting", "last_exit": "exit 7", **control}
    state = {"pid": pid or os.getpid(), "started": alive(os.getpid()), "children": [child]}
    (home / "run" / "supervisor.json").write_text(json.dumps(state))
    (home / "log" / "control.log").write_text(log)
    return home


def test_a_control_that_cannot_start_is_told_with_its_own_words(tmp_path: Path) -> None:
    last = '{"code": "unavailable", "message": "database shop: does not answer"}'

    said = absent_control(platform(tmp_path / "home", log=f"earlier\n{last}\n"))

    assert "ended (exit 7: unavailable: database shop: does not answer)" in said
    assert "retry" in said


@pytest.mark.parametrize("log", ["", "Killed\n", '{"code": 1}\n', "[]\n", "\xff\n"])
def test_a_control_that_was_killed_is_told_with_the_place_of_its_log(tmp_path: Path, log: str) -> None:
    home = platform(tmp_path / "home", log=log, last_exit="killed by SIGKILL")

    assert f"ended (killed by SIGKILL: {home}/log/control.log says more)" in absent_control(home)


def test_a_control_that_starts_is_not_said_to_have_ended(tmp_path: Path) -> None:
    assert "its control is not ready yet" in absent_control(platform(tmp_path / "home", last_exit=""))


def test_a_supervisor_that_is_dead_keeps_no_control(tmp_path: Path) -> None:
    assert absent_control(platform(tmp_path / "home", pid=2**22)) == ""
    assert absent_control(tmp_path / "nothing here") == ""


def test_a_command_may_be_retried_beside_a_platform_and_conflicts_with_any_other_process(
    tmp_path: Path,
) -> None:
    running, other = platform(tmp_path / "running"), tmp_path / "other"
    for home in (running, other):
        home.mkdir(exist_ok=True, mode=0o700)

    with home_lock(running), pytest.raises(Unavailable, match="retry"):
        connect(running)
    with home_lock(other), pytest.raises(Conflict, match="wait until it ends"):
        connect(other)
