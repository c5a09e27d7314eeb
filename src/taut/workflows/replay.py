"""Logged traffic as rows: what the live version was asked, found and answered."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from itertools import zip_longest
from typing import Any, Final

import msgspec
import numpy as np
import numpy.typing as npt
import polars as pl

from taut.core.refs import VersionRef
from taut.core.schema import DType, ModelSignature
from taut.serving.predictions import CACHED, PredictionRecord, decode_record
from taut.workflows.rooms import Rooms
from taut.workflows.trial import wanted

Array = npt.NDArray[Any]
_OK: Final = 200
_SEGMENTS: Final = 64
_ROWS_MIN: Final = 10
_TYPES: Final = {
    DType.BOOL: pl.Boolean, DType.INT: pl.Int64, DType.FLOAT: pl.Float64, DType.STRING: pl.String,
}  # fmt: skip


class Replay(msgspec.Struct, frozen=True, kw_only=True):
    """Requests as a model is asked, what the live version answered, and what the candidate does."""

    rows: pl.DataFrame
    live: Array
    own: Array


def replay_of(rooms: Rooms, live: VersionRef, signature: ModelSignature, *, rows: int) -> Replay | str:
    """Return the newest answered requests of a version as the candidate would be asked them, or why there are none.

    Features are those that were found then. At most the newest 64 segments of the log are read.
    """
    theirs = rooms.registry.signature(live)
    if theirs.classes != signature.classes:
        return f"{live} has other classes: its answers cannot be compared"
    asked: list[dict[str, Any]] = []
    answered: list[Any] = []
    for record in _newest(rooms, live):
        answers = record.answer.probabilities or record.answer.values
        asked += rows_of(record)
        answered += answers
        if len(asked) >= rows:
            break
    if len(asked) < _ROWS_MIN:
        return f"{len(asked)} answers of {live} are in the log, {_ROWS_MIN} are needed: nothing can be said"
    frame = as_asked(asked[:rows], signature)
    missing = [name for name in wanted(signature) if name not in (*frame.columns, signature.event_time)]
    if missing:
        return f"the candidate needs {', '.join(missing)}, which requests to {live} did not bring"
    said = np.asarray(answered[: frame.height], dtype=np.float64)
    return Replay(rows=frame, live=said, own=np.empty(0))


def as_asked(rows: Sequence[dict[str, Any]], signature: ModelSignature) -> pl.DataFrame:
    """Return logged rows as a model is asked them, in the types of its signature; columns that no row has are left out."""
    frame = pl.DataFrame(rows, infer_schema_length=None)
    columns = {column.name: column for column in signature.request}
    columns |= {item.column.name: item.column for item in signature.inputs}
    return frame.select(
        pl.col(name).cast(_TYPES[columns[name].dtype]) if columns[name].dtype in _TYPES else pl.col(name)
        for name in wanted(signature)
        if name in frame.columns
    )


def _newest(rooms: Rooms, version: VersionRef) -> Iterator[PredictionRecord]:
    for segment in reversed(rooms.predictions.segments()[-_SEGMENTS:]):
        for payload in reversed(rooms.predictions.payloads(segment)):
            record = decode_record(payload)
            if (
                record.head.version == str(version)
                and record.status == _OK
                and record.fallback in ("", CACHED)
            ):
                yield record


def rows_of(record: PredictionRecord) -> Iterator[dict[str, Any]]:
    """Yield each row of a request with the features that were found for it."""
    for at, row in enumerate(record.requests()):
        found = dict(row)
        features = record.features[at] if at < len(record.features) else ()
        for lookup, one in zip_longest(record.head.lookups, features):
            values = () if one is None else one.values
            found |= dict(zip_longest(lookup.columns, values[: len(lookup.columns)]))
        yield found
