"""Job functions for tests: one that behaves, and many that do not."""

# ruff: noqa: ARG001 - every job function has the same four parameters
from __future__ import annotations

import contextlib
import ctypes
import os
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path

from taut.core.errors import InvalidInput
from taut.ports.jobs import JobContext

Json = dict[str, object]


def echo(arguments: Json, inputs: dict[str, Path], output: Path, context: JobContext) -> Json:
    """Give the arguments back, copy every input into the output, and tell progress."""
    context.progress("reading", 0.5)
    for name, path in inputs.items():
        (output / name).write_bytes(path.read_bytes())
    print("echo was here")  # noqa: T201 - a job's output is its log
    context.progress("done", 1.0)
    return {"arguments": arguments, "seed": context.seed, "hash": hash("taut")}


def ticks(arguments: Json, inputs: dict[str, Path], output: Path, context: JobContext) -> Json:
    """Count in a file of the output, in a process of its own, until a file of the inputs is there to say that it is enough."""
    if os.fork() == 0:
        number = 0
        while not (inputs["told"] / "enough").exists():
            number += 1
            (output / "ticks").write_text(str(number))
            time.sleep(0.01)
        os._exit(0)
    os.wait()
    return {"ticks": int((output / "ticks").read_text())}


def raises(arguments: Json, inputs: dict[str, Path], output: Path, context: JobContext) -> Json:
    if arguments.get("kind") == "taut":
        raise InvalidInput("column 'carier' is unknown: did you mean 'carrier'?")
    raise ValueError("the builder's function broke")


def returns(arguments: Json, inputs: dict[str, Path], output: Path, context: JobContext) -> Json:
    """Return something that a dictionary of JSON is not."""
    values: dict[str, object] = {"object": {"value": object()}, "number": 7, "nan": {"value": float("nan")}}
    return values[str(arguments["kind"])]  # type: ignore[return-value]  # the point of it


def sleeps(arguments: Json, inputs: dict[str, Path], output: Path, context: JobContext) -> Json:
    """Start children that ignore signals and leave the session, then sleep for ever."""
    (output / "pids").write_text("")
    for _ in range(2):
        child = os.fork()
        if child == 0:
            os.setsid()
            for number in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP):
                signal.signal(number, signal.SIG_IGN)
            marker = output / f"beat-{os.getpid()}"
            while True:
                marker.write_text(str(time.time()))
                time.sleep(0.05)
    while True:
        time.sleep(1)


def daemonises(arguments: Json, inputs: dict[str, Path], output: Path, context: JobContext) -> Json:
    """Return, but leave a process behind that goes on writing."""
    if os.fork() == 0:
        os.setsid()
        if os.fork() == 0:
            while True:
                (output / "beat").write_text(str(time.time()))
                time.sleep(0.02)
        os._exit(0)
    time.sleep(0.2)
    return {}


def eats_memory(arguments: Json, inputs: dict[str, Path], output: Path, context: JobContext) -> Json:
    if arguments.get("at_once"):
        return {"length": len(bytearray(64 * 2**30))}
    held = []
    while True:
        held.append(bytearray(os.urandom(1) * (8 * 2**20)))
        time.sleep(0.005)


def fills_the_disk(arguments: Json, inputs: dict[str, Path], output: Path, context: JobContext) -> Json:
    """Write many files, each below the limit."""
    for number in range(10_000):
        (output / str(number)).write_bytes(b"x" * 2**20)
        time.sleep(0.01)
    return {}


def writes_one_large_file(
    arguments: Json, inputs: dict[str, Path], output: Path, context: JobContext
) -> Json:
    with (output / "large").open("wb") as file:
        for _ in range(10_000):
            file.write(b"x" * 2**20)
    return {}


def shouts(arguments: Json, inputs: dict[str, Path], output: Path, context: JobContext) -> Json:
    for number in range(50_000):
        sys.stdout.write(f"line {number} {'x' * 60}\n")
    sys.stderr.write("the last line\n")
    return {}


def crashes(arguments: Json, inputs: dict[str, Path], output: Path, context: JobContext) -> Json:
    if arguments.get("kind") == "exit":
        os._exit(7)
    ctypes.string_at(0)
    return {}


