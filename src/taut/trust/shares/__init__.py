"""Who takes far more of the traffic than is his, told from growth: load anomalies by share, whatever the fleet does meanwhile."""

from typing import TYPE_CHECKING

from taut.trust.shares.baseline import Baseline, hour_of_week
from taut.trust.shares.capacity import CapacityWatch
from taut.trust.shares.margin import FleetState, Margins
from taut.trust.shares.watch import NEWCOMERS, Finding, Hour, ShareWatch

if TYPE_CHECKING:
    from taut.trust.shares.hours import Hours
    from taut.trust.shares.tables import metadata

__all__ = [
    "NEWCOMERS",
    "Baseline",
    "CapacityWatch",
    "Finding",
    "FleetState",
    "Hour",
    "Hours",
    "Margins",
    "ShareWatch",
    "hour_of_week",
    "metadata",
]

_CONTROL = {"Hours": "hours", "metadata": "tables"}


def __getattr__(name: str) -> object:
    """Import what needs a database on first use."""
    if name not in _CONTROL:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    from importlib import import_module

    return getattr(import_module(f"{__name__}.{_CONTROL[name]}"), name)
