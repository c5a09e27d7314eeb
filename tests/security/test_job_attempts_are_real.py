"""The attempts that the conformance suite sees refused succeed where the guard is taken away: they test something."""

from __future__ import annotations

from pathlib import Path

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
