"""Every operation is decided by policy, refuses what it does not know, and says who did it."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import msgspec
import pytest

from taut.bootstrap.platform import Platform
from taut.core.errors import Denied, InvalidInput, NotFound, Unauthenticated
from taut.entrypoints.operations import Caller, Operation, OperationTable, operation_table, perform
from taut.entrypoints.operations.operation import Nothing
from taut.entrypoints.whose import owner_caller
from taut.ports.records import transact
from taut.project.load import load_project
from taut.trust.breakglass import emergency
from taut.trust.identity.principals import OWNER, Principal
from taut.trust.policy import ACTIONS

OWNER_HERE = Caller(principal=OWNER, local=True)
PROJECT = """
import taut
orders = taut.Dataset("orders", source=taut.files("orders.csv"), contract=taut.Contract([
    taut.column("id", "int", unique=True, minimum=1), taut.column("at", "datetime"), taut.column("late", "bool"),
], max_bad_fraction=0.5), entity="id", event_time="at")
"""


def silent(_message: str, _fraction: float | None) -> None:
    pass


def do(platform: Platform, name: str, caller: Caller = OWNER_HERE, /, **request: Any) -> dict[str, Any]:
    return perform(operation_table(), platform, caller, name, request, silent)


def person(*roles: str, id: str = "ada") -> Caller:
    return Caller(principal=Principal(id=id, kind="human", roles=roles))


def request_of(folder: Path, source: str = PROJECT) -> dict[str, Any]:
    folder.mkdir(exist_ok=True)
    (folder / "project.py").write_text(source)
    loaded = load_project(folder / "project.py")
    return {"manifest": msgspec.to_builtins(loaded.manifest), "bundle": msgspec.to_builtins(loaded.bundle)}


def test_every_operation_names_an_action_that_policy_knows() -> None:
    unknown = {
        operation.name: operation.action for operation in operation_table() if operation.action not in ACTIONS
    }

    assert not unknown


def test_an_operation_without_a_known_action_is_refused_whoever_asks(platform: Platform) -> None:
    """The planted fault that the test above guards against."""
    planted = Operation(
        name="hole.open", action="hole.open", request=Nothing, handle=lambda *_: {"open": True},
        resource=lambda _: "hole:1", summary="",
    )  # fmt: skip

    with pytest.raises(Denied):
        perform(OperationTable([planted]), platform, OWNER_HERE, "hole.open", {}, silent)


def test_request_types_have_distinct_names_so_that_the_api_describes_each() -> None:
    kinds = {operation.request for operation in operation_table()}

    assert len({kind.__name__ for kind in kinds}) == len(kinds)


def test_two_operations_of_one_name_are_refused() -> None:
    operation = next(iter(operation_table()))

    with pytest.raises(InvalidInput, match="there twice"):
        OperationTable([operation, operation])


def test_an_unknown_operation_or_word_is_named_with_the_nearest(platform: Platform) -> None:
    with pytest.raises(NotFound, match=r"did you mean 'data\.ingest'"):
        do(platform, "data.ingst")
    with pytest.raises(InvalidInput, match="did you mean 'dataset'"):
        do(platform, "data.show", datset="orders")
    with pytest.raises(InvalidInput, match=r"data\.show: .*dataset"):
        do(platform, "data.show")
    with pytest.raises(InvalidInput, match=r"Expected `str`, got `int`"):
        do(platform, "data.show", dataset=3)


@pytest.mark.parametrize(
    ("roles", "name", "request_"),
    [
        (("auditor",), "user.add", {"principal": "eve", "roles": ["admin"]}),
        (("predictor",), "ledger.show", {}),
        (("builder",), "key.create", {"principal": "ada", "roles": ["admin"]}),
        (("builder",), "secret.list", {}),
        (("approver",), "data.quarantine", {"dataset": "orders"}),
        ((), "status.show", {}),
    ],
)
def test_what_a_role_may_not_do_is_denied_before_anything_is_done(
    platform: Platform, roles: tuple[str, ...], name: str, request_: dict[str, Any]
) -> None:
    with pytest.raises(Denied):
        do(platform, name, person(*roles), **request_)

    assert platform.identity.principals() == ()


def test_a_token_for_a_new_principal_needs_the_right_to_make_principals(platform: Platform) -> None:
    platform.identity.create_principal("app", kind="service", roles=["predictor"], actor="owner")
    narrow = Principal(id="root", kind="human", roles=("admin",), scopes=("token.create",))
    issuer = Caller(principal=narrow)

    made = do(platform, "token.create", issuer, principal="app", roles=["predictor"])
    with pytest.raises(Denied, match=r"user\.admin"):
        do(platform, "token.create", issuer, principal="eve", roles=["admin"], enrol="human")
    with pytest.raises(Denied):
        do(platform, "token.create", person("builder"), principal="ada", roles=["builder"])

    assert platform.identity.authenticate(made["token"]).id == "app"


def test_a_key_is_shown_once_and_its_act_is_in_the_ledger(platform: Platform) -> None:
    made = do(platform, "key.create", principal="app", roles=["predictor"], enrol="service")

    assert platform.identity.authenticate(made["key"]).id == "app"
    assert made["key"] not in str(do(platform, "key.list"))
    kinds = [leaf["kind"] for leaf in do(platform, "ledger.show", actor="owner")["leaves"]]
    assert "identity.key.created" in kinds


def test_the_owner_acts_alone_and_needs_a_sign_in_as_soon_as_he_is_not(platform: Platform) -> None:
    assert owner_caller(platform).principal == OWNER
    for name in ("ada", "bob"):
        do(platform, "user.add", principal=name, roles=["admin"])

    with pytest.raises(Unauthenticated, match="--break-glass"):
        owner_caller(platform)

    assert owner_caller(platform, break_glass="lost every token").principal == emergency("command")
    leaf = do(platform, "ledger.show", person("auditor"), kind="identity.break_glass")["leaves"][0]
    assert leaf["body"]["reason"] == "lost every token"


def test_a_plan_is_shown_applied_and_returned_to(platform: Platform, tmp_path: Path) -> None:
    first = request_of(tmp_path / "p")
    second = request_of(tmp_path / "p", PROJECT.replace("0.5", "0.25"))

    shown = do(platform, "plan.show", **first)
    one = do(platform, "plan.apply", **first, base=shown["base"])
    changes = do(platform, "plan.show", **second)["changes"]
    two = do(platform, "plan.apply", **second)
    do(platform, "plan.revert", to="1")

    assert (shown["verdict"], shown["base"]) == ("admit", "")
    assert [(change["action"], change["kind"]) for change in changes] == [
        ("change", "bundle"),
        ("change", "dataset"),
    ]
    assert list(changes[1]["fields"]) == [{"path": "contract.max_bad_fraction", "before": 0.5, "after": 0.25}]
    history = do(platform, "plan.history")["plans"]
    assert [plan["reverts_to"] for plan in history] == [one["plan"], None, None]
    assert two["plan"] == history[1]["plan"]
    assert do(platform, "plan.current")["manifest"]["datasets"][0]["contract"]["max_bad_fraction"] == 0.5


def test_production_is_applied_by_operators_only(platform: Platform, tmp_path: Path) -> None:
    request = request_of(tmp_path / "p", PROJECT + 'taut.Project("shop", environment="production")\n')

    with pytest.raises(Denied, match="production-is-applied-by-operators"):
        do(platform, "plan.apply", person("builder"), **request)

    operator = msgspec.structs.replace(person("operator"), local=True)
    assert do(platform, "plan.apply", operator, **request)["verdict"] == "admit"


def test_data_goes_in_and_what_was_set_aside_is_mended_and_replayed(
    platform: Platform, tmp_path: Path
) -> None:
    request = request_of(tmp_path / "p")
    (tmp_path / "p/orders.csv").write_text(
        "id,at,late\n1,2026-01-01T00:00:00Z,true\n-2,2026-01-01T01:00:00Z,false\n3,2026-01-01T02:00:00Z,true\n"
    )
    do(platform, "plan.apply", **request)

    first = do(platform, "data.ingest", dataset="orders")
    again = do(platform, "data.ingest", dataset="orders")
    record = do(platform, "data.quarantine", dataset="orders")["records"][0]
    do(platform, "data.repair", dataset="orders", record=record["id"], values={"id": 2})
    replayed = do(platform, "data.replay", dataset="orders")

    assert (first["rows"], first["quarantined"], first["rejected"], first["verdict"]) == (
        2,
        1,
        False,
        "admit",
    )
    assert again["unchanged"]
    assert (record["row"], record["source"]) == (2, "orders.csv")
    assert replayed["snapshot"] == "orders@2"
    assert do(platform, "data.show", dataset="orders")["rows"] == 3
    assert do(platform, "data.diff", dataset="orders", old="1")["rows_added"] == 1
    assert do(platform, "data.rollback", dataset="orders", to="1")["snapshot"] == "orders@3"
    assert [item["snapshot"] for item in do(platform, "data.history", dataset="orders")["snapshots"]] == [
        "orders@3", "orders@2", "orders@1",
    ]  # fmt: skip
    with pytest.raises(NotFound, match="did you mean 'orders'"):
        do(platform, "data.ingest", dataset="order")


def test_why_walks_from_a_snapshot_to_the_file(platform: Platform, tmp_path: Path) -> None:
    do(platform, "plan.apply", **request_of(tmp_path / "p"))
    (tmp_path / "p/orders.csv").write_text("id,at,late\n1,2026-01-01T00:00:00Z,true\n")
    do(platform, "data.ingest", dataset="orders")

    found = do(platform, "why.show", id="orders@1", openlineage=True)

    assert found["id"] == "snapshot:orders@1"
    assert "source:" in str(found["tree"])
    assert {event["eventType"] for event in found["events"]} == {"START", "COMPLETE"}
    with pytest.raises(NotFound, match="nothing is known"):
        do(platform, "why.show", id="rel_nothing")
    with pytest.raises(InvalidInput):
        do(platform, "why.show", id="bad\nid")


def test_the_ledger_is_verified_and_an_entry_proved(platform: Platform) -> None:
    do(platform, "user.add", principal="ada", roles=["auditor"])

    proof = do(platform, "ledger.prove", what=do(platform, "ledger.show")["leaves"][0]["id"])
    report = do(platform, "ledger.verify")

    assert report["ok"]
    assert len(report["root"]) == 64
    assert proof["leaf"]["kind"].startswith("identity.")


def test_status_says_what_there_is(platform: Platform) -> None:
    found = do(platform, "status.show")

    assert (found["project"], found["live"], found["environment"]) == (None, [], "development")
    transact(platform.records, platform.releases.raise_epoch)
    assert do(platform, "status.show")["epoch"] == 1


def test_a_secret_is_kept_and_never_listed_with_its_value(platform: Platform) -> None:
    do(platform, "secret.put", name="db/password", value="hunter2")

    assert do(platform, "secret.list") == {"secrets": ["db/password"]}
    assert platform.secrets.get("db/password") == "hunter2"
    do(platform, "secret.delete", name="db/password")
    with pytest.raises(NotFound):
        platform.secrets.get("db/password")


def test_policy_answers_what_a_principal_may(platform: Platform) -> None:
    do(platform, "user.add", principal="ada", roles=["approver"])

    may = do(platform, "policy.explain", principal="ada", action="model.read", resource="model:delay@1")
    may_not = do(platform, "policy.explain", principal="ada", action="user.admin", resource="principal:bob")

    assert (may["allow"], may_not["allow"]) == (True, False)
