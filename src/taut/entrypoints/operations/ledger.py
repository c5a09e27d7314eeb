"""Operations on the ledger and on lineage: what happened, the proof of it, and why."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any, Final

from taut.core.errors import InvalidInput, NotFound
from taut.core.refs import Kind, Ref
from taut.entrypoints.operations.operation import (
    Caller,
    Json,
    Nothing,
    Operation,
    Platform,
    Progress,
    Request,
    note_access,
    to_json,
)
from taut.trust.lineage import lineage_as_json


class LedgerShow(Request, frozen=True):
    """kind: whole, or a prefix that ends with a dot. since: ISO 8601."""

    kind: str | None = None
    subject: str | None = None
    actor: str | None = None
    since: datetime | None = None
    limit: int = 50


class LedgerWhat(Request, frozen=True):
    """what: a leaf's id, or a reference that the newest leaf is about."""

    what: str


class WhyShow(Request, frozen=True):
    """id: a reference `kind:id`, or a bare id of any kind. openlineage: also as OpenLineage events. moved: of a request, also
    what moved its answer.
    """

    id: str
    depth: int = 20
    openlineage: bool = False
    moved: bool = False


def _verify(platform: Platform, _caller: Caller, _request: Nothing, progress: Progress) -> Json:
    report = platform.ledger.verify(progress=lambda fraction: progress("reading the ledger", fraction))
    return {**to_json(report), "root": report.root.hex()}


def _show(platform: Platform, _caller: Caller, request: LedgerShow, _progress: Progress) -> Json:
    since = request.since
    if since is not None and since.tzinfo is None:
        since = since.replace(tzinfo=UTC)
    leaves = platform.ledger.show(
        kind=request.kind, subject=request.subject, actor=request.actor, since=since, limit=request.limit
    )
    return {"leaves": to_json(leaves)}


def _checkpoint(platform: Platform, _caller: Caller, _request: Nothing, _progress: Progress) -> Json:
    checkpoint = platform.ledger.checkpoint()
    return {**to_json(checkpoint), "root": checkpoint.root.hex()}


def _prove(platform: Platform, _caller: Caller, request: LedgerWhat, _progress: Progress) -> Json:
    proof = platform.ledger.prove(request.what)
    return {**to_json(proof), "path": [step.hex() for step in proof.path]}


def _why(platform: Platform, caller: Caller, request: WhyShow, _progress: Progress) -> Json:
    if not 1 <= request.depth <= 100:
        raise InvalidInput(f"depth is {request.depth}: choose 1 to 100")
    if is_request(request.id):
        from taut.workflows.why import why_request

        id_ = request.id.removeprefix("request:")
        own = _require_reading(platform, caller, id_)
        told: Json = why_request(platform, id_, depth=request.depth)
        if request.moved:
            from taut.workflows.moved import what_moved

            told["moved"] = what_moved(platform, id_)
        if not own:
            note_access(platform, caller, "log.read", f"request:{id_[:128]}", operation="why.show")
        return {**told, "events": _request_events(platform, told)} if request.openlineage else told
    if request.moved:
        raise InvalidInput(f"{request.id[:80]} is no request: what moved an answer is told of requests")
    if is_result_row(request.id):
        from taut.workflows.why_result import why_result_row

        context = {"plane": "control", "local": caller.local}
        result = request.id.partition("@")[0]
        platform.policy.require(caller.principal, "batch.read", result, context)
        explained: Json = why_result_row(platform, request.id, depth=request.depth)
        note_access(platform, caller, "batch.read", result, operation="why.show")
        return explained
    with platform.records.read() as tx:
        for ref in (
            *candidates(request.id),
            *platform.lineage.sources(tx, request.id.removeprefix("source:")),
        ):
            node = platform.lineage.why(tx, ref, depth=request.depth)
            made_from_it = () if node.steps else platform.lineage.downstream(tx, ref)
            if not node.steps and not node.facts and not made_from_it:
                continue
            found: Json = {"id": str(ref), "tree": lineage_as_json(node)}
            if (
                made_from_it
            ):  # a beginning: what lies behind it is outside, so that only the other way says anything
                found["made_from_it"] = [str(made) for made in made_from_it]
            if request.openlineage:
                found["events"] = to_json(platform.lineage.openlineage(tx, ref))
            return found
    raise NotFound(f"nothing is known about {request.id!r}: check the id, or look at `taut ledger show`")


