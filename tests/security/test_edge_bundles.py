"""A bundle that was changed, re-signed or asked by strangers: nothing of it runs, and nothing of it answers."""

from __future__ import annotations

import shutil
import socket
import ssl
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path

import httpx
import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from taut.adapters.keys.file import FileKeys
from taut.core.canonical import digest_bytes
from taut.core.errors import Corrupt, Denied, InvalidInput
from taut.entrypoints.edge.launch import Unsigned, read
from taut.serving.edge.bundle import (
    KEYS,
    MANIFEST,
    PAYLOAD_TYPE,
    STATEMENT,
    Contents,
    fingerprint,
    verify_bundle,
)
from taut.serving.edge.calling import Caller, read_token
from taut.testing.edge import bundle_bytes, bundle_files, file_of, signed
from taut.testing.ports import free_ports
from taut.testing.serving import matrix_model
from taut.testing.world import SeededRandom
from taut.trust.signing import SignedStatement, verify_statement
from taut.trust.tls import Issued, create_authority, issue_server

pytestmark = [pytest.mark.xdist_group("edge-bundles"), pytest.mark.processes]

PARTS = (
    "model.onnx",
    "manifest.json",
    "keys.json",
    "requirements.txt",
    "taut/serving/edge/core.py",
    "taut/core/ort.py",
)


@pytest.fixture(scope="module")
def keys(tmp_path_factory: pytest.TempPathFactory) -> FileKeys:
    return FileKeys(tmp_path_factory.mktemp("keys"), random=SeededRandom())


@pytest.fixture(scope="module")
def others(tmp_path_factory: pytest.TempPathFactory) -> FileKeys:
    return FileKeys(tmp_path_factory.mktemp("others"), random=SeededRandom(1))


@pytest.fixture(scope="module")
def whole(keys: FileKeys, tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("bundle") / "delay.pyz"
    path.write_bytes(bundle_bytes(bundle_files(keys, runner=True)))
    return path


@pytest.fixture
def bundle(whole: Path, tmp_path: Path) -> Path:
    return Path(shutil.copy(whole, tmp_path / "delay.pyz"))


def run(bundle: Path, *words: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-I", str(bundle), *words], capture_output=True, text=True, timeout=60
    )


def contents_of(files: dict[str, bytes], keys: FileKeys) -> Contents:
    statement = SignedStatement.from_json(files[STATEMENT])
    payload = verify_statement(statement, keys.public_keys(purpose="model"), payload_type=PAYLOAD_TYPE)
    return msgspec.convert(payload, Contents)


def mine(keys: FileKeys) -> str:
    return fingerprint(keys.public_keys(purpose="model")[0].pem)


@pytest.mark.parametrize("part", [*PARTS, STATEMENT, "__main__.py"])
def test_a_flipped_byte_in_any_part_ends_with_8_and_names_it(bundle: Path, part: str) -> None:
    data = bytearray(bundle.read_bytes())
    head = data.index(b"PK\x03\x04", 0)
    while data[head + 30 : head + 30 + len(part)] != part.encode():
        head = data.index(b"PK\x03\x04", head + 4)
    size = int.from_bytes(data[head + 22 : head + 26], "little")
    begin = head + 30 + len(part)
    place = begin + (
        data[begin : begin + size].index(b"Python's own") if part == "__main__.py" else size // 2
    )
    data[place] ^= 1
    bundle.write_bytes(data)

    told = run(bundle, "verify")

    assert told.returncode == 8, told.stderr
    assert told.stderr.startswith("corrupt: ")
    assert part in told.stderr
    assert told.stdout == ""


@pytest.mark.parametrize("part", PARTS)
def test_a_part_that_was_replaced_with_its_checksum_ends_with_8_and_names_it(
    bundle: Path, tmp_path: Path, part: str
) -> None:
    """The archive is whole; only what was signed knows better. Nothing of the part is run."""
    trace = tmp_path / "ran"
    code = f"open({str(trace)!r}, 'w').close()\n".encode()
    bundle.write_bytes(bundle_bytes({**read(str(bundle)), part: code}))

    told = run(bundle, "verify")

    assert told.returncode == 8, told.stderr
    assert part in told.stderr
    assert not trace.exists()


@settings(max_examples=150, deadline=None)
@given(
    places=st.lists(st.tuples(st.floats(0, 1, exclude_max=True), st.integers(0, 7)), min_size=1, max_size=4)
)
def test_whatever_is_flipped_either_everything_is_as_signed_or_the_bundle_is_refused(
    whole: Path, places: list[tuple[float, int]]
) -> None:
    """Bits that say nothing of the contents, such as a date, may change; no content may."""
    data, expected = bytearray(whole.read_bytes()), read(str(whole))
    for share, bit in places:
        data[int(share * len(data))] ^= 1 << bit
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder, "flipped.pyz")
        path.write_bytes(data)
        try:
            found = read(str(path))
            verify_bundle(found)
        except (Unsigned, Corrupt, Denied):
            return
    assert found == expected


