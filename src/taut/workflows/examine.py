"""Examine a candidate by the rules that its builder declares: gather what they look at, and let a job look."""

from __future__ import annotations

import tempfile
from collections.abc import Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any, Final

import msgspec
import numpy.typing as npt
import polars as pl

from taut.core.answers import write_answer
from taut.core.errors import InvalidInput
from taut.core.evidence import Check, Outcome, run_check
from taut.core.refs import VersionRef
from taut.core.room import room_for
from taut.lifecycle.registry import Candidate
from taut.lifecycle.registry.examination import EXAMINED, LEARNED, probes_for
from taut.lifecycle.training import Run, limits_of
from taut.ports.jobs import JobEnd, Limits, Task
from taut.project.manifest import GateSpec
from taut.workflows.live import live_version
from taut.workflows.rehearse import REHEARSED, Rehearsal, rehearsals, reproduced
from taut.workflows.replay import Replay, replay_of
from taut.workflows.rooms import Rooms
from taut.workflows.trial import Tried, try_apart

Array = npt.NDArray[Any]
_EXAMINED_S: Final = 900.0
_LEARNED_ROWS: Final = 20_000
_COMPARED_ROWS: Final = 1000
_MEMORY: Final = 4 * 2**30


def examined(
    rooms: Rooms, candidate: Candidate, run: Run, holdout: pl.DataFrame, tried: Tried
) -> tuple[Check, ...]:
    """Return a check for each declared rule that is no metric of the candidate; where there is none, no job runs.

    What models answered is given to the job that looks, the models are not: no code of a builder runs in it. Training again is
    what `stable`, `backtested` and `reproduced` cost. Of a variant these hold as they did for what it was made from.
    """
    rules = [rule for rule in candidate.rules if rule.kind in EXAMINED or rule.kind in _HERE]
    if not rules:
        return ()
    if tried.fault:
        return tuple(_said(rule, Outcome.ERRORED, tried.fault) for rule in rules)
    found: dict[str, Check] = {}
    if candidate.variant is not None:
        found |= _of_origin(rooms, candidate.variant.origin, rules)
    left = [rule for rule in rules if rule.name not in found]
    for rule in left:
        if rule.kind == "reproduced":
            look = partial(reproduced, rooms, rule, run, holdout, tried.answers[0])
            found[rule.name] = run_check(rule.name, look)
        elif rule.kind == "no_costlier":
            found[rule.name] = run_check(
                rule.name, partial(_no_costlier, rooms, rule, candidate, run, holdout)
            )
    left = [rule for rule in left if rule.name not in found]
    if left:
        found |= {check.name: check for check in _benched(rooms, candidate, run, holdout, tried, left)}
    return tuple(found[rule.name] for rule in rules)


def _benched(
    rooms: Rooms, candidate: Candidate, run: Run, holdout: pl.DataFrame, tried: Tried, rules: list[GateSpec]
) -> tuple[Check, ...]:
    """Return the checks of rules that look at rows. A row that no model could be asked about is an error of each, which rejects."""
    replay = _replay(rooms, candidate, run, rules)
    told = (replay,) if isinstance(replay, Check) else ()
    left = [rule for rule in rules if rule.name not in {check.name for check in told}]
    if not left:
        return told
    bench = _Bench(rooms, candidate, run, holdout, tried, replay if isinstance(replay, Replay) else None)
    try:
        return (*told, *bench.look(left))
    except InvalidInput as error:
        return (*told, *(_said(rule, Outcome.ERRORED, f"{error.code}: {error}") for rule in left))


_HERE: Final = frozenset({"reproduced", "no_costlier"})
"""Rules that need no look at rows and labels, but another job."""


def _said(rule: GateSpec, outcome: Outcome, message: str) -> Check:
    return Check(name=rule.name, outcome=outcome, message=message)


def _of_origin(rooms: Rooms, origin: str, rules: Sequence[GateSpec]) -> dict[str, Check]:
    """Return what was found by training again of the version that a variant was made from."""
    evidence = rooms.registry.show(VersionRef.parse(origin)).evidence
    checks = {} if evidence is None else {check.name: check for check in evidence.checks}
    names = [rule.name for rule in rules if rule.kind in REHEARSED]
    return {
        name: msgspec.structs.replace(checks[name], message=f"of {origin}: {checks[name].message}")
        for name in names
        if name in checks
    }


def _no_costlier(
    rooms: Rooms, rule: GateSpec, candidate: Candidate, run: Run, holdout: pl.DataFrame
) -> Check:
    """Judge time and memory of the same rows in jobs of the same kind, one after the other."""
    live = live_version(rooms, candidate.model)
    if live is None:
        return _said(rule, Outcome.PASSED, "nothing is live yet")
    rows, limits = holdout.head(_COMPARED_ROWS), limits_of(run.spec.resources)
    theirs_of = rooms.registry.show(live).candidate
    theirs, mine = (
        try_apart(rooms, one.artifact.digest, one.signature, (rows,), limits=limits)
        for one in (theirs_of, candidate)
    )
    if theirs.fault or mine.fault:
        return _said(rule, Outcome.HELD, f"cannot be compared with {live}: {theirs.fault or mine.fault}")
    ratios = {
        "latency": mine.latency_ms / max(theirs.latency_ms, 1e-6),
        "memory": mine.memory_bytes / max(theirs.memory_bytes, 1),
    }
    bad = [name for name, ratio in ratios.items() if ratio > rule.settings[name]]
    said = (
        f"one row takes {mine.latency_ms:.2f} ms, of {live} {theirs.latency_ms:.2f} ms; {len(rows):,} rows take "
        f"{mine.memory_bytes / 2**20:.0f} MiB, of {live} {theirs.memory_bytes / 2**20:.0f} MiB"
    )
    worst = max(ratios, key=lambda name: ratios[name] / rule.settings[name])
    return Check(
        name=rule.name, outcome=Outcome.FAILED if bad else Outcome.PASSED, message=said, observed=round(ratios[worst], 3),
        limit=rule.settings[worst],
    )  # fmt: skip


