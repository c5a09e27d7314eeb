"""Jobs: named functions run in a process apart, with limits and without secrets or network."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from enum import StrEnum
from pathlib import Path
from typing import Protocol

import msgspec

from taut.core.evidence import Scalar


class Limits(msgspec.Struct, frozen=True, kw_only=True):
    """Bounds of a job; each is enforced, not advised.

    cpu: cores that its threads may use. memory_bytes: of the whole process tree. timeout_s: wall clock.
    output_bytes: of everything that it leaves in its output folder.
    """

    cpu: float = 1.0
    memory_bytes: int = 4 * 2**30
    timeout_s: float = 1800.0
    output_bytes: int = 8 * 2**30


class Task(msgspec.Struct, frozen=True, kw_only=True):
    """A job as data. The same task with the same inputs asks for the same work anywhere.

    function: a name in taut's own table of job functions (`module:function` inside taut), never a pickle.
    arguments: JSON. inputs: name -> local file or folder, readable by the job under that name.
    """

    function: str
    arguments: dict[str, object] = {}
    inputs: dict[str, str] = {}
    limits: Limits = Limits()
    seed: int = 0


class JobEnd(StrEnum):
    DONE = "done"
    RAISED = "raised"  # the function raised; `error` says what
    TIMED_OUT = "timed_out"
    OUT_OF_MEMORY = "out_of_memory"
    OUTPUT_TOO_LARGE = "output_too_large"
    KILLED = "killed"  # died from outside or by a signal


class JobResult(msgspec.Struct, frozen=True, kw_only=True):
    """How a job ended. Files that it left are under `output`, until the caller's block ends."""

    end: JobEnd
    value: dict[str, object] = {}  # what the function returned, JSON
    error: str = ""  # for people: what happened and what to do
    error_code: str = ""  # the TautError's code when the function raised one
    log: str = ""  # the last 64 KiB of its standard output and error
    seconds: float = 0.0
    cpu_seconds: float = 0.0
    peak_memory_bytes: int = 0
    isolation: tuple[
        str, ...
    ] = ()  # what the platform really enforced, e.g. ("netns", "landlock", "rlimits")
    usage: Mapping[str, Scalar] = {}


Progress = Callable[[str, float], None]
"""Called with a message and the fraction done, 0 to 1."""


class JobContext(msgspec.Struct, frozen=True, kw_only=True):
    """What a job function gets besides its arguments, inputs and output folder.

    progress: tells whoever waits; messages beyond a bound are dropped, never queued. isolation: what really confines
    this process, as in `JobResult.isolation`.
    """

    seed: int
    limits: Limits
    isolation: tuple[str, ...] = ()
    progress: Progress


JobFunction = Callable[[dict[str, object], dict[str, Path], Path, JobContext], dict[str, object]]
"""A function named by a task: `f(arguments, inputs, output, context) -> value`, in a module `taut.….job`.

It returns JSON; a TautError that it raises keeps its code in `JobResult.error_code`.
"""


class Jobs(Protocol):
    """Runs tasks.

    Guarantees: the function runs in a process of its own with a clean environment (no variable of the parent but
    those that it lists), no network, no readable file of the installation but its inputs and taut's own code, and
    no key or secret. Limits hold for the whole tree; when one is passed, or the caller dies, every process of the
    job is dead before `run` returns (or soon after the caller's death).

    Not guaranteed: isolation that the kernel does not offer; `JobResult.isolation` says what held.

    Errors: InvalidInput for an unknown function; Unavailable when no process can be started. How the function fares
    is never an exception but a JobResult.
    """

    def run(self, task: Task, *, output: Path, progress: Progress | None = None) -> JobResult:
        """Run `task` to its end; files that it writes into its output folder appear in `output`."""
        ...
