"""Who asked for what, as it was recorded; who could ask; and what other policies would have said."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from datetime import datetime, timedelta
from typing import Any, Final

import msgspec

from taut.core.times import from_us, to_us
from taut.serving.predictions.record import SHADOWED, TAKEN, decode_record
from taut.trust.identity import OWNER, Principal
from taut.trust.policy import ACTIONS, DISCLOSING, Facts, Policy, facts
from taut.trust.policy.actions import OWN
from taut.workflows.rooms import Rooms

ACCESSED: Final = "data.accessed"
"""Kind of the leaf that says that rows were handed out; its body names the action."""

LEAF_ACTIONS: Final[dict[str, str]] = {
    "verdict.data": "data.ingest", "data.repaired": "data.repair", "data.discarded": "data.repair",
    "data.rollback": "data.rollback", "data.unsealed": "data.unseal", "features.built": "features.build",
    "features.materialized": "features.materialize", "run.": "train", "trigger.fired": "train", "trigger.paused": "train", "trigger.resumed": "train", "model.approved": "model.approve",
    "model.rejected": "model.reject", "model.retired": "model.reject", "model.alias": "release.promote",
    "edge.exported": "model.export", "edge.device": "edge.report", "release.started": "release.start", "release.unfrozen": "release.unfreeze",
    "release.promoted": "release.promote", "release.canary.begun": "release.start", "release.canary.paused": "release.pause", "release.canary.resumed": "release.resume", "release.shadow.begun": "release.start", "release.shadow.switched": "release.promote", "release.shadow.resumed": "release.resume", "release.experiment.begun": "release.start", "release.experiment.decided": "release.promote", "release.experiment.paused": "release.pause", "release.experiment.resumed": "release.resume", "release.aborted": "release.abort",
    "release.withdrawn": "release.abort", "release.rolled_back": "release.rollback",
    "batch.scored": "batch.score", "stream.begun": "stream.run", "plan.applied": "plan.apply",
    "identity.principal.": "user.admin", "identity.token.created": "token.create",
    "identity.token.revoked": "token.revoke", "identity.tokens.revoked": "token.revoke",
    "identity.invited": "user.admin", "identity.linked": "user.admin", "identity.passkey.": "account.self",
    "identity.session.": "account.self", "identity.sessions.": "account.self",
    "identity.password.": "account.self", "identity.totp.": "account.self", "identity.recovery_code.": "account.self",
    "machine.": "fleet.join", "machine.invited": "machine.invite", "machine.revoked": "fleet.revoke", "identity.key.": "key.admin", "secret.": "secret.admin", "break_glass.": "break.glass",
    "finding.dismissed": "alert.dismiss", "containment.begun": "contain.begin",
    "containment.prolonged": "contain.begin", "containment.lifted": "contain.lift",
    "incident.opened": "incident.open", "incident.noted": "incident.note", "incident.assigned": "incident.assign",
    "playbook.": "incident.tell", "drill.": "drill.run", "verdict.drill": "drill.run",
    "incident.graded": "incident.grade", "incident.mitigated": "incident.mitigate", "incident.resolved": "incident.resolve",
    "keys.rotated": "keys.rotate",
}  # fmt: skip
"""What somebody did, by the kind of the leaf that it left; a kind that ends with a dot stands for all that begin so."""

TRACED: Final = frozenset({*LEAF_ACTIONS.values(), *DISCLOSING, "predict", "feedback"}) - {OWN}
"""Actions that leave a trace of who did them; of the others nobody can say that they were not used.

One's own account is nothing that a review takes away.
"""

_RESOURCES: Final = {
    "data": "dataset", "features": "features", "model": "model", "train": "model", "release": "endpoint",
    "predict": "endpoint", "feedback": "endpoint", "stream": "endpoint", "log": "endpoint",
}  # fmt: skip
_MAX_LEAVES: Final = 10_000
_MAX_RECORDS: Final = 50_000


class Asked(msgspec.Struct, frozen=True, kw_only=True):
    """Something that was asked for, how often, and when last."""

    principal: str
    action: str
    resource: str
    times: int
    last_at: datetime


class Changed(msgspec.Struct, frozen=True, kw_only=True):
    """A recorded request that other policies would have answered otherwise."""

    principal: str
    action: str
    resource: str
    times: int
    before: bool
    after: bool
    because: tuple[str, ...]


class Access(msgspec.Struct, frozen=True, kw_only=True):
    """One principal's rights beside their use.

    could: action -> the resources on which it is allowed, or `*` for all. did: action -> how often, in the window.
    unused: what he could and did not, of the actions that leave a trace.
    """

    principal: str
    kind: str
    roles: tuple[str, ...]
    could: dict[str, tuple[str, ...]]
    did: dict[str, int]
    unused: tuple[str, ...]


def recorded(rooms: Rooms, *, since: datetime) -> tuple[Asked, ...]:
    """Return what was asked for since then, from the newest 10,000 leaves and 50,000 records of the prediction log."""
    found: dict[tuple[str, str, str], list[int]] = {}
    for who, action, resource, at_us in (*_from_ledger(rooms, since), *_from_log(rooms, since)):
        seen = found.setdefault((who, action, resource), [0, 0])
        seen[0], seen[1] = seen[0] + 1, max(seen[1], at_us)
    return tuple(
        Asked(principal=who, action=action, resource=resource, times=times, last_at=from_us(at_us))
        for (who, action, resource), (times, at_us) in sorted(found.items())
    )


def compare(rooms: Rooms, old: Policy, new: Policy, asked: Iterable[Asked]) -> tuple[Changed, ...]:
    """Return what `new` would have said otherwise than `old`, each at the hour of the last such request.

    Whoever has no account any more is asked about without a role, and is denied by both.
    """
    people = _people(rooms)
    changed: list[Changed] = []
    for one in asked:
        who = people.get(one.principal)
        if who is None:
            continue
        before = old.decide(who, one.action, one.resource, _context(old, one))
        after = new.decide(who, one.action, one.resource, _context(new, one))
        if before.allow != after.allow:
            changed.append(
                Changed(
                    principal=one.principal, action=one.action, resource=one.resource, times=one.times,
                    before=before.allow, after=after.allow, because=after.reasons,
                )
            )  # fmt: skip
    return tuple(changed)


def wider(rooms: Rooms, old: Policy, new: Policy, *, at: datetime) -> tuple[str, ...]:
    """Return what `new` gives to whom and `old` did not, as `PRINCIPAL ACTION RESOURCE`, each action once for each."""
    context = facts({"author": "", "plane": "control", "now": at, **_environment(new)})
    found = []
    for who in _people(rooms).values():
        for action, names in _askable(new).items():
            gained = next(
                (
                    name
                    for name in names
                    if new.decide(who, action, name, context).allow
                    and not old.decide(who, action, name, context).allow
                ),
                None,
            )
            if gained is not None:
                found.append(f"{who.id} {action} {gained}")
    return tuple(found)


def review(rooms: Rooms, policy: Policy, *, days: int) -> tuple[Access, ...]:
    """Return everybody's rights beside their use in the last days."""
    now = rooms.clock.now()
    used: dict[str, dict[str, int]] = {}
    for one in recorded(rooms, since=now - timedelta(days=days)):
        counts = used.setdefault(one.principal, {})
        counts[one.action] = counts.get(one.action, 0) + one.times
    asked = _askable(policy)
    context = facts({"author": "", "plane": "control", "now": now, **_environment(policy)})
    return tuple(
        _access(policy, who, asked, context, used.get(who.id, {})) for who in _people(rooms).values()
    )


