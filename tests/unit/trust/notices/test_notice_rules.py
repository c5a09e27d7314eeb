"""Each rule finds what was planted for it, and says nothing of the same day without it."""

from __future__ import annotations

from typing import Any

import pytest

from taut.testing.records import memory_records
from taut.testing.world import ManualClock
from taut.trust.notices import DENIED, RULES, Act, Denials, Window, analyse

HOUR = 3_600_000_000
DAY = 24 * HOUR
TODAY = 40 * DAY


def act(kind: str, at_us: int, **more: Any) -> Act:
    values: dict[str, Any] = {
        "leaf": f"{kind}@{at_us}", "actor": "ann", "subject": "principal:ben", "at_us": at_us, "kind": kind,
    }  # fmt: skip
    return Act(**{**values, **more})


def work(at_us: int, action: str = "data.ingest", **more: Any) -> Act:
    return act("verdict.data", at_us, action=action, **more)


USUAL = tuple(work(day * DAY + 10 * HOUR) for day in range(10, 40))
HONEST = tuple(work(TODAY + hour * HOUR) for hour in (9, 10, 11))


def notices(*planted: Act, before: tuple[Act, ...] = USUAL) -> list[tuple[str, str]]:
    acts = tuple(sorted((*HONEST, *planted), key=lambda one: one.at_us))
    return [(one.rule, one.severity) for one in analyse(Window(before=before, acts=acts))]


ROLES = {"before": "builder", "after": "builder admin"}
PLANTED: dict[str, tuple[tuple[Act, ...], tuple[Act, ...]]] = {
    "new_admin": ((act("identity.principal.roles", TODAY + 9 * HOUR, body=ROLES),), USUAL),
    "break_glass": ((act("break_glass.begun", TODAY + 9 * HOUR, body={"reason": "fire"}),), USUAL),
    "key_out_of_turn": (
        (act("keys.rotated", TODAY + 9 * HOUR, subject="keys:token"),),
        (*USUAL, act("keys.rotated", TODAY - DAY, subject="keys:token")),
    ),
    "many_denials": (
        (act(DENIED, TODAY + 9 * HOUR, body={"times": 100, "action": "user.admin"}),),
        USUAL,
    ),
    "slowed_sign_in": ((act("identity.signin.slowed", TODAY + 9 * HOUR, actor="control"),), USUAL),
    "new_sign_in": (
        (act("identity.session.started", TODAY + 9 * HOUR, body={"method": "password", "from": "there"}),),
        (*USUAL, act("identity.session.started", TODAY - DAY, body={"method": "password", "from": "here"})),
    ),
    "at_night": (
        (work(TODAY + 3 * HOUR, "plan.apply", administers=True),),
        (*USUAL, work(TODAY - DAY, "plan.apply", administers=True)),
    ),
    "first_use": ((work(TODAY + 10 * HOUR, "model.export", discloses=True),), USUAL),
    "much_reading": (
        tuple(work(TODAY + 10 * HOUR + n, "data.read", discloses=True) for n in range(25)),
        (*USUAL, *(work(TODAY - DAY + n, "data.read", discloses=True) for n in range(2))),
    ),
}


def test_every_rule_has_a_planted_act() -> None:
    assert set(PLANTED) == set(RULES)


@pytest.mark.parametrize("rule", RULES)
def test_a_rule_finds_what_was_planted_and_nothing_without_it(rule: str) -> None:
    planted, before = PLANTED[rule]

    assert {name for name, _ in notices(*planted, before=before)} == {rule}
    assert notices(before=before) == []


@pytest.mark.parametrize(
    "honest",
    [
        act(
            "identity.principal.roles", TODAY + 9 * HOUR, body={"before": "admin", "after": "admin approver"}
        ),
        act("identity.principal.created", TODAY + 9 * HOUR, body={"roles": "builder"}),
        act("keys.rotated", TODAY + 9 * HOUR, subject="keys:token"),  # never before
        act(DENIED, TODAY + 9 * HOUR, body={"times": 1, "action": "data.read"}),
        act("identity.session.started", TODAY + 9 * HOUR, body={"method": "password"}),  # his first
        work(TODAY + 3 * HOUR, "plan.apply", administers=True, actor="control"),
        work(TODAY + 23 * HOUR, "data.ingest"),  # night work that administers nothing
        work(TODAY + 10 * HOUR, "model.export", discloses=True, actor="new"),  # no habits to compare with
    ],
)
def test_what_is_usual_is_no_notice(honest: Act) -> None:
    assert notices(honest) == []


def test_an_alert_is_of_the_window_alone_and_the_newest_comes_first() -> None:
    old = act("break_glass.begun", TODAY - DAY, body={"reason": "then"})
    first = act("break_glass.begun", TODAY + 9 * HOUR, body={"reason": "one"})
    second = act("break_glass.begun", TODAY + 12 * HOUR, body={"reason": "two"})

    found = analyse(Window(before=(old,), acts=(first, second)))

    assert [one.leaf for one in found] == [second.leaf, first.leaf]
    assert "two" in found[0].said


class Noted(list[tuple[str, str, int]]):
    """A ledger that keeps who was noted, for what, and how often so far."""

    def append(self, _tx: object, entry: Any = None) -> Any:  # type: ignore[override]  # as the ledger's
        super().append((entry.actor, entry.body["action"], entry.body["times"]))


def test_a_million_denials_leave_seven_leaves_and_the_next_hour_begins_anew() -> None:
    noted, clock = Noted(), ManualClock()
    denials = Denials(memory_records(), noted, clock)  # type: ignore[arg-type]

    for _ in range(2345):
        denials.note("eve", "user.admin", "principal:any")
    denials.note("ann", "data.read", "dataset:orders")
    clock.advance(3600)
    denials.note("eve", "policy.admin", "policy:any")

    assert [times for who, _, times in noted if who == "eve"] == [1, 10, 100, 1000, 1]
    assert ("ann", "data.read", 1) in noted
