"""A project's policies pass the plan gate: they hold together, shut nobody out for good, and say what they change."""

from __future__ import annotations

import msgspec
import pytest

from taut.core.canonical import digest_bytes
from taut.core.schema import DType
from taut.lifecycle.plans import (
    PLAN_GATE,
    Surroundings,
    attributes_of,
    diff,
    plan_evidence,
    policy_of,
    rights_touched,
)
from taut.project.archive import write_archive
from taut.project.manifest import (
    ColumnSpec,
    ContractSpec,
    DatasetSpec,
    EndpointSpec,
    FunctionRef,
    Manifest,
    ModelSpec,
    PolicySpec,
    SourceSpec,
)
from taut.trust.identity import OWNER, Principal
from taut.trust.policy import Attributes, Policy

BUNDLE = write_archive({"project.py": b"def train(ctx): ...\n"})
ADA = Principal(id="ada", kind="human", roles=("admin",))
BOB = Principal(id="bob", kind="human", roles=("admin", "builder"))


def manifest(*policies: str, **changes: object) -> Manifest:
    columns = (
        ColumnSpec(name="id", dtype=DType.INT),
        ColumnSpec(name="at", dtype=DType.DATETIME),
        ColumnSpec(name="name", dtype=DType.STRING, personal="seal"),
        ColumnSpec(name="late", dtype=DType.BOOL),
    )
    orders = DatasetSpec(
        name="orders", source=SourceSpec(url="x.csv"), contract=ContractSpec(columns=columns), event_time="at",
        subject="id", owner="ada", purpose=("planning",),
    )  # fmt: skip
    model = ModelSpec(
        name="late", dataset="orders", function=FunctionRef("project", "train"), label="late", request=("id",),
        risk="high",
    )  # fmt: skip
    whole = Manifest(
        datasets=(orders,), models=(model,), endpoints=(EndpointSpec(name="late", model="late"),),
        bundle=digest_bytes(BUNDLE),
        policies=tuple(PolicySpec(name=f"policies/{n}.cedar", text=text) for n, text in enumerate(policies)),
    )  # fmt: skip
    return msgspec.structs.replace(whole, **changes)


def reasons(subject: Manifest, *administrators: Principal) -> str:
    evidence = plan_evidence(
        subject, BUNDLE, diff(manifest(), subject), Surroundings(administrators=administrators)
    )
    return "; ".join(PLAN_GATE.judge(evidence).reasons)


def test_what_is_declared_is_known_to_policies_down_to_the_endpoint() -> None:
    known = attributes_of(manifest(environment="staging"))

    data = Attributes(
        environment="staging", classification="confidential", owner="ada", purpose=("planning",)
    )
    assert known["dataset:orders"] == data
    assert known["model:late"] == known["endpoint:late"] == msgspec.structs.replace(data, risk="high")
    assert policy_of(manifest(environment="staging")).attributes("release:r1") == Attributes(
        environment="staging"
    )


def test_policies_that_do_not_hold_together_are_refused_with_file_line_and_reason() -> None:
    assert not reasons(manifest('permit(principal, action == Action::"train", resource);'), ADA)
    said = reasons(manifest("", '\n\npermit(principal, action == Action::"trian", resource);'), ADA)
    assert "policies/1.cedar:3" in said
    assert "trian" in said


@pytest.mark.parametrize(
    "text",
    [
        "forbid(principal, action, resource);",
        'forbid(principal, action == Action::"plan.apply", resource);',
        'forbid(principal in Role::"admin", action == Action::"policy.admin", resource);',
        'forbid(principal, action == Action::"plan.apply", resource) unless { principal.id == "carol" };',
        'forbid(principal, action == Action::"plan.apply", resource) when { context has hour && context.hour >= 0 };',
        # each may do one of both, and nobody both
        'forbid(principal == Principal::"ada", action == Action::"plan.apply", resource);'
        'forbid(principal == Principal::"bob", action == Action::"policy.admin", resource);',
    ],
)
def test_policies_that_would_shut_out_every_administrator_are_refused_and_the_way_out_is_named(
    text: str,
) -> None:
    said = reasons(manifest(text), ADA, BOB)

    assert "no administrator could" in said
    assert "taut break-glass start" in said
    assert "policies/0.cedar:1" in said


def test_policies_that_leave_one_administrator_at_one_hour_are_taken() -> None:
    night = "forbid(principal, action, resource) when { context has hour && context.hour != 3 };"
    only_ada = 'forbid(principal, action, resource) unless { principal.id == "ada" };'
    here = "forbid(principal, action, resource) unless { context has local && context.local };"

    for text in (night, only_ada, here):
        assert not reasons(manifest(text), ADA, BOB)
    assert reasons(manifest(only_ada), OWNER)
    assert not reasons(
        manifest("forbid(principal, action, resource);")
    )  # nobody administers: nobody is shut out


def test_rights_are_touched_by_policies_and_by_what_they_see_but_not_by_what_is_new() -> None:
    some = 'permit(principal, action == Action::"train", resource);'
    now = manifest(some)
    (orders,) = now.datasets
    public = msgspec.structs.replace(orders, classification="public")
    more = msgspec.structs.replace(orders, name="more")

    assert rights_touched(None, manifest()) == ()
    assert rights_touched(None, now) == rights_touched(manifest(), now) == ("policies/0.cedar",)
    assert rights_touched(now, manifest()) == ("policies/0.cedar",)
    assert rights_touched(now, now) == rights_touched(now, manifest(some, datasets=(orders, more))) == ()
    assert rights_touched(now, manifest(some, datasets=(public,)))[0] == "dataset:orders"
    assert "dataset:orders" in rights_touched(now, manifest(some, datasets=(), models=(), endpoints=()))
    assert rights_touched(manifest(), manifest(datasets=(public,))) == ()


def test_gateways_have_the_policies_that_control_has_however_many_files_there_are() -> None:
    large = [f"// {n}\n" + f"// {'x' * 98}\n" * 2000 for n in range(3)]
    ours = policy_of(manifest(*large, 'forbid(principal, action == Action::"predict", resource);'))
    sent = msgspec.json.decode(msgspec.json.encode(ours.files), type=tuple[PolicySpec, ...])
    known = msgspec.json.decode(msgspec.json.encode(ours.resources), type=dict[str, Attributes])
    theirs = Policy(sent, resources=known)

    assert theirs.digest == ours.digest
    for policy in (ours, theirs):
        decision = policy.decide(ADA, "predict", "endpoint:late", {})
        assert decision.reasons == ("forbidden by policies/3.cedar:1",)


def test_a_change_of_policies_is_part_of_the_plan() -> None:
    old, new = manifest("// one\n"), manifest("// two\n")

    (change,) = diff(old, new)
    assert (change.action, change.kind, change.name) == ("change", "policy file", "policies/0.cedar")
    assert old.digest != new.digest
