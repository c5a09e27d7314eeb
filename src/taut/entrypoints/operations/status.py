"""Everything at a glance."""

from __future__ import annotations

from pathlib import Path
from typing import Final

from taut.core.errors import Unavailable
from taut.entrypoints.listening import read_state
from taut.entrypoints.operations.operation import (
    Caller,
    Json,
    Nothing,
    Operation,
    Platform,
    Progress,
    is_single_user,
    to_json,
)
from taut.entrypoints.operations.policies import emergency_of


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
        "single_user": is_single_user(platform),
        "emergency": emergency_of(platform),
        "datasets": to_json(platform.data.list()),
        "live": live,
        "epoch": epoch,
        "ledger": {"size": platform.ledger.size()},
        "database": platform.records.dialect,
        "data_plane": data_plane(platform.home),
        "machines": _machines(platform),
        "not_ready": not_ready(platform),
        "processes": read_state(platform.home).get("children", []),
    }


def _machines(platform: Platform) -> list[Json]:
    """Return the further machines that were heard lately."""
    if platform.publisher is None:
        return []
    now_s = platform.clock.monotonic_s()
    return [
        {
            "machine": one.machine.name, "data_plane": one.machine.url, "gateways": one.machine.gateways,
            "ready": sum(1 for state in one.gateways if state.beat is not None and state.beat.ready),
            "silent_s": round(now_s - one.heard_s, 1),
        }
        for one in platform.publisher.machines()
    ]  # fmt: skip


def not_ready(platform: Platform) -> list[Json]:
    """Return what is not ready, by gateway, and why; an endpoint of its own where the gateway itself is."""
    from taut.entrypoints.traffic import newest_states

    found: list[Json] = []
    for state in newest_states(() if platform.publisher is None else platform.publisher.gateways()):
        beat = state.beat
        if beat is None:
            continue
        if beat.reasons:
            found.append({"gateway": state.gateway, "endpoint": None, "reasons": list(beat.reasons)})
        found += [
            {"gateway": state.gateway, "endpoint": name, "reasons": list(why)}
            for name, why in sorted(beat.endpoints.items())
        ]
    return found


def _traffic(platform: Platform, _caller: Caller, _request: Nothing, _progress: Progress) -> Json:
    from taut.entrypoints.traffic import newest_states, sample_of

    if platform.publisher is None:
        raise Unavailable("no gateway runs here: start the platform with `taut up`")
    now_s = platform.clock.monotonic_s()
    states = newest_states(platform.publisher.gateways())
    return {"gateways": to_json([sample_of(state, now_s=now_s) for state in states])}


def _quota(platform: Platform, _caller: Caller, _request: Nothing, _progress: Progress) -> Json:
    from taut.entrypoints.quota_view import picture

    publisher = platform.publisher
    if publisher is None or publisher.lender is None:
        raise Unavailable("no gateway runs here: start the platform with `taut up`")
    limits = {} if publisher.snapshot is None else publisher.snapshot.limits
    lender = publisher.lender
    return picture(limits, lender.holders(), trouble=lender.trouble, budgets=lender.budgets())


def data_plane(home: Path) -> str | None:
    """Return where gateways of this home listen, as the supervisor wrote it; None where none is ready.

    Where they listen on every address, the host is one that stands for all of them and none can ask.
    """
    state = read_state(home)
    ready = [child for child in state.get("children", []) if child.get("state") == "ready"]
    if not state.get("port") or not any(str(child.get("name", "")).startswith("gateway") for child in ready):
        return None
    host = state["host"]
    return (
        f"{'https' if state.get('tls') else 'http'}://{f'[{host}]' if ':' in host else host}:{state['port']}"
    )


OPERATIONS: Final = (
    Operation(name="status.show", action="status.read", request=Nothing, handle=_status, resource=lambda _request: "platform:all", reads=True, summary="Show everything at a glance"),
    Operation(name="status.traffic", action="status.read", request=Nothing, handle=_traffic, resource=lambda _request: "platform:all", reads=True, summary="Show what the gateways have counted"),
    Operation(name="status.quota", action="status.read", request=Nothing, handle=_quota, resource=lambda _request: "platform:all", reads=True, summary="Show what is lent of quotas, and who asks for it"),
)  # fmt: skip
