"""What further machines ask of control: join, follow what is served, fetch its models, report, hand records over.

A machine is the one that its identity proves; it can name no other.
"""

from __future__ import annotations

import base64
import re
from typing import Any, Final
from urllib.parse import urlsplit

import msgspec

from taut.core.errors import InvalidInput, Unavailable
from taut.core.hosts import LOOPBACK
from taut.entrypoints.operations.operation import Caller, Json, Operation, Platform, Progress, Request
from taut.serving.snapshot import GatewayState, Machine, MachineState

_INSTANCE: Final = re.compile(r"[0-9a-f]{16,64}")
_MAX_GATEWAYS: Final = 64
_WAIT_MAX_S: Final = 30.0
_MAX_NAME: Final = 200
_STATES: Final = msgspec.json.Decoder(tuple[GatewayState, ...])
_JOINED: Final = "machine.joined"


class Member(Request, frozen=True):
    """instance: of the machine's home. url: of its data plane, as others reach it. gateways: how many it runs."""

    instance: str
    url: str
    gateways: int


class Report(Member, frozen=True):
    """states: JSON text of its gateways' `taut.serving.snapshot.GatewayState`, `heard_s` being how long each was silent.
    ended: processes of gateways there that are no more."""

    states: str
    ended: tuple[str, ...] = ()


class Admit(Request, frozen=True):
    """gateway: of the machine. word: what it says to admission, base64 in JSON."""

    gateway: str
    word: bytes


class Follow(Request, frozen=True):
    """epoch: that is known already. wait_s: how long to wait for a newer one."""

    epoch: int
    wait_s: float = 0.0


class Artifact(Request, frozen=True):
    """offset: of the part in the artifact, in bytes."""

    digest: str
    offset: int = 0


class Deliver(Request, frozen=True):
    """A part of a segment. sha256: of the whole, hexadecimal. data: base64 in JSON."""

    segment: str
    size_bytes: int
    sha256: str
    offset: int
    data: bytes


def _join(platform: Platform, caller: Caller, request: Member, _progress: Progress) -> Json:
    publisher = _publisher(platform)
    machine = _machine(caller, request)
    publisher.hear(
        MachineState(machine=machine, instance=request.instance, heard_s=platform.clock.monotonic_s())
    )
    _note(platform, machine, request.instance)
    keys = platform.keys.public_keys(purpose="snapshot")
    return {"machine": machine.name, "keys": msgspec.to_builtins(keys)}


def _report(platform: Platform, caller: Caller, request: Report, _progress: Progress) -> Json:
    publisher = _publisher(platform)
    machine, now_s = _machine(caller, request), platform.clock.monotonic_s()
    try:
        states = _STATES.decode(request.states)
    except (msgspec.MsgspecError, UnicodeDecodeError) as error:
        raise InvalidInput(f"the states of gateways cannot be read: {error}") from error
    strange = [one.gateway for one in states if not one.gateway.endswith(f"@{machine.name}")]
    if strange or len(states) > 2 * _MAX_GATEWAYS:
        raise InvalidInput(
            f"gateway {strange[0][:80]!r} is none of machine {machine.name!r}"
            if strange
            else f"{len(states)} gateways are too many"
        )
    heard = tuple(msgspec.structs.replace(one, heard_s=now_s - max(0.0, one.heard_s)) for one in states)
    if publisher.lender is not None:
        publisher.lender.end(
            one for one in request.ended if one.rpartition("#")[0].endswith(f"@{machine.name}")
        )
    leases = publisher.hear(
        MachineState(machine=machine, instance=request.instance, gateways=heard, heard_s=now_s)
    )
    return {
        "leases": {process: lease.decode() for process, lease in leases.items()},
        "authorities": platform.parts.files.read_bundle().sequence,
    }


def _admit(platform: Platform, caller: Caller, request: Admit, _progress: Progress) -> Json:
    """Return what a machine's gateway is to be told; what others are to be told at once goes its own way."""
    if platform.admitting is None:
        raise Unavailable("nobody admits gateways here: start the platform with `taut up`")
    if not request.gateway.endswith(f"@{caller.principal.id}") or len(request.gateway) > _MAX_NAME:
        raise InvalidInput(f"gateway {request.gateway[:80]!r} is none of machine {caller.principal.id!r}")
    told = platform.admitting.heard(request.gateway, None, request.word)
    publisher = _publisher(platform)
    for gateway, data in told:
        if gateway != request.gateway:
            publisher.tell(gateway, data)
    words = [data for gateway, data in told if gateway == request.gateway]
    return {"words": [base64.b64encode(data).decode() for data in words]}


