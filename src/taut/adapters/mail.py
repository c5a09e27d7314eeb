"""Mail on smtplib."""

from __future__ import annotations

import smtplib
import socket
import ssl
from email.message import EmailMessage
from typing import Any, Final
from urllib.parse import urlsplit

from taut.adapters.outbound import reachable
from taut.core.errors import InvalidInput, Unavailable
from taut.ports.mail import Letter, MailServer

_TIMEOUT_S: Final = 10.0
_PORTS: Final = {"smtps": 465, "smtp": 587}


class SmtpMail:
    """A new connection for each letter. tls: whom to believe."""

    def __init__(self, tls: ssl.SSLContext) -> None:
        self._tls: Final = tls

    def send(self, server: MailServer, letter: Letter) -> None:
        scheme, host, port = _place(server.url)
        address = reachable(host, port, inside=server.inside)
        message = EmailMessage()
        message["Message-ID"], message["From"], message["To"] = letter.id, letter.sender, ", ".join(letter.to)
        message["Subject"] = letter.subject
        message.set_content(letter.text)
        try:
            with self._connect(scheme, host, port, address) as connection:
                if server.user:
                    connection.login(server.user, server.password)
                refused = connection.send_message(message)
        except (smtplib.SMTPException, OSError, ValueError) as error:
            raise Unavailable(
                f"{host} does not take the letter ({_said(error)}): check the server"
            ) from error
        if refused:
            raise Unavailable(f"{host} refuses {', '.join(sorted(refused))}: check the addresses")

    def _connect(self, scheme: str, host: str, port: int, address: str) -> smtplib.SMTP:
        if scheme == "smtps":
            return _Tls(address, self._tls, host, port)
        connection = _Plain(address, host, port)
        try:
            connection.starttls(context=self._tls)
        except BaseException:
            connection.close()
            raise
        return connection


class _Plain(smtplib.SMTP):
    """Connects to an address that was looked at, and knows the server by its name all the same."""

    def __init__(self, address: str, host: str, port: int) -> None:
        self._address: Final = address
        super().__init__(host, port, timeout=_TIMEOUT_S)

    def _get_socket(self, _host: str, port: int, timeout: Any) -> socket.socket:
        return socket.create_connection((self._address, port), timeout)


class _Tls(_Plain):
    """As `_Plain`, with TLS from the first byte."""

    def __init__(self, address: str, tls: ssl.SSLContext, host: str, port: int) -> None:
        self._context: Final = tls
        super().__init__(address, host, port)

    def _get_socket(self, host: str, port: int, timeout: Any) -> socket.socket:
        return self._context.wrap_socket(super()._get_socket(host, port, timeout), server_hostname=host)


def _place(url: str) -> tuple[str, str, int]:
    parts = urlsplit(url)
    if parts.scheme not in _PORTS or not parts.hostname:
        raise InvalidInput(f"{url} is no mail server: write smtps://HOST:465 or smtp://HOST:587")
    return parts.scheme, parts.hostname, parts.port or _PORTS[parts.scheme]


def _said(error: Exception) -> str:
    """Name the failure without what was sent, which may hold a password."""
    if isinstance(error, smtplib.SMTPResponseException):
        return f"{error.smtp_code} {error.smtp_error!r}"[:200]
    return (str(error) or type(error).__name__)[:200]
