"""What a model is trained on by itself, in whose name, and who may let it: on a platform's own rooms, up to the job itself."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import msgspec
import pytest
from test_operations import do, person, request_of

from taut.bootstrap.platform import Platform
from taut.bootstrap.retraining import triggers_of
from taut.core.errors import Conflict, Denied, InvalidInput
from taut.ports.records import transact
from taut.workflows.triggers.retrain import RetrainRequest, Target, release_each, retrain

PROJECT = """
import taut
orders = taut.Dataset("orders", source=taut.files("orders-*.csv"), contract=taut.Contract([
    taut.column("id", "int", unique=True, minimum=1), taut.column("at", "datetime"), taut.column("by", "string"),
    taut.column("late", "bool"),
]), entity="id", event_time="at")

@taut.model("late", dataset=orders, label="late", request=["by"], triggers=[taut.on_new_data(orders, rows=10)],
            retraining=taut.Retraining(settle="0s", contributor="by", share=0.6))
def train(run):
    return VERSION

taut.Endpoint("late", model=train)
"""
BUILDER, BOTH = (
    msgspec.structs.replace(one, local=True)
    for one in (person("builder", id="ben"), person("builder", "operator", id="oda"))
)


class Reached(Exception):
    """The story came as far as a test looks, with what the step would have been told."""


class Told:
    """A story told once, of which a test sees each step, may act between them, and ends it."""

    id = "story_1"

    def __init__(self, platform: Platform, after: dict[str, Callable[[Any], None]]) -> None:
        self._platform, self._after = platform, after

    def step(self, name: str, do: Callable[[], Any]) -> Any:
        if name == "ask":  # of a release
            raise Reached("release")
        found = do()
        self._after.get(name, lambda _: None)(found)
        return found

    def commit(self, name: str, do: Callable[[Any], Any]) -> Any:
        return transact(self._platform.records, do)

    def progress(self, _message: str, _fraction: float | None = None) -> None:
        pass


class Model:
    """The model `late`, of a plan that `oda` applied, and its rows."""

    def __init__(self, platform: Platform, folder: Path) -> None:
        self.platform, self.folder, self.rows = platform, folder, 0
        for name, roles in (("ben", ["builder"]), ("oda", ["builder", "operator"])):
            platform.identity.create_principal(name, kind="human", roles=roles, actor="owner")
        self.apply("1")

    def apply(self, code: str) -> None:
        source = PROJECT.replace("VERSION", code)
        assert do(self.platform, "plan.apply", BOTH, **request_of(self.folder, source))["plan"]

    def ingest(self, **count: int) -> None:
        """Bring in rows of these contributors."""
        by = [name for name, number in count.items() for _ in range(number)]
        rows = [f"{self.rows + at},2026-01-01T00:00:00Z,{name},true" for at, name in enumerate(by, start=1)]
        self.rows += len(by)
        (self.folder / f"orders-{self.rows}.csv").write_text("\n".join(["id,at,by,late", *rows]) + "\n")
        do(self.platform, "data.ingest", BOTH, dataset="orders")

    def learned(self, *snapshots: str | None) -> None:
        """Let runs have been, the newest first: of a snapshot that ended well, or None for one that repeated an older one."""
        done = [
            SimpleNamespace(
                data=SimpleNamespace(snapshots={"orders": one or "orders@1"}), reproduces=None if one else "run_0", code=SimpleNamespace(bundle="x"),
                cpu_seconds=0.0, started_at=self.platform.clock.now(),
            )
            for one in snapshots
        ]  # fmt: skip

        def list_(*, state: str | None = None, **_: Any) -> list[Any]:
            return [] if state == "running" else done

        self.platform.training = SimpleNamespace(list=list_)  # type: ignore[assignment]  # of it no more is asked

    def request(self) -> RetrainRequest:
        """Return what a firing now would ask."""
        _, watched = triggers_of(self.platform, "late")
        return msgspec.convert(
            {**watched.request, "model": "late", "number": 1, "reasons": ["new data"]}, RetrainRequest
        )

    def pinned(self, **between: Callable[[Any], None]) -> Any:
        """Tell the story up to its pin, and return why it trains nothing, or what is trained on."""
        found: list[Any] = []

        def pinned(value: Any) -> None:
            found.append(value["snapshots"])
            raise Reached

        told: Any = Told(self.platform, {"pin": pinned, **between})
        try:
            return retrain(self.platform, told, self.request()).reasons
        except Reached:
            return found[0]


@pytest.fixture
def model(platform: Platform, tmp_path: Path) -> Model:
    made = Model(platform, tmp_path / "p")
    made.ingest(bike=5, post=5)
    made.learned("orders@1")
    return made


def test_rows_that_were_refused_are_not_known_at_the_next_firing(model: Model) -> None:
    model.ingest(bike=20)
    (why,) = model.pinned()
    assert "100.0% of 20 new rows come from 'bike'" in why
    model.ingest(bike=4, post=4, van=4)
    (why,) = model.pinned()
    assert "75.0% of 32 new rows" in why
    model.learned(None, "orders@2")  # a person trained on them, and another run only repeated an old one
    assert model.pinned() == {"orders": "orders@3"}


def test_what_was_screened_is_what_is_trained_on(model: Model) -> None:
    model.ingest(bike=5, post=5)
    assert model.pinned(screen=lambda _: model.ingest(bike=1000)) == {"orders": "orders@2"}


def test_another_plan_than_the_one_that_was_applied_in_his_name_is_never_trained(model: Model) -> None:
    with pytest.raises(Conflict, match="another plan was applied"):
        model.pinned(screen=lambda _: model.apply("2"))
    before = model.request()
    model.apply("3")
    told: Any = Told(model.platform, {})
    with pytest.raises(Conflict, match="another plan was applied"):
        retrain(model.platform, told, before)


def test_what_the_screening_quotes_is_kept_beside_the_ledger_and_not_in_it(model: Model) -> None:
    model.ingest(somebody=20)
    assert "somebody" in model.pinned()[0]
    (leaf,) = model.platform.ledger.show(kind="trigger.judged")
    assert (leaf.body["decision"], leaf.body["reasons"]) == ("reject", 1)
    assert "somebody" not in str(leaf.body)
    assert "somebody" in str(model.platform.ledger.get(leaf.id).details)


def test_the_right_to_release_is_asked_again_when_the_version_is_ready(model: Model) -> None:
    told: Any = Told(model.platform, {})
    request = model.request()
    assert request.endpoints == (Target(name="late"),)
    with pytest.raises(Reached):
        release_each(model.platform, told, request, "late@1")
    model.platform.identity.set_disabled("oda", True, actor="owner")
    releases, left = release_each(model.platform, told, request, "late@1")
    assert releases == ()
    assert "oda is disabled" in left[0]


def test_a_plan_that_releases_no_more_by_itself_is_asked_too(model: Model) -> None:
    request = model.request()
    source = PROJECT.replace("share=0.6", "share=0.6, release=False")
    do(model.platform, "plan.apply", BOTH, **request_of(model.folder, source))
    told: Any = Told(model.platform, {})
    releases, left = release_each(model.platform, told, request, "late@1")
    assert (releases, len(left)) == ((), 1)


def test_who_may_not_release_neither_fires_nor_lifts_a_pause(model: Model) -> None:
    said = {"model": "late", "reason": "now"}
    with pytest.raises(Denied, match=r"release\.start"):
        do(model.platform, "trigger.fire", BUILDER, **said)
    do(model.platform, "trigger.pause", BOTH, **said)
    with pytest.raises(Denied, match=r"release\.start"):
        do(model.platform, "trigger.resume", BUILDER, **said)
    with pytest.raises(Conflict, match="paused by oda: now"):
        do(model.platform, "trigger.fire", BOTH, **said)
    do(model.platform, "trigger.resume", BOTH, **said)


def test_nobody_fires_in_the_name_of_one_who_may_not_train_any_more(model: Model) -> None:
    model.platform.identity.set_disabled("oda", True, actor="owner")
    triggers, watched = triggers_of(model.platform, "late")
    with pytest.raises(Denied, match="oda is disabled"):
        triggers.fire(watched, actor="ada", reason="now")
    with pytest.raises(InvalidInput, match="say why"):
        triggers.fire(watched, actor="ada", reason=" ")
