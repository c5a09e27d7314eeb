"""Who is at the other end of a Unix socket, as the kernel says."""

from __future__ import annotations

import asyncio
import os
import socket
import struct
import sys
from typing import Any, Final, NamedTuple

from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol


class Peer(NamedTuple):
    """Stands where an address stands otherwise, in `scope["client"]`.

    It is the type that proves it: a header can make uvicorn put any text where the address is, but never this.
    """

    address: str
    uid: int


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
