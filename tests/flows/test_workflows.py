"""The stories that cross stages, on a small real project: they wait for people, and undo what a gateway refuses."""

from __future__ import annotations

import os
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import msgspec
import pytest
from installation import Installation

import taut
from taut.bootstrap.platform import Platform, open_platform
from taut.core.errors import Conflict, InvalidInput, NotFound, Unavailable
from taut.core.evidence import Outcome
from taut.core.refs import VersionRef
from taut.lifecycle.objectives import Objective, Tally, judge
from taut.lifecycle.registry.examination import probes_for
from taut.lifecycle.training import limits_of
from taut.ports.stories import Story, StoryState
from taut.trust.identity import OWNER
from taut.workflows.decisions import decision_signal, tell_decisions
from taut.workflows.examine import examined
from taut.workflows.gate import candidate_of
from taut.workflows.release import ReleaseRequest, release, roll_back
from taut.workflows.rooms import Published
from taut.workflows.trial import try_apart


@pytest.fixture
def platform(released: Installation, tmp_path: Path) -> Iterator[Platform]:
    """The installation of `taut init`'s project with `late@1` live, opened in this process, with advisories of nothing it has."""
    affected = [{"package": {"ecosystem": "PyPI", "name": "nobody-has-it"}, "versions": ["1.0"]}]
    record = {"id": "PYSEC-1", "modified": datetime.now(UTC).isoformat(), "affected": affected}
    (tmp_path / "osv").mkdir()
    (tmp_path / "osv/a.json").write_bytes(msgspec.json.encode(record))
    environ = {"PATH": os.environ["PATH"], "TAUT_ADVISORIES": str(tmp_path / "osv")}
    with open_platform(released.home, environ=environ) as opened:
        yield opened


def start(platform: Platform, **further: Any) -> str:
    arguments = {"model": "late", "endpoint": "late", "actor": "owner", "params": {"rounds": 41}, **further}
    return platform.stories.start("train_and_release", arguments, key="the story of this test")


def until_it_waits(platform: Platform, story: str) -> str:
    platform.stories.work(until_idle=True)
    status = platform.stories.status(story)
    assert status.state is StoryState.WAITING, status
    assert status.waiting_for is not None
    return status.waiting_for.removeprefix("decision ")


def live(platform: Platform) -> str:
    with platform.records.read() as tx:
        return str(platform.releases.routes(tx)[0].version)


def test_a_trained_version_waits_for_a_person_and_goes_live_on_his_word(platform: Platform) -> None:
    story = start(platform)
    version = until_it_waits(platform, story)
    before = live(platform)
    evidence = platform.registry.show(VersionRef.parse(version)).evidence
    assert evidence is not None
    assert [check.outcome for check in evidence.checks if check.name == "dependencies"] == [Outcome.PASSED]
    platform.registry.approve(VersionRef.parse(version), OWNER, reason="good", single_user=True)

    told = tell_decisions(platform, platform.stories)
    result = platform.stories.result(story, timeout=timedelta(seconds=60))

    assert (before, told) == ("late@1", 1)
    assert result["decision"] == "approved"
    assert result["release"]["state"] == "live"
    assert live(platform) == version


def test_a_version_that_a_person_rejects_is_not_released(platform: Platform) -> None:
    story = start(platform)
    version = until_it_waits(platform, story)
    platform.registry.reject(VersionRef.parse(version), OWNER, reason="I do not like it")
    tell_decisions(platform, platform.stories)

    result = platform.stories.result(story, timeout=timedelta(seconds=60))

    assert (result["decision"], result["release"]) == ("rejected", None)
    assert live(platform) == "late@1"


def test_nobody_is_told_before_there_is_a_decision(platform: Platform) -> None:
    story = start(platform)
    version = until_it_waits(platform, story)

    assert tell_decisions(platform, platform.stories) == 0
    assert platform.stories.status(story).waiting_for == decision_signal(version)


