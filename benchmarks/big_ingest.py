"""Ingests a big CSV file with two sealed fields and prints what it took: `python -m benchmarks.big_ingest ROWS`.

A process of its own, so that its peak memory is that of the ingest alone.
"""

from __future__ import annotations

import json
import resource
import sys
import tempfile
import time
from contextlib import closing
from pathlib import Path

import numpy as np
import polars as pl

from taut.adapters.blobs.local import LocalBlobs
from taut.adapters.keys.file import FileKeys
from taut.adapters.records.sqlite import open_sqlite
from taut.adapters.sources.file import FileSources
from taut.adapters.tables.parquet import ParquetTables
from taut.adapters.world import SystemClock, SystemIds, SystemRandom
from taut.core.schema import DType
from taut.lifecycle.data import Data
from taut.lifecycle.data import metadata as data_metadata
from taut.project.manifest import ColumnSpec, ContractSpec, DatasetSpec, SourceSpec
from taut.testing.records import create_tables
from taut.trust.envelope import metadata as sealing_metadata
from taut.trust.ledger import Ledger
from taut.trust.ledger.tables import metadata as ledger_metadata
from taut.trust.lineage import Lineage
from taut.trust.lineage import metadata as lineage_metadata
from taut.trust.sealing import Sealer

_PART = 500_000
_PEOPLE = 20_000


def write_csv(path: Path, rows: int) -> None:
    """Write orders of 12 columns, one in 500 of them broken."""
    random = np.random.default_rng(3)
    with path.open("wb") as file:
        for start in range(0, rows, _PART):
            n = min(_PART, rows - start)
            person = random.integers(0, _PEOPLE, n)
            frame = pl.DataFrame(
                {
                    "id": np.arange(start, start + n),
                    "person": person,
                    "name": pl.Series(person).cast(pl.String) + " Miller",
                    "street": pl.Series(random.integers(0, 999, n)).cast(pl.String) + " Main Street",
                    "amount": random.uniform(0, 1002, n).round(2),
                    "quantity": random.integers(1, 50, n),
                    "status": random.choice(["new", "paid", "sent", "back"], n),
                    "x0": random.normal(size=n).round(4),
                    "x1": random.normal(size=n).round(4),
                    "x2": random.normal(size=n).round(4),
                    "day": (pl.Series(random.integers(0, 300, n)) + 15_000).cast(pl.Int32).cast(pl.Date),
                    "note": random.choice(["", "fragile", "gift"], n),
                }
            )
            frame.write_csv(file, include_header=start == 0)


def orders() -> DatasetSpec:
    def column(name: str, dtype: DType, **rules: object) -> ColumnSpec:
        return ColumnSpec(name=name, dtype=dtype, **rules)  # type: ignore[arg-type]  # each rule has its own type

    return DatasetSpec(
        name="orders",
        source=SourceSpec(url="orders.csv"),
        subject="person",
        contract=ContractSpec(
            columns=(
                column("id", DType.INT, unique=True, minimum=0),
                column("person", DType.INT),
                column("name", DType.STRING, personal="seal"),
                column("street", DType.STRING, personal="seal"),
                column("amount", DType.FLOAT, minimum=0, maximum=1000),
                column("quantity", DType.INT, minimum=1),
                column("status", DType.STRING, allowed=("new", "paid", "sent", "back")),
                *(column(f"x{i}", DType.FLOAT) for i in range(3)),
                column("day", DType.DATE),
                column("note", DType.STRING, nullable=True),
            )
        ),
    )


def main(rows: int) -> dict[str, float]:
    with tempfile.TemporaryDirectory(prefix="taut-bench-") as text:
        folder = Path(text)
        write_csv(folder / "orders.csv", rows)
        size = (folder / "orders.csv").stat().st_size
        before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
        with closing(open_sqlite(folder / "taut.db")) as records:
            create_tables(records, data_metadata, ledger_metadata, lineage_metadata, sealing_metadata)
            clock, random = SystemClock(), SystemRandom()
            ids = SystemIds(clock, random)
            keys = FileKeys(folder / "keys", random=random)
            blobs = LocalBlobs(folder / "blobs")
            tables = ParquetTables(blobs)
            data = Data(
                records=records, blobs=blobs, tables=tables, clock=clock, ids=ids, random=random,
                ledger=Ledger(records, keys, clock, ids, origin="bench"), lineage=Lineage(clock),
                sealer=Sealer(records, keys, random, clock), sources={"file": FileSources()},
            )  # fmt: skip
            start = time.perf_counter()
            result = data.ingest(orders(), root=folder, actor="bench")
            seconds = time.perf_counter() - start
            tables.close()
        assert not result.rejected, result.verdict
        assert result.rows + result.quarantined == rows
        peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return {
        "rows": rows, "seconds": seconds, "peak_mib": peak / 1024, "before_mib": before / 1024,
        "csv_mib": size / 2**20, "quarantined": result.quarantined,
    }  # fmt: skip


if __name__ == "__main__":
    json.dump(main(int(sys.argv[1])), sys.stdout)
