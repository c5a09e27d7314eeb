"""A data room on embedded adapters, and small datasets to put through it."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import polars as pl

from taut.adapters.blobs.local import LocalBlobs
from taut.adapters.keys.file import FileKeys
from taut.adapters.sources.file import FileSources
from taut.adapters.tables.parquet import ParquetTables
from taut.core.refs import VersionRef
from taut.core.schema import DType
from taut.lifecycle.data import Data, IngestResult, metadata
from taut.ports.records import Records
from taut.ports.sources import Sources
from taut.project.manifest import ColumnSpec, ContractSpec, DatasetSpec, SourceSpec
from taut.testing.records import memory_records
from taut.testing.world import ManualClock, SeededRandom, SequenceIds
from taut.trust.envelope.tables import metadata as sealing_metadata
from taut.trust.ledger import Ledger
from taut.trust.ledger.tables import metadata as ledger_metadata
from taut.trust.lineage import Lineage
from taut.trust.lineage.tables import metadata as lineage_metadata
from taut.trust.sealing import Sealer

METADATAS = (metadata, ledger_metadata, lineage_metadata, sealing_metadata)


class Room:
    """Everything that a test of the data room needs, in one folder."""

    def __init__(
        self, folder: Path, *, records: Records | None = None, sources: Sources | None = None, seed: int = 0
    ) -> None:
        self.folder = folder
        self.files = folder / "files"
        self.files.mkdir(parents=True, exist_ok=True)
        self.records = records or memory_records(*METADATAS)
        self.clock = ManualClock()
        self.ids = SequenceIds()
        self.random = SeededRandom(seed)
        self.keys = FileKeys(folder / "keys", random=self.random)
        self.blobs = LocalBlobs(folder / "blobs")
        self.tables = ParquetTables(self.blobs)
        self.ledger = Ledger(self.records, self.keys, self.clock, self.ids, origin="example.org/test")
        self.lineage = Lineage(self.clock)
        self.sealer = Sealer(self.records, self.keys, self.random, self.clock)
        self.data = self.room()
        if sources is not None:
            self.data = self.room(sources=sources)

    def room(self, **changed: Any) -> Data:
        parts: dict[str, Any] = {
            "records": self.records,
            "blobs": self.blobs,
            "tables": self.tables,
            "ledger": self.ledger,
            "lineage": self.lineage,
            "sealer": self.sealer,
            "clock": self.clock,
            "ids": self.ids,
            "random": self.random,
        }
        sources = changed.pop("sources", FileSources())
        return Data(**{**parts, **changed}, sources={"file": sources})

    def write(self, name: str, content: str | bytes) -> Path:
        path = self.files / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(content.encode() if isinstance(content, str) else content)
        return path

    def ingest(self, spec: DatasetSpec, source: str | None = None, **named: Any) -> IngestResult:
        return self.data.ingest(spec, root=self.files, source=source, actor="ann", **named)

    def rows(self, ref: str) -> pl.DataFrame:
        return self.data.scan(VersionRef.parse(ref), row_ids=True).collect()

    def close(self) -> None:
        self.tables.close()
        self.records.close()


def people(**changed: Any) -> DatasetSpec:
    """A dataset of people and amounts: `id,name,amount,at`."""
    contract: dict[str, Any] = {
        "columns": (
            ColumnSpec(name="id", dtype=DType.INT, minimum=1),
            ColumnSpec(name="name", dtype=DType.STRING, nullable=True, max_length=20),
            ColumnSpec(name="amount", dtype=DType.FLOAT, minimum=0, maximum=1000),
            ColumnSpec(name="at", dtype=DType.DATETIME, nullable=True),
        ),
        "max_bad_fraction": 0.5,
    }
    dataset: dict[str, Any] = {"name": "people", "source": SourceSpec(url="*.csv")}
    for key, value in changed.items():
        (dataset if key in DatasetSpec.__struct_fields__ else contract)[key] = value
    return DatasetSpec(contract=ContractSpec(**contract), **dataset)


HEADER = "id,name,amount,at\n"
GOOD = HEADER + "1,ann,10.5,2013-01-01T05:00:00Z\n2,bob,0,\n3,NA,7,2013-01-02 06:30:00\n"