class Direct:
    """A story that is told at once and remembers nothing, with everything else the platform's own."""

    id = "story_of_this_test"

    def __init__(self, platform: Platform) -> None:
        self._platform = platform

    def step(self, name: str, do: Any) -> Any:
        return do()

    def commit(self, name: str, do: Any) -> Any:
        with self._platform.records.begin() as tx:
            return do(tx)

    def progress(self, message: str, fraction: float | None = None) -> None: ...


class Rooms:
    """The platform, but for what a test takes the place of."""

    def __init__(self, platform: Platform, **instead: Any) -> None:
        self._platform = platform
        self._instead = instead

    def __getattr__(self, name: str) -> Any:
        return self._instead[name] if name in self._instead else getattr(self._platform, name)


REQUEST = ReleaseRequest(endpoint="late", version="late@1", strategy="direct", actor="owner", reason="again")


def tell(platform: Platform, request: ReleaseRequest = REQUEST, **instead: Any) -> Any:
    story: Story = Direct(platform)  # type: ignore[assignment]  # it needs no more than these
    return release(Rooms(platform, **instead), story, request)  # type: ignore[arg-type]  # the platform's rooms


def test_a_release_that_a_gateway_refuses_is_undone_and_says_why(platform: Platform) -> None:
    before = platform.releases.status("late").release

    result = tell(
        platform, publish=lambda: Published(epoch=9, refused={"gateway-1": "the artifact is damaged"})
    )

    assert result.verdict == "reject"
    assert "gateway-1: the artifact is damaged" in result.reasons[0]
    now = platform.releases.status("late")
    assert (now.version, now.strategy) == ("late@1", "rollback")
    assert platform.releases.show(before).state == "replaced"


def test_a_release_waits_while_a_budget_is_spent_unless_a_person_says_why_not(platform: Platform) -> None:
    tally = Tally(28 * 86_400.0)
    tally.add(900, 1_000, until_s=0.0)
    spent = judge(Objective(endpoint="late", name="availability", target=0.99, freeze=True), tally, 0.0)
    watches = SimpleNamespace(standings=lambda _rooms: (spent,))
    before = platform.releases.status("late").release

    refused = tell(platform, watches=watches)
    assert refused.verdict == "reject"
    assert "unfrozen: the budget of availability is spent (900 of 1,000 events" in refused.reasons[0]
    assert platform.releases.status("late").release == before
    assert platform.ledger.show(kind="release.unfrozen", limit=1) == ()

    request = msgspec.structs.replace(REQUEST, despite="it mends the outage")
    assert tell(platform, request, watches=watches).state == "live"
    (leaf,) = platform.ledger.show(kind="release.unfrozen", limit=2)
    assert (leaf.actor, leaf.body["reason"]) == ("owner", "it mends the outage")
    assert "900 of 1,000" in leaf.body["frozen"]


def test_a_side_that_a_gateway_cannot_have_beside_the_live_one_is_refused_at_its_start(
    platform: Platform,
) -> None:
    before = platform.releases.status("late").release
    request = msgspec.structs.replace(REQUEST, strategy="blue-green")
    no_room = Published(epoch=9, refused={"gateway-1": "it takes 5 MiB, and 2 MiB are left"})

    result = tell(platform, request, publish=lambda: no_room)

    assert (result.verdict, result.state) == ("reject", "aborted")
    assert "gateway-1: it takes 5 MiB" in result.reasons[0]
    assert platform.releases.status("late").release == before


def test_a_shadow_of_nothing_is_refused_before_anything_begins(platform: Platform) -> None:
    nothing: Any = Rooms(platform.releases, routes=lambda _tx: ())  # type: ignore[arg-type]  # a room
    request = msgspec.structs.replace(REQUEST, strategy="shadow")
    with pytest.raises(Conflict, match="nothing answers at late yet"):
        tell(platform, request, releases=nothing)


