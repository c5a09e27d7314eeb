"""Who is a machine: invitations, renewals, revocations, and every way in which they must fail."""

from __future__ import annotations

import base64
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path

import msgspec
import pytest
from cryptography.hazmat.primitives.asymmetric import ec

from taut.adapters.keys.file import FileKeys
from taut.core.errors import Conflict, Corrupt, InvalidInput, NotFound, TautError, Unauthenticated
from taut.ports.records import Records
from taut.testing.records import memory_records
from taut.testing.world import ManualClock, SeededRandom, SequenceIds
from taut.trust.identity import Identity
from taut.trust.identity import metadata as identity_metadata
from taut.trust.ledger import Ledger
from taut.trust.ledger import metadata as ledger_metadata
from taut.trust.svid import (
    LIFE,
    Admitted,
    Bundle,
    Issuer,
    Machines,
    SpiffeId,
    Svid,
    make_request,
    metadata,
    read_svid,
    require_kind,
    verify_chain,
)
from taut.trust.svid.issuer import KEPT
from taut.trust.svid.mint import INTERMEDIATE_LIFE
from taut.trust.svid.proof import proof_of
from taut.trust.svid.store import LATE

HOUR = timedelta(hours=1)


class Home:
    """One machine's home: the key that was certified last, and the one that it asks for next."""

    def __init__(self, machines: Machines) -> None:
        self.machines = machines
        self.key = ec.generate_private_key(ec.SECP256R1())
        self.name = ""

    def enter(self, invitation: str) -> Admitted:
        admitted = self.machines.enter(invitation, make_request(self.key))
        self.name = SpiffeId.parse(admitted.id).name
        return admitted

    def ask(self, fresh: ec.EllipticCurvePrivateKey) -> Admitted:
        csr = make_request(fresh)
        return self.machines.renew(self.name, csr, proof_of(self.key, self.name, csr))

    def renew(self) -> Admitted:
        fresh = ec.generate_private_key(ec.SECP256R1())
        admitted = self.ask(fresh)
        self.key = fresh
        return admitted


class World:
    def __init__(self, folder: Path, *, domain: str = "taut-1") -> None:
        self.clock = ManualClock(datetime(2026, 1, 1, 12, tzinfo=UTC))
        self.keys = FileKeys(folder, random=SeededRandom(1))
        self.records: Records = memory_records(metadata, identity_metadata, ledger_metadata)
        ids = SequenceIds()
        self.ledger = Ledger(self.records, self.keys, self.clock, ids, origin="test.example/taut")
        self.identity = Identity(self.records, self.keys, self.ledger, self.clock, ids, SeededRandom(2))
        self.domain = domain
        self.start()

    def start(self) -> None:
        """Control begins anew: what was in its memory alone is gone."""
        self.issuer = Issuer(self.records, self.keys, self.clock, domain=self.domain)
        self.machines = Machines(
            self.records, self.identity, self.issuer, self.ledger, self.clock, SeededRandom(3)
        )

    def invite(self, name: str = "m2") -> str:
        return self.machines.invite(name, HOUR, actor="ada")[0]

    def entered(self, name: str = "m2") -> Home:
        home = Home(self.machines)
        home.enter(self.invite(name))
        return home

    def shown(self, admitted: Admitted) -> Svid:
        """What control sees of a machine that connects: TLS verifies the chain first."""
        return verify_chain(chain_of(admitted), self.issuer.bundle(), now=self.clock.now())

    def kinds(self) -> list[str]:
        self.ledger.sequence()
        return [leaf.kind for leaf in self.ledger.show() if leaf.kind.startswith("machine.")]


def chain_of(admitted: Admitted) -> list[bytes]:
    return [base64.b64decode(der) for der in admitted.chain]


@pytest.fixture
def world(tmp_path: Path) -> Iterator[World]:
    world = World(tmp_path / "keys")
    yield world
    world.records.close()


def test_an_invited_machine_is_who_its_invitation_names_for_a_quarter_of_an_hour(world: World) -> None:
    admitted = Home(world.machines).enter(world.invite("m2"))
    shown = world.shown(admitted)

    assert str(shown.id) == admitted.id == "spiffe://taut-1/machine/m2"
    principal = world.machines.accept(shown)
    assert (principal.id, principal.roles, principal.credential) == ("m2", ("machine",), shown.serial)
    assert shown.not_after - shown.issued_at == LIFE
    world.clock.advance(LIFE)
    with pytest.raises(Unauthenticated, match="ended at"):
        world.machines.accept(shown)
    assert sorted(world.kinds()) == ["machine.entered", "machine.invited"]


