"""Two installations side by side, of the same project: nothing of one is read in the other, by any route or store.

What is asked is made from the table of operations and from what the first one itself answers, so that a new operation is
asked too. Asked at home, the same questions give the secrets away: that shows that they are real questions.
"""

from __future__ import annotations

import asyncio
import json
import re
import shutil
from collections.abc import Iterator
from contextlib import ExitStack
from datetime import timedelta
from pathlib import Path
from typing import Any

import httpx
import msgspec
import pytest
from installation import ORDER, Installation

from storage_faults import local_blob_path
from taut.bootstrap.ownership import own_database
from taut.bootstrap.platform import Platform, open_platform
from taut.core.errors import Conflict, Corrupt, Denied, NotFound, TautError, Unauthenticated
from taut.entrypoints.api import make_app
from taut.entrypoints.operations import Caller, Operation, operation_table, perform
from taut.serving.snapshot import open_snapshot
from taut.trust.identity import TokenVerifier
from taut.trust.identity.principals import OWNER
from taut.trust.ledger import proof_as_json, verify_proof
from taut.trust.signing.models import read_manifest

pytestmark = pytest.mark.xdist_group("apart")

TABLE = operation_table()
SECRET = "planted-secret-of-the-first"
LONG = {"run.start", "model.optimise", "pipeline.start", "keys.rotate", "break-glass.start", "edge.export"}
"""Of these one question is enough: they start work, or change who may ask."""
PATHS = {"file", "folder"}
NAMES = {
    "dataset": "orders", "endpoint": "late", "model": "late", "version": "late@1", "target": "late", "principal": "ana",
    "features": "load", "action": "data.read", "resource": "dataset:orders",
}  # fmt: skip
"""What both call alike, since they have the same project."""
_ID = re.compile(r"\b(?:[a-z]{2,9}_[0-9a-z]{20,32}|(?:sha256:)?[0-9a-f]{64})\b")


def silent(*_: object) -> None:
    pass


def kind_of(one: str) -> str:
    return one.rpartition("_")[0] or ("digest" if one.startswith("sha256:") else "hexadecimal")


def ids_in(answer: object) -> set[str]:
    return set(_ID.findall(msgspec.json.encode(answer).decode()))


def questions(operation: Operation, ids: list[str], folder: Path) -> Iterator[dict[str, Any]]:
    """Yield requests of an operation: what it must be given is what both call alike, then each of `ids`."""
    fields = msgspec.structs.fields(operation.request)
    texts = [field for field in fields if field.type is str or "str | None" in str(field.type)]
    paths = {field.encode_name: str(folder / operation.name) for field in texts if field.name in PATHS}
    given: dict[str, Any] = {
        field.encode_name: NAMES.get(field.name, "unknown") if field in texts else _filler(str(field.type))
        for field in fields
        if field.required
    } | paths
    yield given
    free = [field for field in texts if field.name not in NAMES and field.name not in PATHS]
    places = [field.encode_name for field in free or texts]
    if places and operation.name not in LONG and not operation.open:
        yield from (given | dict.fromkeys(places, one) | paths for one in ids)


def _filler(type_: str) -> object:
    if "dict" in type_:
        return {}
    if "tuple" in type_:
        return []
    return b"" if "bytes" in type_ else 1


def ask(platform: Platform, operation: Operation, request: dict[str, Any]) -> object:
    """Ask as the owner, who may do everything; an error is an answer too."""
    try:
        return perform(TABLE, platform, Caller(principal=OWNER, local=True), operation.name, request, silent)
    except TautError as error:
        return {"error": error.message}


def told(platform: Platform, ids: list[str], folder: Path, *, reads: bool) -> dict[str, set[str]]:
    """Ask everything; return by operation the ids in its answers that were not in the question."""
    found: dict[str, set[str]] = {}
    for operation in TABLE:
        if reads and not operation.reads:
            continue
        for request in questions(operation, ids, folder):
            answer = ask(platform, operation, request)
            found.setdefault(operation.name, set()).update(ids_in(answer) - ids_in(request))
    return found


