"""Control's API, driven from its own OpenAPI document: a clear answer to whatever is sent, in one shape, and no failure of ours."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from datetime import timedelta
from typing import Any, NamedTuple

import httpx
import pytest
import schemathesis
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from schemathesis import GenerationMode

from taut.bootstrap.config import Config
from taut.bootstrap.platform import Platform
from taut.bootstrap.schema import all_metadata
from taut.entrypoints.api import make_app
from taut.entrypoints.errors import TABLE
from taut.entrypoints.openapi import describe
from taut.entrypoints.operations import OperationTable, operation_table
from taut.entrypoints.operations.operation import Nothing, Operation
from taut.testing.records import memory_records

pytestmark = [pytest.mark.xdist_group("openapi"), pytest.mark.processes]

OPERATIONS = {
    f"{found.ok().method} {found.ok().path}": found.ok()
    for found in schemathesis.openapi.from_dict(describe(operation_table())).get_all_operations()
}
QUICK = settings(
    max_examples=3, deadline=None, derandomize=True, database=None, suppress_health_check=list(HealthCheck)
)


def fail(*_: object) -> Any:
    raise ZeroDivisionError("planted")


FAILING = Operation(
    name="test.fail", action="status.read", request=Nothing, handle=fail, resource=lambda _request: "platform:all",
    summary="Fail",
)  # fmt: skip


class Api(NamedTuple):
    """The API in this process. failures: those of ours. token: makes one of an administrator."""

    ask: Callable[..., httpx.Response]
    token: Callable[[], str]
    failures: list[BaseException]


@pytest.fixture(scope="module")
def api(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Api]:
    home = tmp_path_factory.mktemp("openapi") / "home"
    home.mkdir(mode=0o700)
    failures: list[BaseException] = []
    with ExitStack() as stack:
        platform = Platform(Config(home=home), stack)
        records = memory_records(*all_metadata())
        stack.callback(records.close)
        platform.records = records
        table = OperationTable((*operation_table(), FAILING))
        app = make_app(platform, table, log_failure=lambda _id, error: failures.append(error))
        runner = stack.enter_context(asyncio.Runner())
        client = httpx.AsyncClient(transport=httpx.ASGITransport(app), base_url="http://control")
        stack.callback(lambda: runner.run(client.aclose()))

        def ask(method: str, url: str, **sent: Any) -> httpx.Response:
            return runner.run(client.request(method, url, **sent))

        def token() -> str:
            ttl = timedelta(minutes=5)
            text, _ = platform.identity.create_token("ada", ("admin",), ttl, actor="owner", enrol="human")
            return text

        yield Api(ask, token, failures)


def sent(case: Any, token: str | None) -> dict[str, Any]:
    """A generated case as it goes over the wire, by a caller of ours."""
    made = case.as_transport_kwargs(base_url="http://control")
    headers = {"content-type": "application/json"}
    if token is not None:
        headers["authorization"] = f"Bearer {token}"
    content = made.get("data", b"")
    if "json" in made:
        content = json.dumps(made["json"]).encode("utf-8", "surrogatepass")
    if isinstance(content, str):
        content = content.encode("utf-8", "surrogatepass")
    return {
        "method": made["method"], "url": made["url"], "params": made.get("params"), "headers": headers,
        "content": content if isinstance(content, bytes) else b"",
    }  # fmt: skip


def check(answer: httpx.Response) -> str:
    """Return the code of an error, which must be in the one shape and clear."""
    assert answer.headers["content-type"].startswith("application/json")
    if answer.status_code == 200:
        return ""
    error = answer.json()["error"]
    assert set(error) == {"code", "message", "request_id"}
    assert error["request_id"].startswith("req_")
    assert error["code"] in TABLE
    assert len(error["message"]) >= 10
    assert "Traceback" not in answer.text
    assert answer.status_code < 500 or error["code"] == "unavailable", answer.text
    return str(error["code"])


@pytest.mark.parametrize("operation", OPERATIONS)
def test_whatever_an_administrator_sends_is_answered_or_clearly_refused(api: Api, operation: str) -> None:
    made = OPERATIONS[operation]
    cases = st.one_of(made.as_strategy(), made.as_strategy(generation_mode=GenerationMode.NEGATIVE))

    token = api.token()

    @QUICK
    @given(case=cases)
    def ask(case: Any) -> None:
        check(api.ask(**sent(case, token)))
        assert not api.failures

    ask()


_REFUSED = {"invalid_input", "too_large"}
SIGN_INS = {one.path: _REFUSED for one in operation_table() if one.open}
SIGN_INS["/api/v1/passkey/challenge"] = {"", *_REFUSED}


def test_nobody_is_answered_nothing(api: Api) -> None:
    for operation in OPERATIONS:
        method, _, path = operation.partition(" ")
        told = {
            check(api.ask(method, path, content=content)) for content in (b"", b"{}", b"[" * 100_000, b"\xff")
        }
        if path in SIGN_INS:  # what they are sent says who one is
            assert told <= SIGN_INS[path], operation
        else:
            assert told == {"unauthenticated"}, operation
    assert not api.failures


paths = st.text(st.characters(min_codepoint=33, max_codepoint=126), max_size=40)


@settings(QUICK, max_examples=100)
@given(
    method=st.sampled_from(["GET", "POST", "PUT", "DELETE", "PATCH", "OPTIONS", "HEAD", "BREW"]), path=paths
)
def test_what_is_not_there_is_said_so(api: Api, method: str, path: str) -> None:
    url = httpx.URL(f"http://control/api/v1/{path.replace('#', '').replace('?', '')}")

    answer = api.ask(method, url, headers={"authorization": f"Bearer {api.token()}"})

    assert answer.status_code in (404, 405), answer.text
    if method != "HEAD":
        assert check(answer) in ("not_found", "method_not_allowed")


def test_a_failure_of_ours_would_be_seen_by_these_tests(api: Api) -> None:
    answer = api.ask("POST", "/api/v1/test/fail", headers={"authorization": f"Bearer {api.token()}"})
    seen, api.failures[:] = list(api.failures), []

    with pytest.raises(AssertionError, match="internal"):
        check(answer)
    assert [type(one) for one in seen] == [ZeroDivisionError]
