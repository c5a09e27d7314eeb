"""Attacks on the control plane by people with too few rights, from elsewhere: each was tried before it was closed."""

from __future__ import annotations

import socket
import threading
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from datetime import timedelta
from pathlib import Path
from typing import Any

import httpx
import msgspec
import pytest
import uvicorn

from taut.bootstrap.config import Config
from taut.bootstrap.platform import Platform
from taut.bootstrap.schema import all_metadata
from taut.core.errors import Denied, NotFound
from taut.entrypoints.api import make_app
from taut.entrypoints.operations import Caller, operation_table, perform
from taut.project.load import load_project
from taut.testing.records import memory_records
from taut.trust.identity.principals import OWNER, Principal
from taut.trust.policy import ROLE_ACTIONS

OWNER_HERE = Caller(principal=OWNER, local=True)
PROJECT = """
import taut
orders = taut.Dataset("orders", source=taut.files("orders.csv"), contract=taut.Contract([
    taut.column("id", "int", unique=True), taut.column("at", "datetime"), taut.column("late", "bool"),
]), entity="id", event_time="at")
@taut.model("late", dataset=orders, request=["id"], label="late", split=taut.by_time(test="1d"), approval=taut.approval(1))
def train(ctx): ...
late = taut.Endpoint("late", model=train)
"""
ORDERS = "id,at,late\n1,2020-01-01T00:00:00Z,true\n"


@pytest.fixture
def platform(tmp_path: Path) -> Iterator[Platform]:
    home = tmp_path / "home"
    home.mkdir(mode=0o700)
    with ExitStack() as stack:
        made = Platform(Config(home=home), stack)
        records = memory_records(*all_metadata())
        stack.callback(records.close)
        made.records = records
        yield made


@pytest.fixture
def project(platform: Platform, tmp_path: Path) -> dict[str, Any]:
    """An applied project in a folder of its own, and the request that applied it."""
    folder = tmp_path / "shop"
    folder.mkdir()
    (folder / "orders.csv").write_text(ORDERS)
    (tmp_path / "secret.csv").write_text(ORDERS)
    (folder / "project.py").write_text(PROJECT)
    loaded = load_project(folder / "project.py")
    request = {"manifest": msgspec.to_builtins(loaded.manifest), "bundle": msgspec.to_builtins(loaded.bundle)}
    assert do(platform, "plan.apply", OWNER_HERE, **request)["plan"]
    return request


def do(platform: Platform, name: str, caller: Caller, /, **request: Any) -> dict[str, Any]:
    return perform(operation_table(), platform, caller, name, request, lambda _message, _fraction: None)


def remote(*roles: str, id: str = "mallory") -> Caller:
    return Caller(principal=Principal(id=id, kind="human", roles=roles))


def changed(request: dict[str, Any], **values: Any) -> dict[str, Any]:
    return {**request, "manifest": {**request["manifest"], **values}}


# files that control may read


@pytest.mark.parametrize(
    "source",
    ["{outside}", "file://{outside}", "../secret.csv", "./../shop/../secret.csv", "../*.csv", "link.csv", "li*.csv",
     "folder/*.csv", "/etc/*", "~/x.csv", "s3://bucket/key", "http://169.254.169.254/latest", "/proc/self/environ"],
)  # fmt: skip
def test_a_builder_from_elsewhere_cannot_make_control_read_files_of_its_user(
    platform: Platform, project: dict[str, Any], tmp_path: Path, source: str
) -> None:
    (tmp_path / "shop" / "link.csv").symlink_to(tmp_path / "secret.csv")
    (tmp_path / "shop" / "folder").symlink_to(tmp_path, target_is_directory=True)
    source = source.format(outside=tmp_path / "secret.csv")

    with pytest.raises(Denied):
        do(platform, "data.ingest", remote("builder"), dataset="orders", source=source)


def test_a_builder_from_elsewhere_reads_what_is_declared_or_inside_the_project(
    platform: Platform, project: dict[str, Any], tmp_path: Path
) -> None:
    (tmp_path / "shop" / "more.csv").write_text(ORDERS.replace("\n1,", "\n2,"))

    assert do(platform, "data.ingest", remote("builder"), dataset="orders", source="orders.csv")["rows"] == 1
    assert do(platform, "data.ingest", remote("builder"), dataset="orders", source="mo*.csv")["rows"] == 1


def test_the_owner_on_the_machine_names_any_file_that_he_may_read(
    platform: Platform, project: dict[str, Any], tmp_path: Path
) -> None:
    found = do(platform, "data.ingest", OWNER_HERE, dataset="orders", source=str(tmp_path / "secret.csv"))

    assert found["rows"] == 1


