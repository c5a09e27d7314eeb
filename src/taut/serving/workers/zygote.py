"""The zygote: a warm process that has imported the runtime and forks a worker in milliseconds when told to.

It speaks with one gateway over one socket: a request brings three descriptors (the worker's socket, the model's file,
the order), the answer is the new process's number. It holds no keys and no model, opens nothing, and ends with its
gateway.
"""

from __future__ import annotations

import contextlib
import os
import random
import signal
import socket
import struct
import sys
import time
import traceback
from collections.abc import Callable
from typing import Final

import msgspec
import numpy as np

from taut.serving.placement import Host
from taut.serving.workers import wire
from taut.serving.workers.worker import Order, serve

REQUEST: Final = struct.Struct("<QQ")  # bytes of the model, bytes of the order
ANSWER: Final = struct.Struct("<i")
_GRACE_S: Final = 0.5
Confine = Callable[[Order], object]
"""Confines the process that calls it, before it looks at a model."""


def run(door: socket.socket, confine: Confine, host: Host, *, build: str = "") -> None:
    """Fork workers as they are asked for until the gateway closes the door; then end those that are left.

    host: on which workers load models; nothing is opened on it before they do. A worker sees for itself that its gateway is
    gone, unless its model hangs. build: digest of what this process runs.
    """
    living: set[int] = set()
    signal.signal(signal.SIGCHLD, lambda _number, _frame: _reap(living))
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # a terminal's Ctrl-C is for the supervisor
    while True:
        try:
            data, descriptors, _, _ = socket.recv_fds(door, REQUEST.size, 3)
        except ConnectionResetError:
            data, descriptors = b"", []
        if not data:
            _end(living)
            return
        if len(data) != REQUEST.size or len(descriptors) != 3:
            raise EOFError("the gateway sent no request for a worker")
        pid = os.fork()
        if pid == 0:
            model_bytes, order_bytes = REQUEST.unpack(data)
            _become_worker(door, descriptors, (model_bytes, order_bytes), confine, host, build)
        living.add(pid)
        for descriptor in descriptors:
            os.close(descriptor)
        door.sendall(ANSWER.pack(pid))


def _become_worker(
    door: socket.socket,
    descriptors: list[int],
    sizes: tuple[int, int],
    confine: Confine,
    host: Host,
    build: str,
) -> None:
    """Serve as a worker and end the process; never returns."""
    code = 1
    try:
        door.close()
        signal.signal(signal.SIGCHLD, signal.SIG_DFL)
        random.seed()  # a fork inherits the state: no two workers may draw the same
        sock = socket.socket(fileno=descriptors[0])
        model = wire.read_file(descriptors[1], sizes[0])
        order = msgspec.json.decode(wire.read_file(descriptors[2], sizes[1]), type=Order)
        for descriptor in descriptors[1:]:
            os.close(descriptor)
        np.random.seed()
        confine(order)
        if order.signature.form == "code":
            _be_quiet()
        serve(sock, model, order, host, build=build)
        code = 0
    except (BrokenPipeError, ConnectionResetError):
        code = 0  # the gateway ended
    except BaseException:  # noqa: BLE001 - a fork must never go on as its parent
        with contextlib.suppress(OSError):
            traceback.print_exc(file=sys.stderr)
    finally:
        os._exit(code)


def _be_quiet() -> None:
    """Let what a builder's code prints go nowhere: it must not fill the gateway's log, and the socket is not for it."""
    null = os.open(os.devnull, os.O_RDWR)
    for descriptor in range(3):
        os.dup2(null, descriptor)
    os.close(null)


def _reap(living: set[int]) -> None:
    with contextlib.suppress(ChildProcessError):
        while pid := os.waitpid(-1, os.WNOHANG)[0]:
            living.discard(pid)


def _end(living: set[int]) -> None:
    until_s = time.monotonic() + _GRACE_S
    while living and time.monotonic() < until_s:
        time.sleep(0.01)
    for pid in tuple(living):
        with contextlib.suppress(ProcessLookupError):
            os.kill(pid, signal.SIGKILL)
