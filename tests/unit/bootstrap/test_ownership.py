"""A database serves one installation, known by its keys."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from taut.bootstrap.ownership import KIND
from taut.bootstrap.platform import Platform, open_platform
from taut.core.errors import Conflict


@contextmanager
def installation(folder: Path, name: str) -> Iterator[Platform]:
    """An installation of its own home and keys on the one database of `folder`."""
    with open_platform(folder / name, environ={"TAUT_RECORDS": f"sqlite://{folder}/shared.db"}) as platform:
        yield platform


def begun(platform: Platform) -> int:
    return len(platform.ledger.show(kind=KIND))


def test_a_database_belongs_to_the_installation_that_began_with_it(tmp_path: Path) -> None:
    with installation(tmp_path, "one") as one:
        one.own_database()
        one.own_database()
        assert begun(one) == 1
    with (
        installation(tmp_path, "two") as two,
        pytest.raises(Conflict, match="belongs to another installation"),
    ):
        two.own_database()
    with installation(tmp_path, "one") as one:
        one.own_database()
        assert begun(one) == 1


def test_an_installation_stays_the_owner_when_its_key_is_rotated(tmp_path: Path) -> None:
    with installation(tmp_path, "one") as one:
        one.own_database()
        one.keys.rotate(purpose="ledger")

        one.own_database()

        assert begun(one) == 1