def test_an_invitation_is_taken_once_and_a_second_machine_with_it_is_refused_loudly(world: World) -> None:
    invitation = world.invite()
    first, thief = Home(world.machines), Home(world.machines)
    first.enter(invitation)

    with pytest.raises(Unauthenticated, match="taken already, by another machine"):
        thief.enter(invitation)
    assert "machine.replayed" in world.kinds()
    world.machines.accept(world.shown(first.renew()))


def test_an_answer_that_was_lost_as_control_died_is_asked_for_again(world: World) -> None:
    """The transaction stands, the machine never heard: with its same key it is given its identity again."""
    invitation = world.invite()
    home = Home(world.machines)
    home.enter(invitation)
    world.start()
    home.machines = world.machines
    world.machines.accept(world.shown(home.enter(invitation)))

    fresh = ec.generate_private_key(ec.SECP256R1())
    home.ask(fresh)
    world.start()
    home.machines = world.machines
    world.machines.accept(world.shown(home.ask(fresh)))
    home.key = fresh
    home.renew()


@pytest.mark.parametrize("text", ["", "m2", "tautjoin_" + "a" * 52, "tautjoin_é", "tautjoin_" + "a" * 5000])
def test_what_is_no_invitation_is_refused(world: World, text: str) -> None:
    world.invite()
    with pytest.raises(Unauthenticated, match="taut machine invite"):
        Home(world.machines).enter(text)


def test_an_invitation_that_is_over_is_refused(world: World) -> None:
    invitation = world.invite()
    world.clock.advance(HOUR)
    with pytest.raises(Unauthenticated, match="over"):
        Home(world.machines).enter(invitation)


def test_two_homes_with_one_identity_cannot_both_go_on(world: World) -> None:
    """As after a copied disk: whoever renews first goes on, and the other one is told."""
    home = world.entered()
    copy = Home(world.machines)
    copy.key, copy.name = home.key, home.name
    home.renew()

    with pytest.raises(Unauthenticated, match="renewed by another key"):
        copy.renew()
    home.renew()
    with pytest.raises(Unauthenticated, match="renewed by another key"):
        copy.renew()


def test_nobody_renews_without_the_key(world: World) -> None:
    world.entered()
    stranger = Home(world.machines)
    stranger.name = "m2"
    with pytest.raises(Unauthenticated, match="another key"):
        stranger.renew()
    csr = make_request(stranger.key)
    for proof in ("", "!", base64.b64encode(b"x" * 70).decode()):
        with pytest.raises(Unauthenticated, match="another key"):
            world.machines.renew("m2", csr, proof)
    with pytest.raises(Unauthenticated, match="no machine 'm9'"):
        world.machines.renew("m9", csr, "")


def test_a_proof_is_worth_nothing_for_another_key_or_machine(world: World) -> None:
    home, other = world.entered(), world.entered("m3")
    csr = make_request(ec.generate_private_key(ec.SECP256R1()))
    proof = proof_of(home.key, "m2", csr)
    own = make_request(ec.generate_private_key(ec.SECP256R1()))
    for machine, asked in (("m2", own), ("m3", csr)):
        with pytest.raises(Unauthenticated, match="another key"):
            world.machines.renew(machine, asked, proof)
    assert other.name == "m3"


@pytest.mark.parametrize(
    "csr",
    [
        "",
        "x",
        "é",
        "-----BEGIN CERTIFICATE REQUEST-----\nAAAA\n-----END CERTIFICATE REQUEST-----\n",
        "a" * 9000,
    ],
)
def test_what_is_no_request_is_refused_before_the_invitation_is_taken(world: World, csr: str) -> None:
    invitation = world.invite()
    with pytest.raises(InvalidInput, match="request for a certificate"):
        world.machines.enter(invitation, csr)
    Home(world.machines).enter(invitation)


