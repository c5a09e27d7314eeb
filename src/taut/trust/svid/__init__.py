"""Identities of the platform's own parts: SPIFFE ids in certificates of a quarter of an hour, and who may speak to whom."""

from typing import TYPE_CHECKING

from taut.trust.svid.bundle import Bundle
from taut.trust.svid.ids import (
    FIRST,
    MAY_SPEAK_TO,
    Kind,
    SpiffeId,
    check_machine_name,
    is_part_host,
    may_speak_to,
)
from taut.trust.svid.mint import LIFE, make_request
from taut.trust.svid.read import Svid, read_svid, require_kind, verify_chain

if TYPE_CHECKING:
    from taut.trust.svid.issuer import Issuer
    from taut.trust.svid.store import Admitted, MachineRow, Machines
    from taut.trust.svid.tables import metadata

__all__ = [
    "FIRST",
    "LIFE",
    "MAY_SPEAK_TO",
    "Admitted",
    "Bundle",
    "Issuer",
    "Kind",
    "MachineRow",
    "Machines",
    "SpiffeId",
    "Svid",
    "check_machine_name",
    "is_part_host",
    "make_request",
    "may_speak_to",
    "metadata",
    "read_svid",
    "require_kind",
    "verify_chain",
]

_CONTROL = {
    "Admitted": "store",
    "Issuer": "issuer",
    "MachineRow": "store",
    "Machines": "store",
    "metadata": "tables",
}


def __getattr__(name: str) -> object:
    """Import what control needs on first use: gateways and links judge identities without loading SQLAlchemy."""
    if name not in _CONTROL:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    from importlib import import_module

    return getattr(import_module(f"{__name__}.{_CONTROL[name]}"), name)
