"""An installation as its users see it: a project folder, the command line with its exit codes, and `taut up`."""

from __future__ import annotations

import contextlib
import io
import json
import os
import shutil
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NamedTuple

import httpx

from taut.entrypoints.children import alive
from taut.entrypoints.cli import run
from taut.testing.ports import free_ports

Json = dict[str, Any]

ORDER: Json = {"warehouse": "north", "carrier": "bike", "items": 3, "distance_km": 12.5}
HEADER = "order_id,placed_at,warehouse,carrier,items,distance_km,arrived_at,late"
CLI = (sys.executable, "-P", "-m", "taut.entrypoints.cli")


class Told(NamedTuple):
    """What a command said and how it ended."""

    code: int
    out: str
    err: str

    @property
    def document(self) -> Json:
        found: Json = json.loads(self.out)
        return found

    @property
    def error(self) -> tuple[str, str]:
        """The code and the message of the error."""
        told = self.document["error"]
        return told["code"], told["message"]


class Installation:
    """A project folder with its state in `.taut`. Commands run in the folder, as people type them."""

    def __init__(self, folder: Path, *, environ: Mapping[str, str] | None = None) -> None:
        self.folder = folder
        self.home = folder / ".taut"
        self.environ = dict(environ or {})

    def __call__(self, *words: str, expect: int = 0) -> Json:
        """Run a command in this process; return its document."""
        told = self.told(*words)
        assert told.code == expect, (words, told)
        return told.document

    def refused(self, *words: str, exit_code: int, code: str) -> str:
        """Run a command in this process that must end with this error; return its message."""
        told = self.told(*words)
        assert told.code == exit_code, (words, told)
        assert told.error[0] == code, (words, told)
        assert_clear(told.error[1])
        return told.error[1]

    def told(self, *words: str, typed: str = "") -> Told:
        """Run a command in this process, through the same `run` as the `taut` command. typed: what it reads."""
        out, err = io.StringIO(), io.StringIO()
        with (
            _settings(self.environ),
            contextlib.chdir(self.folder),
            contextlib.redirect_stdout(out),
            contextlib.redirect_stderr(err),
            _typing(typed),
        ):
            code = run(["--json", *words])
        return Told(code, out.getvalue(), err.getvalue())

    def started(self, *words: str, within: Sequence[str] = (), **more: Any) -> subprocess.Popen[str]:
        """Start a command as a process of its own. within: a program that runs it, such as `unshare`."""
        return subprocess.Popen(
            [*within, *CLI, "--json", *words], cwd=self.folder, env=self.whole_environ(), text=True,
            stdout=subprocess.PIPE, stderr=subprocess.PIPE, **more,
        )  # fmt: skip

    def process(self, *words: str, within_s: float = 90.0, **more: Any) -> Told:
        """Run a command as a process of its own, to its end."""
        with self.started(*words, **more) as process:
            try:
                out, err = process.communicate(timeout=within_s)
            except subprocess.TimeoutExpired:
                process.kill()
                raise
        return Told(process.returncode, out, err)

    def done(self, *words: str, expect: int = 0, within_s: float = 90.0) -> Json:
        """As `process`; return its document."""
        told = self.process(*words, within_s=within_s)
        assert told.code == expect, (words, told)
        return told.document

    def whole_environ(self) -> dict[str, str]:
        return {**os.environ, "PYTHONSAFEPATH": "1", **self.environ}

    def write(self, name: str, text: str | bytes) -> Path:
        path = self.folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(text if isinstance(text, bytes) else text.encode())
        return path

    def copy_to(self, folder: Path) -> Installation:
        """Copy folder and state; nothing may run in it."""
        shutil.copytree(self.folder, folder, symlinks=True)
        return Installation(folder, environ=self.environ)

    @contextmanager
    def up(self, *, gateways: int = 1, port: int | None = None, words: Sequence[str] = ()) -> Iterator[Up]:
        """Run the platform as `taut up` until the block ends; nothing of it outlives the block."""
        up = Up(self, port or free_ports(), gateways, words)
        try:
            up.start()
            yield up
        finally:
            up.close()


