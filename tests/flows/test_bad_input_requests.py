"""Requests that are forged, expired, too large, too deep or against the signature, at both planes of a running platform."""

from __future__ import annotations

import base64
import json
import time
from collections.abc import Iterator
from typing import Any

import httpx
import pytest
from cryptography.hazmat.primitives.asymmetric import ec
from installation import ORDER, Installation, Up, assert_clear, logged_ids
from joserfc import jwt
from joserfc.jwk import ECKey

pytestmark = pytest.mark.xdist_group("bad-requests")

GOOD = {"instances": [ORDER]}


@pytest.fixture(scope="module")
def up(released_template: Installation, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Up]:
    shop = released_template.copy_to(tmp_path_factory.mktemp("bad-requests") / "shop")
    with shop.up() as running:
        yield running


@pytest.fixture(scope="module")
def bearer(up: Up) -> str:
    return up.token()


def post(up: Up, bearer: str | None, content: Any, *, url: str = "", **headers: str) -> httpx.Response:
    sent = {"content-type": "application/json", **headers}
    if bearer is not None:
        sent["authorization"] = f"Bearer {bearer}"
    body = content if isinstance(content, bytes | Iterator) else json.dumps(content).encode()
    return httpx.post(url or f"{up.data}/v1/predict/late", content=body, headers=sent, timeout=60.0)


def refusal(answer: httpx.Response, status: int, code: str) -> str:
    """The message of an answer that must be this refusal, in the one shape that errors have."""
    assert answer.status_code == status, answer.text[:500]
    error = answer.json()["error"]
    assert set(error) == {"code", "message", "request_id"}
    assert error["code"] == code
    assert error["request_id"].startswith("req_")
    assert_clear(error["message"])
    return str(error["message"])


def parts(token: str) -> tuple[dict[str, Any], dict[str, Any]]:
    head, body, _ = token.split(".")
    return tuple(json.loads(base64.urlsafe_b64decode(part + "==")) for part in (head, body))  # type: ignore[return-value]  # two parts


def encoded(part: dict[str, Any]) -> str:
    return base64.urlsafe_b64encode(json.dumps(part).encode()).rstrip(b"=").decode()


def forged_by_another_key(token: str) -> str:
    head, body = parts(token)
    return jwt.encode(head, body, ECKey.import_key(ec.generate_private_key(ec.SECP256R1())))


def with_no_signature(token: str) -> str:
    head, body = parts(token)
    return f"{encoded({**head, 'alg': 'none'})}.{encoded(body)}."


def with_more_rights(token: str) -> str:
    head, _, signature = token.split(".")
    return f"{head}.{encoded({**parts(token)[1], 'roles': ['admin']})}.{signature}"


def with_a_longer_life(token: str) -> str:
    head, _, signature = token.split(".")
    return f"{head}.{encoded({**parts(token)[1], 'exp': 2**40})}.{signature}"


FORGED = {
    "by another key": forged_by_another_key,
    "without a signature": with_no_signature,
    "with more rights": with_more_rights,
    "with a longer life": with_a_longer_life,
    "cut": lambda token: token[:-10],
    "no token": lambda _: "let me in",
    "huge": lambda token: token * 200,
    "an API key of nobody": lambda _: "taut_0123456789abcdefghijkl_" + "x" * 43,
}


@pytest.mark.parametrize("forgery", FORGED)
def test_a_forged_bearer_is_refused_at_both_planes(up: Up, bearer: str, forgery: str) -> None:
    forged = FORGED[forgery](bearer)

    answer = post(up, forged, GOOD)
    control = post(up, forged, {}, url=f"{up.control}/api/v1/status/show")

    if forgery == "huge" and answer.status_code in (400, 413):  # the header alone is beyond what HTTP allows
        return
    refusal(answer, 401, "unauthenticated")
    refusal(control, 401, "unauthenticated")
    assert answer.headers["www-authenticate"].startswith("Bearer")


def test_no_identity_is_refused_at_both_planes(up: Up) -> None:
    refusal(post(up, None, GOOD), 401, "unauthenticated")
    refusal(post(up, None, {}, url=f"{up.control}/api/v1/status/show"), 401, "unauthenticated")
    refusal(post(up, None, GOOD, authorization="Basic dGF1dDp0YXV0"), 401, "unauthenticated")


def test_an_expired_and_a_revoked_token_are_refused(up: Up) -> None:
    shop = up.installation
    short = shop("token", "create", "-p", "tester", "-r", "predictor", "--enrol", "service", "--ttl", "1s")[
        "token"
    ]
    revoked = shop("token", "create", "-p", "tester", "-r", "predictor")["token"]
    assert post(up, revoked, GOOD).status_code == 200

    shop("token", "revoke", parts(revoked)[1]["jti"])
    time.sleep(1.2)

    assert "expired" in refusal(post(up, short, GOOD), 401, "unauthenticated")
    assert "revoked" in refusal(post(up, revoked, GOOD), 401, "unauthenticated")
    refusal(post(up, short, {}, url=f"{up.control}/api/v1/status/show"), 401, "unauthenticated")


