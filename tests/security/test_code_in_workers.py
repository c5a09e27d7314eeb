"""A hostile builder's code as a model, in workers of a real gateway: what it reaches, and who pays for what it does."""

from __future__ import annotations

import os
import signal
import socket
import time
from collections.abc import Iterable, Iterator
from pathlib import Path

import httpx
import pytest
from attacker import until

from processes import workers
from taut.adapters.keys.file import FileKeys
from taut.adapters.world import SystemRandom
from taut.core.errors import Corrupt, Denied
from taut.serving.gateway.compiled import compile_snapshot
from taut.serving.runtime import load
from taut.serving.snapshot import DefaultAnswer, EndpointConfig, GatewaySettings
from taut.serving.workers.share import processor_seconds
from taut.testing.code import code_model, code_signature
from taut.testing.serving import DataPlane, GatewayProcess

pytestmark = [pytest.mark.xdist_group("code-workers"), pytest.mark.processes]

# What the code tries is told by numbers: x0 says what to try, the answer is how much of it was possible.
HOSTILE = """
import ctypes, fcntl, mmap, os, resource, signal, socket, struct, subprocess, sys, threading, time
import numpy as np

HOME, PORT, PARENT = {home!r}, {port}, os.getppid()
print("words of the code " * 1000)
kept = []

def tries(*acts):
    done = 0
    for act in acts:
        try:
            if act() is not False:
                done += 1
        except (OSError, subprocess.SubprocessError, MemoryError):
            pass
    return float(done)

def reads():
    files = [os.path.join(HOME, *name) for name in (("keys",), ("serving",), ("serving", "trust.json"), ("gateway-0.log",))]
    return tries(
        *(lambda file=file: os.listdir(file) if os.path.isdir(file) else open(file).close() for file in files),
        lambda: os.listdir("/home"), lambda: os.listdir("/root"), lambda: os.listdir("/tmp"), lambda: open("/etc/passwd"),
        lambda: open(f"/proc/{{PARENT}}/environ"), lambda: open("/proc/1/environ"), lambda: os.listdir("/proc"),
        lambda: open(os.path.join(HOME, "planted"), "w"), lambda: open("/tmp/planted", "w"), lambda: open("/dev/shm/planted", "w"),
    )

def connects():
    def to(family, address):
        with socket.socket(family) as one:
            one.settimeout(1)
            one.connect(address)
    return tries(
        lambda: to(socket.AF_INET, ("127.0.0.1", PORT)), lambda: to(socket.AF_INET, ("192.0.2.1", 80)),
        lambda: to(socket.AF_INET6, ("::1", PORT)), lambda: to(socket.AF_UNIX, os.path.join(HOME, "run", "gateway-0.sock")),
        lambda: to(socket.AF_UNIX, os.path.join(HOME, "run", "stream.sock")),
    )

def secrets():
    # an exception, or something that is there: `False` is neither
    return tries(lambda: "TAUT_TEST_SECRET" in os.environ, lambda: len(os.environ) > 4 and False)

def others():
    libc = ctypes.CDLL(None, use_errno=True)
    def syscall(*numbers):
        if libc.syscall(*numbers) < 0:
            raise OSError(ctypes.get_errno(), "")
    limits = (resource.RLIM_INFINITY, resource.RLIM_INFINITY)
    return tries(
        lambda: os.kill(PARENT, 0), lambda: os.kill(-1, 0), lambda: os.kill(0, 0),
        lambda: os.killpg(os.getpgid(0), 0), lambda: os.fork(), lambda: os.posix_spawn("/bin/true", ["true"], {{}}),
        lambda: subprocess.run(["/bin/true"]), lambda: os.execv("/bin/true", ["true"]), lambda: os.pidfd_open(PARENT),
        lambda: resource.prlimit(PARENT, resource.RLIMIT_NOFILE, (0, 0)), lambda: os.setpriority(os.PRIO_PROCESS, PARENT, 19),
        lambda: os.sched_setscheduler(PARENT, os.SCHED_IDLE, os.sched_param(0)),
        lambda: syscall(200, PARENT, 0), lambda: fcntl.fcntl(os.pipe()[0], fcntl.F_SETOWN, PARENT),
        lambda: fcntl.ioctl(socket.socketpair()[0], 0x8901, struct.pack("i", PARENT)), lambda: syscall(29, 0, 2**20, 0o1600),
    )

def score(columns):
    what, rows = columns["x0"][0], len(columns["x0"])
    sys.stderr.write("words of the code " * 1000)
    if what == 1: return np.full(rows, reads())
    if what == 2: return np.full(rows, connects())
    if what == 3: return np.full(rows, secrets())
    if what == 4: return np.full(rows, others())
    if what == 5:
        thread = threading.Thread(target=kept.append, args=(1,)); thread.start(); thread.join()
        return np.full(rows, float(len(kept)))
    if what == 6:
        import hashlib
        def spin(data=bytes(2**20)):
            while True: hashlib.sha256(data).digest()  # hashes without the interpreter's lock
        for _ in range(4): threading.Thread(target=spin, daemon=True).start()
        return columns["x0"]
    if what == 10: raise RuntimeError("words of the code")
    if what == 11: sys.exit(3)
    if what == 12: os._exit(0)
    if what == 13: ctypes.string_at(0)
    if what == 14: os.kill(os.getpid(), signal.SIGKILL)
    if what == 15:
        while True: pass
    if what == 16:
        while True: kept.append(np.empty(2**23))
    if what == 20:
        kept.append(mmap.mmap(-1, 2**30))  # shared with itself: no limit of the kernel counts it
        while True: np.frombuffer(kept[-1], "u1")[::4096] = 1
    if what == 17: return np.zeros((rows, 50_000_000), dtype="f4")
    if what == 18:
        for number in range(3, 64):
            try: os.write(number, b"tw1\\n" + bytes(60))
            except OSError: pass
    if what == 19: return np.full(rows, np.nan)
    return columns["x0"] + columns["x1"]
"""


