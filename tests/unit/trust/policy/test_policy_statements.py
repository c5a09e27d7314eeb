"""Policies in files: where each stands, what is wrong with one, and which of a thousand bear on a question."""

from __future__ import annotations

import random

import cedarpy
import pytest

from taut.core.errors import InvalidInput
from taut.project.manifest import PolicySpec
from taut.trust.identity import ROLES, Principal
from taut.trust.policy import ACTIONS, Attributes, Policy
from taut.trust.policy.slices import Slice, Slices
from taut.trust.policy.statements import Statement, built_in_statements, read_policies

A = "policies/a.cedar"


def files(**texts: str) -> tuple[PolicySpec, ...]:
    return tuple(PolicySpec(name=f"policies/{name}.cedar", text=text) for name, text in texts.items())


def who(*roles: str, id: str = "alice") -> Principal:
    return Principal(id=id, kind="human", roles=roles)


def test_each_policy_is_known_by_its_name_or_its_place() -> None:
    text = (
        "// ; not the end\n\n"
        '@id("first")\npermit(principal, action, resource)\nwhen { principal.id == "a;\\"b" }; // ; nor this\n'
        "forbid(principal, action, resource) when { false };"
        "forbid(principal, action, resource) when { false };"
    )
    one, two, three = read_policies(files(a=text))

    assert (one.id, one.effect, one.place) == ("first", "permit", f"{A}:3")
    assert (two.id, two.effect, two.place) == (f"{A}:6", "forbid", f"{A}:6")
    assert (three.id, three.place) == (f"{A}:6#2", f"{A}:6")


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("\npermit(principal, action, resource)", f"{A}:2: this policy does not end"),
        ('permit(principal, action, resource);\n\npermit(principal, action, resource) whn { true };', f"{A}:3: .*whn"),
        ('permit(principal, action, resource) when { principal.id == "x };', f"{A}:1: a string begins"),
        ('\n\npermit(principal, action == Action::"fly", resource);', f"{A}:3: .*fly"),
        ("permit(principal, action, resource) when { resource.colour == 3 };", f"{A}:1: .*colour"),
        ("permit(principal == ?principal, action, resource);", f"{A}:1: a template"),
        ('@id("x") permit(principal, action, resource);\n@id("x") permit(principal, action, resource);', f"{A}:2: .*{A}:1"),
        ('@id("a\\nb") permit(principal, action, resource);', f"{A}:1: @id"),
        ('permit(principal, action, resource) when { resource.owner == "x" };', f"{A}:1: .*owner"),
    ],
)  # fmt: skip
def test_what_is_wrong_is_said_with_its_file_and_line(text: str, said: str) -> None:
    with pytest.raises(InvalidInput, match=said) as caught:
        read_policies(files(a=text))
    assert len(caught.value.message) < 2000


def test_faults_of_several_files_are_said_together_and_in_number_bounded() -> None:
    many = "".join(f"permit(principal, action, resource) when {{ context.zork{n} }};\n" for n in range(50))
    with pytest.raises(InvalidInput, match=r"policies/a\.cedar:1: .*policies/b\.cedar:1: ") as caught:
        read_policies(files(a=many, b="nonsense;"))
    assert len(caught.value.message) < 4000
    with pytest.raises(InvalidInput, match="larger than"):
        read_policies(files(**{f"f{n}": "//" + "x" * 200_000 for n in range(6)}))


def test_a_text_of_open_strings_is_refused_at_once() -> None:
    with pytest.raises(InvalidInput, match="a string begins here"):
        read_policies(files(a='"\\' * 100_000))


def test_a_policy_may_ask_what_is_known_of_a_resource() -> None:
    policy = Policy(
        files(
            a='forbid(principal, action, resource) when { resource has classification && resource.classification == "restricted" }\n'
            'unless { principal in Role::"admin" };\n'
            'permit(principal, action == Action::"data.read", resource) when { resource has purpose && '
            'resource.purpose.contains("fraud") && resource has owner && resource.owner == principal.id };'
        ),
        resources={
            "dataset:cards": Attributes(classification="restricted", owner="alice", purpose=("fraud",)),
            "dataset:orders": Attributes(owner="alice", purpose=("fraud", "planning")),
            "": Attributes(environment="staging"),
        },
    )

    assert not policy.decide(who("builder"), "data.read", "dataset:cards").allow
    assert policy.decide(who("admin"), "data.read", "dataset:cards").allow
    assert policy.decide(who("auditor"), "data.read", "dataset:orders").allow
    assert not policy.decide(who("auditor", id="bob"), "data.read", "dataset:orders").allow
    assert policy.attributes("dataset:orders@3").purpose == ("fraud", "planning")
    assert policy.attributes("release:r").environment == "staging"
    assert policy.digest != Policy(policy.files).digest


