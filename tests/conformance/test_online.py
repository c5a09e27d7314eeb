from __future__ import annotations

import sqlite3
import subprocess
import sys
from collections.abc import Iterator
from contextlib import closing, contextmanager
from pathlib import Path

import pytest

from taut.adapters.online import SqliteOnlineReader, open_online_writer
from taut.core.errors import Corrupt, Unavailable
from taut.ports.online import OnlineRow
from taut.testing.conformance.online import OnlineSuite, Pair


class TestSqliteOnline(OnlineSuite):
    @contextmanager
    def open(self, folder: Path) -> Iterator[Pair]:
        path = folder / "online.db"
        with open_online_writer(path) as writer, closing(SqliteOnlineReader(path)) as reader:
            yield reader, writer


def _store(tmp_path: Path, entities: int = 1) -> Path:
    path = tmp_path / "online.db"
    with open_online_writer(path) as writer:
        writer.put("s", (((f"e{index}",), OnlineRow(1, (index, 0.5), "feat_1")) for index in range(entities)))
    return path


def test_a_reader_opens_the_file_while_no_writer_lives(tmp_path: Path) -> None:
    with closing(SqliteOnlineReader(_store(tmp_path))) as reader:
        assert reader.get_now("s", ("e0",)) == OnlineRow(1, (0, 0.5), "feat_1")


def test_a_reader_cannot_write(tmp_path: Path) -> None:
    with closing(SqliteOnlineReader(_store(tmp_path))) as reader:
        reader.get_now("s", ("e0",))
        with pytest.raises(sqlite3.OperationalError, match="readonly"):
            reader._local.cursor.execute("DELETE FROM online_rows")


def test_a_reader_of_an_absent_file_says_unavailable_and_makes_no_file(tmp_path: Path) -> None:
    with closing(SqliteOnlineReader(tmp_path / "online.db")) as reader:
        with pytest.raises(Unavailable, match="online"):
            reader.get_now("s", ("e0",))
        with open_online_writer(tmp_path / "online.db"):
            assert reader.get_now("s", ("e0",)) is None


def test_a_closed_reader_says_unavailable(tmp_path: Path) -> None:
    reader = SqliteOnlineReader(_store(tmp_path))
    reader.close()
    with pytest.raises(Unavailable, match="closed"):
        reader.get_now("s", ("e0",))


def test_a_file_that_is_no_store_says_corrupt(tmp_path: Path) -> None:
    path = tmp_path / "online.db"
    path.write_bytes(b"not a database, but long enough to be looked at" * 100)
    with pytest.raises(Corrupt), open_online_writer(path):
        pass
    with closing(SqliteOnlineReader(path)) as reader, pytest.raises(Corrupt):
        reader.get_now("s", ("e0",))


def test_a_store_of_another_layout_says_corrupt(tmp_path: Path) -> None:
    path = _store(tmp_path)
    with closing(sqlite3.connect(path)) as connection:
        connection.execute("PRAGMA user_version=9")
    with pytest.raises(Corrupt, match="layout 9"), open_online_writer(path):
        pass


def test_a_flipped_byte_in_a_row_is_found(tmp_path: Path) -> None:
    path = _store(tmp_path)
    with closing(sqlite3.connect(path, isolation_level=None)) as connection:
        (stored,) = connection.execute("SELECT row FROM online_rows").fetchone()
        for position in range(len(stored)):
            flipped = bytearray(stored)
            flipped[position] ^= 1
            connection.execute("UPDATE online_rows SET row = ?", (bytes(flipped),))
            with (
                closing(SqliteOnlineReader(path)) as reader,
                pytest.raises(Corrupt, match="not what was written"),
            ):
                reader.get_now("s", ("e0",))


def test_a_row_under_the_key_of_another_entity_is_found(tmp_path: Path) -> None:
    path = _store(tmp_path, entities=2)
    with closing(sqlite3.connect(path, isolation_level=None)) as connection:
        rows = [row for (row,) in connection.execute("SELECT row FROM online_rows ORDER BY key")]
        connection.execute("UPDATE online_rows SET row = ?", (rows[0],))
    with closing(SqliteOnlineReader(path)) as reader:
        assert reader.get_now("s", ("e0",)) is not None
        with pytest.raises(Corrupt):
            reader.get_now("s", ("e1",))


def test_a_full_disk_says_unavailable_and_keeps_what_was_there(tmp_path: Path) -> None:
    path = _store(tmp_path)
    with open_online_writer(path) as writer:
        pages = writer._connection.execute("PRAGMA page_count").fetchone()[0]
        writer._connection.execute(f"PRAGMA max_page_count={pages}")
        with pytest.raises(Unavailable, match="full"):
            writer.put(
                "s",
                ((("x" * 50 + str(index),), OnlineRow(1, ("y" * 100,), "feat_2")) for index in range(999)),
            )
        assert writer.count("s") == 1
        writer._connection.execute("PRAGMA max_page_count=1000000")
        assert writer.put("s", [(("after",), OnlineRow(1, (1,), "feat_2"))]) == 1


def test_a_second_writer_waits_and_then_says_unavailable(tmp_path: Path) -> None:
    path = _store(tmp_path)
    with (
        open_online_writer(path, busy_timeout_s=0.05) as writer,
        closing(sqlite3.connect(path, isolation_level=None)) as other,
    ):
        other.execute("BEGIN IMMEDIATE")
        with pytest.raises(Unavailable, match="locked"):
            writer.put("s", [(("a",), OnlineRow(1, (1,), "feat_2"))])
        with closing(SqliteOnlineReader(path)) as reader:  # reading does not wait
            assert reader.get_now("s", ("e0",)) is not None
        other.execute("ROLLBACK")
        assert writer.put("s", [(("a",), OnlineRow(1, (1,), "feat_2"))]) == 1


def test_a_look_up_leaves_no_transaction_open_that_would_keep_the_log_from_shrinking(tmp_path: Path) -> None:
    path = _store(tmp_path)
    with open_online_writer(path) as writer, closing(SqliteOnlineReader(path)) as reader:
        reader.get_now("s", ("e0",))
        writer.put("s", [(("b",), OnlineRow(1, (1,), "feat_2"))])
        busy, _, _ = writer._connection.execute("PRAGMA wal_checkpoint(TRUNCATE)").fetchone()
        assert busy == 0


_WRITER = """
import sys, pathlib
from taut.adapters.online import open_online_writer
from taut.ports.online import OnlineRow
with open_online_writer(pathlib.Path(sys.argv[1])) as writer:
    for moment in range(1, 10**6):
        writer.put("k", (((i,), OnlineRow(moment, (moment,) * 8, "feat")) for i in range(300)))
        print(moment, flush=True)
"""


@pytest.mark.crash
def test_a_writer_that_is_killed_leaves_every_acknowledged_batch_and_no_half_batch(tmp_path: Path) -> None:
    path = _store(tmp_path)
    with subprocess.Popen(
        [sys.executable, "-c", _WRITER, str(path)], stdout=subprocess.PIPE, text=True
    ) as child:
        assert child.stdout is not None
        acknowledged = 0
        for line in child.stdout:
            acknowledged = int(line)
            if acknowledged >= 20:
                child.kill()
                break
    with closing(SqliteOnlineReader(path)) as reader:
        rows = [reader.get_now("k", (index,)) for index in range(300)]
    assert all(row is not None and row.event_time_us >= acknowledged for row in rows)
    assert len({row.values for row in rows if row}) == 1
