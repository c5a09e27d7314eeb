"""Several processes tell the same stories while they are killed and put to sleep at random."""

from __future__ import annotations

import os
import random
import signal
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest
import story_crashes
from sqlalchemy import select
from story_crashes import effects

from taut.adapters.stories import JournalStories
from taut.adapters.world import SystemClock, SystemIds, SystemRandom
from taut.ports.records import Records, Tx
from taut.ports.stories import Json, Story, StoryState

STORIES = 30
CALLS = 4

pytestmark = pytest.mark.filterwarnings("ignore:This process.*is multi-threaded")


def engine_on(records: Records) -> JournalStories:
    def tell(story: Story, arguments: Json) -> Json:
        for call in range(CALLS):
            story.step(f"think {call}", lambda: time.sleep(0.03))

            def leave(tx: Tx, call: int = call) -> Json:
                tx.execute(effects.insert().values(what=f"{arguments}/{call}"))
                return call

            story.commit(f"leave {call}", leave)
        return arguments

    return JournalStories(
        records, {"tell": tell}, clock=SystemClock(), ids=SystemIds(), random=SystemRandom(),
        lease_s=0.4, poll_s=0.02,
    )  # fmt: skip


@pytest.fixture(params=["sqlite", "postgres"])
def url(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    url = (
        request.getfixturevalue("postgres_url") if request.param == "postgres" else str(tmp_path / "taut.db")
    )
    story_crashes.prepare(url)
    return url


@pytest.mark.crash
def test_kills_and_sleeps_at_random_neither_lose_nor_repeat(url: str) -> None:
    seed = int(os.environ.get("TAUT_CRASH_SEED", "7"))
    dice = random.Random(seed)
    records = story_crashes.open_store(url)
    engine = engine_on(records)
    ids = [engine.start("tell", n, key=str(n)) for n in range(STORIES)]
    workers = [fork(lambda: engine_on(story_crashes.open_store(url)).work()) for _ in range(3)]
    end = time.monotonic() + (20 if os.environ.get("TAUT_CRASH") == "all" else 2.5)
    while time.monotonic() < end:
        time.sleep(dice.uniform(0.02, 0.12))
        victim = dice.randrange(3)
        if dice.random() < 0.5:
            os.kill(workers[victim], signal.SIGKILL)
            os.waitpid(workers[victim], 0)
            workers[victim] = fork(lambda: engine_on(story_crashes.open_store(url)).work())
        else:  # longer asleep than its lease: it wakes as a zombie
            os.kill(workers[victim], signal.SIGSTOP)
            time.sleep(0.5)
            os.kill(workers[victim], signal.SIGCONT)
    results = [engine.result(id_) for id_ in ids]
    for worker in workers:
        os.kill(worker, signal.SIGKILL)
        os.waitpid(worker, 0)
    with records.read() as tx:
        left = tx.execute(select(effects.c.what)).scalars().all()
    states = {status.state for status in engine.list()}
    records.close()

    assert sorted(left) == sorted(f"{n}/{call}" for n in range(STORIES) for call in range(CALLS)), (
        f"seed {seed}"
    )
    assert results == list(range(STORIES))
    assert states == {StoryState.DONE}


def fork(do: Callable[[], object]) -> int:
    pid = os.fork()
    if pid == 0:
        try:
            do()
        except BaseException as error:  # noqa: BLE001 - the parent sees the missing work
            print(f"{type(error).__name__}: {error}", file=sys.stderr)
        finally:
            os._exit(1)
    return pid