def test_a_revoked_machine_is_refused_at_once_and_can_be_invited_again(world: World) -> None:
    home = world.entered()
    before = world.shown(home.renew())
    pending = world.invite()
    world.machines.revoke("m2", actor="ada")

    with pytest.raises(Unauthenticated, match="revoked"):
        world.machines.accept(before)
    with pytest.raises(Unauthenticated, match="revoked"):
        home.renew()
    with pytest.raises(Unauthenticated, match="unknown"):
        Home(world.machines).enter(pending)
    assert [(row.machine, row.state) for row in world.machines.list()] == [("m2", "revoked")]

    again = Home(world.machines)
    now = world.shown(again.enter(world.invite()))
    world.machines.accept(now)
    with pytest.raises(Unauthenticated, match="revoked"):
        world.machines.accept(before)
    assert [row.state for row in world.machines.list()] == ["live"]


def test_a_revocation_is_pushed_as_what_tokens_are_refused_by(world: World) -> None:
    """Gateways know it from the data by which they verify bearers; one entry a machine, however often it was renewed."""
    home = world.entered()
    for _ in range(3):
        shown = world.shown(home.renew())
    version = world.identity.version()
    world.machines.revoke("m2", actor="ada")
    data = world.identity.verifier_data()

    assert world.identity.version() > version
    assert list(data.tokens_from_s) == ["m2"]
    assert shown.issued_at.timestamp() < data.tokens_from_s["m2"]
    assert data.revoked == ()


def test_who_enters_by_a_new_invitation_ends_who_was_the_machine_before(world: World) -> None:
    before = world.entered()
    held = world.shown(before.renew())
    Home(world.machines).enter(world.invite())

    with pytest.raises(Unauthenticated, match="revoked"):
        world.machines.accept(held)
    with pytest.raises(Unauthenticated, match="another key"):
        before.renew()


def test_a_disabled_principal_is_no_machine(world: World) -> None:
    home = world.entered()
    shown = world.shown(home.renew())
    world.identity.set_disabled("m2", True, actor="ada")
    with pytest.raises(Unauthenticated, match="disabled"):
        world.machines.accept(shown)
    with pytest.raises(Unauthenticated, match="disabled"):
        home.renew()


@pytest.mark.parametrize("name", ["", "first", "M2", "2m", "a/b", "m" * 64, "é"])
def test_a_machine_cannot_have_every_name(world: World, name: str) -> None:
    with pytest.raises(InvalidInput, match="cannot be called"):
        world.machines.invite(name, HOUR, actor="ada")


def test_a_person_or_an_application_is_no_machine_and_times_have_bounds(world: World) -> None:
    world.identity.create_principal("bob", kind="human", roles=["machine"], actor="ada")
    world.identity.create_principal("app", kind="service", roles=["machine", "admin"], actor="ada")
    for name in ("bob", "app"):
        with pytest.raises(Conflict, match="something else"):
            world.machines.invite(name, HOUR, actor="ada")
    for ttl in (timedelta(0), timedelta(hours=25)):
        with pytest.raises(InvalidInput, match="hold for"):
            world.machines.invite("m2", ttl, actor="ada")
    with pytest.raises(NotFound, match="m7"):
        world.machines.revoke("m7", actor="ada")


def test_a_machine_that_slept_is_renewed_by_its_key_until_it_slept_too_long(world: World) -> None:
    home = world.entered()
    world.clock.advance(LATE)
    world.machines.accept(world.shown(home.renew()))
    world.clock.advance(LIFE + LATE)
    with pytest.raises(Unauthenticated, match=r"too long ago to be renewed.*taut machine invite"):
        home.renew()


def test_after_the_root_was_rotated_and_the_old_one_forgotten_a_sleeper_gets_the_new_one(
    world: World,
) -> None:
    home = world.entered()
    old = world.issuer.bundle()
    kept = chain_of(home.renew())
    world.keys.rotate(purpose="svid")
    both = world.issuer.bundle()
    assert len(both.roots) == 2
    assert both.sequence > old.sequence
    verify_chain(kept, both, now=world.clock.now())

    world.clock.advance(KEPT)
    assert KEPT < INTERMEDIATE_LIFE
    new = world.issuer.bundle()
    assert len(new.roots) == 1
    assert new.roots != old.roots
    assert new.sequence > both.sequence
    admitted = home.renew()
    world.machines.accept(world.shown(admitted))
    with pytest.raises(Unauthenticated, match="none of the authorities"):
        verify_chain(chain_of(admitted), old, now=world.clock.now())


