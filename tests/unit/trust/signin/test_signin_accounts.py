"""Local accounts: what is asked for, what is refused, and that nothing tells more than it should."""

from __future__ import annotations

import threading
from datetime import timedelta

import pytest
from signin_world import PASSWORD, World
from sqlalchemy import select

from taut.core.errors import Conflict, Denied, Exhausted, InvalidInput, Unauthenticated
from taut.trust.signin import totp as codes
from taut.trust.signin.tables import invitations, metadata, passwords, recovery_codes, sessions, throttle
from taut.trust.signin.throttle import ADDRESS_FREE, WAIT_MAX_S, address_key, wait_s

MINUTE = timedelta(minutes=1)


def add_app(world: World) -> tuple[bytes, tuple[str, ...]]:
    """Give ada an authenticator app; its secret, and her recovery codes."""
    from base64 import b32decode

    secret = b32decode(world.accounts.begin_totp("ada").secret)
    return secret, world.accounts.confirm_totp("ada", shown(world, secret))


def shown(world: World, secret: bytes) -> str:
    """What the app shows now."""
    return codes.code_at(secret, int(world.clock.now().timestamp()) // 30)


def test_an_invitation_sets_the_password_once_and_the_password_signs_in(world: World) -> None:
    code, _ = world.accounts.invite("ada", actor="owner")
    begun = world.accounts.accept("ada", code.upper().replace("-", " "), PASSWORD, kind="command")

    assert world.sessions.find(begun.secret).principal.roles == ("approver", "builder")
    assert world.sessions.find(world.sign_in()).method == "password"
    with pytest.raises(Unauthenticated, match="invitation"):
        world.accounts.accept("ada", code, "another fine password", kind="command")
    assert world.kinds()[-4:] == [
        "identity.invited", "identity.password.set", "identity.session.started", "identity.session.started",
    ]  # fmt: skip


@pytest.mark.parametrize("wrong", ["", "x" * 32, "no such code"])
def test_a_wrong_or_late_invitation_sets_nothing(world: World, wrong: str) -> None:
    code, _ = world.accounts.invite("ada", actor="owner", ttl=MINUTE)
    with pytest.raises(Unauthenticated):
        world.accounts.accept("ada", wrong, PASSWORD, kind="command")
    world.clock.advance(MINUTE)
    with pytest.raises(Unauthenticated):
        world.accounts.accept("ada", code, PASSWORD, kind="command")

    assert not world.accounts.factors("ada").password


def test_a_service_is_not_invited_and_a_disabled_person_does_not_get_in(world: World) -> None:
    world.identity.create_principal("nightly", kind="service", roles=["builder"], actor="owner")
    with pytest.raises(Conflict, match="service"):
        world.accounts.invite("nightly", actor="owner")

    world.enrol()
    world.identity.set_disabled("ada", True, actor="owner")
    with pytest.raises(Unauthenticated):
        world.sign_in()


@pytest.mark.parametrize("bad", ["short", "x" * 257, "ada likes her name", "aaaaaaaaaaaaaaaa"])
def test_a_weak_password_is_refused_before_anything_is_done(world: World, bad: str) -> None:
    code, _ = world.accounts.invite("ada", actor="owner")
    with pytest.raises(InvalidInput, match="password"):
        world.accounts.accept("ada", code, bad, kind="command")

    assert world.accounts.accept("ada", code, PASSWORD, kind="command").secret


def test_the_same_letters_from_another_keyboard_are_the_same_password(world: World) -> None:
    code, _ = world.accounts.invite("ada", actor="owner")
    world.accounts.accept("ada", code, "caf\u00e9 am Marktplatz", kind="command")

    assert world.sign_in("cafe\u0301 am Marktplatz")


def test_an_unknown_name_gets_the_same_answer_for_the_same_work(world: World) -> None:
    world.enrol()
    said, work = set(), []
    for name in ("ada", "nobody", "Robert'); DROP", "\ud800"):
        before = world.passwords.compared
        with pytest.raises(Unauthenticated) as caught:
            world.accounts.sign_in(name, "wrong password", address="192.0.2.1", kind="command")
        said.add(caught.value.message)
        work.append(world.passwords.compared - before)

    assert len(said) == 1
    assert work == [1, 1, 1, 1]


def test_of_a_thousand_failed_sign_ins_few_are_even_compared(world: World) -> None:
    world.enrol()
    before, refused = world.passwords.compared, 0
    for number in range(1000):
        try:
            world.sign_in(f"guess number {number}", address=f"192.0.2.{number % 250}")
        except Exhausted:
            refused += 1
        except Unauthenticated:
            pass
        world.clock.advance(1.0)

    # doubling waits: about ten and then one every quarter of an hour, from however many addresses they come
    assert world.passwords.compared - before <= 18
    assert refused >= 980


def test_a_name_that_nobody_has_waits_as_one_that_exists(world: World) -> None:
    world.enrol()
    waits: dict[str, list[float]] = {"ada": [], "nobody": []}
    for name, found in waits.items():
        for _ in range(12):
            try:
                world.accounts.sign_in(name, "wrong password", kind="command")
            except Unauthenticated:
                found.append(0.0)
            except Exhausted as error:
                found.append(error.retry_after_s)

    assert waits["ada"] == waits["nobody"]
    assert max(waits["ada"]) > 0


def test_who_waits_is_told_how_long_and_gets_in_afterwards(world: World) -> None:
    world.enrol()
    for _ in range(8):
        with pytest.raises((Unauthenticated, Exhausted)):
            world.sign_in("wrong password")
    with pytest.raises(Exhausted) as caught:
        world.sign_in()
    assert 0 < caught.value.retry_after_s <= WAIT_MAX_S
    assert world.kinds().count("identity.signin.slowed") >= 1

    world.clock.advance(caught.value.retry_after_s)
    assert world.sign_in()
    world.sign_in()  # and is forgiven


def test_one_address_cannot_try_one_password_on_every_account(world: World) -> None:
    def attempt(number: int) -> None:
        world.accounts.sign_in(f"user{number}", "letmein please", address="192.0.2.7", kind="command")

    for number in range(ADDRESS_FREE):
        with pytest.raises(Unauthenticated):
            attempt(number)
    with pytest.raises(Exhausted):
        attempt(ADDRESS_FREE)
    world.enrol()

    assert world.sign_in(address="192.0.2.8")


def test_a_whole_network_of_ipv6_is_one_address() -> None:
    assert address_key("2001:db8::1") == address_key("2001:db8::ffff:1")
    assert address_key("2001:db8::1") != address_key("2001:db8:0:1::1")
    assert address_key("192.0.2.1") != address_key("192.0.2.2")
    assert address_key("no address")


def test_many_attempts_at_once_are_counted_before_they_are_judged(world: World) -> None:
    world.enrol()
    before = world.passwords.compared

    def attempt() -> None:
        with pytest.raises((Unauthenticated, Exhausted)):
            world.sign_in("wrong password")

    threads = [threading.Thread(target=attempt) for _ in range(24)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()

    assert world.passwords.compared - before <= 6


def test_waits_double_and_end_somewhere() -> None:
    waits = [wait_s(failures, free=5) for failures in range(40)]

    assert waits[:8] == [0, 0, 0, 0, 0, 1, 2, 4]
    assert max(waits) == WAIT_MAX_S


def test_a_clock_that_is_set_back_makes_nobody_wait_for_ever(world: World) -> None:
    world.enrol()
    for _ in range(9):
        with pytest.raises((Unauthenticated, Exhausted)):
            world.sign_in("wrong password")
    world.clock.jump(timedelta(days=-30))
    with pytest.raises(Exhausted) as caught:
        world.sign_in()
    assert caught.value.retry_after_s <= WAIT_MAX_S


@pytest.mark.parametrize(
    ("seconds", "code"),
    [
        (59, "287082"),
        (1111111109, "081804"),
        (1111111111, "050471"),
        (1234567890, "005924"),
        (2000000000, "279037"),
    ],
)
def test_codes_are_those_of_rfc_6238(seconds: int, code: str) -> None:
    assert codes.code_at(b"12345678901234567890", seconds // 30) == code


def test_with_an_app_a_code_is_needed_and_good_once(world: World) -> None:
    world.enrol()
    secret, _ = add_app(world)
    for code in ("", "000000", shown(world, secret)):  # the last one confirmed the app already
        with pytest.raises(Unauthenticated):
            world.sign_in(code=code)
    world.clock.advance(30)
    code = shown(world, secret)
    assert world.sessions.find(world.sign_in(code=f" {code[:3]} {code[3:]} ")).method == "password+totp"
    with pytest.raises(Unauthenticated):
        world.sign_in(code=code)


def test_a_code_alone_is_worth_nothing_and_is_not_used_up_by_a_wrong_password(world: World) -> None:
    world.enrol()
    secret, _ = add_app(world)
    world.clock.advance(30)
    with pytest.raises(Unauthenticated):
        world.sign_in("wrong password", code=shown(world, secret))

    assert world.sign_in(code=shown(world, secret))


@pytest.mark.parametrize("steps", [-2, 2, 100])
def test_a_code_of_another_time_is_refused(world: World, steps: int) -> None:
    world.enrol()
    secret, _ = add_app(world)
    world.clock.advance(3600)
    step = int(world.clock.now().timestamp()) // 30 + steps
    with pytest.raises(Unauthenticated):
        world.sign_in(code=codes.code_at(secret, step))


def test_an_app_that_was_never_shown_to_work_is_not_asked_for(world: World) -> None:
    world.enrol()
    world.accounts.begin_totp("ada")
    with pytest.raises(Denied, match="code is wrong"):
        world.accounts.confirm_totp("ada", "000000")

    assert world.sign_in()


def test_an_app_in_use_is_not_replaced_unnoticed(world: World) -> None:
    world.enrol()
    add_app(world)
    with pytest.raises(Conflict):
        world.accounts.begin_totp("ada")
    world.accounts.remove_totp("ada", actor="owner")

    assert world.accounts.factors("ada").recovery_codes == 0
    assert world.sign_in()


def test_a_recovery_code_stands_in_for_the_app_once(world: World) -> None:
    world.enrol()
    _, recovery = add_app(world)

    assert world.sessions.find(world.sign_in(code=recovery[3].upper())).method == "password+recovery"
    assert world.accounts.factors("ada").recovery_codes == 9
    with pytest.raises(Unauthenticated):
        world.sign_in(code=recovery[3])
    assert "identity.recovery_code.used" in world.kinds()


def test_an_invitation_does_not_lead_past_the_second_factor(world: World) -> None:
    world.enrol()
    _, recovery = add_app(world)
    invitation, _ = world.accounts.invite("ada", actor="owner")
    with pytest.raises(Unauthenticated):
        world.accounts.accept("ada", invitation, "a brand new password", kind="command")

    assert world.accounts.accept("ada", invitation, "a brand new password", code=recovery[0], kind="command")


def test_a_changed_password_ends_every_session_and_the_old_one(world: World) -> None:
    before = [world.enrol(), world.sign_in()]
    with pytest.raises(Unauthenticated, match="current"):
        world.accounts.change_password("ada", "wrong password", "another fine password")
    world.accounts.change_password("ada", PASSWORD, "another fine password")

    for secret in before:
        with pytest.raises(Unauthenticated):
            world.sessions.find(secret)
    with pytest.raises(Unauthenticated):
        world.sign_in()
    assert world.sign_in("another fine password")


def test_a_hash_of_yesterdays_cost_is_made_anew_at_the_next_sign_in(world: World) -> None:
    from taut.trust.signin import Cost, Passwords

    world.enrol()
    dearer = Passwords(world.random, cost=Cost(time=2, memory_kib=64, lanes=1))
    world.accounts._passwords = dearer  # type: ignore[misc]  # as after an upgrade
    world.sign_in()

    with world.records.read() as tx:
        assert "t=2" in tx.execute(select(passwords.c.hash)).scalar_one()
    assert world.sign_in()


def test_nothing_that_proves_anybody_is_kept_as_it_is(world: World) -> None:
    from base64 import b32encode

    secret = world.enrol()
    app, recovery = add_app(world)
    invitation, _ = world.accounts.invite("ada", actor="owner")

    with world.records.read() as tx:
        kept = " ".join(repr(tx.execute(select(table)).all()) for table in metadata.sorted_tables)
    for table in (passwords, invitations, recovery_codes, sessions, throttle):
        assert table.name in metadata.tables
    plain = (PASSWORD, secret, invitation, *recovery, b32encode(app).decode(), app.hex(), repr(app)[2:-1])
    assert not [word for word in plain if word in kept]
    assert "$argon2id$" in kept
