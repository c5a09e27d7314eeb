"""One job while it runs: its events, its log, its limits, its end."""

from __future__ import annotations

import os
import selectors
import shutil
import signal
import subprocess
import sys
import threading
import time
from contextlib import suppress
from pathlib import Path
from typing import Any, Final

import msgspec

from taut.adapters.jobs.watch import Use, foreign_entries, look, size_of
from taut.adapters.jobs.yielding import Yielding, Yields, never
from taut.core.errors import InvalidInput, Unavailable
from taut.ports.jobs import JobEnd, JobResult, Progress, Task

MAX_TASKS: Final = 1024
_LOG_BYTES: Final = 64 * 1024
_EVENT_BYTES_MAX: Final = 8 * 2**20
_LOOK_EVERY_S: Final = 0.05
_SIZE_EVERY_S: Final = 0.5


class _Event(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """What a job may say, one at a time. Decoding refuses what JSON has not: NaN, infinity, broken texts."""

    progress: str | None = None
    fraction: float = 0.0
    isolation: tuple[str, ...] | None = None
    value: dict[str, Any] | None = None
    raised: str | None = None
    code: str | None = None
    unknown: str | None = None
    refused: str | None = None
    memory: bool | None = None
    size: bool | None = None


_EVENT: Final = msgspec.json.Decoder(_Event)


class Started(msgspec.Struct, frozen=True):
    """A keeper that was just started, the pipe of its events, and the order that it waits for."""

    process: subprocess.Popen[bytes]
    events: int
    order: bytes


class Running:
    """One job while it runs: its events, its log, its limits."""

    def __init__(
        self,
        started: Started,
        task: Task,
        output: Path,
        scratch: Path,
        progress: Progress | None,
        *,
        yields: Yields = never,
    ) -> None:
        self._yielding: Final = Yielding(yields)
        self._process, self._events, self._order = started.process, started.events, started.order
        self._task, self._output, self._scratch, self._progress = task, output, scratch, progress
        self._said: dict[str, Any] = {}
        self._partial = bytearray()
        self._log = bytearray()
        self._peak = 0
        self._end: tuple[JobEnd, str] | None = None  # set by whoever ends the job from here
        self._seen: tuple[int, ...] = ()
        self._began = time.monotonic()

    def to_end(self) -> JobResult:
        writer = threading.Thread(target=self._send_order, daemon=True)
        writer.start()
        try:
            self._watch()
        except BaseException:
            self._kill()
            raise
        finally:
            status, cpu_seconds, peak = self._reap()
            writer.join(timeout=5)
            self._close()
        self._peak = max(self._peak, peak)
        return self._result(status, cpu_seconds)

    def _send_order(self) -> None:
        """Write in a thread: an order above a pipe's size would wait for a reader that may be dead already."""
        stdin = self._process.stdin
        if stdin is not None:
            with suppress(OSError, ValueError):
                stdin.write(self._order)
                stdin.flush()

    def _watch(self) -> None:
        """Read until both pipes end, looking at time, memory, tasks and output in between."""
        log = self._process.stdout
        assert log is not None
        next_look = next_size = 0.0
        with selectors.DefaultSelector() as selector:
            for descriptor in (self._events, log.fileno()):
                os.set_blocking(descriptor, False)
                selector.register(descriptor, selectors.EVENT_READ)
            while selector.get_map():
                for key, _ in selector.select(timeout=_LOOK_EVERY_S):
                    if not self._take(key.fd):
                        selector.unregister(key.fd)
                now = time.monotonic()
                if self._end is None and now >= next_look:
                    next_look = now + _LOOK_EVERY_S
                    self._look(now - self._began)
                if self._end is None and now >= next_size:
                    next_size = now + _SIZE_EVERY_S
                    self._look_at_output()

    def _take(self, descriptor: int) -> bool:
        """Read what is there; return whether more may come."""
        try:
            data = os.read(descriptor, 65536)
        except BlockingIOError:
            return True
        if not data:
            return False
        if descriptor == self._events:
            self._hear(data)
        else:
            self._log += data
            del self._log[:-_LOG_BYTES]
        return True

    def _hear(self, data: bytes) -> None:
        self._partial += data
        while (end := self._partial.find(b"\n")) >= 0:
            line = bytes(self._partial[:end])
            del self._partial[: end + 1]
            self._event(line)
        if len(self._partial) > _EVENT_BYTES_MAX:
            self._stop(JobEnd.RAISED, "the job wrote something else than events to its channel")
            self._partial.clear()

    def _event(self, line: bytes) -> None:
        """Hear one event. The job's own code can write here too, so nothing is believed beyond its form.

        The first word on isolation is said before that code runs, and is the only one that counts.
        """
        try:
            event = _EVENT.decode(line)
        except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError):
            self._stop(JobEnd.RAISED, "the job wrote something else than events to its channel")
            return
        if event.progress is not None:
            if self._progress is not None:
                self._progress(event.progress[:500], min(1.0, max(0.0, event.fraction)))
            return
        said = {name: word for name, word in msgspec.structs.asdict(event).items() if word is not None}
        del said["fraction"]
        if "isolation" in self._said:
            said.pop("isolation", None)
        self._said.update(said)

    def _look(self, seconds: float) -> None:
        limits = self._task.limits
        use: Use = look(self._process.pid, exact_above_bytes=limits.memory_bytes)
        self._seen = use.pids
        self._peak = max(self._peak, use.memory_bytes)
        now_s = self._began + seconds
        self._yielding.look(use.pids[1:], now_s)
        if use.memory_bytes > limits.memory_bytes:
            self._stop(JobEnd.OUT_OF_MEMORY, _memory(use.memory_bytes, limits.memory_bytes))
        elif use.tasks > MAX_TASKS:
            self._stop(
                JobEnd.KILLED, f"it started {use.tasks} processes and threads, {MAX_TASKS} are allowed"
            )
        elif seconds - self._yielding.paused_s(now_s) > limits.timeout_s:
            wanted = f"ran longer than its {limits.timeout_s:g} s and was stopped"
            self._stop(JobEnd.TIMED_OUT, f"the job {wanted}: give it more time (timeout=…), or less to do")

    def _look_at_output(self) -> None:
        size = size_of(self._output, self._scratch)
        if size > self._task.limits.output_bytes:
            self._stop(JobEnd.OUTPUT_TOO_LARGE, _output(self._task.limits.output_bytes))

    def _stop(self, end: JobEnd, error: str) -> None:
        if self._end is None:
            self._end = (end, error)
            self._kill()

    def _kill(self) -> None:
        """End the whole tree: the keeper does it, and when it does not answer, every process that was seen."""
        if self._process.returncode is not None:
            return
        with suppress(ProcessLookupError):
            os.kill(self._process.pid, signal.SIGTERM)
        deadline = time.monotonic() + 5
        while time.monotonic() < deadline:
            if os.waitid(os.P_PID, self._process.pid, os.WEXITED | os.WNOHANG | os.WNOWAIT):
                return
            time.sleep(0.01)
        seen = {*self._seen, *look(self._process.pid, exact_above_bytes=2**62).pids}
        for pid in sorted(seen, reverse=True):
            with suppress(ProcessLookupError, PermissionError):
                os.kill(pid, signal.SIGKILL)

    def _reap(self) -> tuple[int, float, int]:
        """Wait for the keeper; return its exit code, the CPU seconds and the peak memory of one process of the tree."""
        _, status, use = os.wait4(self._process.pid, 0)
        self._process.returncode = os.waitstatus_to_exitcode(status)
        unit = 1 if sys.platform == "darwin" else 1024
        return self._process.returncode, use.ru_utime + use.ru_stime, use.ru_maxrss * unit

    def _close(self) -> None:
        os.close(self._events)
        for stream in (self._process.stdin, self._process.stdout):
            if stream is not None:
                with suppress(OSError):
                    stream.close()

    def _result(self, status: int, cpu_seconds: float) -> JobResult:
        said = self._said
        if "unknown" in said:
            raise InvalidInput(f"{self._task.function!r} is no job function of this version of taut")
        if "refused" in said:
            raise Unavailable(f"{said['refused']}, and this installation runs no job without it")
        end, error = self._end or self._how_it_ended(status)
        if end is JobEnd.DONE:
            end, error = self._accept_output()
        held = tuple(str(name) for name in said.get("isolation", ()))
        return JobResult(
            end=end,
            value=said["value"] if end is JobEnd.DONE else {},
            error=error,
            error_code=str(said.get("code", "")) if end is JobEnd.RAISED else "",
            log=self._log.decode("utf-8", "replace"),
            seconds=time.monotonic() - self._began,
            usage={"paused_s": round(self._yielding.paused_s(time.monotonic()), 3)},
            cpu_seconds=cpu_seconds,
            peak_memory_bytes=self._peak,
            isolation=(*held, "clean-environment", "watched"),
        )

    def _how_it_ended(self, status: int) -> tuple[JobEnd, str]:
        said, limits = self._said, self._task.limits
        if isinstance(said.get("value"), dict):
            return JobEnd.DONE, ""
        if "memory" in said:
            return JobEnd.OUT_OF_MEMORY, _memory(None, limits.memory_bytes)
        if "size" in said:
            return JobEnd.OUTPUT_TOO_LARGE, _output(limits.output_bytes)
        if "raised" in said:
            return JobEnd.RAISED, str(said["raised"])
        number = -status if status < 0 else status - 128
        if number == signal.SIGXCPU:
            return JobEnd.TIMED_OUT, f"the job used more processor time than {limits.timeout_s:g} s allow"
        with suppress(ValueError):
            return JobEnd.KILLED, f"the job died from {signal.Signals(number).name}: see the end of its log"
        return JobEnd.KILLED, f"the job ended without a result (exit status {status}): see the end of its log"

    def _accept_output(self) -> tuple[JobEnd, str]:
        if size_of(self._output) > self._task.limits.output_bytes:
            return JobEnd.OUTPUT_TOO_LARGE, _output(self._task.limits.output_bytes)
        foreign = foreign_entries(self._output)
        if foreign:
            shutil.rmtree(self._output, ignore_errors=True)
            self._output.mkdir(parents=True, exist_ok=True)
            return (
                JobEnd.RAISED,
                f"the job left links or devices in its output ({', '.join(foreign[:5])}): refused",
            )
        return JobEnd.DONE, ""


def _memory(used: int | None, allowed: int) -> str:
    seen = f"used {used / 2**20:,.0f} MiB" if used else "asked for more memory than it may have"
    return f"the job {seen}; {allowed / 2**20:,.0f} MiB are allowed: give it more (memory=…), or use ctx.train_lazy"


def _output(allowed: int) -> str:
    return f"the job wrote more than the {allowed / 2**20:,.0f} MiB that are allowed, and was stopped"
