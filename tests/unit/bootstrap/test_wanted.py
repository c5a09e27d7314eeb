"""The number of gateways that control asks its supervisor for."""

from __future__ import annotations

from pathlib import Path

import pytest

from taut.bootstrap.wanted import GATEWAYS_MAX, Wanted


@pytest.fixture
def wanted(tmp_path: Path) -> Wanted:
    (tmp_path / "run").mkdir()
    return Wanted(tmp_path)


def test_what_is_asked_for_is_heard_once_and_known_until_it_is_forgotten(wanted: Wanted) -> None:
    assert (wanted.news(), wanted.read()) == (None, None)
    wanted.write(4)
    assert (wanted.news(), wanted.news(), wanted.read()) == (4, None, 4)
    wanted.write(4)
    assert wanted.news() == 4

    wanted.forget()

    assert (wanted.news(), wanted.read()) == (None, None)
    wanted.forget()


@pytest.mark.parametrize("text", ["", "0", "-3", "x", str(GATEWAYS_MAX + 1), "1e9", "\x00", "9" * 5000])
def test_what_is_no_number_of_gateways_changes_nothing(wanted: Wanted, tmp_path: Path, text: str) -> None:
    (tmp_path / "run" / "gateways").write_text(text)

    assert (wanted.news(), wanted.read()) == (None, None)


def test_a_number_that_a_person_chose_is_known_as_such_until_it_is_forgotten(wanted: Wanted) -> None:
    wanted.write(4, pinned=True)
    assert (wanted.news(), wanted.read(), wanted.pinned) == (4, 4, True)
    wanted.write(4)
    assert (wanted.read(), wanted.pinned) == (4, False)

    wanted.write(3, pinned=True)
    wanted.forget()
    assert wanted.pinned is False
