"""Operations that read the release room; what moves traffic is a story and lies beside them."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

from taut.core.errors import InvalidInput, NotFound
from taut.core.times import from_us
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
from taut.ports.records import transact
from taut.project.manifest import EndpointSpec

if TYPE_CHECKING:
    from taut.lifecycle.release import Canaries, Canary, Experiment, Experiments, Releases, Shadows


class ReleaseOf(Request, frozen=True):
    """endpoint: its name. Or release: one release's id."""

    endpoint: str = ""
    release: str = ""


class ReleaseHistory(Request, frozen=True):
    endpoint: str
    limit: int = 50


def release_status(platform: Platform, _caller: Caller, request: ReleaseOf, _progress: Progress) -> Json:
    if bool(request.endpoint) == bool(request.release):
        raise InvalidInput("release status takes either an endpoint or a release")
    if request.endpoint.startswith("rel_"):
        info = platform.releases.show(request.endpoint)
    elif request.release:
        info = platform.releases.show(request.release)
    else:
        info = platform.releases.status(request.endpoint)
    of_shadow, of_trial = _shadow(platform, info.release), _trial(platform, info.release)
    return {**to_json(info), **_verdict(platform, info.release), **of_shadow, **of_trial}


def _trial(platform: Platform, release: str) -> Json:
    """How a canary or an experiment stands: its step, what its guardrails say, why it waits. Nothing of a release that is none."""
    from taut.lifecycle.release.canary import explain

    with platform.records.read() as tx:
        found = platform.releases.canaries.find(tx, release)
        experiment = platform.releases.experiments.find(tx, release)
    if experiment is not None:
        return _experiment(experiment)
    if found is None:
        return {}
    state = found.state
    return {
        "step": state.step, "steps": list(found.plan.steps), "guardrails": to_json(explain(found.plan, state.tallies)),
        "waits": state.held or state.paused or state.waits, "held": bool(state.held), "paused": bool(state.paused),
        "calibration": _calibration(platform, found),
    }  # fmt: skip


def _shadow(platform: Platform, release: str) -> Json:
    """How a shadow stands: where it is ready, what its pairs say, why it waits. Nothing of a release that has none, or had one."""
    from taut.lifecycle.release.shadow import explain_pairs

    with platform.records.read() as tx:
        found = platform.releases.shadows.find(tx, release)
    if found is None or found.state.over:
        return {}
    plan, state = found.plan, found.state
    judged = explain_pairs(plan, state.tally.counts, state.since, state.reference) if plan.share else ()
    return {
        "guardrails": to_json(judged), "pairs": state.tally.counts.answered, "dropped": state.tally.counts.dropped,
        "ready": list(state.ready), "lacking": dict(state.lacking), "waits": state.waits, "held": bool(state.held),
        "passed": state.passed, "kept_until": from_us(state.kept_until_us).isoformat() if state.kept_until_us else None,
    }  # fmt: skip


def _experiment(found: Experiment) -> Json:
    from taut.workflows.arms import prospects

    state = found.state
    judged = [
        {**to_json(finding), "guardrail": f"{finding.guardrail} of {of.version}"}
        for of in found.findings
        for finding in of.findings
    ]
    return {
        "step": state.stage, "arms": to_json(state.standings), "guardrails": judged, "prospects": prospects(found.plan),
        "waits": state.held or state.paused or state.waits, "held": bool(state.held), "paused": bool(state.paused),
    }  # fmt: skip


def _calibration(platform: Platform, canary: Canary) -> str:
    """What a canary of the live version itself says of the machines and callers; nothing of any other."""
    from taut.lifecycle.release.canary import calibrated

    with platform.records.read() as tx:
        routes = {route.endpoint: route for route in platform.releases.routes(tx)}
    info, live = platform.releases.show(canary.release), routes.get(canary.endpoint)
    beside = (
        platform.releases.show(info.replaces).version
        if info.replaces
        else ""
        if live is None
        else str(live.version)
    )
    return calibrated(canary.plan, canary.state.tallies) if beside == str(canary.version) else ""


def foreseen_at(platform: Platform, endpoint: EndpointSpec) -> list[str]:
    """What canaries of an endpoint would find with the traffic that gateways see, in words."""
    from taut.workflows.foresight import foreseen_of

    gateways = () if platform.publisher is None else platform.publisher.gateways()
    monitor = platform.watches.monitoring
    with platform.records.read() as tx:
        live = {route.endpoint: str(route.version) for route in platform.releases.routes(tx)}.get(
            endpoint.name
        )
    figures = None if monitor is None or live is None else monitor.said.get((endpoint.name, live))
    right = None if figures is None else figures.quality.right
    return list(foreseen_of(endpoint, gateways, wrong=None if right is None else 1.0 - right))


class ReleaseWord(Request, frozen=True):
    """A word on a release that is under way. release: its id, or its endpoint's name."""

    release: str
    reason: str = ""


def _release_of(platform: Platform, word: str) -> str:
    return word if word.startswith("rel_") else platform.releases.status(word).release


class ReleasePromote(ReleaseWord, frozen=True):
    """version: of an experiment, the one that takes over."""

    version: str = ""


