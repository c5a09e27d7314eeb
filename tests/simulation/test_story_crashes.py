"""Processes that tell stories are killed at any edge, by SIGKILL: nothing acknowledged is lost, no commit happens twice."""

from __future__ import annotations

import os
import random
import signal
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
import story_crashes
from story_crashes import RESULT, WANTED

EDGES = 240
"""At least so many edges has the tale; a test checks it."""

SAMPLE = 8

pytestmark = pytest.mark.filterwarnings("ignore:This process.*is multi-threaded")


def kill_at() -> list[int]:
    """The edges to kill at: every one when the environment asks for it, else a sample that differs by dialect only."""
    every = list(range(1, 400))
    return (
        every
        if os.environ.get("TAUT_CRASH") == "all"
        else sorted(random.Random(20131).sample(range(1, EDGES), SAMPLE))
    )


@pytest.fixture(params=["sqlite", "postgres"])
def fresh(request: pytest.FixtureRequest, tmp_path: Path) -> Callable[[], str]:
    """Returns the address of an empty store with the tables, anew at each call."""
    url = request.getfixturevalue("postgres_url") if request.param == "postgres" else ""
    made: list[str] = []

    def make() -> str:
        if url:
            records = story_crashes.open_store(url)
            with records.begin() as tx:
                for table in ("story_signals", "story_steps", "story_stories", "crash_effects"):
                    tx.exec_driver_sql(f"DROP TABLE IF EXISTS {table}")
            records.close()
        made.append(url or str(tmp_path / f"{len(made)}.db"))
        story_crashes.prepare(made[-1])
        return made[-1]

    return make


@pytest.mark.crash
def test_a_kill_at_any_edge_loses_nothing_acknowledged_and_repeats_no_commit(
    fresh: Callable[[], str],
) -> None:
    survived = None
    for edge in kill_at():
        url = fresh()
        acknowledged, status = tell_in_child(url, edge)
        if status == 0:
            survived = edge
            break
        assert status == -signal.SIGKILL
        tale, result, left = story_crashes.recover(url)

        if tale is None:  # killed before the start was committed, so before anybody was told an id
            assert not acknowledged, f"edge {edge}: an acknowledged story is gone"
            assert left == {}
        else:
            assert acknowledged in ("", tale)
            assert (result, left) == (RESULT, WANTED), f"edge {edge}"
    assert survived is None or survived > EDGES


@pytest.mark.crash
def test_a_second_kill_during_the_recovery_changes_nothing(fresh: Callable[[], str]) -> None:
    for first, second in [(40, 25), (75, 60), (110, 20)]:
        url = fresh()
        tell_in_child(url, first)
        _, status = tell_in_child(url, second, hours=1)
        tale, result, left = story_crashes.recover(url)

        assert status == -signal.SIGKILL
        assert tale is not None
        assert (result, left) == (RESULT, WANTED)


def test_the_tale_told_without_a_kill_has_the_edges_that_are_sampled(fresh: Callable[[], str]) -> None:
    passed = story_crashes.run_until_killed(fresh(), 0, lambda _: None)

    print(f"{passed} edges")
    assert passed > EDGES


def tell_in_child(url: str, edge: int, *, hours: int = 0) -> tuple[str, int]:
    """Tell the tale in a process that dies at `edge`; return what it acknowledged and how it ended."""
    out, into = os.pipe()
    pid = os.fork()
    if pid == 0:
        status = 1
        try:
            story_crashes.START = story_crashes.START.replace(hour=hours)
            story_crashes.run_until_killed(url, edge, lambda id_: os.write(into, id_.encode()))
            status = 0
        except BaseException as error:  # noqa: BLE001 - told to the parent by its status
            print(f"{type(error).__name__}: {error}", file=sys.stderr)
        finally:
            os._exit(status)
    os.close(into)
    status = os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])
    with os.fdopen(out) as pipe:
        return pipe.read(), status
