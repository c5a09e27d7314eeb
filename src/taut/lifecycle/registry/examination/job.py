"""The job that examines a candidate: by rows with their labels and the answers that a job of its own left, without the model."""

# ruff: noqa: ARG001 - every job function has the same four parameters
from __future__ import annotations

from pathlib import Path

import msgspec
import numpy as np
import polars as pl

from taut.core.answers import read_answer
from taut.core.probes import Probe
from taut.core.schema import ModelSignature
from taut.lifecycle.registry.examination.rules import examine as examined
from taut.lifecycle.registry.examination.sight import Again, Array, Sight, truth_of
from taut.ports.jobs import JobContext
from taut.project.manifest import GateSpec


class Order(msgspec.Struct, frozen=True, kw_only=True):
    """The arguments of the job, as JSON. probes: those whose answers are there, as `probe-0`, `probe-1` … again: names of trainings
    whose answers are there as `again-0` …, with their labels as `again-0-rows` …
    """

    rules: tuple[GateSpec, ...]
    signature: ModelSignature
    label: str
    probes: tuple[Probe, ...] = ()
    again: tuple[str, ...] = ()


def examine(
    arguments: dict[str, object], inputs: dict[str, Path], output: Path, context: JobContext
) -> dict[str, object]:
    """Look at a candidate by the given rules. inputs: `rows`, a Parquet file with the label, `answers` to them, and the probes';
    where there are any, rows that were `learned` and `learned-answers`, and `replayed-live` and `replayed-own` answers.

    Returns `{"checks": [...]}`, one for each rule, in their order. No code of a builder runs here.
    """
    order = msgspec.convert(arguments, Order)
    rows = pl.read_parquet(inputs["rows"])
    probes = {
        probe.name: (probe, read_answer(inputs[f"probe-{at}"], len(probe.places(rows.height))))
        for at, probe in enumerate(order.probes)
    }
    sight = Sight(
        order.signature, order.label, rows, read_answer(inputs["answers"], rows.height), probes=probes,
        learned=_learned(inputs), again=_again(order, inputs), replayed=_replayed(inputs), seed=context.seed,
    )  # fmt: skip
    return {"checks": msgspec.to_builtins(examined(order.rules, sight))}


def _learned(inputs: dict[str, Path]) -> tuple[pl.DataFrame, Array | None] | None:
    if "learned" not in inputs:
        return None
    rows, answers = pl.read_parquet(inputs["learned"]), inputs.get("learned-answers")
    return rows, None if answers is None else read_answer(answers, rows.height)


def _again(order: Order, inputs: dict[str, Path]) -> dict[str, Again]:
    found = {}
    for at, name in enumerate(order.again):
        labels = pl.read_parquet(inputs[f"again-{at}-rows"])[order.label]
        truth = truth_of(labels, order.signature.classes)
        found[name] = Again(truth=truth, answers=read_answer(inputs[f"again-{at}"], len(truth)))
    return found


def _replayed(inputs: dict[str, Path]) -> tuple[Array, Array] | None:
    if "replayed-live" not in inputs:
        return None
    live, own = (np.load(inputs[f"replayed-{whose}"], allow_pickle=False) for whose in ("live", "own"))
    return live, own
