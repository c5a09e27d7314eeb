"""Jobs without a process, for tests that are not about isolation."""

from __future__ import annotations

import importlib
import sys
import time
import traceback
from pathlib import Path

from taut.core.errors import InvalidInput, TautError
from taut.ports.jobs import JobContext, JobEnd, JobResult, Progress, Task


class InlineJobs:
    """Runs the function here and now: no limits, no isolation, which its results say.

    Modules that the function imports from folders of its own are forgotten afterwards.
    """

    def run(self, task: Task, *, output: Path, progress: Progress | None = None) -> JobResult:
        module, _, name = task.function.partition(":")
        function = getattr(importlib.import_module(module), name, None)
        if function is None:
            raise InvalidInput(f"{task.function!r} is no job function of this version of taut")
        output.mkdir(parents=True, exist_ok=True)
        inputs = {name: Path(path) for name, path in task.inputs.items()}
        context = JobContext(
            seed=task.seed, limits=task.limits, progress=progress or (lambda _message, _fraction: None)
        )
        before, path = set(sys.modules), list(sys.path)
        began = time.monotonic()
        try:
            value = function(task.arguments, inputs, output, context)
        except TautError as error:
            return JobResult(
                end=JobEnd.RAISED, error=error.message, error_code=error.code, log=traceback.format_exc()
            )
        except Exception as error:  # noqa: BLE001 - whatever a function raises is its result
            return JobResult(
                end=JobEnd.RAISED, error=f"{type(error).__name__}: {error}", log=traceback.format_exc()
            )
        finally:
            own = [entry for entry in sys.path if entry not in path]
            sys.path[:] = path
            for name in set(sys.modules) - before:
                file = getattr(sys.modules[name], "__file__", None) or ""
                if any(file.startswith(folder) for folder in own):
                    del sys.modules[name]
        return JobResult(end=JobEnd.DONE, value=value, seconds=time.monotonic() - began)
