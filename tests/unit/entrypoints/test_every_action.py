"""Nothing happens without an action: every route, every command and every reading of rows is decided by policy."""

from __future__ import annotations

import ast
import inspect
import re
import sys
import textwrap
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import typer

from taut.bootstrap.platform import Platform
from taut.entrypoints.api import make_app
from taut.entrypoints.cli.app import build
from taut.entrypoints.operations import Operation, OperationTable, operation_table
from taut.entrypoints.operations.operation import Nothing
from taut.trust.policy import ACTIONS, DISCLOSING
from taut.workflows.access import ACCESSED, LEAF_ACTIONS, action_of

SRC = Path(__file__).parents[3] / "src/taut"

OPEN_ROUTES = {
    "/livez": "says that the process lives",
    "/readyz": "says that the database answers",
    "/": "a page without data",
    "/metrics": "on this machine; to others only with status.read",
    "/oidc/login": "does oidc.begin for a browser",
    "/oidc/callback": "does oidc.finish for a browser",
    "/.well-known/jwks.json": "public keys",
    "/.well-known/spiffe/bundle.json": "certificates of authorities",
    "/openapi.json": "what there is, not what is in it",
}
LOCAL_COMMANDS = {
    "demo": "an installation of its own, by the operations",
    "init": "writes files of a new project",
    "up": "starts the processes; who may is who owns the files",
    "top": "asks status.traffic",
    "doctor": "looks at the files of whoever owns them",
    "predict": "asks the data plane, which decides predict",
    "feedback": "asks the data plane, which decides feedback",
    "load": "asks the data plane, and log.read for a replay",
    "login": "asks session.start",
    "logout": "asks session.end",
    "policy test": "decides about files that are not applied",
    "tls create": "writes a certificate for a try",
}
ROWS = {
    "data": {"scan", "quarantine", "locate"},
    "results": {"scan", "rejects", "get"},
    "predictions": {"records", "payloads", "find"},
    "registry": {"export"},
    "features": {"frame", "training_frame"},
    "tables": {"scan", "read"},
    "sealer": {"unseal"},
}
"""What of the rooms hands out rows, or a model that was made from them."""


def silent(*_: object) -> None:
    pass


def undecided_routes(app: Any, table: OperationTable) -> set[str]:
    decided = {one.path for one in table if one.action in ACTIONS}
    return {route.path for route in app.routes} - decided - set(OPEN_ROUTES)


def test_every_route_of_the_api_is_an_operation_with_an_action_or_shows_no_data(platform: Platform) -> None:
    table = operation_table()
    app = make_app(platform, table, log_failure=silent)

    assert not undecided_routes(app, table)
    app.add_route("/api/v1/hole", silent)
    assert undecided_routes(app, table) == {"/api/v1/hole"}  # the planted fault


def commands(command: Any, path: str = "") -> Iterator[tuple[str, Callable[..., Any]]]:
    for name, below in getattr(command, "commands", {}).items():
        yield from commands(below, f"{path} {name}".strip())
        if below.callback is not None and (
            not getattr(below, "commands", {}) or below.invoke_without_command
        ):
            yield f"{path} {name}".strip(), below.callback


_CALLED = re.compile(r'(?:act|ask|show_only|call)\(\s*"([a-z.\-]+)"')


def operations_of(function: Callable[..., Any]) -> set[str]:
    """The operations that a function of the command line names, itself or in what it calls of its own module."""
    module = sys.modules[function.__module__]
    seen, waiting, found = set(), [function], set()
    while waiting:
        one = waiting.pop()
        if one in seen:
            continue
        seen.add(one)
        source = inspect.getsource(one)
        found.update(_CALLED.findall(source))
        named = set(re.findall(r"\b([a-z_]+)\(", source))
        waiting += [
            other
            for name in named
            if inspect.isfunction(other := getattr(module, name, None))
            and other.__module__ == module.__name__
        ]
    return found


