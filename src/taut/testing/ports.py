"""Ports for servers that tests start."""

from __future__ import annotations

import socket
import sys

from taut.entrypoints.listening import listen_anywhere


def free_ports() -> int:
    """Return a port of 127.0.0.1 that is free, with the next two.

    No other caller gets it for as long as this process lives, on Linux, also where its server is stopped and started
    again; nor does the system give it to a connection to outside. Not guaranteed against programs that do not ask here.
    """
    while True:
        with listen_anywhere("127.0.0.1") as listener:
            port: int = listener.getsockname()[1]
        if _keep(port):
            return port


def _keep(port: int) -> bool:
    """Mark a port as ours until this process ends; say whether it was nobody's."""
    if sys.platform != "linux":
        return True
    mark = socket.socket(socket.AF_UNIX)
    try:
        mark.bind(f"\0taut-test-port-{port}")  # a name without a file: it goes with the process
    except OSError:
        mark.close()
        return False
    mark.detach()
    return True
