"""Operations on who is a machine: invite one, list them, revoke one; and what a machine itself asks for to become and stay one."""

from __future__ import annotations

from typing import Any, Final

from taut.core.errors import Conflict
from taut.core.units import parse_duration
from taut.entrypoints.operations.operation import (
    Caller,
    Json,
    Nothing,
    Operation,
    Platform,
    Progress,
    Request,
    to_json,
)


class MachineInvite(Request, frozen=True):
    """machine: its name. ttl: 1s to 24h."""

    machine: str
    ttl: str = "1h"


class MachineName(Request, frozen=True):
    machine: str


class MachineEnter(Request, frozen=True):
    """csr: a request for a certificate, PEM; its key is the machine's alone."""

    invitation: str
    csr: str


class MachineRenew(Request, frozen=True):
    """csr: for the next key. proof: by the one that was certified last; see `taut.trust.svid.proof`."""

    machine: str
    csr: str
    proof: str


def _invite(platform: Platform, caller: Caller, request: MachineInvite, _progress: Progress) -> Json:
    text, until = platform.parts.machines.invite(
        request.machine, parse_duration(request.ttl), actor=caller.principal.id
    )
    return {"machine": request.machine, "invitation": text, "expires_at": to_json(until)}


def _list(platform: Platform, _caller: Caller, _request: Nothing, _progress: Progress) -> Json:
    return {"domain": platform.parts.domain, "machines": to_json(platform.parts.machines.list())}


def _revoke(platform: Platform, caller: Caller, request: MachineName, _progress: Progress) -> Json:
    platform.parts.machines.revoke(request.machine, actor=caller.principal.id)
    if platform.admitting is not None:
        platform.admitting.expel(request.machine)
    return {"machine": request.machine, "state": "revoked"}


def _enter(platform: Platform, _caller: Caller, request: MachineEnter, _progress: Progress) -> Json:
    door = _door(platform)
    return _given(platform, platform.parts.machines.enter(request.invitation, request.csr), door)


def _renew(platform: Platform, _caller: Caller, request: MachineRenew, _progress: Progress) -> Json:
    door = _door(platform)
    return _given(platform, platform.parts.machines.renew(request.machine, request.csr, request.proof), door)


def _given(platform: Platform, admitted: Any, door: int) -> Json:
    bundle = platform.parts.machines.issuer.bundle()
    return {**to_json(admitted), "bundle": bundle.to_json(), "door": door}


def _door(platform: Platform) -> int:
    """Return the port at which machines speak to control. Raises Conflict before an invitation is spent for nothing."""
    if not platform.parts.door:
        raise Conflict("control listens for no machines: start it with `taut up`, and see its log")
    return int(platform.parts.door)


def _machine(request: MachineInvite | MachineName) -> str:
    return f"machine:{request.machine}"


def _any_machine(_request: Any) -> str:
    return "machine:any"


OPERATIONS: Final = (
    Operation(name="machine.invite", action="machine.invite", request=MachineInvite, handle=_invite, resource=_machine, summary="Let a further machine join, once"),
    Operation(name="machine.list", action="fleet.read", request=Nothing, handle=_list, resource=_any_machine, reads=True, summary="List the machines and their identities"),
    Operation(name="machine.revoke", action="fleet.revoke", request=MachineName, handle=_revoke, resource=_machine, summary="Refuse a machine from now on"),
    Operation(name="machine.enter", action="fleet.join", request=MachineEnter, handle=_enter, resource=_any_machine, open=True, summary="Join by an invitation"),
    Operation(name="machine.renew", action="fleet.join", request=MachineRenew, handle=_renew, resource=_any_machine, open=True, summary="Renew a machine's identity by its key"),
)  # fmt: skip