def test_a_token_without_the_right_is_denied_and_changes_nothing(up: Up, bearer: str) -> None:
    shop = up.installation

    told = shop.told("--token", bearer, "release", "start", "late", "1")

    assert (told.code, told.error[0]) == (4, "denied")
    assert len(shop("release", "history", "late")["releases"]) == 1


def chunks(size: int) -> Iterator[bytes]:
    yield b'{"instances": ["'
    for _ in range(size // 65536):
        yield b"x" * 65536
    yield b'"]}'


BODIES: dict[str, tuple[Any, int, str]] = {
    # name: (body, status, code)
    "empty": (b"", 400, "malformed"),
    "no json": (b"late?", 400, "malformed"),
    "cut json": (b'{"instances": [{', 400, "malformed"),
    "no text": (b"\xff\xfe\x00\x01" * 100, 400, "malformed"),
    "nan": (json.dumps(GOOD).replace("12.5", "NaN").encode(), 400, "malformed"),
    "infinite": (json.dumps(GOOD).replace("12.5", "1e999").encode(), 422, "invalid_input"),
    "too deep": (b"[" * 200_000 + b"]" * 200_000, 400, "malformed"),
    "deep in a value": (b'{"instances": [{"items": ' + b"[" * 50_000 + b"]" * 50_000 + b"}]}", 400, "malformed"),
    "too large": (b'{"instances": ["' + b"x" * 9_000_000 + b'"]}', 413, "too_large"),
    "a list": ([ORDER], 400, "malformed"),
    "no instances": ({}, 400, "malformed"),
    "nothing to answer": ({"instances": []}, 422, "invalid_input"),
    "no object": ({"instances": [1]}, 422, "invalid_input"),
    "a column less": ({"instances": [{**ORDER, "items": None}]}, 422, "invalid_input"),
    "a column more": ({"instances": [{**ORDER, "itmes": 3}]}, 422, "invalid_input"),
    "a text for a number": ({"instances": [{**ORDER, "items": "3"}]}, 422, "invalid_input"),
    "a number for a text": ({"instances": [{**ORDER, "warehouse": 3}]}, 422, "invalid_input"),
    "half an item": ({"instances": [{**ORDER, "items": 2.5}]}, 422, "invalid_input"),
    "more than 64 bits": ({"instances": [{**ORDER, "items": 2**70}]}, 422, "invalid_input"),
    "a text without end": ({"instances": [{**ORDER, "warehouse": "x" * 5_000_000}]}, 422, "invalid_input"),
}  # fmt: skip


@pytest.mark.parametrize("fault", BODIES)
def test_a_body_that_cannot_be_answered_is_refused_with_the_reason(up: Up, bearer: str, fault: str) -> None:
    body, status, code = BODIES[fault]

    refusal(post(up, bearer, body), status, code)


def test_a_body_that_grows_without_a_length_is_cut_off(up: Up, bearer: str) -> None:
    try:
        answer = post(up, bearer, chunks(64 * 2**20))
    except httpx.TransportError:
        return  # cut off while it was still sending
    refusal(answer, 413, "too_large")


@pytest.mark.parametrize(
    ("body", "status", "code"),
    [
        (b"{" * 100_000, 400, "invalid_input"),
        (b"[" * 200_000 + b"]" * 200_000, 400, "invalid_input"),
        (b"\xff" * 100, 400, "invalid_input"),
        (b'{"dataste": "orders"}', 400, "invalid_input"),
        (b'{"dataset": 3}', 400, "invalid_input"),
        (b'{"dataset": "' + b"x" * 34_000_000 + b'"}', 413, "too_large"),
    ],
    ids=["braces", "deep", "bytes", "typo", "type", "large"],
)  # fmt: skip
def test_a_body_that_control_cannot_read_is_refused_with_the_reason(
    up: Up, body: bytes, status: int, code: str
) -> None:
    admin = up.installation("token", "create", "-p", "boss", "-r", "admin", "--enrol", "service")["token"]

    answer = post(up, admin, body, url=f"{up.control}/api/v1/data/show")

    refusal(answer, status, code)


def test_what_is_not_there_is_said_so(up: Up, bearer: str) -> None:
    assert "late" in refusal(post(up, bearer, GOOD, url=f"{up.data}/v1/predict/lat"), 404, "not_found")
    refusal(post(up, bearer, GOOD, url=f"{up.data}/v2/nothing"), 404, "not_found")
    put = httpx.put(f"{up.data}/v1/predict/late", headers={"authorization": f"Bearer {bearer}"}, timeout=60.0)
    refusal(put, 405, "method_not_allowed")
    refusal(post(up, bearer, {}, url=f"{up.control}/api/v1/data/nothing"), 404, "not_found")


def test_after_all_of_it_the_platform_answers_and_no_process_died(up: Up, bearer: str) -> None:
    answer = post(up, bearer, GOOD)

    assert answer.status_code == 200
    assert answer.json()["request_id"] in logged_ids(up.installation.home)
    assert {child["restarts"] for child in up.state()["children"]} == {0}
    assert up.installation("ledger", "verify")["ok"] is True
