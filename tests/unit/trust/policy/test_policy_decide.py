from __future__ import annotations

from datetime import UTC, datetime, timedelta, timezone

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from taut.core.errors import Denied, InvalidInput
from taut.trust.identity import OWNER, ROLES, Principal
from taut.trust.policy import ACTIONS, ADMIN_ONLY, ROLE_ACTIONS, Facts, Policy, facts
from taut.trust.policy.actions import OWN

POLICY = Policy()
NAIVE = datetime(2026, 1, 1, tzinfo=UTC).replace(tzinfo=None)
GENEROUS = Policy("permit(principal, action, resource);")
"""The planted fault: a project that permits everything. Only the guards before Cedar are left."""


def someone(*roles: str, id: str = "alice", **more: object) -> Principal:
    return Principal(id=id, kind=more.pop("kind", "human"), roles=roles, **more)  # type: ignore[arg-type]  # by test


@pytest.mark.parametrize("role", sorted(ROLES))
def test_each_role_may_do_what_the_table_says_and_nothing_else(role: str) -> None:
    for action in ACTIONS:
        decision = POLICY.decide(someone(role), action, "thing:x", {"author": "bob"})
        assert decision.allow == (action in ROLE_ACTIONS[role]), (role, action, decision)
        assert decision.reasons


def test_the_table_names_known_roles_and_actions_only() -> None:
    assert set(ROLE_ACTIONS) == ROLES
    assert {action for actions in ROLE_ACTIONS.values() for action in actions} <= set(ACTIONS)
    assert set(ROLE_ACTIONS["predictor"]) == {"predict", "feedback", OWN}


def test_rights_of_several_roles_add_up() -> None:
    both = someone("predictor", "approver")
    assert POLICY.decide(both, "predict", "endpoint:delay").allow
    assert POLICY.decide(both, "model.reject", "model:delay@1").allow
    assert not POLICY.decide(both, "release.start", "endpoint:delay").allow


def test_a_service_does_not_approve_in_the_place_of_the_person_who_made_it() -> None:
    """Else an administrator could approve his own model by a service that he makes for it."""
    robot = someone("approver", kind="service")
    assert not POLICY.decide(robot, "model.approve", "model:delay@1", {"author": "bob"}).allow
    assert POLICY.decide(
        robot, "model.approve", "model:delay@1", {"author": "bob", "single_user": True}
    ).allow
    assert POLICY.decide(robot, "model.reject", "model:delay@1", {"author": "bob"}).allow


def test_nobody_approves_what_he_made_himself_unless_he_is_alone() -> None:
    for who in (someone("approver"), someone("admin"), someone("approver", "builder", "admin")):
        assert not POLICY.decide(who, "model.approve", "model:delay@1", {"author": "alice"}).allow
        assert POLICY.decide(who, "model.approve", "model:delay@1", {"author": "bob"}).allow
        assert POLICY.decide(
            who, "model.approve", "model:delay@1", {"author": "alice", "single_user": True}
        ).allow
    assert not POLICY.decide(
        OWNER, "model.approve", "model:delay@1", {"author": "owner", "single_user": False}
    ).allow


def test_an_approval_without_a_known_author_is_denied() -> None:
    decision = POLICY.decide(someone("approver"), "model.approve", "model:delay@1")
    assert (decision.allow, decision.reasons) == (False, ("forbidden by separation-of-duties",))


def test_a_builder_applies_plans_but_not_to_production() -> None:
    assert POLICY.decide(someone("builder"), "plan.apply", "plan:x", {"environment": "staging"}).allow
    assert not POLICY.decide(someone("builder"), "plan.apply", "plan:x", {"environment": "production"}).allow
    assert POLICY.decide(someone("operator"), "plan.apply", "plan:x", {"environment": "production"}).allow


def test_a_projects_prohibition_wins_over_every_permission() -> None:
    policy = Policy(
        '@id("night") forbid(principal, action, resource) when { context has hour && context.hour < 6 };'
    )
    at_night = datetime(2026, 1, 1, 3, tzinfo=UTC)
    decision = policy.decide(someone("admin"), "predict", "endpoint:delay", {"now": at_night})
    assert (decision.allow, decision.reasons) == (False, ("forbidden by night",))
    assert policy.decide(
        someone("admin"), "predict", "endpoint:delay", {"now": at_night + timedelta(hours=4)}
    ).allow


def test_a_project_may_permit_more_but_not_undo_a_built_in_prohibition() -> None:
    policy = Policy("permit(principal, action, resource);")
    assert policy.decide(someone("predictor"), "train", "model:x").allow
    assert not policy.decide(someone("approver"), "model.approve", "model:x@1", {"author": "alice"}).allow


def test_a_project_may_look_at_resource_and_principal() -> None:
    policy = Policy(
        'permit(principal, action == Action::"train", resource) when { resource.kind == "model" && '
        'resource.name == "delay" && principal.kind == "service" && principal.id == "cron" };'
    )
    cron = someone("predictor", id="cron", kind="service")
    assert policy.decide(cron, "train", "model:delay").allow
    assert not policy.decide(cron, "train", "model:price").allow
    assert not policy.decide(someone("predictor"), "train", "model:delay").allow


