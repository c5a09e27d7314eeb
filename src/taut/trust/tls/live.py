"""A server's TLS whose certificate, key and clients' authorities are swapped whole while it listens.

A context in use is never changed: `load_cert_chain` on a live one never drops an old authority. Each handshake is handed
the newest context by `sni_callback`, which OpenSSL also calls for clients that name no server. There are no tickets and
no session cache, since a resumed session would outlive the authority that was removed.
"""

from __future__ import annotations

import ssl
from collections.abc import Callable
from datetime import datetime
from typing import Final, Literal

from taut.core.errors import Conflict, InvalidInput, TautError
from taut.trust.tls.files import TlsFiles
from taut.trust.tls.material import Material, read_material
from taut.trust.tls.peers import is_trusted, peer_of

Seen = Literal["same", "renewed", "refused", "mended"]
"""What a look at the files found: nothing new; a new state, served from now on; one that is refused, said once while
it lasts; or, after a refusal, what is served already."""

_ALPN: Final = ("http/1.1",)


class LiveTls:
    """One server's TLS. Not thread-safe but for `context`: one caller looks at a time.

    generation: grows by one with each state that is served. refusal: why the files as they lie there are not served.
    """

    def __init__(self, files: TlsFiles, *, now: Callable[[], datetime]) -> None:
        """Read the files. Raises NotFound, Denied, InvalidInput as `read_material` does."""
        self.files: Final = files
        self._now: Final = now
        self.material = read_material(files, now=now())
        self._serving = _context_of(files, self.material)
        self.generation = 1
        self.refusal = ""
        self._doubt = ""
        self.context: Final = _bare(mutual=self.mutual)
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

        A connection whose handshake was of a former state is judged by the present one. For servers with `mutual`.
        """
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

    def _choose(self, connection: ssl.SSLObject, _name: str | None, _context: ssl.SSLContext) -> None:
        connection.context = self._serving


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
