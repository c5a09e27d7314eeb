"""Trainings may take hours: however many run, what answers to something wrong is told at once."""

from __future__ import annotations

import threading

from taut.adapters.stories import JournalStories, metadata
from taut.entrypoints.control_main import story_threads
from taut.ports.stories import Json, Story, StoryState
from taut.testing.records import memory_records
from taut.testing.world import ManualClock, SeededRandom, SequenceIds
from taut.workflows.stories import ANSWERS, PROMPT


def test_trainings_hold_up_no_release_and_a_long_release_no_answer() -> None:
    mended = threading.Event()
    done = {name: threading.Event() for name in PROMPT}

    def hold(story: Story, _: Json) -> Json:
        return story.step("hold", lambda: mended.wait(60))

    def tell(story: Story, arguments: Json) -> Json:
        done[arguments["name"]].set()
        return hold(story, arguments) if arguments["name"] == "release" else None

    stories = JournalStories(
        memory_records(metadata), {**dict.fromkeys(PROMPT, tell), "train": hold},
        clock=ManualClock(), ids=SequenceIds(), random=SeededRandom(1), poll_s=0.05,
    )  # fmt: skip
    trainings = [stories.start("train", {}, key=f"train {number}") for number in range(4)]
    threads = story_threads(stories)
    for thread in threads:
        thread.start()
    try:
        stories.start("release", {"name": "release"}, key="release")
        assert done["release"].wait(60)  # it is under way, and holds its thread
        for name in ANSWERS:
            stories.start(name, {"name": name}, key=name)
            assert done[name].wait(60)
    finally:
        mended.set()
        assert all(stories.result(one) for one in trainings)
        stories.stop()
        for thread in threads:
            thread.join(60)
    assert all(stories.status(one).state == StoryState.DONE for one in trainings)
