"""What the rules over the ledger find reaches people as alerts, each act once, and is over after a day."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import ExitStack
from datetime import timedelta
from pathlib import Path

import pytest
from playbook_world import World

from taut.bootstrap.config import Config
from taut.bootstrap.platform import Platform
from taut.workflows.notices import TOLD_FOR, tell


@pytest.fixture
def world(tmp_path: Path) -> Iterator[World]:
    home = tmp_path / "home"
    home.mkdir(mode=0o700)
    with ExitStack() as stack:
        made = World(Platform(Config(home=home), stack))
        stack.callback(made.platform.records.close)
        yield made


def test_a_new_administrator_is_told_once_about_who_made_him_and_not_for_ever(world: World) -> None:
    assert tell(world.platform) == ()
    world.platform.identity.create_principal("eve", kind="human", roles=["admin"], actor="app")
    (found,) = tell(world.platform)
    world.clock.advance(timedelta(minutes=5))
    (again,) = tell(world.platform)

    assert (found.kind, found.severity, found.principal, again.id) == (
        "notice.new_admin",
        "warning",
        "app",
        found.id,
    )
    assert "became an administrator" in found.summary
    assert not world.platform.alarms.incidents.list()  # to be looked at, and no incident by itself

    world.clock.advance(TOLD_FOR)
    assert tell(world.platform) == ()
    (over,) = world.platform.watches.findings.list()
    assert over.state == "lapsed"


def test_what_a_person_called_right_is_not_told_again(world: World) -> None:
    world.platform.identity.create_principal("eve", kind="human", roles=["admin"], actor="app")
    (found,) = tell(world.platform)
    world.platform.alarms.dismiss(found.id, actor="ada", why="she is the new head of operations")

    assert tell(world.platform) == ()
