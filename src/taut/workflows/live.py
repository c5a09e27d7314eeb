"""Which version of a model answers now."""

from __future__ import annotations

from taut.core.refs import VersionRef
from taut.workflows.rooms import Rooms


def live_version(rooms: Rooms, model: str) -> VersionRef | None:
    """Return the version of a model that answers now, the newest where several endpoints serve it."""
    with rooms.records.read() as tx:
        live = [route.version for route in rooms.releases.routes(tx) if route.version.name == model]
    return max(live, key=lambda ref: ref.number, default=None)
