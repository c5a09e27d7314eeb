"""One pass over a batch: every record checked once, good ones masked and handed on, the others set aside."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Sequence
from datetime import datetime

import msgspec
import numpy as np
import polars as pl

from taut.core.evidence import Scalar
from taut.lifecycle.data.aside import AsideRecord, AsideSink
from taut.lifecycle.data.casts import to_types
from taut.lifecycle.data.compiled import CompiledContract
from taut.lifecycle.data.doors import Doors, Progress
from taut.lifecycle.data.evidence import Counts
from taut.lifecycle.data.personal import Protector
from taut.lifecycle.data.pii import PiiWatch
from taut.lifecycle.data.reading import format_of, read_records, sources_for
from taut.lifecycle.data.records import ROW, RecordChunk, Wanted, as_scalar_record
from taut.lifecycle.data.statistics import Tallies, add, open_columns, tally
from taut.lifecycle.data.unique import SeenKeys
from taut.ports.sources import SourceFile
from taut.ports.tables import ROW_ID
from taut.project.manifest import DatasetSpec


class BatchFile(msgspec.Struct, frozen=True, kw_only=True):
    """A source file with the digest of its bytes."""

    file: SourceFile
    digest: str
    size_bytes: int


class BatchPass:
    """Reads the files of a batch in order; afterwards holds what was counted.

    Records are numbered through the batch from `first_row_id`, quarantined ones included: their row ids are kept for
    them, so that a row's place in its file follows from its id.
    """

    def __init__(
        self,
        doors: Doors,
        spec: DatasetSpec,
        contract: CompiledContract,
        *,
        seen: Sequence[SeenKeys],
        aside: AsideSink,
        first_row_id: int,
        progress: Progress | None = None,
    ) -> None:
        self._doors = doors
        self._spec = spec
        self._contract = contract
        self._seen = tuple(seen)
        self._aside = aside
        self._next_row_id = first_row_id
        self._progress = progress
        self._pii = PiiWatch(spec)
        self._protector = Protector(doors.records, doors.sealer, spec)
        self._looked_at = open_columns(spec.contract.columns, spec.subject)
        self._rules: Counter[str] = Counter()
        self._columns: Counter[str] = Counter()
        self._good = 0
        self._newest: datetime | None = None
        self.records_by_file: dict[str, int] = {}
        self.first_row_ids: dict[str, int] = {}
        self.tallies: Tallies = {}

    @property
    def next_row_id(self) -> int:
        return self._next_row_id

    def counts(self) -> Counts:
        """Return what was counted so far."""
        return Counts(
            records=sum(self.records_by_file.values()),
            good=self._good,
            rules=dict(self._rules),
            columns=dict(self._columns),
            newest=self._newest,
            pii=self._pii.found,
        )

    def frames(self, files: Sequence[BatchFile]) -> Iterator[pl.DataFrame]:
        """Yield the good rows in order, as they are stored, with `_row_id`."""
        size_all = sum(f.size_bytes for f in files) or 1
        size_done = 0
        wanted = Wanted(columns=self._spec.contract.columns, extra_columns=self._spec.contract.extra_columns)
        for item in files:
            start = self._next_row_id
            self.first_row_ids[item.digest] = start
            self.records_by_file[item.digest] = 0
            text = format_of(item.file, self._spec.source)[0] == "csv"
            sources = sources_for(self._doors.sources, item.file.url)
            for chunk in read_records(
                sources, item.file, self._spec.source, wanted, expected_digest=item.digest,
                scratch=self._doors.scratch,
            ):  # fmt: skip
                self.records_by_file[item.digest] += chunk.records
                self._next_row_id = start + self.records_by_file[item.digest]
                good = self.take(chunk, item, first_row_id=start, text=text)
                if good.height:
                    yield good
                if self._progress is not None:
                    seen = sum(self.records_by_file.values())
                    self._progress(f"{item.file.name}: {seen:,} records read", size_done / size_all)
            size_done += item.size_bytes
        self._aside.flush()

    def take(self, chunk: RecordChunk, item: BatchFile, *, first_row_id: int, text: bool) -> pl.DataFrame:
        """Check one chunk; return its good rows as stored and set the others aside."""
        columns = self._spec.contract.columns
        raw = chunk.frame.drop(ROW)
        typed, broken = to_types(raw, columns, null_values=self._spec.contract.null_values if text else ())
        for name, mask in chunk.broken_types.items():
            broken[name] = broken[name] | mask if name in broken else mask
        checked = self._contract.check(typed, broken_types=broken)
        self._count_columns(checked.broken)
        reasons: dict[int, tuple[str, ...]] = {}
        good = typed
        places = np.arange(typed.height)
        if checked.bad:
            bad = (~checked.holds).arg_true().to_list()
            reasons = dict(zip(bad, checked.reasons(), strict=True))
            good = typed.filter(checked.holds)
            places = np.flatnonzero(checked.holds.to_numpy())
        stored = self._protector.protect(self._pii.watch(good))
        stored, places = self._without_duplicates(stored, places, reasons)
        self._set_aside(chunk, typed, reasons, item, first_row_id)
        self._notice_age(typed, places)
        self._good += stored.height
        self.tallies = add(self.tallies, tally(stored, self._looked_at))
        rows = chunk.frame[ROW].gather(places)
        return stored.with_columns((rows + (first_row_id - 1)).cast(pl.UInt64).alias(ROW_ID))

    def _notice_age(self, typed: pl.DataFrame, places: np.typing.NDArray[np.int64]) -> None:
        column = self._spec.contract.freshness_column
        if column is None or not places.size:
            return
        newest = typed[column].gather(places).cast(pl.Datetime("us", "UTC")).max()
        if isinstance(newest, datetime) and (self._newest is None or newest > self._newest):
            self._newest = newest

    def _without_duplicates(
        self, stored: pl.DataFrame, places: np.typing.NDArray[np.int64], reasons: dict[int, tuple[str, ...]]
    ) -> tuple[pl.DataFrame, np.typing.NDArray[np.int64]]:
        """Drop rows whose key is taken. Of several rows with one key the first is kept."""
        for seen in self._seen:
            again = seen.add(stored)
            if not again.any():
                continue
            for place in places[again.to_numpy()].tolist():
                reasons[place] = (*reasons.get(place, ()), seen.name)
            if len(seen.columns) == 1:
                self._columns[seen.columns[0]] += int(again.sum())
            stored = stored.filter(~again)
            places = places[~again.to_numpy()]
        return stored, places

    def _count_columns(self, broken: pl.DataFrame) -> None:
        for column in self._spec.contract.columns:
            mine = [name for name in broken.columns if name.rpartition(":")[0] == column.name]
            if mine and column.max_bad_fraction is not None:
                self._columns[column.name] += int(broken.select(pl.any_horizontal(mine)).to_series().sum())

    def _set_aside(
        self,
        chunk: RecordChunk,
        typed: pl.DataFrame,
        reasons: dict[int, tuple[str, ...]],
        item: BatchFile,
        first_row_id: int,
    ) -> None:
        found: list[AsideRecord] = []
        if reasons:
            where = sorted(reasons)
            raws = chunk.frame[where].to_dicts()
            subject = self._spec.subject
            owners = (
                typed[subject].gather(where).cast(pl.String).to_list() if subject else [None] * len(where)
            )
            for place, raw, owner in zip(where, raws, owners, strict=True):
                self._rules.update(reasons[place])
                found.append(
                    _record(raw[ROW], reasons[place], as_scalar_record(raw), owner, item, first_row_id)
                )
        for odd in chunk.malformed:
            self._rules[odd.rule] += 1
            raw_record: dict[str, Scalar] = {"_raw": odd.raw, "_why": odd.message}
            found.append(_record(odd.row, (odd.rule,), raw_record, None, item, first_row_id))
        self._aside.add(
            sorted(found, key=lambda record: record.row), records=sum(self.records_by_file.values())
        )


def _record(
    row: int,
    rules: tuple[str, ...],
    record: dict[str, Scalar],
    owner: str | None,
    item: BatchFile,
    first_row_id: int,
) -> AsideRecord:
    return AsideRecord(
        source_digest=item.digest,
        source_name=item.file.name,
        row=row,
        row_id=first_row_id + row - 1,
        rules=rules,
        record=record,
        owner=owner,
    )
