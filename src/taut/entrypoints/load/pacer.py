"""Waking the event loop at a moment, to some tens of microseconds.

An event loop's own timers are rounded up to whole milliseconds (epoll's unit), which would make every request late by
half of one. Linux has timers that are files; elsewhere the loop's own are used.
"""

from __future__ import annotations

import asyncio
import ctypes
import os
import sys
from collections.abc import Callable
from typing import Final

_MONOTONIC: Final = 1
_NONBLOCK_CLOEXEC: Final = 0o2004000


class _Timespec(ctypes.Structure):
    _fields_ = (("seconds", ctypes.c_long), ("nanoseconds", ctypes.c_long))


class _Itimerspec(ctypes.Structure):
    _fields_ = (("interval", _Timespec), ("value", _Timespec))


class Pacer:
    """Calls back once after each `arm`. Not guaranteed: punctuality; whoever is called looks at the clock."""

    def __init__(self, loop: asyncio.AbstractEventLoop, call: Callable[[], None]) -> None:
        self._loop: Final = loop
        self._call: Final = call
        self._timer: asyncio.TimerHandle | None = None
        self._libc: Final = ctypes.CDLL(None, use_errno=True)
        self._file = -1
        if sys.platform == "linux":
            self._file = int(self._libc.timerfd_create(_MONOTONIC, _NONBLOCK_CLOEXEC))
        if self._file >= 0:
            loop.add_reader(self._file, self._due)

    def arm(self, seconds: float) -> None:
        """Call back in so many seconds, at once when it is none; an earlier arming is forgotten."""
        if self._file < 0:
            if self._timer is not None:
                self._timer.cancel()
            self._timer = self._loop.call_later(max(0.0, seconds), self._call)
            return
        whole = max(1, round(seconds * 1e9))  # zero would disarm it
        spec = _Itimerspec(value=_Timespec(seconds=whole // 10**9, nanoseconds=whole % 10**9))
        if self._libc.timerfd_settime(self._file, 0, ctypes.byref(spec), None) != 0:
            raise OSError(ctypes.get_errno(), "the timer cannot be set")

    def close(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
        if self._file >= 0:
            self._loop.remove_reader(self._file)
            os.close(self._file)
            self._file = -1

    def _due(self) -> None:
        try:
            os.read(self._file, 8)
        except BlockingIOError:
            return
        self._call()
