"""Rights in operation: policies of the project, explanations, dry runs, reviews, emergencies; nothing without an action."""

from __future__ import annotations

import re
from contextlib import closing
from pathlib import Path
from typing import Any

import msgspec
import pytest
from test_operations import OWNER_HERE, PROJECT, do, person, request_of

from taut.bootstrap.housekeeping import Housekeeper
from taut.bootstrap.platform import Platform
from taut.core.errors import Conflict, Denied, InvalidInput, NotFound, Unauthenticated
from taut.core.refs import VersionRef
from taut.core.times import to_us
from taut.entrypoints import plan_view, policy_view
from taut.entrypoints.operations import Caller
from taut.entrypoints.whose import owner_caller
from taut.serving.gateway.ids import RequestIds
from taut.serving.predictions import PredictionLog
from taut.serving.predictions.record import RecordHead, encode_head, encode_record
from taut.testing.world import SeededRandom
from taut.trust.breakglass import is_emergency
from taut.trust.identity import OWNER

NIGHT = '@id("no-look-at-orders")\nforbid(principal, action == Action::"data.list", resource == Resource::"dataset:orders")\nunless { principal in Role::"admin" };\n'


def with_policies(folder: Path, source: str = PROJECT, /, **texts: str) -> dict[str, Any]:
    (folder / "policies").mkdir(parents=True, exist_ok=True)
    for name, text in texts.items():
        (folder / "policies" / f"{name}.cedar").write_text(text)
    return request_of(folder, source)


def here(*roles: str, id: str) -> Caller:
    return msgspec.structs.replace(person(*roles, id=id), local=True)


def test_a_projects_policies_hold_as_soon_as_they_are_applied_and_no_longer(
    platform: Platform, tmp_path: Path
) -> None:
    plain = do(platform, "plan.apply", **request_of(tmp_path / "p"))
    (tmp_path / "p/orders.csv").write_text("id,at,late\n1,2026-01-01T00:00:00Z,true\n")
    do(platform, "data.ingest", dataset="orders")
    do(platform, "data.history", person("builder"), dataset="orders")

    do(platform, "plan.apply", **with_policies(tmp_path / "p", a=NIGHT))
    with pytest.raises(Denied, match="no-look-at-orders"):
        do(platform, "data.history", person("builder"), dataset="orders")
    assert do(platform, "policy.show")["policies"][-1] == {
        "id": "no-look-at-orders", "effect": "forbid", "file": "policies/a.cedar", "line": 1,
    }  # fmt: skip

    do(platform, "plan.revert", to=plain["plan"])
    do(platform, "data.history", person("builder"), dataset="orders")


def test_policies_with_a_fault_are_refused_by_the_gate_and_the_old_ones_stay(
    platform: Platform, tmp_path: Path
) -> None:
    do(platform, "plan.apply", **with_policies(tmp_path / "p", a=NIGHT))
    before = do(platform, "policy.show")["digest"]

    told = do(
        platform,
        "plan.apply",
        **with_policies(tmp_path / "p", b="\npermit(principal, action, resource) when { context.x };"),
    )

    assert (told["verdict"], told["plan"]) == ("reject", None)
    assert "policies/b.cedar:2" in " ".join(told["reasons"])
    assert do(platform, "policy.show")["digest"] == before
    with pytest.raises(Denied, match="no-look-at-orders"):
        do(platform, "data.history", person("builder"), dataset="orders")


def test_who_may_apply_plans_may_not_therefore_change_rights(platform: Platform, tmp_path: Path) -> None:
    """Else a builder gives himself the right to approve, or calls restricted data public."""
    first = with_policies(tmp_path / "p", a=NIGHT)
    builder = here("builder", id="ada")
    with pytest.raises(Denied, match=r"policy\.admin"):
        do(platform, "plan.apply", builder, **first)
    do(platform, "plan.apply", **first)

    generous = with_policies(
        tmp_path / "p", b='permit(principal, action == Action::"model.approve", resource);'
    )
    (tmp_path / "p/policies/b.cedar").unlink()
    public = with_policies(
        tmp_path / "p", PROJECT.replace('entity="id"', 'entity="id", classification="public"')
    )
    without = request_of(tmp_path / "other")
    for request in (generous, public, without):
        with pytest.raises(Denied, match=r"policy\.admin"):
            do(platform, "plan.apply", builder, **request)

    more = with_policies(tmp_path / "p", PROJECT.replace("0.5", "0.25"))
    assert do(platform, "plan.apply", builder, **more)["verdict"] == "admit"
    do(platform, "plan.apply", **public)
    with pytest.raises(Denied, match=r"policy\.admin"):
        do(platform, "plan.revert", builder, to="1")


