"""What every Jobs adapter must do. Subclass it and give `jobs`, and `isolation` where the platform has less."""

from __future__ import annotations

import os
import socket
import time
from pathlib import Path

import pytest

from taut.core.errors import InvalidInput
from taut.ports.jobs import JobEnd, JobResult, Jobs, Limits, Task

SECRET = "correct horse battery staple"  # noqa: S105 - it is what the tests try to steal


def small(**changes: float) -> Limits:
    limits: dict[str, float] = {
        "memory_bytes": 512 * 2**20,
        "timeout_s": 20.0,
        "output_bytes": 32 * 2**20,
        **changes,
    }
    return Limits(
        cpu=limits.get("cpu", 1.0),
        memory_bytes=int(limits["memory_bytes"]),
        timeout_s=limits["timeout_s"],
        output_bytes=int(limits["output_bytes"]),
    )


class JobsConformance:
    """The promises of `taut.ports.jobs.Jobs`, each tried by a function that wants to break it."""

    @pytest.fixture
    def jobs(self) -> Jobs:
        pytest.fail("a subclass gives the adapter")

    def start(
        self, jobs: Jobs, tmp_path: Path, name: str, limits: Limits | None = None, **arguments: object
    ) -> JobResult:
        (tmp_path / "data").write_text("some rows")
        task = Task(
            function=f"taut.testing.job:{name}",
            arguments=dict(arguments),
            inputs={"data": str(tmp_path / "data")},
            limits=limits or small(),
            seed=7,
        )
        return jobs.run(task, output=tmp_path / "output")

    def test_a_job_gets_its_arguments_and_inputs_and_leaves_files_and_a_value(
        self, jobs: Jobs, tmp_path: Path
    ) -> None:
        result = self.start(jobs, tmp_path, "echo", word="späte Flüge", deep={"list": [1, None, 2.5]})

        assert result.end is JobEnd.DONE, result
        assert result.value["arguments"] == {"word": "späte Flüge", "deep": {"list": [1, None, 2.5]}}
        assert (tmp_path / "output" / "data").read_text() == "some rows"
        assert "echo was here" in result.log
        assert result.seconds > 0
        assert result.cpu_seconds > 0
        assert result.peak_memory_bytes > 2**20

    def test_progress_arrives_in_order(self, jobs: Jobs, tmp_path: Path) -> None:
        (tmp_path / "data").write_text("")
        seen: list[tuple[str, float]] = []
        task = Task(function="taut.testing.job:echo", inputs={"data": str(tmp_path / "data")}, limits=small())

        jobs.run(task, output=tmp_path / "output", progress=lambda text, part: seen.append((text, part)))

        assert seen == [("reading", 0.5), ("done", 1.0)]

    def test_the_seed_reaches_the_function_and_the_hashing_of_strings(
        self, jobs: Jobs, tmp_path: Path
    ) -> None:
        first, second = (self.start(jobs, tmp_path, "echo") for _ in range(2))

        assert first.value["seed"] == 7
        assert first.value["hash"] == second.value["hash"]

    @pytest.mark.parametrize(
        "function",
        ["os:system", "taut.core.canonical:digest_bytes", "taut.testing.job:absent", "taut.absent.job:f"],
    )
    def test_an_unknown_function_is_invalid_input(self, jobs: Jobs, tmp_path: Path, function: str) -> None:
        with pytest.raises(InvalidInput, match="job function"):
            jobs.run(Task(function=function, limits=small()), output=tmp_path / "output")

    def test_an_absent_input_is_named(self, jobs: Jobs, tmp_path: Path) -> None:
        task = Task(function="taut.testing.job:echo", inputs={"frame": str(tmp_path / "nowhere")})

        with pytest.raises(InvalidInput, match="frame"):
            jobs.run(task, output=tmp_path / "output")

    def test_a_function_that_raises_says_what_and_where(self, jobs: Jobs, tmp_path: Path) -> None:
        result = self.start(jobs, tmp_path, "raises")

        assert result.end is JobEnd.RAISED
        assert "ValueError: the builder's function broke" in result.error
        assert "Traceback" in result.log
        assert result.value == {}

    def test_an_error_of_taut_keeps_its_code(self, jobs: Jobs, tmp_path: Path) -> None:
        result = self.start(jobs, tmp_path, "raises", kind="taut")

        assert (result.end, result.error_code) == (JobEnd.RAISED, "invalid_input")
        assert result.error == "column 'carier' is unknown: did you mean 'carrier'?"

    @pytest.mark.parametrize("kind", ["object", "number", "nan"])
    def test_a_function_that_returns_nonsense_has_raised(self, jobs: Jobs, tmp_path: Path, kind: str) -> None:
        result = self.start(jobs, tmp_path, "returns", kind=kind)

        assert result.end is JobEnd.RAISED
        assert "returned" in result.error

    def test_a_job_that_hangs_is_dead_with_all_its_children_when_time_is_up(
        self, jobs: Jobs, tmp_path: Path
    ) -> None:
        began = time.monotonic()
        result = self.start(jobs, tmp_path, "sleeps", small(timeout_s=1.5))

        assert result.end is JobEnd.TIMED_OUT
        assert "1.5 s" in result.error
        assert time.monotonic() - began < 12
        assert_still(tmp_path / "output")

    def test_what_a_job_leaves_running_is_dead_when_it_returns(self, jobs: Jobs, tmp_path: Path) -> None:
        result = self.start(jobs, tmp_path, "daemonises")

        assert result.end is JobEnd.DONE
        assert_still(tmp_path / "output")

    @pytest.mark.parametrize("at_once", [False, True])
    def test_a_job_that_eats_memory_is_stopped_and_told_so(
        self, jobs: Jobs, tmp_path: Path, at_once: bool
    ) -> None:
        result = self.start(jobs, tmp_path, "eats_memory", small(memory_bytes=256 * 2**20), at_once=at_once)

        assert result.end is JobEnd.OUT_OF_MEMORY
        assert "256 MiB are allowed" in result.error
        assert result.peak_memory_bytes < 1.5 * 2**30

    @pytest.mark.parametrize("name", ["fills_the_disk", "writes_one_large_file"])
    def test_output_beyond_the_limit_stops_the_job(self, jobs: Jobs, tmp_path: Path, name: str) -> None:
        result = self.start(jobs, tmp_path, name, small(output_bytes=8 * 2**20))

        assert result.end is JobEnd.OUTPUT_TOO_LARGE
        assert "8 MiB" in result.error
        assert sum(file.stat().st_size for file in (tmp_path / "output").iterdir()) < 200 * 2**20

    def test_only_the_end_of_a_long_log_is_kept(self, jobs: Jobs, tmp_path: Path) -> None:
        result = self.start(jobs, tmp_path, "shouts")

        assert result.end is JobEnd.DONE
        assert len(result.log) <= 64 * 1024
        assert result.log.endswith("the last line\n")

    def test_a_segmentation_fault_is_told_from_a_result(self, jobs: Jobs, tmp_path: Path) -> None:
        result = self.start(jobs, tmp_path, "crashes")

        assert result.end is JobEnd.KILLED
        assert "SIGSEGV" in result.error
        assert "Fatal Python error" in result.log

    def test_leaving_without_a_result_is_told_from_a_result(self, jobs: Jobs, tmp_path: Path) -> None:
        result = self.start(jobs, tmp_path, "crashes", kind="exit")

        assert result.end is JobEnd.KILLED
        assert "exit status 7" in result.error

    def test_a_link_in_the_output_leads_nobody_to_a_file_outside(self, jobs: Jobs, tmp_path: Path) -> None:
        (tmp_path / "keys").mkdir()
        (tmp_path / "keys" / "private.pem").write_text(SECRET)

        result = self.start(jobs, tmp_path, "leaves_a_link", target=str(tmp_path / "keys" / "private.pem"))

        assert result.end is JobEnd.RAISED or result.value["refused"]
        assert not any(path.is_symlink() for path in (tmp_path / "output").iterdir())

    def test_a_fork_bomb_stays_bounded_and_dies(self, jobs: Jobs, tmp_path: Path) -> None:
        result = self.start(jobs, tmp_path, "forks_without_end", small(memory_bytes=2**31, timeout_s=30))

        made = result.value.get("made", 0)
        assert result.end in (JobEnd.DONE, JobEnd.KILLED, JobEnd.OUT_OF_MEMORY)
        assert isinstance(made, int)
        assert made <= 1100

    def test_threads_stay_on_the_cores_that_were_given(self, jobs: Jobs, tmp_path: Path) -> None:
        result = self.start(jobs, tmp_path, "spins_threads", small(cpu=1.0))

        if "cpu-affinity" in result.isolation:
            assert result.value["cpus"] == 1

    def test_a_job_reaches_no_key_no_secret_no_network_and_no_other_process(
        self, jobs: Jobs, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setenv("TAUT_TEST_SECRET", SECRET)
        keys = tmp_path / "home" / "keys"
        keys.mkdir(parents=True, mode=0o700)
        (keys / "private.pem").write_text(SECRET)
        unix = tmp_path / "s"
        with socket.create_server(("127.0.0.1", 0)) as server, socket.socket(socket.AF_UNIX) as local:
            local.bind(str(unix))
            local.listen()
            result = self.start(
                jobs, tmp_path, "attempts", secret_file=str(keys / "private.pem"), socket=str(unix),
                outside=str(tmp_path / "home" / "planted"), port=server.getsockname()[1], pid=os.getpid(),
            )  # fmt: skip

        assert result.end is JobEnd.DONE, result
        assert "TAUT_TEST_SECRET" not in str(result.value["environment"])
        assert SECRET not in str(result.value) + result.log
        refused = result.value["refused"]
        assert isinstance(refused, dict)
        expected = expected_refusals(result.isolation)
        assert {name for name, why in refused.items() if why} >= expected, refused
        assert (tmp_path / "data").read_text() == "some rows" or "overwrite_input" not in expected


def expected_refusals(isolation: tuple[str, ...]) -> set[str]:
    """What must have been refused, given what the platform says that it enforced."""
    expected: set[str] = set()
    if any(name.startswith("landlock") for name in isolation):
        expected |= {"read_file", "list_folder", "write_outside", "overwrite_input", "write_code"}
        expected |= {"read_parent_environment", "run_shell_on_secret"}
    if "netns" in isolation or "seccomp" in isolation:
        expected |= {"connect_tcp", "send_udp"}
    if "pidns" in isolation:
        expected |= {"kill_parent", "read_parent_environment"}
    if "seccomp" in isolation:
        expected |= {"ptrace", "outlive", "new_user_namespace", "connect_unix"}
    return expected


def assert_still(folder: Path) -> None:
    """Assert that nobody writes into `folder` any more."""
    time.sleep(0.3)
    before = {path.name: path.stat().st_mtime_ns for path in folder.iterdir()}
    time.sleep(0.4)
    assert {path.name: path.stat().st_mtime_ns for path in folder.iterdir()} == before
