"""The training job: runs the builder's function in its own process and turns what it returns into a model."""

from __future__ import annotations

import os
import platform
import random
import sys
import tempfile
from collections.abc import Sequence
from importlib import metadata
from pathlib import Path
from typing import Any, Final

import msgspec
import numpy as np
import numpy.typing as npt
import polars as pl

from taut.core.errors import InvalidInput
from taut.core.evidence import Scalar
from taut.core.schema import MODEL_FILES, Column, DType, ModelInput, ModelSignature
from taut.lifecycle.training import judge
from taut.lifecycle.training.convert import convert
from taut.lifecycle.training.converted import Converted
from taut.lifecycle.training.encode import check_inputs, serving_form
from taut.lifecycle.training.split import Parts, split_by_time
from taut.lifecycle.training.values import Environment, JoinedFeatures, MetricPoint, Report
from taut.ports.jobs import JobContext
from taut.ports.tables import ROW_ID
from taut.project.bundle import load_function
from taut.project.manifest import ModelSpec
from taut.project.training import TrainContext, Trained

PARITY_ROWS: Final = 1000
_NULL_ROWS: Final = 20
_LIBRARIES: Final = (
    "numpy", "polars", "scikit-learn", "scipy", "skl2onnx", "onnx", "onnxruntime", "onnxmltools", "lightgbm",
    "xgboost", "torch",
)  # fmt: skip


class Work(msgspec.Struct, frozen=True, kw_only=True):
    """The arguments of the job, as JSON."""

    spec: ModelSpec
    event_time: str
    columns: tuple[Column, ...]  # of the table, without the row id
    features: tuple[JoinedFeatures, ...]
    snapshots: dict[str, str]
    params: dict[str, Scalar]
    seed: int


def train(
    arguments: dict[str, object], inputs: dict[str, Path], output: Path, context: JobContext
) -> dict[str, object]:
    """Train one model: `inputs` are `frame` (Parquet) and `bundle`; leaves the model and `parity.parquet`."""
    work = msgspec.convert(arguments, Work)
    context.progress("loading the code", 0.02)
    folder = Path(tempfile.mkdtemp(prefix="code-"))
    function = load_function(inputs["bundle"], work.spec.function, into=folder)
    _seed(work.seed)
    frame = pl.scan_parquet(inputs["frame"])
    parts = split_by_time(
        frame,
        event_time=work.event_time,
        label=work.spec.label,
        label_at=work.spec.label_at,
        spec=work.spec.split,
    )
    known = _known_columns(work)
    points: list[MetricPoint] = []
    hidden = [ROW_ID, *([work.spec.label_at] if work.spec.label_at else []), *_examined_only(work, known)]
    ctx = TrainContext(
        train=serving_form(parts.train.drop(hidden), known),
        test=serving_form(parts.test.drop(hidden), known),
        seed=work.seed,
        params=work.params,
        snapshots=work.snapshots,
        on_metric=lambda name, value, step: points.append(MetricPoint(name=name, step=step, value=value)),
    )
    context.progress(f"training on {parts.facts.train:,} rows", 0.1)
    trained = function(ctx)
    if not isinstance(trained, Trained):
        raise InvalidInput(
            f"{work.spec.function.qualname} returned {type(trained).__name__}: return taut.Trained(model, inputs=[…])"
        )
    context.progress("converting and checking", 0.7)
    report = _finish(
        work, trained, parts, known, output, points, bundle=inputs["bundle"], threads=int(context.limits.cpu)
    )
    context.progress("done", 1.0)
    return dict(msgspec.to_builtins(report))


def _seed(seed: int) -> None:
    random.seed(seed)
    np.random.seed(seed % 2**32)
    torch = sys.modules.get("torch")
    if torch is not None:
        torch.manual_seed(seed)
        torch.use_deterministic_algorithms(True, warn_only=True)


def _known_columns(work: Work) -> list[Column]:
    """Return the columns that exist when the model is asked: request columns and features."""
    table = {column.name: column for column in work.columns}
    missing = [name for name in work.spec.request if name not in table]
    if missing:
        raise InvalidInput(
            f"request column {missing[0]!r} is not in the training table: it has {', '.join(table)}"
        )
    features = [column for joined in work.features for column in joined.columns]
    return [*(table[name] for name in work.spec.request), *features]


def _examined_only(work: Work, known: Sequence[Column]) -> list[str]:
    """Return the columns that are there for the gate's groups alone: nothing may be learned from them."""
    own = {column.name for column in known} | {work.spec.label, work.event_time, work.spec.label_at}
    there = {column.name for column in work.columns}
    return sorted({name for rule in work.spec.gates for name in rule.columns if name in there} - own)