def test_a_part_that_claims_to_be_compressed_is_refused(bundle: Path) -> None:
    """One bit of the archive's directory makes stored bytes deflated ones."""
    data = bytearray(bundle.read_bytes())
    entry = data.index(b"PK\x01\x02")
    while data[entry + 46 : entry + 56] != b"model.onnx":
        entry = data.index(b"PK\x01\x02", entry + 4)
    data[entry + 10] = 8
    bundle.write_bytes(data)

    told = run(bundle, "verify")

    assert (told.returncode, told.stdout) == (8, ""), told.stderr


def test_a_file_more_or_a_file_less_ends_with_8(bundle: Path) -> None:
    files = read(str(bundle))
    bundle.write_bytes(bundle_bytes({**files, "taut/serving/edge/extra.py": b""}))
    more = run(bundle, "verify")
    bundle.write_bytes(
        bundle_bytes({name: data for name, data in files.items() if name != "taut/core/times.py"})
    )
    less = run(bundle, "verify")
    bundle.write_bytes(bundle.read_bytes()[:-200_000])
    cut = run(bundle, "verify")

    assert (more.returncode, "extra.py" in more.stderr) == (8, True)
    assert (less.returncode, "times.py" in less.stderr) == (8, True)
    assert cut.returncode != 0
    assert cut.stdout == ""


def test_a_bundle_that_another_key_signed_again_is_denied_to_whoever_knows_the_right_one(
    bundle: Path, keys: FileKeys, others: FileKeys, tmp_path: Path
) -> None:
    pem = tmp_path / "model.pem"
    pem.write_text(keys.public_keys(purpose="model")[0].pem)
    assert run(bundle, "verify", "--key", str(pem)).returncode == 0
    assert run(bundle, "verify", "--fingerprint", mine(keys)).returncode == 0

    bundle.write_bytes(bundle_bytes(bundle_files(others, model=matrix_model(2, bias=9.0), runner=True)))

    by_itself = run(bundle, "verify")
    assert by_itself.returncode == 0
    assert "vouches only for itself" in by_itself.stderr
    assert '"trusted": "itself"' in by_itself.stdout
    assert run(bundle, "verify", "--key", str(pem)).returncode == 4
    assert run(bundle, "predict", "--fingerprint", mine(keys), "--data", '{"x0": 1, "x1": 1}').returncode == 4


def test_after_a_rotation_both_keys_are_asked_for_and_both_are_enough(tmp_path: Path) -> None:
    turning = FileKeys(tmp_path / "keys", random=SeededRandom(2))
    before = bundle_files(turning)
    turning.rotate(purpose="model")
    new, old = turning.public_keys(purpose="model")
    after = bundle_files(turning)
    told = contents_of(after, turning)
    told = msgspec.structs.replace(
        told,
        manifest=digest_bytes(before[MANIFEST]),
        files={**told.files, MANIFEST: file_of(before[MANIFEST])},
    )
    files = signed(turning, {**after, MANIFEST: before[MANIFEST]}, told)

    assert verify_bundle(files, key=new.pem + old.pem).trusted == "key"
    assert (
        verify_bundle(files, fingerprints=(fingerprint(new.pem), fingerprint(old.pem))).trusted
        == "fingerprint"
    )
    for one in (new, old):
        with pytest.raises(Denied):
            verify_bundle(files, key=one.pem)
    with pytest.raises(InvalidInput, match="no public key"):
        verify_bundle(files, key="nonsense")


def test_a_model_under_a_manifest_of_another_signature_is_refused(keys: FileKeys, others: FileKeys) -> None:
    """The statement is by the trusted key, the model's own manifest is not."""
    files, foreign = bundle_files(keys), bundle_files(others)
    mixed = {**files, MANIFEST: foreign[MANIFEST]}
    told = contents_of(files, keys)
    told = msgspec.structs.replace(told, files={**told.files, MANIFEST: file_of(foreign[MANIFEST])})

    with pytest.raises(Denied, match="no trusted key"):
        verify_bundle(signed(keys, mixed, told), fingerprints=(mine(keys),))


def _swap_model(files: dict[str, bytes], told: Contents) -> tuple[dict[str, bytes], Contents]:
    other = matrix_model(2, bias=9.0)
    return {**files, "model.onnx": other}, msgspec.structs.replace(
        told, files={**told.files, "model.onnx": file_of(other)}
    )


