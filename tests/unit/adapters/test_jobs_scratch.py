"""What is left of jobs whose caller was killed."""

from __future__ import annotations

import subprocess
import sys
import threading
import time
from pathlib import Path

from taut.adapters.jobs import ProcessJobs
from taut.ports.jobs import JobEnd, JobResult, Task

_RUN = """
import sys
from pathlib import Path
from taut.adapters.jobs import ProcessJobs
from taut.ports.jobs import Task
task = Task(function="taut.testing.job:sleeps", inputs={"data": sys.argv[2]})
ProcessJobs(Path(sys.argv[1])).run(task, output=Path(sys.argv[3]))
"""


def echo(folder: Path, data: Path, output: Path) -> JobResult:
    task = Task(function="taut.testing.job:echo", inputs={"data": str(data)})
    return ProcessJobs(folder).run(task, output=output)


def wait_for_scratch(folder: Path) -> list[Path]:
    deadline = time.monotonic() + 90
    while not (found := list(folder.glob("job-*"))) and time.monotonic() < deadline:
        time.sleep(0.02)
    return found


def test_scratch_of_a_killed_caller_is_gone_after_the_next_job_and_that_of_the_living_is_not(
    tmp_path: Path,
) -> None:
    folder, data = tmp_path / "jobs", tmp_path / "data"
    data.write_text("rows")
    with subprocess.Popen(
        [sys.executable, "-c", _RUN, str(folder), str(data), str(tmp_path / "out-1")]
    ) as caller:
        left = wait_for_scratch(folder)
        (left[0] / "personal").write_text("what a job wrote")
        while_it_lives = echo(folder, data, tmp_path / "out-2")
        kept = left[0].exists()
        caller.kill()

    after = echo(folder, data, tmp_path / "out-3")

    assert (while_it_lives.end, after.end) == (JobEnd.DONE, JobEnd.DONE)
    assert kept
    assert not list(folder.glob("job-*"))


def test_jobs_of_one_process_leave_each_other_alone(tmp_path: Path) -> None:
    data = tmp_path / "data"
    data.write_text("rows")
    ends: list[JobEnd] = []
    threads = [
        threading.Thread(
            target=lambda at=at: ends.append(echo(tmp_path / "jobs", data, tmp_path / f"out-{at}").end)
        )
        for at in range(4)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()

    assert ends == [JobEnd.DONE] * 4