@pytest.fixture
def plane(tmp_path: Path) -> DataPlane:
    return DataPlane(tmp_path, FileKeys(tmp_path / "keys", random=SystemRandom()))


class Asked:
    """A gateway that serves the hostile model as `sum`, with an honest neighbour `fine`."""

    def __init__(self, plane: DataPlane, gateway: GatewayProcess) -> None:
        self.plane = plane
        self.gateway = gateway
        self._client = httpx.Client(
            base_url=f"http://127.0.0.1:{gateway.port}", headers={"authorization": f"Bearer {plane.token()}"}, timeout=60
        )  # fmt: skip

    def ask(self, what: float, endpoint: str = "sum") -> httpx.Response:
        return self._client.post(f"/v1/predict/{endpoint}", json={"instances": [{"x0": what, "x1": 0.25}]})

    def value(self, what: float, endpoint: str = "sum") -> float:
        answer = self.ask(what, endpoint)
        assert answer.status_code == 200, answer.text
        return float(answer.json()["predictions"][0]["value"])

    def again(self) -> None:
        deadline_s = time.monotonic() + 90
        while self.ask(0.5).status_code != 200:
            assert time.monotonic() < deadline_s, "the worker was not replaced"
            time.sleep(0.05)

    def close(self) -> None:
        self._client.close()


@pytest.fixture(scope="module")
def asked(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Asked]:
    home = tmp_path_factory.mktemp("plane")
    plane = DataPlane(home, FileKeys(home / "keys", random=SystemRandom()))
    with GatewayProcess(plane.home) as gateway:
        text = HOSTILE.format(home=str(plane.home), port=gateway.port)
        hostile = plane.served(code_model(text), code_signature(2), version="sum@1")
        honest = "def score(columns):\n    return columns['x0'] + columns['x1']"
        fine = plane.served(code_model(honest), code_signature(2), version="fine@1")
        plane.issue(
            EndpointConfig(name="sum", live=hostile, runtime="inline"), EndpointConfig(name="fine", live=fine),
            settings=GatewaySettings(worker_hang_s=5.0, worker_memory_bytes=2**29, worker_cpus=0.5),
        )  # fmt: skip
        os.environ["TAUT_TEST_SECRET"] = "planted"
        try:
            gateway.start()
        finally:
            del os.environ["TAUT_TEST_SECRET"]
        made = Asked(plane, gateway)
        yield made
        made.close()


