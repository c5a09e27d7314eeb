"""No process of a job outlives the one that asked for it, however that one dies."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

pytestmark = pytest.mark.processes

CALLER = """
import sys
from pathlib import Path
from taut.adapters.jobs import ProcessJobs
from taut.ports.jobs import Limits, Task
folder = Path(sys.argv[1])
if len(sys.argv) > 2:
    from taut.adapters.sandbox import seccomp
    from taut.adapters.sandbox.syscalls import prctl
    prctl(38, 1)
    assert seccomp.install(families=(1, 2, 10))
task = Task(function="taut.testing.job:sleeps", limits=Limits(timeout_s=60, memory_bytes=2**30))
ProcessJobs(folder / "scratch").run(task, output=folder / "output")
"""


def beats(folder: Path) -> dict[str, int]:
    return {path.name: path.stat().st_mtime_ns for path in folder.glob("beat-*")}


@pytest.mark.skipif(sys.platform != "linux", reason="process namespaces and death signals are Linux's")
@pytest.mark.parametrize("restricted", [False, True], ids=["with namespaces", "without namespaces"])
def test_kill_9_of_the_caller_ends_every_process_of_its_job(tmp_path: Path, restricted: bool) -> None:
    arguments = [str(tmp_path), *(["restricted"] if restricted else [])]
    caller = subprocess.Popen([sys.executable, "-c", CALLER, *arguments])
    output = tmp_path / "output"
    deadline = time.monotonic() + 90
    while len(beats(output)) < 2 and time.monotonic() < deadline:
        time.sleep(0.05)
    assert len(beats(output)) == 2, "the job's children never came up"

    os.kill(caller.pid, signal.SIGKILL)
    caller.wait()

    deadline = time.monotonic() + 90
    before: dict[str, int] = {}
    while time.monotonic() < deadline:
        before = beats(output)
        time.sleep(0.5)
        if beats(output) == before:
            return
    raise AssertionError(f"children of the job go on: {before}")