RESPONDS = (
    PROJECT
    + """
ops = taut.Webhook("ops", url="https://hooks.example.org/x", secret="alerts/ops")
taut.Playbook("quality", when=taut.alert("model"), do=[taut.page(ops), taut.rollback()], acts_as="bot")
"""
)


def test_who_may_apply_plans_may_not_therefore_act_by_the_rights_of_a_service(
    platform: Platform, tmp_path: Path
) -> None:
    """Else whoever has `plan.apply` names a service that may more than he, and lets a playbook of his act as it."""
    do(platform, "user.add", principal="bot", kind="service", roles=["responder"])
    do(platform, "plan.apply", **request_of(tmp_path / "p"))
    operator = here("operator", id="ada")
    with pytest.raises(Denied, match=r"incident\.tell"):
        do(platform, "plan.apply", operator, **request_of(tmp_path / "p", RESPONDS))
    acts = request_of(tmp_path / "p", RESPONDS.replace("taut.page(ops), ", ""))
    with pytest.raises(Denied, match=r"release\.rollback"):
        do(platform, "plan.apply", here("builder", id="eve"), **acts)

    both = here("operator", "responder", id="ada")
    assert do(platform, "plan.apply", both, **request_of(tmp_path / "p", RESPONDS))["verdict"] == "admit"
    more = request_of(tmp_path / "p", RESPONDS.replace("0.5", "0.25"))
    assert do(platform, "plan.apply", operator, **more)["verdict"] == "admit"  # it acts as it did
    for other in (
        RESPONDS.replace('"model"', '"share"'),
        RESPONDS.replace("taut.rollback()", 'taut.contain("revoke")'),
    ):
        with pytest.raises(Denied):
            do(platform, "plan.apply", operator, **request_of(tmp_path / "p", other))
        assert do(platform, "plan.apply", **request_of(tmp_path / "p", other))["verdict"] == "admit"
    with pytest.raises(Denied, match=r"incident\.tell"):
        do(platform, "plan.revert", operator, to="2")


def test_a_plan_says_what_new_policies_would_have_answered_to_recorded_requests(
    platform: Platform, tmp_path: Path
) -> None:
    do(platform, "plan.apply", **request_of(tmp_path / "p"))
    for name, role in (("ada", "builder"), ("bob", "builder")):
        do(platform, "user.add", principal=name, roles=[role])
    (tmp_path / "p/orders.csv").write_text("id,at,late\n1,2026-01-01T00:00:00Z,true\n")
    do(platform, "data.ingest", here("builder", id="ada"), dataset="orders")

    shown = do(
        platform, "plan.show",
        **with_policies(tmp_path / "p", a='@id("calm") forbid(principal == Principal::"ada", action == Action::"data.ingest", resource);'),
    )  # fmt: skip
    harmless = do(platform, "plan.show", **with_policies(tmp_path / "p", a="// nothing yet\n"))

    (changed,) = shown["rights"]["changed"]
    assert (changed["principal"], changed["action"], changed["before"], changed["after"]) == (
        "ada",
        "data.ingest",
        True,
        False,
    )
    assert list(changed["because"]) == ["forbidden by calm"]
    assert (shown["rights"]["asked"] >= 3, shown["rights"]["otherwise"]) == (True, 1)
    told = do(platform, "plan.show", person("builder"), **with_policies(tmp_path / "p"))["rights"]
    assert (told["asked"] >= 3, list(told["changed"])) == (
        True,
        [],
    )  # who asked for what is not for everybody
    assert (list(harmless["rights"]["changed"]), harmless["rights"]["touched"]) == ([], ["policies/a.cedar"])