@pytest.mark.parametrize("operation", ["plan.apply", "plan.show"])
def test_a_plan_from_elsewhere_cannot_declare_files_outside_the_project(
    platform: Platform, project: dict[str, Any], tmp_path: Path, operation: str
) -> None:
    dataset = project["manifest"]["datasets"][0]
    for url in (str(tmp_path / "secret.csv"), "../secret.csv", "/etc/passwd", "file:///etc/passwd"):
        stolen = {**dataset, "source": {**dataset["source"], "url": url}}
        with pytest.raises(Denied):
            do(platform, operation, remote("builder"), **changed(project, datasets=[stolen]))


def test_a_plan_from_elsewhere_cannot_move_the_projects_folder(
    platform: Platform, project: dict[str, Any], tmp_path: Path
) -> None:
    dataset = project["manifest"]["datasets"][0]
    mine = {**dataset, "description": "changed, so that it is a plan of its own"}

    do(platform, "plan.apply", remote("builder"), **changed(project, root=str(tmp_path), datasets=[mine]))

    assert platform.plans.require().root == str(tmp_path / "shop")


def test_the_first_plan_comes_from_the_machine(platform: Platform, tmp_path: Path) -> None:
    (tmp_path / "project.py").write_text(PROJECT)
    loaded = load_project(tmp_path / "project.py")

    with pytest.raises(Denied):
        do(
            platform, "plan.apply", remote("admin"),
            manifest=msgspec.to_builtins(loaded.manifest), bundle=msgspec.to_builtins(loaded.bundle),
        )  # fmt: skip


# rights that grow


def test_a_builder_cannot_leave_production_by_calling_it_development(
    platform: Platform, project: dict[str, Any]
) -> None:
    """What guards production would be gone with one plan: approvals, records, steps, the sign-in of the owner."""
    assert do(platform, "plan.apply", OWNER_HERE, **changed(project, environment="production"))["plan"]

    with pytest.raises(Denied, match="production"):
        do(platform, "plan.apply", remote("builder"), **project)
    with pytest.raises(Denied, match="production"):
        do(platform, "plan.revert", remote("builder"), to="1")
    assert platform.plans.environment() == "production"
    assert do(platform, "plan.revert", remote("operator"), to="1")["plan"]


def test_a_builder_cannot_release_by_way_of_a_pipeline(platform: Platform, project: dict[str, Any]) -> None:
    """The story ends in a release, for which builders have no right when they ask for it by its name."""
    with pytest.raises(Denied, match=r"release\.start"):
        do(platform, "release.start", remote("builder"), endpoint="late", version="1")

    with pytest.raises(Denied, match=r"release\.start"):
        do(platform, "pipeline.start", remote("builder"), endpoint="late", ingest=["orders"])
    assert do(platform, "pipeline.start", remote("builder", "operator"), endpoint="late")["state"]


def test_an_answer_of_somebody_else_is_explained_to_whoever_may_read_the_log(
    platform: Platform, project: dict[str, Any]
) -> None:
    """The explanation repeats what the caller sent, which may be about a person."""
    for role in ("builder", "approver", "operator"):
        with pytest.raises(Denied, match=r"log\.read"):
            do(platform, "why.show", remote(role), id="req_01m7ys1w7a8wwhm0fd00w0jkvj")
    for role in ("auditor", "admin"):
        with pytest.raises(NotFound):
            do(platform, "why.show", remote(role), id="req_01m7ys1w7a8wwhm0fd00w0jkvj")


# every operation over the network


@contextmanager
def served(platform: Platform) -> Iterator[str]:
    listener = socket.socket()
    listener.bind(("127.0.0.1", 0))
    app = make_app(platform, operation_table(), log_failure=lambda _what, _error: None)
    server = uvicorn.Server(uvicorn.Config(app, lifespan="off", log_config=None, access_log=False))
    server.capture_signals = lambda: ExitStack()  # type: ignore[method-assign, assignment, return-value]  # not in the main thread
    thread = threading.Thread(target=server.run, kwargs={"sockets": [listener]})
    thread.start()
    try:
        while not server.started:
            assert thread.is_alive()
            time.sleep(0.01)
        yield f"http://127.0.0.1:{listener.getsockname()[1]}"
    finally:
        server.should_exit = True
        thread.join()
        listener.close()


OPEN = {
    "session.start", "session.accept", "oidc.begin", "oidc.finish", "passkey.challenge", "passkey.enter",
}  # fmt: skip
"""What a stranger may ask control, since he signs in by it. Another one is a decision, which changes this list."""
INVITED = {"machine.enter", "machine.renew"}
"""What a machine proves by an invitation, or by the key that was certified last: it may have no identity that holds. Another
one is a decision, too."""
OF_EVERYBODY = OPEN | {
    "session.end", "account.show", "account.password", "user.whoami", "token.exchange", "totp.begin", "totp.confirm",
    "totp.remove", "passkey.begin", "passkey.add", "passkey.remove",
}  # fmt: skip
"""What each may do with his own account."""


