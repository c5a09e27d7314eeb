"""The builder's desk: data, features and training tried on the project's own files, with no installation.

What is read passes the same readers, casts and contract as an ingest, but nothing is kept and nothing sealed. What is
trained runs in this process, without the limits and the isolation of a run.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import msgspec
import polars as pl

from taut.core.errors import InvalidInput
from taut.core.evidence import Scalar
from taut.core.frames import schema_of
from taut.core.schema import Column
from taut.core.units import parse_duration
from taut.lifecycle.data import CompiledContract
from taut.lifecycle.data.casts import to_types
from taut.lifecycle.data.reading import digest_of, format_of, read_records, sources_for
from taut.lifecycle.data.records import ROW, BatchRefused, RecordChunk, Wanted
from taut.lifecycle.data.unique import SeenKeys
from taut.lifecycle.features import feature_names, join_point_in_time, shaped
from taut.project.contract import check_dataset
from taut.project.datasets import Dataset
from taut.project.manifest import DatasetSpec
from taut.project.pipelines import FeatureSet, Model
from taut.project.training import TrainContext, Trained


class Tried(msgspec.Struct, frozen=True, kw_only=True):
    """What a trial came to. metrics: computed by taut on the held-out rows, through the converted model."""

    metrics: dict[str, float]
    own_metrics: dict[str, float]
    baselines: dict[str, dict[str, float | str]]
    logged: tuple[tuple[str, int, float], ...]
    train_rows: int
    test_rows: int
    kind: str


class Checked(msgspec.Struct, frozen=True, kw_only=True):
    """What a look at the source found: how many records each rule would set aside."""

    records: int
    rows: int
    rules: dict[str, int]


def read(dataset: Dataset, *, rows: int | None = None) -> tuple[pl.DataFrame, Checked]:
    """Read a dataset's source under its contract and return the good rows, and what would be set aside.

    rows: stop after so many good ones. Raises InvalidInput for a contract that contradicts itself or files that do
    not fit it at all, NotFound for absent files.
    """
    spec = dataset.spec(dataset.place.folder)
    check_dataset(spec)
    contract, seen = CompiledContract(spec.contract), [SeenKeys(key) for key in _keys(spec)]
    good: list[pl.DataFrame] = []
    rules: Counter[str] = Counter()
    records = height = 0
    try:
        for chunk, text in _chunks(spec, dataset.place.folder):
            records += chunk.records
            frame, broken = _take(chunk, spec, contract, seen, text=text)
            rules.update(broken)
            good.append(frame)
            height += frame.height
            if rows is not None and height >= rows:
                break
    except BatchRefused as error:
        raise InvalidInput(f"dataset {spec.name!r}: {error}") from error
    if not good:
        raise InvalidInput(f"dataset {spec.name!r}: its files hold no record: check {spec.source.url}")
    frame = pl.concat(good)
    return (frame if rows is None else frame.head(rows)), Checked(
        records=records, rows=height, rules=dict(rules)
    )


def _chunks(spec: DatasetSpec, root: Path) -> Iterator[tuple[RecordChunk, bool]]:
    from taut.bootstrap.adapters import open_sources
    from taut.bootstrap.config import Config

    table = open_sources(Config(home=root / ".taut"))
    sources = sources_for(table, spec.source.url)
    wanted = Wanted(columns=spec.contract.columns, extra_columns=spec.contract.extra_columns)
    for file in sources.find(spec.source.url, root=root):
        digest, _ = digest_of(sources, file)
        text = format_of(file, spec.source)[0] == "csv"
        for chunk in read_records(sources, file, spec.source, wanted, expected_digest=digest):
            yield chunk, text


def _take(
    chunk: RecordChunk, spec: DatasetSpec, contract: CompiledContract, seen: list[SeenKeys], *, text: bool
) -> tuple[pl.DataFrame, dict[str, int]]:
    nulls = spec.contract.null_values if text else ()
    typed, broken = to_types(chunk.frame.drop(ROW), spec.contract.columns, null_values=nulls)
    for name, mask in chunk.broken_types.items():
        broken[name] = broken[name] | mask if name in broken else mask
    checked = contract.check(typed, broken_types=broken)
    counts = Counter(checked.counts)
    good = typed.filter(checked.holds)
    for key in seen:
        again = key.add(good)
        if again.any():
            counts[key.name] += int(again.sum())
            good = good.filter(~again)
    return good, dict(counts)


def _keys(spec: DatasetSpec) -> list[tuple[str, ...]]:
    single = [(column.name,) for column in spec.contract.columns if column.unique]
    return [*dict.fromkeys([*single, *spec.contract.unique])]


def preview(features: FeatureSet, *, rows: int | None = None) -> pl.DataFrame:
    """Compute a feature set from its sources' files and return it as it would be kept.

    rows: of each source. Raises InvalidInput when the result is no feature set.
    """
    frames = [read(source, rows=rows)[0].lazy() for source in features.sources]
    return shaped(features.function(*frames), features.spec)


def try_(model: Model, *, rows: int | None = None, params: Mapping[str, Scalar] | None = None) -> Tried:
    """Train a model on its files, the newest `rows` of them, and return what the held-out part says.

    Raises InvalidInput for everything that a run would refuse.
    """
    from taut.lifecycle.training import judge
    from taut.lifecycle.training.convert import convert
    from taut.lifecycle.training.encode import check_inputs, serving_form
    from taut.lifecycle.training.split import split_by_time

    spec = model.spec
    joined, known = _joined(model, rows)
    event_time = str(model.dataset.event_time)
    parts = split_by_time(
        joined.lazy(), event_time=event_time, label=spec.label, label_at=spec.label_at, spec=spec.split
    )
    hidden = [spec.label_at] if spec.label_at else []
    logged: list[tuple[str, int, float]] = []
    trained = model.function(
        TrainContext(
            train=serving_form(parts.train.drop(hidden), list(known.values())),
            test=serving_form(parts.test.drop(hidden), list(known.values())),
            seed=spec.seed,
            params={**spec.params, **(params or {})},
            snapshots={},
            on_metric=lambda name, value, step: logged.append((name, step, value)),
        )
    )
    if not isinstance(trained, Trained):
        raise InvalidInput(
            f"{model.function.__name__} returned {type(trained).__name__}: return taut.Trained(...)"
        )
    columns = _inputs(trained, known)
    check_inputs(columns)
    needed = [*dict.fromkeys([spec.label, *trained.inputs])]
    train = serving_form(parts.train.select(needed), columns).collect()
    test = serving_form(parts.test.select(needed), columns).collect()
    made = convert(trained, columns, train[spec.label], bundle=None)
    said = _two_columns(made.served(test), made.classes)
    return Tried(
        metrics=judge.scores(judge.truth_of(test[spec.label], made.classes), said, made.classes),
        own_metrics=dict(trained.metrics),
        baselines=judge.baselines(train, test, label=spec.label, inputs=columns, classes=made.classes),
        logged=tuple(logged),
        train_rows=train.height,
        test_rows=test.height,
        kind=made.kind,
    )


def _joined(model: Model, rows: int | None) -> tuple[pl.DataFrame, dict[str, Column]]:
    """The model's rows with its features, and the columns that exist when the model is asked."""
    spec = model.spec
    event_time = model.dataset.event_time
    if event_time is None:
        raise InvalidInput(
            f"dataset {model.dataset.name!r} has no event_time: models need one to split by time"
        )
    frame = read(model.dataset)[0]
    if rows is not None:
        frame = frame.sort(event_time, maintain_order=True).tail(rows)
    known = {column.name: column for column in schema_of(frame).columns if column.name in spec.request}
    for features in model.features:
        made = preview(features)
        schema = schema_of(made)
        names = feature_names(schema, features.spec)
        on = {right: left for left, right in spec.on.items() if right in features.spec.entity}
        frame = join_point_in_time(
            frame,
            made,
            name=features.name,
            keys={on.get(name, name): name for name in features.spec.entity},
            event_time=event_time,
            feature_time=features.spec.event_time,
            columns=names,
            max_age=None if features.spec.max_age is None else parse_duration(features.spec.max_age),
        )
        known |= {name: Column(name, schema[name].dtype, nullable=True) for name in names}
    return frame, known


def _inputs(trained: Trained, known: dict[str, Column]) -> list[Column]:
    for name in trained.inputs:
        if name not in known:
            raise InvalidInput(
                f"input {name!r} would be missing when the model is asked: inputs may be {', '.join(known)}"
            )
    return [known[name] for name in trained.inputs]


def _two_columns(found: Any, classes: tuple[Any, ...]) -> Any:
    """Probabilities as [n, 2] where a model gives the positive class alone."""
    import numpy as np

    return np.stack([1 - found, found], axis=1) if classes and found.ndim == 1 else found
