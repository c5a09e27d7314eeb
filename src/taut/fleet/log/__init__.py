"""What the fleet shall be, said and signed before any of it exists: one log that compute and security both follow."""

from typing import TYPE_CHECKING

from taut.fleet.log.event import ScaleEvent

if TYPE_CHECKING:
    from taut.fleet.log.log import ScaleLog
    from taut.fleet.log.tables import metadata

__all__ = ["ScaleEvent", "ScaleLog", "metadata"]

_CONTROL = {"ScaleLog": "log", "metadata": "tables"}


def __getattr__(name: str) -> object:
    """Import what control needs on first use: a gateway knows admission's words without loading SQLAlchemy."""
    if name not in _CONTROL:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    from importlib import import_module

    return getattr(import_module(f"{__name__}.{_CONTROL[name]}"), name)
