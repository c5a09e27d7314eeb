"""Bad project files through the command line: file, line and nearest word are named, and nothing is touched."""

from __future__ import annotations

from pathlib import Path

import pytest
from installation import Installation

from taut.entrypoints.templates import PROJECT


@pytest.fixture
def shop(tmp_path: Path) -> Installation:
    """A project folder in which nothing was applied yet."""
    return Installation(tmp_path)


TYPOS: dict[str, tuple[str, str, str]] = {
    # name: (what stands in the project, what the typo makes of it, the word that must be named)
    "a function": ("taut.Dataset(", "taut.Dataste(", "Dataset"),
    "a helper": ("taut.by_time(", "taut.by_tiem(", "by_time"),
    "a keyword of a dataset": ("    event_time=\"placed_at\",", "    event_tim=\"placed_at\",", "event_time"),
    "a keyword of a column": ("minimum=1, maximum", "minimun=1, maximum", "minimum"),
    "a keyword of a model": ("    approval=taut", "    aproval=taut", "approval"),
    "a keyword of a feature set": ("online=True", "onlin=True", "online"),
    "a keyword of an endpoint": ("slo=taut", "sol=taut", "slo"),
    "a column type": ('"distance_km", "float"', '"distance_km", "flaot"', "float"),
    "a request column": ('"distance_km"],  # what', '"distance_kn"],  # what', "distance_km"),
    "a label": ('label="late"', 'label="latr"', "late"),
    "a label's time": ('label_at="arrived_at"', 'label_at="arived_at"', "arrived_at"),
    "an event time": ('event_time="placed_at"', 'event_time="place_at"', "placed_at"),
    "an entity": ('entity="order_id"', 'entity="order_di"', "order_id"),
    "a metric": ('taut.metric("auc"', 'taut.metric("acu"', "auc"),
    "a column in a rule": ("arrived_at > placed_at", "arrived_at > placed_att", "placed_at"),
    "a unique key": ('unique=[["warehouse", "hour"]]', 'unique=[["warehouse", "huor"]]', "hour"),
    "a name of the project": ("model=train,", "model=trian,", "train"),
    "a module": ("import polars as pl", "import polras as pl", "polars"),
    "a duration": ('test="20d"', 'test="20q"', "20q"),
    "a size": ('memory="2GiB"', 'memory="2GB1"', "2GB1"),
}  # fmt: skip


@pytest.mark.parametrize("typo", TYPOS)
def test_a_typo_is_named_with_its_line_and_the_nearest_word(shop: Installation, typo: str) -> None:
    right, wrong, word = TYPOS[typo]
    assert PROJECT.count(right) >= 1
    shop.write("project.py", PROJECT.replace(right, wrong, 1))

    message = shop.refused("plan", exit_code=2, code="invalid_input")

    assert word in message
    assert "project.py, line" in message
    assert not shop.home.exists()


FAULTS: dict[str, tuple[str, str, str]] = {
    # name: (what stands in the project, what becomes of it, what the message must hold)
    "a module that is not installed": ("import taut\n", "import taut\nimport nosuchmodule\n", "nosuchmodule"),
    "a name that a module lacks": ("import taut\n", "import taut\nfrom json import dmps\n", "dmps"),
    "an error while it loads": ("import taut\n", "import taut\nprint(1 / 0)\n", "ZeroDivisionError"),
    "an error below a helper": (
        "import taut\n", "import taut\ndef helper():\n    return {}['north']\nhelper()\n", "KeyError",
    ),
    "an exit": ("import taut\n", "import taut\nimport sys\nsys.exit(3)\n", "sys.exit"),
    "recursion without end": ("import taut\n", "import taut\ndef f():\n    return f()\nf()\n", "Recursion"),
    "a line that is no Python": ("import taut\n", "import taut\nthis is (no python\n", "syntax"),
    "a tab among spaces": ("    entity=\"order_id\",", "\tif x:\n    entity=\"order_id\",", "line"),
    "two datasets of one name": ('    "backlog",\n', '    "orders",\n', "orders"),
    "a name that no file may have": ('    "backlog",\n', '    "../backlog",\n', "../backlog"),
    "an endpoint of no model": ("model=train,", "model=orders,", "model"),
    "a gate without bounds": ('taut.metric("auc", minimum=0.65)', 'taut.metric("auc")', "auc"),
    "bounds that exclude all": ("minimum=1, maximum=50", "minimum=50, maximum=1", "maximum"),
    "allowed values beyond the bounds": (
        '"items", "int", minimum=1, maximum=50', '"items", "int", minimum=1, maximum=50, allowed=[60]', "60",
    ),
    "allowed values of another type": ('allowed=["bike", "post", "van"]', "allowed=[1, 2]", "carrier"),
    "no allowed value": ('allowed=["bike", "post", "van"]', "allowed=[]", "carrier"),
    "a pattern on a number": ('"items", "int",', '"items", "int", pattern="[0-9]+",', "pattern"),
    "a pattern that is none": ('"warehouse", "string", allowed=["north", "south", "west"]',
                               '"warehouse", "string", pattern="(north"', "pattern"),
    "a bound that is no number": ('"distance_km", "float", minimum=0', '"distance_km", "float", minimum=float("nan")',
                                  "distance_km"),
    "a column twice": ('taut.column("late", "bool"),', 'taut.column("late", "bool"), taut.column("late", "int"),',
                       "late"),
    "a rule that compares nothing": ("arrived_at > placed_at", "arrived_at >", "arrived_at >"),
    "a rule on types that do not compare": ("arrived_at > placed_at", "warehouse > items", "items"),
    "a fraction above one": ("max_bad_fraction=0.02", "max_bad_fraction=2", "max_bad_fraction"),
    "an event time that is a word": ('event_time="placed_at"', 'event_time="warehouse"', "warehouse"),
    "a label that is asked for": ('request=["warehouse",', 'request=["late", "warehouse",', "late"),
    "a personal column without a subject": ('entity="order_id",', 'entity="order_id", personal=["carrier"],',
                                            "subject"),
    "no memory": ('memory="2GiB"', 'memory="0"', "memory"),
    "a cpu below zero": ("cpu=1", "cpu=-1", "cpu"),
    "a split that holds nothing": ('test="20d"', 'test="0d"', "test"),
    "a value that is no JSON": ('params={"trees": 60}', 'params={"trees": object()}', "trees"),
}  # fmt: skip


