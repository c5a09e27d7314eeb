from __future__ import annotations

from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import select

from taut.adapters.keys.file import FileKeys
from taut.core.errors import Conflict, Denied, InvalidInput, NotFound, Unauthenticated
from taut.ports.records import Records
from taut.testing.records import memory_records
from taut.testing.world import ManualClock, SeededRandom, SequenceIds
from taut.trust.identity import Identity, Principal, metadata
from taut.trust.identity.tables import changes
from taut.trust.ledger import Entry, Ledger, leaf_as_json
from taut.trust.ledger import metadata as ledger_metadata

HOUR = timedelta(hours=1)


class World:
    """An identity register on stores of its own."""

    def __init__(self, folder: Path) -> None:
        self.clock = ManualClock(datetime(2026, 1, 1, 12, tzinfo=UTC))
        self.keys = FileKeys(folder, random=SeededRandom(1))
        self.records: Records = memory_records(metadata, ledger_metadata)
        ids = SequenceIds()
        self.ledger = Ledger(self.records, self.keys, self.clock, ids, origin="test.example/taut")
        self.identity = Identity(self.records, self.keys, self.ledger, self.clock, ids, SeededRandom(2))

    def leaves(self) -> list[dict[str, Any]]:
        self.ledger.sequence()
        return [leaf_as_json(leaf) for leaf in self.ledger.show()]


@pytest.fixture
def world(tmp_path: Path) -> Iterator[World]:
    world = World(tmp_path / "keys")
    yield world
    world.records.close()


def test_a_token_proves_who_holds_it_until_it_expires(world: World) -> None:
    world.identity.create_principal("alice", kind="human", roles=["builder", "approver"], actor="owner")
    token, expires_at = world.identity.create_token("alice", ["builder"], HOUR, actor="alice")

    found = world.identity.authenticate(token)
    assert (found.id, found.kind, found.roles) == ("alice", "human", ("builder",))
    assert expires_at == world.clock.now() + HOUR

    world.clock.advance(HOUR)
    with pytest.raises(Unauthenticated, match="expired"):
        world.identity.authenticate(token)


def test_an_api_key_is_shown_once_and_kept_as_a_hash(world: World) -> None:
    world.identity.create_principal("robot", kind="service", roles=["predictor"], actor="owner")
    row, text = world.identity.create_key(
        "robot", ["predictor"], actor="owner", scopes=["predict@endpoint:delay"]
    )

    assert text.startswith(f"taut_{row.id}_")
    secret = text.split("_", 2)[2]
    found = world.identity.authenticate(text)
    assert found == Principal(
        id="robot",
        kind="service",
        roles=("predictor",),
        scopes=("predict@endpoint:delay",),
        credential=row.id,
    )
    with world.records.read() as tx:
        stored = [
            dict(row._mapping) for table in metadata.tables.values() for row in tx.execute(select(table))
        ]
    assert secret not in repr(stored)
    assert secret not in repr(world.leaves())


@pytest.mark.parametrize("revoke", ["key", "disable", "roles"])
def test_a_key_ends_with_its_revocation_its_principal_or_its_roles(world: World, revoke: str) -> None:
    world.identity.create_principal("robot", kind="service", roles=["predictor"], actor="owner")
    row, text = world.identity.create_key("robot", ["predictor"], actor="owner")
    world.identity.authenticate(text)

    if revoke == "key":
        assert world.identity.revoke_key(row.id, actor="owner").revoked_at == world.clock.now()
    elif revoke == "disable":
        world.identity.set_disabled("robot", True, actor="owner")
    else:
        world.identity.set_roles("robot", ["auditor"], actor="owner")
    with pytest.raises(Unauthenticated):
        world.identity.authenticate(text)


