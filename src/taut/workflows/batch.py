"""Score a dataset: pin what is scored by what, ask the gate, score chunk by chunk, keep one version of the result."""

from __future__ import annotations

from typing import Any, Final

import msgspec

from taut.core.canonical import digest_json
from taut.core.evidence import Check, Evidence, Gate, Outcome, Verdict, run_check
from taut.core.refs import Kind, Ref
from taut.core.schema import Column, DType, Schema
from taut.core.times import from_us
from taut.lifecycle.batch import NewResult, ResultInfo
from taut.lifecycle.registry import ModelState
from taut.ports.records import Tx
from taut.ports.stories import Story
from taut.ports.tables import TableManifest
from taut.serving.batch import REASONS, answer_schema
from taut.workflows.batch_pin import Batch as Batch
from taut.workflows.batch_pin import joined_as_signed
from taut.workflows.rooms import Rooms
from taut.workflows.scoring import Scoring

BATCH_GATE: Final = Gate(name="batch", required=frozenset({"approved", "verified", "rows"}))
"""Judges a result before it exists. approved: the version may serve. verified: its signature and bytes are those that
were approved. rows: no larger share of the rows than was allowed could not be scored."""

_REASONS_SHOWN: Final = 5


class Tally(msgspec.Struct, frozen=True, kw_only=True):
    """What came of all chunks."""

    rows: int
    rejected: int
    reasons: dict[str, int]


def score_batch(rooms: Rooms, story: Story, batch: Batch) -> dict[str, Any]:
    """Tell the story. A chunk is kept as soon as it is scored; the result exists whole or not at all."""
    story.progress(f"asking whether {batch.model} may score", 0.0)
    before = _checks(story.step("may it score", lambda: msgspec.to_builtins(_may_score(rooms, batch))))
    if any(check.outcome is not Outcome.PASSED for check in before):
        skipped = Check(name="rows", outcome=Outcome.SKIPPED, message="nothing was scored")
        return _refused(rooms, story, batch, (*before, skipped), Tally(rows=0, rejected=0, reasons={}))
    told = story.step("score", lambda: msgspec.to_builtins(_score(rooms, story, batch)))
    tally = msgspec.convert(told, Tally)
    story.progress("judging the result", 0.99)
    after = _checks(story.step("may it still", lambda: msgspec.to_builtins(_may_score(rooms, batch))))
    checks = (*after, _rows_check(tally, batch.max_rejected))
    if any(check.outcome is not Outcome.PASSED for check in checks):
        return _refused(rooms, story, batch, checks, tally)
    described = story.step("describe", lambda: msgspec.to_builtins(_describe(rooms, batch, tally)))
    new = msgspec.convert(described, NewResult)
    done = story.commit("keep", lambda tx: _keep(rooms, tx, batch, new, checks))
    return {**done, "verdict": "admit", "reasons": []}


def _checks(value: Any) -> tuple[Check, ...]:
    return msgspec.convert(value, tuple[Check, ...])


def _may_score(rooms: Rooms, batch: Batch) -> tuple[Check, ...]:
    def approved() -> Check:
        state = rooms.registry.show(batch.model).state
        fine = state in (ModelState.APPROVED, ModelState.LIVE)
        said = "" if fine else f"{batch.model} is {state}: only a version that may serve may score"
        return Check(name="approved", outcome=Outcome.PASSED if fine else Outcome.FAILED, message=said)

    def verified() -> Check:
        rooms.registry.load(batch.model)
        return Check(name="verified", outcome=Outcome.PASSED)

    return run_check("approved", approved), run_check("verified", verified)


def _rows_check(tally: Tally, limit: float) -> Check:
    total = tally.rows + tally.rejected
    share = tally.rejected / total if total else 0.0
    worst = sorted(tally.reasons.items(), key=lambda item: (-item[1], item[0]))[:_REASONS_SHOWN]
    said = "; ".join(f"{count:,} rows: {reason}" for reason, count in worst)
    fine = share <= limit
    return Check(
        name="rows", outcome=Outcome.PASSED if fine else Outcome.FAILED, observed=share, limit=limit,
        message="" if fine else f"{tally.rejected:,} of {total:,} rows could not be scored ({said})",
    )  # fmt: skip


