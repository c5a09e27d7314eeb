"""Operations on drills: declared faults, planted to see whether they are noticed."""

from __future__ import annotations

from typing import Any, Final

from taut.core.errors import NotFound, Unavailable
from taut.entrypoints.operations.flows import require_person
from taut.entrypoints.operations.operation import (
    Caller,
    Json,
    Nothing,
    Operation,
    Platform,
    Progress,
    Request,
    is_single_user,
    to_json,
)

_SHOWN: Final = 200


class DrillStart(Request, frozen=True):
    drill: str


class DrillShow(Request, frozen=True):
    """story: of a drill that was begun."""

    story: str


def _start(platform: Platform, caller: Caller, request: DrillStart, _progress: Progress) -> Json:
    from taut.workflows.drills import check_drill, longest_s
    from taut.workflows.freezes import freezes

    spec = _declared(platform, request.drill)
    context = {
        "single_user": is_single_user(platform), "environment": platform.plans.environment(), "plane": "control",
        "local": caller.local, "now": platform.clock.now(),
    }  # fmt: skip
    platform.policy.require(caller.principal, "release.start", f"endpoint:{spec.endpoint}", context)
    check_drill(platform, spec)
    frozen = any(freezes(platform, spec.endpoint))
    if frozen:
        require_person(platform, caller, spec.endpoint)
    if platform.publisher is None:
        raise Unavailable("no gateway runs that could be drilled: start the platform with `taut up`")
    arguments = {"spec": to_json(spec), "actor": caller.principal.id, "unfreezes": frozen}
    story = platform.stories.start("drill", arguments, key=f"drill/{platform.ids.new('key')}")
    return {"story": story, "drill": spec.name, "endpoint": spec.endpoint, "rate": spec.rate, "longest_s": longest_s(spec)}  # fmt: skip


def _show(platform: Platform, _caller: Caller, request: DrillShow, _progress: Progress) -> Json:
    found = platform.stories.status(request.story)
    if found.name != "drill":
        raise NotFound(
            f"story {request.story[:80]!r} is no drill: `taut drill list` shows those that were judged"
        )
    return {"story": found.id, "state": str(found.state), "error": found.error, "result": found.result}


def _list(platform: Platform, _caller: Caller, _request: Nothing, _progress: Progress) -> Json:
    """What is declared, each with how it ended last."""
    manifest = platform.plans.require()
    last: dict[str, Any] = {}
    for leaf in platform.ledger.show(kind="verdict.drill", limit=_SHOWN, details=True):
        last.setdefault(leaf.subject, leaf)
    found = []
    for spec in manifest.drills:
        leaf = last.get(f"drill:{spec.name}")
        details = {} if leaf is None or not isinstance(leaf.details, dict) else leaf.details
        found.append(
            {
                **to_json(spec), "verdict": None if leaf is None else leaf.body["decision"],
                "at_us": None if leaf is None else leaf.at_us, "reasons": list(details.get("reasons", ())),
            }
        )  # fmt: skip
    return {"drills": found}


def _declared(platform: Platform, name: str) -> Any:
    from taut.project.words import nearest

    found = {spec.name: spec for spec in platform.plans.require().drills}
    if name not in found:
        raise NotFound(f"the project has no drill {name[:80]!r}{nearest(name, found)}")
    return found[name]


def _endpoint(platform: Platform, request: Any) -> str:
    return f"endpoint:{_declared(platform, request.drill).endpoint}"


OPERATIONS: Final = (
    Operation(name="drill.start", action="drill.run", request=DrillStart, handle=_start, resource=lambda request: f"drill:{request.drill}", of=_endpoint, fresh=True, summary="Plant a declared fault, and watch whether it is noticed"),
    Operation(name="drill.show", action="incident.read", request=DrillShow, handle=_show, resource=lambda request: f"story:{request.story}", reads=True, summary="Show how a drill stands"),
    Operation(name="drill.list", action="incident.read", request=Nothing, handle=_list, resource=lambda _request: "drill:any", reads=True, summary="List declared drills, and how each ended last"),
)  # fmt: skip
