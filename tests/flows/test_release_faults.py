"""What is served after something went wrong: pushes that fail, gateways that refuse, projects that change, crashes."""

from __future__ import annotations

import os
import time
from collections.abc import Iterator
from typing import Any

import msgspec
import pytest
from installation import Installation
from test_workflows import REQUEST, Direct, Rooms, tell

from taut.bootstrap.housekeeping import Housekeeper
from taut.bootstrap.platform import Platform, open_platform
from taut.core.errors import Conflict, Denied, Unavailable
from taut.core.refs import VersionRef
from taut.entrypoints import control_main
from taut.entrypoints.logs import Log
from taut.lifecycle.plans import Surroundings
from taut.lifecycle.registry import ModelState
from taut.project.manifest import FallbackSpec, Manifest
from taut.serving.snapshot import Ack, GatewayState, open_snapshot
from taut.workflows.publish import outcome, what_changes
from taut.workflows.release import materialize, put_online, release
from taut.workflows.rooms import Published

VERSION = VersionRef("late", 1)


@pytest.fixture
def platform(released: Installation) -> Iterator[Platform]:
    """The installation of `taut init`'s project with `late@1` live, opened in this process."""
    with open_platform(released.home, environ={"PATH": os.environ["PATH"]}) as opened:
        yield opened


def refusing() -> Published:
    return Published(epoch=9, refused={"gateway-0": "the model does not load"})


def failing() -> Published:
    raise Unavailable("the disk is full")


def live(platform: Platform) -> list[tuple[str, str]]:
    with platform.records.read() as tx:
        return [(route.endpoint, route.release) for route in platform.releases.routes(tx)]


def served(platform: Platform) -> list[str]:
    """Endpoints of the snapshot that lies on disk."""
    data = platform.snapshots.newest()
    assert data is not None
    snapshot = open_snapshot(data, platform.keys.public_keys(purpose="snapshot"))
    return [endpoint.name for endpoint in snapshot.endpoints]


def apply(platform: Platform, **changes: Any) -> None:
    """Apply the project with changes to its manifest."""
    manifest: Manifest = msgspec.structs.replace(platform.plans.require(), **changes)
    bundle = platform.plans.bundle(manifest.bundle)
    done = platform.plans.apply(
        manifest,
        bundle,
        actor="owner",
        surroundings=Surroundings(live=frozenset({"late"}), allow_removal=True),
    )
    assert done.plan is not None, done.verdict


def another_endpoint(platform: Platform) -> None:
    """Declare `also`, a second endpoint of the same model."""
    [endpoint] = platform.plans.require().endpoints
    apply(platform, endpoints=(endpoint, msgspec.structs.replace(endpoint, name="also")))


ALSO = msgspec.structs.replace(REQUEST, endpoint="also")


# Releases


def test_a_first_release_that_a_gateway_refuses_leaves_nothing_live(platform: Platform) -> None:
    another_endpoint(platform)
    before = live(platform)

    result = tell(platform, ALSO, publish=refusing)

    assert (result.verdict, result.state) == ("reject", "rolled_back")
    assert live(platform) == before  # else no gateway would take any snapshot again
    assert platform.registry.show(VERSION).state is ModelState.LIVE  # it still answers at `late`


def test_a_release_that_cannot_be_pushed_is_taken_back(platform: Platform) -> None:
    before = platform.releases.status("late")

    with pytest.raises(Unavailable, match="disk is full"):
        tell(platform, publish=failing)

    now = platform.releases.status("late")
    assert (now.version, now.strategy) == (before.version, "rollback")


def test_what_somebody_released_meanwhile_is_not_undone(platform: Platform) -> None:
    other: list[str] = []

    def refuse_after_another_release() -> Published:
        if not other:
            other.append("")
            other[0] = tell(platform).release
        return refusing()

    tell(platform, publish=refuse_after_another_release)

    assert live(platform) == [("late", other[0])]


def test_a_plan_that_is_applied_while_a_release_runs_does_not_change_it(platform: Platform) -> None:
    class Replayed(Direct):
        """Remembers what was done, as a journal does."""

        def __init__(self, platform: Platform) -> None:
            super().__init__(platform)
            self.done: list[Any] = []
            self.at = 0

        def step(self, name: str, do: Any) -> Any:
            return self._once(lambda: super(Replayed, self).step(name, do))

        def commit(self, name: str, do: Any) -> Any:
            return self._once(lambda: super(Replayed, self).commit(name, do))

        def _once(self, do: Any) -> Any:
            self.at += 1
            if self.at > len(self.done):
                self.done.append(do())
            return self.done[self.at - 1]

    class Killed(BaseException):
        pass

    def die() -> Published:
        raise Killed

    another_endpoint(platform)
    story = Replayed(platform)
    with pytest.raises(Killed):
        release(Rooms(platform, publish=die), story, ALSO)  # type: ignore[arg-type]  # the platform's rooms
    story.at = 0
    apply(
        platform, endpoints=tuple(item for item in platform.plans.require().endpoints if item.name == "late")
    )

    result = release(platform, story, ALSO)  # type: ignore[arg-type]  # it needs no more than these

    assert result.state == "live"
    assert served(platform) == ["late"]  # the project does not declare the other any more


# Publishing


def test_an_endpoint_that_left_the_project_is_not_served_and_holds_nothing_up(platform: Platform) -> None:
    apply(platform, endpoints=())

    platform.publish()

    assert served(platform) == []