def _refused(
    rooms: Rooms, story: Story, batch: Batch, checks: tuple[Check, ...], tally: Tally
) -> dict[str, Any]:
    def judge(tx: Tx) -> dict[str, Any]:
        verdict = _judged(rooms, tx, batch, checks)
        return {"reasons": list(verdict.reasons)}

    told = story.commit("refuse", judge)
    return {
        "result": None, "version": batch.scored.version, "snapshot": batch.scored.snapshot, "verdict": "reject",
        "rows": tally.rows, "rejected_rows": tally.rejected, **told,
    }  # fmt: skip


def _judged(rooms: Rooms, tx: Tx, batch: Batch, checks: tuple[Check, ...]) -> Verdict:
    subject = str(Ref(Kind.MODEL, batch.scored.version))
    evidence = Evidence(
        subject=subject, checks=checks, facts={"snapshot": batch.scored.snapshot, "result": batch.scored.name}
    )
    verdict = BATCH_GATE.judge(evidence)
    rooms.results.judged(tx, verdict, evidence, actor=batch.actor)
    return verdict


def _score(rooms: Rooms, story: Story, batch: Batch) -> Tally:
    joined = [
        joined_as_signed(
            rooms.features.materialisation(lookup.feature_set, batch.scored.features[lookup.feature_set]),
            lookup,
        )
        for lookup in rooms.registry.signature(batch.model).lookups
    ]
    scoring = Scoring(
        rooms, snapshot=batch.snapshot, model=batch.model, features=joined, event_time=batch.event_time,
        keys=batch.keys, schemas=schemas(rooms, batch), chunk_rows=batch.chunk_rows, work=batch.work,
    )  # fmt: skip
    return _tally(scoring.run(story.progress))


def _tally(chunks: Any) -> Tally:
    reasons: dict[str, int] = {}
    for chunk in chunks:
        for reason, count in chunk.reasons.items():
            reasons[reason] = reasons.get(reason, 0) + count
    return Tally(
        rows=sum(chunk.rows for chunk in chunks),
        rejected=sum(chunk.rejected for chunk in chunks),
        reasons=reasons,
    )


def schemas(rooms: Rooms, batch: Batch) -> tuple[Schema, Schema]:
    """Return the columns of the answers and of the rejects: the keys first, as the snapshot has them."""
    known = {column.name: column for column in rooms.data.snapshot(batch.snapshot).schema.columns}
    keys = tuple(known[name] for name in batch.keys)
    loose = tuple(Column(key.name, key.dtype, nullable=True) for key in keys)
    answers = answer_schema(rooms.registry.signature(batch.model))
    return Schema((*keys, *answers)), Schema((*loose, Column(REASONS, DType.STRING)))


def _describe(rooms: Rooms, batch: Batch, tally: Tally) -> NewResult:
    answers, rejects = schemas(rooms, batch)
    return NewResult(
        scored=batch.scored, endpoint=batch.endpoint, release=batch.release, keys=batch.keys, work=batch.work,
        entity=tuple(name for name in rooms.data.spec(batch.snapshot).entity if name in batch.keys),
        manifest=TableManifest(schema=answers), rejects=TableManifest(schema=rejects), reasons=tally.reasons,
        as_of=from_us(rooms.data.snapshot(batch.snapshot).created_us), max_age_s=batch.max_age_s,
    )  # fmt: skip


def _keep(rooms: Rooms, tx: Tx, batch: Batch, new: NewResult, checks: tuple[Check, ...]) -> dict[str, Any]:
    """The result, the verdict on it, its leaf and its lineage: together."""
    known = rooms.results.known(tx, batch.scored)  # another attempt, of chunks of another size, was faster
    if known is None:
        _judged(rooms, tx, batch, checks)
        known = rooms.results.commit(tx, new, rows=batch.rows, actor=batch.actor)
    return summary(known)


def summary(info: ResultInfo) -> dict[str, Any]:
    """Return a result as the command line and the API show it."""
    new = info.new
    return {
        "result": str(info.version), "version": new.scored.version, "snapshot": new.scored.snapshot,
        "features": new.scored.features, "endpoint": new.endpoint, "release": new.release, "rows": info.rows,
        "rejected_rows": info.rejected, "rejects": f"{info.version}/rejects", "reasons_rejected": new.reasons,
        "keys": list(new.keys), "as_of": new.as_of.isoformat(), "max_age_s": new.max_age_s, "actor": info.actor,
        "created_at": info.created_at.isoformat(), "digest": digest_json(new.manifest),
    }  # fmt: skip
