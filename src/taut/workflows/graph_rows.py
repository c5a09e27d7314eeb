"""The rows that a graph is measured on, and what it says about them, found in a job."""

from __future__ import annotations

import tempfile
from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import Any, Final

import msgspec
import numpy as np
import numpy.typing as npt
import polars as pl

from taut.core.answers import read_answer
from taut.core.errors import InvalidInput
from taut.core.graphs import read_plan
from taut.core.room import room_for
from taut.core.schema import ModelSignature
from taut.core.scores import classification_scores, regression_scores
from taut.lifecycle.registry import Score, VersionInfo
from taut.lifecycle.training import Run, limits_of
from taut.ports.jobs import JobEnd, Limits, Task
from taut.ports.tables import ROW_ID
from taut.project.manifest import GraphSpec
from taut.workflows.rooms import Rooms

Array = npt.NDArray[Any]
_TRIAL_S: Final = 300.0
_OUTPUT_BYTES: Final = 2**30
_PARITY_ROWS: Final = 1000
_LATENCY_MS_MAX: Final = 1e9


class GraphRows(msgspec.Struct, frozen=True, kw_only=True):
    """holdout: rows that no node of a graph was trained on, with label, request columns and features. sample: some of them.

    known: labels of rows that the nodes were trained on.
    """

    holdout: pl.DataFrame
    sample: pl.DataFrame
    label: str
    known: pl.Series

    @property
    def frames(self) -> tuple[pl.DataFrame, pl.DataFrame]:
        return self.holdout, self.sample

    def with_said(self, answers: Array) -> pl.DataFrame:
        """Return the sample with what the nodes together say about each row, in `p0`, `p1` …"""
        wide = answers.reshape(len(answers), -1)
        return self.sample.with_columns(pl.Series(f"p{at}", wide[:, at]) for at in range(wide.shape[1]))


def common_rows(
    rooms: Rooms, spec: GraphSpec, infos: Mapping[str, VersionInfo], signature: ModelSignature
) -> GraphRows:
    """Return the rows that every node was tested on, the features as the node that was trained last had them.

    Raises InvalidInput where the nodes learned from other datasets or labels, or no row is left for all.
    """
    label = _label(spec, infos)
    runs = {info.candidate.run: rooms.training.get(info.candidate.run) for info in infos.values()}
    newest = sorted(runs.values(), key=lambda run: run.started_at, reverse=True)
    datasets = sorted({run.spec.dataset for run in newest})
    if len(datasets) > 1:
        raise InvalidInput(
            f"the nodes of {spec.name} were trained on {', '.join(datasets)}: what is measured together is about one dataset"
        )
    joined = rooms.training.holdout(newest[0].id)
    for run in newest[1:]:
        frame = rooms.training.holdout(run.id)
        more = [name for name in frame.columns if name not in joined.columns]
        joined = joined.join(frame.select(ROW_ID, *more), on=ROW_ID, how="inner", maintain_order="left")
    if not joined.height:
        told = ", ".join(str(info.ref) for info in infos.values())
        raise InvalidInput(
            f"no row was held out from all of {told}: train them on one snapshot with one split, then compose again"
        )
    fed = {column for node in spec.nodes for column in node.inputs}
    known = {column.name for column in signature.request} | {item.column.name for item in signature.inputs}
    holdout = joined.select(name for name in joined.columns if name in known | fed or name in (ROW_ID, label))
    teacher = next(run for run in newest if run.spec.label == label)
    return GraphRows(
        holdout=holdout, sample=holdout.sample(min(_PARITY_ROWS, holdout.height), seed=0).sort(ROW_ID), label=label,
        known=rooms.training.known_labels(teacher.id),
    )  # fmt: skip


def _label(spec: GraphSpec, infos: Mapping[str, VersionInfo]) -> str:
    """Return the label of the graph's output; nodes that are combined must have learned the same."""
    nodes = {node.name: node for node in spec.nodes}

    def label_of(name: str) -> str:
        node = nodes[name]
        if node.kind == "model":
            return infos[name].candidate.label
        found = {one: label_of(one) for one in node.of}
        if len(set(found.values())) > 1:
            said = ", ".join(f"{one!r} {label!r}" for one, label in found.items())
            raise InvalidInput(f"node {name!r} combines nodes of different labels: {said}")
        return next(iter(found.values()))

    return label_of(spec.output)


def scores_of(labels: pl.Series, said: Array, signature: ModelSignature) -> dict[str, float]:
    """Return the metrics of answers. Raises InvalidInput for labels that the classes do not have."""
    if not signature.classes:
        return regression_scores(labels.cast(pl.Float64).to_numpy(), said.reshape(-1))
    return classification_scores(_indices(labels, signature), said)