def test_intermediates_change_at_half_life_and_with_each_start_and_when_the_clock_jumps(world: World) -> None:
    home = world.entered()
    seen = [chain_of(home.renew())[1]]
    assert chain_of(home.renew())[1] == seen[0]
    world.clock.advance(INTERMEDIATE_LIFE / 2)
    seen.append(chain_of(home.renew())[1])
    world.start()
    home.machines = world.machines
    seen.append(chain_of(home.renew())[1])
    world.clock.jump(-INTERMEDIATE_LIFE)
    seen.append(chain_of(home.renew())[1])
    assert len(set(seen)) == 4
    assert len(world.issuer.bundle().roots) == 1


def test_after_a_jump_of_the_clock_an_identity_is_not_valid_yet_and_says_so(world: World) -> None:
    admitted = world.entered().renew()
    shown = world.shown(admitted)
    world.clock.jump(-HOUR)
    with pytest.raises(Unauthenticated, match=r"valid from.*check both clocks"):
        world.machines.accept(shown)
    with pytest.raises(Unauthenticated, match="valid from"):
        verify_chain(chain_of(admitted), world.issuer.bundle(), now=world.clock.now())


def test_what_another_authority_issued_is_nobody_here(world: World, tmp_path: Path) -> None:
    """Also where it calls itself by the same trust domain, and where a leaf poses as an authority."""
    other = World(tmp_path / "other")
    forged = chain_of(other.entered().renew())
    own = chain_of(world.entered().renew())
    other.records.close()
    bundle = world.issuer.bundle()
    for chain in (forged, [forged[0], own[1]], [own[0], forged[1]], [own[0]], [own[0], own[0]]):
        with pytest.raises(Unauthenticated, match="none of the authorities"):
            verify_chain(chain, bundle, now=world.clock.now())


def test_the_wrong_domain_and_the_wrong_kind_are_refused(world: World) -> None:
    for text, why in (
        ("spiffe://other/machine/m2", "another trust domain"),
        ("spiffe://taut-1/control/m2", "no machine"),
    ):
        with pytest.raises(Unauthenticated, match=why):
            require_kind(SpiffeId.parse(text), "taut-1", "machine")
    at = world.clock.now()
    who = SpiffeId(domain="taut-1", kind="control", name="first")
    key = ec.generate_private_key(ec.SECP256R1())
    leaf = world.issuer.issue(who, key.public_key(), at=at)[0]
    with pytest.raises(Unauthenticated, match="no machine"):
        world.machines.accept(read_svid(leaf))


@pytest.mark.parametrize(
    "text",
    ["", "spiffe://", "https://d/machine/a", "spiffe://d/machine", "spiffe://d/machine/a/b", "spiffe://d/pod/a",
     "spiffe://D/machine/a", "spiffe://d/machine/..", "spiffe://d:1/machine/a", "spiffe://d/machine/a?x", "spiffe://u@d/machine/a",
     "spiffe://d/machine/a\n", "SPIFFE://d/machine/a"],
)  # fmt: skip
def test_an_id_has_one_spelling(text: str) -> None:
    with pytest.raises(InvalidInput, match="names no part"):
        SpiffeId.parse(text)


def test_the_bundle_is_read_back_from_the_json_that_spiffe_knows(world: World) -> None:
    bundle = world.issuer.bundle()
    text = msgspec.json.encode(bundle.to_json())
    assert Bundle.from_json(msgspec.json.decode(text)) == bundle
    document = msgspec.json.decode(text)
    assert document["keys"][0]["use"] == "x509-svid"
    document["keys"].insert(0, {"use": "jwt-svid", "kty": "EC"})
    assert Bundle.from_json(document).roots == bundle.roots


@pytest.mark.parametrize(
    "document",
    [
        None,
        {},
        {"keys": []},
        {"keys": [{"use": "x509-svid", "x5c": ["AAAA"]}]},
        {"keys": [{"use": "x509-svid"}]},
    ],
)
def test_a_bundle_that_is_none_is_refused(document: object) -> None:
    with pytest.raises(Corrupt, match="bundle"):
        Bundle.from_json(document)


def test_no_message_repeats_an_invitation(world: World) -> None:
    invitation = world.invite()
    Home(world.machines).enter(invitation)
    with pytest.raises(TautError) as refused:
        Home(world.machines).enter(invitation)
    assert invitation not in refused.value.message
