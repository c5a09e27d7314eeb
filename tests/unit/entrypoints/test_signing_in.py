"""Signing in over the control API: the console's cookie, the step-up, exchange and rotation of credentials."""

from __future__ import annotations

import asyncio
from datetime import timedelta
from typing import Any

import httpx
import pytest

from taut.bootstrap.platform import Platform
from taut.core.errors import Denied, InvalidInput, StepUp, Unauthenticated
from taut.entrypoints.api import make_app
from taut.entrypoints.callers import CONSOLE, COOKIE
from taut.entrypoints.operations import Caller, operation_table, perform
from taut.entrypoints.operations.operation import NOBODY
from taut.entrypoints.whose import caller_of, owner_caller
from taut.testing.world import ManualClock
from taut.trust.identity.principals import OWNER
from taut.trust.signin import Cost, Passwords

PASSWORD = "correct horse battery"
Json = dict[str, Any]


class Browser:
    """A browser that keeps cookies and asks the API over TLS, without a network."""

    def __init__(self, app: Any) -> None:
        carrier = httpx.ASGITransport(app, client=("192.0.2.9", 4711))
        self._http = httpx.AsyncClient(transport=carrier, base_url="https://ml.example.org")
        self.cookies = self._http.cookies

    def ask(self, method: str, path: str, **more: Any) -> httpx.Response:
        return asyncio.run(self._http.request(method, path, **more))

    def get(self, path: str, **more: Any) -> httpx.Response:
        return self.ask("GET", path, **more)

    def post(self, path: str, **more: Any) -> httpx.Response:
        return self.ask("POST", path, **more)


@pytest.fixture
def shared(platform: Platform) -> Platform:
    """An installation with two people: ada administers and approves, bob builds."""
    platform.clock = ManualClock()
    platform.people.passwords = Passwords(platform.random, cost=Cost(time=1, memory_kib=64, lanes=1))
    platform.identity.create_principal("ada", kind="human", roles=["admin", "approver"], actor="owner")
    platform.identity.create_principal("bob", kind="human", roles=["builder"], actor="owner")
    for name in ("ada", "bob"):
        code, _ = platform.people.accounts.invite(name, actor="owner")
        platform.people.accounts.accept(name, code, PASSWORD, kind="command")
    return platform


@pytest.fixture
def browser(shared: Platform) -> Browser:
    return Browser(make_app(shared, operation_table(), log_failure=lambda *_: None))


def do(platform: Platform, caller: Caller, name: str, **request: Any) -> Json:
    return perform(operation_table(), platform, caller, name, request, lambda *_: None)


def signed_in(platform: Platform, principal: str = "ada") -> Caller:
    """A person who signed in just now."""
    nobody = Caller(principal=NOBODY, local=True)
    found = do(platform, nobody, "session.start", principal=principal, password=PASSWORD)
    return caller_of(platform, found["session"], local=True)


def enter(browser: Browser) -> Json:
    """Sign in as the console does."""
    body = {"principal": "ada", "password": PASSWORD, "kind": "console"}
    answer = browser.post("/api/v1/session/start", json=body, headers={CONSOLE: "1"})
    assert answer.status_code == 200, answer.text
    found: Json = answer.json()
    return found


def test_a_console_gets_its_session_as_a_cookie_that_no_script_can_read(browser: Browser) -> None:
    body = {"principal": "ada", "password": PASSWORD, "kind": "console"}
    answer = browser.post("/api/v1/session/start", json=body, headers={CONSOLE: "1"})

    cookie = answer.headers["set-cookie"]
    assert cookie.startswith(f"{COOKIE}=tauts_")
    for word in ("Path=/", "Secure", "HttpOnly", "SameSite=Strict", "Max-Age=43200"):
        assert word in cookie
    assert "Domain" not in cookie
    assert "tauts_" not in answer.text
    whoami = browser.get("/api/v1/user/whoami", headers={CONSOLE: "1"}).json()
    assert (whoami["principal"], whoami["signed_in"]) == ("ada", "password")


