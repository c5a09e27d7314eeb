"""A machine with accelerators that are not there: they compute on the CPU, take the time that they are said to take, and fail
when they are told to."""

from __future__ import annotations

import json
import os
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Final

from taut.core.devices import Device
from taut.core.ort import load_onnxruntime, session_options
from taut.serving.placement import DeviceFailed
from taut.serving.runtime import Cost


class SimulatedHost:
    """The `Host` of tests.

    costs: device -> what a batch takes there by `counter_s`, which moves with nothing else. free: device -> its free memory.
    faults: device -> `absent`, `open` (does not take the model), `run` (fails on every batch), `wrong` (answers otherwise
    than the CPU), `leak` (leaves no memory), `crash` (takes the process along when a model is opened), `hang`
    (never opens it). fault_file: JSON of the same, read whenever a model is opened or run: for
    workers, which are other processes.
    opened: devices on which a model was opened, with the memory that it was allowed.
    """

    def __init__(
        self,
        costs: Mapping[str, Cost],
        *,
        free: Mapping[str, int] | None = None,
        faults: Mapping[str, str] | None = None,
        fault_file: Path | None = None,
    ) -> None:
        self._costs: Final = dict(costs)
        self._fault_file: Final = fault_file
        self._now_s = 0.0
        self.free: Final = dict(free or {})
        self.faults: Final = dict(faults or {})
        self.opened: Final[list[tuple[str, int]]] = []

    def open(self, model: bytes, device: Device, *, memory_bytes: int) -> Any:
        fault = self.fault(device)
        if fault == "crash":
            os._exit(3)
        if fault == "hang":
            time.sleep(3600)
        if fault == "absent":
            raise DeviceFailed(f"this machine has no {device.name}", again=False)
        if fault == "open":
            raise DeviceFailed(f"{device.name} is out of memory")
        self.opened.append((device.name, memory_bytes))
        session = load_onnxruntime().InferenceSession(
            model, session_options(threads=device.threads), providers=["CPUExecutionProvider"]
        )
        if fault == "leak":
            self.free[device.name] = 0
        return _Session(session, self, device)

    def free_bytes(self, device: Device) -> int | None:
        return self.free.get(device.name)

    def counter_s(self) -> float:
        return self._now_s

    def fault(self, device: Device) -> str:
        told = self.faults
        if self._fault_file is not None and self._fault_file.exists():
            told = json.loads(self._fault_file.read_text())
        return told.get(device.name, "")

    def ran(self, device: Device, rows: int) -> None:
        """Let the time pass that a batch takes."""
        self._now_s += self._costs[device.name].us(rows) / 1e6


class _Session:
    def __init__(self, session: Any, host: SimulatedHost, device: Device) -> None:
        self._session: Final = session
        self._host: Final = host
        self._device: Final = device

    def get_inputs(self) -> Sequence[Any]:
        inputs: Sequence[Any] = self._session.get_inputs()
        return inputs

    def get_outputs(self) -> Sequence[Any]:
        outputs: Sequence[Any] = self._session.get_outputs()
        return outputs

    def run(self, names: Sequence[str], feed: Mapping[str, Any]) -> list[Any]:
        fault = self._host.fault(self._device)
        if fault == "run":
            raise RuntimeError(f"{self._device.name} was lost")
        self._host.ran(self._device, len(next(iter(feed.values()))))
        found = self._session.run(names, feed)
        return [one + 0.25 for one in found] if fault == "wrong" else list(found)
