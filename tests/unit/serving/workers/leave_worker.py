"""Workers for tests, in threads of their own: honest ones, and ones with a planted fault. A process stands for each, to be killed."""

from __future__ import annotations

import asyncio
import contextlib
import socket
import subprocess
import threading
from collections.abc import Iterator
from typing import Any

import msgspec
import numpy as np

from taut.core.canonical import digest_bytes
from taut.core.evidence import Check
from taut.serving.runtime import load
from taut.serving.workers import Lane, LaneSettings, wire
from taut.serving.workers.exam import Examiner
from taut.serving.workers.leave import STAMP, Charge, Granted, Kept, Leave, Refused, attest
from taut.serving.workers.worker import Loaded
from taut.testing.serving import matrix_model, matrix_signature

MODEL, SIGNATURE = matrix_model(3), matrix_signature(3)
ARTIFACT = digest_bytes(MODEL)
FEED = {"input": np.arange(3, dtype=np.float32).reshape(1, 3)}
ROW = load(MODEL, SIGNATURE).raw(FEED)


class Worker:
    """What serves one socket. build, artifact: as it says of itself. bias: by how much its answers are wrong. takes_all: whatever
    the leave. gate: holds each batch until it is set, once it was taken off the socket."""

    def __init__(
        self,
        charge: Charge,
        *,
        build: str = "b",
        artifact: str = ARTIFACT,
        bias: float = 0.0,
        takes_all: bool = False,
    ) -> None:
        self.charge = charge
        self.build, self.artifact, self.bias, self.takes_all = build, artifact, bias, takes_all
        self.gate = threading.Event()
        self.gate.set()
        self.arrived = threading.Event()
        self.stamps: list[tuple[int, int, int]] = []
        self.process = subprocess.Popen(["sleep", "60"])

    def serve(self, sock: socket.socket) -> None:
        model, kept = load(MODEL, SIGNATURE), Kept(self.charge.incarnation)
        layout = wire.Layout(model.tensors, matrix_width=3)
        said = attest(self.charge, artifact=self.artifact, build=self.build)
        told = Loaded(inputs=model.tensors, cost=model.cost, private_bytes=0, attested=said)
        reader = wire.Reader(sock)
        with contextlib.suppress(EOFError, OSError), sock:
            wire.send(sock, wire.LOADED, 0, [msgspec.json.encode(told)])
            while True:
                frame = None
                while frame is None:
                    frame = reader.read()
                self.arrived.set()
                self.gate.wait(20)
                refusal = kept.refusal(frame.body)
                if refusal and not self.takes_all:
                    wire.send(sock, wire.LAPSED, frame.rows, [refusal.encode()])
                    continue
                self.stamps.append(STAMP.unpack_from(frame.body))
                tensor = model.raw(layout.feed(frame.body, frame.rows, at=STAMP.size)) + np.float32(self.bias)
                wire.send(sock, wire.DONE, frame.rows, wire.output_buffers(tensor))


class Bench:
    """Hires workers, each with the next of the faults that were planted, honest ones after that."""

    def __init__(self, *faults: dict[str, Any]) -> None:
        self.faults = list(faults)
        self.workers: list[Worker] = []

    async def hire(self, _accelerated: bool, charge: Charge) -> tuple[socket.socket, int]:
        ours, theirs = socket.socketpair()
        worker = Worker(charge, **(self.faults.pop(0) if self.faults else {}))
        self.workers.append(worker)
        threading.Thread(target=worker.serve, args=(theirs,), daemon=True).start()
        return ours, worker.process.pid

    def lane(self, ward: Any, **settings: Any) -> Lane:
        examiner = Examiner(SIGNATURE, artifact=ARTIFACT, width=3, hang_s=10.0)
        return Lane(
            "m@1",
            self.hire,
            LaneSettings(latency_s=1.0, **settings),
            matrix_width=3,
            ward=ward,
            examiner=examiner,
        )

    def close(self) -> None:
        for worker in self.workers:
            worker.gate.set()
            worker.process.kill()
            worker.process.wait()


@contextlib.contextmanager
def bench(*faults: dict[str, Any]) -> Iterator[Bench]:
    made = Bench(*faults)
    try:
        yield made
    finally:
        made.close()


class Ward:
    """Admits nobody until it is told to."""

    def __init__(self) -> None:
        self.leave = Leave(float("inf"))
        self.showed_: dict[int, tuple[Check, ...]] = {}
        self.ended_: dict[int, str] = {}
        self.drained: list[int] = []
        self._grants: dict[int, tuple[Granted, Refused]] = {}
        self._numbers = 0

    def charge(self) -> Charge:
        self._numbers += 1
        return Charge(self._numbers, f"token-{self._numbers}", "b")

    def showed(
        self, incarnation: int, checks: tuple[Check, ...], granted: Granted, refused: Refused, /
    ) -> None:
        self.showed_[incarnation] = checks
        self._grants[incarnation] = granted, refused

    def drains(self, incarnation: int, /) -> None:
        self.drained.append(incarnation)

    def ended(self, incarnation: int, why: str, /) -> None:
        self.ended_[incarnation] = why

    def grant(self, incarnation: int) -> None:
        self._grants[incarnation][0](f"m@1#{incarnation}")

    def refuse(self, incarnation: int, why: str) -> None:
        self._grants[incarnation][1](why)

    def faults(self, incarnation: int) -> list[str]:
        return [one.name for one in self.showed_[incarnation] if one.outcome != "passed"]


async def until(holds: Any) -> None:
    async with asyncio.timeout(30):
        while not holds():
            await asyncio.sleep(0.001)