@pytest.mark.parametrize("fault", FAULTS)
def test_a_project_that_makes_no_sense_is_refused_in_its_own_words(shop: Installation, fault: str) -> None:
    right, wrong, word = FAULTS[fault]
    assert right in PROJECT
    shop.write("project.py", PROJECT.replace(right, wrong, 1))

    message = shop.refused("plan", exit_code=2, code="invalid_input")

    assert word in message, message
    assert "project.py" in message, message
    assert not shop.home.exists()


CONTRACT = """
apiVersion: v3.0.2
kind: DataContract
id: orders
name: orders
version: 1.0.0
status: active
schema:
  - name: orders
    physicalType: file
    properties:
      - {name: order_id, logicalType: integer, required: true, unique: true}
      - {name: placed_at, logicalType: date, required: true}
      - {name: warehouse, logicalType: string, required: true}
      - {name: items, logicalType: integer, required: true, logicalTypeOptions: {minimum: 1, maximum: 50}}
"""

WITH_YAML = """
import taut

orders = taut.Dataset(
    "orders", source=taut.files("data/*.csv"), contract=taut.Contract.from_odcs("contracts/orders.yaml"),
    entity="order_id",
)
"""

YAML_FAULTS: dict[str, tuple[str, str, str]] = {
    "bounds that exclude all": ("minimum: 1, maximum: 50", "minimum: 50, maximum: 1", "items"),
    "a type that is none": ("logicalType: string", "logicalType: strng", "string"),
    "no yaml": ("schema:", "schema: [", "line"),
    "no schema": ("schema:", "shema:", "schema"),
    "code in it": ("status: active", "status: !!python/object/apply:os.system ['true']", "tag"),
    "a bomb of aliases": (
        "apiVersion",
        "a0: &a0 [x, x]\n"
        + "".join(f"a{n}: &a{n} [{f'*a{n - 1}, ' * 9}x]\n" for n in range(1, 12))
        + "apiVersion",
        "aliases unfold",
    ),
    "a list for a word": ("logicalType: string", "logicalType: [string]", "must be a word"),
    "nothing in it": (CONTRACT, "", "contract"),
    "a list": (CONTRACT, "- a\n- b\n", "contract"),
    "bytes that are no text": (CONTRACT, "\udcff\udcfe", "orders.yaml"),
}


@pytest.mark.parametrize("fault", YAML_FAULTS)
def test_a_contract_file_that_makes_no_sense_is_refused_in_its_own_words(
    shop: Installation, fault: str
) -> None:
    right, wrong, word = YAML_FAULTS[fault]
    assert right in CONTRACT
    shop.write("project.py", WITH_YAML)
    shop.write("contracts/orders.yaml", CONTRACT.replace(right, wrong, 1).encode("utf-8", "surrogateescape"))

    message = shop.refused("plan", exit_code=2, code="invalid_input")

    assert word in message, message
    assert not shop.home.exists()


def test_an_absent_contract_file_is_named(shop: Installation) -> None:
    shop.write("project.py", WITH_YAML)

    message = shop.refused("plan", exit_code=3, code="not_found")

    assert "contracts/orders.yaml" in message


@pytest.mark.parametrize("content", [b"\xff\xfe\x00not text", b"\x00" * 100, b"", b"# only a comment\n"])
def test_a_project_file_that_is_no_text_or_declares_nothing_is_refused(
    shop: Installation, content: bytes
) -> None:
    shop.write("project.py", content)

    message = shop.refused("plan", exit_code=2, code="invalid_input")

    assert "project.py" in message


def test_no_project_file_and_two_of_them_are_told_apart(shop: Installation) -> None:
    assert "taut init" in shop.refused("plan", exit_code=3, code="not_found")
    shop.write("project.py", PROJECT)
    shop.write("taut.py", PROJECT)
    assert "both" in shop.refused("plan", exit_code=2, code="invalid_input")
    (shop.folder / "folder").mkdir()
    shop.refused("plan", "--project", "folder", exit_code=3, code="not_found")


def test_a_mended_project_is_applied_after_all_its_faults(shop: Installation) -> None:
    for right, wrong, _ in [*TYPOS.values()][:3]:
        shop.write("project.py", PROJECT.replace(right, wrong, 1))
        shop.refused("apply", exit_code=2, code="invalid_input")
    shop.write("project.py", PROJECT)

    assert shop("apply")["verdict"] == "admit"
