"""`taut tls create`: what it writes, what it keeps, and what it refuses."""

from __future__ import annotations

import ssl
import stat
from pathlib import Path

import pytest
from cryptography import x509

from taut.bootstrap.config import Config
from taut.core.errors import Conflict, InvalidInput
from taut.entrypoints.listening import TlsPaths, require_secure
from taut.entrypoints.making import make_certificates
from taut.entrypoints.reaching import address_of, client_files, seen_from


def test_an_authority_is_made_once_and_issues_each_further_certificate(tmp_path: Path) -> None:
    folder = tmp_path / "tls"
    first = make_certificates(folder, hosts=["ml.example.org", "10.0.0.7"], clients=[], days=30)
    authority = (folder / "ca.pem").read_bytes()
    second = make_certificates(folder, hosts=[], clients=["ada"], days=60)

    assert (first["new_authority"], second["new_authority"]) == (True, False)
    assert (folder / "ca.pem").read_bytes() == authority
    assert first["hosts"] == second["hosts"] == ["ml.example.org", "10.0.0.7"]
    assert first["serial"] != second["serial"]
    assert {path.name for path in folder.iterdir()} == {
        "ca.key", "ca.pem", "server.key", "server.pem", "ada.key", "ada.pem",
    }  # fmt: skip
    for key in folder.glob("*.key"):
        assert stat.S_IMODE(key.stat().st_mode) == 0o600, key
    above = x509.load_pem_x509_certificate(authority)
    for name in ("server", "ada"):
        x509.load_pem_x509_certificate((folder / f"{name}.pem").read_bytes()).verify_directly_issued_by(above)
        ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT).load_cert_chain(
            folder / f"{name}.pem", folder / f"{name}.key"
        )


def test_the_first_certificate_is_for_this_machine(tmp_path: Path) -> None:
    made = make_certificates(tmp_path / "tls", hosts=[], clients=[], days=1)

    assert made["hosts"][:3] == ["localhost", "127.0.0.1", "::1"]


def test_half_an_authority_odd_names_and_a_broken_certificate_are_refused(tmp_path: Path) -> None:
    folder = tmp_path / "tls"
    for client in ("ca", "server", "../up", "a/b", "", "-\n"):
        with pytest.raises(InvalidInput):
            make_certificates(folder, hosts=["a"], clients=[client], days=1)
    (folder / "server.pem").write_text("no")
    with pytest.raises(InvalidInput, match="--host"):
        make_certificates(folder, hosts=[], clients=[], days=1)
    (folder / "ca.key").unlink()
    with pytest.raises(Conflict, match="restore"):
        make_certificates(folder, hosts=["a"], clients=[], days=1)


def test_paths_of_tls_go_together_and_links_keep_their_name(tmp_path: Path) -> None:
    (tmp_path / "live").symlink_to(tmp_path / "2026-11")
    paths = TlsPaths.of(str(tmp_path / "live/c"), str(tmp_path / "live/k"), "")

    assert paths is not None
    assert paths.cert == str(tmp_path / "live/c")
    assert TlsPaths.of("", "", "") is None
    for given in (("c", "", ""), ("", "k", ""), ("", "", "ca")):
        with pytest.raises(InvalidInput, match="--tls-cert and --tls-key"):
            TlsPaths.of(*given)


@pytest.mark.parametrize("host", ["0.0.0.0", "::", "192.0.2.1", "example.org"])
def test_a_host_that_others_reach_needs_tls(host: str) -> None:
    require_secure(host, tls=True, plane="it")
    require_secure("127.0.0.1", tls=False, plane="it")
    with pytest.raises(InvalidInput, match="without TLS"):
        require_secure(host, tls=False, plane="it")


def test_addresses_of_clients() -> None:
    trust = client_files("ca.pem", None, None)

    assert address_of("ml.example.org:8081") == "http://ml.example.org:8081"
    assert address_of("ml.example.org:8081", trust) == "https://ml.example.org:8081"
    assert address_of("https://[::1]:8081/") == "https://[::1]:8081"
    assert client_files(None, None, None) is None
    assert seen_from("https://0.0.0.0:8080", "https://ml:8081") == "https://ml:8080"
    assert seen_from("https://[::]:8080", "https://[fe80::1]:8081") == "https://[fe80::1]:8080"
    assert seen_from("https://10.0.0.7:8080", "https://ml:8081") == "https://10.0.0.7:8080"
    for odd in ("ftp://x", "http://", "https://x:99999", "http://x:0"):
        with pytest.raises(InvalidInput, match="no address"):
            address_of(odd)


def test_settings_of_clients_are_not_taken_for_misspelt_ones_of_a_server() -> None:
    named = ("TAUT_TLS_CERT", "TAUT_TLS_KEY", "TAUT_TLS_CLIENT_CA")
    config = Config.load(Path("home"), {name: name[5:].lower() for name in named})

    assert (config.tls_cert, config.tls_key, config.tls_client_ca) == ("tls_cert", "tls_key", "tls_client_ca")
    Config.load(Path("home"), dict.fromkeys(("TAUT_TLS_CA", "TAUT_CLIENT_CERT", "TAUT_CLIENT_KEY"), "x"))
    with pytest.raises(InvalidInput, match="TAUT_TLS_CERT"):
        Config.load(Path("home"), {"TAUT_TLS_CRT": "x"})
