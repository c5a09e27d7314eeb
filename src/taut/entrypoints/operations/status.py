"""Everything at a glance."""

from __future__ import annotations

from typing import Final

from taut.entrypoints.operations.operation import (
    Caller,
    Json,
    Nothing,
    Operation,
    Platform,
    Progress,
    to_json,
)
from taut.entrypoints.where import data_plane


def _status(platform: Platform, _caller: Caller, _request: Nothing, _progress: Progress) -> Json:
    manifest = platform.plans.current()
    info = platform.plans.current_info()
    with platform.records.read() as tx:
        live = [
            {"endpoint": route.endpoint, "version": str(route.version), "release": route.release}
            for route in platform.releases.routes(tx)
        ]
        epoch = platform.releases.epoch(tx)
    return {
        "home": str(platform.home),
        "project": None if manifest is None else manifest.project,
        "environment": platform.plans.environment(),
        "plan": None if info is None else info.plan,
        "single_user": platform.identity.is_single_user(),
        "datasets": to_json(platform.data.list()),
        "live": live,
        "epoch": epoch,
        "ledger": {"size": platform.ledger.size()},
        "database": platform.records.dialect,
        "data_plane": data_plane(platform.home),
    }


OPERATIONS: Final = (
    Operation(name="status.show", action="status.read", request=Nothing, handle=_status, resource=lambda _request: "platform:all", reads=True, summary="Show everything at a glance"),
)  # fmt: skip
