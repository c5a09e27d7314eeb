"""The composition root: configuration, and the one table from URL schemes to adapters."""

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from taut.bootstrap.platform import Platform, open_platform

__all__ = ["Platform", "open_platform"]


def __getattr__(name: str) -> object:
    """Import the platform on first use: gateways and jobs come through here without its libraries."""
    if name not in __all__:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    from taut.bootstrap import platform

    return getattr(platform, name)