def test_a_console_is_not_streamed_its_session(browser: Browser) -> None:
    body = {"principal": "ada", "password": PASSWORD, "kind": "console"}
    answer = browser.post(
        "/api/v1/session/start", json=body, headers={"accept": "application/x-ndjson", CONSOLE: "1"}
    )

    assert answer.status_code == 400
    assert "tauts_" not in answer.text


@pytest.mark.parametrize(
    "headers",
    [
        {},
        {CONSOLE: "1", "origin": "https://evil.example"},
        {CONSOLE: "1", "origin": "null"},
        {CONSOLE: "1", "sec-fetch-site": "cross-site"},
        {CONSOLE: "1", "sec-fetch-site": "same-site"},
        {CONSOLE: "1", "origin": "https://ml.example.org:444"},
    ],
)
def test_a_page_of_another_site_cannot_use_the_cookie(browser: Browser, headers: dict[str, str]) -> None:
    enter(browser)
    answer = browser.post("/api/v1/user/add", json={"principal": "eve", "roles": ["admin"]}, headers=headers)

    assert answer.status_code == 403
    own = {CONSOLE: "1", "origin": "https://ml.example.org", "sec-fetch-site": "same-origin"}
    assert browser.get("/api/v1/user/list", headers=own).status_code == 200
    assert "eve" not in browser.get("/api/v1/user/list", headers=own).text


def test_a_page_of_another_site_signs_no_browser_in_as_somebody_of_its_choice(browser: Browser) -> None:
    body = {"principal": "ada", "password": PASSWORD, "kind": "console"}
    for headers in ({}, {CONSOLE: "1", "origin": "https://evil.example"}, {"content-type": "text/plain"}):
        answer = browser.post("/api/v1/session/start", json=body, headers=headers)
        assert answer.status_code == 403
        assert "set-cookie" not in answer.headers


def test_a_stranger_cannot_make_control_hold_a_large_body(browser: Browser) -> None:
    body = {"principal": "ada", "password": "x" * 70_000}

    assert browser.post("/api/v1/session/start", json=body).status_code == 413


def test_no_other_origin_is_ever_allowed_to_ask(browser: Browser) -> None:
    asked = {"origin": "https://evil.example", "access-control-request-headers": CONSOLE}
    answer = browser.ask(
        "OPTIONS", "/api/v1/user/add", headers={**asked, "access-control-request-method": "POST"}
    )

    assert not [name for name in answer.headers if name.startswith("access-control-")]


def test_signing_out_ends_the_session_and_takes_the_cookie_away(browser: Browser, shared: Platform) -> None:
    enter(browser)
    secret = browser.cookies[COOKIE]
    answer = browser.post("/api/v1/session/end", json={}, headers={CONSOLE: "1"})

    assert "Max-Age=0" in answer.headers["set-cookie"]
    again = browser.post("/api/v1/user/whoami", json={}, headers={"authorization": f"Bearer {secret}"})
    assert again.status_code == 401


def test_a_wrong_password_says_the_same_whoever_it_is_for(browser: Browser) -> None:
    answers = [
        browser.post("/api/v1/session/start", json={"principal": name, "password": "wrong password"})
        for name in ("ada", "nobody")
    ]

    assert [answer.status_code for answer in answers] == [401, 401]
    assert len({answer.json()["error"]["message"] for answer in answers}) == 1


def test_who_tried_too_often_is_told_when_to_come_again(browser: Browser) -> None:
    answers = [
        browser.post("/api/v1/session/start", json={"principal": "ada", "password": "wrong password"})
        for _ in range(8)
    ]

    assert answers[-1].status_code == 429
    assert int(answers[-1].headers["retry-after"]) >= 1


def test_open_operations_are_the_sign_ins_and_what_makes_a_machine_alone() -> None:
    found = {operation.name for operation in operation_table() if operation.open}

    assert found == {
        "session.start",
        "session.accept",
        "oidc.begin",
        "oidc.finish",
        "passkey.challenge",
        "passkey.enter",
        "machine.enter",
        "machine.renew",
    }


