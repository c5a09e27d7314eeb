"""Sessions end: by idleness, by age, with their person, by decision, and when the clock cannot be trusted."""

from __future__ import annotations

from datetime import timedelta

import pytest
from signin_world import PASSWORD, World

from taut.core.errors import NotFound, Unauthenticated
from taut.ports.records import transact
from taut.trust.signin import PREFIX, SessionKind, Started

MINUTE = timedelta(minutes=1)


def begin(world: World, kind: SessionKind = "console") -> Started:
    world.enrol()
    return world.accounts.sign_in("ada", PASSWORD, kind=kind)


@pytest.mark.parametrize(("kind", "idle_minutes"), [("console", 15), ("command", 60)])
def test_a_session_ends_when_nothing_is_done_in_it(
    world: World, kind: SessionKind, idle_minutes: int
) -> None:
    secret = begin(world, kind).secret
    for _ in range(5):  # each act is counted
        world.clock.advance((idle_minutes - 2) * MINUTE)
        world.sessions.find(secret)
    world.clock.advance(idle_minutes * MINUTE)
    with pytest.raises(Unauthenticated, match="too long"):
        world.sessions.find(secret)


def test_a_session_ends_after_half_a_day_however_busy(world: World) -> None:
    secret = begin(world).secret
    for _ in range(72):
        world.sessions.find(secret)
        world.clock.advance(10 * MINUTE)
    with pytest.raises(Unauthenticated, match="end"):
        world.sessions.find(secret)


@pytest.mark.parametrize("forged", ["", PREFIX, PREFIX + "A" * 43, "taut_0000_aaaa", "\ud800", "x" * 100_000])
def test_an_invented_session_is_nobody(world: World, forged: str) -> None:
    begin(world)
    with pytest.raises(Unauthenticated):
        world.sessions.find(forged)


def test_each_sign_in_makes_another_secret_that_no_other_installation_knows(world: World) -> None:
    secrets = {begin(world).secret for _ in range(3)}

    assert len(secrets) == 3
    assert all(len(secret) == len(PREFIX) + 43 for secret in secrets)


def test_a_disabled_person_is_out_at_once_and_roles_are_those_of_the_moment(world: World) -> None:
    secret = begin(world).secret
    world.identity.set_roles("ada", ["auditor"], actor="owner")
    assert world.sessions.find(secret).principal.roles == ("auditor",)

    world.identity.set_disabled("ada", True, actor="owner")
    with pytest.raises(Unauthenticated, match="administrator"):
        world.sessions.find(secret)


def test_a_session_that_was_ended_stays_ended(world: World) -> None:
    found = begin(world)
    with pytest.raises(NotFound):
        world.sessions.end(found.session.id, actor="eve", of="eve")
    world.sessions.end(found.session.id, actor="owner")
    with pytest.raises(Unauthenticated):
        world.sessions.find(found.secret)
    with pytest.raises(NotFound):
        world.sessions.end(found.session.id, actor="owner")
    assert world.kinds()[-1] == "identity.session.ended"


def test_all_sessions_of_a_person_end_together(world: World) -> None:
    secrets = [world.enrol(), world.sign_in(), world.sign_in()]
    ended = transact(world.records, lambda tx: world.sessions.end_all(tx, "ada", actor="owner"))

    assert ended == 3
    for secret in secrets:
        with pytest.raises(Unauthenticated):
            world.sessions.find(secret)


def test_a_person_has_ten_sessions_at_most_and_the_oldest_goes(world: World) -> None:
    first, *others = [world.enrol(), *(_later(world) for _ in range(10))]
    with pytest.raises(Unauthenticated):
        world.sessions.find(first)
    assert len(world.sessions.list("ada")) == 10
    assert all(world.sessions.find(secret) for secret in others)


def _later(world: World) -> str:
    world.clock.advance(1)
    return world.sign_in()


def test_a_clock_set_back_ends_a_session_rather_than_to_lengthen_it(world: World) -> None:
    secret = begin(world).secret
    world.clock.jump(timedelta(seconds=-5))
    world.sessions.find(secret)
    world.clock.jump(timedelta(days=-1))
    with pytest.raises(Unauthenticated, match="clock"):
        world.sessions.find(secret)


def test_a_clock_set_far_ahead_ends_it_too(world: World) -> None:
    secret = begin(world).secret
    world.clock.jump(timedelta(days=400))
    with pytest.raises(Unauthenticated):
        world.sessions.find(secret)
    assert world.sessions.list() == ()
