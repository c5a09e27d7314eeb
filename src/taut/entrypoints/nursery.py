"""Gateways forked from one warm process instead of each being started from the beginning: the supervisor's end of it."""

from __future__ import annotations

import contextlib
import json
import os
import select
import signal
import socket
import struct
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any, Final

from taut.bootstrap.config import OF_CONTROL
from taut.bootstrap.sandbox import adopt_orphans
from taut.entrypoints.children import Child, Running, alive, environment_of, open_log

ORDER_MAX: Final = 2**16
DESCRIPTORS_MAX: Final = 8
READY: Final = b"ready"
BORN: Final = struct.Struct("<i")
"""The first thing that a forked gateway says on its line: its process, or less than 0, the error for which there is none."""
_COMING_S: Final = 30.0
_BIRTH_S: Final = 10.0  # far longer than a fork takes on any machine that still does something
_AGAIN_S: Final = 10.0
_TITLE: Final = "." * 256  # room in its list of arguments, where a fork writes what it is
_NAME: Final = "gateway-zygote"
OnEnd = Callable[[dict[str, Any]], None]

_ONE_THREAD: Final = (
    "OMP_NUM_THREADS",
    "OPENBLAS_NUM_THREADS",
    "MKL_NUM_THREADS",
)  # what forks has no others


class Nursery:
    """Keeps the process that gateways are forked from; see `gateway_zygote`. One thread owns it.

    home: of the installation. on_end: hears what became of it, where it ended or was ended for another reason than `close`.
    Guarantees: a gateway that was forked is a child of this process, ends as others do, and goes on when this one dies. Where
    none can be forked, `fork` says so, and the same is started from the beginning.
    """

    def __init__(self, home: Path, *, on_end: OnEnd) -> None:
        self._home: Final = home
        self._log: Final = home / "log" / f"{_NAME}.log"
        self._on_end: Final = on_end
        self._process: subprocess.Popen[bytes] | None = None
        self._door: socket.socket | None = None
        self._ready = False
        self._since_s = self._due_s = 0.0

    @property
    def pid(self) -> int:
        """Return the process that forks; 0 for none."""
        return 0 if self._process is None else self._process.pid

    @property
    def line(self) -> int:
        """Return the descriptor on which it says that it is ready; -1 where nothing is waited for."""
        return self._door.fileno() if self._door is not None and not self._ready else -1

    def coming(self) -> bool:
        """Look how it does; return whether it is about to be ready, so that waiting for it is the shorter way."""
        if self._process is None and time.monotonic() >= self._due_s:
            self._begin()
        process, door = self._process, self._door
        if process is None or door is None:
            return False
        if (code := process.poll()) is not None:
            self._put_off(f"killed by {signal.Signals(-code).name}" if code < 0 else f"exit {code}")
            return False
        if not self._ready:
            with contextlib.suppress(BlockingIOError, OSError):
                self._ready = door.recv(len(READY), socket.MSG_DONTWAIT) == READY
        if not self._ready and time.monotonic() - self._since_s > _COMING_S:
            self._put_off(f"not ready within {_COMING_S:g} s")
            return False
        return not self._ready

    def fork(self, child: Child, sockets: Mapping[str, socket.socket], *, log: Path) -> Running | None:
        """Return the child, forked; None where there is nothing to fork it from. Raises OSError where there is no room for it."""
        if self._door is None or not self._ready:
            return None
        ready, told = os.pipe()
        try:
            with open_log(log) as output:
                given = {"log": output.fileno(), "ready": told}
                given |= {
                    name: one.fileno() for name, one in sockets.items() if f"{{{name}}}" in child.command
                }
                order = json.dumps({"words": child.command, "names": list(given)}).encode()
                socket.send_fds(self._door, [order], list(given.values()))
        except BrokenPipeError:
            os.close(ready)
            self._put_off("gone")
            return None
        except OSError:
            os.close(ready)
            raise
        finally:
            os.close(told)
        pid = _birth(ready)
        if pid <= 0:
            os.close(ready)  # a fork that is late finds that nobody listens, and ends
            if pid < 0:
                raise OSError(-pid, os.strerror(-pid))
            self._put_off(f"no gateway within {_BIRTH_S:g} s")
            return None
        return Running(pid, forked=True, started=alive(pid), ready_fd=ready)

    def renew(self, failed: Running) -> None:
        """Begin anew where a gateway failed that was forked from what there is: it may run what lies on the disk no more."""
        if self._process is not None and failed.since_s > self._since_s:
            self.close()

    def close(self) -> None:
        """End the process; gateways go on."""
        if self._door is not None:
            self._door.close()
        if self._process is not None:
            self._process.kill()
            self._process.wait()
        self._process, self._door, self._ready = None, None, False

    def _put_off(self, how: str) -> None:
        pid = self.pid
        self.close()
        self._due_s = time.monotonic() + _AGAIN_S
        self._on_end({"name": _NAME, "pid": pid, "how": how, "again_s": _AGAIN_S})

    def _begin(self) -> None:
        ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        command = [
            sys.executable, "-P", "-m", "taut.entrypoints.gateway_zygote", "--home", str(self._home), "--fd",
            str(theirs.fileno()), _TITLE,
        ]  # fmt: skip
        environment = environment_of(Child(_NAME, (), survives=False, withheld=OF_CONTROL))
        try:
            with theirs, open_log(self._log) as output:
                self._process = subprocess.Popen(
                    command, stdin=subprocess.DEVNULL, stdout=output, stderr=output, pass_fds=[theirs.fileno()],
                    start_new_session=True, env={**dict.fromkeys(_ONE_THREAD, "1"), **environment},
                )  # fmt: skip
        except OSError:  # no room for its log, no process to be had: gateways are told so too, in their turn
            ours.close()
            self._due_s = time.monotonic() + _AGAIN_S
            return
        self._door, self._ready, self._since_s = ours, False, time.monotonic()


@contextlib.contextmanager
def open_nursery(home: Path, *, on_end: OnEnd) -> Iterator[Nursery | None]:
    """Yield what gateways are forked from; None where the kernel does not make orphans children of this process, as it does from here on."""
    if sys.platform != "linux" or not adopt_orphans():
        yield None
        return
    with contextlib.closing(Nursery(home, on_end=on_end)) as made:
        yield made


def _birth(line: int) -> int:
    """Return the process that a line begins with; less than 0, an error; 0 where nothing comes."""
    readable, _, _ = select.select([line], [], [], _BIRTH_S)
    said = os.read(line, BORN.size) if readable else b""
    return int(BORN.unpack(said)[0]) if len(said) == BORN.size else 0
