from __future__ import annotations

import hashlib
import hmac
import json
from base64 import urlsafe_b64decode, urlsafe_b64encode
from typing import Any

import msgspec
import pytest
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.asymmetric.utils import decode_dss_signature
from hypothesis import given, settings
from hypothesis import strategies as st

from taut.core.errors import Corrupt, Unauthenticated
from taut.ports.keys import PublicKey
from taut.trust.identity import ApiKeyHash, RevokedToken, TokenVerifier, VerifierData

NOW = 1_800_000_000.0
ORDER = 0xFFFFFFFF00000000FFFFFFFFFFFFFFFFBCE6FAADA7179E84F3B9CAC2FC632551
SECRET = "s" * 52
KEY = f"taut_0123456789abcdef_{SECRET}"
GENUINE = ec.generate_private_key(ec.SECP256R1())
FORGER = ec.generate_private_key(ec.SECP256R1())
CLAIMS: dict[str, Any] = {
    "iss": "taut", "sub": "alice", "kind": "human", "aud": "taut", "roles": ["builder"], "iat": int(NOW) - 60,
    "exp": int(NOW) + 600, "jti": "tok_1",
}  # fmt: skip
HEADER: dict[str, Any] = {"alg": "ES256", "kid": "genuine", "typ": "at+jwt"}


def pem(key: ec.EllipticCurvePrivateKey) -> str:
    form = serialization.PublicFormat.SubjectPublicKeyInfo
    return key.public_key().public_bytes(serialization.Encoding.PEM, form).decode()


def data(**changes: Any) -> VerifierData:
    plain = VerifierData(
        issuer="taut",
        audience="taut",
        public_keys=(PublicKey(key_id="genuine", purpose="token", pem=pem(GENUINE)),),
        api_keys=(
            ApiKeyHash(
                id="0123456789abcdef", secret_sha256=hashlib.sha256(SECRET.encode()).hexdigest(), principal="robot",
                kind="service", roles=("predictor",), expires_at_s=NOW + 600,
            ),
        ),
    )  # fmt: skip
    return msgspec.structs.replace(plain, **changes)


def b64(raw: bytes) -> str:
    return urlsafe_b64encode(raw).rstrip(b"=").decode()


def signature(signed: str, key: ec.EllipticCurvePrivateKey) -> bytes:
    r, s = decode_dss_signature(key.sign(signed.encode(), ec.ECDSA(hashes.SHA256())))
    return r.to_bytes(32, "big") + s.to_bytes(32, "big")


def token(
    header: dict[str, Any] | bytes = HEADER,
    claims: dict[str, Any] | bytes = CLAIMS,
    *,
    key: ec.EllipticCurvePrivateKey = GENUINE,
) -> str:
    parts = [part if isinstance(part, bytes) else json.dumps(part).encode() for part in (header, claims)]
    signed = ".".join(b64(part) for part in parts)
    return f"{signed}.{b64(signature(signed, key))}"


def refused(bearer: str, verifier: TokenVerifier | None = None, *, now_s: float = NOW) -> str:
    with pytest.raises(Unauthenticated) as caught:
        (verifier or TokenVerifier(data())).verify(bearer, now_s)
    return str(caught.value)


def with_claims(**changes: Any) -> str:
    return token(claims={**CLAIMS, **changes})


def without_claim(name: str) -> str:
    return token(claims={key: value for key, value in CLAIMS.items() if key != name})


def with_header(**changes: Any) -> str:
    return token(header={**HEADER, **changes})


def unsigned(alg: str, last: str) -> str:
    return f"{b64(json.dumps({**HEADER, 'alg': alg}).encode())}.{b64(json.dumps(CLAIMS).encode())}.{last}"


def hmac_with_the_public_key() -> str:
    signed = f"{b64(json.dumps({**HEADER, 'alg': 'HS256'}).encode())}.{b64(json.dumps(CLAIMS).encode())}"
    return f"{signed}.{b64(hmac.new(pem(GENUINE).encode(), signed.encode(), hashlib.sha256).digest())}"


def other_claims_under_a_genuine_signature() -> str:
    head, _, last = token().split(".")
    return f"{head}.{b64(json.dumps({**CLAIMS, 'roles': ['admin']}).encode())}.{last}"