def test_a_release_that_fails_half_way_leaves_nothing_under_way(platform: Platform) -> None:
    class Torn(Direct):
        def step(self, name: str, do: Any) -> Any:
            if name == "features online":
                raise Unavailable("the feature store is away")
            return super().step(name, do)

    story: Story = Torn(platform)  # type: ignore[assignment]  # it needs no more than these
    with pytest.raises(Unavailable, match="feature store"):
        release(platform, story, REQUEST)

    assert platform.releases.status("late").state == "live"


@pytest.mark.parametrize(
    ("change", "error", "said"),
    [
        ({"strategy": "sideways"}, InvalidInput, "not built yet"),
        ({"version": "other@1"}, InvalidInput, "serves model late"),
        ({"version": "late@99"}, NotFound, "late@99"),
        ({"endpoint": "nowhere"}, NotFound, "nowhere"),
    ],
)
def test_what_cannot_be_released_is_refused_by_name(
    platform: Platform, change: dict[str, str], error: type[Exception], said: str
) -> None:
    with pytest.raises(error, match=said):
        tell(platform, msgspec.structs.replace(REQUEST, **change))

    assert live(platform) == "late@1"


def test_a_rollback_to_a_damaged_version_is_refused_and_the_live_one_stays(platform: Platform) -> None:
    tell(platform)  # a second release of the same version, so that there is a way back
    digest = platform.registry.show(VersionRef("late", 1)).candidate.files["model.onnx"].digest
    before = platform.releases.status("late").release
    platform.blobs.delete(digest)

    with pytest.raises((Conflict, NotFound)):
        roll_back(platform, endpoint="late", to=None, actor="owner", reason="try")

    assert platform.releases.status("late").release == before


def test_a_version_with_fewer_approvals_than_the_project_asks_for_now_is_refused(platform: Platform) -> None:
    class Plans(Rooms):
        def require(self) -> Any:
            manifest = platform.plans.require()
            models = [msgspec.structs.replace(model, approvals=2) for model in manifest.models]
            return msgspec.structs.replace(manifest, models=tuple(models))

    result = tell(platform, plans=Plans(platform.plans))  # type: ignore[arg-type]  # a room

    assert result.verdict == "reject"
    assert result.reasons == ("approved: too few approved it: train it anew and ask them (saw 1, wanted 2)",)


def test_a_model_is_examined_by_the_rules_that_its_builder_declares(platform: Platform) -> None:
    run = platform.training.get(platform.registry.show(VersionRef("late", 1)).candidate.run)
    rules = (
        taut.slices(["carrier", "waiting"], metric="auc", drop=0.5), taut.calibrated(maximum=0.5),
        taut.robust("auc", drop=0.5), taut.attacked(maximum=1.0), taut.fairness("carrier", maximum=0.0),
    )  # fmt: skip
    candidate = candidate_of(platform, run, msgspec.structs.replace(run.spec, gates=rules))
    holdout = platform.training.holdout(run.id)
    probes = [probe for rule in rules for probe in probes_for(rule)]

    tried = try_apart(
        platform, candidate.artifact.digest, candidate.signature, (holdout,), limits=limits_of(run.spec.resources),
        probes=probes,
    )  # fmt: skip
    checks = {check.name: check for check in examined(platform, candidate, run, holdout, tried)}

    assert list(checks) == [rule.name for rule in rules]
    assert (
        checks["fairness equalized_odds by carrier"].outcome is Outcome.FAILED
    )  # bikes are late far more often
    rest = {name: check for name, check in checks.items() if not name.startswith("fairness")}
    assert {check.outcome for check in rest.values()} == {Outcome.PASSED}, rest
    evidence = platform.registry.show(VersionRef("late", 1)).evidence
    assert evidence is not None
    leaned = {name for name in evidence.facts if name.startswith("importance ")}
    assert leaned == {f"importance {item.column.name}" for item in candidate.signature.inputs}
