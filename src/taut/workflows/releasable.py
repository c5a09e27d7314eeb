"""What the release gate looks at: whether each version was approved, is what was signed, can run, and fits its callers."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from taut.core.errors import TautError
from taut.core.evidence import Check, Evidence, Outcome, run_checks
from taut.core.refs import Kind, Ref, VersionRef
from taut.core.schema import ModelSignature
from taut.project.declared import judged_of
from taut.project.manifest import EndpointSpec
from taut.workflows.freezes import unfrozen
from taut.workflows.rooms import Rooms


def release_evidence(
    rooms: Rooms,
    endpoint: EndpointSpec,
    versions: Sequence[VersionRef],
    id_: str,
    *,
    strategy: str,
    despite: str,
) -> Evidence:
    """Look at what a release asks for: at each of its versions, and at whether it may start now. despite: see `unfrozen`."""
    return Evidence(
        subject=str(Ref(Kind.RELEASE, id_)),
        checks=run_checks(
            [
                ("approved", lambda: _each(versions, lambda one: _approved(rooms, one))),
                ("verified", lambda: _each(versions, lambda one: _verified(rooms, one))),
                ("runtime", lambda: _each(versions, lambda one: _runtime(rooms, endpoint, one))),
                ("compatible", lambda: _each(versions, lambda one: _compatible(rooms, endpoint, one))),
                ("strategy", lambda: _strategy(rooms, strategy)),
                ("unfrozen", lambda: unfrozen(rooms, endpoint.name, despite)),
            ]
        ),
        facts={
            "endpoint": endpoint.name,
            "version": ", ".join(map(str, versions)),
            "strategy": strategy,
        },
    )


def _each(versions: Sequence[VersionRef], check: Callable[[VersionRef], Check]) -> Check:
    """Check each version: the first that fails speaks for all."""
    found = [check(one) for one in versions]
    return next((one for one in found if one.outcome is not Outcome.PASSED), found[0])


def _approved(rooms: Rooms, version: VersionRef) -> Check:
    """Approved, and by as many people as the project asks for now: it may ask for more than when it was judged."""
    info, manifest = rooms.registry.show(version), rooms.plans.require()
    if not info.releasable:
        message = f"{version} is {info.state}: `taut model approve {version}` first"
        return Check(name="approved", outcome=Outcome.FAILED, message=message)
    spec = judged_of(manifest, version.name)
    declared = 0 if spec is None else spec.approvals
    needed = max(declared, 1 if manifest.environment == "production" else 0)
    given = len({word.principal for word in info.approvals if word.approved})
    return Check(
        name="approved",
        outcome=Outcome.PASSED if given >= needed else Outcome.FAILED,
        message=f"{version} is {info.state}"
        if given >= needed
        else "too few approved it: train it anew and ask them",
        observed=given,
        limit=needed,
    )


def _verified(rooms: Rooms, version: VersionRef) -> Check:
    try:
        rooms.registry.load(version, to_serve=True)
    except TautError as error:
        return Check(name="verified", outcome=Outcome.FAILED, message=str(error))
    return Check(name="verified", outcome=Outcome.PASSED, message="signature and digests verified")


def _runtime(rooms: Rooms, endpoint: EndpointSpec, version: VersionRef) -> Check:
    """Code runs in workers, whatever an endpoint says; one that says otherwise is told before it is live."""
    form = rooms.registry.signature(version).form
    if form == "code" and endpoint.runtime == "inline":
        said = (
            f'{version} is code, which runs in worker processes only, and endpoint {endpoint.name} says runtime="inline": '
            'say runtime="worker", or leave it out, and apply the project'
        )
        return Check(name="runtime", outcome=Outcome.FAILED, message=said)
    if form == "code" and endpoint.placement not in ("auto", "cpu"):
        said = (
            f"{version} is code, which runs on the CPU, and endpoint {endpoint.name} says "
            f"placement={endpoint.placement!r}: leave it out, and apply the project"
        )
        return Check(name="runtime", outcome=Outcome.FAILED, message=said)
    where = "worker processes" if form == "code" else endpoint.runtime
    return Check(name="runtime", outcome=Outcome.PASSED, message=f"{form}, runs: {where}")


def _compatible(rooms: Rooms, endpoint: EndpointSpec, version: VersionRef) -> Check:
    with rooms.records.read() as tx:
        live = next((r for r in rooms.releases.routes(tx) if r.endpoint == endpoint.name), None)
    if live is None:
        return Check(name="compatible", outcome=Outcome.PASSED, message="nothing is live yet")
    faults = incompatibilities(rooms.registry.signature(live.version), rooms.registry.signature(version))
    if faults:
        return Check(
            name="compatible", outcome=Outcome.FAILED,
            message=f"callers of {live.version} would fail: {'; '.join(faults)}; use another endpoint",
        )  # fmt: skip
    return Check(
        name="compatible", outcome=Outcome.PASSED, message=f"takes and gives what {live.version} does"
    )


def incompatibilities(live: ModelSignature, candidate: ModelSignature) -> list[str]:
    """Say what a caller of `live` would trip over: new or retyped request columns, another kind of answer."""
    known = {column.name: column for column in live.request}
    faults = []
    for column in candidate.request:
        before = known.get(column.name)
        if before is None and not column.nullable:
            faults.append(f"column {column.name} is new and required")
        elif before is not None and before.dtype is not column.dtype:
            faults.append(f"column {column.name} was {before.dtype}, is {column.dtype}")
        elif before is not None and before.nullable and not column.nullable:
            faults.append(f"column {column.name} may no longer be null")
    gone = sorted(set(known) - {column.name for column in candidate.request})
    faults += [f"column {name} is no longer taken" for name in gone]
    if (live.output, live.classes) != (candidate.output, candidate.classes):
        faults.append("the answer has another form")
    return faults


def _strategy(rooms: Rooms, strategy: str) -> Check:
    environment = rooms.plans.environment()
    allowed = environment != "production" or strategy != "direct"
    return Check(
        name="strategy", outcome=Outcome.PASSED if allowed else Outcome.FAILED,
        message=f"{strategy} in {environment}" + ("" if allowed else ": not allowed, use steps"),
    )  # fmt: skip
