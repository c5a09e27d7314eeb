"""Becoming a further machine of an installation, before any process of it runs here."""

from __future__ import annotations

import socket
import sys
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Final
from urllib.parse import urlsplit

from taut.core.errors import Conflict, InvalidInput, Unavailable
from taut.core.hosts import LOOPBACK
from taut.entrypoints.client import home_lock
from taut.entrypoints.planes import Joining
from taut.entrypoints.reaching import address_of

if TYPE_CHECKING:
    from taut.bootstrap.joined import Joined
    from taut.trust.tls import ClientFiles

_ANY: Final = ("0.0.0.0", "::")  # noqa: S104 - to be told from an address that can be asked
_OWN: Final = ("keys", "taut.db")
"""What only an installation of its own has."""


def join(
    home: Path, control: str, *, token: str | None, tls: ClientFiles | None, url: str, gateways: int
) -> Joining:
    """Join the installation whose control plane is at `control`, or be sure that this home still belongs to it.

    token: an invitation; None, or one that was taken here, goes on as the machine that this home is. url: of the data plane here,
    as others reach it. What is needed later is kept in the home, for its owner alone. Where control does not answer, a home that has served before goes
    on with what it has.
    Raises Conflict where the home is something else or another home is this machine, Denied where control does not let it
    join, InvalidInput for an address that would carry the invitation in clear, Unavailable where nothing is known yet.
    """
    import msgspec

    from taut.bootstrap.gateway import system_random
    from taut.bootstrap.joined import Joined, read_joined, write_joined
    from taut.entrypoints.membership import digest_of, enter

    address = address_of(control, tls)
    parts = urlsplit(address)
    if parts.scheme == "http" and parts.hostname not in LOOPBACK:
        raise InvalidInput(
            f"{address} would carry the invitation in clear over the network: use https, or a tunnel to 127.0.0.1"
        )
    with home_lock(home):
        if any((home / name).exists() for name in _OWN):
            raise Conflict(f"{home} is an installation of its own: name an empty folder with --home")
        known = read_joined(home)
        if known is not None and known.control != address and token is None:
            raise Conflict(f"{home} is a machine of {known.control}: give --token to move it to {address}")
        before = known or Joined(control=address, machine="", instance=system_random().bytes(16).hex())
        joined = msgspec.structs.replace(before, control=address, **_files(tls))
        if token is not None and digest_of(token) != joined.invitation:
            joined = enter(home, joined, token, now=datetime.now(UTC))
            write_joined(home, joined)
        if not joined.machine:
            raise InvalidInput(
                "no invitation came with --join: run `taut machine invite NAME` there, and give what it prints as --token here"
            )
        _agree(home, joined, url=url, gateways=gateways)
        write_joined(home, joined)
    return Joining(machine=joined.machine, url=url)


def data_plane_url(host: str, port: int, *, tls: bool) -> str:
    """Return where other machines reach a data plane: by this machine's name where it listens on every address.

    Raises InvalidInput for port 0, whose number is not known yet.
    """
    if port == 0:
        raise InvalidInput("--port 0 leaves open where this machine is reached: name a port with --join")
    name = socket.getfqdn() if host in _ANY else host
    return f"{'https' if tls else 'http'}://{f'[{name}]' if ':' in name else name}:{port}"


def _agree(home: Path, joined: Joined, *, url: str, gateways: int) -> None:
    """Say who is here, and take over the keys that sign what is served, the first time. Control may be away later."""
    import msgspec

    from taut.entrypoints.link_main import member_of
    from taut.serving.machines import Member, take_keys
    from taut.serving.snapshot import TrustFile

    member = Member(instance=joined.instance, url=url, gateways=gateways)
    trust = TrustFile(home / "serving" / "trust.json")
    try:
        with member_of(home, joined) as membership:
            take_keys(membership.call("fleet.join", msgspec.to_builtins(member)), trust)
    except Unavailable as error:
        trust.read()  # raises where nothing was served yet
        sys.stderr.write(f"note: {error.message}; this machine goes on with what it served last\n")


def _files(tls: ClientFiles | None) -> dict[str, str]:
    """Return the fields of the files that were named; none where none was, so that those of the last time stay."""
    if tls is None:
        return {}
    named = {"tls_ca": tls.ca, "client_cert": tls.cert, "client_key": tls.key}
    return {name: str(path.absolute()) for name, path in named.items() if path is not None}
