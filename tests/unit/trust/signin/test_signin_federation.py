"""Sign-in by an OpenID provider: who gets in as whom, and every way of being lied to."""

from __future__ import annotations

import json
from collections.abc import Callable
from datetime import timedelta
from typing import Any

import pytest
from fake_provider import CLIENT, EC, ISSUER, RSA, FakeProvider, unsigned
from joserfc.jwk import RSAKey
from signin_world import World

from taut.core.errors import Conflict, Corrupt, Denied, InvalidInput, TautError, Unauthenticated, Unavailable
from taut.trust.signin import Ceremonies, Session
from taut.trust.signin.federation import Federation, Mapping
from taut.trust.signin.idtoken import load_jwks
from taut.trust.signin.provider import Provider

URI = "http://127.0.0.1:5555/callback"
ROLES = "groups:ml=builder groups:ml-ops=operator"
STRANGER = RSAKey.generate_key(2048, parameters={"kid": "rsa-1"})


class Door:
    """A federation with its provider."""

    def __init__(
        self, world: World, *, roles: str = ROLES, secret: str | None = None, origin: str = ""
    ) -> None:
        self.web = FakeProvider(world.clock)
        provider = Provider(
            self.web, world.clock, issuer=ISSUER, client_id=CLIENT, client_secret=lambda: secret
        )
        self.federation = Federation(
            world.records, world.ledger, world.clock, world.random, provider=provider,
            mapping=Mapping.parse("preferred_username", roles), sessions=world.sessions,
            ceremonies=Ceremonies(world.records, world.clock, world.random), origin=origin,
        )  # fmt: skip

    def enter(self, **more: Any) -> Session:
        url, handle = self.federation.begin(URI, kind="command")
        back: dict[str, Any] = {**self.web.visit(url), **more}
        return self.federation.finish(
            handle, state=back["state"], code=back["code"], issuer=back.get("iss"), kind="command"
        ).session


@pytest.fixture
def door(world: World) -> Door:
    return Door(world)


def test_somebody_new_gets_a_name_and_the_roles_of_his_claims(world: World, door: Door) -> None:
    found = door.enter()

    assert (found.principal.id, found.principal.roles, found.method) == ("ada.l", ("builder",), "oidc")
    assert found.proved_at == world.clock.now() - timedelta(seconds=5)
    assert world.kinds()[-3:] == ["identity.principal.created", "identity.linked", "identity.session.started"]


def test_he_is_known_by_his_subject_and_not_by_his_name(world: World, door: Door) -> None:
    door.enter()
    door.web.claims = {"preferred_username": "renamed"}
    assert door.enter().principal.id == "ada.l"

    door.web.claims = {"sub": "u-2"}  # another person, to whom the provider gave the name
    with pytest.raises(Conflict, match="taut user link"):
        door.enter()


def test_nobody_becomes_a_person_who_exists_before_an_administrator_links_them(
    world: World, door: Door
) -> None:
    door.web.claims = {"preferred_username": "ada"}
    with pytest.raises(Conflict, match="taut user link"):
        door.enter()
    door.federation.link("ada", "u-1", actor="owner")

    assert door.enter().principal.id == "ada"
    with pytest.raises(Conflict, match="belongs"):
        door.federation.link("ada", "u-1", actor="owner")


def test_roles_follow_the_claims_at_each_sign_in(world: World, door: Door) -> None:
    first = door.enter()
    door.web.claims = {"groups": ["ml-ops", "unknown"]}
    assert door.enter().principal.roles == ("operator",)
    assert [session.principal.roles for session in world.sessions.list(first.principal.id)] == [
        ("operator",)
    ] * 2

    for groups in ([], "ML", {"ml": True}, None):
        door.web.claims = {"groups": groups}
        with pytest.raises(Denied, match="no role"):
            door.enter()


def test_without_a_mapping_only_who_was_linked_comes_in_with_roles_from_here(world: World) -> None:
    door = Door(world, roles="")
    with pytest.raises(Denied, match="taut user link"):
        door.enter()
    door.federation.link("ada", "u-1", actor="owner")

    assert door.enter().principal.roles == ("approver", "builder")


@pytest.mark.parametrize(
    "claims",
    [
        {"iss": "https://id.example.org/tenant/"}, {"iss": "https://evil.example"}, {"iss": None},
        {"aud": "another-client"}, {"aud": []}, {"aud": [CLIENT, "other"]}, {"aud": {"taut-example": 1}},
        {"azp": "another-client"}, {"aud": ["other"], "azp": CLIENT},
        {"nonce": "of another sign-in"}, {"nonce": None}, {"nonce": 7},
        {"exp": 0}, {"exp": "tomorrow"}, {"exp": True}, {"iat": 0}, {"iat": 4_000_000_000},
        {"auth_time": 4_000_000_000}, {"auth_time": "now"}, {"sub": ""}, {"sub": 7}, {"sub": "x" * 256},
    ],
)  # fmt: skip
def test_a_token_whose_claims_are_wrong_lets_nobody_in(door: Door, claims: dict[str, Any]) -> None:
    door.web.claims = claims
    with pytest.raises(Unauthenticated, match="identity provider sent"):
        door.enter()