def constant_baseline(rows: GraphRows, signature: ModelSignature) -> dict[str, float]:
    """Return the metrics of the share of each class, or the mean, of what was learned from."""
    truth = rows.holdout[rows.label]
    if not signature.classes:
        mean = rows.known.cast(pl.Float64).mean()
        return scores_of(truth, np.full(truth.len(), mean), signature)
    shares = np.bincount(_indices(rows.known, signature), minlength=len(signature.classes)) / rows.known.len()
    return scores_of(truth, np.tile(shares, (truth.len(), 1)), signature)


def _indices(labels: pl.Series, signature: ModelSignature) -> npt.NDArray[np.int64]:
    index = {value: at for at, value in enumerate(signature.classes)}
    found = np.array([index.get(value, -1) for value in labels.to_list()], dtype=np.int64)
    if (found < 0).any():
        raise InvalidInput(
            "the held-out rows have labels that the graph does not know: train its nodes on all of them"
        )
    return found


class TriedGraph(msgspec.Struct, frozen=True, kw_only=True):
    """What a graph said in its job about each frame, what its nodes say by themselves, and how long one row took."""

    answers: tuple[Array, ...]
    references: tuple[Array, ...]
    latency_ms: float

    def scorer(
        self, rooms: Rooms, plan: bytes, frames: Sequence[pl.DataFrame], infos: Mapping[str, VersionInfo]
    ) -> Score:
        """Return what the gate measures with: the answers to these frames, and a job for whatever else it asks."""

        def score(model: bytes, signature: ModelSignature, rows: pl.DataFrame) -> Array:
            if model == plan:
                for frame, answer in zip(frames, self.answers, strict=True):
                    if rows is frame:
                        return answer
                    if rows.height == frame.height and rows.select(frame.columns).equals(frame):
                        return answer
            if signature.form != "graph":
                raise InvalidInput(
                    "what is live under this name is no graph: give the graph a name of its own"
                )
            return try_graph(rooms, model, (rows,), infos).answers[0]

        return score


def try_graph(
    rooms: Rooms,
    plan: bytes,
    frames: Sequence[pl.DataFrame],
    infos: Mapping[str, VersionInfo],
    *,
    reference: bool = False,
) -> TriedGraph:
    """Run a graph in a job on frames of rows, as gateways will run it. infos: of the nodes, for what they may use.

    reference: also what the nodes say by themselves. Raises InvalidInput with the job's reason where it ended otherwise.
    """
    read = read_plan(plan)
    with (
        room_for("trying a graph"),
        tempfile.TemporaryDirectory(prefix="taut-trial-", dir=rooms.scratch) as folder,
        ExitStack() as stack,
    ):
        inputs = {"plan": str(Path(folder, "plan.json"))}
        Path(inputs["plan"]).write_bytes(plan)
        for name, pin in read.pins.items():
            inputs[f"node-{name}"] = str(stack.enter_context(rooms.blobs.local(pin.artifact)))
        for at, frame in enumerate(frames):
            inputs[f"rows-{at}"] = str(Path(folder, f"rows-{at}.parquet"))
            frame.write_parquet(inputs[f"rows-{at}"])
        task = Task(
            function="taut.serving.runtime.job:compose", arguments={"reference": reference}, inputs=inputs,
            limits=_limits([rooms.training.get(info.candidate.run) for info in infos.values()]),
        )  # fmt: skip
        output = Path(folder, "output")
        result = rooms.jobs.run(task, output=output)
        if result.end is not JobEnd.DONE:
            raise InvalidInput(f"tried apart, the graph ended as {result.end}: {result.error}")
        answers, references = (
            tuple(_answer(output / f"{what}-{at}.npy", frame.height) for at, frame in enumerate(frames))
            for what in ("graph", "reference" if reference else "graph")
        )
        latency_ms = msgspec.convert(result.value.get("latency_ms"), float)
    return TriedGraph(
        answers=answers, references=references, latency_ms=min(_LATENCY_MS_MAX, max(0.0, latency_ms))
    )


def _answer(path: Path, rows: int) -> Array:
    found = read_answer(path, rows)
    if not np.isfinite(found).all():
        raise InvalidInput("tried apart, the graph gave answers that are not finite")
    return found


def _limits(runs: Sequence[Run]) -> Limits:
    limits = [limits_of(run.spec.resources) for run in runs]
    return Limits(
        cpu=max(one.cpu for one in limits), memory_bytes=max(one.memory_bytes for one in limits),
        timeout_s=min(_TRIAL_S, max(one.timeout_s for one in limits)), output_bytes=_OUTPUT_BYTES,
    )  # fmt: skip
