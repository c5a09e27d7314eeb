"""The control API: who calls is proved, errors have one shape, progress streams, and the socket knows its peers."""

from __future__ import annotations

import os
import socket
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import httpx
import msgspec
import pytest
import uvicorn

from taut.bootstrap.platform import Platform
from taut.core.errors import (
    Conflict,
    Corrupt,
    DeadlineExceeded,
    Denied,
    Exhausted,
    InvalidInput,
    NotFound,
    TautError,
    Unauthenticated,
    Unavailable,
)
from taut.entrypoints import errors
from taut.entrypoints.api import make_app
from taut.entrypoints.client import SOCKET, connect
from taut.entrypoints.operations import Operation, OperationTable, operation_table
from taut.entrypoints.operations.operation import Caller, Json, Nothing, Progress
from taut.entrypoints.peers import PeerProtocol, peer_uid
from taut.testing.ports import free_ports


def silent(_what: str, _error: BaseException) -> None:
    pass


class Quiet(uvicorn.Server):
    @contextmanager
    def capture_signals(self) -> Iterator[None]:
        yield


@contextmanager
def served(app: Any, listener: socket.socket, **options: Any) -> Iterator[None]:
    """Serve an app on a socket in a thread until the block ends."""
    server = Quiet(uvicorn.Config(app, lifespan="off", log_config=None, access_log=False, **options))
    thread = threading.Thread(target=server.run, kwargs={"sockets": [listener]})
    thread.start()
    try:
        while not server.started:
            assert thread.is_alive()
        yield
    finally:
        server.should_exit = True
        thread.join()
        listener.close()


def app_of(platform: Platform, *extra: Operation, log: Any = silent) -> Any:
    return make_app(platform, OperationTable((*operation_table(), *extra)), log_failure=log)


@pytest.fixture
def home(platform: Platform) -> Iterator[Path]:
    """An installation that runs: its API on the socket in its home."""
    (platform.home / "run").mkdir()
    listener = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    listener.bind(str(platform.home / SOCKET))
    with served(app_of(platform, FAILING, SLOW), listener, http=PeerProtocol):
        yield platform.home


@contextmanager
def over_tcp(platform: Platform, *extra: Operation, log: Any = silent) -> Iterator[httpx.Client]:
    listener = socket.create_server(("127.0.0.1", 0))
    url = f"http://127.0.0.1:{listener.getsockname()[1]}"
    with (
        served(app_of(platform, *extra, log=log), listener),
        httpx.Client(base_url=url, trust_env=False, timeout=60.0) as http,
    ):
        yield http


def fail(_platform: Any, _caller: Caller, _request: Nothing, _progress: Progress) -> Json:
    raise ZeroDivisionError("secret detail")


def slow(_platform: Any, _caller: Caller, _request: Nothing, progress: Progress) -> Json:
    progress("half", 0.5)
    progress("unknown", None)
    return {"done": True}


def plain(name: str, handle: Any) -> Operation:
    return Operation(
        name=name, action="status.read", request=Nothing, handle=handle, resource=lambda _: "test:1", summary="",
        reads=True,
    )  # fmt: skip


FAILING, SLOW = plain("test.fail", fail), plain("test.slow", slow)


def token(platform: Platform, *roles: str) -> dict[str, str]:
    from datetime import timedelta

    text, _ = platform.identity.create_token("ada", roles, timedelta(minutes=5), actor="owner", enrol="human")
    return {"authorization": f"Bearer {text}"}


def test_every_error_has_a_status_and_an_exit_code_and_survives_the_wire() -> None:
    def all_of(kind: type[TautError]) -> Iterator[type[TautError]]:
        for below in kind.__subclasses__():
            yield below
            yield from all_of(below)

    kinds = {kind for kind in all_of(TautError) if kind.__module__.startswith("taut.")}
    for kind in kinds:
        error = kind.__new__(kind)
        assert errors.answer_of(error).status >= 400
    expected = {
        InvalidInput: 2, NotFound: 3, Denied: 4, Unauthenticated: 4, Conflict: 5, Exhausted: 6, Unavailable: 7,
        DeadlineExceeded: 7, Corrupt: 8,
    }  # fmt: skip
    for kind, code in expected.items():
        back = errors.from_document(kind.code, "what, which, what to do")
        assert (type(back), errors.exit_code_of(back)) == (kind, code)


