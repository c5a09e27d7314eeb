"""Libraries are compiled once, by whoever starts jobs: a job can write nothing, and would compile them each time."""

from __future__ import annotations

from importlib.util import cache_from_source
from pathlib import Path

import taut.testing.job
from taut.adapters.jobs import ProcessJobs
from taut.ports.jobs import JobEnd, Task

COMPILED = Path(cache_from_source(taut.testing.job.__file__))


def test_what_a_job_imports_has_its_bytecode_before_the_job_begins(tmp_path: Path) -> None:
    COMPILED.unlink(missing_ok=True)
    data = tmp_path / "data"
    data.write_text("rows")
    task = Task(function="taut.testing.job:echo", inputs={"data": str(data)})

    result = ProcessJobs(tmp_path / "jobs").run(task, output=tmp_path / "output")

    assert result.end is JobEnd.DONE, result.error
    assert COMPILED.exists()
