"""Whom this process may be sent to by what somebody declared: never to what belongs to the machine and its cloud alone."""

from __future__ import annotations

import ipaddress
import socket
from collections.abc import Iterator
from typing import Final

from taut.core.errors import Denied, Unavailable

Address = ipaddress.IPv4Address | ipaddress.IPv6Address

_NAT64: Final = ipaddress.IPv6Network("64:ff9b::/96")
_METADATA: Final = frozenset(
    ipaddress.ip_address(one)
    for one in ("169.254.169.254", "100.100.100.200", "fd00:ec2::254", "168.63.129.16")
)
"""Where clouds tell a machine its own credentials, whether or not the address is link-local."""


def reachable(host: str, port: int, *, inside: bool) -> str:
    """Return the one address to connect to, so that a name cannot become another address between the look and the use.

    inside: whether it is declared to be in a private network, or on this machine. Raises Denied where any address of the
    name is forbidden, Unavailable where it has none.
    """
    try:
        found = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)
    except (OSError, UnicodeError) as error:
        raise Unavailable(f"{host} has no address ({error}): check the name") from error
    addresses = [str(one[4][0]).partition("%")[0] for one in found]
    for text in addresses:
        for address in _meant(ipaddress.ip_address(text)):
            _check(host, address, inside=inside)
    return addresses[0]


def _meant(address: Address) -> Iterator[Address]:
    """Yield an address, and those of IPv4 that it carries."""
    yield address
    if isinstance(address, ipaddress.IPv6Address):
        for carried in (address.ipv4_mapped, address.sixtofour):
            if carried is not None:
                yield carried
        if address in _NAT64:
            yield ipaddress.IPv4Address(int(address) & 0xFFFFFFFF)


def _check(host: str, address: Address, *, inside: bool) -> None:
    if address in _METADATA or address.is_link_local or address.is_multicast or address.is_unspecified:
        raise Denied(
            f"{host} is at {address}, which belongs to the machine or its cloud: nothing is sent there"
        )
    if not (address.is_global or inside):
        raise Denied(
            f"{host} is at {address}, in a private network: declare the receiver with inside=True if it belongs there"
        )
