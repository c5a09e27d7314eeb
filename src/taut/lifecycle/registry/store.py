"""Versions, approvals, states and aliases in their tables."""

from __future__ import annotations

from datetime import datetime
from typing import Any, NamedTuple

import msgspec
from sqlalchemy import Row, func, insert, select, update

from taut.core.canonical import canonical_json
from taut.core.errors import Corrupt, NotFound
from taut.core.evidence import Evidence, Verdict
from taut.core.refs import VersionRef
from taut.core.times import from_us, to_us
from taut.lifecycle.registry import tables as t
from taut.lifecycle.registry.values import Approval, Candidate, Change, ModelState, VersionInfo
from taut.ports.records import Tx


class Signed(NamedTuple):
    """What is signed of a version when it enters, as JSON."""

    manifest: str
    provenance: str


def next_number(tx: Tx, model: str) -> int:
    highest = tx.execute(select(func.max(t.versions.c.number)).where(t.versions.c.model == model)).scalar()
    return int(highest or 0) + 1


def of_run(tx: Tx, run: str, variant: str = "") -> VersionRef | None:
    """Return the version that a run, or a variant of what it made, was registered as."""
    wanted = t.versions.c.run == run, t.versions.c.variant == variant
    row = tx.execute(select(t.versions.c.model, t.versions.c.number).where(*wanted)).one_or_none()
    return None if row is None else VersionRef(row.model, row.number)


def variant_of(candidate: Candidate) -> str:
    return "" if candidate.variant is None else candidate.variant.name


def add(tx: Tx, ref: VersionRef, candidate: Candidate, signed: Signed, *, at: datetime) -> None:
    tx.execute(
        insert(t.versions).values(
            model=ref.name, number=ref.number, run=candidate.run, variant=variant_of(candidate), state=str(ModelState.CANDIDATE),
            author=candidate.author, created_at_us=to_us(at), statement=signed.manifest, provenance=signed.provenance,
            candidate=canonical_json(candidate).decode(),
        )
    )  # fmt: skip
    _note(tx, ref, ModelState.CANDIDATE, at=at, actor=candidate.author, reason="registered")


def statement(tx: Tx, ref: VersionRef) -> str:
    """Return the signed manifest as it is stored. Raises NotFound."""
    return str(_row(tx, ref).statement)


def provenance(tx: Tx, ref: VersionRef) -> str:
    """Return the signed statement of how a version was made, as it is stored. Raises NotFound."""
    return str(_row(tx, ref).provenance)


def info(tx: Tx, ref: VersionRef) -> VersionInfo:
    """Return a version as it stands. Raises NotFound."""
    return _info(tx, _row(tx, ref))


def listed(tx: Tx, *, model: str | None, state: ModelState | None, limit: int) -> tuple[VersionInfo, ...]:
    """Return versions, the newest first."""
    query = (
        select(t.versions)
        .order_by(t.versions.c.created_at_us.desc(), t.versions.c.number.desc())
        .limit(limit)
    )
    if model is not None:
        query = query.where(t.versions.c.model == model)
    if state is not None:
        query = query.where(t.versions.c.state == str(state))
    return tuple(_info(tx, row) for row in tx.execute(query).all())


def judged(tx: Tx, ref: VersionRef, verdict: Verdict, evidence: Evidence) -> None:
    values = {"verdict": canonical_json(verdict).decode(), "evidence": canonical_json(evidence).decode()}
    tx.execute(update(t.versions).where(*_is(t.versions, ref)).values(**values))


def set_state(tx: Tx, ref: VersionRef, state: ModelState, *, at: datetime, actor: str, reason: str) -> None:
    tx.execute(update(t.versions).where(*_is(t.versions, ref)).values(state=str(state)))
    _note(tx, ref, state, at=at, actor=actor, reason=reason)


