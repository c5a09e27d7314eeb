"""A feature set and a model that change together: the set first, and never under a version that means something else by it."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest

from taut.core.errors import Conflict
from taut.core.refs import VersionRef
from taut.lifecycle.release import Route
from taut.testing.records import memory_records
from taut.workflows.dependents import out_of_step, refuse_torn

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