def test_an_explanation_names_the_policies_with_their_places_and_the_facts(
    platform: Platform, tmp_path: Path
) -> None:
    do(platform, "user.add", principal="ada", roles=["approver", "builder"])
    do(platform, "plan.apply", **with_policies(tmp_path / "p", a=NIGHT))

    forbidden = do(platform, "policy.explain", principal="ada", action="data.list", resource="dataset:orders")
    allowed = do(platform, "policy.explain", principal="owner", action="data.list", resource="dataset:orders")
    own = do(
        platform, "policy.explain", principal="ada", action="model.approve", resource="model:late@1",
        context={"author": "ada", "single_user": False},
    )  # fmt: skip

    (policy,) = forbidden["policies"]
    assert (forbidden["allow"], policy["id"], policy["file"], policy["line"]) == (
        False,
        "no-look-at-orders",
        "policies/a.cedar",
        1,
    )
    assert "forbid(principal" in policy["text"]
    assert forbidden["attributes"] == {"environment": "development", "classification": "internal"}
    assert (allowed["allow"], [one["file"] for one in allowed["policies"]]) == (True, ["built-in"])
    assert own["reasons"] == ["forbidden by separation-of-duties"]
    do(platform, "user.disable", principal="ada")
    gone = do(platform, "policy.explain", principal="ada", action="data.list", resource="dataset:any")
    assert gone["reasons"] == ["the caller has no identity or no role"]


@pytest.mark.parametrize(
    "name", ['x"); permit(principal, action, resource); //', "é\U0001f600", "a\\b", "x\ny", "*"]
)
def test_strange_names_are_explained_as_any_other(platform: Platform, name: str) -> None:
    told = do(platform, "policy.explain", principal="owner", action="data.list", resource=f"dataset:{name}")
    assert told["allow"]
    told = do(platform, "policy.explain", principal="owner", action=name, resource="dataset:x")
    assert not told["allow"]


def test_a_review_sets_rights_beside_their_use(platform: Platform, tmp_path: Path) -> None:
    do(platform, "user.add", principal="ada", roles=["builder"])
    do(platform, "user.add", principal="bob", roles=["predictor"])
    do(platform, "plan.apply", **with_policies(tmp_path / "p", a=NIGHT))
    (tmp_path / "p/orders.csv").write_text(
        "id,at,late\n-1,2026-01-01T00:00:00Z,true\n2,2026-01-01T00:00:00Z,true\n"
    )
    ada = here("builder", id="ada")
    do(platform, "data.ingest", ada, dataset="orders")
    do(platform, "data.quarantine", ada, dataset="orders")

    found = {one["principal"]: one for one in do(platform, "policy.review", person("auditor"))["principals"]}

    assert found["ada"]["did"] == {"data.ingest": 1, "data.read": 1}
    assert {"train", "data.repair"} <= set(found["ada"]["unused"])
    assert "data.ingest" not in found["ada"]["unused"]
    assert "status.read" not in found["ada"]["unused"]  # leaves no trace, so nobody can say
    assert list(found["ada"]["could"]["data.read"]) == ["*"]
    assert list(found["ada"]["could"]["data.list"]) == ["dataset:any"]
    assert (set(found["bob"]["could"]), set(found["bob"]["unused"])) == (
        {"predict", "feedback", "account.self"},
        {"predict", "feedback"},
    )
    with pytest.raises(Denied):
        do(platform, "policy.review", person("builder"))

    production = with_policies(tmp_path / "p", PROJECT + 'taut.Project("shop", environment="production")\n')
    do(platform, "plan.apply", here("admin", id="eve"), **production)
    found = {one["principal"]: one for one in do(platform, "policy.review", person("auditor"))["principals"]}
    assert "plan.apply" not in found["ada"]["could"]