@pytest.mark.skipif(not hasattr(os, "pidfd_open"), reason="Linux only")
def test_code_reads_no_file_opens_no_network_sees_no_secret_and_touches_no_other_process(
    asked: Asked,
) -> None:
    (asked.plane.home / "canary").write_text("secret")

    assert {name: asked.value(what) for name, what in (("reads", 1), ("connects", 2), ("secrets", 3), ("others", 4))} == {
        "reads": 0.0, "connects": 0.0, "secrets": 0.0, "others": 0.0,
    }  # fmt: skip
    assert asked.value(5) == 1.0  # threads are its own affair
    assert asked.value(0.5) == 0.75
    assert asked.value(0.5, "fine") == 0.75
    assert not list(asked.plane.home.glob("planted"))


@pytest.mark.skipif(processor_seconds(os.getpid()) is None, reason="process clocks are Linux's")
def test_threads_that_code_leaves_behind_get_no_more_than_a_workers_share(asked: Asked) -> None:
    assert asked.value(6) == 6.0
    spinning = _until_one_stands_still(workers(asked.gateway))
    began_s, was_s = time.monotonic(), processor_seconds(spinning)
    answered = [asked.value(0.5) for _ in range(3)]
    time.sleep(1.0)

    def took() -> float:
        """Of a processor; what a gateway that stood still itself let them have, they pay back."""
        return ((processor_seconds(spinning) or 0.0) - (was_s or 0.0)) / (time.monotonic() - began_s)

    assert answered == [0.75] * 3  # whatever it owes, it goes on for a batch
    until(lambda: took() < 0.5)  # threads with nothing to do get no more than a worker's share
    os.kill(spinning, signal.SIGKILL)
    asked.again()


def _until_one_stands_still(pids: Iterable[int]) -> int:
    deadline_s = time.monotonic() + 90  # others may want the processors too
    while time.monotonic() < deadline_s:
        for pid in pids:
            if ") T " in Path(f"/proc/{pid}/stat").read_text():
                return pid
        time.sleep(0.01)
    raise AssertionError("no worker had to stand still")


def test_what_code_prints_reaches_neither_an_answer_nor_a_log(asked: Asked) -> None:
    answers = [asked.ask(0.5), asked.ask(10)]

    assert [answer.status_code for answer in answers] == [200, 503]
    assert "raised RuntimeError in scoring.py" in answers[1].text
    log = (asked.plane.home / "gateway-0.log").read_text()
    assert "words of the code" not in log + answers[0].text + answers[1].text


HARMS = {
    "raises": (10, "raised RuntimeError"), "exits": (11, "raised SystemExit"), "ends": (12, "ended over this request"),
    "segfault": (13, "ended over this request"), "kills itself": (14, "ended over this request"),
    "endless": (15, "did not answer for 5 s"), "eats memory": (16, "ended over this request"),
    "vast answer": (17, "over this request"), "forges frames": (18, "over this request"), "nan": (19, "not finite"),
    "shared memory": (20, "took more than 512 MiB of memory"),
}  # fmt: skip


@pytest.mark.parametrize("harm", HARMS)
def test_whatever_code_does_costs_its_own_request_and_nobody_elses(asked: Asked, harm: str) -> None:
    what, said = HARMS[harm]
    answer = asked.ask(what)
    neighbour = asked.value(0.5, "fine")

    assert answer.status_code == 503, answer.text
    assert answer.json()["error"]["code"] in ("bad_answer", "unavailable")
    assert said in answer.json()["error"]["message"]
    assert neighbour == 0.75
    asked.again()


