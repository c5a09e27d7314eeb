"""The identity of a home as its gateways use it: for parts that connect to them, and for those that they connect to."""

from __future__ import annotations

import ssl
from collections.abc import Callable
from datetime import datetime
from typing import Final

from taut.core.errors import NotFound, TautError, Unauthenticated, Unavailable
from taut.trust.identity.verifier import VerifierData
from taut.trust.svid.held import HeldFiles
from taut.trust.svid.ids import FIRST, SpiffeId, is_part_host, may_speak_to
from taut.trust.svid.read import Svid, require_kind
from taut.trust.svid.tls import PartContext, PartTls


class PartsHere:
    """The parts' side of a server's TLS; of a home that may get its identity later, and in which others renew it.

    data: of the snapshot that is served, by which bearers are verified; a revoked machine is known by it as well. None before the
    first, when only what TLS says counts. trouble: why the identity as it lies there is not used; empty where all is well.
    One caller looks at a time.
    """

    def __init__(
        self, files: HeldFiles, *, now: Callable[[], datetime], data: Callable[[], VerifierData | None]
    ) -> None:
        self._files: Final = files
        self._now: Final = now
        self._data: Final = data
        self._tls: PartTls | None = None
        self.trouble = ""

    def look(self) -> bool:
        """Read the files again; return whether open connections are to be judged again. Blocks on the disk. Raises nothing that is
        of this world: see `trouble`."""
        try:
            if self._tls is not None:
                changed = self._tls.look()
            elif changed := self._files.own.exists():
                self._tls = PartTls(self._files, now=self._now, judge=self._judge, version=self._version)
        except (TautError, OSError) as error:
            self.trouble = str(error)
            return False
        self.trouble = ""
        return changed

    def server_for(self, name: str | None) -> ssl.SSLContext | None:
        """Return what is shown to one who asks for a part by this name; None to the public."""
        return self._tls.server if self._tls is not None and is_part_host(name) else None

    def owns(self, context: ssl.SSLContext) -> bool:
        """Whether a connection with this context is one between parts."""
        return isinstance(context, PartContext)

    def peer_until_s(self, connection: ssl.SSLObject) -> float:
        """Return until when a part may speak, in seconds since 1970; 0.0 where it may not any more."""
        return 0.0 if self._tls is None else self._tls.peer_until_s(connection)

    def client_for(self, machine: str) -> tuple[ssl.SSLContext, str]:
        """Return the context by which a machine is asked, empty for the first, and the name that TLS asks it for.

        Raises Unavailable where this home has no identity.
        """
        if self._tls is None:
            raise Unavailable(
                f"{self._files.folder} holds no identity by which other machines could be asked yet"
            )
        domain = self._tls.held.svid.id.domain
        who = (
            SpiffeId(domain=domain, kind="machine", name=machine)
            if machine
            else SpiffeId(domain=domain, kind="control", name=FIRST)
        )
        return self._tls.client, who.host

    def _judge(self, shown: Svid) -> None:
        """Judge by what the snapshot says. Raises Unauthenticated."""
        if self._tls is None:
            raise NotFound("there is no identity here by which another could be judged")
        own = self._tls.held.svid.id
        require_kind(shown.id, own.domain, *may_speak_to(own.kind))
        data, name = self._data(), shown.id.name
        if data is None or shown.id.kind != "machine":
            return
        if name in data.disabled or shown.issued_at.timestamp() < data.tokens_from_s.get(name, 0.0):
            raise Unauthenticated(
                f"machine {name!r} was revoked: it is invited again with `taut machine invite`"
            )

    def _version(self) -> int:
        data = self._data()
        return -1 if data is None else data.version
