"""Training again for the gate: with other seeds, on earlier times, and as it was."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any, Final

import msgspec
import numpy as np
import numpy.typing as npt
import polars as pl

from taut.core.evidence import Check, Outcome
from taut.core.units import parse_duration
from taut.lifecycle.training import Run, RunState, limits_of
from taut.project.manifest import GateSpec, ModelSpec
from taut.workflows.rooms import Rooms
from taut.workflows.trial import try_apart

Array = npt.NDArray[Any]
REHEARSED: Final = frozenset({"stable", "backtested", "reproduced"})
_NAMED: Final = 3


class Rehearsal(msgspec.Struct, frozen=True, kw_only=True):
    """A training that was made for the gate: the rows that it was tested on, and what its model answered to them."""

    rows: pl.DataFrame
    answers: Array


def rehearsals(
    rooms: Rooms, run: Run, rules: Sequence[GateSpec], holdout: pl.DataFrame
) -> dict[str, Rehearsal]:
    """Train as often as the rules ask and return what came of it, by `seed 1` …, `fold 1` …; what failed is not among them.

    Each is a run of its own, named after the candidate's (`RUN.seed-1`), so that a repetition finds what was done.
    """
    found = {}
    for name, spec, seed in _wanted(run, rules):
        made = rooms.training.train(
            spec, run.data, run.code, actor=run.actor, seed=seed, params=run.params,
            run_id=f"{run.id}.{name.replace(' ', '-')}",
        )  # fmt: skip
        rows = holdout if spec.split == run.spec.split else _tested(rooms, made)
        answers = _answers(rooms, made, rows)
        if answers is not None:
            found[name] = Rehearsal(rows=rows, answers=answers)
    return found


def _wanted(run: Run, rules: Sequence[GateSpec]) -> Iterator[tuple[str, ModelSpec, int]]:
    seeds = max((int(rule.settings["seeds"]) for rule in rules if rule.kind == "stable"), default=0)
    folds = max((int(rule.settings["folds"]) for rule in rules if rule.kind == "backtested"), default=0)
    for number in range(1, seeds + 1):
        yield f"seed {number}", run.spec, (run.seed + number) % 2**32
    test_s = parse_duration(run.spec.split.test).total_seconds()
    for number in range(1, folds + 1):
        split = msgspec.structs.replace(run.spec.split, skip=f"{round(number * test_s)}s")
        yield f"fold {number}", msgspec.structs.replace(run.spec, split=split), run.seed


def _tested(rooms: Rooms, made: Run) -> pl.DataFrame:
    return rooms.training.holdout(made.id) if made.state is RunState.DONE else pl.DataFrame()


def _answers(rooms: Rooms, made: Run, rows: pl.DataFrame) -> Array | None:
    """Return what the model of a run answers; None where it made none that answers."""
    if made.report is None or made.model_digest is None:
        return None
    tried = try_apart(
        rooms, made.model_digest, made.report.signature, (rows,), limits=limits_of(made.spec.resources)
    )
    return None if tried.fault else tried.answers[0]


def reproduced(rooms: Rooms, rule: GateSpec, run: Run, holdout: pl.DataFrame, answers: Array) -> Check:
    """Train once more and compare: the same bytes, or answers within the tolerance, or a person's word.

    answers: of the candidate, to the held-out rows.
    """
    again = rooms.training.reproduce(run.id, actor=run.actor, new_id=f"{run.id}.again")
    if again.same:
        said = f"trained again, the model is the same to the byte ({again.run.id})"
        return Check(name=rule.name, outcome=Outcome.PASSED, message=said, observed=0.0, limit=rule.tolerance)
    differ = ", ".join(dict.fromkeys(one.what for one in again.differences[:_NAMED]))
    found = _answers(rooms, again.run, holdout)
    if found is None or found.shape != answers.shape:
        said = f"trained again, no model came out that can be compared: {again.run.error or differ}"
        return Check(name=rule.name, outcome=Outcome.HELD, message=said)
    apart = float(np.abs(found - answers).max())
    said = f"trained again, answers to held-out rows are at most {apart:.3g} apart; what differs: {differ}"
    outcome = Outcome.PASSED if apart <= float(rule.tolerance or 0.0) else Outcome.HELD
    return Check(name=rule.name, outcome=outcome, message=said, observed=apart, limit=rule.tolerance)
