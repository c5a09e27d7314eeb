"""What every pair of OnlineReader and OnlineWriter must do. Subclass in a test module and give `open`."""

from __future__ import annotations

import asyncio
import threading
from abc import ABC, abstractmethod
from contextlib import AbstractContextManager
from pathlib import Path

from taut.core.errors import InvalidInput
from taut.core.evidence import Scalar
from taut.ports.online import OnlineReader, OnlineRow, OnlineWriter

Pair = tuple[OnlineReader, OnlineWriter]
_EXTREMES: tuple[Scalar, ...] = (
    True, False, None, 0, 1, -(2**63), 2**63 - 1, 0.0, -0.0, 1.0, 5e-324, float("inf"), "", "é\u0000\U0001f600", "1",
)  # fmt: skip


def _row(event_time_us: int, *values: Scalar, source: str = "feat_1") -> OnlineRow:
    return OnlineRow(event_time_us, values, source)


class OnlineSuite(ABC):
    """The suite. Each test opens a store of its own in a fresh folder."""

    @abstractmethod
    def open(self, folder: Path) -> AbstractContextManager[Pair]:
        """Open the store that lives in `folder`, made when it is absent; the same one for the same folder."""

    def test_a_row_reads_back_with_its_very_values_and_types(self, tmp_path: Path) -> None:
        with self.open(tmp_path) as (reader, writer):
            assert writer.put("s", [(("a",), _row(7, *_EXTREMES, source="feat_9"))]) == 1
            found = reader.get_now("s", ("a",))
            assert found is not None
            assert (found.event_time_us, found.source) == (7, "feat_9")
            assert [(type(value), repr(value)) for value in found.values] == [
                (type(value), repr(value)) for value in _EXTREMES
            ]

    def test_the_loop_and_the_direct_read_agree(self, tmp_path: Path) -> None:
        with self.open(tmp_path) as (reader, writer):
            writer.put("s", [(("a",), _row(1, 2.5))])
            found = asyncio.run(reader.get("s", [("b",), ("a",), ("a",), ("c",)]))
            assert found == [None, _row(1, 2.5), _row(1, 2.5), None]

    def test_an_entity_that_was_never_written_reads_as_none(self, tmp_path: Path) -> None:
        with self.open(tmp_path) as (reader, writer):
            assert reader.get_now("s", ("a",)) is None
            writer.put("s", [(("a",), _row(1, 1))])
            assert reader.get_now("other", ("a",)) is None

    def test_keys_of_different_types_or_parts_are_different_entities(self, tmp_path: Path) -> None:
        keys: list[tuple[Scalar, ...]] = [(1,), (1.0,), (True,), ("1",), ("a", "b"), ("ab",), ("a", "b", "")]
        with self.open(tmp_path) as (reader, writer):
            writer.put("s", [(key, _row(1, index)) for index, key in enumerate(keys)])
            for index, key in enumerate(keys):
                assert reader.get_now("s", key) == _row(1, index)
            assert writer.count("s") == len(keys)

    def test_the_newer_event_time_wins_in_whatever_order_it_is_written(self, tmp_path: Path) -> None:
        with self.open(tmp_path) as (reader, writer):
            assert writer.put("s", [(("a",), _row(20, "new"))]) == 1
            assert writer.put("s", [(("a",), _row(10, "old"))]) == 0
            assert reader.get_now("s", ("a",)) == _row(20, "new")
            assert writer.put("s", [(("a",), _row(30, "newest")), (("a",), _row(25, "between"))]) == 1
            assert reader.get_now("s", ("a",)) == _row(30, "newest")

    def test_writing_the_same_again_changes_nothing(self, tmp_path: Path) -> None:
        rows = [((f"e{index}",), _row(index, index)) for index in range(50)]
        with self.open(tmp_path) as (_, writer):
            assert writer.put("s", rows) == 50
            assert writer.put("s", rows) == 0
            assert writer.count("s") == 50

    def test_a_correction_at_the_same_event_time_replaces_the_row(self, tmp_path: Path) -> None:
        with self.open(tmp_path) as (reader, writer):
            writer.put("s", [(("a",), _row(1, "wrong"))])
            assert writer.put("s", [(("a",), _row(1, "right"))]) == 1
            assert reader.get_now("s", ("a",)) == _row(1, "right")

    def test_a_deleted_entity_reads_as_none_and_others_stay(self, tmp_path: Path) -> None:
        with self.open(tmp_path) as (reader, writer):
            writer.put("s", [(("a",), _row(1, 1)), (("b",), _row(1, 2))])
            writer.put("t", [(("a",), _row(1, 3))])
            assert writer.delete("s", [("a",), ("missing",)]) == 1
            assert reader.get_now("s", ("a",)) is None
            assert reader.get_now("s", ("b",)) == _row(1, 2)
            assert reader.get_now("t", ("a",)) == _row(1, 3)

    def test_what_was_written_is_there_after_the_store_was_closed(self, tmp_path: Path) -> None:
        with self.open(tmp_path) as (_, writer):
            writer.put("s", [(("a",), _row(1, 1))])
        with self.open(tmp_path) as (reader, _):
            assert reader.get_now("s", ("a",)) == _row(1, 1)

    def test_keys_that_name_nobody_and_numbers_beyond_64_bits_are_refused(self, tmp_path: Path) -> None:
        with self.open(tmp_path) as (reader, writer):
            for key in ((), (None,), ("a", None), ("x" * 10_000,), (2**64,)):
                _refused(lambda key=key: writer.put("s", [(key, _row(1, 1))]))
                _refused(lambda key=key: reader.get_now("s", key))
            _refused(lambda: writer.put("s", [(("a",), _row(1, 2**64))]))
            assert writer.count("s") == 0

    def test_a_reader_sees_whole_rows_while_a_writer_works(self, tmp_path: Path) -> None:
        with self.open(tmp_path) as (reader, writer):
            writer.put("s", [(("a",), _row(0, *[0] * 20))])
            torn: list[OnlineRow] = []
            seen: set[int] = set()
            done = threading.Event()

            def read() -> None:
                while not done.is_set():
                    row = reader.get_now("s", ("a",))
                    assert row is not None
                    seen.add(row.event_time_us)
                    if set(row.values) != {row.event_time_us}:
                        torn.append(row)

            thread = threading.Thread(target=read)
            thread.start()
            try:
                for moment in range(1, 200):
                    writer.put("s", [(("a",), _row(moment, *[moment] * 20))])
            finally:
                done.set()
                thread.join()
            assert not torn
            assert len(seen) > 1


def _refused(do: object) -> None:
    assert callable(do)
    try:
        do()
    except InvalidInput:
        return
    raise AssertionError("InvalidInput was expected")
