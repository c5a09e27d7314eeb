"""A job stands still while requests go first, goes on afterwards, and answers for the time in which it ran alone."""

from __future__ import annotations

import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path

from taut.adapters.jobs import ProcessJobs
from taut.adapters.jobs.watch import look
from taut.adapters.jobs.yielding import LONGEST_S, Yielding
from taut.ports.jobs import JobEnd, JobResult, Task

_RUN = """
import sys
from pathlib import Path
from taut.adapters.jobs import ProcessJobs
from taut.ports.jobs import Task
folder = Path(sys.argv[1])
task = Task(function="taut.testing.job:ticks", inputs={"told": str(folder / "told")})
ProcessJobs(folder / "jobs", yields=(folder / "output/ticks").exists).run(task, output=folder / "output")
"""


def until(condition: Callable[[], bool]) -> None:
    deadline_s = time.monotonic() + 90
    while not condition():
        assert time.monotonic() < deadline_s
        time.sleep(0.01)


def states(keeper: int) -> list[str]:
    """Return the states of a keeper's job: `T` of a process that is stopped."""
    found = look(keeper, exact_above_bytes=2**62).pids[1:]
    return [Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] for pid in found]


def keeper_of(thread: threading.Thread) -> int:
    children = Path(f"/proc/self/task/{thread.native_id}/children")
    until(lambda: children.read_text() != "")
    return int(children.read_text().split()[0])


def test_a_job_stands_still_whole_and_goes_on_where_it_was(tmp_path: Path) -> None:
    first, ended = threading.Event(), list[JobResult]()
    told, output = tmp_path / "told", tmp_path / "output"
    told.mkdir()
    jobs = ProcessJobs(tmp_path / "jobs", yields=first.is_set)
    task = Task(function="taut.testing.job:ticks", inputs={"told": str(told)})
    thread = threading.Thread(target=lambda: ended.append(jobs.run(task, output=output)))
    thread.start()
    ticks = output / "ticks"
    until(lambda: ticks.exists() and ticks.read_text() != "")
    keeper = keeper_of(thread)

    first.set()
    until(lambda: set(states(keeper)) == {"T"} and len(states(keeper)) >= 2)
    stood = ticks.read_text()
    (told / "enough").touch()  # nobody looks
    assert set(states(keeper)) == {"T"}
    assert ticks.read_text() == stood
    first.clear()
    thread.join(timeout=90)

    assert ended[0].end is JobEnd.DONE
    assert ended[0].value["ticks"] >= int(stood or 0)
    assert float(str(ended[0].usage["paused_s"])) > 0


def test_a_job_that_stands_still_is_ended_by_its_keeper_when_its_caller_is_gone(tmp_path: Path) -> None:
    (tmp_path / "told").mkdir()
    caller = subprocess.Popen([sys.executable, "-c", _RUN, str(tmp_path)])

    def of_job() -> tuple[int, ...]:
        return look(caller.pid, exact_above_bytes=2**62).pids[1:]

    until((tmp_path / "output/ticks").exists)
    until(lambda: len(of_job()) >= 3 and set(states(of_job()[0])) == {"T"})
    job = of_job()
    caller.kill()
    caller.wait()
    until(lambda: not any(Path(f"/proc/{one}").exists() for one in job))


class Kernel:
    """Remembers what it was asked to tell to whom."""

    def __init__(self) -> None:
        self.told: list[tuple[int, int]] = []

    def __call__(self, pid: int, number: int) -> None:
        if pid == 13:
            raise ProcessLookupError
        self.told.append((pid, number))


def test_who_is_forked_meanwhile_is_stopped_too_and_who_has_ended_is_nothing() -> None:
    kernel = Kernel()
    made = Yielding(lambda: True, tell=kernel)
    made.look([13, 14], 0.0)
    made.look([14, 15], 0.05)

    assert kernel.told == [(14, signal.SIGSTOP), (14, signal.SIGSTOP), (15, signal.SIGSTOP)]


def test_no_job_stands_still_for_ever() -> None:
    kernel = Kernel()
    made = Yielding(lambda: True, tell=kernel)
    stood = []
    for second in range(int(3 * LONGEST_S)):
        made.look([14], float(second))
        stood.append(made.stands)

    assert [stood.count(True), stood.count(False)] == [2 * LONGEST_S, LONGEST_S]
    assert made.paused_s(3 * LONGEST_S) == 2 * LONGEST_S


def test_time_in_which_it_stood_still_is_counted_apart() -> None:
    busy = [True]
    made = Yielding(lambda: busy[0], tell=Kernel())
    made.look([14], 10.0)
    assert made.paused_s(15.0) == 5.0
    busy[0] = False
    made.look([14], 17.0)
    assert (made.paused_s(30.0), made.stands) == (7.0, False)