@pytest.mark.parametrize("name", ["iss", "aud", "sub", "nonce", "iat", "exp"])
def test_a_token_that_lacks_a_claim_lets_nobody_in(door: Door, name: str) -> None:
    door.web.without = (name,)
    with pytest.raises(Unauthenticated):
        door.enter()


def test_a_provider_that_does_not_say_when_is_believed_who_and_not_when(door: Door) -> None:
    door.web.without = ("auth_time",)

    assert door.enter().proved_at is None


def tampered(good: str, part: int) -> str:
    parts = good.split(".")
    parts[part] = parts[part][:-4] + ("AAAA" if parts[part][-4:] != "AAAA" else "BBBB")
    return ".".join(parts)


PUBLIC = RSA.as_pem(private=False)
FORGERIES: dict[str, Callable[[str, dict[str, Any]], str]] = {
    "unsigned": lambda _, claims: unsigned(claims),
    "unsigned in capitals": lambda _, claims: unsigned(claims, alg="NONE"),
    "unsigned with the old signature": lambda good, claims: unsigned(claims) + good.rpartition(".")[2],
    "signature cut off": lambda good, _: good.rpartition(".")[0] + ".",
    "public key as shared secret": lambda _, claims: unsigned(claims, alg="HS256", secret=PUBLIC),
    "the same without its last line end": lambda _, claims: unsigned(
        claims, alg="HS256", secret=PUBLIC.strip()
    ),
    "changed header": lambda good, _: tampered(good, 0),
    "changed claims": lambda good, claims: ".".join(
        (good.split(".")[0], unsigned({**claims, "sub": "u-2"}).split(".")[1], good.split(".")[2])
    ),
    "changed signature": lambda good, _: tampered(good, 2),
    "two parts": lambda good, _: good.rpartition(".")[0],
    "five parts": lambda good, _: good + ".x.y",
    "nothing": lambda *_: "",
    "dots": lambda *_: "..",
    "long": lambda *_: "x." * 70_000,
    "no ASCII": lambda *_: "\u00e9.a.b",
}


@pytest.mark.parametrize("forgery", list(FORGERIES))
def test_a_token_that_is_forged_unsigned_or_confused_lets_nobody_in(door: Door, forgery: str) -> None:
    door.web.forge = FORGERIES[forgery]
    with pytest.raises(Unauthenticated, match="identity provider sent"):
        door.enter()


def test_keys_that_a_token_brings_along_are_not_looked_at(door: Door) -> None:
    door.web.key = STRANGER  # of the same id as the right one
    for header in ({}, {"jwk": STRANGER.as_dict(private=False)}, {"jku": "https://evil.example/keys"}):
        door.web.header = header
        with pytest.raises(Unauthenticated, match="signature"):
            door.enter()


def test_an_extension_that_must_be_understood_is_refused(door: Door) -> None:
    door.web.header = {"crit": ["b64"], "b64": True}
    with pytest.raises(Unauthenticated, match="extensions"):
        door.enter()


def test_an_algorithm_of_another_kind_of_key_is_refused(world: World, door: Door) -> None:
    door.web.keys = [RSA, EC]
    door.web.key = EC
    assert door.enter()
    door.web.header = {"kid": "rsa-1"}  # signed by EC, said to be by RSA
    with pytest.raises(Unauthenticated):
        door.enter()


def test_keys_that_are_weak_secret_or_for_something_else_are_none() -> None:
    right = RSA.as_dict(private=False)
    weak = {**right, "n": "_" * 171, "kid": "weak"}
    listed = [
        right,
        weak,
        {"kty": "oct", "k": "c2VjcmV0", "kid": "shared"},
        {**right, "kid": "enc", "use": "enc"},
    ]

    assert list(load_jwks(json.dumps({"keys": [*listed, {"kty": "new"}]}).encode())) == ["rsa-1"]
    for broken in (
        b"",
        b"[]",
        b'{"keys": 7}',
        b'{"keys": [7]}',
        b'{"keys": [{"kty": "RSA"}]}',
        b'{"keys": [{"kty": "EC"}]}',
    ):
        with pytest.raises(Corrupt):
            load_jwks(broken)


def test_rotated_keys_are_fetched_when_they_are_met_and_no_more_often_than_bounded(
    world: World, door: Door
) -> None:
    door.enter()
    door.web.keys, door.web.key = [EC], EC
    with pytest.raises(Unauthenticated):  # just fetched: a flood of unknown ids asks the provider nothing
        door.enter()
    world.clock.advance(31)
    assert door.enter()
    before = len(door.web.asked)
    door.web.key = RSA
    for _ in range(5):
        with pytest.raises(Unauthenticated):
            door.enter()
    assert len(door.web.asked) == before


def test_a_key_that_was_withdrawn_is_forgotten_within_the_hour(world: World, door: Door) -> None:
    door.enter()
    door.web.keys = [EC]
    world.clock.advance(3601)
    with pytest.raises(Unauthenticated, match="does not list"):
        door.enter()


