"""Two people on one installation: each signs in, nobody approves his own model, and the files alone are not enough."""

from __future__ import annotations

import json
import stat
from pathlib import Path

import pytest
from installation import Installation, Told

PASSWORD = "correct horse battery"


def desk(shop: Installation, folder: Path) -> Installation:
    """The same installation at a person's own desk: what he signed in with is kept there."""
    return Installation(shop.folder, environ={**shop.environ, "XDG_CONFIG_HOME": str(folder)})


def login(at: Installation, name: str, *, invitation: str = "", password: str = PASSWORD) -> Told:
    words = ["login", name, "--password-stdin", *(["--invitation", invitation] if invitation else [])]
    return at.told(*words, typed=password + "\n")


def enrol(by: Installation, at: Installation, name: str, role: str) -> None:
    by("user", "add", name, "--role", role)
    invitation = by("user", "invite", name)["invitation"]
    assert login(at, name, invitation=invitation).code == 0


def test_two_people_share_an_installation(released: Installation, tmp_path: Path) -> None:
    ada, ben = desk(released, tmp_path / "ada"), desk(released, tmp_path / "ben")
    enrol(released, ada, "ada", "admin")
    assert ada("whoami")["principal"] == "ada"
    assert released("whoami")["principal"] == "owner"  # at a desk where nobody signed in, and still alone

    enrol(ada, ben, "ben", "approver")
    message = released.refused("status", exit_code=4, code="unauthenticated")
    assert "taut login" in message

    assert ada("train", "late")["verdict"] == "admit"
    assert "separation" in ada.refused("model", "approve", "late@2", exit_code=4, code="denied")
    assert ben("model", "approve", "late@2")["state"] == "approved"
    assert "ben may not" in ben.refused("release", "start", "late", "2", exit_code=4, code="denied")
    assert ada("release", "start", "late", "2")["state"] == "live"
    order = json.dumps({"warehouse": "north", "carrier": "bike", "items": 3, "distance_km": 12.5})
    assert ada("predict", "late", "--data", order)["model_version"] == "late@2"

    told = [leaf["kind"] for leaf in ada("ledger", "show", "--kind", "identity.", "--limit", "100")["leaves"]]
    assert {"identity.invited", "identity.password.set", "identity.session.started"} <= set(told)
    assert ben("logout")["ended"]
    ben.refused("whoami", exit_code=4, code="unauthenticated")
    assert not ben("logout")["ended"]


@pytest.fixture
def shop(tmp_path: Path) -> Installation:
    folder = tmp_path / "shop"
    folder.mkdir()
    return desk(Installation(folder), tmp_path / "config")


def test_what_is_kept_of_a_session_is_for_its_owner_alone(shop: Installation, tmp_path: Path) -> None:
    enrol(shop, shop, "ada", "admin")
    kept = tmp_path / "config" / "taut" / "sessions.json"
    assert stat.S_IMODE(kept.stat().st_mode) == 0o600
    assert stat.S_IMODE(kept.parent.stat().st_mode) == 0o700
    assert PASSWORD not in kept.read_text()

    kept.chmod(0o644)
    assert "open to others" in shop.refused("whoami", exit_code=4, code="denied")
    kept.unlink()
    kept.symlink_to(tmp_path / "elsewhere")
    shop.refused("whoami", exit_code=7, code="unavailable")
    kept.unlink()
    kept.write_text("{broken")
    kept.chmod(0o600)
    shop.refused("whoami", exit_code=7, code="unavailable")


def test_a_password_is_changed_and_every_session_ends(shop: Installation) -> None:
    enrol(shop, shop, "ada", "admin")
    told = shop.told("account", "password", "--password-stdin", typed=f"{PASSWORD}\nanother fine password\n")
    assert told.code == 0, told
    assert shop("whoami")["principal"] == "owner"
    assert login(shop, "ada").error[0] == "unauthenticated"
    assert login(shop, "ada", password="another fine password").code == 0
    assert [session["principal"] for session in shop("session", "list")["sessions"]] == ["ada"]
    assert shop("session", "revoke", "--principal", "ada") == {"ended": 1}
    assert "taut login" in shop.refused("whoami", exit_code=4, code="unauthenticated")


def test_a_password_is_not_sent_where_others_could_read_it(shop: Installation) -> None:
    message = shop.told(
        "login", "ada", "--password-stdin", "--url", "http://192.0.2.1:8081", typed=f"{PASSWORD}\n"
    )
    assert message.code == 2
    assert "https://" in message.error[1]