def sample(operation: Any, project: dict[str, Any]) -> dict[str, Any]:
    """A body that the operation understands, so that policy is what refuses it."""
    request: dict[str, Any] = {}
    of_type = {int: 1, float: 1.0, bool: True, str: "x@1", bytes: "eA=="}
    for field in msgspec.structs.fields(operation.request):
        if field.required:
            request[field.encode_name] = of_type[field.type] if field.type in of_type else {
                "manifest": project["manifest"], "bundle": project["bundle"], "values": {}, "records": ["x"],
                "roles": ["predictor"], "key": {"a": 1}, "report": {},
            }.get(field.encode_name, "x@1")  # fmt: skip
    return request


def test_no_operation_of_control_obeys_a_predictor_or_a_stranger(
    platform: Platform, project: dict[str, Any]
) -> None:
    platform.identity.create_principal("app", kind="service", roles=["predictor"], actor="owner")
    token, _ = platform.identity.create_token("app", ["predictor"], timedelta(minutes=5), actor="owner")
    allowed = set(ROLE_ACTIONS["predictor"])
    before = platform.ledger.size()
    with served(platform) as url, httpx.Client(base_url=url, trust_env=False, timeout=60.0) as client:
        for operation in operation_table():
            assert (operation.action in allowed) == (operation.name in OF_EVERYBODY), operation.name
            assert operation.open == (operation.name in OPEN | INVITED), operation.name
            body = sample(operation, project)
            if operation.name in INVITED:
                for bearer in ("x", token):
                    answer = client.post(
                        operation.path, json=body, headers={"authorization": f"Bearer {bearer}"}
                    )
                    assert answer.status_code in (400, 401, 403, 409, 422), (operation.name, answer.text)
            if operation.open:
                continue
            known = (
                ({"authorization": f"Bearer {token}"}, 403),
                ({"authorization": f"Bearer {token}", "taut-break-glass": "I am the owner"}, 403),
            )
            for headers, status in (
                ({}, 401), ({"authorization": "Bearer x"}, 401),
                ({"x-forwarded-for": "unix", "taut-break-glass": "I am the owner"}, 401),
                *(known if operation.name not in OF_EVERYBODY else ()),
            ):  # fmt: skip
                answer = client.post(operation.path, json=body, headers=headers)
                assert answer.status_code == status, (operation.name, headers, answer.text)
                assert "Traceback" not in answer.text
            assert client.get(operation.path).status_code in (401, 405), operation.name
    assert platform.ledger.size() == before


def test_a_stranger_is_refused_before_his_body_is_read(platform: Platform) -> None:
    """Else anybody who reaches the port makes control hold and parse 32 MiB for each connection."""
    with served(platform) as url:
        host, _, port = url.removeprefix("http://").partition(":")
        with socket.create_connection((host, int(port)), timeout=60) as peer:
            peer.sendall(b"POST /api/v1/plan/show HTTP/1.1\r\nhost: x\r\ncontent-length: 33000000\r\n\r\n{")
            assert b" 401 " in peer.recv(4096).splitlines()[0]


def test_an_identity_that_came_twice_is_refused_rather_than_chosen(platform: Platform) -> None:
    """A proxy in front may have looked at the other one."""
    platform.identity.create_principal("ada", kind="human", roles=["admin"], actor="owner")
    token, _ = platform.identity.create_token("ada", ["admin"], timedelta(minutes=5), actor="owner")
    with served(platform) as url, httpx.Client(base_url=url, trust_env=False, timeout=60.0) as client:
        headers = [("authorization", f"Bearer {token}"), ("authorization", "Bearer x")]
        assert client.post("/api/v1/user/list", headers=headers[:1], content=b"{}").status_code == 200
        assert client.post("/api/v1/user/list", headers=headers, content=b"{}").status_code == 401


def test_secrets_leave_their_names_in_the_ledger_and_their_values_nowhere(platform: Platform) -> None:
    do(platform, "secret.put", OWNER_HERE, name="db", value="correct horse")
    do(platform, "secret.delete", OWNER_HERE, name="db")

    leaves = platform.ledger.show(kind="secret.", limit=10)
    assert [(leaf.kind, leaf.subject) for leaf in leaves] == [
        ("secret.deleted", "secret:db"),
        ("secret.put", "secret:db"),
    ]
    assert "horse" not in str(leaves)


def test_a_page_of_another_site_gets_nothing_from_control(platform: Platform) -> None:
    """A rebound name reaches the port from a browser: there is no cookie, no origin that is allowed, nothing to read."""
    with served(platform) as url, httpx.Client(base_url=url, trust_env=False, timeout=60.0) as client:
        headers = {"origin": "http://evil.example", "host": "evil.example"}
        for method, path in (("GET", "/api/v1/status/show"), ("POST", "/api/v1/user/list")):
            answer = client.request(method, path, headers=headers, content=b"{}")
            assert answer.status_code == 401
            assert "access-control-allow-origin" not in answer.headers
        answer = client.options(
            "/api/v1/user/list", headers={**headers, "access-control-request-method": "POST"}
        )
        assert answer.status_code == 405
        assert "access-control-allow-origin" not in answer.headers
