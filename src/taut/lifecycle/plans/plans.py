"""The plans room: applied manifests with their history, and the one transaction that changes the project."""

from __future__ import annotations

from datetime import datetime
from typing import Any, Final

import msgspec
from sqlalchemy import Row, insert, select, update

from taut.core.canonical import canonical_json, parse_digest
from taut.core.errors import Conflict, Corrupt, InvalidInput, NotFound
from taut.core.evidence import Evidence, Verdict
from taut.core.refs import Kind, Ref
from taut.core.times import from_us, to_us
from taut.lifecycle.plans.diff import Change, diff
from taut.lifecycle.plans.gate import PLAN_GATE, Surroundings, plan_evidence
from taut.lifecycle.plans.tables import applied, current
from taut.ports.blobs import Blobs
from taut.ports.keys import Keys
from taut.ports.records import Records, Tx, transact
from taut.ports.world import Clock, Ids
from taut.project.manifest import Manifest
from taut.trust.ledger import Entry, Ledger
from taut.trust.lineage import Lineage
from taut.trust.signing import SignedStatement, sign_statement, verify_statement

BUNDLE_TYPE: Final = "application/vnd.taut.bundle+json"
_MANIFEST: Final = msgspec.json.Decoder(Manifest)
_NOW: Final = "project"
_MAX_MANIFEST: Final = 4 * 2**20


class PlanInfo(msgspec.Struct, frozen=True, kw_only=True):
    """An applied plan. `number` counts from 1 in order of application."""

    plan: str
    number: int
    digest: str
    bundle: str
    actor: str
    applied_at: datetime
    reverts_to: str | None = None


class Plan(msgspec.Struct, frozen=True, kw_only=True):
    """What applying would do. `base`: the plan that holds now, None before the first; pass it on to `apply`."""

    base: str | None
    changes: tuple[Change, ...]
    verdict: Verdict
    evidence: Evidence


class Applied(msgspec.Struct, frozen=True, kw_only=True):
    """What applying did. `plan` is None when the gate did not admit; the project is then as it was."""

    plan: str | None
    changes: tuple[Change, ...]
    verdict: Verdict


