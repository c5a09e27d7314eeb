"""A way to a server that can be shut: for those behind it, the server is then away."""

from __future__ import annotations

import contextlib
import socket
import threading
from types import TracebackType

from taut.testing.ports import free_ports


class Door:
    """Passes connections on from a port of 127.0.0.1 to `port` of `host` while it is open.

    Shut, it breaks the connections that there are and refuses new ones.
    """

    def __init__(self, host: str, port: int) -> None:
        self._target = (host, port)
        self._guard = threading.Lock()
        self._passing: set[socket.socket] = set()
        self._listener: socket.socket | None = None
        self.port = free_ports()
        self.open()

    def open(self) -> None:
        """Listen, on the same port each time."""
        self._listener = listener = socket.create_server(("127.0.0.1", self.port))
        threading.Thread(target=self._accept, args=(listener,), daemon=True).start()

    def shut(self) -> None:
        listener, self._listener = self._listener, None
        if listener is not None:
            with contextlib.suppress(OSError):
                listener.shutdown(socket.SHUT_RDWR)  # wakes the thread that accepts
            listener.close()
        with self._guard:
            for one in self._passing:
                with contextlib.suppress(OSError):
                    one.shutdown(socket.SHUT_RDWR)

    def __enter__(self) -> Door:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.shut()

    def _accept(self, listener: socket.socket) -> None:
        while True:
            try:
                near, _ = listener.accept()
            except OSError:
                return
            try:
                far = socket.create_connection(self._target, timeout=60)
            except OSError:
                near.close()
                continue
            far.settimeout(None)
            with self._guard:
                self._passing |= {near, far}
            ends = threading.Barrier(2)
            for one, other in ((near, far), (far, near)):
                threading.Thread(target=self._pass, args=(one, other, ends), daemon=True).start()

    def _pass(self, one: socket.socket, other: socket.socket, ends: threading.Barrier) -> None:
        with contextlib.suppress(OSError):
            while data := one.recv(1 << 16):
                other.sendall(data)
        with contextlib.suppress(OSError):
            other.shutdown(socket.SHUT_WR)
        ends.wait()  # both directions have ended: neither socket is in use
        with self._guard:
            self._passing.discard(one)
        one.close()