def _swap_version(files: dict[str, bytes], told: Contents) -> tuple[dict[str, bytes], Contents]:
    return files, msgspec.structs.replace(told, version="delay@2")


def _drop_model(files: dict[str, bytes], told: Contents) -> tuple[dict[str, bytes], Contents]:
    kept = {name: file for name, file in told.files.items() if name != "model.onnx"}
    return {name: files[name] for name in files if name != "model.onnx"}, msgspec.structs.replace(
        told, files=kept
    )


@pytest.mark.parametrize(
    ("change", "said"),
    [(_swap_model, "not the one that was signed for delay@1"), (_swap_version, "bundle's is delay@2"), (_drop_model, "no model.onnx")],
)  # fmt: skip
def test_a_statement_that_contradicts_the_models_own_manifest_is_refused(
    keys: FileKeys, change: Callable[..., tuple[dict[str, bytes], Contents]], said: str
) -> None:
    files = bundle_files(keys)
    changed, told = change(files, contents_of(files, keys))

    with pytest.raises(Corrupt, match=said):
        verify_bundle(signed(keys, changed, told))


def test_keys_that_are_none_and_archives_that_are_none_are_refused(keys: FileKeys, tmp_path: Path) -> None:
    files = bundle_files(keys)
    with pytest.raises(Corrupt, match=KEYS):
        verify_bundle({**files, KEYS: b'["nonsense"]'})
    for name, data in {"empty": b"", "text": b"hello" * 99, "folder": None}.items():
        path = tmp_path / name
        path.mkdir() if data is None else path.write_bytes(data)
        with pytest.raises(Unsigned):
            read(str(path))


def certified(folder: Path, authority: Issued) -> tuple[str, ...]:
    """Put a certificate of loopback and its key into a folder; return the words that name them."""
    made = issue_server(authority, ("127.0.0.1",), days=30, now=datetime.now(UTC))
    cert, key = folder / "server.pem", folder / "server.key"
    for path, data in ((cert, made.cert), (key, made.key)):
        part = path.with_suffix(".part")
        part.write_bytes(data)
        part.chmod(0o600)
        part.rename(path)
    return ("--tls-cert", str(cert), "--tls-key", str(key))


@pytest.fixture
def authority() -> Issued:
    return create_authority("devices", days=30, now=datetime.now(UTC))


def trusting(authority: Issued, *, version: ssl.TLSVersion = ssl.TLSVersion.TLSv1_3) -> ssl.SSLContext:
    context = ssl.create_default_context(cadata=authority.cert.decode())
    context.minimum_version = context.maximum_version = version
    return context


def test_off_loopback_a_runner_wants_tls_and_a_token_of_its_callers(
    bundle: Path, tmp_path: Path, authority: Issued
) -> None:
    tls, outside = certified(tmp_path, authority), ("serve", "--host", "0.0.0.0", "--port", "0")
    token = ("--caller-token-file", str(tmp_path / "token"))

    for words, wanted in (
        ((*outside, *token), "give --tls-cert and --tls-key"),
        ((*outside, *tls), "--caller-token-file"),
        (("serve", "--port", "0", "--tls-cert", tls[1], "--tls-key", tls[1]), "private key"),
    ):
        refused = run(bundle, *words)
        assert refused.returncode in (2, 4), refused.stderr
        assert wanted in refused.stderr, refused.stderr
        assert "Traceback" not in refused.stderr


def test_a_runner_speaks_nothing_older_than_tls_1_3_and_takes_a_new_certificate_while_it_serves(
    bundle: Path, tmp_path: Path, authority: Issued
) -> None:
    port = free_ports()

    def serial(context: ssl.SSLContext) -> str | None:
        try:
            with (
                socket.create_connection(("127.0.0.1", port), timeout=60) as plain,
                context.wrap_socket(plain, server_hostname="127.0.0.1") as secure,
            ):
                return str((secure.getpeercert() or {})["serialNumber"])
        except ConnectionRefusedError:
            return None

    def until(holds: Callable[[], bool]) -> None:
        deadline_s = time.monotonic() + 90
        while not holds():
            assert time.monotonic() < deadline_s
            time.sleep(0.05)

    words = ["serve", "--port", str(port), *certified(tmp_path, authority)]
    with subprocess.Popen([sys.executable, "-I", str(bundle), *words], stderr=subprocess.PIPE) as process:
        try:
            until(lambda: serial(trusting(authority)) is not None)
            first = serial(trusting(authority))
            with httpx.Client(
                base_url=f"https://127.0.0.1:{port}", verify=trusting(authority), timeout=60.0
            ) as http:
                row = {"instances": [{"x0": 1.0, "x1": 2.0}]}
                assert http.post("/v1/predict/delay", json=row).status_code == 200
            with pytest.raises(ssl.SSLError):
                serial(trusting(authority, version=ssl.TLSVersion.TLSv1_2))
            with pytest.raises(httpx.TransportError):
                httpx.get(f"http://127.0.0.1:{port}/v2/health/live", timeout=60)
            certified(tmp_path, authority)
            until(lambda: serial(trusting(authority)) != first)
        finally:
            process.terminate()
            said = process.communicate(timeout=90)[1].decode()
    assert process.returncode == 0, said
    assert f"serves on https://127.0.0.1:{port}/" in said
    assert "the certificate is renewed" in said


