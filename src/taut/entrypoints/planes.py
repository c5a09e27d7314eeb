"""What runs in an installation: control, N gateways and the gRPC process before them, as commands."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Final, NamedTuple

from taut.bootstrap.config import OF_CONTROL
from taut.entrypoints.children import Child
from taut.entrypoints.listening import INNER, Address, TlsPaths

GRPC: Final = ("grpc-0", "grpc-1")
"""The gRPC processes. The second is there where there is a second gateway: then a port stays open whichever of them dies."""
LINK: Final = "link"
DOOR: Final = 3
"""Of the data plane's port and this, at which control listens for machines."""


class Joining(NamedTuple):
    """A further machine of an installation. machine: its name. url: of its data plane, as others reach it."""

    machine: str
    url: str


def default_children(
    home: Path,
    address: Address,
    *,
    gateways: int,
    control_port: int,
    tls: TlsPaths | None = None,
    joining: Joining | None = None,
) -> list[Child]:
    """Return the children of one installation; on a further machine of it a link stands in control's place.

    Gateways with other files for TLS, or of another machine, are not these, and not adopted as these.
    """
    python = (sys.executable, "-P", "-m")  # -P: a project file called taut.py here must not hide the package
    secured = () if tls is None else tls.words()
    host = f"[{address.host}]" if ":" in address.host else address.host
    data = f"{'http' if tls is None else 'https'}://{host}:{address.port}"
    control = _link(home, joining, gateways) if joining is not None else Child(
        name="control",
        command=(
            *python, "taut.entrypoints.control_main", "--home", str(home), "--host", address.host,
            "--port", str(control_port), "--door-port", str(address.port + DOOR), "--gateways", str(gateways), "--data-plane", data, "--ready-fd",
            "{ready}", *secured,
        ),
        survives=False,
    )  # fmt: skip
    at = "" if joining is None else f"@{joining.machine}"
    inner = () if tls is None else ("--inner-fd", "{inner}")
    served = [
        Child(
            name=f"gateway-{number}{at}",
            command=(
                *python, "taut.entrypoints.gateway_main", "--home", str(home), "--name", f"gateway-{number}{at}",
                "--fd", "{listener}", "--ready-fd", "{ready}", *inner, *secured,
            ),
            survives=True,
            address=" ".join(secured),
            withheld=OF_CONTROL,
            forked=True,
        )
        for number in range(gateways)
    ]  # fmt: skip
    behind = (
        ("--gateways-port", str(address.port))
        if tls is None
        else ("--gateways-socket", str(home / INNER), "--home", str(home))
    )
    skins = [
        Child(
            name=name,
            command=(
                *python, "taut.entrypoints.grpc_main", "--name", name, "--host", address.host,
                "--port", str(address.port + 2), "--shared", *behind, "--ready-fd", "{ready}", *secured,
            ),
            survives=True,
            address=" ".join((f"{address.host}:{address.port + 2}", *secured)),
            withheld=OF_CONTROL,
        )
        for name in GRPC[:gateways]
    ]  # fmt: skip
    return [control, *served, *skins]


def gateways_alone(home: Path, address: Address, *, gateways: int, tls: TlsPaths | None) -> list[Child]:
    """Return the children of a data plane that has no control: nobody admits its gateways, they serve what lies on disk."""
    made = default_children(home, address, gateways=gateways, control_port=0, tls=tls)
    return [
        child._replace(command=(*child.command, "--alone")) if child.name.startswith("gateway") else child
        for child in made
        if child.survives
    ]


def _link(home: Path, joining: Joining, gateways: int) -> Child:
    return Child(
        name=LINK,
        command=(
            sys.executable, "-P", "-m", "taut.entrypoints.link_main", "--home", str(home), "--url", joining.url,
            "--gateways", str(gateways), "--ready-fd", "{ready}",
        ),
        survives=False,
    )  # fmt: skip
