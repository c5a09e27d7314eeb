"""Control is killed at any edge of a firing, by SIGKILL: the reason begins one run, whose work happens once, and its end is noted once."""

from __future__ import annotations

import os
import signal
import sys
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from sqlalchemy import insert, select
from story_crashes import Edges, effects, open_store
from story_crashes import metadata as effect_tables

import taut
from taut.adapters.keys.file import FileKeys
from taut.adapters.stories import JournalStories
from taut.adapters.stories import metadata as story_tables
from taut.adapters.world import SystemIds
from taut.lifecycle.triggers import Firing, Seen, Triggers, Watched, metadata
from taut.ports.stories import Json, Story
from taut.project.manifest import TriggerSpec
from taut.testing.records import create_tables
from taut.testing.world import ManualClock, SeededRandom
from taut.trust.ledger import Ledger
from taut.trust.ledger import metadata as ledger_tables

START = datetime(2026, 1, 1, tzinfo=UTC)
NEW = TriggerSpec(kind="new_data", dataset="flights", count=100)
EDGES = 40
SAMPLE = (8, 15, 24, 33)

pytestmark = pytest.mark.filterwarnings("ignore:This process.*is multi-threaded")


class Control:
    """Control as far as triggers go, on a store that outlives it."""

    def __init__(self, folder: Path, *, later: timedelta = timedelta(), edges: Edges | None = None) -> None:
        self.records = open_store(str(folder / "records.db"))
        create_tables(self.records, story_tables, effect_tables, metadata, ledger_tables)
        if edges is not None:
            edges.watch(self.records)
        self.clock = ManualClock(START + later)
        self.stories = JournalStories(
            self.records, {"retrain": retrain}, clock=self.clock, ids=SystemIds(), random=SeededRandom(1), lease_s=30, poll_s=0.01
        )  # fmt: skip
        keys = FileKeys(folder / "keys", random=SeededRandom(2))
        self.ledger = Ledger(self.records, keys, self.clock, SystemIds(), origin="test")
        self.triggers = Triggers(self.records, self.ledger, self.clock, self.stories)

    def look(self, current: int) -> Firing | None:
        """Look once, where `current` is the newest snapshot: as gathered from the data."""
        state = self.triggers.remembered("delay")
        rows = 100 * (current - (state.learned["flights"] if state else current))
        seen = Seen(snapshots={"flights": current}, added={"flights": rows}, now_code="code")
        rules = taut.Retraining(settle="0s")
        return self.triggers.look(
            Watched(model="delay", triggers=(NEW,), rules=rules, seen=seen, actor="ann")
        )

    def live(self) -> None:
        """See the first snapshot, then the second, and carry out what follows."""
        if self.triggers.remembered("delay") is None:
            self.look(1)
        for _ in range(3):
            self.look(2)
            self.stories.work(until_idle=True)
            self.clock.advance(31)
        self.look(2)

    def left(self) -> tuple[list[str], list[str]]:
        """Return the effects of runs, and the leaves of triggers."""
        with self.records.read() as tx:
            what = [str(one) for one in tx.execute(select(effects.c.what)).scalars()]
        self.ledger.sequence()
        kinds = (leaf.kind for leaf in reversed(self.ledger.show(limit=100)))
        return what, [kind for kind in kinds if kind.startswith("trigger.")]


def retrain(story: Story, arguments: Json) -> Json:
    what = f"run {arguments['number']}: {arguments['reasons'][0]}"
    story.commit("learn", lambda tx: tx.execute(insert(effects).values(what=what)) and what)
    return {"decision": "admitted"}


ONCE = (["run 1: new data: 100 rows of flights"], ["trigger.fired", "trigger.ended"])


def test_a_firing_without_a_kill_has_the_edges_that_are_sampled(tmp_path: Path) -> None:
    edges = Edges(0)
    control = Control(tmp_path, edges=edges)
    control.live()
    assert control.left() == ONCE
    assert edges.passed > EDGES


@pytest.mark.crash
@pytest.mark.parametrize("edge", range(1, 400) if os.environ.get("TAUT_CRASH") == "all" else SAMPLE)
def test_a_kill_at_any_edge_of_a_firing_begins_one_run(tmp_path: Path, edge: int) -> None:
    pid = os.fork()
    if pid == 0:
        status = 1
        try:
            Control(tmp_path, edges=Edges(edge)).live()
            status = 0
        except BaseException as error:  # noqa: BLE001 - told to the parent by its status
            print(f"{type(error).__name__}: {error}", file=sys.stderr)
        finally:
            os._exit(status)
    ended = os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])
    assert ended == -signal.SIGKILL or (ended == 0 and edge > EDGES)
    control = Control(tmp_path, later=timedelta(hours=1))
    control.live()
    assert control.left() == ONCE


def test_a_run_under_way_holds_the_next_one_back_and_loses_no_reason(tmp_path: Path) -> None:
    control = Control(tmp_path)
    control.look(1)
    control.look(2)  # fires, and nobody works on it yet
    for _ in range(3):
        control.look(3)
    assert control.left()[1] == ["trigger.fired"]
    control.stories.work(until_idle=True)
    ended = control.look(3)
    assert ended is not None
    assert ended.outcome is not None
    assert (ended.number, ended.outcome["decision"]) == (1, "admitted")
    control.stories.work(until_idle=True)
    control.look(3)
    assert control.left()[1] == ["trigger.fired", "trigger.ended"] * 2


def test_two_looks_at_the_same_moment_begin_one_run(tmp_path: Path) -> None:
    control, other = Control(tmp_path), Control(tmp_path)
    control.look(1)
    control.look(2)
    other.look(2)
    other.look(2)
    assert control.left()[1] == ["trigger.fired"]
