"""Lines of OWASP's lists that no other test walks: what is sent but not taken, addresses that are never asked, headers."""

from __future__ import annotations

import asyncio
import socket
from collections.abc import Iterator
from contextlib import ExitStack
from datetime import timedelta
from pathlib import Path
from typing import Any

import httpx
import msgspec
import pytest

from taut.bootstrap.config import Config
from taut.bootstrap.platform import Platform
from taut.bootstrap.schema import all_metadata
from taut.core.errors import InvalidInput, NotFound, TautError
from taut.entrypoints.api import make_app
from taut.entrypoints.operations import Caller, Operation, operation_table, perform
from taut.entrypoints.operations.operation import Nothing, decode
from taut.project.load import load_project
from taut.testing.records import memory_records
from taut.trust.identity.principals import OWNER

HERE = Caller(principal=OWNER, local=True)
SERVERS_OWN = (
    "actor",
    "author",
    "roles_of",
    "is_admin",
    "verdict",
    "state",
    "approved",
    "created_at",
    "__class__",
)
"""What only the server decides, as callers would try to set it."""


@pytest.fixture
def house(tmp_path: Path) -> Iterator[Platform]:
    home = tmp_path / "home"
    home.mkdir(mode=0o700)
    with ExitStack() as stack:
        made = Platform(Config(home=home), stack)
        records = memory_records(*all_metadata())
        stack.callback(records.close)
        made.records = records
        yield made


def do(house: Platform, name: str, caller: Caller = HERE, /, **request: Any) -> dict[str, Any]:
    return perform(operation_table(), house, caller, name, request, lambda _said, _share: None)


@pytest.mark.parametrize("word", SERVERS_OWN)
def test_no_operation_takes_a_word_that_is_the_servers_own(word: str) -> None:
    """API3:2023, mass assignment: nothing binds what was not declared."""
    taking = [
        operation.name
        for operation in operation_table()
        if word not in {field.encode_name for field in msgspec.structs.fields(operation.request)}
        and not refuses(operation, word)
    ]

    assert taking == []


def refuses(operation: Operation, word: str) -> bool:
    try:
        decode(operation, {word: "x"})
    except InvalidInput as error:
        return f"takes no {word!r}" in error.message
    return False


def test_nobody_ends_or_removes_what_is_anothers_by_naming_it(house: Platform) -> None:
    """API1:2023: an id is no right. What one does with his own account finds nothing of anybody else's."""
    for name in ("ada", "eve"):
        house.identity.create_principal(name, kind="human", roles=["builder"], actor="owner")
    with house.records.begin() as tx:
        hers, own = (
            house.people.sessions.start(
                tx, name, kind="command", method="password", proved_at=house.clock.now()
            )
            for name in ("ada", "eve")
        )
    eve = Caller(principal=own.session.principal, session=own.session)

    with pytest.raises(TautError):
        do(house, "session.revoke", eve, principal="ada", session=hers.session.id)
    with pytest.raises(TautError):
        do(house, "passkey.remove", eve, passkey=hers.session.id)
    with pytest.raises(NotFound):
        house.people.sessions.end(hers.session.id, actor="eve", of="eve")
    assert house.people.sessions.find(hers.secret).principal.id == "ada"
    assert "ada" not in str(do(house, "account.show", eve))


def applied_and_read(house: Platform, project: Path) -> None:
    loaded = load_project(project)
    manifest, bundle = msgspec.to_builtins(loaded.manifest), msgspec.to_builtins(loaded.bundle)
    applied = do(house, "plan.apply", manifest=manifest, bundle=bundle)
    if applied["plan"] is None:
        raise InvalidInput("the plan gate refused it")
    do(house, "data.ingest", dataset="orders")


@pytest.mark.parametrize("scheme", ["http", "https", "ftp", "gopher", "dict"])
def test_no_declared_source_makes_control_ask_an_address_of_the_network(
    house: Platform, tmp_path: Path, scheme: str
) -> None:
    """API7:2023 and A10:2021: a listener on the machine, as a metadata service would be, is never connected to."""
    folder = tmp_path / "shop"
    folder.mkdir()
    with socket.create_server(("127.0.0.1", 0)) as listener:
        listener.setblocking(False)
        url = f"{scheme}://127.0.0.1:{listener.getsockname()[1]}/latest/meta-data.csv"
        (folder / "project.py").write_text(
            "import taut\n"
            f"orders = taut.Dataset('orders', source=taut.files({url!r}), contract=taut.Contract([taut.column('id', 'int')]))\n"
        )
        with pytest.raises(TautError):  # wherever it is seen first: the project, the plan, the reading
            applied_and_read(house, folder / "project.py")
        with pytest.raises(BlockingIOError):
            listener.accept()


def fail(*_: object) -> Any:
    raise ZeroDivisionError("planted")


FAILING = Operation(
    name="test.fail", action="status.read", request=Nothing, handle=fail, resource=lambda _request: "platform:all",
    summary="Fail",
)  # fmt: skip


def test_every_answer_of_control_tells_a_browser_to_believe_and_keep_nothing(house: Platform) -> None:
    """API8:2023 and A05:2021, for answers, refusals, failures of ours and what is not there."""
    from taut.entrypoints.operations import OperationTable

    app = make_app(house, OperationTable([*operation_table(), FAILING]), log_failure=lambda _id, _error: None)
    token, _ = house.identity.create_token(
        "ada", ["admin"], timedelta(minutes=5), actor="owner", enrol="human"
    )
    known = {"authorization": f"Bearer {token}"}

    async def asked() -> list[httpx.Response]:
        transport = httpx.ASGITransport(app, raise_app_exceptions=False)
        async with httpx.AsyncClient(transport=transport, base_url="http://127.0.0.1") as client:
            return [
                await client.get("/api/v1/status/show", headers=known),
                await client.post("/api/v1/test/fail", headers=known),
                await client.get("/api/v1/status/show"),
                await client.get("/not/here"),
                await client.get("/openapi.json"),
                await client.get("/"),
            ]

    answers = asyncio.run(asked())

    assert [answer.status_code for answer in answers] == [200, 500, 401, 404, 200, 200]
    for answer in answers:
        assert answer.headers["x-content-type-options"] == "nosniff"
        assert answer.headers["cache-control"] == "no-store"
        assert "default-src 'none'" in answer.headers["content-security-policy"]
        assert "frame-ancestors 'none'" in answer.headers["content-security-policy"]
        assert not {"server", "x-powered-by", "access-control-allow-origin"} & set(answer.headers)
    assert "planted" not in answers[1].text
