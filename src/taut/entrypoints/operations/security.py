"""Operations on how security stands: what a person should look at, figures, ages."""

from __future__ import annotations

from datetime import datetime, timedelta
from typing import Any, Final

from taut.core.errors import InvalidInput, Unavailable
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
from taut.trust.threats import Setting
from taut.workflows import threats

_DAYS_MAX: Final = 365
_OLD_DAYS: Final = 365
_FINDINGS_MAX: Final = 1000


class SecurityReport(Request, frozen=True):
    """days: how far back is judged; habits are known from the thirty days before that."""

    days: int = 7


class SecurityReview(Request, frozen=True):
    """digest: of the model that was looked at. reason: the conclusion."""

    digest: str
    reason: str


def setting_of(config: Any) -> Setting:
    """Return what of a configuration decides about flows; values that open something stay where they are."""

    def scheme(url: str) -> str:
        return url.partition(":")[0].partition("+")[0]

    def host(url: str) -> str:
        from urllib.parse import urlsplit

        found = urlsplit(url)
        return f"{found.scheme}://{found.hostname}" if found.hostname else ""

    return Setting(
        records=scheme(config.records), blobs=scheme(config.blobs), bus=scheme(config.bus), keys=scheme(config.keys),
        sealed=config.seals_blobs, tls=bool(config.tls_cert), client_certificates=bool(config.tls_client_ca),
        otlp=host(config.otlp), oidc=host(config.oidc_issuer), ledger_copy=bool(config.ledger_copy), sandbox=config.sandbox,
    )  # fmt: skip


def _threats(platform: Platform, _caller: Caller, _request: Nothing, _progress: Progress) -> Json:
    return _model(platform, threats.now(platform, setting_of(platform.config)))


def _review(platform: Platform, caller: Caller, request: SecurityReview, _progress: Progress) -> Json:
    found = threats.review(
        platform, setting_of(platform.config), digest=request.digest, reason=request.reason, actor=caller.principal.id
    )  # fmt: skip
    return _model(platform, found)


def _model(_platform: Platform, model: threats.ThreatModel) -> Json:
    found: Json = to_json(model)
    states = [threat.state for threat in model.threats]
    return {**found, "open": states.count("open"), "crossing": sum(map(model.map.crosses, model.map.flows))}


class SecurityAudit(Request, frozen=True):
    """version: a model version, whose run's packages are looked up; None for those that are installed here."""

    version: str | None = None


def _audit(platform: Platform, _caller: Caller, request: SecurityAudit, progress: Progress) -> Json:
    from taut.trust.supply import installed
    from taut.workflows.supply import locked_versions

    advisories = platform.watches.advisories
    if advisories is None:
        raise Unavailable(
            "no advisories are mirrored here, so nothing can be said of vulnerabilities: set TAUT_ADVISORIES to a folder or zip "
            "of OSV records"
        )
    progress("reading the advisories", None)
    if request.version is None:
        packages, of = installed(), "installed here"
    else:
        info = platform.registry.show(platform.registry.resolve(request.version))
        packages, of = locked_versions(platform, info.candidate.lock), str(info.ref)
    audit = advisories.audit(packages, now=platform.clock.now())
    return {"of": of, "ok": not audit.found, **to_json(audit)}


def _report(platform: Platform, _caller: Caller, request: SecurityReport, progress: Progress) -> Json:
    from taut.workflows.notices import look
    from taut.workflows.posture import ages, guard_cost, linearity, provisioning

    if not 1 <= request.days <= _DAYS_MAX:
        raise InvalidInput(f"days is {request.days}: choose 1 to {_DAYS_MAX}")
    now: datetime = platform.clock.now()
    since = now - timedelta(days=request.days)
    progress("judging the ledger", 0.1)
    looked = look(platform, since=since)
    progress("reading the prediction log", 0.6)
    return {
        "at": to_json(now),
        "since": to_json(since),
        "ledger": {"leaves": looked.leaves, "whole": looked.whole},
        "notices": [
            {**to_json(notice), "at": to_json(_time(notice.at_us))} for notice in looked.notices
        ],
        "findings": to_json(platform.watches.findings.list(state="open", limit=_FINDINGS_MAX)),
        "threat_model": _reviewed(platform),
        "provisioning": to_json(provisioning(platform, since=since)),
        "guard": to_json(guard_cost(platform.publisher)),
        "linearity": to_json(linearity(platform, since=since)),
        "coverage": coverage(),
        "ages": to_json([*_keys(platform, now), *_certificates(platform, now), *ages(platform, now=now, old_days=_OLD_DAYS)]),
    }  # fmt: skip


def _reviewed(platform: Platform) -> Json | None:
    """Return whether the threat model is stored and was reviewed; None where no project is applied."""
    if platform.plans.current() is None:
        return None
    model = threats.now(platform, setting_of(platform.config))
    return {
        "digest": model.digest, "stored": model.stored, "reviewed_by": model.reviewed_by or None,
        "open": sum(1 for threat in model.threats if threat.state == "open"),
    }  # fmt: skip


def coverage() -> Json:
    """Return how much of what can be done is decided by policy. A test walks routes, commands and readings of rows too."""
    from taut.entrypoints.operations import operation_table
    from taut.trust.policy import ACTIONS

    table = list(operation_table())
    used = {operation.action for operation in table}
    return {
        "operations": len(table),
        "decided": sum(1 for operation in table if operation.action in ACTIONS and not operation.open),
        "open": sorted(operation.name for operation in table if operation.open),
        "actions": len(ACTIONS),
        "actions_without_operation": sorted(set(ACTIONS) - used),
        "undecided": sorted(operation.name for operation in table if operation.action not in ACTIONS),
        "shown_by": "tests/unit/entrypoints/test_every_action.py",
    }


def _keys(platform: Platform, now: datetime) -> list[Any]:
    from taut.workflows.posture import Age
    from taut.workflows.rotation import states

    limit = now - timedelta(days=_OLD_DAYS)
    return [
        Age(
            what="key", name=state.key, since=state.since, old=state.since is not None and state.since < limit
        )
        for state in states(platform)
    ]


def _certificates(platform: Platform, now: datetime) -> list[Any]:
    from datetime import UTC

    from taut.entrypoints.certificates import told
    from taut.trust.tls import WARN_DAYS
    from taut.workflows.posture import Age

    found = []
    for said in told(platform.home):
        until = datetime.fromtimestamp(said["not_after"], tz=UTC)
        old = until - now < timedelta(days=WARN_DAYS)
        found.append(Age(what="certificate", name=str(said["process"]), since=None, until=until, old=old))
    return found


def _time(at_us: int) -> datetime:
    from taut.core.times import from_us

    return from_us(at_us)


def _any(_request: Any) -> str:
    return "security:any"


OPERATIONS: Final = (
    Operation(name="security.threats", action="security.read", request=Nothing, handle=_threats, resource=_any, reads=True, summary="Show the threat model: flows of data, what threatens them, what stands against it"),
    Operation(name="security.review", action="security.review", request=SecurityReview, handle=_review, resource=_any, summary="Record that a person reviewed the threat model"),
    Operation(name="security.audit", action="security.read", request=SecurityAudit, handle=_audit, resource=_any, reads=True, summary="Look for known vulnerabilities in packages, or say that it could not"),
    Operation(name="security.report", action="security.read", request=SecurityReport, handle=_report, resource=_any, reads=True, summary="Report how security stands: notices, findings, figures, ages"),
)  # fmt: skip