def test_without_an_identity_nothing_is_answered_but_health(platform: Platform) -> None:
    with over_tcp(platform) as http:
        for operation in operation_table():
            answer = http.post(operation.path, json={})
            if operation.open:  # what is sent is who one is, and nothing was sent
                assert answer.status_code == (200 if operation.name == "passkey.challenge" else 400), (
                    answer.text
                )
                continue
            assert answer.status_code == 401, operation.name
            assert answer.headers["www-authenticate"] == "Bearer"
        assert http.get("/livez").json() == {"ok": True}
        assert http.get("/readyz").json() == {"ok": True}
        assert http.get("/metrics").status_code == 200
        page = http.get("/")
        assert "taut" in page.text
        assert "default-src 'none'" in page.headers["content-security-policy"]


@pytest.mark.parametrize(
    "header",
    ["Bearer", "Basic YWRhOng=", "Bearer forged.token.here", "Bearer taut_0000_aaaa", "Bearer " + "x" * 5000],
)
def test_a_forged_or_malformed_bearer_is_refused(platform: Platform, header: str) -> None:
    with over_tcp(platform) as http:
        answer = http.post("/api/v1/status/show", json={}, headers={"authorization": header})

    assert answer.status_code == 401
    assert answer.json()["error"]["code"] == "unauthenticated"


def test_a_peer_cannot_claim_to_be_on_the_socket(platform: Platform) -> None:
    with over_tcp(platform) as http:
        answer = http.post(
            "/api/v1/status/show", json={}, headers={"x-forwarded-for": "unix", "forwarded": "for=unix"}
        )

    assert answer.status_code == 401


def test_a_role_may_do_what_it_may_and_errors_have_one_shape(platform: Platform) -> None:
    with over_tcp(platform) as http:
        http.headers.update(token(platform, "auditor"))
        assert http.get("/api/v1/status/show").status_code == 200
        denied = http.post("/api/v1/secret/list", json={})
        unknown = http.post("/api/v1/data/show", json={"dataset": "orders"})
        wrong = http.post("/api/v1/data/show", json={"datset": "orders"})
        broken = http.post("/api/v1/data/show", content=b"{nonsense")
        deep = http.post("/api/v1/data/show", content=b"[" * 100_000)

    assert [answer.status_code for answer in (denied, unknown, wrong, broken, deep)] == [
        403,
        404,
        400,
        400,
        400,
    ]
    for answer in (denied, unknown, wrong, broken, deep):
        assert set(answer.json()["error"]) == {"code", "message", "request_id"}
    assert "did you mean 'dataset'" in wrong.json()["error"]["message"]


def test_a_query_string_stands_for_a_body_where_nothing_changes(platform: Platform) -> None:
    with over_tcp(platform) as http:
        http.headers.update(token(platform, "auditor"))
        assert http.get("/api/v1/ledger/show", params={"limit": "1"}).json()["leaves"]
        assert http.get("/api/v1/ledger/show", params={"limit": "many"}).status_code == 400
        assert http.get("/api/v1/user/add").status_code == 405


def test_a_failure_of_ours_is_logged_and_never_shown(platform: Platform) -> None:
    logged: list[tuple[str, BaseException]] = []
    with over_tcp(platform, FAILING, log=lambda *what: logged.append(what)) as http:
        http.headers.update(token(platform, "auditor"))
        answer = http.post("/api/v1/test/fail", json={})
        streamed = http.post("/api/v1/test/fail", json={}, headers={"accept": "application/x-ndjson"})

    told = answer.json()["error"]
    assert (answer.status_code, told["code"]) == (500, "internal")
    assert "secret detail" not in answer.text + streamed.text
    assert "internal" in streamed.text
    assert told["request_id"] == logged[0][0]
    assert isinstance(logged[0][1], ZeroDivisionError)


