"""Callables as models: taken down by name with their state as data, and asked in the form in which they will be served."""

from __future__ import annotations

import sys
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt
import polars as pl

from taut.core.errors import InvalidInput
from taut.core.schema import Column, DType
from taut.lifecycle.training.converted import Converted, Label
from taut.project.bundle import parse_bundle
from taut.project.code import CodeFailed, answer_of, capture, kind_of_code, open_code, pack_code, revive
from taut.project.training import Trained

Array = npt.NDArray[Any]


def from_code(
    model: Callable[..., Any],
    trained: Trained,
    columns: Sequence[Column],
    labels: pl.Series,
    *,
    bundle: bytes | None,
) -> Converted:
    """Take a callable down. Raises InvalidInput for one that cannot travel as source and data.

    bundle: without one nothing is taken down, and what is served is the callable itself.
    """
    classes = classes_of(labels) if trained.output == "probability" else ()
    artifact = b"" if bundle is None else pack_code(capture(model, bundle))

    def own(frame: pl.DataFrame) -> Array:
        return _asked(lambda given, count: answer_of(model, given, count), frame, columns)

    def served(frame: pl.DataFrame) -> Array:
        if bundle is None:
            return own(frame)
        _forget(parse_bundle(bundle).files)
        return _asked(revive(open_code(artifact)), frame, columns)

    return Converted(
        artifact=artifact, form="code", tensor="columns", classes=classes, own=own, served=served,
        kind=kind_of_code(model),
    )  # fmt: skip


def classes_of(labels: pl.Series) -> tuple[Label, ...]:
    """Return the labels of the training rows, sorted: the order in which a model that does not say gives probabilities."""
    return tuple(labels.drop_nulls().unique().sort().to_list())


def columns_of(frame: pl.DataFrame, columns: Sequence[Column]) -> dict[str, Array]:
    """Return the columns of a frame as a code model gets them: null numbers as NaN, absent strings as empty ones.

    Floats are FP64, those of integers that may be null too; whole numbers int64, booleans bool, or FP64 where they may be null.
    """
    return {column.name: _array(frame[column.name], column) for column in columns}


def _array(series: pl.Series, column: Column) -> Array:
    if column.dtype is DType.STRING:
        made: Array = np.array(series.fill_null("").to_list(), dtype=object)
    elif column.dtype is DType.FLOAT or column.nullable:
        made = series.cast(pl.Float64).fill_null(float("nan")).to_numpy().copy()
    else:
        made = series.to_numpy().astype(np.bool_ if column.dtype is DType.BOOL else np.int64)
    made.flags.writeable = False
    return made


def _asked(
    ask: Callable[[dict[str, Array], int], Array], frame: pl.DataFrame, columns: Sequence[Column]
) -> Array:
    try:
        found = ask(columns_of(frame, columns), frame.height).astype(np.float64)
    except CodeFailed as error:
        cause = error.__cause__
        more = "" if cause is None else f" ({str(cause)[:300]})"
        raise InvalidInput(
            f"the callable cannot score the held-out rows: it {error}{more}. It gets a dictionary of arrays, one for each "
            "input, and returns one value a row, or one probability a class"
        ) from error
    return found.reshape(-1) if found.ndim == 2 and found.shape[1] == 1 else found


def _forget(files: dict[str, bytes]) -> None:
    """Let go of the project's modules, so that they are imported as a worker will: from memory, with no other state."""
    for path in files:
        if path.endswith(".py"):
            parts = path.removesuffix(".py").removesuffix("/__init__").split("/")
            for count in range(1, len(parts) + 1):
                name = ".".join(parts[:count])
                if parts[0] not in sys.stdlib_module_names:
                    sys.modules.pop(name, None)
