"""The main of a job's process: confine, run one named function, tell how it went.

Three processes, so that nothing of a job outlives it: the keeper (started by the Jobs adapter, runs none of the job's
code), the init of the job's process namespace (unkillable from inside; its death is the death of everything inside),
and the worker, which gives up its rights and calls the function. Where there is no process namespace the keeper
adopts and ends what is left over.

It reads one JSON line from standard input, whose end afterwards means that the caller is gone, and writes events as
JSON lines to the descriptor that its argument names.
"""

from __future__ import annotations

import contextlib
import errno
import faulthandler
import importlib
import json
import os
import random
import re
import select
import signal
import sys
import traceback
from pathlib import Path
from types import FrameType
from typing import IO, Any, Final, NoReturn

import msgspec

from taut.bootstrap.sandbox import (
    Rules,
    adopt_orphans,
    confine,
    die_with_parent,
    enter_namespaces,
    prepare_mounts,
)
from taut.core.errors import TautError, Unavailable
from taut.core.room import is_full
from taut.ports.jobs import JobContext, Limits

_FUNCTION: Final = re.compile(r"(taut(?:\.[a-z][a-z0-9_]*)*\.job):([a-z][a-z0-9_]*)")
_VALUE_BYTES_MAX: Final = 4 * 2**20


class Order(msgspec.Struct, frozen=True, kw_only=True):
    """What the adapter tells the keeper."""

    function: str
    arguments: dict[str, Any]
    inputs: dict[str, str]
    output: str
    scratch: str
    limits: Limits
    seed: int
    rules: Rules
    require: tuple[str, ...] = ()  # names that must hold, or the function is not run


def main(argv: list[str]) -> int:
    """Keep one job: start it confined, end it when told or when the caller is gone, pass its exit status on."""
    events = int(argv[1])
    order = msgspec.json.decode(_read_line(0), type=Order)
    entered = enter_namespaces()
    die_with_parent(signal.SIGTERM)
    adopt_orphans()
    wake_read, wake_write = os.pipe()
    for descriptor in (wake_read, wake_write):
        os.set_blocking(descriptor, False)
    told: list[int] = []
    signal.signal(signal.SIGTERM, lambda number, _frame: told.append(number))
    signal.signal(signal.SIGCHLD, _nothing)
    signal.set_wakeup_fd(wake_write, warn_on_full_buffer=False)
    go_read, go_write = os.pipe()
    child = os.fork()
    if child == 0:
        signal.set_wakeup_fd(-1)
        for descriptor in (wake_read, wake_write, go_write):
            os.close(descriptor)
        _inside(order, entered, events, go_read)
    os.close(go_read)
    os.close(events)
    os.write(go_write, b"g")
    status = _keep(child, wake_read, told)
    _end_orphans()
    return 128 + os.WTERMSIG(status) if os.WIFSIGNALED(status) else os.WEXITSTATUS(status)


def _nothing(_number: int, _frame: FrameType | None) -> None:
    """Wake the loop; the signal itself needs no work."""


def _read_line(descriptor: int) -> bytes:
    line = bytearray()
    while not line.endswith(b"\n"):
        part = os.read(descriptor, 65536)
        if not part:
            sys.exit(3)  # the caller died before it had said what to do
        line += part
    return bytes(line)


def _keep(child: int, wake: int, told: list[int]) -> int:
    """Wait for the child; kill it when the caller says so or is gone. Returns its wait status."""
    killed = False
    while True:
        done, status = os.waitpid(child, os.WNOHANG)
        if done:
            return status
        ready, _, _ = select.select([wake] if killed else [wake, 0], [], [], 1.0)
        if wake in ready:
            with contextlib.suppress(BlockingIOError):
                os.read(wake, 512)
        if not killed and (told or (0 in ready and not os.read(0, 4096))):
            os.kill(child, signal.SIGKILL)
            killed = True


def _end_orphans() -> None:
    """Kill what the job left behind, until nothing is left. With a process namespace there is never anything."""
    for _ in range(1000):
        children = _children(os.getpid())
        for pid in children:
            with contextlib.suppress(ProcessLookupError, PermissionError):
                os.kill(pid, signal.SIGKILL)
        try:
            os.waitpid(-1, 0 if children else os.WNOHANG)
        except ChildProcessError:
            return
        except OSError:
            return


def _children(pid: int) -> list[int]:
    try:
        return [int(text) for text in Path(f"/proc/{pid}/task/{pid}/children").read_text().split()]
    except OSError:
        return []


