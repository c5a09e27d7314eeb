"""Holding somebody back for a time: throttled, asked anew who he is, confined to what is harmless, or refused."""

from typing import TYPE_CHECKING

from taut.trust.containment.values import ACTIONS, Action, Contained, Containment, Order, refusal

if TYPE_CHECKING:
    from taut.trust.containment.register import Containments
    from taut.trust.containment.tables import metadata

__all__ = [
    "ACTIONS",
    "Action",
    "Contained",
    "Containment",
    "Containments",
    "Order",
    "metadata",
    "refusal",
]

_CONTROL = {"Containments": "register", "metadata": "tables"}


def __getattr__(name: str) -> object:
    """Import what control needs on first use: a gateway knows the values without loading SQLAlchemy."""
    if name not in _CONTROL:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    from importlib import import_module

    return getattr(import_module(f"{__name__}.{_CONTROL[name]}"), name)