def forks_without_end(arguments: Json, inputs: dict[str, Path], output: Path, context: JobContext) -> Json:
    """A fork bomb that reports how far it came."""
    made = 0
    try:
        while made < 20_000:
            if os.fork() == 0:
                time.sleep(600)
                os._exit(0)
            made += 1
    except OSError:
        (output / "made").write_text(str(made))
        return {"made": made}
    return {"made": made}


def spins_threads(arguments: Json, inputs: dict[str, Path], output: Path, context: JobContext) -> Json:
    threads = [threading.Thread(target=sum, args=(range(100_000),)) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    return {"cpus": len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else None}


def leaves_a_link(arguments: Json, inputs: dict[str, Path], output: Path, context: JobContext) -> Json:
    try:
        (output / "model.onnx").symlink_to(str(arguments["target"]))
    except OSError as error:
        return {"refused": str(error)}
    return {}


def forges(arguments: Json, inputs: dict[str, Path], output: Path, context: JobContext) -> Json:
    """Write `arguments["lines"]` to every pipe that this process holds, its channel of events among them."""
    lines = arguments["lines"]
    assert isinstance(lines, list)
    for name in os.listdir("/proc/self/fd"):
        with contextlib.suppress(OSError):
            if int(name) > 2 and os.readlink(f"/proc/self/fd/{name}").startswith("pipe:"):
                for line in lines:
                    os.write(int(name), f"{line}\n".encode("utf-8", "surrogateescape"))
    return {"done": True}


def attempts(arguments: Json, inputs: dict[str, Path], output: Path, context: JobContext) -> Json:
    """Try what a job must not be able to do; report for each whether and how it was refused."""
    tries: dict[str, Callable[[], object]] = {
        "read_file": lambda: Path(str(arguments["secret_file"])).read_text(),
        "list_folder": lambda: os.listdir(Path(str(arguments["secret_file"])).parent),
        "write_outside": lambda: Path(str(arguments["outside"])).write_text("was here"),
        "overwrite_input": lambda: inputs["data"].write_text("changed"),
        "write_code": lambda: Path(__file__).with_name("planted.py").write_text("evil"),
        "connect_tcp": lambda: socket.create_connection(
            ("127.0.0.1", int(str(arguments["port"]))), timeout=2
        ),
        "connect_unix": lambda: _connect_unix(str(arguments["socket"])),
        "send_udp": lambda: socket.socket(socket.AF_INET, socket.SOCK_DGRAM).sendto(b"x", ("192.0.2.1", 53)),
        "kill_parent": lambda: os.kill(int(str(arguments["pid"])), signal.SIGKILL),
        "read_parent_environment": lambda: _environment_of(int(str(arguments["pid"]))),
        "ptrace": lambda: _ptrace(int(str(arguments["pid"]))),
        "outlive": _clear_death_signal,
        "new_user_namespace": lambda: _call("unshare", 0x10000000),
        "run_shell_on_secret": lambda: subprocess.run(
            ["/bin/cat", str(arguments["secret_file"])], check=True, capture_output=True
        ),
    }
    refused: dict[str, object] = {}
    for name, attempt in tries.items():
        try:
            attempt()
            refused[name] = ""
        except (OSError, subprocess.CalledProcessError) as error:
            refused[name] = str(error) or type(error).__name__
    return {"refused": refused, "environment": dict(os.environ), "isolation": list(context.isolation)}


def _connect_unix(path: str) -> None:
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as client:
        client.connect(path)


def _environment_of(pid: int) -> bytes:
    data = Path(f"/proc/{pid}/environ").read_bytes()
    if b"TAUT_TEST_SECRET" not in data:
        raise OSError("another process's environment")
    return data


def _ptrace(pid: int) -> None:
    _call("ptrace", 16, pid, 0, 0)


def _clear_death_signal() -> None:
    _call("prctl", 1, 0, 0, 0, 0)


def _call(name: str, *arguments: int) -> None:
    libc = ctypes.CDLL(None, use_errno=True)
    if getattr(libc, name)(*arguments) < 0:
        raise OSError(ctypes.get_errno(), os.strerror(ctypes.get_errno()))
