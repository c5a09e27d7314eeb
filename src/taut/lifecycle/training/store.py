"""Runs in their tables."""

from __future__ import annotations

from collections.abc import Sequence

import msgspec
from sqlalchemy import delete, insert, select, update

from taut.core.canonical import canonical_json
from taut.core.errors import Corrupt, NotFound
from taut.core.times import to_us
from taut.lifecycle.training import tables as t
from taut.lifecycle.training.values import MetricPoint, Run, RunState
from taut.ports.records import Tx


def put(tx: Tx, run: Run) -> None:
    """Write a run, replacing what was known of it."""
    row = {
        "model": run.model,
        "state": str(run.state),
        "actor": run.actor,
        "started_at_us": to_us(run.started_at),
        "ended_at_us": None if run.ended_at is None else to_us(run.ended_at),
        "model_digest": run.model_digest,
        "body": canonical_json(run).decode(),
    }
    if tx.execute(update(t.runs).where(t.runs.c.id == run.id).values(**row)).rowcount == 0:
        tx.execute(insert(t.runs).values(id=run.id, **row))
    for table in (t.params, t.metrics, t.artifacts):
        tx.execute(delete(table).where(table.c.run == run.id))
    params = [
        {"run": run.id, "name": name, "value": canonical_json(value).decode()}
        for name, value in run.params.items()
    ]
    files = [
        {"run": run.id, "name": item.name, "digest": item.digest, "size_bytes": item.size_bytes}
        for item in run.artifacts
    ]
    for table, rows in ((t.params, params), (t.artifacts, files), (t.metrics, _metric_rows(run))):
        if rows:
            tx.execute(insert(table), rows)


def _metric_rows(run: Run) -> list[dict[str, object]]:
    if run.report is None:
        return []
    found: dict[tuple[str, str, int], float] = {
        ("holdout", name, 0): value for name, value in run.report.metrics.items()
    }
    found |= {("own", name, 0): value for name, value in run.report.own_metrics.items()}
    found |= {
        ("logged", point.name, point.step): point.value for point in run.report.points
    }  # the last of a step
    return [
        {"run": run.id, "kind": kind, "name": name, "step": step, "value": value}
        for (kind, name, step), value in found.items()
    ]


def get(tx: Tx, run_id: str) -> Run:
    """Return a run. Raises NotFound."""
    found = find(tx, run_id)
    if found is None:
        raise NotFound(f"no run {run_id!r}: `taut run list` shows those that there are")
    return found


def find(tx: Tx, run_id: str) -> Run | None:
    body = tx.execute(select(t.runs.c.body).where(t.runs.c.id == run_id)).scalar_one_or_none()
    return None if body is None else _decode(body)


def _decode(body: str) -> Run:
    try:
        return msgspec.json.decode(body, type=Run)
    except msgspec.DecodeError as error:
        raise Corrupt(f"the record of a run cannot be read: {error}") from error


def listed(tx: Tx, *, model: str | None, state: RunState | None, limit: int) -> tuple[Run, ...]:
    """Return runs, the newest first."""
    query = select(t.runs.c.body).order_by(t.runs.c.started_at_us.desc(), t.runs.c.id.desc()).limit(limit)
    if model is not None:
        query = query.where(t.runs.c.model == model)
    if state is not None:
        query = query.where(t.runs.c.state == str(state))
    return tuple(_decode(body) for body in tx.execute(query).scalars())


def series(tx: Tx, run_id: str, *, name: str | None = None) -> Sequence[MetricPoint]:
    """Return the points that a run logged, in order of name and step."""
    query = select(t.metrics.c.name, t.metrics.c.step, t.metrics.c.value)
    query = query.where(t.metrics.c.run == run_id, t.metrics.c.kind == "logged")
    if name is not None:
        query = query.where(t.metrics.c.name == name)
    rows = tx.execute(query.order_by(t.metrics.c.name, t.metrics.c.step))
    return [MetricPoint(name=row.name, step=row.step, value=row.value) for row in rows]
