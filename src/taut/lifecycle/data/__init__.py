"""Data: batches of records judged against their contract, snapshots of what was admitted, a quarantine of what was not."""

from taut.lifecycle.data.compiled import CompiledContract
from taut.lifecycle.data.data import Data
from taut.lifecycle.data.retry import Retry
from taut.lifecycle.data.tables import metadata
from taut.lifecycle.data.values import (
    ColumnStatistics,
    DatasetInfo,
    FileRead,
    IngestResult,
    QuarantinedRecord,
    RowOrigin,
    SnapshotDiff,
    SnapshotInfo,
)

__all__ = [
    "ColumnStatistics",
    "CompiledContract",
    "Data",
    "DatasetInfo",
    "FileRead",
    "IngestResult",
    "QuarantinedRecord",
    "Retry",
    "RowOrigin",
    "SnapshotDiff",
    "SnapshotInfo",
    "metadata",
]
