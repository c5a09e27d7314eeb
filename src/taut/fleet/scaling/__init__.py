"""How many replicas a pool needs, decided from what its replicas tell: a pure core, without a clock, for the scale log."""

from typing import TYPE_CHECKING

from taut.fleet.scaling.autoscaler import Autoscaler
from taut.fleet.scaling.decision import Bound, Decision, Mode
from taut.fleet.scaling.hours import Hour, LoadHours
from taut.fleet.scaling.look import Load, Look
from taut.fleet.scaling.rule import ADDITIVE, Rule

if TYPE_CHECKING:
    from taut.fleet.scaling.store import HourStore
    from taut.fleet.scaling.tables import metadata

__all__ = [
    "ADDITIVE",
    "Autoscaler",
    "Bound",
    "Decision",
    "Hour",
    "HourStore",
    "Load",
    "LoadHours",
    "Look",
    "Mode",
    "Rule",
    "metadata",
]

_CONTROL = {"HourStore": "store", "metadata": "tables"}


def __getattr__(name: str) -> object:
    """Import what needs a database on first use."""
    if name not in _CONTROL:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    from importlib import import_module

    return getattr(import_module(f"{__name__}.{_CONTROL[name]}"), name)
