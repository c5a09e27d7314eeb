"""Certificates and keys as they lie on a disk: what is taken, and what is refused in words."""

from __future__ import annotations

import os
import ssl
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.serialization import (
    BestAvailableEncryption,
    Encoding,
    PrivateFormat,
)

from authorities import authority_with
from taut.core.errors import Denied, InvalidInput, NotFound, TautError
from taut.trust.tls import (
    ClientFiles,
    Issued,
    LiveTls,
    TlsFiles,
    client_context,
    create_authority,
    is_trusted,
    issue_client,
    issue_server,
    peer_of_pem,
    read_material,
)

NOW = datetime(2026, 6, 1, tzinfo=UTC)
AUTHORITY = create_authority("one", days=365, now=NOW)
SERVER = issue_server(AUTHORITY, ["localhost", "127.0.0.1", "::1", "*.example.org"], days=90, now=NOW)


def written(folder: Path, issued: Issued = SERVER, *, client_ca: bytes = b"") -> TlsFiles:
    files = TlsFiles(
        cert=folder / "server.pem", key=folder / "server.key",
        client_ca=folder / "clients.pem" if client_ca else None,
    )  # fmt: skip
    files.cert.write_bytes(issued.cert)
    files.key.write_bytes(issued.key)
    files.key.chmod(0o600)
    if files.client_ca is not None:
        files.client_ca.write_bytes(client_ca)
    return files


def read(files: TlsFiles, now: datetime = NOW) -> str:
    """Return what is refused, empty where all is well."""
    try:
        read_material(files, now=now)
    except TautError as error:
        return f"{error.code}: {error.message}"
    return ""


def test_a_sound_pair_is_read_with_its_names_and_its_time(tmp_path: Path) -> None:
    material = read_material(written(tmp_path), now=NOW)

    assert material.facts.names == ("localhost", "127.0.0.1", "::1", "*.example.org")
    assert material.facts.days_left(NOW) == pytest.approx(90)
    assert material.facts.issuer == "CN=one"
    assert "PRIVATE" not in repr(material)
    assert "PRIVATE" not in repr(SERVER)


def test_what_is_issued_names_its_issuer_and_its_purpose_and_never_outlives_its_authority() -> None:
    leaf = x509.load_pem_x509_certificate(issue_server(AUTHORITY, ["a"], days=800, now=NOW).cert)
    above = x509.load_pem_x509_certificate(AUTHORITY.cert)
    named = leaf.extensions.get_extension_for_class(x509.AuthorityKeyIdentifier).value

    leaf.verify_directly_issued_by(above)
    assert (
        named.key_identifier
        == above.extensions.get_extension_for_class(x509.SubjectKeyIdentifier).value.digest
    )
    assert leaf.not_valid_after_utc == above.not_valid_after_utc
    for host in ("", "a b", "a..b", "x" * 300, "exa\nmple"):
        with pytest.raises(InvalidInput, match="host name"):
            issue_server(AUTHORITY, [host], days=1, now=NOW)


@pytest.mark.parametrize(
    ("mode", "said"),
    [(0o600, ""), (0o400, ""), (0o640, "denied"), (0o604, "denied"), (0o620, "denied"), (0o644, "denied")],
)
def test_a_key_that_others_may_get_at_is_refused(tmp_path: Path, mode: int, said: str) -> None:
    files = written(tmp_path)
    files.key.chmod(mode)

    assert read(files).partition(":")[0] == said
    assert not said or "chmod 600" in read(files)


def test_a_certificate_that_everybody_may_replace_is_refused(tmp_path: Path) -> None:
    files = written(tmp_path)
    files.cert.chmod(0o666)

    assert read(files).startswith("denied")


def _encrypted(files: TlsFiles) -> None:
    key = serialization.load_pem_private_key(SERVER.key, None)
    files.key.write_bytes(
        key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, BestAvailableEncryption(b"hush"))
    )


FAULTS: dict[str, tuple[Callable[[TlsFiles], object], str, str]] = {
    "no certificate": (lambda files: files.cert.unlink(), "not_found", "not there"),
    "no key": (lambda files: files.key.unlink(), "not_found", "not there"),
    "a folder": (lambda files: (files.cert.unlink(), files.cert.mkdir()), "invalid_input", "no regular file"),
    "a pipe": (lambda files: (files.cert.unlink(), os.mkfifo(files.cert)), "invalid_input", "no regular file"),
    "empty": (lambda files: files.cert.write_bytes(b""), "invalid_input", "no certificate"),
    "half": (lambda files: files.cert.write_bytes(SERVER.cert[:300]), "invalid_input", "broken"),
    "huge": (lambda files: files.cert.write_bytes(SERVER.cert * 3000), "invalid_input", "larger"),
    "a key that is none": (lambda files: files.key.write_bytes(b"key"), "invalid_input", "no private key"),
    "another key": (lambda files: files.key.write_bytes(AUTHORITY.key), "invalid_input", "is not that of"),
    "a passphrase": (_encrypted, "invalid_input", "passphrase"),
    "a client's": (
        lambda files: written(files.cert.parent, issue_client(AUTHORITY, "bob", days=9, now=NOW)),
        "invalid_input",
        "serverAuth",
    ),
}  # fmt: skip