def test_a_body_beyond_the_bound_is_refused(platform: Platform, monkeypatch: pytest.MonkeyPatch) -> None:
    with over_tcp(platform) as http:
        http.headers.update(token(platform, "auditor"))
        answer = http.post("/api/v1/data/show", content=b"x" * (33 * 2**20))

    assert (answer.status_code, answer.json()["error"]["code"]) == (413, "too_large")
    assert "32 MiB" in answer.json()["error"]["message"]


def test_the_description_names_every_operation_its_types_and_its_right(platform: Platform) -> None:
    with over_tcp(platform) as http:
        described = http.get("/openapi.json").json()

    assert described["openapi"].startswith("3.1")
    for operation in operation_table():
        post = described["paths"][operation.path]["post"]
        assert post["x-taut-action"] == operation.action
        name = post["requestBody"]["content"]["application/json"]["schema"]["$ref"].rpartition("/")[2]
        assert name in described["components"]["schemas"]


def test_the_owner_is_known_on_the_socket_and_acts_through_the_same_client(
    platform: Platform, home: Path
) -> None:
    told: list[tuple[str, float | None]] = []
    with connect(home) as client:
        assert client.call("user.whoami")["principal"] == "owner"
        assert client.call("test.slow", progress=lambda *what: told.append(what)) == {"done": True}
        with pytest.raises(NotFound, match="orders"):
            client.call("data.show", {"dataset": "orders"})
        with pytest.raises(errors.Internal, match="req_"):
            client.call("test.fail")
        with pytest.raises(NotFound):
            client.call("no.such")

    assert told == [("half", 0.5), ("unknown", None)]


def test_with_several_people_the_socket_asks_for_a_sign_in(platform: Platform, home: Path) -> None:
    for name in ("ada", "bob"):
        platform.identity.create_principal(name, kind="human", roles=["admin"], actor="owner")
    bearer = token(platform, "admin")["authorization"].removeprefix("Bearer ")

    with connect(home) as client, pytest.raises(Unauthenticated, match="several people"):
        client.call("user.whoami")
    with connect(home, token=bearer) as client:
        assert client.call("user.whoami")["principal"] == "ada"
    with connect(home, break_glass="locked out") as client:
        assert client.call("user.whoami")["principal"] == "owner"
    assert platform.ledger.show(kind="identity.break_glass")[0].body["reason"] == "locked out"


def test_the_kernel_says_who_is_at_the_other_end() -> None:
    ours, theirs = socket.socketpair(socket.AF_UNIX)
    with ours, theirs:
        assert peer_uid(ours) == os.getuid()
    with socket.create_server(("127.0.0.1", 0)) as tcp:
        assert peer_uid(tcp) is None or tcp.family != socket.AF_UNIX


def test_a_dead_address_is_unavailable_and_a_strange_one_is_named(tmp_path: Path) -> None:
    with (
        connect(tmp_path, url=f"http://127.0.0.1:{free_ports()}") as client,
        pytest.raises(Unavailable, match="taut up"),
    ):
        client.call("user.whoami")
    with pytest.raises(InvalidInput, match="--url"):
        connect(tmp_path, url="ftp://nowhere")


def test_the_wire_and_this_process_give_the_same_document(platform: Platform, home: Path) -> None:
    from taut.entrypoints.operations import perform
    from taut.trust.identity.principals import OWNER

    here = perform(
        operation_table(), platform, Caller(principal=OWNER, local=True), "policy.show", {}, lambda *_: None
    )
    with connect(home) as client:
        assert client.call("policy.show") == msgspec.json.decode(msgspec.json.encode(here))
