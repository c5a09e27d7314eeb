"""Signals as bytes that a loop of the supervisor's kind can wait for."""

from __future__ import annotations

import contextlib
import os
import signal
from collections.abc import Callable, Iterator


@contextlib.contextmanager
def signals(stop: Callable[[], None], renew: Callable[[], None] | None) -> Iterator[int]:
    """Turn SIGTERM and SIGINT into `stop`, and every signal, SIGCHLD too, into a byte on the yielded descriptor.

    renew: what SIGHUP means; None leaves it to the system, which ends the process.
    """
    reader, writer = os.pipe()
    os.set_blocking(reader, False)
    os.set_blocking(writer, False)
    before_wake = signal.set_wakeup_fd(writer, warn_on_full_buffer=False)
    handlers = {
        number: signal.signal(number, lambda *_: stop()) for number in (signal.SIGTERM, signal.SIGINT)
    }
    handlers[signal.SIGCHLD] = signal.signal(signal.SIGCHLD, lambda *_: None)
    if renew is not None:
        handlers[signal.SIGHUP] = signal.signal(signal.SIGHUP, lambda *_: renew())
    try:
        yield reader
    finally:
        for number, handler in handlers.items():
            signal.signal(number, handler)
        signal.set_wakeup_fd(before_wake)
        os.close(reader)
        os.close(writer)
