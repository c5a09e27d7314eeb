"""Service levels as OpenSLO: what is written is read back to the same, and what taut cannot keep is refused by name."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import yaml
from hypothesis import given, settings
from hypothesis import strategies as st

import taut
from taut.core.errors import InvalidInput, NotFound
from taut.project.load import load_project
from taut.project.manifest import SLOSpec
from taut.project.openslo import parse_openslo, write_openslo
from taut.project.rules import SLO, slo_faults

shares = st.none() | st.floats(0.01, 0.99999)
PROMISED = SLOSpec(
    availability=0.999,
    latency_p95_ms=20.0,
    latency_p99_ms=99.5,
    drift=0.9,
    live=0.99,
    quality=0.8,
    freshness="60d",
    freeze=True,
)


@settings(max_examples=15, deadline=None)
@given(
    shares, st.none() | st.floats(0.001, 1e6), shares, st.sampled_from([None, "60d", "90m"]), st.booleans()
)
def test_what_is_written_is_read_back_to_the_same(
    availability: float | None, ms: float | None, quality: float | None, freshness: str | None, freeze: bool
) -> None:
    spec = SLOSpec(
        availability=availability,
        latency_p95_ms=ms,
        quality=quality,
        freshness=freshness,
        freeze=freeze,
        window="7d",
    )
    if not any((availability, ms, quality, freshness)):
        assert write_openslo(spec, "delay") == ""
        return
    assert parse_openslo(write_openslo(spec, "delay"), "delay") == spec


def test_documents_have_what_the_standard_asks_for() -> None:
    found = list(yaml.safe_load_all(write_openslo(PROMISED, "delay")))

    assert [one["metadata"]["name"] for one in found] == [
        "delay-availability", "delay-latency", "delay-latency-p99", "delay-live", "delay-quality", "delay-drift", "delay-freshness",
    ]  # fmt: skip
    for one in found:
        assert (one["apiVersion"], one["kind"], one["spec"]["service"]) == ("openslo/v1", "SLO", "delay")
        assert one["spec"]["timeWindow"] == [{"duration": "28d", "isRolling": True}]
        assert one["spec"]["budgetingMethod"] == "Occurrences"
        ratio = one["spec"]["indicator"]["spec"]["ratioMetric"]
        assert set(ratio) == {"counter", "bad", "total"}
        assert ratio["bad"]["metricSource"]["type"] == "Prometheus"
    assert found[1]["spec"]["objectives"] == [{"target": 0.95}]
    assert found[1]["spec"]["indicator"]["metadata"]["annotations"] == {
        "taut-objective": "latency",
        "taut-limit": "20.0ms",
    }


def document(**spec: Any) -> str:
    one = yaml.safe_load(write_openslo(SLOSpec(availability=0.999), "delay"))
    one["spec"] = {word: value for word, value in {**one["spec"], **spec}.items() if value is not None}
    return yaml.dump(one)


@pytest.mark.parametrize(
    ("text", "said"),
    [
        (document(service="delays"), "there is no SLO of service 'delay': did you mean 'delays'"),
        (document(budgetingMethod="Timeslices"), "taut counts Occurrences"),
        (document(alertPolicies=[{"alertPolicyRef": "page"}]), "alerts by rules of its own"),
        (document(objectives=[]), "0 objectives: write one"),
        (document(objectives=[{"target": 0.9, "targetPercent": 90}]), "one of target and targetPercent"),
        (document(objectives=[{"target": 0.9, "op": "lte"}]), "unknown field `op`"),
        (document(timeWindow=[{"duration": "1M", "calendar": {}}]), "one rolling timeWindow"),
        (document(timeWindow=[{"duration": "1M", "isRolling": True}]), "SLO: window"),
        (document(indicator=None), "one of indicator and indicatorRef"),
        (document(indicator=None, indicatorRef="errors"), "no SLI 'errors' in this file"),
        (document(indicator={"metadata": {"name": "up"}}), "taut counts by itself and asks no query: name one of availability"),
        (document(indicator={"metadata": {"name": "up", "annotations": {"taut-objective": "latency"}}}), "latency takes a limit"),
        (document(indicator={"metadata": {"name": "up", "annotations": {"taut-objective": "latency", "taut-limit": "xms"}}}, objectives=[{"target": 0.95}]), "write for example 20ms"),
        (document() + "---\n" + document(), "availability of delay is there twice"),
        ("apiVersion: openslo/v2alpha\nkind: SLO\nmetadata: {name: a}\nspec: {}\n", "taut reads openslo/v1"),
        ("kind: [", "this is no YAML"),
        ("- 1", "document: Expected `object`"),
    ],
)  # fmt: skip
def test_what_taut_cannot_keep_is_refused_by_name(text: str, said: str) -> None:
    with pytest.raises(InvalidInput) as refused:
        parse_openslo(text, "delay")
    assert said in refused.value.message


def test_an_indicator_may_stand_in_a_document_of_its_own_and_a_target_in_percent() -> None:
    sli = (
        "apiVersion: openslo/v1\nkind: SLI\nmetadata: {name: errors, annotations: {taut-objective: availability}}\n"
        "spec: {ratioMetric: {}}\n---\n"
    )
    text = sli + document(indicator=None, indicatorRef="errors", objectives=[{"targetPercent": 99.95}])
    assert parse_openslo(text, "delay") == SLOSpec(availability=0.9995)


PROJECT = """
import taut
orders = taut.Dataset("orders", source=taut.files("orders.csv"), contract=taut.Contract([
    taut.column("id", "int", unique=True), taut.column("at", "datetime"), taut.column("late", "bool"),
]), entity="id", event_time="at")
@taut.model("late", dataset=orders, request=["id"], label="late", split=taut.by_time(test="1d"))
def train(ctx): ...
taut.Endpoint("late", model=train, slo=taut.openslo("slos/late.yaml"))
"""


def test_a_project_reads_its_service_levels_from_a_file(tmp_path: Path) -> None:
    (tmp_path / "project.py").write_text(PROJECT)
    with pytest.raises((InvalidInput, NotFound), match="endpoint 'late': there is no file of service levels"):
        load_project(tmp_path / "project.py")
    (tmp_path / "slos").mkdir()
    (tmp_path / "slos/late.yaml").write_text(write_openslo(PROMISED, "late"))
    (endpoint,) = load_project(tmp_path / "project.py").manifest.endpoints
    assert endpoint.slo == PROMISED


def test_a_promise_that_could_not_have_been_declared_is_a_fault_of_the_manifest() -> None:
    assert not list(slo_faults(PROMISED))
    (said,) = slo_faults(SLOSpec(availability=1.0))
    assert said == "SLO: availability is 1.0: write a number from 0.01 to 0.99999"
    for words, why in (
        ({}, "nothing is promised"), ({"availability": 0.9, "window": "1d"}, "from 7d to 90d"), ({"freshness": "5s"}, "1m or more"),
        ({"live": 1}, "live is 1"), ({"quality": 0.5, "freeze": 1}, "freeze is 1"),
    ):  # fmt: skip
        with pytest.raises(InvalidInput, match=why):
            SLO(**words)  # type: ignore[arg-type]  # what builders write
    assert taut.openslo("a.yaml").path == "a.yaml"
