"""A server's TLS whose certificate, key and clients' authorities are swapped whole while it listens.

A context in use is never changed: `load_cert_chain` on a live one never drops an old authority. Each handshake is handed
the newest context by `sni_callback`, which OpenSSL also calls for clients that name no server. There are no tickets and
no session cache, since a resumed session would outlive the authority that was removed.
"""

from __future__ import annotations

import math
import ssl
from collections.abc import Callable
from datetime import datetime
from typing import Final, Literal, Protocol

from taut.core.errors import Conflict, InvalidInput, TautError
from taut.trust.tls.files import TlsFiles
from taut.trust.tls.material import Material, read_material
from taut.trust.tls.peers import is_trusted, peer_of

Seen = Literal["same", "renewed", "refused", "mended"]
"""What a look at the files found: nothing new; a new state, served from now on; one that is refused, said once while
it lasts; or, after a refusal, what is served already."""

_ALPN: Final = ("http/1.1",)


class Parts(Protocol):
    """The platform's own parts at the same listener: known by the server name that they ask for; see `taut.trust.svid`."""

    trouble: str

    def look(self) -> bool: ...
    def server_for(self, name: str | None) -> ssl.SSLContext | None: ...
    def owns(self, context: ssl.SSLContext) -> bool: ...
    def peer_until_s(self, connection: ssl.SSLObject) -> float: ...


class LiveTls:
    """One server's TLS. Not thread-safe but for `context`: one caller looks at a time.

    generation: grows by one with each state that is served. refusal: why the files as they lie there are not served.
    """

    def __init__(self, files: TlsFiles, *, now: Callable[[], datetime], parts: Parts | None = None) -> None:
        """Read the files. parts: served beside the public; then everybody is asked for a certificate, and may go without. Raises NotFound, Denied, InvalidInput as `read_material` does."""
        self.files: Final = files
        self._now: Final = now
        self.material = read_material(files, now=now())
        self._serving = _context_of(files, self.material)
        self.generation = 1
        self.refusal = ""
        self._doubt = ""
        self.parts: Final = parts
        self.context: Final = _bare(mutual=self.mutual)
        if parts is not None and not self.mutual:
            self.context.verify_mode = (
                ssl.CERT_OPTIONAL
            )  # OpenSSL takes it from here, whichever context is chosen
        self.context.sni_callback = self._choose

    @property
    def mutual(self) -> bool:
        """Whether clients must show a certificate."""
        return self.files.client_ca is not None

    def look(self, *, at_once: bool = False) -> Seen:
        """Read the files again and serve what they hold now, if all is well with it.

        Files are replaced one after the other, so that what does not fit is refused in words only when the next look
        finds the same fault; at_once: somebody says that they are complete. Until they are sound, the former state is
        served. Blocks on the disk for about a millisecond.
        """
        try:
            found = read_material(self.files, now=self._now())
            if found == self.material:
                self._doubt = ""
                mended, self.refusal = self.refusal, ""
                return "mended" if mended else "same"
            serving = _context_of(self.files, found)
        except TautError as error:
            return self._refuse(error.message, at_once=at_once)
        self.material, self._serving = found, serving
        self.generation += 1
        self.refusal = self._doubt = ""
        return "renewed"

    def peer_until_s(self, connection: ssl.SSLObject) -> float:
        """Return until when the client of a connection may speak, in seconds since 1970; 0.0 where it may not any more.

        A connection whose handshake was of a former state is judged by the present one. Endless for the public
        where it needs no certificate.
        """
        if self.parts is not None and self.parts.owns(connection.context):
            return self.parts.peer_until_s(connection)
        if not self.mutual:
            return math.inf
        peer = peer_of(connection)
        if peer is None:
            return 0.0
        if connection.context is not self._serving and not is_trusted(peer, self.material, now=self._now()):
            return 0.0
        return peer.not_after.timestamp()

    def _refuse(self, why: str, *, at_once: bool) -> Seen:
        if why == self.refusal:
            return "same"
        if why != self._doubt and not at_once:
            self._doubt = why
            return "same"
        self.refusal = why
        return "refused"

    @property
    def judges(self) -> bool:
        """Whether there are clients that `peer_until_s` may refuse."""
        return self.mutual or self.parts is not None

    def _choose(self, connection: ssl.SSLObject, name: str | None, _context: ssl.SSLContext) -> None:
        part = None if self.parts is None else self.parts.server_for(name)
        connection.context = self._serving if part is None else part


def _bare(*, mutual: bool) -> ssl.SSLContext:
    """Return a context without a certificate and without an authority: alone it can complete no handshake."""
    made = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    made.minimum_version = ssl.TLSVersion.TLSv1_3
    made.num_tickets = 0
    made.set_alpn_protocols(list(_ALPN))
    made.verify_mode = ssl.CERT_REQUIRED if mutual else ssl.CERT_NONE
    return made


def _context_of(files: TlsFiles, material: Material) -> ssl.SSLContext:
    """Build the context of what was read. Raises InvalidInput where OpenSSL refuses it, Conflict where it changed meanwhile."""
    made = _bare(mutual=bool(material.authorities))
    try:
        made.load_cert_chain(files.cert, files.key, password=_no_passphrase)
        if material.authorities:
            made.load_verify_locations(cadata=b"".join(material.authorities))
        # OpenSSL reads the files itself: what it got must be what was judged
        same = (files.cert.read_bytes(), files.key.read_bytes()) == (material.cert, material.key)
    except OSError as error:  # ssl.SSLError is one
        said = getattr(error, "reason", None) or error.strerror or type(error).__name__
        raise InvalidInput(f"the certificate {files.cert} with its key cannot be used ({said})") from error
    if not same:
        raise Conflict(f"{files.cert} and {files.key} change while they are read: they are read again")
    return made


def _no_passphrase() -> bytes:
    """OpenSSL would ask the terminal otherwise. What is judged before is not encrypted."""
    return b""
