"""What people say about a version: who may, how often, and what follows."""

from __future__ import annotations

from typing import Any, Final

from taut.core.canonical import digest_json
from taut.core.errors import Conflict, Denied
from taut.core.evidence import Scalar
from taut.core.refs import Kind, Ref, VersionRef
from taut.lifecycle.registry import store
from taut.lifecycle.registry.values import Approval, ModelState, VersionInfo
from taut.ports.records import Tx
from taut.ports.world import Clock, Ids
from taut.trust.identity import Principal
from taut.trust.ledger import Entry, Ledger
from taut.trust.lineage import Lineage

OPEN: Final = (ModelState.CANDIDATE, ModelState.HELD)
_APPROVERS: Final = frozenset({"approver", "admin"})


class People:
    """Records approvals and rejections with their ledger leaf and lineage; see `Registry.approve` and `reject`."""

    def __init__(self, ledger: Ledger, lineage: Lineage, clock: Clock, ids: Ids) -> None:
        self._ledger = ledger
        self._lineage = lineage
        self._clock = clock
        self._ids = ids

    def approve(
        self, tx: Tx, ref: VersionRef, principal: Principal, reason: str, *, single_user: bool
    ) -> VersionInfo:
        now = store.info(tx, ref)
        self._check_may_decide(now, principal)
        if now.verdict is None:
            raise Conflict(f"{ref} was not judged yet: the gate comes before people")
        own = principal.id == now.candidate.author
        if own and not single_user:
            raise Denied(
                f"{principal.id} trained {ref} and may not approve it: ask another person with the role approver"
            )
        approval = self._word(tx, now, principal, reason, approved=True, own=own)
        given = {item.principal for item in (*now.approvals, approval) if item.approved}
        if len(given) >= max(1, now.approvals_needed):
            said = f"approved by {', '.join(sorted(given))}"
            store.set_state(
                tx, ref, ModelState.APPROVED, at=approval.at, actor=principal.id,
                reason=f"{said}; self-approved, single user" if own else said,
            )  # fmt: skip
        return store.info(tx, ref)

    def reject(self, tx: Tx, ref: VersionRef, principal: Principal, reason: str) -> VersionInfo:
        now = store.info(tx, ref)
        own = principal.id == now.candidate.author
        if not own:
            self._check_may_decide(now, principal)
        elif now.state not in OPEN:
            raise Conflict(f"{ref} is {now.state}: only an open version can be rejected")
        word = self._word(tx, now, principal, reason, approved=False, own=own)
        store.set_state(tx, ref, ModelState.REJECTED, at=word.at, actor=principal.id, reason=reason)
        return store.info(tx, ref)

    def _check_may_decide(self, now: VersionInfo, principal: Principal) -> None:
        if not _APPROVERS & set(principal.roles):
            raise Denied(
                f"{principal.id} has none of the roles {', '.join(sorted(_APPROVERS))}: ask somebody who has"
            )
        if now.state not in OPEN:
            why = (
                f": {'; '.join(now.verdict.reasons)}"
                if now.state is ModelState.REJECTED and now.verdict
                else ""
            )
            raise Conflict(
                f"{now.ref} is {now.state}{why}: only an open version can be decided, train a new one"
            )
        if any(item.principal == principal.id for item in now.approvals):
            raise Conflict(f"{principal.id} has spoken on {now.ref} already: approvals count by person")

    def _word(
        self, tx: Tx, now: VersionInfo, principal: Principal, reason: str, *, approved: bool, own: bool
    ) -> Approval:
        approval = Approval(
            id=self._ids.new("approval"), principal=principal.id, approved=approved, reason=reason,
            at=self._clock.now(), self_approved=own and approved,
        )  # fmt: skip
        store.add_approval(tx, now.ref, approval)
        me, said = Ref(Kind.MODEL, str(now.ref)), Ref(Kind.APPROVAL, approval.id)
        body: dict[str, Any] = {"approval": approval.id, "verdict": digest_json(now.verdict)}
        if approval.self_approved:
            body["note"] = "self-approved, single user"
        kind = "model.approved" if approved else "model.rejected"
        self._ledger.append(tx, Entry(kind, str(me), principal.id, body, {"reason": reason}))
        facts: dict[str, Scalar] = {
            "by": principal.id,
            "approved": approved,
            "self_approved": own and approved,
        }
        self._lineage.record(
            tx, activity="approve" if approved else "reject", inputs=[me], outputs=[said], facts=facts
        )
        return approval
