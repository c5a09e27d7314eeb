"""What every Tables adapter must do. Subclass in a test module and give `open` and `damage`."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterator
from contextlib import AbstractContextManager
from datetime import UTC, date, datetime
from pathlib import Path

import polars as pl
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from taut.core.errors import Corrupt, InvalidInput, NotFound
from taut.core.schema import Column, DType, Schema
from taut.ports.tables import ROW_ID, TableManifest, Tables

SCHEMA = Schema(
    (
        Column("i", DType.INT, nullable=True),
        Column("f", DType.FLOAT, nullable=True),
        Column("s", DType.STRING, nullable=True),
        Column("b", DType.BOOL, nullable=True),
        Column("d", DType.DATE, nullable=True),
        Column("t", DType.DATETIME, nullable=True),
    )
)
_ONE = Schema((Column("x", DType.INT),))
_ROWS = st.lists(
    st.tuples(
        st.none() | st.integers(-(2**63), 2**63 - 1),
        st.none() | st.floats(allow_nan=False),
        st.none() | st.text(max_size=8),
        st.none() | st.booleans(),
        st.none() | st.dates(date(1900, 1, 1), date(2200, 1, 1)),
        st.none() | st.datetimes(datetime(1900, 1, 1), datetime(2200, 1, 1), timezones=st.just(UTC)),  # noqa: DTZ001 - bounds
    ),
    max_size=30,
)
# examples may share a folder, and the same suite runs once for each adapter: both are meant
_FRESH = settings(
    max_examples=15,
    deadline=None,
    suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.differing_executors],
)


def frame_of(rows: list[tuple[object, ...]]) -> pl.DataFrame:
    return pl.DataFrame(
        rows,
        schema={"i": pl.Int64, "f": pl.Float64, "s": pl.String, "b": pl.Boolean, "d": pl.Date,
                "t": pl.Datetime("us", "UTC")},
        orient="row",
    )  # fmt: skip


def ints(*values: int) -> pl.DataFrame:
    return pl.DataFrame({"x": list(values)}, schema={"x": pl.Int64})


class TablesSuite(ABC):
    """The suite. Each test opens a store of its own."""

    @abstractmethod
    def open(self, folder: Path) -> AbstractContextManager[Tables]:
        """Open the store that belongs to `folder`; the same one for the same folder. Files hold at most 7 rows."""

    @abstractmethod
    def damage(self, folder: Path, digest: str) -> None:
        """Flip one bit of a stored file behind the adapter's back."""

    @_FRESH
    @given(batches=st.lists(_ROWS, max_size=4))
    def test_rows_come_back_in_order_with_their_types(
        self, tmp_path: Path, batches: list[list[tuple[object, ...]]]
    ) -> None:
        frames = [frame_of(rows) for rows in batches]
        whole = pl.concat([frame_of([]), *frames])
        with self.open(tmp_path) as tables:
            manifest = tables.write(frames, schema=SCHEMA, first_row_id=1)
            assert manifest.rows == whole.height
            assert all(file.rows <= 7 for file in manifest.files)
            numbered = whole.with_row_index(ROW_ID, offset=1).cast({ROW_ID: pl.UInt64})
            assert tables.scan(manifest).collect().equals(whole)
            assert tables.scan(manifest, row_ids=True).collect().equals(numbered)
            again = [numbered.clear(), *tables.batches(manifest, row_ids=True)]
            assert pl.concat(again).equals(numbered)

    def test_an_empty_table_has_its_schema_and_no_rows(self, tmp_path: Path) -> None:
        with self.open(tmp_path) as tables:
            manifest = tables.write([], schema=SCHEMA, first_row_id=1)
            assert manifest == TableManifest(schema=SCHEMA)
            assert tables.scan(manifest, row_ids=True).collect().schema[ROW_ID] == pl.UInt64
            assert tables.scan(manifest).collect().equals(frame_of([]))
            assert list(tables.batches(manifest)) == []

    def test_a_child_shares_its_parents_files_and_adds_its_own(self, tmp_path: Path) -> None:
        with self.open(tmp_path) as tables:
            parent = tables.write([ints(*range(20))], schema=_ONE, first_row_id=1)
            child = tables.write([ints(100, 101)], schema=_ONE, first_row_id=21, parent=parent)
            assert child.files[: len(parent.files)] == parent.files
            assert tables.scan(child).collect()["x"].to_list() == [*range(20), 100, 101]
            assert tables.scan(child, row_ids=True).collect()[ROW_ID].to_list() == list(range(1, 23))
            assert tables.scan(parent).collect()["x"].to_list() == list(range(20))

    def test_row_ids_that_a_frame_carries_are_kept(self, tmp_path: Path) -> None:
        with self.open(tmp_path) as tables:
            first = tables.write([ints(*range(10))], schema=_ONE, first_row_id=1)
            kept = tables.scan(first, row_ids=True).filter(pl.col("x") % 2 == 0).collect()
            second = tables.write([kept], schema=_ONE, first_row_id=99)
            assert tables.scan(second, row_ids=True).collect().equals(kept)
            assert (second.files[0].row_id_min, second.files[0].row_id_max) == (1, 9)

    def test_the_same_rows_give_the_same_files(self, tmp_path: Path) -> None:
        with self.open(tmp_path) as tables:
            one = tables.write([ints(1, 2, 3)], schema=_ONE, first_row_id=1)
            assert tables.write([ints(1), ints(2, 3)], schema=_ONE, first_row_id=1) == one

    def test_only_the_columns_that_are_asked_for_come_and_in_that_order(self, tmp_path: Path) -> None:
        with self.open(tmp_path) as tables:
            manifest = tables.write(
                [frame_of([(1, 2.0, "c", True, None, None)])], schema=SCHEMA, first_row_id=1
            )
            assert tables.scan(manifest, columns=["s", "i"]).collect().columns == ["s", "i"]
            assert tables.scan(manifest, columns=["s"], row_ids=True).collect().columns == [ROW_ID, "s"]
            with pytest.raises(InvalidInput, match="nope"):
                tables.scan(manifest, columns=["nope"])

    def test_a_flipped_bit_in_any_file_is_corrupt_before_a_row_of_it_is_seen(self, tmp_path: Path) -> None:
        with self.open(tmp_path) as tables:
            manifest = tables.write([ints(*range(20))], schema=_ONE, first_row_id=1)
            tables.scan(manifest).collect()
        self.damage(tmp_path, manifest.files[1].digest)
        with self.open(tmp_path) as tables:
            with pytest.raises(Corrupt):
                tables.scan(manifest)
            seen: list[int] = []
            with pytest.raises(Corrupt):
                seen.extend(x for batch in tables.batches(manifest) for x in batch["x"].to_list())
            assert seen == list(range(manifest.files[0].rows))

    def test_a_manifest_of_another_store_is_not_found(self, tmp_path: Path) -> None:
        with self.open(tmp_path / "one") as one, self.open(tmp_path / "two") as two:
            manifest = one.write([ints(1)], schema=_ONE, first_row_id=1)
            with pytest.raises(NotFound):
                two.scan(manifest)

    @pytest.mark.parametrize(
        ("frame", "says"),
        [
            (pl.DataFrame({"y": [1]}), "lacks x"),
            (pl.DataFrame({"x": [1], "y": [1]}), "has y"),
            (pl.DataFrame({"x": ["1"]}), "'x'"),
            (pl.DataFrame({"x": [1.5]}), "'x'"),
            (pl.DataFrame({"x": [1, None]}), "1 nulls"),
            (pl.DataFrame({"x": [2**63]}, schema={"x": pl.UInt64}), "does not fit"),
            (pl.DataFrame({"x": [1, 2], ROW_ID: [5, 5]}), "repeats"),
            (pl.DataFrame({"x": [1], ROW_ID: [None]}, schema={"x": pl.Int64, ROW_ID: pl.Int64}), "null"),
            (pl.DataFrame({"x": [1], ROW_ID: [-1]}), "negative"),
        ],
    )
    def test_a_frame_that_does_not_fit_is_refused(
        self, tmp_path: Path, frame: pl.DataFrame, says: str
    ) -> None:
        with self.open(tmp_path) as tables, pytest.raises(InvalidInput, match=says):
            tables.write([frame], schema=_ONE, first_row_id=1)

    def test_times_without_a_zone_are_refused(self, tmp_path: Path) -> None:
        schema = Schema((Column("t", DType.DATETIME),))
        naive = pl.DataFrame({"t": [datetime(2020, 1, 1)]})  # noqa: DTZ001 - what is refused
        with self.open(tmp_path) as tables, pytest.raises(InvalidInput, match="'t'"):
            tables.write([naive], schema=schema, first_row_id=1)

    def test_row_ids_of_the_parent_are_not_given_again(self, tmp_path: Path) -> None:
        with self.open(tmp_path) as tables:
            parent = tables.write([ints(1, 2)], schema=_ONE, first_row_id=1)
            with pytest.raises(InvalidInput, match="begin at 3"):
                tables.write([ints(3)], schema=_ONE, first_row_id=2, parent=parent)
            with pytest.raises(InvalidInput, match="schema"):
                tables.write([], schema=SCHEMA, first_row_id=3, parent=parent)
            with pytest.raises(InvalidInput, match=ROW_ID):
                tables.write([], schema=Schema((Column(ROW_ID, DType.INT),)), first_row_id=1)
            with pytest.raises(InvalidInput, match="begin at 0"):
                tables.write([], schema=_ONE, first_row_id=-1)

    def test_an_error_of_the_callers_passes_through_and_the_store_lives_on(self, tmp_path: Path) -> None:
        def frames() -> Iterator[pl.DataFrame]:
            yield ints(*range(20))
            raise RuntimeError("the source broke")

        with self.open(tmp_path) as tables:
            with pytest.raises(RuntimeError, match="the source broke"):
                tables.write(frames(), schema=_ONE, first_row_id=1)
            assert tables.write([ints(1)], schema=_ONE, first_row_id=1).rows == 1
