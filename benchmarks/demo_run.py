"""One run of `taut demo --exit --json`, shared by the benchmarks that need its figures or its installation."""

from __future__ import annotations

import functools
import json
import os
import socket
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

import msgspec


class DemoRun(msgspec.Struct, frozen=True, kw_only=True):
    """What the demo left. steps: name -> `{"ok", "claim", "figures", "seconds"}`."""

    folder: Path
    steps: dict[str, dict[str, Any]]
    keep: tempfile.TemporaryDirectory[str]  # gone when this process ends

    @property
    def home(self) -> Path:
        return self.folder / "home"


def taut(*words: str) -> list[str]:
    """Return the command line of taut as it is installed here: the script, so that its start is measured too."""
    return [str(Path(sys.executable).parent / "taut"), *words]


def environment() -> dict[str, str]:
    return {name: value for name, value in os.environ.items() if not name.startswith("TAUT_")}


def free_port() -> int:
    """Return a port that is free together with the next two, for control and gRPC; port 0 finds the first alone."""
    for _ in range(100):
        with socket.socket() as first, socket.socket() as second, socket.socket() as third:
            first.bind(("127.0.0.1", 0))
            port: int = first.getsockname()[1]
            try:
                second.bind(("127.0.0.1", port + 1))
                third.bind(("127.0.0.1", port + 2))
            except (OSError, OverflowError):
                continue
            return port
    raise RuntimeError("no three ports in a row are free")


@functools.cache
def demo_run() -> DemoRun:
    """Run the demo once in this process's life. Raises RuntimeError when a claim did not hold."""
    keep = tempfile.TemporaryDirectory(prefix="taut-bench-")
    folder = Path(keep.name) / "demo"
    command = taut("--json", "demo", "--exit", "--port", str(free_port()), "--folder", str(folder))
    done = subprocess.run(command, capture_output=True, env=environment(), timeout=900, check=False)
    if done.returncode:
        raise RuntimeError(f"the demo ended with {done.returncode}: {done.stderr.decode()[-2000:]}")
    steps = {step["name"]: step for step in json.loads(done.stdout)["steps"]}
    return DemoRun(folder=folder, steps=steps, keep=keep)