def test_what_was_predicted_counts_in_dry_runs_and_reviews(platform: Platform, tmp_path: Path) -> None:
    do(platform, "user.add", principal="app", roles=["predictor"], kind="service")
    do(platform, "plan.apply", **request_of(tmp_path / "p"))
    now_us = to_us(platform.clock.now())
    log_predictions(
        platform, "app", "late", times_us=[now_us - 50 * DAY_US, now_us - 40 * DAY_US, now_us, now_us + 1]
    )
    log_predictions(platform, "gone", "late", times_us=[now_us], writer="gateway-1")

    closed = '@id("closed") forbid(principal, action == Action::"predict", resource) when { resource.name == "late" };'
    (changed,) = do(platform, "plan.show", **with_policies(tmp_path / "p", a=closed))["rights"]["changed"]
    found = {one["principal"]: one for one in do(platform, "policy.review", days=45)["principals"]}

    assert (changed["principal"], changed["action"], changed["resource"], changed["times"]) == (
        "app",
        "predict",
        "endpoint:late",
        2,
    )
    assert (changed["before"], changed["after"]) == (True, False)
    assert found["app"]["did"] == {"predict": 3}
    assert found["app"]["unused"] == ("feedback",)


DAY_US = 86_400_000_000


def log_predictions(
    platform: Platform, principal: str, endpoint: str, *, times_us: list[int], writer: str = "gateway-0"
) -> None:
    head = encode_head(RecordHead(endpoint, f"{endpoint}@1", "rel_1", 1, ("x",)))
    ids = RequestIds(SeededRandom(len(writer)))
    with closing(
        PredictionLog(
            platform.home / "log" / "predictions", writer, now_us=lambda: times_us[0], monotonic_s=lambda: 0.0,
            random=SeededRandom(1), segment_bytes=4096,
        )
    ) as log:  # fmt: skip
        for at_us in times_us:
            log.append(encode_record(ids.next(at_us), at_us, head, principal, "", 200, 9, ((1.0,),), ()))


