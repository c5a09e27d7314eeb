from __future__ import annotations

import base64
import json
from pathlib import Path
from typing import Any

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from taut.adapters.keys.file import FileKeys
from taut.core.canonical import canonical_json
from taut.core.errors import Corrupt, Denied, InvalidInput
from taut.ports.keys import Keys, PublicKey
from taut.testing.world import SeededRandom
from taut.trust.signing import SignedStatement, sign_statement, verify_signature, verify_statement
from taut.trust.signing.statement import Signature

TYPE = "application/vnd.taut.test+json"
_JSON = st.recursive(
    st.none()
    | st.booleans()
    | st.integers(-(2**53), 2**53)
    | st.floats(allow_nan=False, allow_infinity=False)
    | st.text(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(), inner, max_size=3),
    max_leaves=8,
)


@pytest.fixture(scope="module")
def keys(tmp_path_factory: pytest.TempPathFactory) -> Keys:
    return FileKeys(tmp_path_factory.mktemp("keys"), random=SeededRandom(1))


def trusted(keys: Keys) -> tuple[PublicKey, ...]:
    return keys.public_keys(purpose="model")


def sign(keys: Keys, payload: dict[str, Any]) -> SignedStatement:
    return sign_statement(keys, purpose="model", payload_type=TYPE, payload=payload)


@settings(max_examples=40, deadline=None)
@given(payload=st.dictionaries(st.text(), _JSON, max_size=4))
def test_what_was_signed_is_what_verifies_also_through_json(keys: Keys, payload: dict[str, Any]) -> None:
    statement = SignedStatement.from_json(sign(keys, payload).to_json())
    assert canonical_json(verify_statement(statement, trusted(keys), payload_type=TYPE)) == canonical_json(
        payload
    )


def test_the_json_form_is_that_of_dsse(keys: Keys) -> None:
    form = json.loads(sign(keys, {"b": 1, "a": 2}).to_json())
    assert sorted(form) == ["payload", "payloadType", "purpose", "signatures"]
    assert base64.b64decode(form["payload"]) == b'{"a":2,"b":1}'
    assert sorted(form["signatures"][0]) == ["keyid", "sig"]
    assert len(base64.b64decode(form["signatures"][0]["sig"])) == 64


