"""What is looked at before a run that nobody started: is there something to learn, and does one contributor write most of it?"""

from __future__ import annotations

from typing import Final

import polars as pl

from taut.core.evidence import Check, Evidence, Gate, Outcome, run_checks
from taut.core.refs import VersionRef
from taut.ports.tables import ROW_ID
from taut.project.declared import model_of
from taut.workflows.rooms import Rooms

GATE: Final = Gate(name="retraining", required=frozenset({"something new", "contributors"}))


def screen(rooms: Rooms, model: str, learned: dict[str, int]) -> Evidence:
    """Return the evidence about what a run would learn beyond what the last one did. learned: dataset -> snapshot of that run."""
    spec = model_of(rooms.plans.require(), model)
    info = rooms.data.show(spec.dataset)
    new = rooms.data.scan(info.ref, row_ids=True)
    before = learned.get(spec.dataset, 0)
    if before and before != info.number:
        known = rooms.data.scan(VersionRef(spec.dataset, before), row_ids=True)
        last = known.select(pl.col(ROW_ID).max()).collect().item()
        new = new.filter(pl.col(ROW_ID) > (-1 if last is None else last))
    checks = run_checks(
        [
            ("something new", lambda: _something(new)),
            (
                "contributors",
                lambda: _contributors(new, spec.retraining.contributor, spec.retraining.share),
            ),
        ]
    )
    return Evidence(subject=f"snapshot:{info.ref}", checks=checks, facts={"model": model, "after": before})


def _something(new: pl.LazyFrame) -> Check:
    """Other datasets, or the code, may be what is new: no rows here are no reason to refuse."""
    rows = int(new.select(pl.len()).collect().item())
    return Check(
        name="something new",
        outcome=Outcome.PASSED,
        message=f"{rows:,} rows since the last run",
        observed=rows,
    )


def _contributors(new: pl.LazyFrame, column: str | None, share: float) -> Check:
    if column is None:
        return Check(name="contributors", outcome=Outcome.PASSED, message="no contributor is declared")
    counts = new.group_by(pl.col(column).cast(pl.String)).len().sort("len", column, descending=True).collect()
    total = int(counts["len"].sum())
    if total == 0:
        return Check(name="contributors", outcome=Outcome.PASSED, message="no row is new", observed=0.0)
    most, found = counts[column][0], counts["len"][0] / total
    said = f"{found:.1%} of {total:,} new rows come from {most!r} by {column}, where {share:.0%} may"
    outcome = Outcome.PASSED if found <= share else Outcome.FAILED
    return Check(name="contributors", outcome=outcome, message=said, observed=round(found, 4), limit=share)