def _inside(order: Order, entered: tuple[str, ...], events: int, go: int) -> NoReturn:
    """Be the init of the process namespace, where there is one, and start the worker in it; never returns."""
    die_with_parent()
    if os.read(go, 1) != b"g":
        os._exit(3)  # the keeper died before its death could reach us
    os.close(go)
    signal.signal(signal.SIGTERM, signal.SIG_DFL)
    signal.signal(signal.SIGCHLD, signal.SIG_DFL)
    if "pidns" not in entered:
        _work(order, entered, events)
    entered += prepare_mounts(shm_bytes=order.limits.memory_bytes // 2, max_tasks=order.rules.max_tasks)
    worker = os.fork()
    if worker == 0:
        _work(order, entered, events)
    os.close(events)
    while True:
        pid, status = os.waitpid(-1, 0)
        if pid == worker:
            os._exit(128 + os.WTERMSIG(status) if os.WIFSIGNALED(status) else os.WEXITSTATUS(status))


def _work(order: Order, entered: tuple[str, ...], events: int) -> NoReturn:
    """Give up every right and run the function; never returns."""
    code = 1
    try:
        with os.fdopen(events, "wb", buffering=0) as stream:
            code = _run(order, entered, stream)
        sys.stdout.flush()
        sys.stderr.flush()
    finally:
        os._exit(code)  # no atexit handler, no thread of the job's may keep the process


def _run(order: Order, entered: tuple[str, ...], stream: IO[bytes]) -> int:
    os.setsid()
    die_with_parent()
    null = os.open(os.devnull, os.O_RDONLY)
    os.dup2(null, 0)
    os.close(null)
    faulthandler.enable()
    held = confine(order.rules, entered=entered)
    _tell(stream, {"isolation": held})
    lacking = [name for name in order.require if not any(one.startswith(name) for one in held)]
    if lacking:
        _tell(stream, {"refused": f"this machine does not offer {', '.join(lacking)}"})
        return 0
    try:
        _tell(stream, {"value": _call(order, held, stream)})
    except MemoryError:
        traceback.print_exc()
        _tell(stream, {"memory": True})
    except OSError as error:
        traceback.print_exc()
        _tell(stream, {"size": True} if error.errno == errno.EFBIG else _raised(_named(error)))
    except SystemExit as error:
        _tell(
            stream, {"raised": f"the function called exit({error.code!r}) instead of returning", "code": ""}
        )
    except BaseException as error:  # noqa: BLE001 - whatever a builder's function raises is a result, not our error
        traceback.print_exc()
        _tell(stream, _raised(_named(error)))
    return 0


def _call(order: Order, held: tuple[str, ...], stream: IO[bytes]) -> dict[str, object]:
    matched = _FUNCTION.fullmatch(order.function)
    try:
        function = getattr(importlib.import_module(matched[1]), matched[2]) if matched else None
    except ModuleNotFoundError as error:
        if matched and error.name and matched[1].startswith(error.name):
            function = None
        else:
            raise
    except AttributeError:
        function = None
    if function is None:
        _tell(stream, {"unknown": order.function})
        return {}
    random.seed(order.seed)
    context = JobContext(
        seed=order.seed,
        limits=order.limits,
        isolation=held,
        progress=lambda message, fraction: _tell(
            stream, {"progress": str(message)[:500], "fraction": float(fraction)}
        ),
    )
    inputs = {name: Path(path) for name, path in order.inputs.items()}
    value = function(order.arguments, inputs, Path(order.output), context)
    return _checked(value)


def _checked(value: object) -> dict[str, object]:
    if not isinstance(value, dict):
        raise TypeError(f"the function returned {type(value).__name__}, not a dictionary of JSON values")
    try:
        text = json.dumps(value, allow_nan=False)
    except (TypeError, ValueError) as error:
        raise TypeError(f"the function returned what JSON cannot carry: {error}") from error
    if len(text) > _VALUE_BYTES_MAX:
        raise TypeError(
            f"the function returned {len(text)} bytes of JSON, {_VALUE_BYTES_MAX} are allowed: leave a file"
        )
    return value


def _named(error: BaseException) -> BaseException:
    if not is_full(error):
        return error
    return Unavailable(
        "there is no room left on the disk for what the job writes: free some space and try again"
    )


def _raised(error: BaseException) -> dict[str, object]:
    if isinstance(error, TautError):
        return {"raised": error.message, "code": error.code}
    frames = traceback.extract_tb(error.__traceback__)
    where = f" ({Path(frames[-1].filename).name}, line {frames[-1].lineno})" if frames else ""
    return {"raised": f"{type(error).__name__}: {error}"[:4000] + where, "code": ""}


def _tell(stream: IO[bytes], event: dict[str, object]) -> None:
    stream.write(json.dumps(event).encode() + b"\n")


if __name__ == "__main__":
    sys.exit(main(sys.argv))
