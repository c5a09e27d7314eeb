"""Scoring in jobs that die: what was kept is not scored again, and every row is there once."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import numpy as np
import polars as pl
import pytest

from taut.adapters.blobs.local import LocalBlobs
from taut.adapters.keys.file import FileKeys
from taut.adapters.tables.parquet import ParquetTables
from taut.core.errors import Corrupt, Exhausted, InvalidInput, TautError, Unavailable
from taut.core.refs import VersionRef
from taut.core.schema import Column, DType, Schema
from taut.lifecycle.batch import Chunk, Results, metadata
from taut.ports.jobs import JobEnd, JobResult, Progress, Task
from taut.ports.tables import ROW_ID, TableManifest
from taut.serving.batch import REASONS, answer_schema
from taut.testing.jobs import InlineJobs
from taut.testing.records import memory_records
from taut.testing.serving import matrix_model, matrix_signature
from taut.testing.world import ManualClock, SeededRandom, SequenceIds
from taut.trust.ledger import Ledger
from taut.trust.ledger import metadata as ledger_metadata
from taut.trust.lineage import Lineage
from taut.trust.lineage import metadata as lineage_metadata
from taut.workflows.rooms import Rooms
from taut.workflows.scoring import Scoring

ROWS, CHUNK = 1003, 50
SIGNATURE = matrix_signature(2)
KEY = Column("order", DType.INT)
ANSWERS = Schema((KEY, *answer_schema(SIGNATURE)))
REJECTS = Schema((Column("order", DType.INT, nullable=True), Column(REASONS, DType.STRING)))
INPUTS = Schema((KEY, Column("x0", DType.FLOAT, nullable=True), Column("x1", DType.FLOAT)))


class Killed(BaseException):
    """Ends a job where it stands, as a signal does."""


class MortalJobs:
    """Jobs that die after so many chunks, each as it is told, and the last ones not at all."""

    def __init__(self, *lives: tuple[int, JobEnd]) -> None:
        self.lives = list(lives)
        self.scored: list[list[int]] = []

    def run(self, task: Task, *, output: Path, progress: Progress | None = None) -> JobResult:
        assert progress is not None
        after, end = self.lives.pop(0) if self.lives else (ROWS, JobEnd.DONE)
        mine: list[int] = []
        self.scored.append(mine)
        if after == 0:
            return JobResult(end=end, error="planted")

        def tell(message: str, fraction: float) -> None:
            mine.append(int(message))
            progress(message, fraction)
            if len(mine) == after:
                raise Killed

        try:
            return InlineJobs().run(task, output=output, progress=tell)
        except Killed:
            return JobResult(end=end, error="planted")


class House:
    """As much of an installation as scoring sees."""

    def __init__(self, folder: Path, jobs: MortalJobs) -> None:
        self.jobs = jobs
        self.records = memory_records(metadata, ledger_metadata, lineage_metadata)
        clock = ManualClock()
        keys = FileKeys(folder / "keys", random=SeededRandom())
        ledger = Ledger(self.records, keys, clock, SequenceIds(), origin="test")
        self.tables = ParquetTables(LocalBlobs(folder / "blobs"))
        self.results = Results(
            records=self.records, tables=self.tables, ledger=ledger, lineage=Lineage(clock), clock=clock
        )
        self.scratch = folder / "scratch"
        self.scratch.mkdir()
        dice = np.random.default_rng(5)
        frame = pl.DataFrame(
            {"order": range(ROWS), "x0": dice.normal(size=ROWS), "x1": dice.normal(size=ROWS)}
        ).with_columns(x0=pl.when(pl.col("order") % 100 == 7).then(None).otherwise("x0"))
        self.manifest = self.tables.write([frame], schema=INPUTS, first_row_id=0)
        self.model = matrix_model(2)
        self.registry = SimpleNamespace(signature=lambda _ref: SIGNATURE, load=self._load)
        self.data = SimpleNamespace(manifest=lambda _ref: self.manifest)
        self.features = SimpleNamespace(loaded=lambda _features: None)

    def _load(self, _ref: VersionRef, *, to_serve: bool) -> Any:
        assert to_serve
        return SimpleNamespace(model=self.model)

    def score(self) -> list[Chunk]:
        scoring = Scoring(
            cast(Rooms, self), snapshot=VersionRef("orders", 1), model=VersionRef("late", 1), features=(), event_time=None,
            keys=("order",), schemas=(ANSWERS, REJECTS), chunk_rows=CHUNK, work="w",
        )  # fmt: skip
        return scoring.run(lambda _message, _fraction: None)


@pytest.fixture
def folder(tmp_path: Path) -> Iterator[Path]:
    yield tmp_path
    assert list((tmp_path / "scratch").iterdir()) == [], "an attempt left its files"


@pytest.fixture
def undisturbed(tmp_path_factory: pytest.TempPathFactory) -> list[Chunk]:
    return House(tmp_path_factory.mktemp("calm"), MortalJobs()).score()


def test_every_row_is_scored_or_named_once(folder: Path) -> None:
    house = House(folder, MortalJobs())

    chunks = house.score()

    files = [file for chunk in chunks for file in chunk.files]
    answers = house.tables.scan(
        house.manifest.__class__(schema=ANSWERS, files=tuple(files)), row_ids=True
    ).collect()
    rejects = house.tables.scan(
        house.manifest.__class__(schema=REJECTS, files=tuple(f for chunk in chunks for f in chunk.rejects)),
        row_ids=True,
    ).collect()
    assert sorted([*answers[ROW_ID], *rejects[ROW_ID]]) == list(range(ROWS))
    assert answers[ROW_ID].is_sorted()
    assert set(rejects["order"] % 100) == {7}
    assert set(rejects[REASONS]) == {"column 'x0' is null and must not be"}
    assert sum(sum(chunk.reasons.values()) for chunk in chunks) == rejects.height == 10


@pytest.mark.parametrize("end", [JobEnd.KILLED, JobEnd.TIMED_OUT, JobEnd.OUT_OF_MEMORY, JobEnd.DONE])
def test_a_job_that_dies_is_replaced_and_nothing_is_scored_twice(
    folder: Path, undisturbed: list[Chunk], end: JobEnd
) -> None:
    jobs = MortalJobs((1, end), (7, end), (3, end))

    chunks = House(folder, jobs).score()

    assert chunks == undisturbed
    told = [number for mine in jobs.scored for number in mine]
    assert told == list(range(len(chunks)))
    assert len(jobs.scored) == 4


def test_another_attempt_carries_on_where_one_was_given_up(folder: Path, undisturbed: list[Chunk]) -> None:
    house = House(folder, MortalJobs((4, JobEnd.KILLED), *[(0, JobEnd.KILLED)] * 3))
    with pytest.raises(Unavailable, match="3 times"):
        house.score()
    assert sorted(house.results.chunks("w")) == [0, 1, 2, 3]

    house.jobs = MortalJobs()
    assert house.score() == undisturbed
    assert house.jobs.scored == [list(range(4, len(undisturbed)))]


@pytest.mark.parametrize(
    ("end", "kind"),
    [
        (JobEnd.OUT_OF_MEMORY, Exhausted), (JobEnd.TIMED_OUT, Exhausted), (JobEnd.OUTPUT_TOO_LARGE, Exhausted),
        (JobEnd.RAISED, InvalidInput),
    ],
)  # fmt: skip
def test_a_job_that_cannot_do_it_is_not_tried_for_ever(
    folder: Path, end: JobEnd, kind: type[TautError]
) -> None:
    jobs = MortalJobs(*[(0, end)] * 9)

    with pytest.raises(kind, match="planted"):
        House(folder, jobs).score()
    assert len(jobs.scored) == 1


def test_what_cannot_be_read_ends_the_attempt_with_its_own_words(folder: Path) -> None:
    house = House(folder, MortalJobs())
    (file,) = house.manifest.files
    path = next((folder / "blobs").rglob(file.digest.removeprefix("sha256:")[-20:] + "*"), None)
    stored = path or next(
        p for p in (folder / "blobs").rglob("*") if p.is_file() and p.stat().st_size == file.size_bytes
    )
    stored.chmod(0o600)
    data = bytearray(stored.read_bytes())
    data[len(data) // 2] ^= 1
    stored.write_bytes(data)

    with pytest.raises(Corrupt):
        house.score()


def test_a_fault_while_chunks_are_prepared_ends_the_job_and_is_told(folder: Path) -> None:
    house = House(folder, MortalJobs())

    class Broken(ParquetTables):
        def scan(
            self, manifest: TableManifest, *, columns: Iterable[str] | None = None, row_ids: bool = False
        ) -> pl.LazyFrame:
            scan = super().scan(manifest, columns=columns, row_ids=row_ids)
            return scan.with_columns(x1=pl.col("x1").map_elements(_fail_late, return_dtype=pl.Float64))

    house.tables = Broken(LocalBlobs(folder / "blobs"))
    with pytest.raises(ValueError, match="planted"):
        house.score()
    assert len(house.results.chunks("w")) < ROWS // CHUNK


def test_a_model_that_is_not_what_was_signed_is_not_run(folder: Path) -> None:
    house = House(folder, MortalJobs())

    def refuse(_ref: VersionRef, *, to_serve: bool) -> Any:
        raise Corrupt("model.onnx of late@1 is not what was signed")

    house.registry.load = refuse
    with pytest.raises(Corrupt, match="not what was signed"):
        house.score()
    assert house.jobs.scored == []


def _fail_late(value: float) -> float:
    if value > 2.2:
        raise ValueError("planted")
    return value