def _access(
    policy: Policy, who: Principal, asked: Mapping[str, list[str]], context: Facts, did: dict[str, int]
) -> Access:
    could: dict[str, tuple[str, ...]] = {}
    for action, names in asked.items():
        may = tuple(name for name in names if policy.decide(who, action, name, context).allow)
        if may:
            could[action] = ("*",) if len(may) == len(names) else may
    return Access(
        principal=who.id, kind=who.kind, roles=who.roles, could=could, did=dict(sorted(did.items())),
        unused=tuple(action for action in could if action in TRACED and action not in did),
    )  # fmt: skip


def _askable(policy: Policy) -> dict[str, list[str]]:
    """Return what to ask of each action: what is declared, and a name of the kind that stands for whatever is not.

    One name is enough where no policy of the project bears on the action: the built-in ones permit by role.
    """
    by_kind: dict[str, list[str]] = {kind: [f"{kind}:any"] for kind in _RESOURCES.values()}
    for name in policy.resources:
        kind, _, rest = name.partition(":")
        if rest and kind in by_kind:
            by_kind[kind].append(name)
    found = {
        action: by_kind.get(_RESOURCES.get(action.partition(".")[0], ""), ["platform:all"])
        for action in ACTIONS
    }
    return {
        action: names if policy.looks_at_callers(action) else names[:1] for action, names in found.items()
    }


def _environment(policy: Policy) -> dict[str, str]:
    found = policy.attributes("").environment
    return {"environment": found} if found else {}


def _people(rooms: Rooms) -> dict[str, Principal]:
    found = {
        row.id: Principal(id=row.id, kind=row.kind, roles=row.roles)
        for row in rooms.identity.principals()
        if not row.disabled
    }
    return {**found, OWNER.id: OWNER}


def _context(policy: Policy, one: Asked) -> Facts:
    known: dict[str, object] = {"now": one.last_at, "plane": "data" if one.action == "predict" else "control"}
    if one.action == "predict":
        risk = policy.attributes(one.resource).risk
        return facts({**known, "risk": risk} if risk else known)
    return facts({**known, "author": "", **_environment(policy)})


def _from_ledger(rooms: Rooms, since: datetime) -> Iterator[tuple[str, str, str, int]]:
    for leaf in rooms.ledger.show(since=since, limit=_MAX_LEAVES):
        action = action_of(leaf.kind, leaf.body)
        if action is not None:
            yield (
                leaf.actor,
                action,
                leaf.subject if ":" in leaf.subject else f"platform:{leaf.subject}",
                leaf.at_us,
            )


def action_of(kind: str, body: Mapping[str, Any]) -> str | None:
    """Return what somebody did who left such a leaf; None for what the platform does by itself."""
    if kind == ACCESSED:
        return str(body.get("action", ""))
    exact = LEAF_ACTIONS.get(kind)
    return exact or next(
        (action for begin, action in LEAF_ACTIONS.items() if begin.endswith(".") and kind.startswith(begin)),
        None,
    )


def _from_log(rooms: Rooms, since: datetime) -> Iterator[tuple[str, str, str, int]]:
    left, since_us = _MAX_RECORDS, to_us(since)
    for segment in reversed(rooms.predictions.segments()):
        for payload in reversed(rooms.predictions.payloads(segment)):
            record = decode_record(payload)
            if left <= 0:
                return
            if record.time_us < since_us:
                break  # the rest of this segment is older; another gateway's may not be
            if record.status == SHADOWED:
                continue  # what nobody was given
            left -= 1
            action = "feedback" if record.status == TAKEN else "predict"
            yield record.principal, action, f"endpoint:{record.head.endpoint}", record.time_us