def test_a_key_keeps_only_those_roles_that_its_principal_still_has(world: World) -> None:
    world.identity.create_principal("robot", kind="service", roles=["predictor", "auditor"], actor="owner")
    _, text = world.identity.create_key("robot", ["predictor", "auditor"], actor="owner")
    world.identity.set_roles("robot", ["auditor"], actor="owner")

    assert world.identity.authenticate(text).roles == ("auditor",)


def test_an_expired_key_is_refused(world: World) -> None:
    _, text = world.identity.create_key("robot", ["predictor"], actor="owner", ttl=HOUR, enrol="service")
    world.identity.authenticate(text)
    world.clock.advance(HOUR)
    with pytest.raises(Unauthenticated):
        world.identity.authenticate(text)


def test_one_token_can_be_revoked_and_another_lives_on(world: World) -> None:
    first, _ = world.identity.create_token("alice", ["builder"], HOUR, actor="owner", enrol="human")
    second, _ = world.identity.create_token("alice", ["builder"], HOUR, actor="owner")
    jti = world.identity.authenticate(first).credential

    world.identity.revoke_token(jti, actor="owner")
    world.identity.revoke_token(jti, actor="owner")

    with pytest.raises(Unauthenticated, match="revoked"):
        world.identity.authenticate(first)
    assert world.identity.authenticate(second).id == "alice"
    assert [leaf["kind"] for leaf in world.leaves()].count("identity.token.revoked") == 1


def test_tokens_are_listed_by_their_id_until_they_expire_and_never_themselves(world: World) -> None:
    first, _ = world.identity.create_token("alice", ["builder"], HOUR, actor="owner", enrol="human")
    world.clock.advance(1)
    second, _ = world.identity.create_token("bob", ["builder"], 2 * HOUR, actor="owner", enrol="human")
    world.identity.revoke_tokens("alice", actor="owner")

    listed = world.identity.tokens()
    assert [(row.principal, row.revoked) for row in listed] == [("bob", False), ("alice", True)]
    assert world.identity.tokens("bob")[0].id == world.identity.authenticate(second).credential
    assert first not in repr(listed)
    world.clock.advance(HOUR)
    assert [row.principal for row in world.identity.tokens()] == ["bob"]


@pytest.mark.parametrize("ago_s", [0.0, 0.4, 1.0, 3600.0])
def test_revoking_all_tokens_ends_those_before_and_none_after(world: World, ago_s: float) -> None:
    old, _ = world.identity.create_token("alice", ["builder"], 2 * HOUR, actor="owner", enrol="human")
    world.clock.advance(ago_s)
    world.identity.revoke_tokens("alice", actor="owner")
    new, _ = world.identity.create_token("alice", ["builder"], HOUR, actor="owner")

    with pytest.raises(Unauthenticated, match="revoked"):
        world.identity.authenticate(old)
    assert world.identity.authenticate(new).id == "alice"


def test_taking_a_role_away_ends_the_tokens_that_carry_it(world: World) -> None:
    token, _ = world.identity.create_token("alice", ["approver"], HOUR, actor="owner", enrol="human")
    world.identity.set_roles("alice", ["approver", "builder"], actor="owner")
    assert world.identity.authenticate(token).roles == ("approver",)

    world.identity.set_roles("alice", ["builder"], actor="owner")
    with pytest.raises(Unauthenticated, match="revoked"):
        world.identity.authenticate(token)


def test_a_token_carries_only_roles_that_its_principal_has(world: World) -> None:
    world.identity.create_principal("alice", kind="human", roles=["predictor"], actor="owner")
    with pytest.raises(Denied, match="has not the role 'admin'"):
        world.identity.create_token("alice", ["admin"], HOUR, actor="alice")
    with pytest.raises(Denied, match="has not the role"):
        world.identity.create_key("alice", ["predictor", "operator"], actor="alice")


