"""What a training job says and leaves, looked at before anything believes it: a builder's code ran in its process."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Final

import msgspec
import polars as pl

from taut.core.errors import Corrupt, InvalidInput
from taut.core.schema import Column, DType, ModelSignature
from taut.lifecycle.training.values import Report, Run
from taut.ports.tables import ROW_ID
from taut.project.code import BYTES_MAX, open_code

_PREDICTION: Final = re.compile(r"p\d{1,4}")
_PARITY_ROWS_MAX: Final = 100_000
_PARITY_CELLS_MAX: Final = 10_000_000


def accept(run: Run, value: dict[str, object], output: Path) -> Report:
    """Return the job's report when it is one and is about this run.

    Raises InvalidInput for a report that does not fit, a signature that asks for more than the model declares, or a
    parity sample that is not what training writes, whatever it would unpack to, or code that is not the run's own bundle.
    """
    try:
        report = msgspec.convert(value, Report)
    except msgspec.ValidationError as error:
        raise InvalidInput(f"the job's report does not fit: {error}") from error
    _check_signature(run, report.signature)
    _check_parity(output / "parity.parquet")
    if report.signature.form == "code":
        _check_code(run, output / report.signature.file)
    return report


def _check_code(run: Run, path: Path) -> None:
    """The code that will run is the code that was signed for this run, and nothing else; it is read here, never run."""
    try:
        if path.stat().st_size > BYTES_MAX:
            raise Corrupt(f"it has more than {BYTES_MAX:,} bytes")
        found = open_code(path.read_bytes()).bundle_digest
    except (OSError, Corrupt) as error:
        raise InvalidInput(f"the job left no readable model: {str(error)[:300]}") from error
    if found != run.code.bundle:
        raise InvalidInput(
            f"the model's code is the bundle {found}, the run's is {run.code.bundle}: what runs must be what was signed"
        )


def _check_signature(run: Run, signature: ModelSignature) -> None:
    """A model gets what its declaration names: a lookup of its own would read any feature set to whoever asks it."""
    table = {column.name: column for column in run.data.table.schema.columns}
    request = [table[name] for name in run.spec.request]
    if signature.event_time is not None:
        request.append(Column(run.data.event_time, DType.DATETIME, nullable=True))
    features = {column.name: (item.name, column) for item in run.data.features for column in item.columns}
    inputs = {column.name: (None, column) for column in request} | features
    wrong = [
        item.column.name
        for item in signature.inputs
        if inputs.get(item.column.name) != (item.feature_set, item.column)
    ]
    declared = [item.lookup for item in run.data.features]
    if (
        list(signature.request) != request
        or signature.event_time not in (None, run.data.event_time)
        or wrong
        or any(lookup not in declared for lookup in signature.lookups)
    ):
        raise InvalidInput(
            "the job's signature is not that of the declared model (its request columns, features and lookups): "
            "return taut.Trained(...) and leave the report to taut"
        )


def _check_parity(path: Path) -> None:
    """Look at names, types and counts alone: a few kilobytes of Parquet can unpack to more than any memory."""
    try:
        lazy = pl.scan_parquet(path)
        schema = lazy.collect_schema()
        rows = int(lazy.select(pl.len()).collect().item())
    except (OSError, pl.exceptions.PolarsError) as error:
        raise InvalidInput(f"the job left no readable parity sample: {str(error)[:300]}") from error
    fits = all(
        dtype.is_integer() if name == ROW_ID else bool(_PREDICTION.fullmatch(name)) and dtype.is_float()
        for name, dtype in schema.items()
    )
    if not fits or ROW_ID not in schema or rows > _PARITY_ROWS_MAX or rows * len(schema) > _PARITY_CELLS_MAX:
        raise InvalidInput(
            f"the job's parity sample has {rows:,} rows of {', '.join(schema)[:200]}: it is not what training writes"
        )