def test_what_decides_about_models_in_production_asks_for_a_fresh_sign_in() -> None:
    found = {operation.name for operation in operation_table() if operation.fresh}

    assert found == {
        "model.approve", "model.reject", "model.alias", "release.start", "release.resume",
        "release.promote", "pipeline.start", "contain.begin", "drill.start",
    }  # fmt: skip


def test_an_old_sign_in_is_not_enough_to_approve_and_a_new_one_is(shared: Platform, browser: Browser) -> None:
    ada = signed_in(shared)
    shared.clock.advance(timedelta(minutes=16))  # type: ignore[attr-defined]  # a manual clock
    with pytest.raises(StepUp, match="taut login"):
        do(shared, ada, "release.start", endpoint="late", version="late@1")
    enter(browser)
    shared.clock.advance(timedelta(minutes=14))  # type: ignore[attr-defined]
    body = {"endpoint": "late", "version": "late@1"}
    right = browser.post("/api/v1/release/start", json=body, headers={CONSOLE: "1"})
    assert right.json()["error"]["code"] != "step_up"  # there is no such model, which is another matter
    shared.clock.advance(timedelta(minutes=2))  # type: ignore[attr-defined]
    late = browser.post("/api/v1/release/start", json=body, headers={CONSOLE: "1"})
    assert late.status_code == 401
    assert 'error="insufficient_user_authentication", max_age="900"' in late.headers["www-authenticate"]


def test_a_token_that_somebody_made_for_a_person_does_not_approve_in_his_place(shared: Platform) -> None:
    """Else an administrator could approve his own model with a token that he makes for a colleague."""
    shared.identity.set_roles("bob", ["builder", "operator"], actor="owner")
    text, _ = shared.identity.create_token("bob", ["operator"], timedelta(minutes=5), actor="ada")
    bob = caller_of(shared, text, local=True)
    with pytest.raises(StepUp):
        do(shared, bob, "release.start", endpoint="late", version="late@1")


def test_alone_on_a_laptop_nothing_is_asked(platform: Platform) -> None:
    from taut.core.errors import NotFound

    with pytest.raises((NotFound, InvalidInput)):  # and not StepUp: there is no project to release from
        do(platform, Caller(principal=OWNER, local=True), "release.start", endpoint="late", version="late@1")


def test_the_files_are_not_enough_once_other_machines_reach_a_plane(platform: Platform) -> None:
    assert owner_caller(platform).principal is OWNER
    platform.exposed = True
    with pytest.raises(Unauthenticated, match="taut login"):
        owner_caller(platform)


def test_what_one_signs_in_with_is_changed_by_the_person_who_just_signed_in(shared: Platform) -> None:
    text, _ = shared.identity.create_token("ada", ["admin"], timedelta(minutes=5), actor="owner")
    for caller in (caller_of(shared, text, local=True), Caller(principal=OWNER, local=True)):
        with pytest.raises(Unauthenticated, match="taut login"):
            do(shared, caller, "totp.begin")
    ada = signed_in(shared)
    assert do(shared, ada, "totp.begin")["uri"].startswith("otpauth://totp/")
    shared.clock.advance(timedelta(minutes=16))  # type: ignore[attr-defined]
    with pytest.raises(StepUp):
        do(shared, ada, "totp.begin")


def test_a_session_ends_with_all_tokens_of_its_person(shared: Platform) -> None:
    bob = signed_in(shared, "bob")
    do(shared, signed_in(shared), "token.revoke", principal="bob")
    assert bob.session is not None
    assert bob.session.id not in {session.id for session in shared.people.sessions.list()}


def test_a_key_is_exchanged_for_a_token_as_narrow_as_itself(shared: Platform) -> None:
    _, key = shared.identity.create_key(
        "app", ["predictor"], actor="owner", scopes=["predict@endpoint:late"], enrol="service"
    )
    app = caller_of(shared, key, local=False)
    made = do(shared, app, "token.exchange", ttl="5m")

    token = caller_of(shared, made["token"], local=False)
    assert token.principal.scopes == ("predict@endpoint:late",)
    with pytest.raises(Denied, match="not exchanged"):
        do(shared, token, "token.exchange")
    with pytest.raises(Denied, match="wider"):
        do(shared, app, "token.exchange", scopes=["predict"])
    for ttl in ("10s", "16m", "12h"):
        with pytest.raises(InvalidInput, match="15m"):
            do(shared, app, "token.exchange", ttl=ttl)