def test_strangers_large_bodies_and_garbage_get_clear_answers_and_the_token_is_never_said(
    bundle: Path, tmp_path: Path, authority: Issued
) -> None:
    token, said = tmp_path / "token", tmp_path / "said"
    token.write_text("s3cret-of-the-kiosk")
    port = free_ports()
    words = [
        "serve",
        "--host",
        "0.0.0.0",
        "--port",
        str(port),
        "--caller-token-file",
        str(token),
        *certified(tmp_path, authority),
        "--state",
        str(tmp_path / "state"),
    ]
    with (
        said.open("w") as log,
        subprocess.Popen([sys.executable, "-I", str(bundle), *words], stderr=log) as process,
    ):
        try:
            transport = httpx.HTTPTransport(retries=20, verify=trusting(authority))
            with httpx.Client(base_url=f"https://127.0.0.1:{port}", timeout=60, transport=transport) as http:
                path, row = "/v1/predict/delay", {"instances": [{"x0": 1.0, "x1": 2.0}]}
                bearer = {"authorization": "Bearer s3cret-of-the-kiosk"}
                assert http.get("/v2/health/ready").status_code == 200
                assert http.get("/v2/models/delay").status_code == 401
                for headers in (
                    {},
                    {"authorization": "Bearer wrong"},
                    {"authorization": "Basic s3cret-of-the-kiosk"},
                ):
                    answer = http.post(path, json=row, headers=headers)
                    assert (answer.status_code, answer.json()["error"]["code"]) == (401, "unauthenticated")
                large = http.post(path, content=b" " * (8 * 2**20 + 1), headers=bearer)
                assert (large.status_code, large.json()["error"]["code"]) == (413, "too_large")
                for body, code in ((b"{", 400), (b"[" * 100_000, 400), (b'{"instances": [{"x0": 1}]}', 422)):
                    assert http.post(path, content=body, headers=bearer).status_code == code
                zipped = http.post(path, content=b"x", headers={**bearer, "content-encoding": "gzip"})
                assert zipped.status_code == 415
                assert http.post(path, json=row, headers=bearer).status_code == 200
                assert http.get("/v2/models/other").status_code == 404
                assert http.get("/../../etc/passwd").status_code == 404
        finally:
            process.terminate()
            process.wait(timeout=90)
    told = said.read_text() + "".join(
        path.read_text() for path in (tmp_path / "state").iterdir() if path.name != "lock"
    )
    assert "s3cret" not in told
    assert "Traceback" not in told


@pytest.mark.parametrize(
    "url",
    [
        "http://taut.example/v1",
        "ftp://127.0.0.1/",
        "https://ada:pw@taut.example/",
        "127.0.0.1:80",
        "https://",
    ],
)
def test_a_token_is_not_carried_in_clear_nor_to_what_is_no_address(url: str, tmp_path: Path) -> None:
    with pytest.raises(InvalidInput):
        Caller(url, token_file=tmp_path / "token")


def test_a_redirect_does_not_take_the_token_elsewhere(tmp_path: Path) -> None:
    token = tmp_path / "token"
    token.write_text("s3cret")
    with socket.create_server(("127.0.0.1", 0)) as server:
        caller = Caller(f"http://127.0.0.1:{server.getsockname()[1]}/x", token_file=token)
        answer = b"HTTP/1.1 307 Moved\r\nlocation: http://127.0.0.1:1/\r\ncontent-length: 0\r\n\r\n"

        def once() -> None:
            connection, _ = server.accept()
            with connection:
                connection.recv(4096)
                connection.sendall(answer)

        thread = threading.Thread(target=once)
        thread.start()
        assert caller.post(b"{}", timeout_s=5.0).status == 307
        thread.join(timeout=90)
        caller.close()
    assert read_token(token) == "s3cret"
