"""How much memory there is, how much is in use, and giving back what is not."""

from __future__ import annotations

import ctypes
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Final

_CGROUPS: Final = Path("/sys/fs/cgroup")
_OWN_CGROUP: Final = Path("/proc/self/cgroup")
_STATM: Final = Path("/proc/self/statm")
_PAGE_BYTES: Final = os.sysconf("SC_PAGE_SIZE")


class _MallInfo(ctypes.Structure):
    """`struct mallinfo2` of glibc 2.33 and later, see mallinfo(3)."""

    _fields_ = tuple(
        (name, ctypes.c_size_t)
        for name in [
            "arena",
            "ordblks",
            "smblks",
            "hblks",
            "hblkhd",
            "usmblks",
            "fsmblks",
            "uordblks",
            "fordblks",
            "keepcost",
        ]
    )


class Heap:
    """The memory that this process has from its allocator.

    What is in use is counted by glibc to the byte, over all threads, so that the difference over a load is the model, plus
    what requests allocated in those milliseconds. It is a little too much: of the first 1 MiB that a session of onnxruntime
    reserves for its work, small models touch a tenth. Resident memory would say too little: once models have come and
    gone, new ones lie in what they left behind, and seem to take nothing. Where there is no glibc, that it is all the same.
    """

    def __init__(self) -> None:
        library = ctypes.CDLL(None)
        self._info: Final[Any] = getattr(library, "mallinfo2", None)
        self._trim: Final[Any] = getattr(library, "malloc_trim", None)
        if self._info is not None:
            self._info.restype = _MallInfo

    @property
    def exact(self) -> bool:
        """Whether the allocator itself counts."""
        return self._info is not None

    def used_bytes(self) -> int:
        if self._info is not None:
            info = self._info()
            return int(info.uordblks + info.hblkhd)
        try:
            return int(_STATM.read_text().split()[1]) * _PAGE_BYTES
        except (OSError, IndexError, ValueError):
            return 0

    def give_back(self) -> None:
        """Return free pages to the system, where the allocator can."""
        if self._trim is not None:
            self._trim(0)


def machine_memory_bytes(*, cgroups: Path = _CGROUPS, own: Path = _OWN_CGROUP) -> int:
    """Return the memory of this machine, or what a control group that this process is in allows where that is less."""
    found = [os.sysconf("SC_PHYS_PAGES") * _PAGE_BYTES]
    for path in _limits(cgroups, own):
        try:
            text = path.read_text().strip()
        except OSError:
            continue
        if text.isdigit():
            found.append(int(text))
    return min(found)


def _limits(cgroups: Path, own: Path) -> Iterator[Path]:
    yield cgroups / "memory.max"
    yield cgroups / "memory" / "memory.limit_in_bytes"
    try:
        lines = own.read_text().splitlines()
    except OSError:
        return
    for line in lines:
        if line.startswith("0::/"):
            inner = Path(line.removeprefix("0::/"))
            yield from (cgroups / one / "memory.max" for one in (inner, *inner.parents))