def test_nobody_gets_a_credential_of_the_owner_or_of_a_disabled_principal(world: World) -> None:
    with pytest.raises(Denied, match="owner"):
        world.identity.create_token("owner", ["admin"], HOUR, actor="owner", enrol="human")
    world.identity.create_principal("alice", kind="human", roles=["builder"], actor="owner")
    world.identity.set_disabled("alice", True, actor="owner")
    with pytest.raises(Denied, match="disabled"):
        world.identity.create_token("alice", ["builder"], HOUR, actor="owner")
    world.identity.set_disabled("alice", False, actor="owner")
    world.identity.create_token("alice", ["builder"], HOUR, actor="owner")


def test_without_enrolment_an_unknown_principal_gets_nothing(world: World) -> None:
    with pytest.raises(NotFound, match="nobody"):
        world.identity.create_token("nobody", ["predictor"], HOUR, actor="owner")
    assert world.identity.principals() == ()


@pytest.mark.parametrize("ttl", [timedelta(0), timedelta(seconds=-1), timedelta(hours=25)])
def test_a_life_outside_the_bounds_is_refused(world: World, ttl: timedelta) -> None:
    with pytest.raises(InvalidInput, match="cannot live"):
        world.identity.create_token("alice", ["builder"], ttl, actor="owner", enrol="human")


@pytest.mark.parametrize(
    "make",
    [
        lambda i: i.create_principal("alice@example.com", kind="human", roles=["builder"], actor="owner"),
        lambda i: i.create_principal("owner", kind="human", roles=["builder"], actor="owner"),
        lambda i: i.create_principal("alice", kind="owner", roles=["builder"], actor="owner"),
        lambda i: i.create_principal("alice", kind="robot", roles=["builder"], actor="owner"),
        lambda i: i.create_principal("alice", kind="human", roles=["emperor"], actor="owner"),
        lambda i: i.create_principal("alice", kind="human", roles=[], actor="owner"),
        lambda i: i.create_principal(
            "alice", kind="human", roles=["builder"], actor="owner", display="x" * 999
        ),
        lambda i: i.create_key("robot", ["predictor"], actor="owner", scopes=["predict *"], enrol="service"),
        lambda i: i.create_key("robot", ["predictor"], actor="owner", ttl=timedelta(0), enrol="service"),
    ],
)
def test_what_makes_no_sense_is_refused_and_leaves_nothing(world: World, make: Any) -> None:
    with pytest.raises(InvalidInput):
        make(world.identity)
    assert world.identity.principals() == ()
    assert world.leaves() == []


def test_an_id_belongs_to_one_principal(world: World) -> None:
    world.identity.create_principal("alice", kind="human", roles=["builder"], actor="owner")
    with pytest.raises(Conflict, match="exists already"):
        world.identity.create_principal("alice", kind="human", roles=["admin"], actor="owner")
    assert world.identity.principal("alice").roles == ("builder",)


def test_every_administrative_act_is_one_leaf_that_names_who_did_what(world: World) -> None:
    identity = world.identity
    identity.create_principal("alice", kind="human", roles=["builder"], actor="owner")
    identity.set_roles("alice", ["builder", "approver"], actor="root")
    identity.create_token("alice", ["builder"], HOUR, actor="alice")
    row, _ = identity.create_key("alice", ["builder"], actor="alice")
    identity.revoke_key(row.id, actor="alice")
    identity.revoke_tokens("alice", actor="root")
    identity.set_disabled("alice", True, actor="root")
    identity.set_disabled("alice", False, actor="root")
    identity.rotate_token_key(actor="root")

    seen = [(leaf["kind"], leaf["subject"], leaf["actor"]) for leaf in world.leaves()]
    assert sorted(seen) == sorted(
        [
            ("identity.principal.created", "principal:alice", "owner"),
            ("identity.principal.roles", "principal:alice", "root"),
            ("identity.token.created", "principal:alice", "alice"),
            ("identity.key.created", "principal:alice", "alice"),
            ("identity.key.revoked", "principal:alice", "alice"),
            ("identity.tokens.revoked", "principal:alice", "root"),
            ("identity.principal.disabled", "principal:alice", "root"),
            ("identity.principal.enabled", "principal:alice", "root"),
            ("identity.token_key.rotated", "principal:token", "root"),
        ]
    )


