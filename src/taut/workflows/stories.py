"""The stories by name, as the engine of the Stories port runs them.

What they need is imported when one runs: control starts without the libraries of training.
"""

from __future__ import annotations

from typing import Any, Final

import msgspec

from taut.ports.stories import Story, StoryTable
from taut.workflows.rooms import Rooms

ANSWERS: Final = ("tell", "respond")
"""Stories that people wait for while something is wrong, and that are short."""
PROMPT: Final = (*ANSWERS, "release", "drill")
"""Stories that must not stand behind trainings."""


def stories(rooms: Rooms) -> StoryTable:
    """Return the stories that this version of the code knows."""

    def train_story(story: Story, arguments: Any) -> Any:
        from taut.workflows.train import TrainRequest, train

        return msgspec.to_builtins(train(rooms, story, msgspec.convert(arguments, TrainRequest)))

    def compose_story(story: Story, arguments: Any) -> Any:
        from taut.workflows.compose import ComposeRequest, compose

        return msgspec.to_builtins(compose(rooms, story, msgspec.convert(arguments, ComposeRequest)))

    def release_story(story: Story, arguments: Any) -> Any:
        from taut.workflows.release import ReleaseRequest, release

        return msgspec.to_builtins(release(rooms, story, msgspec.convert(arguments, ReleaseRequest)))

    def train_and_release_story(story: Story, arguments: Any) -> Any:
        from taut.workflows.pipeline import TrainAndRelease, train_and_release

        request = msgspec.convert(arguments, TrainAndRelease)
        return msgspec.to_builtins(train_and_release(rooms, story, request))

    def retrain_story(story: Story, arguments: Any) -> Any:
        from taut.workflows.triggers.retrain import RetrainRequest, retrain

        return msgspec.to_builtins(retrain(rooms, story, msgspec.convert(arguments, RetrainRequest)))

    def batch_story(story: Story, arguments: Any) -> Any:
        from taut.workflows.batch import Batch, score_batch

        return msgspec.to_builtins(score_batch(rooms, story, msgspec.convert(arguments, Batch)))

    def optimise_story(story: Story, arguments: Any) -> Any:
        from taut.workflows.optimise import OptimiseRequest, optimise

        return msgspec.to_builtins(
            optimise(rooms, story, msgspec.convert(arguments, OptimiseRequest)), str_keys=True
        )

    def tell_story(story: Story, arguments: Any) -> Any:
        from taut.workflows.alarms.telling import Tell, tell

        return tell(rooms, story, msgspec.convert(arguments, Tell))

    def respond_story(story: Story, arguments: Any) -> Any:
        from taut.workflows.incidents.respond import Respond, respond

        return respond(rooms, story, msgspec.convert(arguments, Respond))

    def drill_story(story: Story, arguments: Any) -> Any:
        from taut.workflows.drills import DrillRequest, drill

        return drill(rooms, story, msgspec.convert(arguments, DrillRequest))

    return {
        "drill": drill_story, "respond": respond_story, "tell": tell_story, "train": train_story, "release": release_story, "train_and_release": train_and_release_story,
        "batch": batch_story, "retrain": retrain_story, "optimise": optimise_story, "compose": compose_story,
    }  # fmt: skip
