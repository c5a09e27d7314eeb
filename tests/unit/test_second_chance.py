"""What failed beside others and passes alone is told and green; whatever else is wrong with a run is red. Faults are planted."""

from __future__ import annotations

import os
import subprocess
import sys
from importlib.machinery import SourceFileLoader
from pathlib import Path
from types import ModuleType

import pytest

TOOL = Path(__file__).parents[2] / "tools/test"

PLANTED = """
import os, pytest
from pathlib import Path
HERE = Path(__file__).parent

def test_that_is_sound():
    pass

@pytest.mark.parametrize("name", ["once", "some times"])
def test_that_fails_once(name):
    first = not (HERE / name).exists()
    (HERE / name).touch()
    assert not first, "in company"

@pytest.fixture
def leaves_a_mess():
    yield
    first = not (HERE / "mess").exists()
    (HERE / "mess").touch()
    assert not first

def test_whose_end_fails_once(leaves_a_mess):
    pass

def test_that_always_fails():
    assert False

def test_that_is_skipped_then():
    if (HERE / "skip").exists():
        pytest.skip("not now")
    (HERE / "skip").touch()
    assert False

def test_that_crashes():
    os._exit(9)

def test_that_is_interrupted():
    raise KeyboardInterrupt
"""


@pytest.fixture(scope="module")
def tool() -> ModuleType:
    loader = SourceFileLoader("second_chance", str(TOOL))
    module = ModuleType(loader.name)
    loader.exec_module(module)
    return module


def run(folder: Path, *arguments: str) -> tuple[int, str]:
    (folder / "test_planted.py").write_text(PLANTED)
    (folder / "pytest.ini").write_text("[pytest]\n")
    done = subprocess.run(
        [sys.executable, TOOL, *arguments], cwd=folder, capture_output=True, text=True,
        env={**os.environ, "PYTEST_DISABLE_PLUGIN_AUTOLOAD": "1"},
    )  # fmt: skip
    return done.returncode, done.stdout + done.stderr


def test_what_fails_once_in_company_is_green_and_told_with_its_first_failure(tmp_path: Path) -> None:
    code, said = run(tmp_path, "-q", "-k", "sound or once")

    assert code == 0, said
    assert "AssertionError: in company" in said
    told = said.partition("FLAKY, 3 of the tests")[2]
    for name in ("fails_once[once]", "fails_once[some times]", "whose_end_fails_once"):
        assert name in told
    assert "sound" not in told


@pytest.mark.parametrize("which", ["always", "skipped_then"])
def test_what_fails_again_or_does_not_run_is_red(tmp_path: Path, which: str) -> None:
    code, said = run(tmp_path, "-q", "-k", which)

    assert code == 1
    assert "tried alone: 1" in said
    assert "FLAKY" not in said


def test_a_fourth_failure_is_red_at_once(tmp_path: Path) -> None:
    code, said = run(tmp_path, "-q", "-k", "always or once")

    assert code == 1
    assert "4 tests failed" in said
    assert "tried alone" not in said


def test_without_a_second_chance_a_failure_is_a_failure(tmp_path: Path) -> None:
    code, said = run(tmp_path, "--strict", "-q", "-k", "fails_once")

    assert code == 1
    assert "tried alone" not in said


def test_a_tester_that_crashes_ends_the_run_in_red_and_says_in_what(tmp_path: Path) -> None:
    code, said = run(
        tmp_path, "-p", "xdist", "-p", "xdist.looponfail", "-n", "1", "--dist", "loadgroup", "-k", "crashes"
    )

    assert code == pytest.ExitCode.INTERNAL_ERROR
    assert "in one of: test_planted.py::test_that_crashes" in said
    assert "tried alone" not in said


def test_an_interrupted_run_is_red(tmp_path: Path) -> None:
    code, said = run(tmp_path, "-q", "-k", "once or interrupted")

    assert code == pytest.ExitCode.INTERRUPTED
    assert "tried alone" not in said


def test_what_is_more_than_the_failure_of_few_tests_gets_no_second_chance(tool: ModuleType) -> None:
    def seen(failed: int = 0, *broken: str) -> object:
        made = tool.Seen()
        made.failed = {f"tests/unit/t.py::test_{n}": False for n in range(failed)}
        made.broken = [*broken]
        return made

    assert tool.no_second_chance(1, seen(3)) == ""
    assert "4 tests failed" in tool.no_second_chance(1, seen(4))
    assert "cannot be collected" in tool.no_second_chance(1, seen(1, "t.py: cannot be collected"))
    assert "pytest ended with 1" in tool.no_second_chance(1, seen(0))
    for code in (2, 3, 4, 5, -9):
        assert f"pytest ended with {code}" in tool.no_second_chance(code, seen(1))


@pytest.mark.parametrize(
    ("test", "keywords", "guards"),
    [
        ("tests/unit/t.py::t", {}, False),
        ("tests/flows/t.py::t", {}, False),
        ("tests/unit/t.py::t", {"invariant": 1}, True),
        ("tests/security/t.py::t", {}, True),
        ("tests/simulation/t.py::t", {}, True),
        ("tests/security/t.py::t", {"processes": 1}, False),
    ],
)
def test_guards_of_invariants_get_no_second_chance_unless_they_start_processes(
    tool: ModuleType, test: str, keywords: dict[str, int], guards: bool
) -> None:
    seen = tool.Seen()
    seen.pytest_runtest_logreport(
        pytest.TestReport(test, ("t.py", 1, "t"), keywords, "failed", "why", "call")
    )

    assert seen.failed == {test: guards}
    assert tool.no_second_chance(1, seen) == (f"{test} guards an invariant" if guards else "")


def test_what_cannot_be_collected_is_broken(tool: ModuleType) -> None:
    seen = tool.Seen()
    seen.pytest_collectreport(pytest.CollectReport("t.py", "failed", "no syntax", None))

    assert seen.broken == ["t.py: cannot be collected"]
