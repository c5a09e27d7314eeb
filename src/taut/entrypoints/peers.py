"""Who is at the other end: of a Unix socket, as the kernel says; of a connection between parts, as TLS proved."""

from __future__ import annotations

import asyncio
import os
import socket
import struct
import sys
from typing import Any, Final, NamedTuple

from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol

from taut.core.errors import TautError, Unauthenticated
from taut.trust.svid import Svid, read_svid


class Peer(NamedTuple):
    """Stands where an address stands otherwise, in `scope["client"]`.

    It is the type that proves it: a header can make uvicorn put any text where the address is, but never this.
    """

    address: str
    uid: int


class _Address(NamedTuple):
    address: str
    port: int


class Part(_Address):
    """As `Peer`, for a part of the platform; still an address, as uvicorn writes it into its log.

    svid: what it showed, which TLS verified; whether it may still speak is asked anew with each request.
    """

    svid: Svid

    def __new__(cls, address: str, port: int, svid: Svid) -> Part:
        made = super().__new__(cls, address, port)
        made.svid = svid
        return made


_SO_PEERCRED: Final = 17
_CREDENTIALS: Final = struct.Struct("3i")  # Linux: pid, uid, gid
_LOCAL_PEERCRED: Final = 1
_XUCRED: Final = struct.Struct("IIh2x16I")  # macOS: version, uid, groups


class PeerProtocol(HttpToolsProtocol):
    """uvicorn's protocol, which also says the uid of a peer on a Unix socket.

    For the server on the installation's socket only; where the kernel does not say, there is no client and thus no
    owner.
    """

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]  # as uvicorn itself
        super().connection_made(transport)
        found = transport.get_extra_info("socket")
        if found is not None and found.family == socket.AF_UNIX:
            uid = peer_uid(found)
            self.client = None if uid is None else Peer("unix", uid)


class PartProtocol(HttpToolsProtocol):
    """uvicorn's protocol, which also says whose SVID was shown; for the server that asks everybody for one."""

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]  # as uvicorn itself
        super().connection_made(transport)
        address, port = self.client or ("", 0)
        client: Any = None
        try:
            shown = transport.get_extra_info("ssl_object").getpeercert(True)
            if not shown:
                raise Unauthenticated("parts show an identity: this connection has none")
            client = Part(address, port, read_svid(shown))
        except TautError:
            transport.abort()  # below our root and yet nobody: nothing that we issued
        self.client = client


def peer_uid(connection: Any) -> int | None:
    """Return the uid of the process at the other end, or None where the system does not tell.

    connection: anything with a file descriptor that is a connected Unix socket.
    """
    try:
        with socket.socket(fileno=os.dup(connection.fileno())) as own:
            if sys.platform == "darwin":
                return int(_XUCRED.unpack(own.getsockopt(0, _LOCAL_PEERCRED, _XUCRED.size))[1])
            return int(
                _CREDENTIALS.unpack(own.getsockopt(socket.SOL_SOCKET, _SO_PEERCRED, _CREDENTIALS.size))[1]
            )
    except OSError:
        return None
