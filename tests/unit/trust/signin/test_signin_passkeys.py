"""Passkeys, with a device in software: what gets in, and every answer that a device does not give."""

from __future__ import annotations

from collections.abc import Callable
from datetime import timedelta
from typing import Any

import pytest
from signin_world import World
from soft_authenticator import PRESENT, VERIFIED, SoftAuthenticator, b64

from taut.core.errors import Conflict, Denied, Exhausted, InvalidInput, NotFound, Unauthenticated
from taut.trust.signin import Ceremonies, Session
from taut.trust.signin.ceremonies import EACH_MAX as EACH_ADDRESS
from taut.trust.signin.passkeys import EACH_MAX, Passkey, Passkeys

Json = dict[str, Any]


class Desk:
    """ada with her device in front of the console."""

    def __init__(self, world: World, origin: str = "") -> None:
        self.passkeys = Passkeys(
            world.records, world.ledger, world.clock, sessions=world.sessions,
            ceremonies=Ceremonies(world.records, world.clock, world.random), origin=origin,
        )  # fmt: skip
        self.device = SoftAuthenticator()

    def add(self, name: str = "phone", *, device: SoftAuthenticator | None = None) -> Passkey:
        options, handle = self.passkeys.begin("ada")
        return self.passkeys.finish("ada", handle, (device or self.device).create(options), name=name)

    def enter(self, change: Callable[[Json], Json] = lambda answer: answer) -> Session:
        options, handle = self.passkeys.challenge()
        return self.passkeys.enter(handle, change(self.device.get(options)), kind="console").session


@pytest.fixture
def desk(world: World) -> Desk:
    return Desk(world)


def test_a_passkey_signs_its_person_in_without_a_name(world: World, desk: Desk) -> None:
    made = desk.add()
    found = desk.enter()

    assert (found.principal.id, found.method) == ("ada", "passkey")
    assert found.proved_at == world.clock.now()
    assert desk.passkeys.of("ada") == (made,)
    assert "allowCredentials" not in desk.passkeys.challenge()[0]
    assert world.kinds()[-2:] == ["identity.passkey.added", "identity.session.started"]


def test_a_device_does_not_learn_the_name_as_its_handle(desk: Desk) -> None:
    desk.add()
    assert desk.device.user is not None
    assert b"ada" not in desk.device.user


@pytest.mark.parametrize("flags", [0, PRESENT, VERIFIED])
def test_a_device_that_did_not_ask_its_owner_is_refused(desk: Desk, flags: int) -> None:
    desk.device.flags = flags
    with pytest.raises(Denied):
        desk.add()
    desk.device.flags = PRESENT | VERIFIED
    desk.add()
    desk.device.flags = flags
    with pytest.raises(Unauthenticated):
        desk.enter()


@pytest.mark.parametrize(
    "origin",
    [
        "https://localhost:8081",
        "http://evil.example",
        "http://localhost.evil.example",
        "http://127.0.0.1:8081",
        "",
        "null",
    ],
)
def test_an_answer_that_was_given_to_another_site_is_refused(desk: Desk, origin: str) -> None:
    desk.add()
    desk.device.origin = origin
    with pytest.raises(Unauthenticated):
        desk.enter()


def test_with_an_origin_only_that_one_is_taken(world: World) -> None:
    desk = Desk(world, "https://ml.example.org:8081")
    desk.device.origin = "https://ml.example.org:8081"
    desk.add()
    assert desk.enter()
    for other in ("https://ml.example.org", "http://ml.example.org:8081", "https://a.ml.example.org:8081"):
        desk.device.origin = other
        with pytest.raises(Unauthenticated):
            desk.enter()
    desk.device.origin, desk.device.rp_id = "https://ml.example.org:8081", "example.org"
    with pytest.raises(Unauthenticated):
        desk.enter()


def test_a_challenge_is_good_once_and_not_for_long(world: World, desk: Desk) -> None:
    desk.add()
    options, handle = desk.passkeys.challenge()
    answer = desk.device.get(options)
    assert desk.passkeys.enter(handle, answer, kind="console")
    with pytest.raises(Unauthenticated):
        desk.passkeys.enter(handle, answer, kind="console")
    _, other = desk.passkeys.challenge()
    with pytest.raises(Unauthenticated):
        desk.passkeys.enter(other, answer, kind="console")
    options, handle = desk.passkeys.challenge()
    world.clock.advance(timedelta(minutes=10))
    with pytest.raises(Unauthenticated):
        desk.passkeys.enter(handle, desk.device.get(options), kind="console")


