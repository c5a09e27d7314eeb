"""Runs whose disk, job or database went away: what is recorded, and how often."""

from __future__ import annotations

import errno
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager
from pathlib import Path

import pytest
from training_room import Room, open_room

from taut.core.errors import Unavailable
from taut.lifecycle.training import RunState
from taut.ports.jobs import JobResult, Progress, Task
from taut.ports.records import Records, Tx, transact
from taut.testing.jobs import InlineJobs

CODE = "def train(ctx):\n    raise RuntimeError('as it is')\n"


class FullDisk:
    """Jobs on a disk without room."""

    def run(self, task: Task, *, output: Path, progress: Progress | None = None) -> JobResult:
        raise OSError(errno.ENOSPC, "No space left on device")


class Forgetful:
    """Records that commit, and lose the answer to one commit."""

    def __init__(self, records: Records, *, lost: int) -> None:
        self._records, self._lost, self.begun = records, lost, 0

    @contextmanager
    def begin(self) -> Iterator[Tx]:
        self.begun += 1
        with self._records.begin() as tx:
            yield tx
        if self.begun == self._lost:
            raise Unavailable("the connection was lost")

    def read(self) -> AbstractContextManager[Tx]:
        return self._records.read()


def leaves(room: Room, run: str) -> list[str]:
    room.ledger.sequence()
    return [leaf.kind for leaf in room.ledger.show(subject=f"run:{run}")]


def test_a_run_on_a_full_disk_is_unavailable_and_given_up_once(tmp_path: Path) -> None:
    with open_room(tmp_path, FullDisk()) as room:
        with pytest.raises(Unavailable, match=r"no room left on the disk for the files of run_1") as told:
            room.training.train(room.spec, room.data, room.code(CODE), actor="ann", run_id="run_1")
        before = room.training.get("run_1")
        for run in ("run_1", "run_1", "run_of_nobody"):
            transact(room.records, lambda tx, run=run: room.training.give_up(tx, run, told.value))
        after = room.training.get("run_1")

        assert before.state is RunState.RUNNING
        assert (after.state, after.error_code, after.ended_as) == (RunState.FAILED, "unavailable", "given up")
        assert "free some space" in after.error
        assert leaves(room, "run_1") == ["run.failed"]


def test_a_run_whose_end_was_committed_but_not_answered_is_recorded_once(tmp_path: Path) -> None:
    with open_room(tmp_path, InlineJobs()) as room:
        forgetful = Forgetful(
            room.records, lost=2
        )  # the first commit says that it runs, the second how it ended
        training = room.over(forgetful)  # type: ignore[arg-type]  # what training uses of records

        run = training.train(room.spec, room.data, room.code(CODE), actor="ann", run_id="run_2")

        assert run.state is RunState.FAILED
        assert forgetful.begun == 3
        assert leaves(room, "run_2") == ["run.failed"]
