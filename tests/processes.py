"""The processes below a gateway: its zygote, and the zygote's workers."""

from __future__ import annotations

import contextlib
import os
from pathlib import Path

from taut.testing.serving import GatewayProcess


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


def workers(gateway: GatewayProcess) -> list[int]:
    assert gateway.process is not None
    return [worker for zygote in children(gateway.process.pid) for worker in children(zygote)]
