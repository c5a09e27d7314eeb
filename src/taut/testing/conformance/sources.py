"""What every Sources adapter must do. Subclass in a test module and give `open` and `put`."""

from __future__ import annotations

from abc import ABC, abstractmethod
from pathlib import Path

import pytest

from taut.core.errors import InvalidInput, NotFound
from taut.ports.sources import Sources


class SourcesSuite(ABC):
    """The suite. `put` writes a file behind the adapter's back; `address` says how it is asked for."""

    @abstractmethod
    def open(self, folder: Path) -> Sources:
        """Open the place that belongs to `folder`, empty at first."""

    @abstractmethod
    def put(self, folder: Path, name: str, data: bytes) -> None:
        """Write a file of that place; a name may have folders in it."""

    @abstractmethod
    def address(self, folder: Path, pattern: str) -> str:
        """Return the address of a name or a pattern."""

    def test_a_file_is_found_and_read_in_the_pieces_that_are_asked_for(self, tmp_path: Path) -> None:
        data = bytes(range(256)) * 100_000  # 25 MiB: several of any adapter's own pieces
        self.put(tmp_path, "a.csv", data)
        sources = self.open(tmp_path)

        (file,) = sources.find(self.address(tmp_path, "a.csv"), root=tmp_path)
        with sources.open(file) as stream:
            pieces = []
            while piece := stream.read(1 << 20):
                assert len(piece) <= 1 << 20
                pieces.append(piece)

        assert file.size_bytes == len(data)
        assert b"".join(pieces) == data
        assert pieces, "read gives nothing only at the end"

    def test_an_empty_file_is_a_file(self, tmp_path: Path) -> None:
        self.put(tmp_path, "a.csv", b"")
        sources = self.open(tmp_path)

        (file,) = sources.find(self.address(tmp_path, "a.csv"), root=tmp_path)
        with sources.open(file) as stream:
            assert stream.read(10) == b""

    @pytest.mark.parametrize(
        ("pattern", "wanted"),
        [
            ("*.csv", ["a.csv", "b.csv"]),
            ("?.csv", ["a.csv", "b.csv"]),
            ("[bc].csv", ["b.csv"]),
            ("in/*.csv", ["in/c.csv"]),
            ("**/*.csv", ["a.csv", "b.csv", "in/c.csv", "in/deep/d.csv"]),
            ("in/**/*.csv", ["in/c.csv", "in/deep/d.csv"]),
            ("in/**", ["in/c.csv", "in/deep/d.csv"]),
        ],
    )
    def test_patterns_mean_the_same_everywhere_and_files_come_in_order(
        self, tmp_path: Path, pattern: str, wanted: list[str]
    ) -> None:
        for name in ("in/deep/d.csv", "b.csv", "in/c.csv", "a.csv", "note.txt"):
            self.put(tmp_path, name, name.encode())
        sources = self.open(tmp_path)

        found = sources.find(self.address(tmp_path, pattern), root=tmp_path)

        texts = []
        for file in found:
            with sources.open(file) as stream:
                texts.append(stream.read(100).decode())
        assert texts == wanted

    def test_the_order_is_that_of_the_whole_name_not_of_its_folders(self, tmp_path: Path) -> None:
        for name in ("in/b.csv", "in-a.csv", "in0.csv"):
            self.put(tmp_path, name, b"x")

        found = self.open(tmp_path).find(self.address(tmp_path, "**/*.csv"), root=tmp_path)

        assert [file.url.rpartition("in")[2] for file in found] == ["-a.csv", "/b.csv", "0.csv"]

    def test_changed_bytes_are_listed_as_another_state(self, tmp_path: Path) -> None:
        sources = self.open(tmp_path)
        self.put(tmp_path, "a.csv", b"one")
        (before,) = sources.find(self.address(tmp_path, "a.csv"), root=tmp_path)
        self.put(tmp_path, "a.csv", b"three")

        (after,) = sources.find(self.address(tmp_path, "a.csv"), root=tmp_path)

        assert before.url == after.url
        assert before != after

    def test_what_is_not_there_is_named_with_the_nearest_that_is(self, tmp_path: Path) -> None:
        self.put(tmp_path, "flights.csv", b"x")
        sources = self.open(tmp_path)

        with pytest.raises(NotFound, match=r"flights\.csv"):
            sources.find(self.address(tmp_path, "fligths.csv"), root=tmp_path)
        with pytest.raises(NotFound):
            sources.find(self.address(tmp_path, "*.parquet"), root=tmp_path)

    def test_a_file_that_vanished_after_it_was_listed_is_not_found(self, tmp_path: Path) -> None:
        self.put(tmp_path, "a.csv", b"x")
        sources = self.open(tmp_path)
        (file,) = sources.find(self.address(tmp_path, "a.csv"), root=tmp_path)
        self.remove(tmp_path, "a.csv")

        with pytest.raises(NotFound), sources.open(file):
            pass

    @abstractmethod
    def remove(self, folder: Path, name: str) -> None:
        """Remove a file behind the adapter's back."""

    def test_what_is_no_address_is_refused(self, tmp_path: Path) -> None:
        with pytest.raises((InvalidInput, NotFound)):
            self.open(tmp_path).find("", root=tmp_path)
