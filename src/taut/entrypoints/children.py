"""Processes that a supervisor keeps: started by it, or adopted from one that died."""

from __future__ import annotations

import contextlib
import os
import signal
import socket
import subprocess
import time
from collections.abc import Collection, Mapping, Sequence
from pathlib import Path
from typing import Any, BinaryIO, Final, NamedTuple

_LOG_BYTES: Final = 16 * 2**20
_GONE: Final = "gone"


class Child(NamedTuple):
    """What to run. `{ready}` and names of sockets in the command, as `{listener}`, become descriptors that it inherits.

    survives: it goes on when the supervisor dies, and the next one adopts it. address: where it listens by itself and
    how, so that only one that does the same is adopted. withheld: variables of our environment that it does not get.
    forked: it is a gateway, which a `Nursery` forks where there is one.
    """

    name: str
    command: tuple[str, ...]
    survives: bool
    address: str = ""
    withheld: tuple[str, ...] = ()
    forked: bool = False


class Running:
    """One living process. started: its start time as the kernel tells it, so that a reused pid is not mistaken.

    process: where we started it. forked: where it was forked for us, and the kernel made it our child.
    """

    def __init__(
        self,
        pid: int,
        *,
        process: subprocess.Popen[bytes] | None = None,
        forked: bool = False,
        started: str,
        ready_fd: int = -1,
    ) -> None:
        self.pid: Final = pid
        self.started: Final = started
        self.adopted: Final = process is None and not forked
        self.since_s: Final = time.monotonic()
        self.ready_fd = ready_fd
        self.process: Final = process
        self._forked: Final = forked
        self._code: int | None = None

    def hear(self) -> bool:
        """Read what the child says about being ready; close the line when it ends. Return whether it said so."""
        try:
            said = os.read(self.ready_fd, 64)
        except OSError:
            said = b""
        self._close()
        return b"ready" in said

    def ended(self) -> str | None:
        """Return how the process ended, None while it lives."""
        code = self._poll()
        if code is None:
            return None
        self._close()
        if isinstance(code, str):
            return code
        return f"killed by {signal.Signals(-code).name}" if code < 0 else f"exit {code}"

    def _poll(self) -> int | str | None:
        """Return the code of a process that has ended; that it is gone where it is not our child, and nobody told us the code."""
        if self.process is not None:
            return self.process.poll()
        if self._forked and self._code is None:
            try:
                pid, status = os.waitpid(self.pid, os.WNOHANG)
            except ChildProcessError:  # what forked it is still to leave it to us
                return None if alive(self.pid) == self.started else _GONE
            self._code = os.waitstatus_to_exitcode(status) if pid else None
        if self._forked:
            return self._code
        return None if alive(self.pid) == self.started else _GONE

    def _close(self) -> None:
        if self.ready_fd >= 0:
            os.close(self.ready_fd)
            self.ready_fd = -1


def spawn(child: Child, sockets: Mapping[str, socket.socket], *, log: Path) -> Running:
    """Start a child in a session of its own, so that a terminal's signals reach it through the supervisor only.

    sockets: by the name that a command calls them; it inherits those that it names.
    """
    ready, told = os.pipe()
    descriptors = {"ready": told, **{name: found.fileno() for name, found in sockets.items()}}
    passed = [found for name, found in descriptors.items() if f"{{{name}}}" in child.command]
    try:
        with open_log(log) as output:
            process = subprocess.Popen(
                filled(child.command, descriptors), stdin=subprocess.DEVNULL, stdout=output, stderr=output,
                pass_fds=passed, start_new_session=True, env=environment_of(child),
            )  # fmt: skip
    except OSError:
        os.close(ready)
        raise
    finally:
        os.close(told)
    return Running(process.pid, process=process, started=alive(process.pid), ready_fd=ready)


def filled(command: Sequence[str], descriptors: Mapping[str, int]) -> list[str]:
    """Return a child's command with the numbers of the descriptors that it names."""
    fields = {name: str(number) for name, number in descriptors.items()}
    return [part.format_map(fields) if part.startswith("{") else part for part in command]


def environment_of(child: Child) -> dict[str, str]:
    return {name: value for name, value in os.environ.items() if name not in child.withheld}


def open_log(path: Path) -> BinaryIO:
    """Open what a child says for appending; beyond 16 MiB it is put aside before."""
    if path.exists() and path.stat().st_size > _LOG_BYTES:
        path.replace(path.with_suffix(".log.1"))
    # what a process says when it fails may hold what people sent: for the owner alone
    flags = os.O_CREAT | os.O_APPEND | os.O_WRONLY | os.O_CLOEXEC | os.O_NOFOLLOW
    return open(os.open(path, flags, 0o600), "ab")


def reap_strays(known: Collection[int]) -> None:
    """Let go of ended processes that fell to us when their own parents died. known: our own, whom somebody else here waits for."""
    while True:
        try:
            found = os.waitid(os.P_ALL, 0, os.WEXITED | os.WNOHANG | os.WNOWAIT)
        except ChildProcessError:
            return
        if found is None or found.si_pid in known:
            return  # what lies behind one of our own is found once that was waited for
        os.waitpid(found.si_pid, 0)


def adopt(entry: Mapping[str, Any]) -> Running | None:
    """Return the process of a dead supervisor's entry if the very same still lives."""
    pid, started = entry.get("pid"), entry.get("started")
    if not isinstance(pid, int) or not isinstance(started, str) or not started or alive(pid) != started:
        return None
    return Running(pid, started=started)


def end(running: Running, number: signal.Signals) -> None:
    """Send a signal, unless the process ended meanwhile."""
    if running.ended() is None:
        with contextlib.suppress(ProcessLookupError):
            os.kill(running.pid, number)


def alive(pid: int) -> str:
    """Return a process's start time as text that names this very process, or nothing when it is dead or a zombie."""
    try:
        stat = Path(f"/proc/{pid}/stat").read_text()
    except FileNotFoundError:
        return "" if Path("/proc/self/stat").exists() else _alive_by_ps(pid)
    except OSError:
        return ""
    state, *fields = stat.rpartition(")")[2].split()
    return "" if state in "ZX" else fields[18]


def _alive_by_ps(pid: int) -> str:
    """As `alive`, for systems without /proc."""
    found = subprocess.run(
        ["ps", "-o", "stat=,lstart=", "-p", str(pid)], capture_output=True, text=True, check=False
    )
    state, _, started = found.stdout.strip().partition(" ")
    return "" if not state or state.startswith("Z") else started.strip()
