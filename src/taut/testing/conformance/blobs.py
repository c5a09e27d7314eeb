"""What every Blobs adapter must do. Subclass in a test module and give `open` and `damage`."""

from __future__ import annotations

import threading
from abc import ABC, abstractmethod
from contextlib import AbstractContextManager
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from taut.core.canonical import digest_bytes
from taut.core.errors import Conflict, Corrupt, InvalidInput, NotFound, TautError
from taut.ports.blobs import Blobs

_ABSENT = digest_bytes(b"never stored")
# examples may share a folder, and the same suite runs once for each adapter: both are meant
_FRESH = settings(
    max_examples=20,
    deadline=None,
    suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.differing_executors],
)


class BlobsSuite(ABC):
    """The suite. Each test opens a store of its own; `folder` names it, so that it can be opened again.

    writers_at_once: how many write one name at the same moment; 1 only for a server under test that is no real one.
    """

    writers_at_once = 6

    @abstractmethod
    def open(self, folder: Path) -> AbstractContextManager[Blobs]:
        """Open the store that belongs to `folder`, empty at first; the same one for the same folder."""

    @abstractmethod
    def damage(self, folder: Path, digest: str) -> None:
        """Flip one bit of a stored blob behind the adapter's back, leaving its size."""

    @_FRESH
    @given(data=st.binary(max_size=4096))
    def test_what_was_put_reads_back_under_its_digest(self, tmp_path: Path, data: bytes) -> None:
        with self.open(tmp_path) as blobs:
            digest = blobs.put(data)
            assert digest == digest_bytes(data)
            assert blobs.read(digest) == data
            assert blobs.size(digest) == len(data)
            with blobs.local(digest) as path:
                assert path.read_bytes() == data

    def test_a_file_is_stored_without_being_changed_and_equals_its_bytes(self, tmp_path: Path) -> None:
        source = tmp_path / "source"
        data = bytes(range(256)) * 80_000  # 20 MiB: several parts
        source.write_bytes(data)
        with self.open(tmp_path) as blobs:
            digest = blobs.put_file(source)
            assert digest == digest_bytes(data)
            assert blobs.read(digest) == data
            assert source.read_bytes() == data
            assert blobs.put_file(source) == digest

    def test_another_opening_of_the_store_reads_what_the_first_one_put(self, tmp_path: Path) -> None:
        with self.open(tmp_path) as first:
            digest = first.put(b"kept")
            first.put_named("a/b", b"named")
        with self.open(tmp_path) as second:
            assert second.read(digest) == b"kept"
            assert second.read_named("a/b") == b"named"

    def test_the_same_bytes_again_change_nothing(self, tmp_path: Path) -> None:
        with self.open(tmp_path) as blobs:
            assert blobs.put(b"same") == blobs.put(b"same")
            assert list(blobs.digests()) == [digest_bytes(b"same")]

    def test_many_writers_of_the_same_bytes_at_once_all_succeed(self, tmp_path: Path) -> None:
        data = b"x" * 300_000
        failures: list[BaseException] = []

        def put() -> None:
            try:
                with self.open(tmp_path) as blobs:
                    assert blobs.read(blobs.put(data)) == data
            except BaseException as error:  # noqa: BLE001 - carried to the test's own thread
                failures.append(error)

        threads = [threading.Thread(target=put) for _ in range(6)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert failures == []
        with self.open(tmp_path) as blobs:
            assert list(blobs.digests()) == [digest_bytes(data)]

    def test_a_flipped_bit_is_corrupt_for_every_way_of_reading(self, tmp_path: Path) -> None:
        with self.open(tmp_path) as blobs:
            digest = blobs.put(b"true" * 1000)
            with blobs.local(digest) as path:
                assert path.read_bytes()[:4] == b"true"
        self.damage(tmp_path, digest)
        with self.open(tmp_path) as blobs:
            with pytest.raises(Corrupt, match=digest):
                blobs.read(digest)
            with pytest.raises(Corrupt, match=digest), blobs.local(digest):
                pytest.fail("a damaged file was handed out")

    def test_an_absent_blob_is_not_found_and_has_no_size(self, tmp_path: Path) -> None:
        with self.open(tmp_path) as blobs:
            assert blobs.size(_ABSENT) is None
            with pytest.raises(NotFound):
                blobs.read(_ABSENT)
            with pytest.raises(NotFound), blobs.local(_ABSENT):
                pass
            with pytest.raises(NotFound):
                blobs.read_named("never/stored")
            with pytest.raises(NotFound, match="absent"):
                blobs.put_file(tmp_path / "absent")

    def test_a_deleted_blob_is_gone_for_every_way_of_reading_and_can_be_put_again(
        self, tmp_path: Path
    ) -> None:
        with self.open(tmp_path) as blobs:
            digest = blobs.put(b"to go")
            with blobs.local(digest):
                pass
            blobs.delete(digest)
            blobs.delete(digest)
            assert blobs.size(digest) is None
            with pytest.raises(NotFound):
                blobs.read(digest)
            with pytest.raises(NotFound), blobs.local(digest):
                pass
            assert blobs.read(blobs.put(b"to go")) == b"to go"

    def test_digests_lists_what_is_there(self, tmp_path: Path) -> None:
        with self.open(tmp_path) as blobs:
            assert list(blobs.digests()) == []
            put = {blobs.put(bytes([index])) for index in range(20)}
            blobs.put_named("not/a/digest", b"x")
            assert set(blobs.digests()) == put

    @pytest.mark.parametrize(
        "digest",
        ["", "sha256:", "sha256:" + "g" * 64, "sha256:../../etc/passwd", "md5:" + "0" * 64, "0" * 64],
    )
    def test_what_is_no_digest_is_refused(self, tmp_path: Path, digest: str) -> None:
        with self.open(tmp_path) as blobs:
            for ask in (blobs.read, blobs.size, blobs.delete):
                with pytest.raises(InvalidInput):
                    ask(digest)
            with pytest.raises(InvalidInput), blobs.local(digest):
                pass

    def test_a_name_is_written_once(self, tmp_path: Path) -> None:
        with self.open(tmp_path) as blobs:
            blobs.put_named("tile/0/000", b"one")
            blobs.put_named("tile/0/000", b"one")
            with pytest.raises(Conflict, match="tile/0/000"):
                blobs.put_named("tile/0/000", b"two")
            assert blobs.read_named("tile/0/000") == b"one"

    def test_of_many_writers_of_one_name_exactly_one_wins(self, tmp_path: Path) -> None:
        outcomes: list[str] = []
        turn = threading.Semaphore(self.writers_at_once)

        def put(value: bytes) -> None:
            try:
                with turn, self.open(tmp_path) as blobs:
                    blobs.put_named("once", value)
                    outcomes.append(value.decode())
            except TautError as error:
                outcomes.append(error.code)

        threads = [threading.Thread(target=put, args=(b"%d" % index,)) for index in range(6)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        with self.open(tmp_path) as blobs:
            winner = blobs.read_named("once").decode()
        assert sorted(outcomes) == sorted([winner, *["conflict"] * 5])

    def test_names_are_listed_in_order_by_any_prefix(self, tmp_path: Path) -> None:
        names = ["a", "a-b", "a.b", "a/b", "a/b/c", "a/bc", "a0", "b/x"]
        with self.open(tmp_path) as blobs:
            for name in reversed(names):
                blobs.put_named(name, name.encode())
            assert list(blobs.names("")) == names
            assert list(blobs.names("a/b")) == ["a/b", "a/b/c", "a/bc"]
            assert list(blobs.names("a/")) == ["a/b", "a/b/c", "a/bc"]
            assert list(blobs.names("b/x/")) == []
            assert list(blobs.names("z")) == []

    @pytest.mark.parametrize(
        "name",
        ["", "/", "/a", "a/", "a//b", ".", "..", "../a", "a/../b", "a/./b", "A", "a b", "a\x00", "a\n", "é", "a" * 513,
         "a\\b", "a~", "sha256:x"],
    )  # fmt: skip
    def test_what_is_no_name_is_refused(self, tmp_path: Path, name: str) -> None:
        with self.open(tmp_path) as blobs:
            with pytest.raises(InvalidInput):
                blobs.put_named(name, b"x")
            with pytest.raises(InvalidInput):
                blobs.read_named(name)
            assert list(blobs.names("")) == []
