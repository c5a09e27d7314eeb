"""Authorities, certificates and TLS clients for the flows."""

from __future__ import annotations

import http.client
import json
import math
import os
import socket
import ssl
import threading
import time
from collections.abc import Callable
from contextlib import suppress
from datetime import UTC, datetime
from pathlib import Path
from typing import Any
from weakref import WeakKeyDictionary

from cryptography import x509

from processes import LINGER_S
from taut.trust.tls import Issued, create_authority, issue_client, issue_server

HOSTS = ("localhost", "127.0.0.1")


class Certs:
    """A folder with `server.pem` and `server.key`, of an authority that can issue others. Also clients' files."""

    def __init__(self, folder: Path, *, days: int = 90) -> None:
        folder.mkdir(parents=True, exist_ok=True)
        self.folder = folder
        self.cert, self.key, self.ca = (folder / name for name in ("server.pem", "server.key", "ca.pem"))
        self.authority = create_authority("test", days=365, now=datetime.now(UTC))
        self.ca.write_bytes(self.authority.cert)
        self.renew(days=days)

    def issue(self, *, days: int = 90) -> Issued:
        return issue_server(self.authority, HOSTS, days=days, now=datetime.now(UTC))

    def renew(self, *, days: int = 90) -> str:
        """Put another pair in the place of the one that lies there, by renaming; return its serial."""
        issued = self.issue(days=days)
        replace(self.key, issued.key)
        replace(self.cert, issued.cert)
        return serial_of(issued)

    def client(self, name: str, authority: Issued | None = None) -> tuple[Path, Path]:
        """Write a client's certificate and key; return their paths."""
        issued = issue_client(authority or self.authority, name, days=30, now=datetime.now(UTC))
        cert, key = self.folder / f"{name}.pem", self.folder / f"{name}.key"
        replace(key, issued.key)
        replace(cert, issued.cert)
        return cert, key

    def words(self, client_ca: Path | None = None) -> tuple[str, ...]:
        """The arguments of a server."""
        named = ("--tls-cert", str(self.cert), "--tls-key", str(self.key))
        return named if client_ca is None else (*named, "--tls-client-ca", str(client_ca))

    def context(self, shown: tuple[Path, Path] | None = None) -> ssl.SSLContext:
        """A client's context."""
        made = ssl.create_default_context(cafile=self.ca)
        if shown is not None:
            made.load_cert_chain(*shown)
        return made


def replace(path: Path, data: bytes) -> None:
    temporary = path.with_name(f".{path.name}")
    descriptor = os.open(temporary, os.O_CREAT | os.O_TRUNC | os.O_WRONLY, 0o600)
    with open(descriptor, "wb") as file:
        file.write(data)
    temporary.replace(path)


def serial_of(issued: Issued) -> str:
    return f"{x509.load_pem_x509_certificate(issued.cert).serial_number:x}"


def served(port: int, context: ssl.SSLContext, *, name: str | None = "localhost") -> str:
    """Connect and return the serial of what the server shows. name: None sends no server name."""
    with socket.create_connection(("127.0.0.1", port), timeout=60) as raw:
        if name is None:
            context.check_hostname = False
        with context.wrap_socket(raw, server_hostname=name) as secured:
            assert secured.version() == "TLSv1.3"
            shown = secured.getpeercert(True)
            assert shown
            return f"{x509.load_der_x509_certificate(shown).serial_number:x}"


class TlsLoad:
    """Clients that ask without pause. kept: on one connection each; fresh: on a new one for each request.

    answered: request ids of 200; serials: what fresh connections were shown, with when; refused: statuses; broken: what
    went wrong on the wire; late: with requests that a busy machine sent later than a gateway that ends waits for them.
    """

    def __init__(
        self, port: int, bearer: str, context: Callable[[], ssl.SSLContext], body: bytes, path: str,
        *, kept: int = 2, fresh: int = 2,
    ) -> None:  # fmt: skip
        self._port, self._context, self._body, self._path = port, context, body, path
        self._headers = {"authorization": f"Bearer {bearer}", "content-type": "application/json"}
        self.answered: list[str] = []
        self.serials: list[tuple[float, str]] = []
        self.refused: list[tuple[int, bytes]] = []
        self.broken: list[str] = []
        self.late: list[str] = []
        self._asked_s: WeakKeyDictionary[http.client.HTTPSConnection, float] = WeakKeyDictionary()
        self.connections = 0
        self._stop = threading.Event()
        runs = [self._keep] * kept + [self._renew] * fresh
        self._threads = [threading.Thread(target=run) for run in runs]

    def __enter__(self) -> TlsLoad:
        for thread in self._threads:
            thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._stop.set()
        for thread in self._threads:
            thread.join(timeout=90)
            assert not thread.is_alive()

    def more(self, count: int = 60, *, within_s: float = 90.0) -> None:
        """Return when so many further requests were answered, and a fresh connection was shown something."""
        goal, shown, deadline = len(self.answered) + count, len(self.serials), time.monotonic() + within_s
        while len(self.answered) < goal or len(self.serials) <= shown:
            assert time.monotonic() < deadline, (
                len(self.answered),
                goal,
                self.broken[-3:],
                self.refused[-3:],
            )
            time.sleep(0.01)

    def _open(self) -> http.client.HTTPSConnection:
        self.connections += 1
        return http.client.HTTPSConnection("127.0.0.1", self._port, context=self._context(), timeout=60)

    def _keep(self) -> None:
        connection = self._open()
        while not self._stop.is_set():
            if not self._ask(connection):
                connection.close()
                connection = self._open()
                time.sleep(0.005)
        connection.close()

    def _renew(self) -> None:
        while not self._stop.is_set():
            connection = self._open()
            began = time.monotonic()
            if self._ask(connection):
                secured: Any = connection.sock
                shown = x509.load_der_x509_certificate(secured.getpeercert(True))
                self.serials.append((began, f"{shown.serial_number:x}"))
            connection.close()

    def _ask(self, connection: http.client.HTTPSConnection) -> bool:
        before_s, asked_s = self._asked_s.get(connection, time.monotonic()), math.inf
        try:
            connection.request("POST", self._path, self._body, self._headers)
            self._asked_s[connection] = asked_s = time.monotonic()
            response = connection.getresponse()
            body = response.read()
        except (OSError, http.client.HTTPException) as error:
            if not self._stop.is_set():
                paused_s = min(asked_s, time.monotonic()) - before_s
                (self.broken if paused_s < LINGER_S else self.late).append(f"{type(error).__name__}: {error}")
            return False
        if response.status == 200:
            self.answered.append(json.loads(body)["request_id"])
        else:
            self.refused.append((response.status, body))
        with suppress(AttributeError):
            return connection.sock is not None
        return False
