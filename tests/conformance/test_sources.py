from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path

import obstore
import pytest
from obstore.store import S3Store

from storage_faults import make_bucket
from taut.adapters.sources.file import FileSources, translate
from taut.adapters.sources.s3 import S3Sources
from taut.core.errors import Denied, InvalidInput, NotFound, Unavailable
from taut.ports.sources import Sources
from taut.testing.conformance.sources import SourcesSuite


class TestFileSources(SourcesSuite):
    def open(self, folder: Path) -> Sources:
        return FileSources()

    def put(self, folder: Path, name: str, data: bytes) -> None:
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_bytes(data)

    def remove(self, folder: Path, name: str) -> None:
        (folder / name).unlink()

    def address(self, folder: Path, pattern: str) -> str:
        return pattern

    def test_an_absolute_path_and_a_url_mean_the_same(self, tmp_path: Path) -> None:
        self.put(tmp_path, "a.csv", b"x")
        found = [
            FileSources().find(url, root=Path("/"))[0].url
            for url in (str(tmp_path / "a.csv"), f"file://{tmp_path}/a.csv")
        ]

        assert found == [f"file://{tmp_path}/a.csv"] * 2

    @pytest.mark.parametrize("make", [os.mkfifo, lambda path: path.symlink_to("/dev/zero")])
    def test_what_never_ends_or_waits_for_a_writer_is_refused_at_once(
        self, tmp_path: Path, make: Callable[[Path], None]
    ) -> None:
        sources, path = FileSources(), tmp_path / "rows.csv"
        path.write_bytes(b"a\n1\n")
        [listed] = sources.find("rows.csv", root=tmp_path)
        path.unlink()
        make(path)

        with pytest.raises(InvalidInput, match="is a pipe, socket or device"):
            sources.find("rows.csv", root=tmp_path)
        with (
            pytest.raises(InvalidInput, match="is a pipe, socket or device"),
            sources.open(listed),
        ):  # put there since it was listed
            pass

    def test_a_link_to_itself_and_a_name_too_long_are_refused(self, tmp_path: Path) -> None:
        (tmp_path / "loop.csv").symlink_to("loop.csv")

        for name in ("loop.csv", "n" * 300 + ".csv"):
            with pytest.raises(InvalidInput, match="cannot be read"):
                FileSources().find(name, root=tmp_path)

    def test_a_file_that_may_not_be_read_is_denied(self, tmp_path: Path) -> None:
        error = translate(PermissionError(13, "Permission denied"), tmp_path / "a.csv")

        assert isinstance(error, Denied)
        assert "may not be read by this user" in str(error)


class TestS3Sources(SourcesSuite):
    @pytest.fixture(autouse=True)
    def _server(self, s3_url: str) -> None:
        self._bucket = make_bucket(s3_url)
        self._options = {
            "endpoint": s3_url,
            "region": "us-east-1",
            "access_key_id": "test",
            "secret_access_key": "test",
            "client_options": {"allow_http": True},
            "retry_config": {"max_retries": 1},
        }

    def open(self, folder: Path) -> Sources:
        return S3Sources(self._options)

    def _store(self) -> S3Store:
        return S3Store(self._bucket, **self._options)  # type: ignore[arg-type]  # options of several types

    def put(self, folder: Path, name: str, data: bytes) -> None:
        obstore.put(self._store(), f"base/{name}", data)

    def remove(self, folder: Path, name: str) -> None:
        obstore.delete(self._store(), f"base/{name}")

    def address(self, folder: Path, pattern: str) -> str:
        return f"s3://{self._bucket}/base/{pattern}"

    @pytest.mark.parametrize("url", ["s3://", "s3://UPPER/x", "s3://bucket", "s3://bucket/", "http://x/y"])
    def test_what_is_no_address_of_an_object_is_refused(self, tmp_path: Path, url: str) -> None:
        with pytest.raises(InvalidInput, match="write s3://BUCKET/KEY"):
            self.open(tmp_path).find(url, root=tmp_path)

    def test_a_bucket_that_is_not_there_is_not_found(self, tmp_path: Path) -> None:
        with pytest.raises(NotFound):
            self.open(tmp_path).find("s3://no-such-bucket-here/a.csv", root=tmp_path)

    def test_a_store_that_does_not_answer_is_unavailable(self, tmp_path: Path) -> None:
        options = {**self._options, "endpoint": "http://127.0.0.1:9", "retry_config": {"max_retries": 0}}

        with pytest.raises(Unavailable, match="does not answer"):
            S3Sources(options).find(self.address(tmp_path, "a.csv"), root=tmp_path)
