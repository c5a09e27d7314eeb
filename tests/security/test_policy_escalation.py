from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from taut.core.errors import InvalidInput
from taut.trust.identity import ROLES, Principal
from taut.trust.policy import ACTIONS, ADMIN_ONLY, Policy

POLICY = Policy()
HOSTILE = [
    'x"); permit(principal, action, resource); //',
    'x" || true || "',
    'x\\" || true',
    "x\npermit(principal, action, resource);",
    "x\u0000admin",
    "../../etc/passwd",
    'Role::"admin"',
    "*",
    "x" * 200,
    "é\U0001f600",
]


def _spelt(name: str) -> str:
    """As Cedar writes a text with everything but letters and digits escaped."""
    return '"' + "".join(c if c.isascii() and c.isalnum() else f"\\u{{{ord(c):x}}}" for c in name) + '"'


def caller(id: str = "mallory", *roles: str, scopes: tuple[str, ...] = ()) -> Principal:
    return Principal(id=id, kind="service", roles=roles or ("predictor",), scopes=scopes)


@pytest.mark.parametrize("text", HOSTILE)
def test_names_are_data_and_never_policy(text: str) -> None:
    """A quoted name that reached Cedar as text would end the literal and begin a policy of the caller's own."""
    for action in ACTIONS:
        allowed = POLICY.decide(caller(), action, f"endpoint:{text}").allow
        assert allowed == (action in ("predict", "feedback", "account.self"))
        assert POLICY.decide(caller(text), action, "principal:alice").allow == allowed


@pytest.mark.parametrize("text", HOSTILE)
def test_a_role_cannot_be_smuggled_in(text: str) -> None:
    for roles in ((text,), ("predictor", text), (f'predictor"], ["{text}',), ("Admin",), ("admin ",), ("",)):
        assert not POLICY.decide(caller("mallory", *roles), "user.admin", "principal:bob").allow
        assert not POLICY.decide(caller("mallory", *roles), "predict", "endpoint:delay").allow


@pytest.mark.parametrize("text", HOSTILE)
def test_a_context_value_is_data_and_never_policy(text: str) -> None:
    for name in ("author", "environment", "risk", "plane"):
        assert not POLICY.decide(
            caller(), "model.approve", "model:delay@1", {name: text, "single_user": True}
        ).allow


def test_a_policy_of_a_project_cannot_reach_out_of_its_text_into_the_built_in_ones() -> None:
    for text in (
        "// forbid(principal, action, resource);",
        "unless { true };",
        "; permit(principal, action, resource);",
        'when { true }; @id("separation-of-duties") permit(principal, action, resource);',
    ):
        try:
            policy = Policy(text)
        except InvalidInput:
            continue
        decision = policy.decide(
            caller("alice", "approver"), "model.approve", "model:x@1", {"author": "alice"}
        )
        assert not decision.allow


GENEROUS = Policy("permit(principal, action, resource);")


@pytest.mark.parametrize("action", ADMIN_ONLY)
def test_no_policy_of_a_project_hands_out_what_is_for_administrators(action: str) -> None:
    for role in sorted(ROLES - {"admin"}):
        decision = GENEROUS.decide(caller("mallory", role), action, "principal:mallory")
        assert decision.reasons == ("forbidden by administration-is-for-administrators",)
    assert GENEROUS.decide(caller("alice", "admin"), action, "principal:bob").allow


def test_no_policy_of_a_project_gives_rights_to_whoever_has_none_any_more() -> None:
    """A principal that was disabled keeps no role, and without a role nothing is permitted."""
    nobody = Principal(id="alice", kind="human", roles=())
    assert not GENEROUS.decide(nobody, "predict", "endpoint:delay").allow


@pytest.mark.parametrize("name", [*HOSTILE, 'a"b', "a\\b", "\u202eadmin", "Ünïcode"])
def test_a_policy_about_a_strange_name_holds_for_that_name_and_no_other(name: str) -> None:
    """What a policy names is compared as Cedar reads it, not as it is spelt, also where policies are put aside."""
    policy = Policy(f'forbid(principal == Principal::{_spelt(name)}, action == Action::"predict", resource);')
    assert not policy.decide(caller(name), "predict", "endpoint:delay").allow
    assert policy.decide(caller(name + "x"), "predict", "endpoint:delay").allow
    about = Policy(f"forbid(principal, action, resource == Resource::{_spelt('endpoint:' + name)});")
    assert not about.decide(caller(), "predict", f"endpoint:{name}").allow
    assert about.decide(caller(), "predict", f"endpoint:{name}x").allow


def test_a_policy_under_the_name_of_a_built_in_one_is_refused() -> None:
    """Else a refusal would say that the floor gave it, or an explanation point at the wrong words."""
    with pytest.raises(InvalidInput, match=r"separation-of-duties.*built-in"):
        Policy('@id("separation-of-duties") permit(principal, action, resource);')


def test_what_was_remembered_for_one_is_not_answered_to_another() -> None:
    policy = Policy()
    assert policy.decide(caller("alice", "admin"), "train", "model:x").allow
    assert not policy.decide(caller("alice", "predictor"), "train", "model:x").allow
    assert not policy.decide(caller("alice", "admin", scopes=("predict",)), "train", "model:x").allow
    alice = Principal(id="alice", kind="human", roles=("admin",))
    assert policy.decide(alice, "model.approve", "model:x@1", {"author": "bob"}).allow
    assert not policy.decide(alice, "model.approve", "model:x@1", {"author": "alice"}).allow
    assert not policy.decide(caller("alice", "admin"), "model.approve", "model:x@1", {"author": "bob"}).allow
    assert not policy.decide(alice, "model.approve", "model:x@1").allow


PREDICTORS = {"predict", "feedback", "account.self"}


def test_a_predictor_predicts_gives_feedback_and_keeps_his_own_account_and_nothing_else() -> None:
    assert {
        action for action in ACTIONS if POLICY.decide(caller(), action, "endpoint:delay").allow
    } == PREDICTORS


@settings(max_examples=300, deadline=None)
@given(
    id=st.text(min_size=1, max_size=20),
    action=st.one_of(st.sampled_from(sorted(set(ACTIONS) - PREDICTORS)), st.text(max_size=20)),
    resource=st.text(max_size=60),
)
def test_no_name_lets_a_predictor_do_anything_else(id: str, action: str, resource: str) -> None:
    assert not POLICY.decide(caller(id), action, resource).allow or action in PREDICTORS


def test_nobody_but_an_administrator_makes_tokens_not_even_for_himself() -> None:
    """A leaked token for one role could otherwise renew itself for ever, or ask for all roles of its principal."""
    for role in ("operator", "builder", "approver", "predictor", "auditor"):
        for action in ("token.create", "key.admin", "user.admin", "policy.admin", "secret.admin"):
            assert not POLICY.decide(caller("alice", role), action, "principal:alice").allow
    assert POLICY.decide(caller("alice", "admin"), "token.create", "principal:alice").allow