class Up:
    """A running platform: the process of `taut up`, its children, its planes."""

    def __init__(
        self, installation: Installation, port: int, gateways: int, words: Sequence[str] = ()
    ) -> None:
        self.words = words
        self.installation = installation
        self.port = port
        self.gateways = gateways
        self.process: subprocess.Popen[bytes] | None = None

    @property
    def data(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    @property
    def control(self) -> str:
        return f"http://127.0.0.1:{self.port + 1}"

    def start(self, *, within_s: float = 90.0) -> None:
        """Start `taut up` and return when everything of it is ready."""
        self.launch()
        self.await_ready(within_s=within_s)

    def launch(self) -> None:
        """Start `taut up` and return at once."""
        log = (self.installation.folder / "up.log").open("ab")
        with log:
            self.process = subprocess.Popen(
                [*CLI, "up", "--port", str(self.port), "--gateways", str(self.gateways), *self.words],
                cwd=self.installation.folder, env=self.installation.whole_environ(), stdout=log, stderr=log,
            )  # fmt: skip

    def await_ready(self, *, within_s: float = 90.0) -> None:
        """Return when every process is ready; fails, with what was said, when they do not become so in time."""
        until(self._ready, within_s=within_s, said=self.said)

    def _ready(self) -> bool:
        assert self.process is not None
        assert self.process.poll() is None, f"taut up ended with {self.process.returncode}: {self.said()}"
        state = self.state()
        return state.get("pid") == self.process.pid and all(
            child["state"] == "ready" and alive(child["pid"]) == child["started"]
            for child in state["children"]
        )

    def state(self) -> Json:
        path = self.installation.home / "run" / "supervisor.json"
        found: Json = json.loads(path.read_text()) if path.exists() else {}
        return found

    def pid(self, name: str) -> int:
        """The process of a child, `control` or `gateway-0`; `supervisor` is `taut up` itself."""
        if name == "supervisor":
            assert self.process is not None
            return self.process.pid
        return next(int(child["pid"]) for child in self.state()["children"] if child["name"] == name)

    def kill(self, name: str) -> None:
        """Kill -9. The supervisor starts a child again, and only `start` the supervisor."""
        os.kill(self.pid(name), signal.SIGKILL)
        if name == "supervisor":
            assert self.process is not None
            self.process.wait()

    def said(self) -> str:
        """The logs, for failures."""
        paths = [self.installation.folder / "up.log", *sorted(self.installation.home.glob("log/*.log"))]
        return "\n".join(f"== {path.name}\n{path.read_text()[-4000:]}" for path in paths if path.exists())

    def token(self, principal: str = "tester", role: str = "predictor") -> str:
        answer = self.installation.told(
            "token", "create", "--principal", principal, "--role", role, "--enrol", "service"
        )
        assert answer.code == 0, answer
        return str(answer.document["token"])

    def ask(self, bearer: str, order: Json = ORDER, **more: Any) -> httpx.Response:
        return httpx.post(
            f"{self.data}/v1/predict/late", json={"instances": [order]},
            headers={"authorization": f"Bearer {bearer}"}, timeout=60.0, **more,
        )  # fmt: skip

    def close(self) -> None:
        process = self.process
        try:
            if process is not None and process.poll() is None:
                process.send_signal(signal.SIGTERM)
                process.wait(timeout=90)
        finally:
            if process is not None and process.poll() is None:
                process.kill()
                process.wait()
            for child in self.state().get("children", []):
                if child["pid"] and alive(child["pid"]) == child["started"]:
                    os.kill(child["pid"], signal.SIGKILL)


class Asking:
    """Clients that ask an endpoint without pause. `answered`: request ids acknowledged with 200."""

    def __init__(self, up: Up, bearer: str, *, clients: int = 2, pause_s: float = 0.002) -> None:
        self._url, self._bearer, self._pause_s = f"{up.data}/v1/predict/late", bearer, pause_s
        self.answered: list[str] = []
        self.refused: list[tuple[int, str]] = []
        self.broken = 0
        self._stop = threading.Event()
        self._threads = [threading.Thread(target=self._run) for _ in range(clients)]

    def __enter__(self) -> Asking:
        for thread in self._threads:
            thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._stop.set()
        for thread in self._threads:
            thread.join(timeout=90)
            assert not thread.is_alive()

    def _run(self) -> None:
        headers = {"authorization": f"Bearer {self._bearer}"}
        with httpx.Client(headers=headers, timeout=60.0) as client:
            while not self._stop.wait(self._pause_s):
                try:
                    answer = client.post(self._url, json={"instances": [ORDER]})
                except httpx.TransportError:
                    self.broken += 1
                    continue
                if answer.status_code == 200:
                    self.answered.append(answer.json()["request_id"])
                else:
                    self.refused.append((answer.status_code, answer.json()["error"]["code"]))

    def more(self, count: int = 10, *, within_s: float = 90.0) -> None:
        """Return when `count` further requests were answered."""
        goal = len(self.answered) + count
        until(lambda: len(self.answered) >= goal, within_s=within_s)


@contextmanager
def _typing(text: str) -> Iterator[None]:
    """Standard input of this process as somebody types it, until the block ends."""
    before, sys.stdin = sys.stdin, io.StringIO(text)
    try:
        yield
    finally:
        sys.stdin = before


@contextmanager
def _settings(environ: Mapping[str, str]) -> Iterator[None]:
    """The environment of this process with `environ`, until the block ends."""
    before = dict(os.environ)
    os.environ.update(environ)
    try:
        yield
    finally:
        os.environ.clear()
        os.environ.update(before)


def assert_clear(message: str) -> None:
    """An error says what and what to do, on few lines, and never where in taut's own code it arose."""
    assert 15 <= len(message) <= 4000, message
    assert "Traceback" not in message, message
    assert "taut failed" not in message, message


def until(condition: Callable[[], bool], *, within_s: float = 90.0, said: Callable[[], str] = str) -> None:
    deadline = time.monotonic() + within_s
    while not condition():
        assert time.monotonic() < deadline, f"did not happen within {within_s:g} s: {said()}"
        time.sleep(0.02)


def logged_ids(home: Path) -> set[str]:
    """Request ids of the prediction log."""
    from taut.serving.predictions import PredictionReader

    return set(PredictionReader(home / "log" / "predictions").ids())
