"""A bundle as a device runs it: the one file, Python, the libraries of its requirements, and no taut."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import httpx
import msgspec

LIBRARIES = str(Path(msgspec.__file__).parents[1])
ALONE = (sys.executable, "-S", "-P")
"""Without site, so that what makes this taut importable (a .pth file) is not read; PYTHONPATH has the libraries."""


def device_environ() -> dict[str, str]:
    return {"PATH": os.environ["PATH"], "PYTHONPATH": LIBRARIES, "PYTHONDONTWRITEBYTECODE": "1"}


def run_alone(
    bundle: Path, *words: str, stdin: str = "", within: Sequence[str] = ()
) -> subprocess.CompletedProcess[str]:
    """Run a bundle's command to its end. within: a program that runs it, where the machine allows that program."""
    allowed = subprocess.run([*within, "true"], capture_output=True).returncode == 0 if within else True
    return subprocess.run(
        [*(within if allowed else ()), *ALONE, str(bundle), *words], cwd=bundle.parent, env=device_environ(), text=True, input=stdin,
        capture_output=True, timeout=60,
    )  # fmt: skip


class Runner:
    """A bundle that serves. url: of its endpoint's base."""

    def __init__(self, process: subprocess.Popen[str], url: str, said: Path) -> None:
        self.process, self.url, self._said = process, url, said

    def ask(self, row: dict[str, Any], **more: Any) -> httpx.Response:
        return httpx.post(f"{self.url}/v1/predict/late", json={"instances": [row]}, timeout=60.0, **more)

    def said(self) -> str:
        return self._said.read_text()

    def kill(self) -> None:
        self.process.kill()
        self.process.wait()


@contextmanager
def serving(bundle: Path, *words: str) -> Iterator[Runner]:
    """Run a bundle on a free port until the block ends."""
    said = bundle.with_name(f"serving-{time.monotonic_ns()}.log")
    with said.open("w") as log:
        process = subprocess.Popen(
            [*ALONE, str(bundle), "serve", "--port", "0", *words], cwd=bundle.parent, env=device_environ(), text=True,
            stdout=log, stderr=log,
        )  # fmt: skip
    try:
        yield Runner(process, _url(process, said), said)
    finally:
        process.terminate()
        try:
            process.wait(timeout=90)
        finally:
            process.kill()
            process.wait()


def _url(process: subprocess.Popen[str], said: Path) -> str:
    deadline = time.monotonic() + 90
    while True:
        found = re.search(r"serves on (http://[^/]+)/", said.read_text())
        if found:
            return found.group(1)
        assert process.poll() is None, said.read_text()
        assert time.monotonic() < deadline, said.read_text()
        time.sleep(0.02)


def document(told: subprocess.CompletedProcess[str]) -> dict[str, Any]:
    assert told.returncode == 0, told.stderr
    found: dict[str, Any] = json.loads(told.stdout)
    return found
