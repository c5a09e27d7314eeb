"""The platform as a whole: how fast it starts, what it costs while nothing happens, and the demo's way to an answer."""

from __future__ import annotations

import contextlib
import json
import select
import shutil
import signal
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from benchmarks import procs
from benchmarks.demo_run import demo_run, environment, free_port, taut

if TYPE_CHECKING:
    from benchmarks.report import Report

ROOT: Final = Path(__file__).parents[1]
GATEWAYS: Final = 2
HELP_RUNS, UP_RUNS, JOB_RUNS, IDLE_S, READY_TIMEOUT_S = 10, 3, 7, 10, 60
ROW: Final = {
    "carrier": "UA", "origin": "EWR", "dest": "IAH", "distance": 1400, "departs_minute": 315, "weekday": 1,
    "hour_at": "2013-11-04T10:00:00Z",
}  # fmt: skip
# The demo's steps between raw files and a model that answers; the others only show what else holds.
WAY: Final = (
    "Start the platform", "Apply the project", "Ingest under contract", "Train and judge a model", "Approve and release it",
)  # fmt: skip


def run(report: Report) -> None:
    _help(report)
    _empty_job(report)
    _new_home(report)
    demo = demo_run()
    _way(report, demo.steps)
    _fresh_clone(report, demo.steps)
    _warm(report, demo.home)


def _help(report: Report) -> None:
    """The command's start, and beside it, alternately, that of Python itself."""
    ours, bare = [], []
    for turn in range(HELP_RUNS + 1):
        pair = _seconds(taut("--help")), _seconds([sys.executable, "-c", "pass"])
        if turn:  # the first warms the disk's cache
            ours.append(pair[0] * 1e3)
            bare.append(pair[1] * 1e3)
    note = f"Python itself takes {statistics.median(bare):.0f} ms of it"
    report.figure("taut --help", ours, "ms", wanted="≤ 250 ms", note=note)


def _seconds(command: list[str]) -> float:
    start = time.perf_counter()
    subprocess.run(command, stdout=subprocess.DEVNULL, env=environment(), check=True)
    return time.perf_counter() - start


def _empty_job(report: Report) -> None:
    """What a job costs that does nothing: the sandbox, a fresh Python, its answer."""
    from taut.adapters.jobs.process import ProcessJobs
    from taut.ports.jobs import JobEnd, Task

    found, held, peak = [], "", 0
    with tempfile.TemporaryDirectory(prefix="taut-bench-") as folder:
        jobs = ProcessJobs(Path(folder) / "jobs")
        for turn in range(JOB_RUNS + 1):
            output = Path(folder) / f"output-{turn}"
            output.mkdir()
            start = time.perf_counter()
            result = jobs.run(Task(function="taut.testing.job:echo"), output=output)
            seconds = time.perf_counter() - start
            assert result.end is JobEnd.DONE, result.error
            if turn:
                found.append(seconds * 1e3)
            held, peak = ", ".join(result.isolation), result.peak_memory_bytes
    report.figure(
        "a training run's overhead: an empty job in its sandbox", found, "ms",
        note=f"{peak / 2**20:.0f} MiB; held by {held}",
    )  # fmt: skip


def _new_home(report: Report) -> None:
    found = []
    for _ in range(UP_RUNS):
        with (
            tempfile.TemporaryDirectory(prefix="taut-bench-") as folder,
            _up(Path(folder) / "home") as (_, ready_s, _),
        ):
            found.append(ready_s)
    report.figure(
        "taut up, a new home, until ready",
        found,
        "s",
        note=f"control and {GATEWAYS} gateways; keys and tables made",
    )


def _warm(report: Report, home: Path) -> None:
    """Start on the demo's installation, where a model is live; ask it once; then leave it alone."""
    ready, answered, drained, token = [], [], [], ""
    for turn in range(UP_RUNS + 1):
        with _up(home) as (platform, ready_s, where):
            token = token or _token(home)
            asked = time.perf_counter()
            _ask(where["data_plane"], token)
            first_s = time.perf_counter() - asked
            if turn == UP_RUNS:
                _idle(report, platform.pid)
            stopping = time.perf_counter()
        if turn:  # the first warms the disk's cache, and creates the token
            ready.append(ready_s)
            answered.append(ready_s + first_s)
            drained.append(time.perf_counter() - stopping)
    report.figure(
        "taut up, warm, until ready",
        ready,
        "s",
        wanted="≤ 3 s",
        note=f"control and {GATEWAYS} gateways, a live model",
    )
    report.figure(
        "taut up, warm, until the first answer over HTTP",
        answered,
        "s",
        note="identity, features, model, log",
    )
    report.figure("taut up, from SIGTERM until all is drained and gone", drained, "s")


@contextlib.contextmanager
def _up(home: Path) -> Iterator[tuple[subprocess.Popen[str], float, dict[str, Any]]]:
    """Run the platform; yield its process, the seconds until it said that it is ready, and what it said."""
    command = taut(
        "--home", str(home), "--json", "up", "--port", str(free_port()), "--gateways", str(GATEWAYS)
    )
    start = time.perf_counter()
    with subprocess.Popen(
        command,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env=environment(),
        start_new_session=True,
    ) as platform:
        assert platform.stdout is not None
        assert platform.stderr is not None
        try:
            said, _, _ = select.select([platform.stdout], [], [], READY_TIMEOUT_S)
            if not said:
                raise RuntimeError(f"not ready after {READY_TIMEOUT_S} s: {_last_words(home)}")
            line = platform.stdout.readline()
            ready_s = time.perf_counter() - start
            if not line:
                raise RuntimeError(f"taut up ended: {platform.stderr.read()[-2000:]}")
            yield platform, ready_s, json.loads(line)
        finally:
            platform.send_signal(signal.SIGTERM)
            try:
                platform.wait(timeout=40)
            except subprocess.TimeoutExpired:
                platform.kill()


