"""The threat model follows each plan, says what it changed, and is reviewed by people in the state in which they saw it."""

from __future__ import annotations

from pathlib import Path

import msgspec
import pytest
from test_operations import PROJECT, do, person, request_of

from taut.bootstrap.config import Config
from taut.bootstrap.platform import Platform
from taut.core.errors import Conflict, Denied, InvalidInput, NotFound
from taut.entrypoints import plan_view, security_view
from taut.entrypoints.operations.security import setting_of
from taut.trust.threats import Change
from taut.workflows import threats

MORE = PROJECT + PROJECT.replace("import taut", "").replace("orders", "parcels")


def test_a_plan_says_which_flows_it_changes_and_applying_it_stores_the_model(
    platform: Platform, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(NotFound):
        do(platform, "security.threats")
    first = do(platform, "plan.apply", **request_of(tmp_path / "p"))
    stored = do(platform, "security.threats")
    shown = do(platform, "plan.show", **request_of(tmp_path / "p", MORE))
    plan_view.plan(shown)

    assert "source-orders → control: rows of orders" in first["flows"]["added"]
    assert stored["stored"]
    assert msgspec.convert(shown["flows"], Change) == Change(
        added=("source-parcels → control: rows of parcels",)
    )
    assert "the threat model changes:\n    + source-parcels" in capsys.readouterr().out
    assert do(platform, "security.threats")["digest"] == stored["digest"]  # only looked at

    second = do(platform, "plan.apply", **request_of(tmp_path / "p", MORE))
    again = do(platform, "plan.apply", **request_of(tmp_path / "p", MORE))
    assert second["flows"] == shown["flows"]
    assert not any(again["flows"].values())
    leaves = platform.ledger.show(kind=threats.RENEWED)
    assert [leaf.body["added"] for leaf in leaves] == [
        list(found["flows"]["added"]) for found in (shown, first)
    ]
    assert threats.stored_map(platform) is not None
    assert platform.blobs.read(str(leaves[0].body["page"])).decode().startswith("# Threat model of")


def test_a_review_is_of_the_model_that_was_seen_and_ends_with_the_next_change(
    platform: Platform, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    do(platform, "plan.apply", **request_of(tmp_path / "p"))
    seen = do(platform, "security.threats")["digest"]

    with pytest.raises(Denied):
        do(platform, "security.review", person("builder"), digest=seen, reason="fine")
    with pytest.raises(InvalidInput, match="conclusion"):
        do(platform, "security.review", digest=seen, reason=" ")
    done = do(platform, "security.review", person("auditor"), digest=seen, reason="the open one is accepted")
    assert (done["reviewed_by"], do(platform, "security.report")["threat_model"]["reviewed_by"]) == (
        "ada",
        "ada",
    )

    do(platform, "plan.apply", **request_of(tmp_path / "p", MORE))
    now = do(platform, "security.threats")
    assert now["reviewed_by"] == ""
    with pytest.raises(Conflict, match="look at it again"):
        do(platform, "security.review", digest=seen, reason="fine")
    security_view.threat_model(now)
    security_view.report(do(platform, "security.report"))
    said = capsys.readouterr().out
    assert "not reviewed yet" in said
    assert "not reviewed" in said.split("threat model")[-1]


def test_a_setting_that_changed_after_the_plan_makes_the_stored_model_old(
    platform: Platform, tmp_path: Path
) -> None:
    do(platform, "plan.apply", **request_of(tmp_path / "p"))

    found = threats.now(platform, threats.Setting(tls=True))

    assert not found.stored
    assert "callers → grpc: calls" in found.since.changed


@pytest.mark.parametrize(
    ("blobs", "sealed"),
    [("file:", True), ("file:/data", True), ("file:?sealed=yes", True), ("file:?sealed=no", False), ("s3://b/p", False)],
)  # fmt: skip
def test_the_threat_model_says_whether_objects_are_sealed_as_the_store_decides_it(
    blobs: str, sealed: bool, tmp_path: Path
) -> None:
    assert setting_of(Config(home=tmp_path, blobs=blobs)).sealed is sealed
