"""The demo's stage: a project folder, a platform that runs as its own process, and clients of both planes."""

from __future__ import annotations

import contextlib
import json
import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path
from types import TracebackType
from typing import Any

import httpx

from taut.core.errors import Conflict, Unavailable
from taut.entrypoints import errors
from taut.entrypoints.client import Client, connect
from taut.entrypoints.render import watching

_READY_S = 60.0
GATEWAYS = 2


class ClaimFailed(Exception):
    """What the demo claims does not hold."""


def claim(holds: bool, otherwise: str) -> None:
    """Raise ClaimFailed with what was seen instead, unless the claim holds."""
    if not holds:
        raise ClaimFailed(otherwise)


class Stage:
    """What the steps share. A context manager: at the end the platform is drained and stopped."""

    def __init__(self, folder: Path, *, port: int) -> None:
        self.folder = folder
        self.project = folder / "project"
        self.home = folder / "home"
        self.data = self.project / "data"
        self.flights: Any = None  # polars.DataFrame, set by the first step
        self.request_id = ""
        self.example = ""
        self.versions: dict[str, str] = {}
        self.runs: dict[str, str] = {}
        self.answered: dict[str, float] = {}  # request id -> probability
        self._port = port
        self._platform: subprocess.Popen[str] | None = None
        self._token = ""
        self.data_url = ""
        self.control_url = ""
        self.http: httpx.Client | None = None

    def __enter__(self) -> Stage:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self.http is not None:
            self.http.close()
        if self._platform is not None and self._platform.poll() is None:
            self._platform.send_signal(signal.SIGTERM)
            try:
                self._platform.wait(timeout=40)
            except subprocess.TimeoutExpired:
                self._platform.kill()
                self._platform.wait()
        if self._platform is not None and self._platform.stdout is not None:
            self._platform.stdout.close()

    def write_project(self) -> None:
        source = Path(__file__).parent / "project"
        shutil.copytree(source, self.project, ignore=shutil.ignore_patterns("__pycache__"))
        self.data.mkdir()

    def start_platform(self) -> float:
        """Start `taut up` and return the seconds until it was ready."""
        began = time.monotonic()
        command = [
            sys.executable, "-m", "taut.entrypoints.cli", "--home", str(self.home), "--json", "up",
            "--port", str(self._port), "--gateways", str(GATEWAYS),
        ]  # fmt: skip
        environ = {**os.environ, "PYTHONSAFEPATH": "1"}
        self._platform = subprocess.Popen(
            command, stdout=subprocess.PIPE, text=True, env=environ, start_new_session=True
        )
        assert self._platform.stdout is not None
        line = self._platform.stdout.readline()
        if not line:
            code = self._platform.wait()
            raise Unavailable(f"`taut up` ended with {code}: what it said stands above")
        where = json.loads(line)
        if "error" in where:
            self._platform.wait()
            raise errors.from_document(where["error"]["code"], where["error"]["message"])
        self.data_url, self.control_url = where["data_plane"], where["control_plane"]
        self.http = httpx.Client(base_url=self.data_url, timeout=10.0)
        return time.monotonic() - began

    def wait(self) -> None:
        """Serve until Ctrl-C."""
        assert self._platform is not None
        with contextlib.suppress(KeyboardInterrupt):
            # Polars hooks SIGINT with SA_RESTART: a wait without an end would be restarted by the kernel, and
            # Python would never come to look at the signal.
            while self._platform.poll() is None:
                time.sleep(0.2)

    def ask(self, operation: str, request: dict[str, Any] | None = None) -> dict[str, Any]:
        """Carry out an operation of the control plane over the installation's socket, with progress on a terminal."""
        with self.connect() as client:
            if not sys.stderr.isatty():
                return client.call(operation, request or {})
            with watching(sys.stderr) as progress:
                return client.call(operation, request or {}, progress=progress)

    def connect(self) -> Client:
        """Connect, also while control is being started again."""
        deadline = time.monotonic() + _READY_S
        while True:
            try:
                client = connect(self.home)
                client.call("user.whoami")
            except (Unavailable, Conflict):  # the supervisor holds the home while control is away
                if time.monotonic() > deadline:
                    raise
                time.sleep(0.05)
            else:
                return client

    def token(self) -> str:
        if not self._token:
            request = {"principal": "demo-client", "roles": ["predictor"], "ttl": "1h", "enrol": "service"}
            self._token = self.ask("token.create", request)["token"]
        return self._token

    def predict(self, instances: list[dict[str, Any]]) -> httpx.Response:
        """Ask the endpoint over HTTP as any client would; no retry."""
        assert self.http is not None
        headers = {"authorization": f"Bearer {self.token()}"}
        return self.http.post("/v1/predict/delay", json={"instances": instances}, headers=headers)

    def processes(self) -> dict[str, int]:
        """Return the platform's children, name -> pid."""
        state = json.loads((self.home / "run" / "supervisor.json").read_text())
        return {child["name"]: child["pid"] for child in state["children"] if child["pid"]}