def test_every_command_asks_for_operations_or_says_why_not() -> None:
    known = {one.name for one in operation_table()}
    found = {
        path: operations_of(inspect.unwrap(run)) for path, run in commands(typer.main.get_command(build()))
    }

    assert {path for path, asked in found.items() if not asked} <= set(LOCAL_COMMANDS)
    assert set(LOCAL_COMMANDS) <= set(found)
    assert {name for asked in found.values() for name in asked} <= known


def rows_read(function: Callable[..., Any]) -> set[str]:
    """What hands out rows in a handler, itself or in what it calls of its own module, as `room.method`."""
    module = sys.modules[function.__module__]
    seen, waiting, found = set(), [function], set()
    while waiting:
        one = waiting.pop()
        if one in seen:
            continue
        seen.add(one)
        for node in ast.walk(ast.parse(textwrap.dedent(inspect.getsource(one)))):
            if isinstance(node, ast.Attribute) and isinstance(node.value, ast.Attribute):
                room = node.value.attr
                found |= {f"{room}.{node.attr}"} if node.attr in ROWS.get(room, ()) else set()
            if isinstance(node, ast.Name):
                other = getattr(module, node.id, None)
                if inspect.isfunction(other) and other.__module__ == module.__name__:
                    waiting.append(other)
    return found


DECIDES_ITSELF = {
    "why.show": 'of a request and of a row it requires "log.read" or "batch.read", and leaves the leaf'
}


def undecided_readings(table: OperationTable) -> dict[str, set[str]]:
    return {
        one.name: rows
        for one in table
        if one.action not in DISCLOSING and one.name not in DECIDES_ITSELF and (rows := rows_read(one.handle))
    }


def reading(platform: Any, _caller: Any, _request: Any, _progress: Any) -> dict[str, Any]:
    return {"records": list(platform.predictions.records())}


def test_whatever_hands_out_rows_has_an_action_of_that_kind() -> None:
    table = operation_table()
    readers = {one.name for one in table if rows_read(one.handle)}

    assert not undecided_readings(table)
    assert {"data.quarantine", "prediction.recorded", "batch.get", "model.export", "why.show"} <= readers
    planted = Operation(
        name="hole.read",
        action="status.read",
        request=Nothing,
        handle=reading,
        resource=lambda _: "hole:1",
        summary="",
    )
    assert undecided_readings(OperationTable([planted])) == {"hole.read": {"predictions.records"}}


def test_what_discloses_says_so_in_the_ledger() -> None:
    assert {one.name for one in operation_table() if one.discloses} >= {
        "data.quarantine", "batch.get", "batch.show", "prediction.recorded", "model.export", "edge.export",
    }  # fmt: skip
    assert action_of(ACCESSED, {"action": "data.read"}) == "data.read"


OF_THE_PLATFORM = {
    "release.canary.judged", "release.experiment.judged", "release.shadow.judged",
    "installation.begun", "model.registered", "predictions.sealed", "verdict.release", "identity.break_glass",
    "identity.token_key.rotated", "identity.signin.slowed", "finding.opened", "finding.raised",
    "containment.refused", "delivery.given_up", "incident.joined", "incident.raised", "incident.reopened", "outcomes.taken", "trigger.judged", "trigger.ended",
}  # fmt: skip
"""Leaves that nobody leaves by using a right."""


def test_every_kind_of_leaf_is_what_somebody_did_or_the_platform_itself() -> None:
    """So that a review counts what people do, also what is added later."""
    pattern = re.compile(
        r'(?:Entry\(\s*(?:kind=)?|note\(\s*tx, |_leaf\(tx, |_log\(tx, )f?"([a-z_]+\.[a-z_.]+)"'
    )
    kinds = {
        kind
        for path in SRC.rglob("*.py")
        if "testing" not in path.parts
        for kind in pattern.findall(path.read_text())
    }

    assert len(kinds) > 20
    assert not {kind for kind in kinds if action_of(kind, {}) is None} - OF_THE_PLATFORM
    assert set(LEAF_ACTIONS.values()) <= set(ACTIONS)
