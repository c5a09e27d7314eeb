"""Rules and dashboards: real PromQL, of figures that /metrics has, and of the one service that they are about."""

from __future__ import annotations

import json
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import promql_parser
import pytest
import yaml

from taut.bootstrap.scaling import Outlook
from taut.entrypoints.dashboards import dashboard_files
from taut.entrypoints.metrics import TautCollector, certificate_families, gateway_families, scaling_families
from taut.entrypoints.monitor_view import model_families
from taut.entrypoints.objectives_view import objective_families
from taut.fleet.scaling import Decision
from taut.lifecycle.objectives import Objective, Tally, judge
from taut.project.manifest import EndpointSpec, Manifest, SLOSpec

MANIFEST = Manifest(
    endpoints=(
        EndpointSpec(name="delay", model="delay", slo=SLOSpec(availability=0.999)), EndpointSpec(name="price", model="price"),
    )
)  # fmt: skip
FILES = dashboard_files(MANIFEST)
SAID = {"process": "control", "not_after": 1.0, "refused": "", "renewals": 2}
DECISION = Decision(
    pool="gateway",
    n=4,
    before=2,
    mode="panic",
    signal="cpu",
    observed=2.9,
    target=0.7,
    computed=5,
    bound="maximum",
)
STANDING = judge(Objective(endpoint="delay", name="availability", target=0.999), Tally(1e6), 1e9)
UP, ALERT = "taut_slo_events_total", "taut_slo_alert"


def exposed() -> set[str]:
    """Return the names that Prometheus finds at /metrics."""
    now = datetime(2026, 6, 1, tzinfo=UTC)
    outlook = Outlook(pool="gateway", n=4, ready=2, automatic=True, pinned=False, decision=DECISION)
    control = SimpleNamespace(
        publisher=None, scaling=None, home=Path("/nowhere"), clock=SimpleNamespace(monotonic_s=lambda: 0.0, now=lambda: now),
        ledger=SimpleNamespace(size=lambda: 1), policy=SimpleNamespace(glass=SimpleNamespace(holding=lambda: None)),
        watches=SimpleNamespace(monitoring=None, promised=None),
    )  # fmt: skip
    families = [
        *gateway_families((), now_s=0.0), *scaling_families(outlook), *certificate_families([SAID], now=now), *model_families({}),
        *objective_families([STANDING], {("delay", "availability"): (1, 2)}), *TautCollector(control).collect(),
    ]  # fmt: skip
    names = {one.name + ("_total" if one.type == "counter" else "") for one in families}
    return names | {
        one.name + suffix
        for one in families
        if one.type == "histogram"
        for suffix in ("_bucket", "_sum", "_count")
    }


def rules(name: str) -> list[dict[str, Any]]:
    return [rule for group in yaml.safe_load(FILES[name])["groups"] for rule in group["rules"]]


def asked() -> Iterator[tuple[str, str]]:
    """Yield each expression with the file in which it stands."""
    for name, text in FILES.items():
        if name.endswith(".yaml"):
            yield from ((name, rule["expr"]) for rule in rules(name))
        else:
            for panel in json.loads(text)["panels"]:
                yield from ((name, target["expr"]) for target in panel.get("targets", ()))


def selectors(expression: str) -> dict[str, str]:
    """Return the metrics that an expression asks for, with what it asks of their labels. Raises ValueError for what is no PromQL."""
    found: dict[str, str] = {}

    def look(node: Any) -> bool:
        if isinstance(node, promql_parser.VectorSelector):
            found[str(node.name)] = str(node.matchers)
        return True

    promql_parser.walk(promql_parser.parse(expression), look)
    return found


def unknown(expressions: Iterator[tuple[str, str]], known: set[str]) -> set[str]:
    return {name for _, expression in expressions for name in selectors(expression)} - known


def test_every_expression_is_promql_about_figures_that_there_are() -> None:
    recorded = {rule["record"] for rule in rules("taut.rules.yaml") if "record" in rule}

    assert len(list(asked())) > 70
    assert not unknown(asked(), exposed() | recorded)
    assert unknown(iter([("planted", "rate(taut_slo_event_total[5m])")]), exposed()) == {
        "taut_slo_event_total"
    }
    with pytest.raises(ValueError, match="unknown function"):
        selectors("rated(taut_slo_events_total[5m])")
    assert {UP, ALERT} <= {name for _, expression in asked() for name in selectors(expression)}


def test_a_service_has_rules_and_a_dashboard_of_its_own() -> None:
    assert set(FILES) == {
        "taut.rules.yaml", "taut.dashboard.json", "delay.rules.yaml", "delay.dashboard.json", "price.rules.yaml", "price.dashboard.json",
    }  # fmt: skip
    for name, expression in asked():
        service = name.partition(".")[0]
        for metric, labels in selectors(expression).items():
            if service != "taut":
                assert service in labels, (name, metric)
    assert [one["alert"] for one in rules("delay.rules.yaml")] == [
        "TautBudgetBurns",
        "TautBudgetSpent",
        "TautModelDrifted",
    ]
    assert [one["alert"] for one in rules("price.rules.yaml")] == ["TautModelDrifted"]  # it promises nothing
    assert [rule["record"] for rule in rules("taut.rules.yaml")[-5:]] == [
        f"taut:slo_bad:ratio_rate{window}" for window in ("5m", "30m", "1h", "6h", "3d")
    ]


@pytest.mark.parametrize("name", [name for name in FILES if name.endswith(".json")])
def test_a_dashboard_is_one_that_grafana_can_lay_out(name: str) -> None:
    found = json.loads(FILES[name])
    panels = found["panels"]
    taken: set[tuple[int, int]] = set()

    assert len({panel["id"] for panel in panels}) == len(panels)
    assert len(found["uid"]) <= 40
    for panel in panels:
        at = panel["gridPos"]
        cells = {(x, y) for x in range(at["x"], at["x"] + at["w"]) for y in range(at["y"], at["y"] + at["h"])}
        assert not cells & taken
        assert at["x"] + at["w"] <= 24
        taken |= cells
        if panel["type"] != "row":
            assert [one["refId"] for one in panel["targets"]] == ["A", "B", "C"][: len(panel["targets"])]
    assert {json.loads(FILES[one])["uid"] for one in FILES if one.endswith(".json")} >= {found["uid"]}
    assert dashboard_files(MANIFEST) == FILES


def test_the_figures_of_objectives_are_documented_where_they_are_explained() -> None:
    page = (Path(__file__).parents[3] / "docs/how-to/set-slos.md").read_text()
    for one in objective_families([STANDING], {}):
        assert f"`{one.name}{'_total' if one.type == 'counter' else ''}`" in page
