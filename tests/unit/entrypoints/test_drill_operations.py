"""Drills by the operations that the command line and the API share: who may start one while releases are frozen."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest

from taut.bootstrap.platform import Platform
from taut.core.errors import Denied, TautError, Unavailable
from taut.core.refs import VersionRef
from taut.entrypoints.operations import Caller, operation_table, perform
from taut.project.manifest import EndpointSpec, Manifest
from taut.project.release_specs import FreezeSpec
from taut.project.responses import DrillSpec
from taut.trust.identity import Principal

FROZEN = Manifest(
    endpoints=(EndpointSpec(name="late", model="late"),),
    drills=(DrillSpec(name="late-fails", endpoint="late", failing=1.0),),
    freezes=(FreezeSpec(name="audit", since="2000-01-01T00:00:00Z", until="2100-01-01T00:00:00Z"),),
)


def person(role: str, kind: Any = "human") -> Principal:
    return Principal(id="ada", kind=kind, roles=(role,))


def start(platform: Platform, who: Principal) -> None:
    request = {"drill": "late-fails"}
    perform(operation_table(), platform, Caller(principal=who, local=True), "drill.start", request, lambda *_: None)  # fmt: skip


@pytest.fixture
def live(platform: Platform) -> Platform:
    """Control without gateways, where a version is live and whose plan a test says."""
    assert platform.policy.now()
    with platform.records.begin() as tx:
        id_ = platform.releases.start(tx, endpoint="late", version=VersionRef("late", 1), strategy="direct", actor="ada", reason="")  # fmt: skip
        platform.releases.promote(tx, id_, actor="ada")
    return platform


@pytest.mark.parametrize(
    ("who", "frozen", "error", "said"),
    [
        (person("operator"), False, Unavailable, "no gateway runs"),
        (person("operator"), True, Denied, "release.unfreeze"),
        (person("admin", "service"), True, Denied, "people start releases"),
        (person("admin"), True, Unavailable, "no gateway runs"),
    ],
)
def test_while_releases_are_frozen_a_person_who_may_say_so_alone_starts_a_drill(
    live: Platform, who: Principal, frozen: bool, error: type[TautError], said: str
) -> None:
    manifest = FROZEN if frozen else Manifest(endpoints=FROZEN.endpoints, drills=FROZEN.drills)
    live.plans = SimpleNamespace(require=lambda: manifest, current=lambda: manifest, environment=lambda: "development")  # type: ignore[assignment]  # fmt: skip  # of it drills ask no more
    with pytest.raises(error, match=said):
        start(live, who)