def one_of_each_kind(ids: set[str]) -> list[str]:
    return sorted({kind_of(one): one for one in sorted(ids)}.values())


class Sides(msgspec.Struct, frozen=True):
    """The first installation, which has everything, and the second.

    secrets: ids that only the first one has. asked: one of each kind of them. at_home: what the first one told, asked so.
    """

    first: Platform
    second: Platform
    secrets: set[str]
    asked: list[str]
    at_home: dict[str, set[str]]
    folder: Path


@pytest.fixture(scope="module")
def sides(released_template: Installation, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Sides]:
    folder = tmp_path_factory.mktemp("apart")
    one = released_template.copy_to(folder / "one")
    two = Installation(folder / "two")
    shutil.copytree(one.folder, two.folder, ignore=shutil.ignore_patterns(".taut"))
    rows = (two.folder / "data").rglob("*.csv")
    for path in rows:  # the same project, other rows
        head, *lines = path.read_text().splitlines()
        path.write_text("\n".join((head, *reversed(lines))) + "\n")
    one("predict", "late", "--data", json.dumps(ORDER))
    two("apply")
    two("data", "ingest", "orders")
    with ExitStack() as stack:
        first = stack.enter_context(open_platform(one.home, environ={}))
        second = stack.enter_context(open_platform(two.home, environ={}))
        first.secrets.put("db/password", SECRET)
        for side in (first, second):
            side.identity.create_principal("ana", kind="human", roles=("admin",), actor="test")
        common = set().union(*told(second, [], folder, reads=True).values())
        known = set().union(*told(first, [], folder, reads=True).values())
        asked = one_of_each_kind(known - common)
        at_home = told(first, asked, folder, reads=True)  # what it answered leads to more
        secrets = known.union(*at_home.values()) - common
        yield Sides(first, second, secrets, asked, at_home, folder)


def test_no_operation_of_one_tells_anything_of_the_other(sides: Sides) -> None:
    elsewhere = told(sides.second, sides.asked, sides.folder, reads=False)

    assert len(sides.asked) >= 8, sides.asked
    telling = {name for name, found in sides.at_home.items() if found & sides.secrets}
    assert len(telling) >= 15, telling
    assert set(elsewhere) == {operation.name for operation in TABLE}
    secrets = sides.secrets - set(sides.asked)  # what was asked is told again, by the second one's ledger too
    assert {name: found & secrets for name, found in elsewhere.items() if found & secrets} == {}


def test_the_search_finds_what_the_stores_of_the_other_would_tell(sides: Sides) -> None:
    """The planted fault. The database alone does not even open what lies beside it: it is wrapped for the first one."""
    with ExitStack() as stack:
        mixed = Platform(sides.second.config, stack)
        mixed.records = sides.first.records

        refused = ask(mixed, TABLE["run.list"], {})
        mixed.keys, mixed.blobs = sides.first.keys, sides.first.blobs
        found = told(mixed, [], sides.folder, reads=True)

    assert "belongs to another installation" in str(refused)
    assert found["run.list"] & sides.secrets
    assert found["ledger.show"] & sides.secrets


def routes(platform: Platform) -> list[tuple[str, str]]:
    app = make_app(platform, TABLE, log_failure=silent)
    return [(method, route.path) for route in app.routes for method in sorted(route.methods)]  # type: ignore[attr-defined]  # all are routes


def asked_by(
    platform: Platform, places: list[tuple[str, str]], bearers: list[str]
) -> dict[tuple[str, str, str], httpx.Response]:
    """Ask each route with each bearer."""
    app = make_app(platform, TABLE, log_failure=silent)

    async def go() -> dict[tuple[str, str, str], httpx.Response]:
        found = {}
        async with httpx.AsyncClient(
            transport=httpx.ASGITransport(app=app), base_url="http://second"
        ) as client:
            for method, path in places:
                for bearer in bearers:
                    headers = {"authorization": f"Bearer {bearer}"}
                    found[bearer, method, path] = await client.request(method, path, headers=headers)
        return found

    return asyncio.run(go())


