"""The processes below a gateway: its zygote, and the zygote's workers; and what it has read of what was sent to it."""

from __future__ import annotations

import contextlib
import os
import socket
from pathlib import Path

from taut.testing.serving import GatewayProcess

LINGER_S = 0.3
"""So long a gateway that ends waits for the next request of a connection that it kept."""


def children(pid: int) -> list[int]:
    found = []
    for listed in Path(f"/proc/{pid}/task").glob("*/children"):  # a child belongs to the thread that made it
        with contextlib.suppress(OSError):
            found += [int(child) for child in listed.read_text().split()]
    return found


def family(pid: int) -> list[int]:
    """Return the zygote of the gateway with this process id, and its workers."""
    return [one for child in children(pid) for one in (child, *children(child))]


def ready_workers(gateway: GatewayProcess) -> list[int]:
    """Return the workers that take requests: a gateway lets each stand back for itself once it is ready."""
    assert gateway.process is not None
    own = os.getpriority(os.PRIO_PROCESS, gateway.process.pid)
    found = []
    for pid in workers(gateway):
        with contextlib.suppress(ProcessLookupError):
            found += [pid] if os.getpriority(os.PRIO_PROCESS, pid) > own else []
    return found


def stands_still(pid: int) -> bool:
    """Whether a process was stopped, and has heard of it."""
    return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] == "T"


def workers(gateway: GatewayProcess) -> list[int]:
    assert gateway.process is not None
    return [worker for zygote in children(gateway.process.pid) for worker in children(zygote)]


class Sent:
    """A connection over 127.0.0.1 as the kernel sees its other end, also after ours was closed."""

    def __init__(self, ours: socket.socket) -> None:
        self._ends = [f"0100007F:{end[1]:04X}" for end in (ours.getpeername(), ours.getsockname())]

    @property
    def was_read(self) -> bool:
        """Whether the other end took all that was sent to it."""
        return self._row()[4].endswith(":00000000")

    @property
    def was_closed(self) -> bool:
        """Whether the other end closed the connection too."""
        # established, or closed by us alone; the kernel's table may leave out a row that is there while others change
        return all(self._row()[3] not in ("01", "08") for _ in range(3))

    def _row(self) -> list[str]:
        rows = (line.split() for line in Path("/proc/net/tcp").read_text().splitlines())
        return next((row for row in rows if row[1:3] == self._ends), [""] * 5)