def _replay(rooms: Rooms, candidate: Candidate, run: Run, rules: Sequence[GateSpec]) -> Replay | Check | None:
    """Return logged traffic with both answers to it, or the check where there is none to replay."""
    rule = next((rule for rule in rules if rule.kind == "replayed"), None)
    if rule is None:
        return None
    live = live_version(rooms, candidate.model)
    if live is None:
        return _said(rule, Outcome.PASSED, "nothing is live yet")
    found = replay_of(rooms, live, candidate.signature, rows=int(rule.settings["rows"]))
    if isinstance(found, str):
        return _said(rule, Outcome.HELD, found)
    tried = try_apart(
        rooms, candidate.artifact.digest, candidate.signature, (found.rows,), limits=limits_of(run.spec.resources)
    )  # fmt: skip
    if tried.fault:
        return _said(rule, Outcome.FAILED, f"requests that {live} answered cannot be answered: {tried.fault}")
    return msgspec.structs.replace(found, own=tried.answers[0])


class _Bench:
    """What one candidate's rules look at, put where the job that looks may read it."""

    def __init__(
        self,
        rooms: Rooms,
        candidate: Candidate,
        run: Run,
        holdout: pl.DataFrame,
        tried: Tried,
        replay: Replay | None,
    ) -> None:
        self._rooms = rooms
        self._candidate = candidate
        self._run = run
        self._holdout = holdout
        self._tried = tried
        self._replay = replay

    def look(self, rules: Sequence[GateSpec]) -> tuple[Check, ...]:
        """Run the job and return its checks; where it did not come to its end, each is an error."""
        again = rehearsals(self._rooms, self._run, rules, self._holdout)
        probes = [probe for rule in rules for probe in probes_for(rule)]
        with (
            room_for("examining a model"),
            tempfile.TemporaryDirectory(prefix="taut-trial-", dir=self._rooms.scratch) as folder,
        ):
            frames, answers = self._gathered(rules, again)
            answers |= {f"probe-{at}": self._tried.probes[probe.name] for at, probe in enumerate(probes)}
            task = Task(
                function="taut.lifecycle.registry.examination.job:examine",
                arguments={
                    "rules": msgspec.to_builtins(rules), "signature": msgspec.to_builtins(self._candidate.signature),
                    "label": self._candidate.label, "probes": msgspec.to_builtins(probes), "again": list(again),
                },
                inputs=_written(Path(folder), frames, answers),
                limits=Limits(timeout_s=_EXAMINED_S, memory_bytes=_MEMORY),
            )  # fmt: skip
            result = self._rooms.jobs.run(task, output=Path(folder, "output"))
        if result.end is not JobEnd.DONE:
            why = f"the examination ended as {result.end}: {result.error}"
            return tuple(_said(rule, Outcome.ERRORED, why) for rule in rules)
        return msgspec.convert(result.value["checks"], tuple[Check, ...])

    def _gathered(
        self, rules: Sequence[GateSpec], again: Mapping[str, Rehearsal]
    ) -> tuple[dict[str, pl.DataFrame], dict[str, Array]]:
        """Return rows and answers by the names of the job's inputs."""
        candidate, kinds = self._candidate, {rule.kind for rule in rules}
        names = [candidate.label, *(column for rule in rules for column in rule.columns)]
        inputs = [item.column.name for item in candidate.signature.inputs]
        if kinds & LEARNED:
            names += inputs
        there = [name for name in dict.fromkeys(names) if name in self._holdout.columns]
        frames, answers = {"rows": self._holdout.select(there)}, {"answers": self._tried.answers[0]}
        if kinds & LEARNED:
            learned = self._rooms.training.learned(self._run.id, rows=_LEARNED_ROWS)
            frames["learned"] = learned.select(candidate.label, *inputs)
            if "memorised" in kinds:
                limits = limits_of(self._run.spec.resources)
                answers["learned-answers"] = try_apart(
                    self._rooms, candidate.artifact.digest, candidate.signature, (learned,), limits=limits
                ).of(0)
        for at, one in enumerate(again.values()):
            frames[f"again-{at}-rows"] = one.rows.select(candidate.label)
            answers[f"again-{at}"] = one.answers
        if self._replay is not None:
            answers |= {"replayed-live": self._replay.live, "replayed-own": self._replay.own}
        return frames, answers


def _written(
    folder: Path, frames: Mapping[str, pl.DataFrame], answers: Mapping[str, Array]
) -> dict[str, str]:
    inputs = {name: str(folder / f"{name}.parquet") for name in frames}
    inputs |= {name: str(folder / f"{name}.npy") for name in answers}
    for name, frame in frames.items():
        frame.write_parquet(inputs[name])
    for name, answer in answers.items():
        write_answer(Path(inputs[name]), answer)
    return inputs
