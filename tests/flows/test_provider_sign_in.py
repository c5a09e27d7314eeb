"""Sign-in at a real OpenID provider, a process of its own, from the command line and from a browser."""

from __future__ import annotations

import os
import re
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest
from installation import CLI, Installation, free_ports, until

Issuer = str


@pytest.fixture(scope="module")
def issuer(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Issuer]:
    """A provider that knows ada, of the group that builds."""
    port = free_ports()
    with (tmp_path_factory.mktemp("provider") / "log").open("wb") as log:
        words = [sys.executable, "-m", "oidc_provider_mock", "--port", str(port), "--require-nonce"]
        process = subprocess.Popen(words, stdout=log, stderr=log)
        try:
            url = f"http://127.0.0.1:{port}"
            until(lambda: _answers(url), within_s=90)
            claims = {"preferred_username": "Ada", "groups": ["ml", "staff"]}
            assert httpx.put(f"{url}/users/u-1", json=claims, timeout=60.0).status_code == 204
            yield url
        finally:
            process.terminate()
            process.wait(timeout=90)


def _answers(url: str) -> bool:
    try:
        return httpx.get(f"{url}/.well-known/openid-configuration", timeout=60.0).status_code == 200
    except httpx.TransportError:
        return False


@pytest.fixture
def shop(issuer: Issuer, tmp_path: Path) -> Installation:
    folder = tmp_path / "shop"
    folder.mkdir()
    environ = {
        "XDG_CONFIG_HOME": str(tmp_path / "config"), "TAUT_OIDC_ISSUER": issuer, "TAUT_OIDC_CLIENT_ID": "taut",
        "TAUT_OIDC_ROLES": "groups:ml=builder groups:ml=admin",
    }  # fmt: skip
    made = Installation(folder, environ=environ)
    assert made.told("secret", "put", "oidc/client-secret", typed="hush").code == 0
    return made


def login(shop: Installation, visit: list[str], *, action: str = "authorize") -> tuple[int, str]:
    """`taut login --provider` with a person at the browser, who proves himself as u-1; its code and what it said."""
    words = [*CLI, "--json", "login", "--provider", "--no-browser"]
    process = subprocess.Popen(
        words,
        cwd=shop.folder,
        env=shop.whole_environ(),
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    with process:
        watchdog = threading.Timer(60, process.kill)
        watchdog.start()
        try:
            assert process.stderr is not None
            for line in process.stderr:
                if found := re.search(r"sign in at (\S+)", line):
                    visit.append(found[1])
                    back = httpx.post(
                        found[1], data={"sub": "u-1", "action": action}, follow_redirects=True, timeout=60.0
                    )
                    assert back.status_code == 200
                    break
            out, err = process.communicate(timeout=90)
        finally:
            watchdog.cancel()
    return process.returncode, out + err


def test_a_person_signs_in_at_the_provider_and_acts_with_the_roles_of_his_claims(shop: Installation) -> None:
    visited: list[str] = []
    code, said = login(shop, visited)
    assert code == 0, said

    found = shop("whoami")
    assert (found["principal"], found["roles"], found["signed_in"]) == ("ada", ["admin", "builder"], "oidc")
    assert found["proved_at"]
    shop("user", "add", "ben", "--role", "approver")
    assert shop.told("release", "start", "late", "late@1").error[0] == "not_found"  # and not step_up
    code, said = login(shop, visited, action="deny")
    assert code == 4, said
    assert "access_denied" in said
    assert "code_challenge_method=S256" in visited[0]
    kept = b"".join(path.read_bytes() for path in shop.home.rglob("*") if path.is_file())
    assert os.fsencode(re.findall(r"state=([^&]+)", visited[0])[0]) not in kept


def test_a_browser_gets_a_cookie_and_nothing_to_steal(shop: Installation) -> None:
    port = free_ports()
    origin = f"http://localhost:{port + 1}"
    shop.environ["TAUT_ORIGIN"] = origin
    with shop.up(port=port) as up, httpx.Client(base_url=up.control, timeout=60.0) as browser:
        asked = browser.get("/oidc/login")
        assert asked.status_code == 303
        way = asked.headers["set-cookie"]
        assert {"Secure", "HttpOnly", "SameSite=Lax"} <= set(way.split("; "))
        back = httpx.post(asked.headers["location"], data={"sub": "u-1"}, timeout=60.0)
        assert back.status_code == 302, back.text
        target = back.headers["location"].removeprefix(origin)
        assert browser.get(target).status_code == 401  # a browser that did not ask
        cookie = way.partition(";")[0]
        done = browser.get(target, headers={"cookie": cookie})
        assert (done.status_code, done.headers["location"]) == (303, "/")
        session = next(
            word for word in done.headers.get_list("set-cookie") if word.startswith("__Host-taut=")
        )
        assert "SameSite=Strict" in session
        assert browser.get(target, headers={"cookie": cookie}).status_code == 401  # once
        mine = {"cookie": session.partition(";")[0], "taut-console": "1"}
        assert browser.get("/api/v1/user/whoami", headers=mine).json()["principal"] == "ada"
        assert browser.get("/api/v1/user/whoami", headers={"cookie": mine["cookie"]}).status_code == 403
