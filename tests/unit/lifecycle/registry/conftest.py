"""The fixtures of this folder."""

from __future__ import annotations

from registry_room import house, model

__all__ = ["house", "model"]