@pytest.mark.parametrize("fault", FAULTS)
def test_each_fault_of_the_files_is_named_with_what_to_do(tmp_path: Path, fault: str) -> None:
    spoil, code, said = FAULTS[fault]
    files = written(tmp_path)
    spoil(files)
    told = read(files)

    assert told.startswith(code), told
    assert said in told
    assert str(tmp_path) in told


def test_an_expired_certificate_and_one_of_tomorrow_are_refused(tmp_path: Path) -> None:
    files = written(tmp_path)

    assert "expired on 2026-08-30" in read(files, NOW + timedelta(days=91))
    assert "valid from" in read(files, NOW - timedelta(days=1))


def test_clients_authorities_must_be_authorities(tmp_path: Path) -> None:
    assert "no authority" in read(written(tmp_path, client_ca=SERVER.cert))
    assert read(written(tmp_path, client_ca=AUTHORITY.cert)) == ""


def test_looks_take_a_new_pair_over_whole_and_refuse_a_fault_once_at_the_second_look(tmp_path: Path) -> None:
    files = written(tmp_path)
    live = LiveTls(files, now=lambda: NOW)
    second = issue_server(AUTHORITY, ["localhost"], days=60, now=NOW)
    before = live.material

    assert live.look() == "same"
    files.cert.write_bytes(second.cert)
    assert [live.look() for _ in range(3)] == ["same", "refused", "same"]
    assert live.material is before
    assert "is not that of" in live.refusal
    files.key.write_bytes(second.key)
    assert live.look() == "renewed"
    assert (live.material.cert, live.refusal, live.generation) == (second.cert, "", 2)
    files.cert.unlink()
    assert live.look(at_once=True) == "refused"
    files.cert.write_bytes(second.cert)
    assert (live.look(), live.generation) == ("mended", 2)


def test_a_pair_halfway_through_its_replacement_is_no_word_worth(tmp_path: Path) -> None:
    files = written(tmp_path)
    live = LiveTls(files, now=lambda: NOW)
    second = issue_server(AUTHORITY, ["localhost"], days=60, now=NOW)

    files.key.write_bytes(second.key)
    assert live.look() == "same"
    files.cert.write_bytes(second.cert)
    assert (live.look(), live.refusal) == ("renewed", "")


def test_the_context_by_itself_shows_nothing_and_allows_tls_1_3_only(tmp_path: Path) -> None:
    live = LiveTls(written(tmp_path, client_ca=AUTHORITY.cert), now=lambda: NOW)

    assert live.context.minimum_version is ssl.TLSVersion.TLSv1_3
    assert live.context.num_tickets == 0
    assert live.context.verify_mode is ssl.CERT_REQUIRED
    assert live.context.get_ca_certs() == []


def test_a_client_is_judged_by_the_authorities_of_now(tmp_path: Path) -> None:
    other = create_authority("two", days=365, now=NOW)
    same_name = create_authority("one", days=365, now=NOW)
    client = peer_of_pem(issue_client(AUTHORITY, "bob", days=30, now=NOW).cert)
    both = read_material(written(tmp_path, client_ca=other.cert + AUTHORITY.cert), now=NOW)

    assert is_trusted(client, both, now=NOW)
    assert not is_trusted(client, both, now=NOW + timedelta(days=31))
    assert not is_trusted(None, both, now=NOW)
    for authority in (other, same_name):
        only = read_material(written(tmp_path, client_ca=authority.cert), now=NOW)
        assert not is_trusted(client, only, now=NOW)


def test_a_client_behind_an_intermediate_is_judged_by_the_whole_chain(tmp_path: Path) -> None:
    root = authority_with("root", now=NOW)
    between = authority_with("between", above=root, now=NOW)
    other = authority_with("other", now=NOW)
    client = issue_client(between, "bob", days=3, now=NOW)
    chain = peer_of_pem(client.cert + between.cert)
    impostor = peer_of_pem(issue_client(SERVER_AS_AUTHORITY, "bob", days=3, now=NOW).cert + SERVER.cert)
    for known, trusted in ((root, True), (between, True), (other, False)):
        material = read_material(written(tmp_path, client_ca=known.cert), now=NOW)
        assert is_trusted(chain, material, now=NOW) is trusted
    material = read_material(written(tmp_path, client_ca=root.cert), now=NOW)
    assert not is_trusted(peer_of_pem(client.cert), material, now=NOW)  # not known whole
    own = read_material(written(tmp_path, client_ca=AUTHORITY.cert), now=NOW)
    assert not is_trusted(impostor, own, now=NOW)  # a server's certificate issues nothing


SERVER_AS_AUTHORITY = Issued(cert=SERVER.cert, key=SERVER.key)


def test_a_clients_own_files_are_judged_too(tmp_path: Path) -> None:
    files = written(tmp_path)

    with pytest.raises(NotFound, match="authority"):
        client_context(ClientFiles(ca=tmp_path / "none"))
    with pytest.raises(InvalidInput, match="PEM"):
        client_context(ClientFiles(ca=files.key))
    with pytest.raises(InvalidInput, match="go together"):
        client_context(ClientFiles(cert=files.cert))
    files.key.chmod(0o644)
    with pytest.raises(Denied, match="chmod"):
        client_context(ClientFiles(cert=files.cert, key=files.key))
    files.key.chmod(0o600)
    assert (
        client_context(ClientFiles(cert=files.cert, key=files.key)).minimum_version is ssl.TLSVersion.TLSv1_3
    )
