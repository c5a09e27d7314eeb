"""The threat model says what a project's data really does, names what a change adds, and points at tests that exist."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import msgspec
import pytest

from taut.core.graphs import Node
from taut.core.schema import DType
from taut.project.manifest import (
    ColumnSpec,
    ContractSpec,
    DatasetSpec,
    EndpointSpec,
    FeaturesSpec,
    FunctionRef,
    GraphSpec,
    Manifest,
    ModelSpec,
    ReceiverSpec,
    SourceSpec,
)
from taut.trust.threats import Change, Setting, changes, draw, markdown, threats_of

ROOT = Path(__file__).parents[4]
CODE = FunctionRef("shop", "train")
COLUMNS = (
    ColumnSpec(name="id", dtype=DType.INT),
    ColumnSpec(name="name", dtype=DType.STRING, personal="seal"),
    ColumnSpec(name="email", dtype=DType.STRING, personal="tokenise"),
)
ORDERS = DatasetSpec(
    name="orders",
    source=SourceSpec(url="s3://shop/orders/*.csv"),
    contract=ContractSpec(columns=COLUMNS),
    subject="id",
)
SHOP = Manifest(
    project="shop",
    datasets=(ORDERS,),
    features=(
        FeaturesSpec(
            name="habits",
            entity=("id",),
            event_time="at",
            sources=("orders",),
            function=CODE,
            online=True,
        ),
    ),
    models=(ModelSpec(name="late", dataset="orders", function=CODE, label="late", request=("id", "email")),),
    endpoints=(EndpointSpec(name="late", model="late"),),
)
EVERYWHERE = Setting(
    records="postgresql", blobs="s3", bus="kafka", keys="vault", tls=True, otlp="http://traces.example",
    oidc="https://login.example", ledger_copy=True, sandbox="netns landlock",
)  # fmt: skip


def with_(manifest: Manifest, **further: Any) -> Manifest:
    return msgspec.structs.replace(manifest, **further)


def test_personal_fields_are_followed_from_the_source_to_the_log() -> None:
    flows = {flow.name: flow for flow in draw(SHOP, Setting()).flows}

    assert flows["source-orders → control: rows of orders"].personal == ("orders.name", "orders.email")
    assert flows["source-orders → control: rows of orders"].way == "s3"
    assert flows["control → jobs: training rows of late"].personal == ("orders.name", "orders.email")
    assert flows["callers → gateways: requests of late"].personal == ("orders.email",)  # what a caller sends
    assert flows["gateways → log: requests and answers of late"].personal == ("orders.email",)


@pytest.mark.parametrize("setting", [Setting(), EVERYWHERE])
def test_every_flow_joins_elements_that_are_there_and_each_element_has_a_flow(setting: Setting) -> None:
    drawn = draw(SHOP, setting)
    ends = {id_ for flow in drawn.flows for id_ in (flow.source, flow.target)}

    assert ends == {element.id for element in drawn.elements}
    assert len({flow.name for flow in drawn.flows}) == len(drawn.flows)
    threatened = {threat.at for threat in threats_of(drawn, setting)}
    assert {element.name for element in drawn.elements} <= threatened
    assert {flow.name for flow in drawn.flows if drawn.crosses(flow)} <= threatened


@pytest.mark.parametrize("setting", [Setting(), EVERYWHERE])
def test_what_a_threat_names_as_its_test_exists(setting: Setting) -> None:
    named = {
        threat.shown_by for threat in threats_of(draw(SHOP, setting), setting) if threat.state == "stopped"
    }

    assert named
    assert not [path for path in named if not path or not (ROOT / path).exists()]


def test_a_receiver_that_is_told_in_the_clear_is_an_open_threat() -> None:
    drawn = draw(SHOP, EVERYWHERE)
    opened = [threat for threat in threats_of(drawn, EVERYWHERE) if threat.state == "open"]

    assert [threat.at for threat in opened] == ["gateways → collector: traces without values"]
    assert "https" in opened[0].answer


def test_equal_projects_have_equal_maps_and_a_change_is_named() -> None:
    before = draw(SHOP, Setting())
    more = with_(SHOP, endpoints=(*SHOP.endpoints, EndpointSpec(name="again", model="late", audit="off")))

    assert draw(with_(SHOP, root="/elsewhere"), Setting()).digest == before.digest
    assert changes(before, before) == Change()
    assert changes(before, draw(more, Setting())) == Change(
        added=("callers → gateways: requests of again", "gateways → callers: answers of again")
    )
    assert changes(before, draw(with_(SHOP, endpoints=()), Setting())).removed == (
        "callers → gateways: requests of late",
        "gateways → callers: answers of late",
        "gateways → log: requests and answers of late",
    )
    plain = with_(
        SHOP,
        datasets=(
            msgspec.structs.replace(
                ORDERS, contract=ContractSpec(columns=(COLUMNS[0], *(msgspec.structs.replace(one, personal=None) for one in COLUMNS[1:])))
            ),
        ),
    )  # fmt: skip
    assert "source-orders → control: rows of orders" in changes(before, draw(plain, Setting())).changed


def test_a_receiver_of_alerts_and_a_graph_over_personal_data_are_drawn() -> None:
    hook = ReceiverSpec(name="pager", kind="webhook", url="https://pager.example/x", secret="pager")
    graph = GraphSpec(name="both", nodes=(Node(name="one", kind="model", model="late"),), output="one")
    more = with_(
        SHOP, receivers=(hook,), graphs=(graph,), endpoints=(EndpointSpec(name="both", model="both"),)
    )

    flows = {flow.name: flow for flow in draw(more, Setting()).flows}

    assert flows["control → receiver-pager: alerts to pager"].way == "https"
    assert "signed" in flows["control → receiver-pager: alerts to pager"].guard
    assert flows["callers → gateways: requests of both"].personal == ("orders.email",)


def test_tls_changes_how_callers_come() -> None:
    found = changes(draw(SHOP, Setting()), draw(SHOP, Setting(tls=True)))

    assert "callers → gateways: requests of late" in found.changed
    assert not found.added


def test_the_page_holds_a_diagram_of_every_flow_and_nothing_breaks_out_of_it() -> None:
    named = with_(SHOP, project='x"|`]\n# end', endpoints=(EndpointSpec(name="end", model="late"),))
    drawn = draw(named, EVERYWHERE)
    page = markdown(drawn, threats_of(drawn, EVERYWHERE))

    diagram = page.split("```mermaid\n")[1].split("\n```")[0].splitlines()
    node, label = r"n_[A-Za-z0-9_]+", r'"[^"<>`|]*"'
    shape = rf"\[{label}\]|\(\[{label}\]\)|\[\({label}\)\]"
    line = re.compile(rf'flowchart LR|  subgraph \w+ \[{label}\]|  end|    {node}(?:{shape})|  {node} [-=]+>\|{label}\| {node}')  # fmt: skip
    assert not [one for one in diagram if not line.fullmatch(one)]
    assert sum("-->" in one or "==>" in one for one in diagram) == len(drawn.flows)
    assert page.count("\n# ") == 0
    assert page.splitlines()[0].startswith("# Threat model of ")
    assert markdown(drawn, threats_of(drawn, EVERYWHERE)) == page