def test_scopes_narrow_and_never_widen() -> None:
    narrowed = someone("admin", scopes=("predict@endpoint:delay", "feedback"))
    assert POLICY.decide(narrowed, "predict", "endpoint:delay").allow
    assert POLICY.decide(narrowed, "feedback", "endpoint:anything").allow
    assert not POLICY.decide(narrowed, "predict", "endpoint:price").allow
    assert not POLICY.decide(narrowed, "predict", "endpoint:delay2").allow
    assert not POLICY.decide(narrowed, "user.admin", "principal:bob").allow
    assert not POLICY.decide(
        someone("predictor", scopes=("user.admin",)), "user.admin", "principal:bob"
    ).allow


@pytest.mark.parametrize(
    ("text", "named"),
    [
        ("permit(principal", "project:1: this policy does not end"),
        ('permit(principal, action == Action::"fly", resource);', "fly"),
        ("permit(principal, action, resource) when { context.zork };", "zork"),
        ('permit(principal, action, resource) when { context.author == "x" };', "author"),
        ('permit(principal in Group::"x", action, resource);', "Group"),
        ('@id("mine") permit(principal, action, resource) when { principal.age > 3 };', "mine"),
        ("x" * 300_000, "larger than"),
    ],
)
def test_a_policy_that_does_not_hold_together_is_refused_with_what_is_wrong(text: str, named: str) -> None:
    with pytest.raises(InvalidInput, match=named) as caught:
        Policy(text)
    assert len(str(caught.value)) < 4000


def test_equal_texts_have_equal_digests_and_others_differ() -> None:
    extra = "forbid(principal, action, resource);"
    assert Policy().digest == Policy().digest == POLICY.digest
    assert Policy(extra).digest == Policy(extra).digest != POLICY.digest


@pytest.mark.parametrize(
    "context", [{"zork": "x"}, {"hour": "3"}, {"single_user": 1}, {"hour": True}, {"author": None}, {"now": "today"},
                {"now": NAIVE}, {"risk": ["high"]}, {3: "x"}, {"hour": 3.0}],
)  # fmt: skip
def test_a_context_that_no_policy_can_know_is_denied(context: dict[str, object]) -> None:
    decision = POLICY.decide(someone("admin"), "predict", "endpoint:delay", context)
    assert not decision.allow
    assert "context attribute" in decision.reasons[0]


def test_a_time_is_quantised_to_the_hour_in_utc() -> None:
    berlin = timezone(timedelta(hours=1))
    assert facts({"now": datetime(2026, 1, 5, 0, 30, tzinfo=berlin)}) == Facts((("hour", 23), ("weekday", 7)))
    policy = Policy()
    for minute in range(60):
        policy.decide(
            someone("admin"), "predict", "endpoint:x", {"now": datetime(2026, 1, 5, 9, minute, tzinfo=UTC)}
        )
    assert len(policy._cache) == 1


def test_an_evaluation_that_errs_is_a_denial_although_another_policy_permits() -> None:
    policy = Policy(
        "forbid(principal, action, resource) when { context has hour && context.hour + 9223372036854775807 > 0 };"
    )
    assert policy.decide(someone("admin"), "predict", "endpoint:delay").allow
    decision = policy.decide(someone("admin"), "predict", "endpoint:delay", {"hour": 1})
    assert not decision.allow
    assert "could not be evaluated" in decision.reasons[0]


def test_a_name_that_is_no_text_is_denied() -> None:
    for id_, resource in (("a\ud800", "endpoint:x"), ("alice", "endpoint:\udcff")):
        decision = GENEROUS.decide(someone("admin", id=id_), "predict", resource)
        assert not decision.allow
        assert decision.errors


def test_require_says_who_what_and_why() -> None:
    with pytest.raises(Denied, match="alice may not train on model:x: no policy permits it"):
        POLICY.require(someone("predictor"), "train", "model:x")
    assert POLICY.require(someone("builder"), "train", "model:x").reasons == ("role-builder",)


def test_what_is_remembered_is_bounded_and_refusals_of_nonsense_are_not() -> None:
    policy = Policy(cache_size=10)
    for number in range(50):
        policy.decide(someone("predictor"), "predict", f"endpoint:e{number}")
        policy.decide(someone("predictor"), f"nonsense{number}", "endpoint:x")
        policy.decide(someone("predictor"), "predict", "endpoint:" + "x" * 1000 + str(number))
    assert len(policy._cache) == 10


@settings(max_examples=300, deadline=None)
@given(
    id=st.text(max_size=10),
    roles=st.lists(st.one_of(st.sampled_from(sorted(ROLES)), st.text(max_size=8)), max_size=3),
    action=st.one_of(st.sampled_from(sorted(ACTIONS)), st.text(max_size=12)),
    resource=st.one_of(st.just("model:x"), st.text(max_size=12)),
)
def test_whatever_is_unknown_or_empty_is_denied(
    id: str, roles: list[str], action: str, resource: str
) -> None:
    decision = GENEROUS.decide(someone(*roles, id=id), action, resource, {"single_user": True})
    kind, _, name = resource.partition(":")
    known = bool(id and roles and set(roles) <= ROLES and action in ACTIONS and kind and name)
    known = known and (action not in ADMIN_ONLY or "admin" in roles)
    assert decision.allow == known
    assert decision.reasons
