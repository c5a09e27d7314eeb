"""A feature set and a model that change together: the set first, and never under a version that means something else by it."""

from __future__ import annotations

from datetime import UTC, datetime
from types import SimpleNamespace
from typing import Any

import msgspec
import pytest

from taut.core.errors import Conflict, TautError, Unavailable
from taut.core.evidence import Evidence
from taut.core.refs import VersionRef
from taut.lifecycle.release import ReleaseInfo, ReleaseState, Route
from taut.project.manifest import EndpointSpec
from taut.testing.records import memory_records
from taut.workflows.dependents import out_of_step, refuse_torn
from taut.workflows.release import ReleaseRequest, release, roll_back
from taut.workflows.rooms import Published

DEFINED = {"load@1": "old", "load@2": "new", "load@3": "new", "load@4": "newer"}
TRAINED = {"late@1": "load@1", "late@2": "load@2", "other@1": "load@1"}


def rooms(*live: str, online: str = "load@1", newest: str = "load@3") -> Any:
    def show(ref: VersionRef) -> Any:
        return SimpleNamespace(candidate=SimpleNamespace(features={"load": TRAINED[str(ref)]}))

    def alike(_name: str, one: str, other: str) -> bool:
        return DEFINED[one] == DEFINED[other]

    routes = [Route(endpoint=one.split("@")[0], release="r", version=VersionRef.parse(one)) for one in live]
    return SimpleNamespace(
        records=memory_records(),
        registry=SimpleNamespace(show=show),
        releases=SimpleNamespace(routes=lambda _tx: routes, shares=lambda _tx: (), shadows=SimpleNamespace(shares=lambda _tx: ())),
        features=SimpleNamespace(
            alike=alike, redefined=lambda name, known: () if alike(name, online, known) else (online,),
            materialisation=lambda _name: SimpleNamespace(id=newest),
        ),
    )  # fmt: skip


NEW = VersionRef.parse("late@2")


def test_a_canary_with_another_definition_of_a_set_than_the_live_version_is_refused() -> None:
    with pytest.raises(Conflict, match="another definition of feature set load than late@1"):
        refuse_torn(rooms("late@1"), "late", NEW, beside=True)


def test_a_direct_release_takes_the_set_along_unless_another_endpoint_needs_the_former() -> None:
    refuse_torn(rooms("late@1"), "late", NEW, beside=False)
    with pytest.raises(Conflict, match="than other@1, which answers too"):
        refuse_torn(rooms("late@1", "other@1"), "late", NEW, beside=False)


def test_the_set_is_put_online_by_the_definition_that_the_model_was_trained_with() -> None:
    assert out_of_step(rooms(), NEW, "load") == "load@3"
    assert out_of_step(rooms(newest="load@4"), NEW, "load") == "load@2"
    assert out_of_step(rooms(online="load@2"), NEW, "load") is None