def some_policies(rng: random.Random) -> str:
    """A project's policies of every form of scope, a few of them about each of a few names."""
    found = []
    for number in range(40):
        effect = rng.choice(["permit", "permit", "permit", "forbid"])
        principal = rng.choice(
            ["principal", 'principal == Principal::"p1"', 'principal in Role::"builder"', 'principal in Principal::"p2"',
             'principal is Principal in Role::"auditor"', "principal is Principal"]
        )  # fmt: skip
        action = rng.choice(
            [
                "action",
                'action == Action::"train"',
                'action in [Action::"predict", Action::"train"]',
                'action in Action::"feedback"',
            ]
        )
        resource = rng.choice(
            [
                "resource",
                'resource == Resource::"endpoint:x"',
                'resource in Resource::"endpoint:y"',
                "resource is Resource",
            ]
        )
        when = rng.choice(
            ["", " when { context has hour && context.hour > 12 }", ' unless { resource.name == "x" }']
        )
        found.append(f'@id("n{number}") {effect}({principal}, {action}, {resource}){when};')
    return "\n".join(found)


def questions(rng: random.Random, count: int) -> list[tuple[Principal, str, str, dict[str, object]]]:
    return [
        (
            who(*rng.sample(sorted(ROLES), rng.randint(1, 2)), id=rng.choice(["p1", "p2", "p3"])),
            rng.choice(["predict", "train", "feedback", "model.read"]),
            rng.choice(["endpoint:x", "endpoint:y", "endpoint:z"]),
            rng.choice([{}, {"hour": 3}, {"hour": 15}]),
        )
        for _ in range(count)
    ]


class Whole(Slices):
    """What slices must agree with: all policies, every time."""

    def __init__(self, statements: tuple[Statement, ...]) -> None:
        text = "\n".join(one.text for one in statements)
        self._all = Slice(statements, cedarpy.PolicySet.from_str(text))

    def of(self, *_: object) -> Slice:
        return self._all


class Losing(Slices):
    """The planted fault: policies that name a principal are lost."""

    def of(self, principal: Principal, action: str, resource: str) -> Slice:
        return super().of(Principal(id="nobody", kind="human", roles=principal.roles), action, resource)


def disagreements(seed: int, slices: type[Slices] = Slices) -> int:
    rng = random.Random(seed)
    sliced = Policy(some_policies(rng))
    sliced._slices = slices(sliced.statements)  # type: ignore[misc]  # what is compared
    whole = Policy(sliced.files)
    whole._slices = Whole(whole.statements)  # type: ignore[misc]  # with this, by the same code otherwise
    return sum(sliced.decide(*question) != whole.decide(*question) for question in questions(rng, 150))


def test_a_slice_decides_as_all_policies_would_and_for_the_same_reasons() -> None:
    assert sum(disagreements(seed) for seed in range(3)) == 0


def test_a_slice_that_loses_policies_is_found() -> None:
    assert disagreements(1, Losing) > 0


def test_of_a_thousand_policies_a_question_sees_about_ten_and_they_are_parsed_once() -> None:
    text = (
        "".join(
            f'permit(principal == Principal::"app{n}", action in [Action::"predict"], resource == Resource::"endpoint:e{n % 7}");\n'
            for n in range(1000)
        )
        + 'forbid(principal, action == Action::"predict", resource) when { context has hour && context.hour == 3 };'
    )
    policy = Policy(text)
    asks = who("auditor", id="app8")

    assert policy.decide(asks, "predict", "endpoint:e1").allow
    assert not policy.decide(asks, "predict", "endpoint:e2").allow
    assert not policy.decide(asks, "predict", "endpoint:e1", {"hour": 3}).allow
    bearing = policy._slices.of(asks, "predict", "endpoint:e1")
    assert len(bearing.statements) < 10
    assert policy._slices.of(asks, "predict", "endpoint:e1") is bearing


def test_callers_of_the_same_roles_differ_only_by_policies_that_bear_on_what_they_ask() -> None:
    assert not Policy().looks_at_callers("predict")
    about_training = Policy('permit(principal == Principal::"cron", action == Action::"train", resource);')
    assert not about_training.looks_at_callers("predict")
    assert about_training.looks_at_callers("train")
    assert Policy("forbid(principal, action, resource) when { false };").looks_at_callers("predict")


def test_who_asks_and_what_for_are_remembered_by_all_that_policies_may_see_of_them() -> None:
    owners = {"endpoint:x": Attributes(owner="alice")}
    policy = Policy(
        'forbid(principal, action == Action::"predict", resource) when { resource has owner && resource.owner != principal.id };'
        'forbid(principal, action == Action::"predict", resource) when { principal.kind == "service" };',
        resources=owners,
    )
    asked = [who("predictor"), who("predictor", id="bob"), who("builder"), who("predictor", "builder")]
    service = Principal(id="alice", kind="service", roles=("predictor",))
    for hour in range(3):
        allowed = [
            policy.decide(one, "predict", "endpoint:x", {"hour": hour}).allow for one in (*asked, service)
        ]
        assert allowed == [True, False, True, True, False]
    for number in range(4200):
        policy.decide(asked[0], "predict", f"endpoint:e{number}", {"hour": 4})
    assert len(policy._pairs) <= 4096


def test_the_built_in_policies_are_read_as_a_projects_are() -> None:
    found = {one.id: one for one in built_in_statements()}

    assert {f"role-{role}" for role in ROLES} <= set(found)
    assert found["role-predictor"].role == "predictor"
    assert found["role-admin"].actions == frozenset(ACTIONS)
    assert all(one.place.startswith("built-in:") for one in found.values())