def test_an_act_whose_leaf_cannot_be_written_does_not_happen(world: World) -> None:
    class Broken(Ledger):
        def append(self, tx: object, entry: Entry) -> str:
            raise OSError("no space left on device")

    broken = Broken(world.records, world.keys, world.clock, SequenceIds(), origin="test.example/taut")
    identity = Identity(world.records, world.keys, broken, world.clock, SequenceIds(), SeededRandom(3))
    with pytest.raises(OSError, match="no space"):
        identity.create_key("robot", ["predictor"], actor="owner", enrol="service")

    assert identity.principals() == ()
    assert identity.keys() == ()
    with world.records.read() as tx:
        assert tx.execute(select(changes)).all() == []


def test_after_a_rotation_old_and_new_tokens_are_accepted(world: World) -> None:
    old, _ = world.identity.create_token("alice", ["builder"], HOUR, actor="owner", enrol="human")
    world.identity.authenticate(old)
    world.identity.rotate_token_key(actor="owner")
    new, _ = world.identity.create_token("alice", ["builder"], HOUR, actor="owner")

    assert world.identity.authenticate(old).id == "alice"
    assert world.identity.authenticate(new).id == "alice"
    assert len(world.identity.verifier_data().public_keys) == 2


def test_one_human_is_a_single_user_and_two_are_not(world: World) -> None:
    assert world.identity.is_single_user()
    world.identity.create_principal("alice", kind="human", roles=["builder"], actor="owner")
    world.identity.create_principal("robot", kind="service", roles=["predictor"], actor="owner")
    assert world.identity.is_single_user()
    world.identity.create_principal("bob", kind="human", roles=["approver"], actor="owner")
    assert not world.identity.is_single_user()


def test_the_verifier_of_control_learns_of_changes_made_by_another_process(world: World) -> None:
    token, _ = world.identity.create_token("alice", ["builder"], HOUR, actor="owner", enrol="human")
    world.identity.authenticate(token)
    other = Identity(world.records, world.keys, world.ledger, world.clock, SequenceIds(), SeededRandom(9))
    other.revoke_tokens("alice", actor="owner")
    with pytest.raises(Unauthenticated):
        world.identity.authenticate(token)


def test_a_token_made_after_a_revocation_can_be_revoked_within_the_same_second(world: World) -> None:
    world.identity.create_principal("alice", kind="human", roles=["builder"], actor="owner")
    world.identity.revoke_tokens("alice", actor="owner")
    token, _ = world.identity.create_token("alice", ["builder"], HOUR, actor="alice")
    world.identity.authenticate(token)

    world.identity.revoke_tokens("alice", actor="owner")

    with pytest.raises(Unauthenticated, match="revoked"):
        world.identity.authenticate(token)
    assert [row.revoked for row in world.identity.tokens("alice")] == [True]
    again, _ = world.identity.create_token("alice", ["builder"], HOUR, actor="alice")
    world.identity.authenticate(again)


def test_a_clock_that_is_set_back_brings_no_revoked_token_to_life(world: World) -> None:
    world.identity.create_principal("alice", kind="human", roles=["builder"], actor="owner")
    before, _ = world.identity.create_token("alice", ["builder"], HOUR, actor="alice")
    world.clock.advance(timedelta(seconds=60))
    later, _ = world.identity.create_token("alice", ["builder"], HOUR, actor="alice")
    world.identity.revoke_tokens("alice", actor="owner")

    world.clock.jump(timedelta(seconds=-55))
    world.identity.revoke_tokens("alice", actor="owner")
    world.clock.advance(timedelta(seconds=56))

    for token in (before, later):
        with pytest.raises(Unauthenticated, match="revoked"):
            world.identity.authenticate(token)