def add_approval(tx: Tx, ref: VersionRef, approval: Approval) -> None:
    tx.execute(
        insert(t.approvals).values(
            id=approval.id, model=ref.name, number=ref.number, principal=approval.principal,
            approved=approval.approved, reason=approval.reason, at_us=to_us(approval.at),
            self_approved=approval.self_approved,
        )
    )  # fmt: skip


def approvals(tx: Tx, ref: VersionRef) -> tuple[Approval, ...]:
    query = select(t.approvals).where(*_is(t.approvals, ref)).order_by(t.approvals.c.at_us, t.approvals.c.id)
    return tuple(
        Approval(
            id=row.id, principal=row.principal, approved=row.approved, reason=row.reason,
            at=from_us(row.at_us), self_approved=row.self_approved,
        )
        for row in tx.execute(query)
    )  # fmt: skip


def set_alias(tx: Tx, model: str, alias: str, number: int | None, *, at: datetime, actor: str) -> None:
    seq = tx.execute(
        select(func.max(t.aliases.c.seq)).where(t.aliases.c.model == model, t.aliases.c.alias == alias)
    ).scalar()
    tx.execute(
        insert(t.aliases).values(
            model=model, alias=alias, seq=int(seq or 0) + 1, number=number, at_us=to_us(at), actor=actor
        )
    )


def aliases(tx: Tx, model: str) -> dict[str, int]:
    """Return the aliases that hold now."""
    query = select(t.aliases).where(t.aliases.c.model == model).order_by(t.aliases.c.seq)
    latest = {row.alias: row.number for row in tx.execute(query)}
    return {alias: number for alias, number in latest.items() if number is not None}


def alias_history(tx: Tx, model: str, alias: str) -> tuple[Change, ...]:
    query = select(t.aliases).where(t.aliases.c.model == model, t.aliases.c.alias == alias)
    return tuple(
        Change(at=from_us(row.at_us), actor=row.actor, what=f"{model}@{row.number}" if row.number else "none")
        for row in tx.execute(query.order_by(t.aliases.c.seq))
    )


def history(tx: Tx, ref: VersionRef) -> tuple[Change, ...]:
    """Return the states of a version, the oldest first."""
    query = select(t.states).where(*_is(t.states, ref)).order_by(t.states.c.seq)
    return tuple(
        Change(at=from_us(row.at_us), actor=row.actor, what=row.state, reason=row.reason)
        for row in tx.execute(query)
    )


def _note(tx: Tx, ref: VersionRef, state: ModelState, *, at: datetime, actor: str, reason: str) -> None:
    seq = tx.execute(select(func.max(t.states.c.seq)).where(*_is(t.states, ref))).scalar()
    tx.execute(
        insert(t.states).values(
            model=ref.name, number=ref.number, seq=int(seq or 0) + 1, state=str(state), at_us=to_us(at),
            actor=actor, reason=reason,
        )
    )  # fmt: skip


def _is(table: Any, ref: VersionRef) -> tuple[Any, Any]:
    return table.c.model == ref.name, table.c.number == ref.number


def _row(tx: Tx, ref: VersionRef) -> Row[Any]:
    row = tx.execute(select(t.versions).where(*_is(t.versions, ref))).one_or_none()
    if row is None:
        raise NotFound(f"no model version {ref}: `taut model list` shows those that there are")
    return row


def _info(tx: Tx, row: Row[Any]) -> VersionInfo:
    ref = VersionRef(row.model, row.number)
    held = sorted(alias for alias, number in aliases(tx, row.model).items() if number == row.number)
    try:
        return VersionInfo(
            ref=ref,
            state=ModelState(row.state),
            candidate=msgspec.json.decode(row.candidate, type=Candidate),
            created_at=from_us(row.created_at_us),
            verdict=None if row.verdict is None else msgspec.json.decode(row.verdict, type=Verdict),
            evidence=None if row.evidence is None else msgspec.json.decode(row.evidence, type=Evidence),
            approvals=approvals(tx, ref),
            aliases=tuple(held),
        )
    except msgspec.DecodeError as error:
        raise Corrupt(f"the record of {ref} cannot be read: {error}") from error
