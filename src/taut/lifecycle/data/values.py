"""What the data room returns: plain values, ready for JSON."""

from __future__ import annotations

from typing import Literal

import msgspec

from taut.core.evidence import Scalar, Verdict
from taut.core.refs import VersionRef
from taut.core.schema import Schema


class FileRead(msgspec.Struct, frozen=True, kw_only=True):
    """One source file as it was read. `records` counts every record in it, quarantined ones too."""

    name: str
    digest: str
    size_bytes: int
    records: int


class BadExample(msgspec.Struct, frozen=True, kw_only=True):
    """Where a rule was broken; the raw value is in the quarantine, never here."""

    source: str
    row: int
    rules: tuple[str, ...]


class IngestResult(msgspec.Struct, frozen=True, kw_only=True):
    """How one ingest ended.

    snapshot: the current one afterwards, `name@number`; None while the dataset has none. rows: admitted from this
    batch. quarantined: records set aside; of a rejected batch, those that would have been. rules: broken rule ->
    number of records. unchanged: every file had been read before, nothing was done.
    """

    dataset: str
    snapshot: str | None
    rows: int
    quarantined: int
    rejected: bool
    rules: dict[str, int]
    batch: str | None = None
    verdict: Verdict | None = None
    total_rows: int = 0  # of the current snapshot
    files: tuple[FileRead, ...] = ()
    files_skipped: int = 0
    unchanged: bool = False
    examples: tuple[BadExample, ...] = ()


class ColumnStatistics(msgspec.Struct, frozen=True, kw_only=True):
    """Of one column in one snapshot. Values of personal columns are never looked at."""

    null_fraction: float
    minimum: Scalar = None
    maximum: Scalar = None
    mean: float | None = None


class SnapshotInfo(msgspec.Struct, frozen=True, kw_only=True):
    dataset: str
    number: int
    rows: int
    schema: Schema  # as stored: sealed columns are strings
    parent: int | None
    reason: Literal["ingest", "replay", "rollback", "erase"]
    restores: int | None
    batch: str | None
    actor: str
    contract_digest: str
    created_us: int
    statistics: dict[str, ColumnStatistics]
    files: int
    size_bytes: int

    @property
    def ref(self) -> VersionRef:
        return VersionRef(self.dataset, self.number)


class DatasetInfo(msgspec.Struct, frozen=True, kw_only=True):
    """One dataset at a glance. `quarantined` counts records that wait for a person."""

    dataset: str
    snapshot: str | None
    rows: int
    snapshots: int
    batches: int
    rejected_batches: int
    quarantined: int
    updated_us: int | None


class QuarantinedRecord(msgspec.Struct, frozen=True, kw_only=True):
    """A record that was set aside. `record` has raw values by column; personal ones only where they were unsealed."""

    id: str
    dataset: str
    batch: str
    state: Literal["open", "repaired", "replayed", "discarded", "rejected"]
    source: str
    source_digest: str
    row: int
    rules: tuple[str, ...]
    record: dict[str, Scalar]
    sealed: bool  # personal values are kept apart, encrypted
    created_us: int


class SnapshotDiff(msgspec.Struct, frozen=True, kw_only=True):
    """What changed from one snapshot to another, by row id."""

    before: str
    after: str
    rows_added: int
    rows_removed: int
    rows_kept: int
    columns_added: tuple[str, ...]
    columns_removed: tuple[str, ...]
    columns_retyped: tuple[str, ...]
    contract_changed: bool
    statistics: dict[str, tuple[ColumnStatistics | None, ColumnStatistics | None]]


class RowOrigin(msgspec.Struct, frozen=True, kw_only=True):
    """Where a row came from: the file, the record in it counted from 1, and the batch that read it."""

    dataset: str
    row_id: int
    source: str
    url: str
    digest: str
    row: int
    batch: str
    quarantine: str | None = None  # set when the row was repaired and replayed from quarantine