def last_bits_changed() -> str:
    """The same bytes in another spelling: base64url's last character has bits that nobody reads."""
    genuine = token()
    alphabet = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_"
    twin = genuine[:-1] + alphabet[alphabet.index(genuine[-1]) ^ 1]
    assert urlsafe_b64decode(twin.split(".")[2] + "==") == urlsafe_b64decode(genuine.split(".")[2] + "==")
    return twin


def test_the_genuine_ones_are_accepted() -> None:
    verifier = TokenVerifier(data())
    assert verifier.verify(token(), NOW).id == "alice"
    assert verifier.verify(with_claims(scopes=["predict"], nbf=int(NOW)), NOW).scopes == ("predict",)
    assert verifier.verify(KEY, NOW).id == "robot"


FORGERIES = {
    "alg none": unsigned("none", ""),
    "alg none with a signature": unsigned("none", token().split(".")[2]),
    "alg None": unsigned("None", token().split(".")[2]),
    "hmac with the public key": hmac_with_the_public_key(),
    "alg ES384": with_header(alg="ES384"),
    "alg absent": token(header={"kid": "genuine", "typ": "at+jwt"}),
    "another type of token": with_header(typ="JWT"),
    "type absent": token(header={"alg": "ES256", "kid": "genuine"}),
    "jku": with_header(jku="https://evil.example/keys"),
    "jwk": with_header(jwk={"kty": "EC"}),
    "x5u": with_header(x5u="https://evil.example/cert"),
    "x5c": with_header(x5c=["MII"]),
    "crit": with_header(crit=["exp"]),
    "zip": with_header(zip="DEF"),
    "b64": with_header(b64=False),
    "unknown kid": with_header(kid="other"),
    "kid that is a path": with_header(kid="../../etc/passwd"),
    "kid that is no text": with_header(kid=1),
    "kid absent": token(header={"alg": "ES256", "typ": "at+jwt"}),
    "signed by somebody else": token(key=FORGER),
    "other claims under a genuine signature": other_claims_under_a_genuine_signature(),
    "another spelling of the same bytes": last_bits_changed(),
    "padding": token() + "=",
    "truncated": token()[:-4],
    "four parts": token() + ".e30",
    "a signature of zeros": token().rpartition(".")[0] + "." + b64(bytes(64)),
    "header is no JSON": token(header=b"{"),
    "header is a list": token(header=b"[]"),
    "header is deep": token(header=b"[" * 2000),
    "claims are no JSON": token(claims=b"nothing"),
    "claims are not UTF-8": token(claims=b'{"iss": "\xff"}'),
    "claims are a list": token(claims=b"[]"),
    "another issuer": with_claims(iss="taut-elsewhere"),
    "another audience": with_claims(aud="grafana"),
    "many audiences": with_claims(aud=["taut", "grafana"]),
    "expired": with_claims(exp=int(NOW)),
    "expires as text": with_claims(exp=str(int(NOW) + 600)),
    "expires never": with_claims(exp=None),
    "expires as a float beyond": with_claims(exp=1e300),
    "lives for years": with_claims(exp=int(NOW) + 10**8),
    "ends before it begins": with_claims(iat=int(NOW), exp=int(NOW) - 1),
    "issued in the future": with_claims(iat=int(NOW) + 60),
    "not valid yet": with_claims(nbf=int(NOW) + 60),
    "an unknown role": with_claims(roles=["emperor"]),
    "roles as a text": with_claims(roles="admin"),
    "no roles claim": without_claim("roles"),
    "no subject": without_claim("sub"),
    "an empty subject": with_claims(sub=""),
    "an empty jti": with_claims(jti=""),
    "no jti": without_claim("jti"),
    "no expiry": without_claim("exp"),
    "a claim that nobody knows": with_claims(admin=True),
    "an unknown kind": with_claims(kind="god"),
    "larger than the bound": with_claims(jti="x" * 9000),
    "nothing": "",
    "a blank": " ",
    "dots": "..",
    "the scheme twice": "Bearer " + token(),
    "a line break after it": token() + "\n",
    "not ASCII": "é" * 50,
    "key prefix only": "taut_",
    "key without secret": "taut_0123456789abcdef_",
    "key without id": f"taut__{SECRET}",
    "key with another secret": f"taut_0123456789abcdef_{'t' * 52}",
    "key with another id": f"taut_1123456789abcdef_{SECRET}",
    "key with a longer secret": KEY + "s",
    "key with the hash as secret": f"taut_0123456789abcdef_{hashlib.sha256(SECRET.encode()).hexdigest()}",
    "key in capitals": KEY.upper(),
    "key that is huge": "taut_" + "x" * 100_000,
    "key with a lone surrogate": f"taut_0123456789abcdef_{chr(0xD800)}",
}


