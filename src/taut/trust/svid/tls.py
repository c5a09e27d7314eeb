"""TLS 1.3 between parts: each shows its SVID and asks for the other's; contexts are made anew and swapped whole.

As for the public's TLS (`taut.trust.tls.live`): no tickets, no cache of sessions, since a resumed session would outlive what
it was made by; and a connection that stays open is judged again as identities are renewed, revoked and end.
"""

from __future__ import annotations

import ssl
from collections.abc import Callable
from datetime import datetime
from pathlib import Path
from typing import Final

from taut.core.errors import InvalidInput, TautError, Unauthenticated
from taut.trust.svid.held import Held, HeldFiles
from taut.trust.svid.read import Svid, read_svid

Judge = Callable[[Svid], None]
"""Raises Unauthenticated for a part that may not speak here, whatever its certificate says."""


class PartContext(ssl.SSLContext):
    """A context by which parts speak, so that a connection of one is known from the public's."""


class PartTls:
    """The TLS of one part, as a server and as a client. Not thread-safe but for its contexts: one caller looks at a time.

    judge: of the other side's identity, after TLS has verified it. version: what `judge` knows; as it changes, open connections
    are to be judged again.
    """

    def __init__(
        self,
        files: HeldFiles,
        *,
        now: Callable[[], datetime],
        judge: Judge,
        version: Callable[[], object] = lambda: None,
    ) -> None:
        """Read the identity. Raises what `HeldFiles.read` does."""
        self._files: Final = files
        self._now: Final = now
        self._judge: Final = judge
        self._version: Final = version
        self._judged = version()
        self.held: Held = files.read()
        self.server: ssl.SSLContext = server_context(files.own, self.held)
        self.client: ssl.SSLContext = client_context(files.own, self.held)
        self.context: Final = _bare()
        self.context.sni_callback = self._choose

    mutual: Final = True

    def look(self) -> bool:
        """Read the files again; return whether connections that are open are to be judged again. What cannot be used leaves what
        was there: raises a TautError that says why."""
        version = self._version()
        known, self._judged = self._judged == version, version
        if self._files.unchanged(self.held):
            return not known
        held = self._files.read()
        server, client = server_context(self._files.own, held), client_context(self._files.own, held)
        self.held, self.server, self.client = held, server, client
        return True

    def svid_of(self, connection: ssl.SSLObject) -> Svid:
        """Return who is at the other end. Raises Unauthenticated for nobody, or one who may not speak any more."""
        shown = connection.getpeercert(True)
        if not shown:
            raise Unauthenticated("parts show an identity: this connection has none")
        found = read_svid(shown)
        found.require_time(self._now())
        self._judge(found)
        return found

    def peer_until_s(self, connection: ssl.SSLObject) -> float:
        """Return until when the other end may speak, in seconds since 1970; 0.0 where it may not any more."""
        try:
            return self.svid_of(connection).not_after.timestamp()
        except TautError:
            return 0.0

    def _choose(self, connection: ssl.SSLObject, _name: str | None, _context: ssl.SSLContext) -> None:
        connection.context = self.server


def server_context(own: Path, held: Held) -> ssl.SSLContext:
    """Return a context that shows an identity and asks for one. Raises InvalidInput where OpenSSL refuses it."""
    made = _bare()
    _fill(made, own, held)
    return made


def client_context(own: Path, held: Held) -> ssl.SSLContext:
    """Return a context that shows an identity, and believes a server only by the name that its SPIFFE id has in TLS."""
    made = PartContext(ssl.PROTOCOL_TLS_CLIENT)
    made.minimum_version = ssl.TLSVersion.TLSv1_3
    _fill(made, own, held)
    return made


def _bare() -> PartContext:
    made = PartContext(ssl.PROTOCOL_TLS_SERVER)
    made.minimum_version = ssl.TLSVersion.TLSv1_3
    made.num_tickets = 0
    made.set_alpn_protocols(["http/1.1"])
    made.verify_mode = ssl.CERT_REQUIRED
    return made


def _fill(context: ssl.SSLContext, own: Path, held: Held) -> None:
    try:
        context.load_cert_chain(own, password=lambda: b"")
        context.load_verify_locations(cadata=b"".join(held.bundle.roots))
    except OSError as error:  # ssl.SSLError is one
        raise InvalidInput(f"the identity {own} cannot be used for TLS ({error})") from error
