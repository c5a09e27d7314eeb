"""System calls that Python does not offer, through ctypes. Linux only."""

from __future__ import annotations

import ctypes
import os
import platform
import sys
from typing import Final

LINUX: Final = sys.platform == "linux"

PR_SET_PDEATHSIG: Final = 1
PR_SET_DUMPABLE: Final = 4
PR_SET_SECCOMP: Final = 22
PR_CAPBSET_DROP: Final = 24
PR_SET_CHILD_SUBREAPER: Final = 36
PR_SET_NO_NEW_PRIVS: Final = 38


def machine() -> str:
    """Return `x86_64` or `aarch64` on a 64-bit kernel of those, otherwise another name."""
    return platform.machine() if ctypes.sizeof(ctypes.c_void_p) == 8 else "other"


def syscall(number: int, *arguments: object) -> int:
    """Call `number` with integers, bytes and ctypes values. Raises OSError with the call's errno."""
    libc = ctypes.CDLL(None, use_errno=True)
    converted = [ctypes.c_long(item) if isinstance(item, int) else item for item in arguments]
    libc.syscall.restype = ctypes.c_long
    result = int(libc.syscall(ctypes.c_long(number), *converted))
    if result < 0:
        code = ctypes.get_errno()
        raise OSError(code, os.strerror(code))
    return result


def prctl(option: int, *arguments: object) -> int:
    """Call prctl(2), unused arguments as zero. Raises OSError."""
    libc = ctypes.CDLL(None, use_errno=True)
    padded = [*arguments, 0, 0, 0, 0][:4]
    converted = [ctypes.c_ulong(item) if isinstance(item, int) else item for item in padded]
    result = int(libc.prctl(ctypes.c_int(option), *converted))
    if result < 0:
        code = ctypes.get_errno()
        raise OSError(code, os.strerror(code))
    return result


def unshare(flags: int) -> None:
    """Call unshare(2). Raises OSError."""
    libc = ctypes.CDLL(None, use_errno=True)
    if libc.unshare(ctypes.c_int(flags)) != 0:
        code = ctypes.get_errno()
        raise OSError(code, os.strerror(code))


def mount(source: str, target: str, kind: str, flags: int, data: str = "") -> None:
    """Call mount(2). Raises OSError."""
    libc = ctypes.CDLL(None, use_errno=True)
    arguments = (source.encode(), target.encode(), kind.encode(), ctypes.c_ulong(flags), data.encode())
    if libc.mount(*arguments) != 0:
        code = ctypes.get_errno()
        raise OSError(code, os.strerror(code), target)