@pytest.mark.parametrize("bearer", FORGERIES.values(), ids=FORGERIES.keys())
def test_a_forgery_is_refused_and_the_answer_does_not_repeat_it(bearer: str) -> None:
    said = refused(bearer)
    assert len(said) < 400
    if len(bearer) > 20:
        assert bearer not in said
    assert SECRET not in said


def test_the_forgers_token_is_refused_for_its_key_alone() -> None:
    """The planted fault: a verifier that trusts the forger's key lets the very same token pass."""
    forged = token(key=FORGER)
    trusting = data(public_keys=(PublicKey(key_id="genuine", purpose="token", pem=pem(FORGER)),))
    assert TokenVerifier(trusting).verify(forged, NOW).id == "alice"
    refused(forged)


def test_every_flipped_character_of_a_token_is_noticed() -> None:
    verifier = TokenVerifier(data())
    genuine = token()
    for position in range(0, len(genuine), 5):
        other = "A" if genuine[position] != "A" else "B"
        refused(genuine[:position] + other + genuine[position + 1 :], verifier)


def test_a_revoked_token_is_refused_in_the_twin_form_of_its_signature_too() -> None:
    head, claims, last = token().split(".")
    raw = urlsafe_b64decode(last + "==")
    twin = raw[:32] + (ORDER - int.from_bytes(raw[32:], "big")).to_bytes(32, "big")
    revoked = TokenVerifier(data(revoked=(RevokedToken(jti="tok_1", expires_at_s=NOW + 600),)))
    assert "revoked" in refused(f"{head}.{claims}.{b64(twin)}", revoked)


def test_revocations_of_a_newer_snapshot_hold_although_the_old_one_had_accepted() -> None:
    bearer = token()
    assert TokenVerifier(data()).verify(bearer, NOW).id == "alice"
    refused(bearer, TokenVerifier(data(disabled=("alice",))))
    refused(bearer, TokenVerifier(data(tokens_from_s={"alice": NOW})))
    refused(KEY, TokenVerifier(data(disabled=("robot",))))
    refused(KEY, TokenVerifier(data(api_keys=())))


def test_what_is_remembered_ends_at_its_expiry() -> None:
    verifier = TokenVerifier(data())
    bearer = token()
    assert verifier.verify(bearer, NOW) is verifier.verify(bearer, NOW + 599)
    refused(bearer, verifier, now_s=NOW + 600)
    verifier.verify(KEY, NOW)
    refused(KEY, verifier, now_s=NOW + 600)


def test_forgeries_are_not_remembered_and_the_memory_is_bounded() -> None:
    verifier = TokenVerifier(data(), cache_size=8)
    for number in range(30):
        refused(f"{KEY}{number}", verifier)
    assert len(verifier._cache) == 0
    for number in range(30):
        verifier.verify(with_claims(jti=f"tok_{number}"), NOW)
    assert len(verifier._cache) == 8
    assert verifier.verify(with_claims(jti="tok_0"), NOW).credential == "tok_0"


@pytest.mark.parametrize(
    "key",
    [
        PublicKey(key_id="k", purpose="ledger", pem=pem(GENUINE)),
        PublicKey(key_id="k", purpose="token", pem="not a key"),
        PublicKey(key_id="k", purpose="token", pem=pem(ec.generate_private_key(ec.SECP384R1()))),
        PublicKey(
            key_id="k",
            purpose="token",
            pem=GENUINE.private_bytes(
                serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
            ).decode(),
        ),
    ],
    ids=["another purpose", "no key", "another curve", "a private key"],
)
def test_a_snapshot_with_a_key_that_cannot_be_right_is_refused(key: PublicKey) -> None:
    with pytest.raises(Corrupt):
        TokenVerifier(data(public_keys=(key,)))


@settings(max_examples=300, deadline=None)
@given(st.one_of(st.text(max_size=200), st.text(max_size=60).map(lambda text: KEY[:22] + text)))
def test_no_text_is_accepted_but_the_genuine_ones(bearer: str) -> None:
    if bearer != KEY:
        refused(bearer)