def test_a_stored_model_that_is_damaged_does_not_keep_gateways_from_news(platform: Platform) -> None:
    platform.publish()
    platform.blobs.delete(platform.registry.show(VERSION).candidate.files["model.onnx"].digest)

    platform.publish()  # a revoked token must reach the gateways

    assert served(platform) == ["late"]


def test_a_fallback_that_may_not_serve_any_more_holds_nothing_up(platform: Platform) -> None:
    from taut.workflows.publish import compose

    [endpoint] = platform.plans.require().endpoints
    tell(platform)  # replaces the first release by one of the same version
    calls: list[str] = []

    def place(version: VersionRef) -> tuple[str, str]:
        calls.append(str(version))
        if len(calls) > 1:
            raise Denied("retired")
        return platform.place_model(version)

    declared = msgspec.structs.replace(
        platform.plans.require(),
        endpoints=(msgspec.structs.replace(endpoint, fallback=(FallbackSpec(kind="previous_version"),)),),
    )

    class Plans:
        def current(self) -> Manifest:
            return declared

    rooms: Any = Rooms(platform, place_model=place, plans=Plans())
    snapshot = compose(rooms, policy=platform.policy.now(), max_age_s=60.0, gateways=1)

    assert calls == ["late@1", "late@1"]
    assert [(item.name, item.fallbacks) for item in snapshot.endpoints] == [("late", ())]


def test_records_restored_from_a_backup_do_not_stop_snapshots(platform: Platform) -> None:
    from sqlalchemy import update

    from taut.lifecycle.release.tables import epochs

    for _ in range(5):
        newest = platform.publish().epoch
    with platform.records.begin() as tx:
        tx.execute(update(epochs).values(epoch=1))

    assert platform.publish().epoch == newest + 1


def test_a_later_snapshot_that_is_refused_does_not_count_against_an_earlier_one() -> None:
    ack = Ack(gateway="gateway-0", epoch=6, applied=False, serving=5, reason="another endpoint's model")
    state = GatewayState(gateway="gateway-0", pid=1, serving=5, ack=ack)
    silent = GatewayState(gateway="gateway-1", pid=2, serving=4)

    assert outcome(5, [state, silent]) == Published(epoch=5, applied=("gateway-0",), silent=("gateway-1",))
    assert outcome(6, [state]).refused == {"gateway-0": "another endpoint's model"}


def test_gateways_hear_of_an_applied_plan_and_of_releases_that_nobody_pushed(platform: Platform) -> None:
    platform.publish()
    published: list[float] = []

    with Housekeeper(platform, log=lambda what, error: published.append(-1.0)):
        before = platform.published
        another_endpoint(platform)
        until_published(platform)
        with_plan = platform.published
        tell(platform, ALSO, publish=lambda: Published(epoch=0))
        until_published(platform)

    assert before != with_plan != platform.published
    assert served(platform) == ["also", "late"]
    assert published == []


def until_published(platform: Platform) -> None:
    deadline = time.monotonic() + 90
    while what_changes(platform) != platform.published:
        assert time.monotonic() < deadline
        time.sleep(0.02)


def test_a_duty_that_keeps_failing_is_tried_ever_more_seldom(platform: Platform) -> None:
    said: list[str] = []
    keeper = Housekeeper(platform, log=lambda what, _error: said.append(what))

    pauses = [keeper._do("publish what changed", failing) for _ in range(12)]
    recovered = keeper._do("publish what changed", lambda: None)

    assert pauses[0] < 1 < pauses[-1] == 60
    assert recovered == 0
    assert len(said) == 12


def test_the_ledger_is_signed_to_its_end_when_the_housekeeper_ends(platform: Platform) -> None:
    with Housekeeper(platform, log=lambda _what, _error: None):
        tell(platform)

    report = platform.ledger.verify()

    assert (report.pending, report.warnings) == (0, ())


def test_control_starts_where_nothing_can_be_published(
    platform: Platform, capsys: pytest.CaptureFixture[str]
) -> None:
    rooms: Any = Rooms(platform, publish=failing)

    control_main._publish(rooms, Log("control"))

    assert "could not publish what is to be served" in capsys.readouterr().err


# Features


def test_features_whose_first_writing_was_cut_short_are_written_by_the_next_release(
    platform: Platform,
) -> None:
    from taut.lifecycle.features import rows

    state = platform.features.online_state("load")
    assert state is not None
    with platform.records.begin() as tx:
        trace = rows.Trace(materialisation=str(state.materialisation), at=state.written_at)
        rows.set_online_state(tx, "load", rows.OnlineState(written_at=state.written_at, unfinished=(trace,)))

    put_online(platform, VERSION, "owner")

    now = platform.features.online_state("load")
    assert now is not None
    assert (now.materialisation, now.unfinished) == (state.materialisation, ())


def test_a_set_is_not_put_online_without_a_feature_that_is_live(platform: Platform) -> None:
    class Without:
        """The newest materialisation of the set has other columns."""

        def materialisation(self, name: str, id_: str | None = None) -> Any:
            made = platform.features.materialisation(name, id_)
            columns = tuple(
                msgspec.structs.replace(column, name=f"{column.name}_2")
                if column.name in made.features
                else column
                for column in made.schema.columns
            )
            schema = msgspec.structs.replace(made.schema, columns=columns)
            return msgspec.structs.replace(
                made, id="load@2", manifest=msgspec.structs.replace(made.manifest, schema=schema)
            )

    rooms: Any = Rooms(platform, features=Without())

    with pytest.raises(Conflict, match=r"late@1 needs .* of feature set load, and load@2 has no such column"):
        materialize(rooms, "load", actor="owner")