def test_an_answer_is_good_once_and_for_who_began_it(door: Door) -> None:
    url, handle = door.federation.begin(URI, kind="command")
    other_url, other = door.federation.begin(URI, kind="command")
    back, foreign = door.web.visit(url), door.web.visit(other_url)
    for wrong in ("", "x" * 43, "\ud800"):
        with pytest.raises(Unauthenticated):
            door.federation.finish(wrong, **back, kind="command")
    with pytest.raises(Unauthenticated, match="another sign-in"):  # a stranger's code in my browser
        door.federation.finish(other, **back, kind="command")
    with pytest.raises(Unauthenticated):  # and that one is over
        door.federation.finish(other, **foreign, kind="command")
    assert door.federation.finish(handle, **back, kind="command")
    with pytest.raises(Unauthenticated):
        door.federation.finish(handle, **back, kind="command")


def test_a_code_of_another_way_is_useless_without_its_verifier(door: Door) -> None:
    url, handle = door.federation.begin(URI, kind="command")
    stolen = door.web.visit(door.federation.begin(URI, kind="command")[0])["code"]
    with pytest.raises(Unauthenticated, match="refused"):
        door.federation.finish(handle, state=door.web.visit(url)["state"], code=stolen, kind="command")


def test_a_way_that_was_begun_for_the_console_is_not_ended_by_a_command(world: World) -> None:
    door = Door(world, origin="https://ml.example.org")
    url, handle = door.federation.begin("https://ml.example.org/oidc/callback", kind="console")
    with pytest.raises(Unauthenticated):
        door.federation.finish(handle, **door.web.visit(url), kind="command")


@pytest.mark.parametrize("jump", [timedelta(minutes=11), timedelta(days=-1)])
def test_a_way_does_not_stay_open(world: World, door: Door, jump: timedelta) -> None:
    url, handle = door.federation.begin(URI, kind="command")
    back = door.web.visit(url)
    world.clock.jump(jump)
    with pytest.raises(Unauthenticated, match="begin again"):
        door.federation.finish(handle, **back, kind="command")


def test_an_answer_of_another_provider_is_refused(door: Door) -> None:
    with pytest.raises(Unauthenticated, match="another provider"):
        door.enter(iss="https://evil.example")
    assert door.enter(iss=ISSUER)


def test_a_provider_that_promises_to_name_itself_must(door: Door) -> None:
    door.web.metadata = {"authorization_response_iss_parameter_supported": True}
    with pytest.raises(Unauthenticated, match="which provider"):
        door.enter()
    assert door.enter(iss=ISSUER)


@pytest.mark.parametrize(
    "uri",
    [
        "https://evil.example/callback", "http://192.0.2.1/callback", "http://127.0.0.1:1/other", "http://localhost:1/callback",
        "http://127.0.0.1:1/callback?next=x", "http://127.0.0.1:1/callback#x", "http://127.0.0.1@evil.example/callback", "",
    ],
)  # fmt: skip
def test_the_answer_comes_back_to_this_machine_alone(door: Door, uri: str) -> None:
    with pytest.raises(InvalidInput, match="not sent"):
        door.federation.begin(uri, kind="command")
    with pytest.raises(InvalidInput, match="not sent"):
        door.federation.begin(uri, kind="console")


@pytest.mark.parametrize(
    ("metadata", "error"),
    [
        ({"issuer": "https://evil.example"}, Corrupt),
        ({"token_endpoint": "http://id.example.org/token"}, InvalidInput),
        ({"jwks_uri": "file:///etc/passwd"}, InvalidInput),
        ({"code_challenge_methods_supported": ["plain"]}, Corrupt),
        ({"authorization_endpoint": 7}, Corrupt),
    ],
)
def test_a_description_that_cannot_be_trusted_is_refused(
    door: Door, metadata: dict[str, Any], error: type[TautError]
) -> None:
    door.web.metadata = metadata
    with pytest.raises(error):
        door.enter()


def test_a_provider_that_is_down_is_unavailable_and_asked_again(door: Door) -> None:
    door.web.down = True
    with pytest.raises(Unavailable):
        door.enter()
    door.web.down = False
    assert door.enter()


def test_a_client_with_a_secret_shows_it_encoded_as_the_standard_says(world: World) -> None:
    door = Door(world, secret="a b:c")
    door.enter()

    assert door.web.basic == (CLIENT, "a+b%3Ac")


@pytest.mark.parametrize("name", ["", "-", "7", "@example.org", "\u00e9\u00e8"])
def test_a_name_that_is_none_is_said_and_not_invented(door: Door, name: str) -> None:
    door.web.claims = {"preferred_username": name}
    with pytest.raises(Denied, match="preferred_username"):
        door.enter()


@pytest.mark.parametrize("roles", ["ml=builder", "groups:ml", "groups:ml=emperor", "groups:=builder"])
def test_a_mapping_with_a_fault_is_refused_when_it_is_read(roles: str) -> None:
    with pytest.raises(InvalidInput):
        Mapping.parse("preferred_username", roles)