def test_code_that_fails_gets_what_stands_in(plane: DataPlane) -> None:
    live = plane.served(
        code_model("def score(columns): raise ValueError"), code_signature(2), version="sum@1"
    )
    plane.issue(EndpointConfig(name="sum", live=live, fallbacks=(DefaultAnswer(value=7.0),)))
    with GatewayProcess(plane.home) as gateway:
        gateway.start()
        asked = Asked(plane, gateway)
        answer = asked.ask(0.5)
        asked.close()

    assert (answer.status_code, answer.headers["taut-fallback"]) == (200, "default")
    assert answer.json()["predictions"][0]["value"] == 7.0


def test_no_process_but_a_worker_or_a_job_loads_code(plane: DataPlane) -> None:
    data = code_model("raise SystemExit('it ran')")
    live = plane.served(data, code_signature(2), version="sum@1")
    snapshot = plane.snapshot(EndpointConfig(name="sum", live=live, runtime="inline"))

    with pytest.raises(Denied, match="never runs in this process"):
        load(data, code_signature(2))
    with pytest.raises(Denied, match="never runs in this process"):
        compile_snapshot(snapshot, home=plane.home, before=None)


def test_code_that_is_not_what_was_signed_is_refused_before_it_is_sent_to_a_worker(plane: DataPlane) -> None:
    live = plane.served(code_model("def score(columns): ..."), code_signature(2), version="sum@1")
    (plane.home / live.path).write_bytes(code_model("def score(columns): return evil"))

    with pytest.raises(Corrupt, match="signed was"):
        compile_snapshot(plane.snapshot(EndpointConfig(name="sum", live=live)), home=plane.home, before=None)


@pytest.mark.parametrize(
    ("text", "said"),
    [("import no_such_package", "cannot be loaded"), ("open('/etc/passwd')", "PermissionError in scoring.py, line 1"),
     ("import os; os._exit(0)", "3 workers ended before they had loaded it")],
)  # fmt: skip
def test_code_that_cannot_be_loaded_keeps_its_snapshot_from_being_served_and_says_why(
    plane: DataPlane, text: str, said: str
) -> None:
    plane.issue(
        EndpointConfig(name="sum", live=plane.served(code_model(text), code_signature(2), version="sum@1"))
    )
    with GatewayProcess(plane.home) as gateway:
        gateway.start()
        ready = httpx.get(f"http://127.0.0.1:{gateway.port}/v2/health/ready", timeout=60)

    assert ready.status_code == 503
    assert said in ready.text


def test_two_models_have_modules_of_one_name_and_do_not_meet(plane: DataPlane) -> None:
    one = code_model(
        "import part\ndef score(columns): return columns['x0'] * part.N", more={"part.py": "N = 2"}
    )
    two = code_model(
        "import part\ndef score(columns): return columns['x0'] * part.N", more={"part.py": "N = 3"}
    )
    plane.issue(
        EndpointConfig(name="one", live=plane.served(one, code_signature(2), version="one@1")),
        EndpointConfig(name="two", live=plane.served(two, code_signature(2), version="two@1")),
    )
    with GatewayProcess(plane.home) as gateway:
        gateway.start()
        asked = Asked(plane, gateway)
        found = [asked.value(1.0, "one"), asked.value(1.0, "two")]
        asked.close()

    assert found == [2.0, 3.0]


def _sources() -> Iterator[tuple[str, str]]:
    root = Path(load.__code__.co_filename).parents[2]
    for path in root.rglob("*.py"):
        yield str(path.relative_to(root)), path.read_text()


def test_only_workers_and_jobs_name_what_loads_code() -> None:
    """`load_apart` and `revive` run a builder's code: nobody who holds a key may call them."""
    inside = ("project/code/", "serving/runtime/code.py")
    named = {
        name
        for name, text in _sources()
        if not name.startswith(inside) and ("load_apart" in text or "revive" in text)
    }

    assert named == {
        "serving/workers/worker.py", "serving/runtime/job.py", "serving/batch/job.py", "serving/runtime/session.py",
        "lifecycle/training/code_form.py",
    }  # fmt: skip


def test_a_socket_of_the_machine_is_there_to_be_reached(plane: DataPlane) -> None:
    """What the code cannot reach, others do: the check above is not empty."""
    with GatewayProcess(plane.home) as gateway, socket.socket() as one:
        one.connect(("127.0.0.1", gateway.port))