def test_a_session_is_exchanged_for_a_token_that_gateways_know(shared: Platform) -> None:
    made = do(shared, signed_in(shared, "bob"), "token.exchange")

    assert shared.identity.authenticate(made["token"]).id == "bob"


def test_the_owner_of_the_files_has_no_token_of_his_own(shared: Platform) -> None:
    with pytest.raises(Denied, match="owner"):
        do(shared, Caller(principal=OWNER, local=True), "token.exchange")


def test_a_rotated_key_goes_on_for_the_overlap_and_no_longer(shared: Platform) -> None:
    clock = shared.clock
    assert isinstance(clock, ManualClock)
    row, old = shared.identity.create_key(
        "app", ["predictor"], actor="owner", ttl=timedelta(days=90), enrol="service", scopes=["predict"]
    )
    clock.advance(timedelta(days=80))
    made = do(shared, signed_in(shared), "key.rotate", id=row.id, overlap="1h")

    assert caller_of(shared, made["key"], local=False).principal.scopes == ("predict",)
    assert caller_of(shared, old, local=False).principal.id == "app"
    clock.advance(timedelta(hours=1))
    with pytest.raises(Unauthenticated):
        caller_of(shared, old, local=False)
    clock.advance(timedelta(days=89))
    assert caller_of(shared, made["key"], local=False)
    clock.advance(timedelta(days=1))
    with pytest.raises(Unauthenticated):
        caller_of(shared, made["key"], local=False)


def test_public_keys_of_tokens_are_there_for_others_and_overlap_when_they_are_rotated(
    shared: Platform,
) -> None:
    from joserfc.jwk import KeySet
    from joserfc.jws import deserialize_compact

    text, _ = shared.identity.create_token("bob", ["builder"], timedelta(minutes=5), actor="ada")
    shared.identity.rotate_token_key(actor="ada")
    later, _ = shared.identity.create_token("bob", ["builder"], timedelta(minutes=5), actor="ada")
    browser = Browser(make_app(shared, operation_table(), log_failure=lambda *_: None))
    listed = browser.get("/.well-known/jwks.json").json()

    assert [key["alg"] for key in listed["keys"]] == ["ES256", "ES256"]
    assert not [key for key in listed["keys"] if "d" in key]
    known = KeySet.import_key_set(listed)
    for token in (text, later):  # somebody else's verification, by what we publish
        assert deserialize_compact(token, known, algorithms=["ES256"]).headers()["kid"] in {
            key["kid"] for key in listed["keys"]
        }


def test_a_person_adds_a_passkey_and_comes_in_by_it(shared: Platform, browser: Browser) -> None:
    import sys
    from pathlib import Path

    sys.path.insert(0, str(Path(__file__).parents[1] / "trust/signin"))
    from soft_authenticator import SoftAuthenticator

    device, own = SoftAuthenticator(), {CONSOLE: "1"}
    enter(browser)
    begun = browser.post("/api/v1/passkey/begin", json={}, headers=own).json()
    body = {"handle": begun["handle"], "response": device.create(begun["options"]), "name": "phone"}
    assert browser.post("/api/v1/passkey/add", json=body, headers=own).status_code == 200
    browser.cookies.clear()
    asked = browser.post("/api/v1/passkey/challenge", json={}).json()
    answer = {"handle": asked["handle"], "response": device.get(asked["options"]), "kind": "console"}
    entered = browser.post("/api/v1/passkey/enter", json=answer, headers=own)

    assert (entered.json()["principal"], entered.json()["method"]) == ("ada", "passkey")
    shown = browser.get("/api/v1/account/show", headers=own).json()
    assert [key["name"] for key in shown["passkeys"]] == ["phone"]
    do(shared, Caller(principal=OWNER, local=True), "user.reset", principal="ada")
    assert browser.get("/api/v1/account/show", headers=own).status_code == 401
    assert not shared.people.passkeys.of("ada")
