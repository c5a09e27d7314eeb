"""Placement: the device on which a worker runs a model, chosen by what was measured there, and left where it fails."""

from taut.serving.placement.choice import Move, Placement, Trial, choose
from taut.serving.placement.host import DeviceFailed, Host, OrtHost
from taut.serving.placement.place import place
from taut.serving.placement.placed import PlacedModel
from taut.serving.placement.wish import Wish, wish_for

__all__ = [
    "DeviceFailed",
    "Host",
    "Move",
    "OrtHost",
    "PlacedModel",
    "Placement",
    "Trial",
    "Wish",
    "choose",
    "place",
    "wish_for",
]