class Changing:
    """Control where late@1 answers and its set is online; what is done to versions, sets and gateways is kept in order."""

    def __init__(self, *, decision: str = "admit", refused: bool = False, online_fails: bool = False) -> None:
        self.done: list[str] = []
        self.live, self.online = "late@1", "load@1"
        self.decision, self.refused, self.online_fails = decision, refused, online_fails
        room = rooms("late@1")
        self.rooms: Any = SimpleNamespace(
            records=room.records, publish=self.publish,
            plans=SimpleNamespace(require=lambda: SimpleNamespace(features=[SimpleNamespace(name="load")])),
            registry=SimpleNamespace(
                show=room.registry.show, load=lambda *_, **__: None, mark_answering=lambda *_, **__: None,
                signature=lambda _ref: SimpleNamespace(lookups=[SimpleNamespace(feature_set="load")], inputs=()),
            ),
            ledger=None,
            releases=SimpleNamespace(
                routes=lambda _tx: [Route(endpoint="late", release="r", version=VersionRef.parse(self.live))],
                shares=lambda _tx: (), shadows=SimpleNamespace(shares=lambda _tx: ()),
                canaries=SimpleNamespace(find=lambda *_: None), experiments=SimpleNamespace(find=lambda *_: None),
                start=lambda *_, **__: "r2", judge=lambda *_, **__: SimpleNamespace(decision=self.decision, reasons=("because",)),
                abort=lambda *_, **__: self.done.append("abort"), promote=lambda *_, **__: self.go("late@2"),
                withdraw=lambda *_, **__: bool(self.go("late@1")), roll_back=lambda *_, **__: (self.info(), self.go("late@1")),
                rollback_target=lambda *_, **__: SimpleNamespace(release="r1", version="late@1"), show=lambda _id: self.info(),
            ),
            features=SimpleNamespace(
                alike=room.features.alike, online_state=lambda _name: SimpleNamespace(materialisation=self.online),
                redefined=lambda _name, known: () if DEFINED[self.online] == DEFINED[known] else (self.online,),
                materialisation=lambda name, told=None: SimpleNamespace(id=told or "load@3", spec=SimpleNamespace(name=name), schema={}, features=()),
                materialize=self.materialize,
            ),
        )  # fmt: skip

    def info(self) -> ReleaseInfo:
        return ReleaseInfo(
            release="r2", endpoint="late", version=self.live, strategy="direct", state=ReleaseState.STARTED, weight=0.0, replaces=None, actor="ada", reason="",
            started_at=datetime(2026, 1, 1, tzinfo=UTC), ended_at=None,
        )  # fmt: skip

    def go(self, version: str) -> int:
        self.live = version
        self.done.append(version)
        return 2

    def publish(self) -> Published:
        self.done.append("push")
        refused, self.refused = ({"g": "no room"} if self.refused else {}), False
        return Published(epoch=1, refused=refused)

    def materialize(self, _spec: Any, *, materialisation: str, **_: Any) -> None:
        if self.online_fails:
            raise Unavailable("the online store is down")
        self.online = materialisation
        self.done.append(materialisation)

    def release(self) -> Any:
        asked = {
            "endpoint": msgspec.to_builtins(EndpointSpec(name="late", model="late")),
            "version": "late@2",
            "approvals": [],
        }
        evidence = msgspec.to_builtins(Evidence(subject="r2", checks=()))

        def step(name: str, do: Any) -> Any:
            return {"ask": lambda: asked, "look": lambda: evidence}.get(name, do)()

        story: Any = SimpleNamespace(step=step, commit=lambda _name, do: do(None), progress=lambda *_: None)
        return release(
            self.rooms,
            story,
            ReleaseRequest(endpoint="late", version="late@2", strategy="direct", actor="ada"),
        )


def test_the_set_is_replaced_once_the_gate_admitted_the_release_and_not_before() -> None:
    refused, admitted = Changing(decision="reject"), Changing()
    refused.release()
    assert refused.done == ["abort"]
    admitted.release()
    assert admitted.done == ["load@3", "late@2", "push"]


def test_every_way_back_puts_the_set_of_what_answers_again_online_before_gateways_hear_of_it() -> None:
    by_gateways, by_people, cut_short = Changing(refused=True), Changing(), Changing(online_fails=True)
    by_gateways.release()
    assert by_gateways.done == ["load@3", "late@2", "push", "late@1", "load@1", "push"]
    by_people.live, by_people.online = "late@2", "load@3"
    roll_back(by_people.rooms, endpoint="late", to=None, actor="ada", reason="")
    assert by_people.done == ["late@1", "load@1", "push"]
    with pytest.raises(TautError, match="is down"):
        cut_short.release()
    assert (cut_short.live, cut_short.done) == ("late@1", ["abort"])


def test_a_way_back_is_pushed_also_where_its_set_cannot_be_written() -> None:
    one = Changing(online_fails=True)
    one.live, one.online = "late@2", "load@3"
    with pytest.raises(Unavailable, match="is down"):
        roll_back(one.rooms, endpoint="late", to=None, actor="ada", reason="")
    assert one.done == ["late@1", "push"]
