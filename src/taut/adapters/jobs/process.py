"""Jobs as processes: a fresh interpreter in a clean environment, confined, watched, and dead when it should be."""

from __future__ import annotations

import itertools
import json
import math
import os
import re
import shutil
import subprocess
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Final

import msgspec

from taut.adapters.durable import as_unavailable, own_folder, sweep_folders
from taut.adapters.jobs.bytecode import make_bytecode
from taut.adapters.jobs.running import MAX_TASKS, Running, Started
from taut.adapters.jobs.yielding import Yields, never
from taut.core.errors import InvalidInput, Unavailable
from taut.ports.jobs import JobResult, Progress, Task

_SCRATCH: Final = "job-"
_NICE: Final = 10  # whatever answers requests on this machine goes first
_FUNCTION: Final = re.compile(r"taut(\.[a-z][a-z0-9_]*)*\.job:[a-z][a-z0-9_]*")
_THREAD_VARIABLES: Final = (
    "OMP_NUM_THREADS", "NUMEXPR_NUM_THREADS", "POLARS_MAX_THREADS", "RAYON_NUM_THREADS", "ARROW_NUM_THREADS",
)  # fmt: skip


# Sums of threaded linear algebra depend on how the threads fell: seen on flights, one logistic regression of eight
# came out another. `environment` may set them otherwise, at the price of runs that do not repeat.
_SINGLE_THREADED: Final = (
    "OPENBLAS_NUM_THREADS",
    "MKL_NUM_THREADS",
    "VECLIB_MAXIMUM_THREADS",
    "BLIS_NUM_THREADS",
)


class ProcessJobs:
    """Jobs on this machine; see `taut.ports.jobs.Jobs` for what holds.

    folder: for scratch space, emptied after each job; what a caller that was killed left goes with the next job.
    environment: variables that every job gets, such as a path to
    accelerator libraries; nothing else of this process's environment is passed. readable: further files and folders
    that jobs may read. require: names of isolation (`netns`, `landlock`, `seccomp` …) without which nothing is run.
    yields: whether jobs stand still for now, since requests go first.
    """

    def __init__(
        self,
        folder: Path,
        *,
        environment: Mapping[str, str] | None = None,
        readable: Sequence[Path] = (),
        require: Sequence[str] = (),
        python: str = sys.executable,
        yields: Yields = never,
    ) -> None:
        self._yields = yields
        self._folder = folder
        self._environment = dict(environment or {})
        self._readable = tuple(str(path) for path in readable)
        self._require = tuple(require)
        self._python = python
        self._turn = itertools.count()
        self._compiled: set[str] = set()

    def run(self, task: Task, *, output: Path, progress: Progress | None = None) -> JobResult:
        """Run `task` to its end; see the port."""
        self._check(task)
        self._compile(task.function.partition(":")[0])
        output.mkdir(parents=True, exist_ok=True)
        with as_unavailable(f"no scratch space can be made in {self._folder}"):
            self._folder.mkdir(mode=0o700, parents=True, exist_ok=True)
            sweep_folders(self._folder, prefix=_SCRATCH)
            scratch, held = own_folder(self._folder, prefix=_SCRATCH)
        try:
            started = self._start(task, output, scratch)
            return Running(started, task, output, scratch, progress, yields=self._yields).to_end()
        finally:
            shutil.rmtree(scratch, ignore_errors=True)
            os.close(held)

    def _check(self, task: Task) -> None:
        if not _FUNCTION.fullmatch(task.function):
            raise InvalidInput(f"{task.function!r} is no job function: expected taut.….job:name")
        for name, path in task.inputs.items():
            if not Path(path).exists():
                raise InvalidInput(f"input {name!r} of {task.function} is not there: {path}")
        if task.limits.memory_bytes <= 0 or task.limits.timeout_s <= 0 or task.limits.cpu <= 0:
            raise InvalidInput("limits of a job must be above zero")

    def _compile(self, module: str) -> None:
        if module not in self._compiled:
            self._compiled.add(module)
            make_bytecode(self._python, module)

    def _start(self, task: Task, output: Path, scratch: Path) -> Started:
        limits = task.limits
        cores = max(1, math.ceil(limits.cpu))
        order = {
            "function": task.function,
            "arguments": task.arguments,
            "inputs": {name: str(Path(path).resolve()) for name, path in task.inputs.items()},
            "output": str(output.resolve()),
            "scratch": str(scratch),
            "limits": msgspec.to_builtins(limits),
            "seed": task.seed,
            "require": self._require,
            "rules": {
                "readable": [*self._readable, *(str(Path(path).resolve()) for path in task.inputs.values())],
                "writable": [str(output.resolve()), str(scratch)],
                "memory_bytes": limits.memory_bytes
                + 2 * 2**30,  # reserved is not used; the watcher counts use
                "file_bytes": limits.output_bytes,
                "cpu_seconds": math.ceil(limits.timeout_s * cores) + 5,
                "max_tasks": MAX_TASKS,
                "cpus": self._cpus(cores),
                "nice": _NICE,
            },
        }
        line = _encode(order)
        events_read, events_write = os.pipe()
        try:
            process = subprocess.Popen(
                [self._python, "-s", "-P", "-B", "-m", "taut.entrypoints.job_main", str(events_write)],
                stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, cwd=scratch,
                env=self._variables(task, cores, scratch), pass_fds=(events_write,), start_new_session=True,
            )  # fmt: skip
        except OSError as error:
            os.close(events_read)
            raise Unavailable(f"no process could be started for {task.function}: {error}") from error
        finally:
            os.close(events_write)
        return Started(process, events_read, line)

    def _variables(self, task: Task, cores: int, scratch: Path) -> dict[str, str]:
        """Return the whole environment of a job. Not `-I`, which would make Python ignore the hash seed."""
        return {
            "PATH": "/usr/bin:/bin", "HOME": str(scratch), "TMPDIR": str(scratch), "LANG": "C.UTF-8", "TZ": "UTC",
            "PYTHONHASHSEED": str(task.seed % 2**32), "PYTHONUNBUFFERED": "1",
            "OMP_WAIT_POLICY": "PASSIVE", **dict.fromkeys(_SINGLE_THREADED, "1"),
            **dict.fromkeys(_THREAD_VARIABLES, str(cores)), **self._environment,
        }  # fmt: skip

    def _cpus(self, cores: int) -> list[int]:
        """Choose the processors of a job, another stretch for each, so that two jobs do not share one needlessly."""
        if not hasattr(os, "sched_getaffinity"):
            return []
        here = sorted(os.sched_getaffinity(0))
        if cores >= len(here):
            return []
        start = next(self._turn) * cores
        return sorted({here[(start + index) % len(here)] for index in range(cores)})


def _encode(order: dict[str, object]) -> bytes:
    try:
        return json.dumps(order, allow_nan=False).encode() + b"\n"
    except (TypeError, ValueError) as error:
        raise InvalidInput(f"arguments of a job must be JSON: {error}") from error