def _request_events(platform: Platform, told: Json) -> list[Json]:
    """The events of everything behind an answer, and of the answering itself, which no lineage table holds."""
    step = told["tree"]["made_by"][0]
    release = next(node["ref"] for node in step["inputs"] if node["ref"].startswith(f"{Kind.RELEASE}:"))
    with platform.records.read() as tx:
        found: list[Json] = to_json(platform.lineage.openlineage(tx, Ref.parse(release)))
    answering = platform.lineage.event(
        activity=step["activity"], at=datetime.fromisoformat(step["at"]), facts=step["facts"],
        inputs=[Ref.parse(node["ref"]) for node in step["inputs"]], outputs=[Ref.parse(told["tree"]["ref"])],
    )  # fmt: skip
    return [*found, *to_json(answering)]


def _require_reading(platform: Platform, caller: Caller, id_: str) -> bool:
    """Return whether the caller asked this himself. Raises Denied unless he did, or may read the log.

    The explanation repeats what was sent.
    """
    try:
        if platform.predictions.find(id_).principal == caller.principal.id:
            return True
    except NotFound:
        pass  # whoever may read the log is told so by the explanation; others learn nothing
    resource = f"request:{id_[:128]}"
    platform.policy.require(
        caller.principal, "log.read", resource, {"plane": "control", "local": caller.local}
    )
    return False


def is_request(text: str) -> bool:
    """Whether an id names an answered request; those are in the prediction log, not in the lineage tables."""
    return text.startswith(("req_", "request:"))


def is_result_row(text: str) -> bool:
    """Whether an id names one row of a batch result, `result:NAME@NUMBER#ROW`."""
    return text.startswith(f"{Kind.RESULT}:") and "#" in text


_PREFIXES: Final = {
    "rel": Kind.RELEASE, "run": Kind.RUN, "plan": Kind.PLAN, "bat": Kind.BATCH,
    "batch": Kind.BATCH, "apr": Kind.APPROVAL, "approval": Kind.APPROVAL, "mat": Kind.FEATURES, "fea": Kind.FEATURES,
}  # fmt: skip


def candidates(text: str) -> tuple[Ref, ...]:
    """Return what an id that a person typed may refer to, likeliest first. Raises InvalidInput for nonsense."""
    kind, colon, _ = text.partition(":")
    if colon and kind in Kind.__members__.values():
        return (Ref.parse(text),)
    if not text or len(text) > 512 or not text.isprintable():
        raise InvalidInput(
            f"{text[:80]!r} is no id: give a request, release, model@version, run, dataset@snapshot"
        )
    prefix = text.partition("_")[0]
    if "_" in text and prefix in _PREFIXES:
        first = _PREFIXES[prefix]
    elif "@" in text:
        return tuple(Ref(kind, text) for kind in (Kind.MODEL, Kind.SNAPSHOT, Kind.FEATURES, Kind.RESULT))
    else:
        first = Kind.BUNDLE
    return (Ref(first, text), *(Ref(kind, text) for kind in Kind if kind is not first))


def _any_ledger(_request: Any) -> str:
    return "ledger:all"


OPERATIONS: Final = (
    Operation(name="ledger.verify", action="ledger.verify", request=Nothing, handle=_verify, resource=_any_ledger, reads=True, summary="Read the whole ledger again and compare"),
    Operation(name="ledger.show", action="ledger.read", request=LedgerShow, handle=_show, resource=_any_ledger, reads=True, summary="Show the newest entries"),
    Operation(name="ledger.checkpoint", action="ledger.checkpoint", request=Nothing, handle=_checkpoint, resource=_any_ledger, summary="Sign what is in the ledger now"),
    Operation(name="ledger.prove", action="ledger.read", request=LedgerWhat, handle=_prove, resource=_any_ledger, reads=True, summary="Prove that an entry is in the signed ledger"),
    Operation(name="why.show", action="explain", request=WhyShow, handle=_why, resource=lambda request: f"lineage:{request.id[:128]}", reads=True, summary="Walk from anything back to its origins"),
)  # fmt: skip
