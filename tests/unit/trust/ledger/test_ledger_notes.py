"""Checkpoints as signed notes: the format of C2SP, and nothing but what our keys signed."""

from __future__ import annotations

from base64 import b64decode, b64encode
from hashlib import sha256
from pathlib import Path

import pytest
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec, ed25519
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat, load_pem_public_key
from hypothesis import given, settings
from hypothesis import strategies as st

from taut.adapters.keys.file import FileKeys
from taut.adapters.world import SystemRandom
from taut.core.errors import Corrupt, InvalidInput
from taut.trust.ledger.note import check_origin, open_checkpoint, sign_checkpoint, verify_key, verify_keys
from taut.trust.ledger.values import Checkpoint

ORIGIN, ROOT = "example.org/taut", sha256(b"root").digest()


@pytest.fixture(scope="module")
def keys(tmp_path_factory: pytest.TempPathFactory) -> FileKeys:
    return FileKeys(tmp_path_factory.mktemp("keys"), random=SystemRandom())


@pytest.fixture(scope="module")
def signed(keys: FileKeys) -> Checkpoint:
    return sign_checkpoint(keys, origin=ORIGIN, size=42, root=ROOT)


def test_a_checkpoint_reads_back_as_it_was_signed(keys: FileKeys, signed: Checkpoint) -> None:
    assert open_checkpoint(signed.note, verify_keys(keys), origin=ORIGIN) == signed


def test_the_note_is_what_the_specification_says_and_any_ecdsa_library_can_check_it(
    keys: FileKeys, signed: Checkpoint
) -> None:
    text, _, signature = signed.note.partition("\n\n")
    prefix, _, blob = signature.removesuffix("\n").rpartition(" ")
    raw = b64decode(blob)
    public = load_pem_public_key(keys.public_keys(purpose="ledger")[0].pem.encode())
    assert isinstance(public, ec.EllipticCurvePublicKey)
    der = public.public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo)

    assert text == f"{ORIGIN}\n42\n{b64encode(ROOT).decode()}"
    assert prefix == f"— {ORIGIN}"
    assert raw[:4] == sha256(der).digest()[:4]
    public.verify(raw[4:], (text + "\n").encode(), ec.ECDSA(hashes.SHA256()))


def test_signatures_of_others_are_ignored_and_former_keys_still_count(tmp_path: Path) -> None:
    keys = FileKeys(tmp_path / "own", random=SystemRandom())
    note = sign_checkpoint(keys, origin=ORIGIN, size=1, root=ROOT).note
    witness = f"— witness.example {b64encode(bytes(100)).decode()}\n"
    same_name = f"— {ORIGIN} {b64encode(bytes(100)).decode()}\n"
    keys.rotate(purpose="ledger")

    assert open_checkpoint(note + witness * 20 + same_name, verify_keys(keys)).size == 1


def test_extra_lines_are_allowed_and_signed(keys: FileKeys) -> None:
    text = f"{ORIGIN}\n7\n{b64encode(ROOT).decode()}\nextension line\n"
    key_id, raw = keys.sign(text.encode(), purpose="ledger")
    from cryptography.hazmat.primitives.asymmetric.utils import encode_dss_signature

    der = encode_dss_signature(int.from_bytes(raw[:32], "big"), int.from_bytes(raw[32:], "big"))
    line = b64encode(bytes.fromhex(key_id)[:4] + der).decode()
    note = f"{text}\n— {ORIGIN} {line}\n"

    assert open_checkpoint(note, verify_keys(keys)).size == 7
    with pytest.raises(Corrupt):
        open_checkpoint(note.replace("extension", "another"), verify_keys(keys))


@given(st.data())
@settings(max_examples=150, deadline=None)
def test_no_changed_character_is_accepted(keys: FileKeys, signed: Checkpoint, data: st.DataObject) -> None:
    at = data.draw(st.integers(0, len(signed.note) - 1))
    new = data.draw(st.characters(codec="utf-8").filter(lambda c: c != signed.note[at]))

    with pytest.raises(Corrupt):
        open_checkpoint(signed.note[:at] + new + signed.note[at + 1 :], verify_keys(keys))


def test_a_note_of_another_key_or_another_log_is_refused(
    keys: FileKeys, signed: Checkpoint, tmp_path: Path
) -> None:
    others = FileKeys(tmp_path / "other", random=SystemRandom())
    with pytest.raises(Corrupt, match="none of this ledger's keys"):
        open_checkpoint(signed.note, verify_keys(others))
    with pytest.raises(Corrupt, match="belongs elsewhere"):
        open_checkpoint(signed.note, verify_keys(keys), origin="example.org/other")


@pytest.mark.parametrize(
    "note",
    ["", "\n\n", "text\n\n", "a\n1\nx\n\n— a AAAA\n", "x" * 70_000, "a\n01\nb\n\n— a AAAAAAAA\n", "a\n\n— a +\n", "a\r\n\n— b AAAAAAAA\n"],
)  # fmt: skip
def test_what_is_no_checkpoint_is_called_so(keys: FileKeys, note: str) -> None:
    with pytest.raises(Corrupt):
        open_checkpoint(note, verify_keys(keys))


@pytest.mark.parametrize("origin", ["", "with space", "with+plus", "new\nline", "x" * 201, "bell\a"])
def test_an_origin_that_no_note_can_carry_is_refused(origin: str) -> None:
    with pytest.raises(InvalidInput):
        check_origin(origin)


def test_only_p256_keys_are_accepted() -> None:
    others = [
        ed25519.Ed25519PrivateKey.generate().public_key(),
        ec.generate_private_key(ec.SECP384R1()).public_key(),
    ]
    for key in others:
        with pytest.raises(InvalidInput):
            verify_key(key.public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo).decode())
    with pytest.raises(InvalidInput):
        verify_key("no key at all")
