"""Whether those by whose rights playbooks act may do what the playbooks say, under the policies of the same plan."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Final

from taut.core.errors import InvalidInput
from taut.lifecycle.plans.policies import policy_of, policy_places
from taut.project.manifest import Manifest
from taut.project.responses import PlaybookSpec, PlayStepSpec
from taut.trust.identity import Principal

_ACTIONS: Final = {
    "page": "incident.tell", "notify": "incident.tell", "rollback": "release.rollback", "contain": "contain.begin",
}  # fmt: skip


def right_of(step: PlayStepSpec, *, endpoint: str, principal: str) -> tuple[str, str]:
    """Return the action and the resource that a step of a playbook asks a right for."""
    resource = {"rollback": f"endpoint:{endpoint or 'any'}", "contain": f"principal:{principal or 'any'}"}
    return _ACTIONS[step.do], resource.get(step.do, f"endpoint:{endpoint}" if endpoint else "incident:any")


def playbook_faults(manifest: Manifest, services: tuple[Principal, ...]) -> Iterator[str]:
    """Yield which playbooks could not do what they say, as far as that can be known before an alert names anybody."""
    if not manifest.playbooks:
        return
    known = {one.id: one for one in services}
    try:
        policy = policy_of(manifest)
    except InvalidInput:
        return  # the check of policies says why
    context = {"plane": "control", "local": True, "environment": manifest.environment}
    for book in manifest.playbooks:
        who = known.get(book.principal)
        if who is None:
            yield (
                f"playbook {book.name!r} acts as {book.principal!r}, and there is no such service that may act: "
                f"`taut user add {book.principal} --kind service --role responder`, or enable it"
            )
            continue
        for action, resource in dict.fromkeys(_rights(book, manifest)):
            decision = policy.decide(who, action, resource, context)
            if not decision.allow:
                said = ", ".join(policy_places(policy, decision.policies) or decision.reasons)
                yield f"playbook {book.name!r} acts as {who.id}, who may not {action} on {resource}: {said}"


def rights_lent(old: Manifest | None, new: Manifest) -> tuple[tuple[str, str], ...]:
    """Return the action and the resource of every step of playbooks that a new manifest brings or changes.

    They are carried out by the rights of whom the manifest names: whoever applies it lends rights that he must have himself.
    """
    before = set((old or Manifest()).playbooks)
    lent = (right for book in new.playbooks if book not in before for right in _rights(book, new))
    return tuple(dict.fromkeys(lent))


def _rights(book: PlaybookSpec, manifest: Manifest) -> Iterator[tuple[str, str]]:
    endpoints = book.endpoints or tuple(spec.name for spec in manifest.endpoints) or ("",)
    for step in book.steps:
        for endpoint in endpoints:
            yield right_of(step, endpoint=endpoint, principal="")
