"""The process that gateways are forked from: `python -P -m taut.entrypoints.gateway_zygote --home DIR --fd N`.

It has imported what a gateway runs, which is most of what a start takes. It holds no keys, opens nothing and answers nobody but
its supervisor, with which it ends. A fork is a gateway as every other, in a session of its own, whose parent is the supervisor.
"""

from __future__ import annotations

import argparse
import contextlib
import ctypes
import errno
import gc
import json
import os
import signal
import socket
import sys
from pathlib import Path
from typing import Any, Final, NoReturn

from taut.bootstrap.artifacts import artifacts_digest
from taut.bootstrap.config import Config
from taut.bootstrap.gateway import open_online_reader
from taut.bootstrap.sandbox import die_with_parent
from taut.core.errors import TautError
from taut.core.ort import load_onnxruntime
from taut.entrypoints import gateway_main
from taut.entrypoints.children import filled
from taut.entrypoints.nursery import BORN, DESCRIPTORS_MAX, ORDER_MAX, READY

_ARGUMENTS: Final = (
    45  # of /proc/PID/stat behind the name: where the arguments begin, and behind it where they end
)
_MODULE: Final = gateway_main.__name__


def main(argv: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(
        prog="taut-gateway-zygote", description="forks gateways for one supervisor"
    )
    parser.add_argument("--home", type=Path, required=True)
    parser.add_argument("--fd", type=int, required=True, help="the supervisor's end of the door, inherited")
    parser.add_argument("room", nargs="?", help="room for the names of what is forked")
    arguments = parser.parse_args(argv)
    die_with_parent(signal.SIGKILL)
    entitle(sys.orig_argv[:-1])
    _import_the_rest(arguments.home)
    source = artifacts_digest()  # of what was imported: what lies on the disk later is not what forks run
    gc.collect()
    gc.freeze()  # what is imported now is shared with every gateway for as long as nobody writes to it
    with socket.socket(fileno=arguments.fd) as door:
        door.send(READY)
        while True:
            data, descriptors, _, _ = socket.recv_fds(door, ORDER_MAX, DESCRIPTORS_MAX)
            if not data:
                return 0
            _fork(door, json.loads(data), descriptors, source)


def _import_the_rest(home: Path) -> None:
    """Import what a gateway of this home imports only once it knows its settings."""
    load_onnxruntime()
    with contextlib.suppress(TautError), open_online_reader(Config.load(home, os.environ)):
        pass  # settings that are wrong are each gateway's own to refuse, in its own log


def _fork(door: socket.socket, order: dict[str, Any], descriptors: list[int], source: str) -> None:
    """Fork twice, so that what is born is an orphan, and the kernel gives it to the supervisor."""
    named: dict[str, int] = dict(zip(order["names"], descriptors, strict=True))
    failed = 0
    try:
        between = os.fork()
        if between == 0:
            _fork_again(door, order["words"], named, source)
        _, status = os.waitpid(between, 0)
        failed = os.waitstatus_to_exitcode(status)
    except OSError as error:
        failed = error.errno or errno.EAGAIN
    if failed:
        with contextlib.suppress(OSError):
            os.write(named["ready"], BORN.pack(-abs(failed)))
    for descriptor in descriptors:
        os.close(descriptor)


def _fork_again(door: socket.socket, words: list[str], named: dict[str, int], source: str) -> NoReturn:
    code = errno.EAGAIN
    try:
        if os.fork():
            code = 0
        else:
            _be_gateway(door, words, named, source)
    finally:
        os._exit(code)


def _be_gateway(door: socket.socket, words: list[str], named: dict[str, int], source: str) -> NoReturn:
    """Be the gateway that its words describe, and end the process; never returns."""
    code: int | str | None = 1
    try:
        os.setsid()
        door.close()
        null = os.open(os.devnull, os.O_RDONLY)
        for target, found in enumerate((null, named["log"], named["log"])):
            os.dup2(found, target)
        for found in (null, named.pop("log")):
            os.close(found)
        command = filled(words, named)
        entitle(command)
        os.write(named["ready"], BORN.pack(os.getpid()))  # fails where the supervisor waits no more
        code = gateway_main.main(command[command.index(_MODULE) + 1 :], source=source)
    except SystemExit as error:
        code = error.code
    except BaseException:  # noqa: BLE001 - a fork must never go on as its parent
        sys.excepthook(*sys.exc_info())
    finally:
        with contextlib.suppress(OSError, ValueError):
            sys.stdout.flush()
            sys.stderr.flush()
        os._exit(code if isinstance(code, int) else 1)


def entitle(words: list[str]) -> None:
    """Have this process stand in the list of processes as what `words` run, as far as there is room."""
    try:
        fields = Path("/proc/self/stat").read_text().rpartition(")")[2].split()
        begin, end = int(fields[_ARGUMENTS]), int(fields[_ARGUMENTS + 1])
    except (OSError, ValueError, IndexError):
        return  # where the kernel does not tell, it stands there as what forked it
    room = end - begin
    if begin and room > 1:
        text = b"\0".join(os.fsencode(word) for word in words)[: room - 1]
        ctypes.memset(begin, 0, room)
        ctypes.memmove(begin, text, len(text))


if __name__ == "__main__":
    sys.exit(main())
