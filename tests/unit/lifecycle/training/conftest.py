"""The fixtures of this folder."""

from __future__ import annotations

from training_room import quick_room, room

__all__ = ["quick_room", "room"]
