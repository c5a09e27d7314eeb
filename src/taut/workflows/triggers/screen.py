"""What is looked at before a run that nobody started: does one contributor write most of what is new?"""

from __future__ import annotations

from typing import Final

import polars as pl

from taut.core.evidence import Check, Evidence, Gate, Outcome, Scalar, run_checks
from taut.core.refs import VersionRef
from taut.lifecycle.training import RunState
from taut.ports.tables import ROW_ID
from taut.project.declared import model_of
from taut.workflows.rooms import Rooms
from taut.workflows.train import Pinned

GATE: Final = Gate(name="retraining", required=frozenset({"contributors"}))
_RUNS: Final = 100


def screen(rooms: Rooms, model: str, pinned: Pinned) -> Evidence:
    """Return the evidence about what a run on the pinned snapshots would learn beyond the last run that ended well.

    New is each row that this run did not have, also one that was refused before: rows do not become known by being refused.
    """
    spec = model_of(pinned.manifest, model)
    ref = VersionRef.parse(pinned.snapshots[spec.dataset])
    new = rooms.data.scan(ref, row_ids=True)
    before = learned(rooms, model).get(spec.dataset, "")
    if before:
        known = rooms.data.scan(VersionRef.parse(before), row_ids=True)
        new = new.join(known.select(ROW_ID), on=ROW_ID, how="anti")
    rules = spec.retraining
    checks = run_checks([("contributors", lambda: _contributors(new, rules.contributor, rules.share))])
    rows = int(new.select(pl.len()).collect().item())  # none is no reason to refuse: the code may be new
    facts: dict[str, Scalar] = {"model": model, "after": before, "new rows": rows}
    return Evidence(subject=f"snapshot:{ref}", checks=checks, facts=facts)


def learned(rooms: Rooms, model: str) -> dict[str, str]:
    """Return the snapshots that the last run which ended well learned from; a run that repeats an older one does not count."""
    done = rooms.training.list(model=model, state=RunState.DONE, limit=_RUNS)
    return next((run.data.snapshots for run in done if run.reproduces is None), {})


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
