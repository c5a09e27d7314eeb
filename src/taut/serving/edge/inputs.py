"""Inputs that a device keeps for itself where its owner says so: the newest, within a bound, and never sent anywhere."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any, Final

import msgspec

INPUTS_BYTES_MAX: Final = 64 * 2**20


class Inputs:
    """Appends requests to `inputs.jsonl` in a folder; `inputs.old.jsonl` has those before. Together they stay in the bound.

    Not guaranteed: that a request is there which was answered while the disk was full; `faults` counts those.
    """

    def __init__(self, folder: Path, *, bytes_max: int = INPUTS_BYTES_MAX) -> None:
        self.faults = 0
        self._path: Final = folder / "inputs.jsonl"
        self._old: Final = folder / "inputs.old.jsonl"
        self._half: Final = bytes_max // 2
        self._file = self._open()
        self._size = os.fstat(self._file).st_size

    def keep(self, request_id: str, instances: list[dict[str, Any]]) -> None:
        line = msgspec.json.encode({"request_id": request_id, "instances": instances}) + b"\n"
        try:
            if self._size + len(line) > self._half:
                self._path.replace(self._old)
                full, self._file, self._size = self._file, self._open(), 0
                os.close(full)
            if len(line) <= self._half:
                self._size += os.write(self._file, line)
        except OSError:
            self.faults += 1

    def close(self) -> None:
        os.close(self._file)

    def _open(self) -> int:
        return os.open(self._path, os.O_WRONLY | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC, 0o600)
