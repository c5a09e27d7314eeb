"""Training again for the gate: what hangs on a seed, a time or chance is found out, and what does not is let through."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import msgspec
import polars as pl
from training_room import CODE, Room

import taut
from taut.adapters.blobs.local import LocalBlobs
from taut.core.evidence import Outcome
from taut.core.refs import VersionRef
from taut.lifecycle.registry import Candidate, File
from taut.lifecycle.training import Run
from taut.ports.jobs import Limits
from taut.project.manifest import GateSpec
from taut.testing.jobs import InlineJobs
from taut.workflows.examine import examined
from taut.workflows.trial import Tried, try_apart

RULES = (
    taut.stable("auc", apart=0.1, seeds=1), taut.backtested("auc", worst=0.6, folds=1), taut.reproduced(),
    taut.no_costlier(latency=1e6, memory=1e6), taut.replayed(maximum=0.1),
    taut.slices("arrival_delay", metric="accuracy", drop=1.0), taut.memorised(maximum=1.0),
)  # fmt: skip
GROUPED = (taut.slices("arrival_delay", metric="accuracy", drop=1.0),)
UNSEEN = CODE.replace(
    "def train(ctx):",
    "def train(ctx):\n    assert 'arrival_delay' not in (*ctx.train.columns, *ctx.test.columns)",
)
"""Fails where it is shown what is there for the gate's groups alone."""
RESTLESS = CODE.replace(
    "random_state=ctx.seed", 'learning_rate=0.1 + __import__("time").perf_counter_ns() % 10**9 * 1e-10'
)
"""Learns at another rate each time."""


def rooms_of(room: Room, tmp_path: Path, **instead: Any) -> Any:
    nobody = SimpleNamespace(routes=lambda tx: ())
    rooms = {
        "training": room.training, "blobs": LocalBlobs(tmp_path / "blobs"), "jobs": InlineJobs(), "scratch": tmp_path, "records": room.records,
        "releases": nobody,
    }  # fmt: skip
    return SimpleNamespace(**{**rooms, **instead})


def candidate_of(run: Run, rules: tuple[GateSpec, ...]) -> Candidate:
    report, file = run.report, run.model_file
    assert report is not None, run.error
    assert file is not None
    return Candidate(
        model="delay", run=run.id, author="owner", files={file.name: File(digest=file.digest, size_bytes=file.size_bytes)},
        signature=report.signature, label="late", metrics=report.metrics, snapshots={}, bundle="", lock="", data="", seed=run.seed,
        rules=rules,
    )  # fmt: skip


def trained(room: Room, rooms: Any, code: str) -> tuple[Run, pl.DataFrame, Tried]:
    spec = msgspec.structs.replace(room.spec, gates=GROUPED)
    run = room.training.train(spec, room.data, room.code(code), actor="owner")
    candidate, holdout = candidate_of(run, ()), room.training.holdout(run.id)
    frames = (holdout,)
    return (
        run,
        holdout,
        try_apart(rooms, candidate.artifact.digest, candidate.signature, frames, limits=Limits()),
    )


def test_a_healthy_model_repeats_and_is_as_good_at_other_times_and_may_yet_be_too_slow(
    quick_room: Room, tmp_path: Path
) -> None:
    rooms = rooms_of(quick_room, tmp_path)
    run, holdout, tried = trained(quick_room, rooms, UNSEEN)
    candidate = candidate_of(run, RULES)

    checks = {check.name: check for check in examined(rooms, candidate, run, holdout, tried)}

    assert {name: check.outcome for name, check in checks.items()} == {
        rule.name: Outcome.PASSED for rule in RULES
    }
    assert "the same to the byte" in checks["reproduced"].message
    runs = {run.id.partition(".")[2] for run in quick_room.training.list()}
    assert runs == {"", "seed-1", "fold-1", "again"}

    rooms.releases = SimpleNamespace(routes=lambda tx: [SimpleNamespace(version=VersionRef("delay", 1))])
    rooms.registry = SimpleNamespace(show=lambda ref: SimpleNamespace(candidate=candidate))
    slow, fine = (
        examined(rooms, candidate_of(run, (rule,)), run, holdout, tried)[0]
        for rule in (taut.no_costlier(latency=0.01), taut.no_costlier(latency=1e6))
    )
    assert (slow.outcome, fine.outcome) == (Outcome.FAILED, Outcome.PASSED)
    assert "of delay@1" in slow.message


def test_a_model_that_does_not_come_out_the_same_is_held_for_a_person(
    quick_room: Room, tmp_path: Path
) -> None:
    rooms = rooms_of(quick_room, tmp_path)
    run, holdout, tried = trained(quick_room, rooms, RESTLESS)

    (strict,) = examined(rooms, candidate_of(run, (taut.reproduced(),)), run, holdout, tried)
    (lenient,) = examined(rooms, candidate_of(run, (taut.reproduced(tolerance=1.0),)), run, holdout, tried)

    assert (strict.outcome, lenient.outcome) == (Outcome.HELD, Outcome.PASSED)
    assert "trained again, answers to held-out rows are at most" in strict.message
