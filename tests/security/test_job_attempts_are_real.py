"""The attempts that the conformance suite sees refused succeed where the guard is taken away: they test something."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from taut.adapters.jobs import ProcessJobs
from taut.ports.jobs import JobEnd, Limits, Task


def test_a_job_that_is_given_the_folder_of_keys_reads_it(tmp_path: Path) -> None:
    secret = tmp_path / "home" / "private.pem"
    secret.parent.mkdir()
    secret.write_text("correct horse")
    (tmp_path / "data").write_text("rows")
    task = Task(
        function="taut.testing.job:attempts", inputs={"data": str(tmp_path / "data")}, limits=Limits(timeout_s=20),
        arguments={"secret_file": str(secret), "outside": str(tmp_path / "out"), "port": 9, "socket": "", "pid": 1},
    )  # fmt: skip

    guarded = ProcessJobs(tmp_path / "jobs").run(task, output=tmp_path / "one")
    opened = ProcessJobs(tmp_path / "jobs", readable=[secret.parent]).run(task, output=tmp_path / "two")

    assert guarded.end is opened.end is JobEnd.DONE
    assert isinstance(guarded.value["refused"], dict)
    assert isinstance(opened.value["refused"], dict)
    assert opened.value["refused"]["read_file"] == opened.value["refused"]["list_folder"] == ""
    if any(name.startswith("landlock") for name in guarded.isolation):
        assert guarded.value["refused"]["read_file"]


def test_a_variable_reaches_a_job_only_when_it_is_named(tmp_path: Path) -> None:
    (tmp_path / "data").write_text("rows")
    task = Task(
        function="taut.testing.job:attempts", inputs={"data": str(tmp_path / "data")}, limits=Limits(timeout_s=20),
        arguments={"secret_file": "/nowhere/x", "outside": "/nowhere/y", "port": 9, "socket": "", "pid": 1},
    )  # fmt: skip

    result = ProcessJobs(tmp_path / "jobs", environment={"CUDA_PATH": "/opt/cuda"}).run(
        task, output=tmp_path / "o"
    )

    environment = result.value["environment"]
    assert isinstance(environment, dict)
    assert environment["CUDA_PATH"] == "/opt/cuda"
    assert set(environment) <= {
        "PATH", "HOME", "TMPDIR", "LANG", "TZ", "PYTHONHASHSEED", "PYTHONUNBUFFERED", "CUDA_PATH", "LC_CTYPE",
        "OMP_WAIT_POLICY", "OMP_NUM_THREADS", "NUMEXPR_NUM_THREADS", "POLARS_MAX_THREADS", "RAYON_NUM_THREADS",
        "ARROW_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS", "VECLIB_MAXIMUM_THREADS", "BLIS_NUM_THREADS",
    }  # fmt: skip


ALONE = """
import os, resource, subprocess
from taut.bootstrap.sandbox import Rules, confine

def tries(*acts):
    done = 0
    for act in acts:
        try:
            act()
            done += 1
        except (OSError, subprocess.SubprocessError):
            pass
    return done

here = os.getppid()
confine(Rules(memory_bytes=2**31, file_bytes=2**20, cpu_seconds=60, alone={alone}), entered=())
said = tries(
    lambda: os.kill(here, 0), lambda: resource.prlimit(here, resource.RLIMIT_CORE), lambda: os.pidfd_open(here),
    lambda: os.fork() or os._exit(0), lambda: os.setpriority(os.PRIO_PROCESS, os.getpid(), 1),
)
os.kill(os.getpid(), 0)
print(said)
"""


@pytest.mark.skipif(sys.platform != "linux", reason="seccomp is Linux's")
def test_a_process_that_is_to_stay_alone_signals_and_makes_others_where_it_is_not_told_to() -> None:
    """A worker that is killed by number alone would else be anybody's weapon: workers share a process namespace."""
    said = {
        alone: subprocess.run(
            [sys.executable, "-P", "-c", ALONE.format(alone=alone)],
            capture_output=True,
            text=True,
            check=True,
        ).stdout.split()[-1]
        for alone in (True, False)
    }

    assert said[True] == "0"
    assert int(said[False]) >= 2  # the newest Landlock keeps it from signalling by itself


DRIVER = """
import sys
from taut.bootstrap.sandbox import Rules, confine

held = confine(Rules(memory_bytes=2**31, file_bytes=2**20, cpu_seconds=60, devices=tuple(sys.argv[1:2])), entered=())

def opened(path):
    try:
        open(path, "r+b").close()
        return "opened"
    except PermissionError:
        return "refused"

print(any(name.startswith("landlock") for name in held), *map(opened, sys.argv[1:]))
"""


@pytest.mark.skipif(sys.platform != "linux", reason="Landlock is Linux's")
def test_a_worker_opens_the_accelerator_that_it_is_given_and_no_other(tmp_path: Path) -> None:
    """What it is given is played by a file here: a rule of Landlock is about either alike."""
    nodes = [tmp_path / "nvidia0", tmp_path / "nvidia1"]
    for node in nodes:
        node.touch()

    said = subprocess.run(
        [sys.executable, "-P", "-c", DRIVER, *map(str, nodes)], capture_output=True, text=True, check=True
    ).stdout.split()

    if said[0] == "False":
        pytest.skip("this kernel has no Landlock")
    assert said[1:] == ["opened", "refused"]