def test_no_route_takes_what_the_other_one_signed_or_gave_out(sides: Sides) -> None:
    """Every bearer of the first at every route of the second; the same person, with every role, is known to both."""
    first = sides.first.identity
    token, _ = first.create_token("ana", ("admin",), timedelta(minutes=5), actor="test")
    _, key = first.create_key("ana", ("admin",), actor="test")
    own, _ = sides.second.identity.create_token("ana", ("admin",), timedelta(minutes=5), actor="test")

    every = routes(sides.second)
    answers = asked_by(sides.second, every, [token, key])
    mine = asked_by(sides.second, [place for place in every if place[1].endswith(("/list", "/show"))], [own])

    open_ones = {operation.path for operation in TABLE if operation.open}
    api = {place: answer.status_code for place, answer in answers.items() if place[2].startswith("/api/v1/")}
    assert {place[1:]: code for place, code in api.items() if code != 401 and place[2] not in open_ones} == {}
    assert len({place[2] for place in api}) == len(TABLE)
    assert not [place for place, answer in answers.items() if ids_in(answer.text) & sides.secrets]
    assert sum(answer.status_code == 200 for answer in mine.values()) > 10


def test_a_gateway_of_one_knows_no_bearer_of_the_other(sides: Sides) -> None:
    token, expires = sides.first.identity.create_token("ana", ("admin",), timedelta(minutes=5), actor="test")
    _, key = sides.first.identity.create_key("ana", ("admin",), actor="test")
    now_s = expires.timestamp() - 60
    own, other = (TokenVerifier(side.identity.verifier_data()) for side in (sides.first, sides.second))

    for bearer in (token, key):
        assert own.verify(bearer, now_s).id == "ana"
        with pytest.raises(Unauthenticated):
            other.verify(bearer, now_s)


def test_blobs_of_one_are_not_in_the_other_and_do_not_open_where_they_are_carried(sides: Sides) -> None:
    first, second = sides.first.blobs, sides.second.blobs
    both = {digest for digest in first.digests() if second.size(digest) is not None}
    alone = sorted(set(first.digests()) - both)

    assert len(alone) > 5
    for digest in alone:
        with pytest.raises(NotFound):
            second.read(digest)
        target = local_blob_path(sides.second.home / "blobs", digest)
        target.parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(local_blob_path(sides.first.home / "blobs", digest), target)
        with pytest.raises(Corrupt):
            second.read(digest)
        second.delete(digest)


def test_nothing_that_one_signed_is_believed_by_the_other(sides: Sides) -> None:
    first, second = sides.first, sides.second
    snapshot = first.snapshots.newest()
    version = first.registry.resolve("late@1")
    proof = proof_as_json(first.ledger.prove("installation:records"))
    public = {side.home: side.keys.public_keys(purpose="ledger")[0].pem for side in (first, second)}
    assert snapshot is not None
    statement = first.registry.signed_manifest(version)

    assert open_snapshot(snapshot, first.keys.public_keys(purpose="snapshot")).endpoints
    with pytest.raises(Denied):
        second.snapshots.save(snapshot)
    assert read_manifest(statement, first.keys.public_keys(purpose="model"), version).files
    with pytest.raises(Denied):
        read_manifest(statement, second.keys.public_keys(purpose="model"), version)
    assert verify_proof(proof, public[first.home]).subject
    with pytest.raises((Denied, Corrupt)):
        verify_proof(proof, public[second.home])


def test_nothing_that_one_sealed_or_wrapped_opens_in_the_other(sides: Sides, tmp_path: Path) -> None:
    first, second = sides.first, sides.second
    assert first.secrets.get("db/password") == SECRET
    shutil.copytree(first.home / "secrets", second.home / "secrets", dirs_exist_ok=True)
    with pytest.raises((Corrupt, Denied)):
        second.secrets.get("db/password")

    folder = second.home / "log" / "predictions"
    shutil.copytree(first.home / "log" / "predictions", folder, dirs_exist_ok=True)
    assert list(first.predictions.records())
    with pytest.raises(Denied, match="another key"):
        list(second.predictions.records())
    shutil.rmtree(folder)

    with pytest.raises(Conflict, match="another installation"):
        own_database(first.records, first.ledger, second.keys, home=str(second.home))