def _last_words(home: Path) -> str:
    logs = sorted((home / "log").glob("*.log"))
    return "; ".join(f"{path.name}: {path.read_text()[-500:]!r}" for path in logs)


def _token(home: Path) -> str:
    command = taut(
        "--home",
        str(home),
        "--json",
        "token",
        "create",
        "--principal",
        "demo-client",
        "--role",
        "predictor",
        "--ttl",
        "15m",
    )
    made = subprocess.run(command, capture_output=True, text=True, env=environment(), check=True)
    found: str = json.loads(made.stdout)["token"]
    return found


def _ask(url: str, token: str) -> None:
    import httpx

    headers = {"authorization": f"Bearer {token}"}
    answer = httpx.post(f"{url}/v1/predict/delay", json={"instances": [ROW]}, headers=headers, timeout=10)
    assert answer.status_code == 200, answer.text


def _idle(report: Report, pid: int) -> None:
    """Memory and CPU of the whole tree after it has settled and while nobody asks."""
    time.sleep(3)
    tree = procs.tree(pid)
    by_process = {one: procs.memory_mib(one, "Pss") for one in tree}
    resident = sum(procs.memory_mib(one, "Rss") for one in tree)
    cpu, start = sum(map(procs.cpu_s, tree)), time.perf_counter()
    time.sleep(IDLE_S)
    share = (sum(map(procs.cpu_s, tree)) - cpu) / (time.perf_counter() - start)
    parts = ", ".join(f"{_title(one)} {mib:.0f}" for one, mib in by_process.items())
    report.figure(
        "the idle platform: PSS of all its processes",
        [sum(by_process.values())],
        "MiB",
        wanted="≤ 450 MiB",
        # PSS shares a library's pages with other programs that use it; RSS counts them in each process
        note=f"{parts}; RSS {resident:.0f}",
    )
    report.figure(f"the idle platform: CPU over {IDLE_S} s", [share * 100], "% of a core")


def _title(pid: int) -> str:
    words = Path(f"/proc/{pid}/cmdline").read_text().split("\0")
    named = [words[index + 1] for index, word in enumerate(words) if word == "--name"]
    if named:
        return named[0]
    mains = (("control_main", "control"), ("gateway_zygote", "gateway-zygote"))
    return next((title for main, title in mains if any(main in word for word in words)), "supervisor")


def _way(report: Report, steps: dict[str, dict[str, Any]]) -> None:
    """From raw files and a project file to a released model, as the demo's own run took it."""
    parts = ", ".join(f"{name.lower()} {steps[name]['seconds']:.1f}" for name in WAY)
    seconds = sum(steps[name]["seconds"] for name in WAY)
    report.figure("demo: from raw files to a model that answers", [seconds], "s", note=parts)
    report.figure("demo: all its steps", [sum(step["seconds"] for step in steps.values())], "s")
    rollback = steps["Roll back"]["figures"]["seconds until the old version answers"]
    report.figure(
        "demo: a rollback until every gateway answers with the old version", [rollback], "s", wanted="≤ 1 s"
    )
    killed = steps["Kill processes meanwhile"]["figures"]
    report.figure(
        "demo: answers while a gateway and control are killed, all of them in the prediction log",
        [killed["answers acknowledged"]], "answers", note="the demo fails when one that was acknowledged is lost",
    )  # fmt: skip


def _fresh_clone(report: Report, steps: dict[str, dict[str, Any]]) -> None:
    """What `make run` takes on a fresh clone: it installs from the lock, then the demo goes its way."""
    name = "make run on a fresh clone, until the first answer"
    with tempfile.TemporaryDirectory(prefix="taut-bench-") as folder:
        packed = subprocess.run(["git", "archive", "HEAD"], cwd=ROOT, capture_output=True, check=False)
        if packed.returncode:
            report.missing(name, "this is no git checkout")
            return
        subprocess.run(["tar", "-x", "-C", folder], input=packed.stdout, check=True)
        python = f"PYTHON={Path(sys.base_prefix) / 'bin' / 'python3'}"
        start = time.perf_counter()
        made = subprocess.run(
            ["make", "-s", ".venv/base.stamp", python],
            cwd=folder,
            env=environment(),
            capture_output=True,
            check=False,
        )
        installed_s = time.perf_counter() - start
    if made.returncode:
        report.missing(name, f"installing failed, is there a package registry? {made.stderr.decode()[-200:]}")
        return
    before = list(steps)[: list(steps).index("Predict the following month")]
    way_s = sum(steps[step]["seconds"] for step in before)
    with_what = "uv" if shutil.which("uv") else "pip"
    report.figure(
        name, [installed_s + way_s], "s",
        note=f"{installed_s:.0f} s of it to install with {with_what} and its cache; downloads come on top where it is empty",
    )  # fmt: skip
