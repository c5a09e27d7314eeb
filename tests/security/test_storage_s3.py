"""What the object store's adapter must survive: throttling, faults, silence, refusal, damage on the way."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator
from contextlib import closing
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import httpx
import pytest

from storage_faults import flip_a_bit, make_bucket, s3_options
from taut.adapters.blobs.copies import LocalCopies
from taut.adapters.blobs.s3 import S3Blobs, S3Options
from taut.core.canonical import digest_bytes
from taut.core.errors import Conflict, Corrupt, Denied, InvalidInput, NotFound, Unavailable

Fault = Callable[[str, str, int], tuple[int, str] | None]
"""(method, path, how many requests before) -> (status, S3 code) to answer instead, or None to pass the request on."""


class Gate(ThreadingHTTPServer):
    """Stands before an S3 server and answers some requests itself."""

    daemon_threads = True

    def __init__(self, upstream: str) -> None:
        super().__init__(("127.0.0.1", 0), _Handler)
        self.upstream = upstream
        self.fault: Fault = lambda _method, _path, _count: None
        self.count = 0
        self.lock = threading.Lock()
        self.url = f"http://127.0.0.1:{self.server_address[1]}"


class _Handler(BaseHTTPRequestHandler):
    server: Gate
    protocol_version = "HTTP/1.1"

    def _serve(self) -> None:
        body = self.rfile.read(int(self.headers.get("content-length", 0)))
        with self.server.lock:
            answer = self.server.fault(self.command, self.path, self.server.count)
            self.server.count += 1
        if answer is not None:
            status, code = answer
            text = f"<Error><Code>{code}</Code><Message>planted</Message></Error>".encode()
            self._answer(status, {"content-type": "application/xml"}, text)
            return
        headers = {key: value for key, value in self.headers.items() if key.lower() != "host"}
        upstream = httpx.request(
            self.command, self.server.upstream + self.path, content=body, headers=headers, timeout=60
        )
        passed = {
            key: value for key, value in upstream.headers.items()
            if key not in ("content-length", "connection", "transfer-encoding", "content-encoding", "server", "date")
        }  # fmt: skip
        if self.command == "HEAD":
            passed["content-length"] = upstream.headers.get("content-length", "0")
        self._answer(upstream.status_code, passed, upstream.content)

    def _answer(self, status: int, headers: dict[str, str], body: bytes) -> None:
        self.send_response(status)
        for key, value in headers.items():
            self.send_header(key, value)
        if "content-length" not in headers:
            self.send_header("content-length", str(len(body)))
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(body)

    do_GET = do_PUT = do_HEAD = do_POST = do_DELETE = _serve  # noqa: N815 - names that http.server looks up

    def log_message(self, *_: object) -> None:
        """Say nothing."""


@pytest.fixture
def gate(s3_url: str) -> Iterator[Gate]:
    server = Gate(s3_url)
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02})
    thread.start()
    yield server
    server.shutdown()
    thread.join()
    server.server_close()


@pytest.fixture
def blobs(gate: Gate, s3_url: str, tmp_path: Path) -> Iterator[S3Blobs]:
    store = S3Blobs(f"s3://{make_bucket(s3_url)}/p", copies=tmp_path / "copies", options=s3_options(gate.url))
    yield store
    store.close()


@pytest.mark.parametrize(
    ("status", "code"), [(503, "SlowDown"), (429, "TooManyRequests"), (500, "InternalError"), (502, "Bad")]
)
def test_a_transient_fault_is_retried_until_it_passes(
    gate: Gate, blobs: S3Blobs, status: int, code: str
) -> None:
    gate.fault = lambda _m, _p, count: (status, code) if count % 3 else None
    digest = blobs.put(b"value")
    assert blobs.read(digest) == b"value"
    blobs.put_named("a/b", b"x")
    assert blobs.read_named("a/b") == b"x"
    assert gate.count > 6


@pytest.mark.parametrize(
    ("status", "code"), [(503, "SlowDown"), (429, "TooManyRequests"), (500, "InternalError")]
)
def test_a_fault_that_stays_is_unavailable_after_a_bounded_time(
    gate: Gate, blobs: S3Blobs, status: int, code: str
) -> None:
    digest = blobs.put(b"value")
    gate.fault = lambda _m, _p, _c: (status, code)
    started = time.monotonic()
    for ask in (
        lambda: blobs.put(b"other"), lambda: blobs.read(digest), lambda: blobs.size(digest),
        lambda: blobs.put_named("n", b"x"), lambda: blobs.read_named("n"), lambda: list(blobs.digests()),
        lambda: blobs.delete(digest),
    ):  # fmt: skip
        with pytest.raises(Unavailable, match="try later"):
            ask()
    with pytest.raises(Unavailable), blobs.local(digest):
        pass
    assert time.monotonic() - started < 240  # eight calls, each with its tries
    gate.fault = lambda _m, _p, _c: None
    assert blobs.read(digest) == b"value"
    assert list(blobs.digests()) == [digest]


def test_a_refusal_is_denied_and_not_repeated(gate: Gate, blobs: S3Blobs) -> None:
    gate.fault = lambda _m, _p, _c: (403, "AccessDenied")
    with pytest.raises(Denied, match="credentials"):
        blobs.read(digest_bytes(b"x"))
    assert gate.count == 1
    with pytest.raises(Denied):
        blobs.put_named("n", b"x")


def test_an_upload_that_breaks_half_way_leaves_nothing_to_be_seen(
    gate: Gate, blobs: S3Blobs, tmp_path: Path
) -> None:
    source = tmp_path / "large"
    source.write_bytes(b"l" * (20 << 20))
    gate.fault = lambda _m, path, _c: (503, "SlowDown") if "partNumber=2" in path else None
    with pytest.raises(Unavailable):
        blobs.put_file(source)
    gate.fault = lambda _m, _p, _c: None
    assert list(blobs.digests()) == []
    assert blobs.read(blobs.put_file(source)) == source.read_bytes()


def test_a_file_that_changes_while_it_is_stored_is_a_conflict_and_not_seen(
    gate: Gate, blobs: S3Blobs, tmp_path: Path
) -> None:
    source = tmp_path / "large"
    source.write_bytes(b"l" * (20 << 20))

    def change(method: str, path: str, _count: int) -> None:
        if method == "POST" and "uploads" in path:  # hashed already, upload begins
            source.write_bytes(b"m" * (20 << 20))

    gate.fault = change
    with pytest.raises(Conflict, match="changed while"):
        blobs.put_file(source)
    assert list(blobs.digests()) == []


def test_a_create_that_was_contended_is_tried_again_and_the_settled_name_decides(
    gate: Gate, blobs: S3Blobs
) -> None:
    asked: list[str] = []

    def contend(method: str, path: str, _count: int) -> tuple[int, str] | None:
        if method == "PUT" and "named" in path:
            asked.append(path)
            return (409, "ConditionalRequestConflict") if len(asked) == 1 else None
        return None

    gate.fault = contend
    blobs.put_named("once", b"mine")
    assert len(asked) == 2
    assert blobs.read_named("once") == b"mine"


def test_an_answer_that_was_lost_does_not_make_the_same_name_a_conflict(
    gate: Gate, blobs: S3Blobs, s3_url: str, tmp_path: Path
) -> None:
    lost: list[str] = []

    def lose(method: str, path: str, _count: int) -> tuple[int, str] | None:
        if method != "PUT" or "named" not in path or lost:
            return None
        lost.append(path)
        url = f"s3://{path.split('/')[1]}/p"
        with closing(S3Blobs(url, copies=tmp_path / "more", options=s3_options(s3_url))) as direct:
            direct.put_named("n", b"x")
        return 500, "InternalError"  # it was written, and the answer says otherwise

    gate.fault = lose
    blobs.put_named("n", b"x")
    assert blobs.read_named("n") == b"x"
    assert lost


def test_a_store_that_does_not_answer_is_unavailable(tmp_path: Path) -> None:
    options = s3_options("http://127.0.0.1:1", retry_for_s=1.0, retries=1)
    blobs = S3Blobs("s3://bucket", copies=tmp_path, options=options)
    with pytest.raises(Unavailable):
        blobs.read(digest_bytes(b"x"))
    blobs.close()


def test_a_bucket_that_does_not_exist_is_not_found(tmp_path: Path, s3_url: str) -> None:
    blobs = S3Blobs("s3://no-such-bucket-here", copies=tmp_path, options=s3_options(s3_url))
    with pytest.raises(NotFound):
        blobs.read(digest_bytes(b"x"))
    blobs.close()


def test_plain_http_beyond_loopback_is_refused(tmp_path: Path) -> None:
    for endpoint in ("http://192.0.2.1:9000", "http://minio.example:9000"):
        with pytest.raises(InvalidInput, match="not encrypted"):
            S3Blobs("s3://bucket", copies=tmp_path, options=S3Options(endpoint=endpoint))


def test_a_damaged_copy_on_this_machine_is_fetched_again(blobs: S3Blobs) -> None:
    digest = blobs.put(b"value" * 1000)
    with blobs.local(digest) as path:
        flip_a_bit(path)
    with blobs.local(digest) as path:
        assert path.read_bytes() == b"value" * 1000


def test_copies_are_bounded_and_those_in_use_are_kept(tmp_path: Path) -> None:
    copies = LocalCopies(tmp_path, bytes_max=250)
    data = [bytes([index]) * 100 for index in range(5)]
    with copies.hold(digest_bytes(data[0]), lambda: [data[0]]) as first:
        for one in data[1:]:
            with copies.hold(digest_bytes(one), lambda one=one: [one]) as path:
                assert path.read_bytes() == one
        assert first.read_bytes() == data[0]
    assert sum(path.stat().st_size for path in first.parent.iterdir()) <= 250
    with pytest.raises(Corrupt), copies.hold(digest_bytes(b"other"), lambda: [b"wrong"]):
        pass
    copies.forget(digest_bytes(data[0]))
    copies.close()
    assert list(tmp_path.iterdir()) == []


def test_copies_of_a_dead_process_are_removed_and_those_of_a_living_one_stay(tmp_path: Path) -> None:
    living = LocalCopies(tmp_path, bytes_max=100)
    (tmp_path / "copies-dead").mkdir()
    (tmp_path / "copies-dead" / "left").write_bytes(b"x")
    other = LocalCopies(tmp_path, bytes_max=100)
    assert not (tmp_path / "copies-dead").exists()
    assert len(list(tmp_path.iterdir())) == 2
    living.close()
    other.close()


def test_processes_that_begin_at_once_do_not_sweep_each_others_copies(tmp_path: Path) -> None:
    failures: list[BaseException] = []

    def begin() -> None:
        try:
            copies = LocalCopies(tmp_path, bytes_max=100)
            with copies.hold(digest_bytes(b"x"), lambda: [b"x"]) as path:
                assert path.read_bytes() == b"x"
            copies.close()
        except BaseException as error:  # noqa: BLE001 - carried to the test's own thread
            failures.append(error)

    for _ in range(20):
        threads = [threading.Thread(target=begin) for _ in range(6)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
    assert failures == []