def _follow(platform: Platform, _caller: Caller, request: Follow, _progress: Progress) -> Json:
    if not 0 <= request.wait_s <= _WAIT_MAX_S:
        raise InvalidInput(f"wait_s is {request.wait_s}: choose 0 to {_WAIT_MAX_S:g}")
    data = _publisher(platform).follow(request.epoch, timeout_s=request.wait_s)
    return {"snapshot": None if data is None else data.decode()}


def _artifact(platform: Platform, _caller: Caller, request: Artifact, _progress: Progress) -> Json:
    from taut.serving.machines import read_part

    data, size_bytes = read_part(platform.home, _publisher(platform).snapshot, request.digest, request.offset)
    return {"data": data, "size_bytes": size_bytes}


def _deliver(platform: Platform, caller: Caller, request: Deliver, _progress: Progress) -> Json:
    from taut.serving.predictions import Incoming

    here = Incoming(platform.home / "log" / "predictions", platform.predictions.keys).take(
        request.segment, machine=caller.principal.id, size_bytes=request.size_bytes, sha256=request.sha256,
        offset=request.offset, data=request.data,
    )  # fmt: skip
    return {"here": here}


def _publisher(platform: Platform) -> Any:
    if platform.publisher is None:
        raise Unavailable("no platform runs here that a machine could join: start it with `taut up`")
    return platform.publisher


def _machine(caller: Caller, request: Member) -> Machine:
    """Return the machine that speaks. Raises InvalidInput for what it cannot be."""
    parts = urlsplit(request.url)
    try:
        sound = parts.scheme in ("http", "https") and bool(parts.hostname) and bool(parts.port)
    except ValueError:
        sound = False
    if not sound or len(request.url) > 300:
        raise InvalidInput(
            f"url {request.url[:80]!r} is no address of a data plane: write for example https://ml2.example.org:8080"
        )
    if parts.scheme == "http" and parts.hostname not in LOOPBACK:
        raise InvalidInput(
            f"{request.url} is not asked by other machines without TLS: give the machine a certificate, or use 127.0.0.1"
        )
    if not 1 <= request.gateways <= _MAX_GATEWAYS:
        raise InvalidInput(f"gateways is {request.gateways}: choose 1 to {_MAX_GATEWAYS}")
    if not _INSTANCE.fullmatch(request.instance):
        raise InvalidInput("instance must be 16 to 64 hexadecimal digits")
    return Machine(name=caller.principal.id, url=request.url, gateways=request.gateways)


def _note(platform: Platform, machine: Machine, instance: str) -> None:
    """Leave a leaf, unless the last one of this machine says the same: it joins anew with each start of its link."""
    from taut.ports.records import transact
    from taut.trust.ledger import Entry

    subject = f"machine:{machine.name}"
    body = {"url": machine.url, "gateways": machine.gateways, "instance": instance}
    if any(leaf.body == body for leaf in platform.ledger.show(kind=_JOINED, subject=subject, limit=1)):
        return
    entry = Entry(kind=_JOINED, subject=subject, actor=machine.name, body=body)
    transact(platform.records, lambda tx: platform.ledger.append(tx, entry))


def _any_machine(_request: Any) -> str:
    return "machine:any"


OPERATIONS: Final = (
    Operation(name="fleet.join", action="fleet.join", request=Member, handle=_join, resource=_any_machine, part=True, summary="Serve as a further machine"),
    Operation(name="fleet.report", action="fleet.join", request=Report, handle=_report, resource=_any_machine, part=True, summary="Take what a machine says of its gateways"),
    Operation(name="fleet.admit", action="fleet.join", request=Admit, handle=_admit, resource=_any_machine, part=True, summary="Carry what a machine's gateway and admission say to one another"),
    Operation(name="fleet.follow", action="fleet.join", request=Follow, handle=_follow, resource=_any_machine, part=True, reads=True, summary="Wait for what is to be served next"),
    Operation(name="fleet.artifact", action="fleet.join", request=Artifact, handle=_artifact, resource=_any_machine, part=True, reads=True, summary="Fetch a part of a model that is served"),
    Operation(name="fleet.deliver", action="fleet.join", request=Deliver, handle=_deliver, resource=_any_machine, part=True, summary="Take a part of a machine's records"),
)  # fmt: skip
