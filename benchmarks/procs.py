"""Processes as the kernel sees them: trees, CPU, memory."""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import time
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Final

_TICK_S: Final = 1 / os.sysconf("SC_CLK_TCK")


def tree(pid: int) -> list[int]:
    """Return a process and all below it."""
    children: dict[int, list[int]] = {}
    for path in Path("/proc").iterdir():
        if path.name.isdigit():
            with contextlib.suppress(OSError):  # it ended meanwhile
                parent = int((path / "stat").read_text().rpartition(")")[2].split()[1])
                children.setdefault(parent, []).append(int(path.name))
    found, ahead = [], [pid]
    while ahead:
        found.append(ahead.pop(0))
        ahead += sorted(children.get(found[-1], []))
    return found


def cpu_s(pid: int) -> float:
    """Return the seconds of CPU that a process has used, in steps of a hundredth; 0 for one that is gone."""
    try:
        fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    except OSError:
        return 0.0
    return (int(fields[11]) + int(fields[12])) * _TICK_S


def precise_cpu_s(pid: int) -> float:
    """Return the seconds of CPU of all threads of a process, to the microsecond or so."""
    total_ns = 0
    for path in Path(f"/proc/{pid}/task").iterdir():
        with contextlib.suppress(OSError):  # the thread ended meanwhile
            total_ns += int((path / "schedstat").read_text().split()[0])
    return total_ns / 1e9


def machine_cpu_s() -> float:
    """Return the seconds of CPU that anything on this machine has used, time stolen from it included."""
    fields = [int(word) for word in Path("/proc/stat").read_text().splitlines()[0].split()[1:9]]
    user, nice, system, _, _, irq, softirq, steal = fields
    return (user + nice + system + irq + softirq + steal) * _TICK_S


def memory_mib(pid: int, kind: str) -> float:
    """Return what the kernel says of a process's memory. kind: `Pss`, `Rss`, `Pss_Anon`, …"""
    for line in Path(f"/proc/{pid}/smaps_rollup").read_text().splitlines():
        if line.startswith(f"{kind}:"):
            return int(line.split()[1]) / 1024
    raise AssertionError(f"the kernel tells no {kind} of process {pid}")


@contextmanager
def running(command: list[str], **more: Any) -> Iterator[subprocess.Popen[bytes]]:
    """Run a server in a session of its own; at the end of the block it is asked to end, then it and all below it are killed."""
    process = subprocess.Popen(command, start_new_session=True, **more)
    try:
        yield process
    finally:
        below = tree(process.pid)
        process.send_signal(signal.SIGINT)
        with contextlib.suppress(subprocess.TimeoutExpired):
            process.wait(timeout=5)
        _kill(below)
        process.wait()


def _kill(pids: Iterable[int]) -> None:
    for pid in pids:
        with contextlib.suppress(ProcessLookupError):
            os.kill(pid, signal.SIGKILL)


def wait_until(condition: Any, what: str, *, within_s: float = 60.0) -> float:
    """Return after how many seconds a condition held. Raises AssertionError when it does not in time."""
    start = time.monotonic()
    while not condition():
        assert time.monotonic() - start < within_s, f"{what}: not within {within_s:g} s"
        time.sleep(0.02)
    return time.monotonic() - start
