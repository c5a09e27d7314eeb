"""A hostile file among the sources: small to send, dear to read, or made to end the reader."""

from __future__ import annotations

import gzip
import resource
import time
from pathlib import Path

import polars as pl
import pytest

from taut.adapters.sources.file import FileSources
from taut.core.schema import DType
from taut.lifecycle.data.reading import digest_of, read_records
from taut.lifecycle.data.records import BatchRefused, Malformed, Wanted
from taut.project.manifest import ColumnSpec, SourceSpec

COLUMNS = (
    ColumnSpec(name="id", dtype=DType.INT),
    ColumnSpec(name="v", dtype=DType.STRING, nullable=True, required=False),
)


def read(path: Path) -> tuple[int, list[Malformed]]:
    """Return how many records there are, and those that are none."""
    sources = FileSources()
    [file] = sources.find(str(path), root=path.parent)
    digest, _ = digest_of(sources, file)
    wanted = Wanted(columns=COLUMNS, extra_columns="drop")
    chunks = list(read_records(sources, file, SourceSpec(url=path.name), wanted, expected_digest=digest))
    return sum(chunk.records for chunk in chunks), [record for chunk in chunks for record in chunk.malformed]


@pytest.mark.parametrize(
    "line",
    [b'{"id":1,"v":' + b"[" * 200_000 + b"]" * 200_000 + b"}", b"{" + b" " * (2**20 + 9) + b"}", b'{"id":"\\ud800"}',
     b'{"id":"\xff"}', b'{"id":NaN}', b"[]", b"null", b'{"id":1e999999}', b"\x00", b'{"":1}', b'{"id":' + b"9" * 5000 + b"}"],
    ids=["deep", "empty", "surrogate", "latin", "nan", "list", "null", "large", "nul", "nameless", "digits"],
)  # fmt: skip
def test_no_line_of_json_ends_the_reader_or_takes_its_neighbours_along(tmp_path: Path, line: bytes) -> None:
    path = tmp_path / "a.jsonl"
    path.write_bytes(b'{"id":1}\n' + line + b'\n{"id":2}\n')

    records, malformed = read(path)

    assert records == 3
    assert len(malformed) <= 1


@pytest.mark.parametrize("name", ["a.csv", "a.jsonl", "a.parquet"])
def test_a_file_of_very_many_columns_is_refused_at_once(tmp_path: Path, name: str) -> None:
    """To look for doubled names one by one took minutes for a header of 2 MB."""
    path = tmp_path / name
    names = [f"c{number}" for number in range(200_000)]
    if name == "a.csv":
        path.write_text(",".join(names) + "\n" + ",".join(["1"] * len(names)) + "\n")
    elif name == "a.jsonl":
        path.write_text("{" + ",".join(f'"{name}":1' for name in names) + "}\n")
    else:
        pl.DataFrame({name: [1] for name in names[:20_000]}).write_parquet(path)
    began = time.process_time()

    with pytest.raises(BatchRefused, match="columns"):
        read(path)

    assert time.process_time() - began < 8.0


@pytest.mark.parametrize("name", ["a.csv.gz", "a.jsonl.gz"])
def test_a_line_without_an_end_that_unpacks_to_much_takes_little_memory(tmp_path: Path, name: str) -> None:
    path = tmp_path / name
    with gzip.open(path, "wb", 1) as file:
        file.write(b"id,v\n" if "csv" in name else b'{"id":"')
        for _ in range(400):
            file.write(b"1" * 2**20)
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    if "csv" in name:
        records, malformed = read(path)
        assert (records, len(malformed)) == (1, 1)
    else:
        with pytest.raises(BatchRefused, match="larger than 8 MiB"):
            read(path)

    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < 200 * 1024