def _finish(
    work: Work,
    trained: Trained,
    parts: Parts,
    known: Sequence[Column],
    output: Path,
    points: Sequence[MetricPoint],
    *,
    bundle: Path,
    threads: int,
) -> Report:
    columns = _input_columns(work, trained, known)
    needed = [*dict.fromkeys([work.spec.label, *trained.inputs])]
    late = judge.come_late(parts.every, label=work.spec.label, inputs=columns)
    train = serving_form(parts.train.select(needed), columns).collect()
    test = serving_form(parts.test.select(ROW_ID, *needed), columns).collect()
    made = convert(
        trained, columns, train[work.spec.label], bundle=bundle.read_bytes(), threads=max(1, threads)
    )
    own = _two_columns(made.own(test), made) if made.own is not None else None
    served = _two_columns(made.served(test), made)
    metrics = judge.scores(judge.truth_of(test[work.spec.label], made.classes), served, made.classes)
    checks = (
        judge.leakage(train, label=work.spec.label, inputs=columns, classes=made.classes, late=late),
        judge.own_metrics_agree(trained.metrics, metrics),
        judge.conversion_agrees(own, served, form=made.form),
    )
    (output / MODEL_FILES[made.form]).write_bytes(made.artifact)
    _write_parity(test, own if own is not None else served, columns, output / "parity.parquet")
    return Report(
        signature=_signature(work, trained, columns, made),
        split=parts.facts,
        metrics=metrics,
        own_metrics=trained.metrics,
        baselines=judge.baselines(train, test, label=work.spec.label, inputs=columns, classes=made.classes),
        checks=checks,
        points=tuple(points),
        environment=environment(threads),
        model_kind=made.kind,
    )


def _input_columns(work: Work, trained: Trained, known: Sequence[Column]) -> list[Column]:
    table = {column.name: column for column in known}
    for name in trained.inputs:
        if name == work.spec.label:
            raise InvalidInput(f"input {name!r} is the label: a model cannot be given what it is asked")
        if name not in table:
            there = name in {column.name for column in work.columns}
            why = "is in the dataset, but neither a request column nor a feature" if there else "is unknown"
            raise InvalidInput(
                f"input {name!r} {why}, so it would be missing when the model is asked: inputs may be "
                f"{', '.join(table)}"
            )
    columns = [table[name] for name in trained.inputs]
    check_inputs(columns)
    return columns


def _signature(work: Work, trained: Trained, columns: Sequence[Column], made: Converted) -> ModelSignature:
    table = {column.name: column for column in work.columns}
    of = {column.name: joined.name for joined in work.features for column in joined.columns}
    inputs = tuple(
        ModelInput(column=column, feature_set=None if column.name in work.spec.request else of[column.name])
        for column in columns
    )
    used = {item.feature_set for item in inputs if item.feature_set}
    lookups = tuple(joined.lookup for joined in work.features if joined.name in used)
    request = tuple(table[name] for name in work.spec.request)
    # With features, a caller may say which time the question is about; it is no input of the model.
    about = work.event_time if lookups and work.event_time not in work.spec.request else None
    return ModelSignature(
        request=request if about is None else (*request, Column(about, DType.DATETIME, nullable=True)),
        inputs=inputs,
        lookups=lookups,
        event_time=about,
        output=trained.output,
        classes=made.classes,
        tensor=made.tensor,
        form=made.form,
    )


def _two_columns(found: npt.NDArray[Any], made: Converted) -> npt.NDArray[Any]:
    """Return probabilities as [n, 2] where a model gives the positive class alone."""
    if made.classes and found.ndim == 1:
        return np.stack([1 - found, found], axis=1)
    return found


def _write_parity(test: pl.DataFrame, said: npt.NDArray[Any], columns: Sequence[Column], path: Path) -> None:
    """Write row ids and predictions of up to 1,000 held-out rows: evenly spread, and some with each kind of null.

    Only ids and predictions: the raw values are read from the table again, so that an erased person is erased here too.
    """
    step = max(1, test.height // PARITY_ROWS)
    chosen = dict.fromkeys(range(0, test.height, step))
    for column in columns:
        if test[column.name].null_count():
            chosen |= dict.fromkeys(test[column.name].is_null().arg_true()[:_NULL_ROWS].to_list())
    rows = sorted(chosen)
    wide = said.reshape(len(said), -1)[rows]
    sample = pl.DataFrame({ROW_ID: test[ROW_ID].gather(rows)})
    sample.with_columns(pl.Series(f"p{at}", wide[:, at]) for at in range(wide.shape[1])).write_parquet(path)


def environment(threads: int) -> Environment:
    """Describe where this process runs."""
    return Environment(
        python=platform.python_version(),
        libraries=_versions(),
        machine=platform.machine(),
        processor=_processor(),
        system=platform.system(),
        threads=threads,
    )


def _versions() -> dict[str, str]:
    found = {}
    for name in _LIBRARIES:
        try:
            found[name] = metadata.version(name)
        except metadata.PackageNotFoundError:
            continue
    return found


def _processor() -> str:
    if os.path.exists("/proc/cpuinfo"):
        for line in Path("/proc/cpuinfo").read_text().splitlines():
            if line.startswith("model name"):
                return line.partition(":")[2].strip()
    return platform.processor()
