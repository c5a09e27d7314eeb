"""What callers may use together or each is declared, and what makes no sense is refused in words."""

from __future__ import annotations

from pathlib import Path

import pytest
from msgspec.structs import replace

from taut.core.errors import InvalidInput
from taut.project.load import load_project
from taut.project.manifest import Manifest, PriceSpec, QuotaSpec
from taut.trust.quota import Limit
from taut.workflows.publish import allowance_of

PROJECT = """
import taut

orders = taut.Dataset(
    "orders", source=taut.files("orders.csv"),
    contract=taut.Contract([taut.column("at", "datetime"), taut.column("late", "bool"), taut.column("items", "int")]),
    event_time="at",
)

@taut.model("late", dataset=orders, request=["items"], label="late", split=taut.by_time(test="30d"))
def train(ctx: taut.TrainContext) -> taut.Trained: ...

late = taut.Endpoint("late", model=train)
"""


def declared(folder: Path, *lines: str) -> Manifest:
    (folder / "project.py").write_text("\n".join([PROJECT, *lines]))
    return load_project(folder / "project.py").manifest


def test_quotas_are_part_of_the_project_and_become_limits_of_each_kind(tmp_path: Path) -> None:
    made = declared(
        tmp_path,
        'taut.Quota("team", members=["shop", "role:builder"], requests_per_s=50, model_time_per_s=0.5)',
        'taut.Quota("each", each=True, endpoints=late, requests_per_s=0.1)',
    )

    team = QuotaSpec(name="team", members=("role:builder", "shop"), requests_per_s=50, model_time_per_s=0.5)
    assert made.quotas == (QuotaSpec(name="each", each=True, endpoints=("late",), requests_per_s=0.1), team)
    assert allowance_of(team).named() == {
        "quota:team:requests": Limit(rate_per_s=50, burst=100, level="its members together"),
        "quota:team:model_ms": Limit(
            rate_per_s=500, burst=1000, kind="model_ms", level="its members together"
        ),
    }
    day = allowance_of(
        replace(team, requests_per_s=None, model_time_per_s=None, usd_per_day=2, gpu_time_per_day=3)
    )
    assert {name: (one.burst, one.window_s) for name, one in day.named().items()} == {
        "quota:team:gpu_ms:86400": (3000, 86_400), "quota:team:usd_micros:86400": (2e6, 86_400),
    }  # fmt: skip
    assert allowance_of(made.quotas[0]).limits[0].burst == 1.0  # one request must be able to pass


@pytest.mark.parametrize(
    ("line", "said"),
    [
        ('taut.Quota("team")', "Quota 'team' limits nothing: give requests_per_s or"),
        ('taut.Quota("team", requests_per_s=0)', "requests_per_s is 0"),
        ('taut.Quota("team", requests_per_s=1, each=1)', "each is 1: write True or False"),
        ('taut.Quota("team", requests_per_s=1, members="Ana")', "'Ana' is no member"),
        ('taut.Quota("team", requests_per_s=1, endpoints="late")', "name the taut.Endpoint objects"),
        ('taut.Quota("team", usd_per_day=1)', "none of its endpoints has a price"),
        ('taut.Price()', "nothing costs anything"),
        ('taut.Endpoint("dear", model=train, price=3)', "price is 3: write taut.Price("),
        ('taut.Quota("team", request_per_s=1)', "did you mean 'requests_per_s'"),
        ('taut.Quota("a", requests_per_s=1); taut.Quota("a", requests_per_s=2)', "quota 'a'"),
    ],
)  # fmt: skip
def test_what_makes_no_sense_is_refused_in_words(tmp_path: Path, line: str, said: str) -> None:
    with pytest.raises(InvalidInput) as caught:
        declared(tmp_path, line)

    assert said in caught.value.message


def test_a_price_lets_dollars_be_counted(tmp_path: Path) -> None:
    made = declared(
        tmp_path,
        'dear = taut.Endpoint("dear", model=train, price=taut.Price(per_request=0.01, per_model_second=0.5))',
        'taut.Quota("all", usd_per_month=20)',
    )

    assert made.endpoints[0].price == PriceSpec(per_request=0.01, per_model_second=0.5)
    assert made.quotas[0].amounts == {"usd_per_month": 20}
