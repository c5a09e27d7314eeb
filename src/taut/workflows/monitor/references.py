"""What a model version knew, from the run that made it: the rows that it learned from, and how it did on those that it did not."""

from __future__ import annotations

from typing import Final

import numpy as np

from taut.core.errors import InvalidInput
from taut.core.refs import VersionRef
from taut.core.schema import DType
from taut.lifecycle.monitoring import Learned, Reference, freeze, learned_of_labels, learned_of_values
from taut.lifecycle.monitoring.cells import Kind
from taut.ports.tables import ROW_ID
from taut.workflows.rooms import Rooms

_ROWS: Final = 40_000
_KINDS: Final[dict[DType, Kind]] = {
    DType.INT: "number", DType.FLOAT: "number", DType.BOOL: "word", DType.STRING: "word",
}  # fmt: skip


def reference_of(rooms: Rooms, version: VersionRef) -> Reference:
    """Return what is usual for a version, by at most 40,000 rows that its run learned from.

    Times are not watched: they go on by themselves. Raises InvalidInput where there are too few rows, NotFound for a version that no
    run of ours made (a graph).
    """
    import polars as pl  # here: the watch is looked up at each start, and most starts freeze no reference

    candidate = rooms.registry.show(version).candidate
    signature = candidate.signature
    rows = rooms.training.observed(candidate.run, rows=_ROWS)
    event_time = rooms.training.get(candidate.run).data.event_time
    columns: dict[str, tuple[Kind, str]] = {}
    for column in signature.request:
        if column.dtype in _KINDS and column.name != signature.event_time:
            columns[column.name] = _KINDS[column.dtype], "request"
    for item in signature.inputs:
        if item.feature_set is not None:
            columns[item.column.name] = _KINDS[item.column.dtype], item.feature_set
    if not columns:
        raise InvalidInput(f"{version} is asked nothing but times: there is nothing to compare")
    times = rows[event_time].cast(pl.Datetime("us"))
    hours = ((times.dt.weekday().cast(pl.Int64) - 1) * 24 + times.dt.hour()).to_numpy()
    return freeze(
        str(version), columns, {name: rows[name].to_list() for name in columns}, hours,
        times.dt.epoch("s").to_numpy() // 3600, learned=_learned(rooms, version), newest_us=int(times.dt.epoch("us").max() or 0),  # type: ignore[arg-type]
    )  # fmt: skip


def _learned(rooms: Rooms, version: VersionRef) -> Learned:
    """Return what the version said about held-out rows, and whether it was right."""
    import polars as pl

    candidate = rooms.registry.show(version).candidate
    signature = candidate.signature
    said = rooms.training.parity_sample(candidate.run)
    truth = rooms.training.holdout(candidate.run).select(ROW_ID, candidate.label)
    known = said.join(truth, on=ROW_ID, how="inner").filter(pl.col(candidate.label).is_not_null())
    if signature.output == "value":
        return learned_of_values(known["p0"].to_numpy(), known[candidate.label].cast(pl.Float64).to_numpy())
    classes = {one: at for at, one in enumerate(signature.classes)}
    labels = np.array([classes.get(one, -1) for one in known[candidate.label].to_list()], np.int64)
    probabilities = known.select(f"p{at}" for at in range(len(classes))).to_numpy().astype(np.float64)
    return learned_of_labels(probabilities, labels, signature.classes)
