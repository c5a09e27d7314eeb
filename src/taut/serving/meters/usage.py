"""What this process has used of the machine."""

from __future__ import annotations

import os
import resource
from pathlib import Path
from typing import Final

_PAGE_BYTES: Final = os.sysconf("SC_PAGE_SIZE")
_STATM: Final = Path("/proc/self/statm")


def process_usage() -> tuple[int, int]:
    """Return processor time in microseconds, and resident memory in bytes; 0 bytes where the system does not tell."""
    used = resource.getrusage(resource.RUSAGE_SELF)
    cpu_us = int((used.ru_utime + used.ru_stime) * 1e6)
    try:
        return cpu_us, int(_STATM.read_text().split()[1]) * _PAGE_BYTES
    except OSError:
        return cpu_us, 0
