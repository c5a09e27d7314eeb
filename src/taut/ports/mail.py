"""Mail: handing a letter to a mail server."""

from __future__ import annotations

from typing import Protocol

import msgspec


class MailServer(msgspec.Struct, frozen=True, kw_only=True):
    """Where letters are handed in.

    url: `smtps://HOST:465`, TLS from the first byte, or `smtp://HOST:587`, TLS before anything is said. user, password: empty
    for a server that asks for none. inside: whether it is in a private network.
    """

    url: str
    user: str = ""
    password: str = ""
    inside: bool = False


class Letter(msgspec.Struct, frozen=True, kw_only=True):
    """A letter in plain text. id: by which a server or a reader knows it again when it is sent twice."""

    id: str
    sender: str
    to: tuple[str, ...]
    subject: str
    text: str


class Mail(Protocol):
    """A client of SMTP.

    Guarantees: the server's certificate is verified, and nothing is said before it was; a letter that `send` returned for was
    taken by the server for every receiver. At least once: where the answer is lost the letter may come twice, under one id.

    Errors: Denied for an address that nothing may be sent to, Unavailable for everything else.
    """

    def send(self, server: MailServer, letter: Letter) -> None: ...