class Plans:
    """The register of what the project is.

    Guarantees: the manifest, the bundle's signature, the ledger leaf and the lineage commit together; a manifest that
    the plan gate did not admit never becomes current; nothing is deleted, so every earlier plan can be returned to.
    Not guaranteed: that what runs follows at once; stories and gateways pick the change up.
    """

    def __init__(
        self,
        *,
        records: Records,
        blobs: Blobs,
        ledger: Ledger,
        lineage: Lineage,
        clock: Clock,
        ids: Ids,
        keys: Keys,
    ) -> None:
        self._records: Final = records
        self._blobs: Final = blobs
        self._ledger: Final = ledger
        self._lineage: Final = lineage
        self._clock: Final = clock
        self._ids: Final = ids
        self._keys: Final = keys

    def plan(self, manifest: Manifest, bundle: bytes, surroundings: Surroundings) -> Plan:
        """Say what applying would change, and judge it. Changes nothing, and leaves no leaf."""
        with self._records.read() as tx:
            row = _current_row(tx)
        return self._judge(row, manifest, bundle, surroundings)

    def apply(
        self,
        manifest: Manifest,
        bundle: bytes,
        *,
        actor: str,
        surroundings: Surroundings,
        base: str | msgspec.UnsetType | None = msgspec.UNSET,
        reverts_to: str | None = None,
    ) -> Applied:
        """Make `manifest` the project if the plan gate admits it; the verdict is a leaf of the ledger either way.

        base: the plan that the caller decided upon (`Plan.base`); when another holds by now, Conflict is raised and
        nothing changes. A manifest equal to the current one changes nothing and is not applied again.
        Raises InvalidInput for a manifest beyond 4 MiB.
        """
        body = canonical_json(manifest)
        if len(body) > _MAX_MANIFEST:
            raise InvalidInput(
                f"the manifest has {len(body):,} bytes, more than {_MAX_MANIFEST:,}: split the project"
            )
        self._blobs.put(bundle)  # first, and outside the transaction: an unreferenced blob is harmless

        def do(tx: Tx) -> Applied:
            row = _current_row(tx)
            found = None if row is None else str(row.id)
            if base is not msgspec.UNSET and base != found:
                raise Conflict(
                    f"the project is at plan {found or 'none'}, not {base or 'none'}: plan again, then apply"
                )
            judged = self._judge(row, manifest, bundle, surroundings)
            if found is not None and not judged.changes and judged.verdict.admitted:
                return Applied(plan=found, changes=(), verdict=judged.verdict)
            self._ledger.record_verdict(tx, judged.verdict, actor=actor, evidence=judged.evidence)
            if not judged.verdict.admitted:
                return Applied(plan=None, changes=judged.changes, verdict=judged.verdict)
            number = 1 if row is None else _last_number(tx) + 1
            plan = self._write(tx, manifest, body, number, actor=actor, reverts_to=reverts_to)
            return Applied(plan=plan, changes=judged.changes, verdict=judged.verdict)

        return transact(self._records, do)

    def revert(self, to: str, *, actor: str, surroundings: Surroundings) -> Applied:
        """Apply an earlier plan's manifest and bundle again, through the same gate; the project's folder stays.

        to: its id, or its number. Raises NotFound for an unknown one, Corrupt when its bundle was changed.
        """
        with self._records.read() as tx:
            row = _find(tx, to)
            now = _current_row(tx)
        manifest = _MANIFEST.decode(row.manifest)
        base = None if now is None else str(now.id)
        if now is not None:  # a folder that was moved meanwhile is not moved back
            manifest = msgspec.structs.replace(manifest, root=_MANIFEST.decode(now.manifest).root)
        bundle = self.bundle(row.bundle)
        return self.apply(
            manifest, bundle, actor=actor, surroundings=surroundings, base=base, reverts_to=str(row.id)
        )

    def current(self) -> Manifest | None:
        """Return the manifest that holds now, or None before the first plan."""
        with self._records.read() as tx:
            return self.current_in(tx)

    def current_in(self, tx: Tx) -> Manifest | None:
        """Return the manifest that holds in `tx`, so that what is decided by it commits with it."""
        row = _current_row(tx)
        return None if row is None else _MANIFEST.decode(row.manifest)

    def require(self) -> Manifest:
        """Return the manifest that holds now. Raises NotFound before the first plan."""
        manifest = self.current()
        if manifest is None:
            raise NotFound("no project is applied here: run `taut apply` in the project's folder")
        return manifest

    def environment(self) -> str:
        """Return the project's environment; `development` before the first plan."""
        manifest = self.current()
        return "development" if manifest is None else manifest.environment

    def current_id(self) -> str | None:
        """Return the id of the plan that holds now; cheap enough to be asked many times a second."""
        with self._records.read() as tx:
            return tx.execute(select(current.c.plan)).scalar_one_or_none()

    def current_info(self) -> PlanInfo | None:
        with self._records.read() as tx:
            row = _current_row(tx)
        return None if row is None else _info(row)

    def show(self, plan: str) -> tuple[PlanInfo, Manifest]:
        """Return an applied plan, by id or number. Raises NotFound."""
        with self._records.read() as tx:
            row = _find(tx, plan)
        return _info(row), _MANIFEST.decode(row.manifest)

    def history(self, *, limit: int = 100) -> tuple[PlanInfo, ...]:
        """Return applied plans, the newest first."""
        with self._records.read() as tx:
            rows = tx.execute(select(applied).order_by(applied.c.number.desc()).limit(limit)).all()
        return tuple(_info(row) for row in rows)

    def bundle(self, digest: str) -> bytes:
        """Return the code of an applied plan, its signature and digest verified.

        Raises NotFound when no applied plan has this bundle, Denied or Corrupt when it is not what control signed.
        """
        self.verify_bundle(digest)
        return self._blobs.read(digest)

    def verify_bundle(self, digest: str) -> dict[str, Any]:
        """Check that control signed the bundle `digest` and return the statement's payload; see `bundle`."""
        parse_digest(digest)
        with self._records.read() as tx:
            row = tx.execute(
                select(applied).where(applied.c.bundle == digest).order_by(applied.c.number.desc()).limit(1)
            ).first()
        if row is None:
            raise NotFound(f"no applied plan has bundle {digest}: run `taut apply`")
        statement = SignedStatement.from_json(row.statement)
        keys = self._keys.public_keys(purpose="bundle")
        payload = verify_statement(statement, keys, payload_type=BUNDLE_TYPE)
        if payload.get("bundle") != digest or payload.get("manifest") != row.digest:
            raise Corrupt(f"the signature of plan {row.id} is about other code: apply the project again")
        return payload

    def _judge(
        self, row: Row[Any] | None, manifest: Manifest, bundle: bytes, surroundings: Surroundings
    ) -> Plan:
        before = None if row is None else _MANIFEST.decode(row.manifest)
        changes = diff(before, manifest)
        evidence = plan_evidence(manifest, bundle, changes, surroundings)
        base = None if row is None else str(row.id)
        return Plan(base=base, changes=changes, verdict=PLAN_GATE.judge(evidence), evidence=evidence)

    def _write(
        self, tx: Tx, manifest: Manifest, body: bytes, number: int, *, actor: str, reverts_to: str | None
    ) -> str:
        plan = self._ids.new("plan")
        digest = manifest.digest
        statement = sign_statement(
            self._keys,
            purpose="bundle",
            payload_type=BUNDLE_TYPE,
            payload={
                "bundle": manifest.bundle,
                "manifest": digest,
                "plan": plan,
                "project": manifest.project,
            },
        )
        tx.execute(
            insert(applied).values(
                id=plan, number=number, digest=digest, bundle=manifest.bundle, manifest=body.decode(), actor=actor,
                statement=statement.to_json().decode(), reverts_to=reverts_to, applied_us=to_us(self._clock.now()),
            )
        )  # fmt: skip
        moved = tx.execute(update(current).where(current.c.name == _NOW).values(plan=plan)).rowcount
        if moved == 0:
            tx.execute(insert(current).values(name=_NOW, plan=plan))
        facts = {"number": number, "manifest": digest, "bundle": manifest.bundle, "reverts_to": reverts_to}
        self._ledger.append(tx, Entry("plan.applied", str(Ref(Kind.PLAN, plan)), actor, facts))
        self._lineage.record(
            tx,
            activity="apply",
            inputs=[Ref(Kind.BUNDLE, manifest.bundle)],
            outputs=[Ref(Kind.PLAN, plan)],
            facts={"by": actor, "manifest": digest, "number": number},
        )
        return plan


def _current_row(tx: Tx) -> Row[Any] | None:
    return tx.execute(select(applied).join(current, current.c.plan == applied.c.id)).one_or_none()


def _last_number(tx: Tx) -> int:
    return int(tx.execute(select(applied.c.number).order_by(applied.c.number.desc()).limit(1)).scalar_one())


def _find(tx: Tx, plan: str) -> Row[Any]:
    numbered = plan.isascii() and plan.isdigit() and len(plan) < 10
    where = applied.c.number == int(plan) if numbered else applied.c.id == plan
    row = tx.execute(select(applied).where(where)).one_or_none()
    if row is None:
        raise NotFound(f"no applied plan {plan[:80]!r}: `taut plan history` lists them")
    return row


def _info(row: Row[Any]) -> PlanInfo:
    return PlanInfo(
        plan=row.id,
        number=row.number,
        digest=row.digest,
        bundle=row.bundle,
        actor=row.actor,
        applied_at=from_us(row.applied_us),
        reverts_to=row.reverts_to,
    )
