"""The job that examines a candidate: by rows with their labels and the answers that a job of its own left, without the model."""

# ruff: noqa: ARG001 - every job function has the same four parameters
from __future__ import annotations

from pathlib import Path

import msgspec
import polars as pl

from taut.core.answers import read_answer
from taut.core.probes import Probe
from taut.core.schema import ModelSignature
from taut.lifecycle.registry.examination.rules import examine as examined
from taut.lifecycle.registry.examination.sight import Sight
from taut.ports.jobs import JobContext
from taut.project.manifest import GateSpec


class Order(msgspec.Struct, frozen=True, kw_only=True):
    """The arguments of the job, as JSON. probes: those whose answers are there, as `probe-0`, `probe-1` …"""

    rules: tuple[GateSpec, ...]
    signature: ModelSignature
    label: str
    probes: tuple[Probe, ...] = ()


def examine(
    arguments: dict[str, object], inputs: dict[str, Path], output: Path, context: JobContext
) -> dict[str, object]:
    """Look at a candidate by the given rules. inputs: `rows`, a Parquet file with the label, `answers` to them, and the probes'.

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
        seed=context.seed,
    )  # fmt: skip
    return {"checks": msgspec.to_builtins(examined(order.rules, sight))}
