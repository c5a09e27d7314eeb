"""Web: asking another party's HTTP server, such as an identity provider's."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Protocol

import msgspec


class WebAnswer(msgspec.Struct, frozen=True, kw_only=True):
    """What a server said. body: whole, at most as many bytes as the adapter takes."""

    status: int
    body: bytes


class Web(Protocol):
    """A client of HTTPS.

    Guarantees: certificates are verified, redirects are not followed, proxies of the environment are not used, and an
    answer has a bound in bytes and in time.

    Errors: Unavailable when no whole answer came within the bounds. A status that says no is an answer, not an error.
    """

    def get(self, url: str) -> WebAnswer: ...

    def send(self, url: str, body: bytes, headers: Mapping[str, str], *, inside: bool) -> WebAnswer:
        """Post bytes to where somebody declared. inside: whether that is in a private network.

        Raises Denied for an address that nothing may be sent to, or in clear to another machine.
        """
        ...

    def post(self, url: str, fields: Mapping[str, str], *, basic: tuple[str, str] | None = None) -> WebAnswer:
        """Send a form. basic: user and password of HTTP's basic authentication, already encoded as RFC 6749 has it."""
        ...