def test_a_challenge_for_adding_does_not_sign_in_and_one_of_another_person_adds_nothing(
    world: World, desk: Desk
) -> None:
    desk.add()
    options, handle = desk.passkeys.begin("ada")
    with pytest.raises(Unauthenticated):
        desk.passkeys.enter(handle, desk.device.get(options), kind="console")
    options, handle = desk.passkeys.begin("ada")
    with pytest.raises(Denied, match="somebody else"):
        desk.passkeys.finish("eve", handle, SoftAuthenticator().create(options), name="mine")
    assert len(desk.passkeys.of("ada")) == 1


def test_a_copy_of_a_passkey_is_noticed_and_said(world: World, desk: Desk) -> None:
    desk.device.counter = 5
    desk.add()
    assert desk.enter()
    desk.device.counter -= 2  # the copy counts for itself
    with pytest.raises(Unauthenticated, match="twice"):
        desk.enter()
    assert "identity.passkey.copied" in world.kinds()


def _change(path: str, value: object) -> Callable[[Json], Json]:
    def change(answer: Json) -> Json:
        if "." not in path:
            return {**answer, path: value}
        inside = {**answer["response"], path.partition(".")[2]: value}
        return {**answer, "response": inside}

    return change


@pytest.mark.parametrize(
    "change",
    [
        _change("response.signature", b64(b"\x00" * 70)), _change("response.signature", ""), _change("response.signature", 7),
        _change("response.authenticatorData", ""), _change("response.authenticatorData", b64(b"\x00" * 37)),
        _change("response.authenticatorData", b64(b"\xff" * 400)), _change("response.clientDataJSON", b64(b"{}")),
        _change("response.clientDataJSON", b64(b"[]")), _change("response.clientDataJSON", b64(b"\xff")),
        _change("response.clientDataJSON", "%"), _change("response.userHandle", b64(b"eve")), _change("rawId", b64(b"another")),
        _change("rawId", None), _change("rawId", 7), _change("response", None), _change("response", []), lambda _: {},
        lambda answer: {**answer, "response": {}}, _change("clientExtensionResults", 7),
    ],
)  # fmt: skip
def test_an_answer_that_no_device_gives_is_nobodys(desk: Desk, change: Callable[[Json], Json]) -> None:
    desk.add()
    with pytest.raises(Unauthenticated):
        desk.enter(change)


@pytest.mark.parametrize(
    "attested",
    [
        "",
        "%",
        b64(b""),
        b64(b"\xa0"),
        b64(b"\xff" * 100),
        b64(b"\xa3cfmtdnonegattStmt\xa0hauthDataA\x00"),
        7,
        None,
    ],
)
def test_a_passkey_that_no_device_makes_is_not_kept(desk: Desk, attested: object) -> None:
    options, handle = desk.passkeys.begin("ada")
    answer = _change("response.attestationObject", attested)(desk.device.create(options))
    with pytest.raises(Denied):
        desk.passkeys.finish("ada", handle, answer, name="phone")

    assert desk.passkeys.of("ada") == ()


def test_anothers_device_with_the_same_id_is_refused(desk: Desk) -> None:
    desk.add()
    forged = SoftAuthenticator()
    forged.id, forged.rp_id, forged.user = desk.device.id, desk.device.rp_id, desk.device.user
    desk.device = forged
    with pytest.raises(Unauthenticated):
        desk.enter()
    with pytest.raises(Conflict):
        desk.add()


def test_a_disabled_person_has_no_use_of_his_passkey(world: World, desk: Desk) -> None:
    desk.add()
    world.identity.set_disabled("ada", True, actor="owner")
    with pytest.raises(Unauthenticated):
        desk.enter()


def test_a_passkey_is_removed_and_there_are_ten_at_most(desk: Desk) -> None:
    made = desk.add()
    for number in range(EACH_MAX - 1):
        desk.add(f"key {number}", device=SoftAuthenticator())
    with pytest.raises(Conflict):
        desk.add(device=SoftAuthenticator())
    for name in ("", "x" * 81, "a\nb"):
        with pytest.raises(InvalidInput):
            desk.add(name, device=SoftAuthenticator())
    with pytest.raises(NotFound):
        desk.passkeys.remove("eve", made.id, actor="eve")
    desk.passkeys.remove("ada", made.id, actor="ada")
    with pytest.raises(Unauthenticated):
        desk.enter()
    desk.passkeys.remove("ada", None, actor="owner")
    assert desk.passkeys.of("ada") == ()


def test_one_address_cannot_begin_more_than_it_could_end_and_locks_nobody_else_out(
    world: World, desk: Desk
) -> None:
    for _ in range(EACH_ADDRESS):
        desk.passkeys.challenge(address="192.0.2.1")
    with pytest.raises(Exhausted):
        desk.passkeys.challenge(address="192.0.2.1")
    desk.add()

    assert desk.enter()
    world.clock.advance(timedelta(minutes=10))
    assert desk.passkeys.challenge(address="192.0.2.1")