def _room(platform: Platform, release: str) -> Canaries | Experiments | Shadows:
    """Return the room that a release under way belongs to; a canary's while its shadow answers nobody yet is that of shadows."""
    releases: Releases = platform.releases
    with platform.records.read() as tx:
        if releases.experiments.find(tx, release) is not None:
            return releases.experiments
        if any(one.release == release for one in releases.shadows.under_way(tx)):
            return releases.shadows
    return releases.canaries


def _pause(platform: Platform, caller: Caller, request: ReleaseWord, _progress: Progress) -> Json:
    releases, release = platform.releases, _release_of(platform, request.release)
    experiment = _room(platform, release) is releases.experiments
    room = releases.experiments if experiment else releases.canaries
    who, why = caller.principal.id, request.reason
    transact(platform.records, lambda tx: room.pause(tx, release, actor=who, reason=why))
    return release_status(platform, caller, ReleaseOf(release=release), _progress)


def _resume(platform: Platform, caller: Caller, request: ReleaseWord, _progress: Progress) -> Json:
    release = _release_of(platform, request.release)
    room = _room(platform, release)
    who, why = caller.principal.id, request.reason
    transact(platform.records, lambda tx: room.resume(tx, release, actor=who, reason=why))
    return release_status(platform, caller, ReleaseOf(release=release), _progress)


def _promote(platform: Platform, caller: Caller, request: ReleasePromote, _progress: Progress) -> Json:
    from taut.workflows import canary, experiment, shadow

    release = _release_of(platform, request.release)
    who, why, room = caller.principal.id, request.reason, _room(platform, release)
    if room is platform.releases.experiments:
        experiment.promote(platform, release, request.version, actor=who, reason=why)
    else:
        go = shadow.promote_shadow if room is platform.releases.shadows else canary.promote
        go(platform, release, actor=who, reason=why)
    return release_status(platform, caller, ReleaseOf(release=release), _progress)


def _verdict(platform: Platform, release: str) -> Json:
    """The newest verdict of the release gate about a release, from the ledger."""
    leaves = platform.ledger.show(kind="verdict.release", subject=f"release:{release}", limit=1)
    if not leaves:
        return {"verdict": None, "reasons": [], "step": None, "guardrails": []}
    details = leaves[0].details or {}
    return {
        "verdict": leaves[0].body["decision"],
        "reasons": details.get("reasons", []),
        "step": None,
        "guardrails": [],
    }


def _history(platform: Platform, _caller: Caller, request: ReleaseHistory, _progress: Progress) -> Json:
    if not 1 <= request.limit <= 10_000:
        raise InvalidInput(f"limit is {request.limit}: choose 1 to 10000")
    releases = platform.releases.history(request.endpoint, limit=request.limit)
    if not releases:
        raise NotFound(f"endpoint {request.endpoint!r} was never released: `taut status` lists what is live")
    return {"endpoint": request.endpoint, "releases": to_json(releases)}


def _live(platform: Platform, _caller: Caller, _request: Nothing, _progress: Progress) -> Json:
    with platform.records.read() as tx:
        routes = platform.releases.routes(tx)
        epoch = platform.releases.epoch(tx)
    live = [
        {"endpoint": route.endpoint, "release": route.release, "version": str(route.version)}
        for route in routes
    ]
    return {"epoch": epoch, "live": live}


def word_resource(request: Any) -> str:
    return f"release:{request.release}"


def endpoint_of_word(platform: Platform, request: Any) -> str:
    """The endpoint of a release that is named by its id or by its endpoint: rights are on endpoints."""
    word = request.release
    return f"endpoint:{platform.releases.show(word).endpoint if word.startswith('rel_') else word}"


def _endpoint_shown(platform: Platform, request: ReleaseOf) -> str:
    release = request.release or (request.endpoint if request.endpoint.startswith("rel_") else "")
    return f"endpoint:{platform.releases.show(release).endpoint}" if release else _endpoint(request)


def _endpoint(request: Any) -> str:
    return f"endpoint:{request.endpoint or 'any'}"


OPERATIONS: Final = (
    Operation(name="release.pause", action="release.pause", request=ReleaseWord, handle=_pause, resource=word_resource, of=endpoint_of_word, summary="Let a release under way change no weight until it is resumed"),
    Operation(name="release.resume", action="release.resume", request=ReleaseWord, handle=_resume, resource=word_resource, of=endpoint_of_word, fresh=True, summary="Let a release go on that is paused or held"),
    Operation(name="release.promote", action="release.promote", request=ReleasePromote, handle=_promote, resource=word_resource, of=endpoint_of_word, fresh=True, summary="Let a canary, a shadow or a version of an experiment take over at once"),
    Operation(name="release.status", action="release.read", request=ReleaseOf, handle=release_status, resource=_endpoint, of=_endpoint_shown, reads=True, summary="Show the release under way, or the live one"),
    Operation(name="release.history", action="release.read", request=ReleaseHistory, handle=_history, resource=_endpoint, reads=True, summary="List an endpoint's releases"),
    Operation(name="release.live", action="release.read", request=Nothing, handle=_live, resource=lambda _request: "endpoint:any", reads=True, summary="Show what answers now"),
)  # fmt: skip
