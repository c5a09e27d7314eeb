"""Each process that listens refuses by itself to be reached by other machines without TLS, whoever started it."""

from __future__ import annotations

import os
import socket
import subprocess
import sys
from pathlib import Path

import pytest

WORDS = {
    "control": ("taut.entrypoints.control_main", "--host", "0.0.0.0", "--port", "0", "--home", "home"),
    "gRPC": ("taut.entrypoints.grpc_main", "--host", "0.0.0.0", "--port", "0", "--gateways-port", "1"),
    "this gateway": ("taut.entrypoints.gateway_main", "--home", "home", "--fd", "{fd}", "--alone"),
}


@pytest.mark.parametrize("plane", WORDS)
def test_a_process_does_not_listen_openly_without_tls(tmp_path: Path, plane: str) -> None:
    (tmp_path / "home").mkdir(mode=0o700)
    with socket.socket() as bound:
        bound.bind(("0.0.0.0", 0))
        bound.listen()
        bound.set_inheritable(True)
        words = [word.format(fd=bound.fileno()) for word in WORDS[plane]]
        ended = subprocess.run(
            [sys.executable, "-P", "-m", *words], cwd=tmp_path, capture_output=True, text=True, timeout=90,
            pass_fds=[bound.fileno()], env=dict(os.environ), check=False,
        )  # fmt: skip

    assert ended.returncode == 2, ended.stderr
    assert f"{plane} would listen on 0.0.0.0 without TLS" in ended.stdout + ended.stderr
