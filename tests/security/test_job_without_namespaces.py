"""Where the kernel permits no namespaces (many containers), what is left still holds, and the result says what is."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

CALLER = """
import json, sys
from pathlib import Path
import msgspec
from taut.adapters.jobs import ProcessJobs
from taut.adapters.sandbox import seccomp
from taut.adapters.sandbox.syscalls import prctl
from taut.core.errors import TautError
from taut.ports.jobs import Limits, Task
prctl(38, 1)
assert seccomp.install(families=(1, 2, 10))  # unshare is refused from here on, as in a container
folder, name, timeout, require = Path(sys.argv[1]), sys.argv[2], float(sys.argv[3]), sys.argv[4:]
secret = folder / "home" / "private.pem"
secret.parent.mkdir(exist_ok=True)
secret.write_text("correct horse")
(folder / "data").write_text("some rows")
arguments = {"secret_file": str(secret), "outside": str(folder / "planted"), "port": 9, "socket": str(folder / "s"), "pid": 1}
task = Task(function=f"taut.testing.job:{name}", arguments=arguments, inputs={"data": str(folder / "data")},
            limits=Limits(timeout_s=timeout, memory_bytes=2**29))
try:
    result = ProcessJobs(folder / "scratch", require=require).run(task, output=folder / "output")
    print(msgspec.json.encode(result).decode())
except TautError as error:
    print(json.dumps({"code": error.code, "message": error.message}))
"""


def start(tmp_path: Path, name: str, *require: str, timeout_s: float = 20) -> Any:
    done = subprocess.run(
        [sys.executable, "-c", CALLER, str(tmp_path), name, str(timeout_s), *require],
        capture_output=True, text=True, timeout=60, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)


pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="seccomp is Linux's")


def test_files_and_network_are_still_out_of_reach_and_the_result_says_how(tmp_path: Path) -> None:
    result = start(tmp_path, "attempts")

    assert result["end"] == "done", result
    assert not {"userns", "netns", "pidns", "mountns"} & set(result["isolation"])
    assert {"seccomp", "nice"} <= set(result["isolation"])
    refused = {name for name, why in result["value"]["refused"].items() if why}
    assert {"connect_tcp", "connect_unix", "send_udp", "ptrace", "new_user_namespace"} <= refused
    if any(name.startswith("landlock") for name in result["isolation"]):
        assert {
            "read_file",
            "list_folder",
            "write_outside",
            "overwrite_input",
            "run_shell_on_secret",
        } <= refused


@pytest.mark.parametrize(
    ("name", "timeout_s", "end"), [("sleeps", 1.0, "timed_out"), ("daemonises", 20.0, "done")]
)
def test_what_a_job_started_is_dead_when_it_returns(
    tmp_path: Path, name: str, timeout_s: float, end: str
) -> None:
    import time

    result = start(tmp_path, name, timeout_s=timeout_s)

    assert result["end"] == end
    before = {path.name: path.stat().st_mtime_ns for path in (tmp_path / "output").iterdir()}
    time.sleep(0.5)
    assert {path.name: path.stat().st_mtime_ns for path in (tmp_path / "output").iterdir()} == before


def test_an_installation_that_requires_more_refuses_to_run(tmp_path: Path) -> None:
    result = start(tmp_path, "echo", "netns")

    assert result["code"] == "unavailable"
    assert "does not offer netns" in result["message"]
    assert not (tmp_path / "output" / "data").exists()