def test_what_rights_look_like_to_people(
    platform: Platform, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    do(platform, "user.add", principal="ada", roles=["builder"])
    shown = do(platform, "plan.show", **with_policies(tmp_path / "p", a=NIGHT))
    do(platform, "plan.apply", **with_policies(tmp_path / "p", a=NIGHT))
    changed = do(platform, "plan.show", **with_policies(tmp_path / "p", a=NIGHT.replace("admin", "operator")))
    plan_view.plan(shown)
    plan_view.plan(changed)
    policy_view.shown(do(platform, "policy.show"))
    policy_view.explained(
        do(platform, "policy.explain", principal="ada", action="data.list", resource="dataset:orders")
    )
    policy_view.reviewed(do(platform, "policy.review"))
    policy_view.emergency(
        do(platform, "break-glass.start", owner_caller(platform, break_glass="fire"), reason="fire")
    )

    said = capsys.readouterr().out
    for words in (
        "+ policy file policies/a.cedar",
        "rights change with policies/a.cedar: it takes the right policy.admin",
        '    -unless { principal in Role::"admin" };',
        '    +unless { principal in Role::"operator" };',
        "no-look-at-orders  forbid  policies/a.cedar:1",
        "DENIED: forbidden by no-look-at-orders",
        "  forbid no-look-at-orders, policies/a.cedar:1",
        "EMERGENCY by owner since ",
    ):
        assert words in said or words in _columns(said), said


def _columns(text: str) -> str:
    return re.sub(r" {2,}", "  ", text)


def test_rows_that_are_handed_out_leave_a_leaf_and_a_refusal_none(platform: Platform, tmp_path: Path) -> None:
    do(platform, "plan.apply", **request_of(tmp_path / "p"))
    with pytest.raises(Denied):
        do(platform, "data.quarantine", person("auditor"), dataset="orders")
    do(platform, "data.quarantine", here("builder", id="ada"), dataset="orders")

    (leaf,) = do(platform, "ledger.show", kind="data.accessed")["leaves"]
    assert (leaf["actor"], leaf["subject"], leaf["body"]) == (
        "ada", "dataset:orders", {"action": "data.read", "operation": "data.quarantine"},
    )  # fmt: skip


def test_in_an_emergency_the_owner_acts_under_the_built_in_policies_alone(
    platform: Platform, tmp_path: Path
) -> None:
    first = do(platform, "plan.apply", **request_of(tmp_path / "p"))
    do(platform, "plan.apply", **with_policies(tmp_path / "p", a='forbid(principal, action == Action::"data.rollback", resource);\n'
       'forbid(principal, action == Action::"plan.apply", resource) unless { principal.id == "ada" || principal.id == "owner" };'))  # fmt: skip
    for name in ("ada", "bob"):
        do(platform, "user.add", principal=name, roles=["admin"])
    with pytest.raises(Unauthenticated):
        owner_caller(platform)
    with pytest.raises(Denied, match="without a token"):
        do(platform, "break-glass.start", here("admin", id="ada"), reason="curious")

    do(platform, "break-glass.start", owner_caller(platform, break_glass="fire"), reason="fire", ttl="10m")
    owner = owner_caller(platform)

    assert is_emergency(owner.principal)
    assert do(platform, "status.show", owner)["emergency"]["reason"] == "fire"
    with pytest.raises(Conflict):
        do(platform, "break-glass.start", owner, reason="more fire")
    assert do(platform, "plan.revert", owner, to=first["plan"])["verdict"] == "admit"
    acts = do(platform, "ledger.show", owner, kind="break_glass.act")["leaves"]
    assert acts[0]["body"]["operation"] == "plan.revert"
    do(platform, "break-glass.end", here("admin", id="ada"))
    with pytest.raises(Unauthenticated):
        owner_caller(platform)
    assert do(platform, "status.show", here("admin", id="ada"))["emergency"] is None


def test_control_says_as_long_as_it_lasts_that_an_emergency_holds(platform: Platform) -> None:
    said: list[tuple[str, dict[str, Any]]] = []
    keeper = Housekeeper(
        platform, log=lambda *_: None, warn=lambda event, **about: said.append((event, about))
    )
    keeper._say_emergency()
    do(platform, "break-glass.start", owner_caller(platform, break_glass="fire"), reason="fire")
    keeper._say_emergency()
    do(platform, "break-glass.end")
    keeper._say_emergency()

    assert [(event, about["reason"]) for event, about in said] == [("an emergency holds", "fire")]


def test_separation_of_duties_holds_in_an_emergency_too(platform: Platform) -> None:
    for name in ("ada", "bob"):
        do(platform, "user.add", principal=name, roles=["admin"])
    caller = owner_caller(platform, break_glass="in a hurry")
    context = {"author": "owner", "single_user": False}

    assert not platform.policy.decide(caller.principal, "model.approve", "model:late@1", context).allow
    assert platform.policy.decide(caller.principal, "model.approve", "model:late@1", {"author": "ada"}).allow


def test_a_policy_folder_that_is_not_plain_text_is_refused(tmp_path: Path) -> None:
    (tmp_path / "p/policies").mkdir(parents=True)
    (tmp_path / "p/policies/a.cedar").symlink_to("/etc/hostname")
    with pytest.raises(InvalidInput, match="symbolic link"):
        request_of(tmp_path / "p")
    (tmp_path / "p/policies/a.cedar").unlink()
    (tmp_path / "p/policies/a.cedar").write_bytes(b"\xff\xfe")
    with pytest.raises(InvalidInput, match="UTF-8"):
        request_of(tmp_path / "p")


def test_the_owner_of_the_files_is_no_emergency_as_long_as_he_is_alone(platform: Platform) -> None:
    assert owner_caller(platform) == OWNER_HERE
    assert not is_emergency(OWNER)


@pytest.mark.parametrize("verb", ["pause", "resume", "promote", "abort"])
@pytest.mark.parametrize("by_id", [True, False])
def test_rights_on_an_endpoint_hold_for_its_releases_by_whatever_name(
    platform: Platform, tmp_path: Path, verb: str, by_id: bool
) -> None:
    closed = '@id("hands-off")\nforbid(principal, action, resource == Resource::"endpoint:late")\nunless { principal in Role::"admin" };\n'
    do(platform, "plan.apply", **with_policies(tmp_path / "p", a=closed))
    with platform.records.begin() as tx:
        release = platform.releases.start(
            tx, endpoint="late", version=VersionRef("late", 1), strategy="direct", actor="ann", reason="test"
        )

    with pytest.raises(Denied, match="hands-off"):
        do(platform, f"release.{verb}", person("operator"), release=release if by_id else "late", reason="x")
    with pytest.raises(Denied, match="hands-off"):
        do(platform, "release.status", person("operator"), release=release)
    with pytest.raises((NotFound, Conflict), match="rel_unknown"):
        do(platform, f"release.{verb}", person("operator"), release="rel_unknown", reason="x")