@settings(max_examples=60, deadline=None)
@given(data=st.data())
def test_a_flipped_bit_anywhere_in_payload_or_signature_is_corrupt(keys: Keys, data: st.DataObject) -> None:
    statement = sign(keys, {"digest": "sha256:1234", "n": 5})
    parts = {"payload": statement.payload, "sig": statement.signatures[0].sig}
    part = data.draw(st.sampled_from(sorted(parts)))
    flipped = bytearray(parts[part])
    at = data.draw(st.integers(0, len(flipped) * 8 - 1))
    flipped[at // 8] ^= 1 << at % 8
    if part == "payload":
        changed = msgspec.structs.replace(statement, payload=bytes(flipped))
    else:
        only = Signature(keyid=statement.signatures[0].keyid, sig=bytes(flipped))
        changed = msgspec.structs.replace(statement, signatures=(only,))
    with pytest.raises(Corrupt):
        verify_statement(changed, trusted(keys), payload_type=TYPE)


def test_another_type_is_denied_whatever_the_envelope_claims(keys: Keys) -> None:
    statement = sign(keys, {"a": 1})
    with pytest.raises(Denied, match="type"):
        verify_statement(statement, trusted(keys), payload_type="application/other")
    relabelled = msgspec.structs.replace(statement, payload_type="application/other")
    with pytest.raises(Corrupt, match="changed"):
        verify_statement(relabelled, trusted(keys), payload_type="application/other")


def test_a_signature_for_one_purpose_is_never_valid_for_another(keys: Keys) -> None:
    statement = sign(keys, {"a": 1})
    with pytest.raises(Denied, match="purpose"):
        verify_statement(statement, keys.public_keys(purpose="bundle"), payload_type=TYPE)
    # even if somebody trusts the very same key for the other purpose
    (key,) = trusted(keys)
    moved = msgspec.structs.replace(key, purpose="bundle")
    relabelled = msgspec.structs.replace(statement, purpose="bundle")
    with pytest.raises(Corrupt):
        verify_statement(relabelled, [moved], payload_type=TYPE)
    with pytest.raises(Denied, match="serves model"):
        verify_signature(key, b"m", bytes(64), purpose="bundle")


def test_an_unknown_key_is_denied(keys: Keys, tmp_path: Path) -> None:
    stranger = FileKeys(tmp_path, random=SeededRandom(2))
    with pytest.raises(Denied, match="no trusted key"):
        verify_statement(sign(stranger, {"a": 1}), trusted(keys), payload_type=TYPE)
    with pytest.raises(Denied):
        verify_statement(sign(keys, {"a": 1}), [], payload_type=TYPE)
    unsigned = msgspec.structs.replace(sign(keys, {"a": 1}), signatures=())
    with pytest.raises(Denied, match="nobody"):
        verify_statement(unsigned, trusted(keys), payload_type=TYPE)


def test_one_bad_signature_by_a_trusted_key_spoils_the_good_one(keys: Keys) -> None:
    statement = sign(keys, {"a": 1})
    bad = Signature(keyid=statement.signatures[0].keyid, sig=bytes(63) + b"\x01")
    both = msgspec.structs.replace(statement, signatures=(statement.signatures[0], bad))
    with pytest.raises(Corrupt):
        verify_statement(both, trusted(keys), payload_type=TYPE)


def test_a_statement_verifies_after_rotation_with_the_keys_of_before_and_after(tmp_path: Path) -> None:
    keys = FileKeys(tmp_path, random=SeededRandom(3))
    statement = sign(keys, {"a": 1})
    keys.rotate(purpose="model")
    assert verify_statement(statement, trusted(keys), payload_type=TYPE) == {"a": 1}
    assert verify_statement(sign(keys, {"a": 2}), trusted(keys), payload_type=TYPE) == {"a": 2}


@pytest.mark.parametrize(
    "body", [b'{"b":1,"a":2}', b'{"a": 1}', b'{"a":1,"a":2}', b"[1]", b"1", b"\xff", b"", b'{"a":1}\n']
)
def test_a_payload_that_is_not_canonical_is_corrupt_even_when_signed(keys: Keys, body: bytes) -> None:
    message = b"DSSEv1 %d %b %d %b" % (len(TYPE), TYPE.encode(), len(body), body)
    key_id, signature = keys.sign(message, purpose="model")
    statement = SignedStatement(
        payload=body, payload_type=TYPE, purpose="model", signatures=(Signature(keyid=key_id, sig=signature),)
    )
    with pytest.raises(Corrupt):
        verify_statement(statement, trusted(keys), payload_type=TYPE)


@pytest.mark.parametrize(
    "text", ["", "{}", "[]", "null", '{"payload":1}', "\x00", '{"payload":"","payloadType":"","purpose":"","signatures":[],"x":1}']
)  # fmt: skip
def test_what_is_no_statement_is_corrupt(text: str) -> None:
    with pytest.raises(Corrupt, match="no signed statement"):
        SignedStatement.from_json(text)


def test_a_payload_that_json_cannot_carry_is_refused(keys: Keys) -> None:
    with pytest.raises(InvalidInput, match="nan"):
        sign(keys, {"a": float("nan")})
    with pytest.raises(InvalidInput, match="payload type"):
        sign_statement(keys, purpose="model", payload_type="", payload={})


def test_an_empty_or_rsa_key_cannot_verify(keys: Keys) -> None:
    (key,) = trusted(keys)
    _, signature = keys.sign(b"m", purpose="model")
    verify_signature(key, b"m", signature, purpose="model")
    with pytest.raises(Corrupt, match="63 bytes"):
        verify_signature(key, b"m", signature[:63], purpose="model")
    with pytest.raises(Corrupt):
        verify_signature(key, b"m", bytes(64), purpose="model")
