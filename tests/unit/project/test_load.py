"""A project file becomes a manifest, or says with file, line and nearest word what is wrong with it."""

from __future__ import annotations

import contextlib
import subprocess
import sys
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from taut.core.canonical import digest_bytes
from taut.core.errors import InvalidInput, NotFound, TautError
from taut.project.bundle import parse_bundle
from taut.project.load import LoadedProject, find_project_file, load_project
from taut.project.words import nearest

PROJECT = '''
import taut

weather = taut.Dataset(
    "weather",
    source=taut.files("data/weather.csv"),
    contract=taut.Contract({"airport": "string", "hour": "datetime", "temp": "float"}),
    entity="airport", event_time="hour",
)
flights = taut.Dataset(
    "flights",
    source=taut.files("data/flights-*.csv", format="csv"),
    contract=taut.Contract(
        [
            taut.column("flight_id", "string", unique=True),
            taut.column("passenger_id", "string"),
            taut.column("name", "string"),
            taut.column("origin", "string", allowed=["EWR", "JFK"]),
            taut.column("carrier", "string", pattern="[A-Z]{2}"),
            taut.column("distance", "float", minimum=0, maximum=5000),
            taut.column("scheduled_at", "datetime"),
            taut.column("arrived_at", "datetime"),
            taut.column("late", "bool"),
        ],
        rules=[taut.rule("arrives later", "arrived_at > scheduled_at", max_bad_fraction=0.1)],
        freshness=("scheduled_at", "48h"),
    ),
    entity="flight_id", event_time="scheduled_at", subject="passenger_id", personal=["name"],
)

@taut.features("departure", entity=["airport"], event_time="hour", sources=[weather], max_age="3h", online=True)
def departure(weather):
    """The weather at departure."""
    return weather

@taut.model(
    "delay", dataset=flights, features=[departure], on={"origin": "airport"},
    request=["carrier", "origin", "distance"], label="late", label_at="arrived_at",
    split=taut.by_time(test="30d", gap="1d"),
    triggers=[taut.on_new_data(flights), taut.on_drift(), taut.cron("0 3 * * *")],
    gates=[taut.metric("auc", minimum=0.65), taut.no_regression("auc", tolerance=0.01)],
    approval=taut.approval(1), resources=taut.Resources(cpu=2, memory="4GiB", timeout="30m"),
    params={"depth": 6}, risk="medium",
)
def train(ctx: taut.TrainContext) -> taut.Trained: ...

delay = taut.Endpoint(
    "delay", model=train,
    release=taut.Canary(steps=(0.01, 0.05, 0.25, 0.5), guardrails=[taut.errors(), taut.latency(), taut.prediction_drift()]),
    slo=taut.SLO(availability=0.999, latency_p95_ms=20), fallback=taut.previous_version(), audit="crash-safe",
)
'''


def load(folder: Path, source: str = PROJECT, name: str = "project.py") -> LoadedProject:
    (folder / name).write_text(source)
    return load_project(folder / name)


def refusal(folder: Path, *changes: tuple[str, str]) -> str:
    source = PROJECT
    for old, new in changes:
        assert old in source
        source = source.replace(old, new)
    with pytest.raises(InvalidInput) as caught:
        load(folder, source)
    return caught.value.message


def test_the_project_of_the_interface_becomes_a_manifest(tmp_path: Path) -> None:
    loaded = load(tmp_path)
    manifest = loaded.manifest

    assert [spec.name for spec in manifest.datasets] == ["flights", "weather"]
    flights, model, endpoint = manifest.datasets[0], manifest.models[0], manifest.endpoints[0]
    assert {column.name: column.personal for column in flights.contract.columns if column.personal} == {
        "name": "seal"
    }
    assert (flights.contract.freshness_column, flights.contract.max_age) == ("scheduled_at", "48h")
    assert manifest.features[0].function.qualname == "departure"
    assert manifest.features[0].description == "The weather at departure."
    assert (model.dataset, model.features, model.on) == ("flights", ("departure",), {"origin": "airport"})
    assert [trigger.kind for trigger in model.triggers] == ["new_data", "drift", "cron"]
    assert (model.approvals, model.resources.memory, model.params) == (1, "4GiB", {"depth": 6})
    assert endpoint.release.guardrails == ("errors", "latency", "prediction_drift")
    assert [one.kind for one in endpoint.fallback] == ["previous_version"]
    assert manifest.bundle == digest_bytes(loaded.bundle)
    assert manifest.root == str(tmp_path)


def test_a_function_in_the_manifest_is_in_the_bundle_under_its_module(tmp_path: Path) -> None:
    loaded = load(tmp_path, name="taut.py")

    assert loaded.manifest.models[0].function.module == "taut_project"
    assert set(parse_bundle(loaded.bundle).files) == {"taut_project.py"}


def test_equal_projects_have_equal_digests_wherever_they_lie(tmp_path: Path) -> None:
    one, two = tmp_path / "one", tmp_path / "two"
    one.mkdir()
    two.mkdir()

    assert load(one).manifest.digest == load(two).manifest.digest


def test_nothing_happens_at_import_and_the_function_stays_a_plain_function(tmp_path: Path) -> None:
    (tmp_path / "project.py").write_text(PROJECT)
    code = "import project; print(project.departure(7), project.flights, type(project.train).__name__)"
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=tmp_path, capture_output=True, text=True, check=True
    )

    assert done.stdout.strip() == "7 taut.Dataset('flights') function"


def test_loading_twice_sees_the_edit_and_leaves_nothing_behind(tmp_path: Path) -> None:
    (tmp_path / "helper.py").write_text("NAME = 'first'")
    source = 'import taut\nfrom helper import NAME\ntaut.Dataset(NAME, source=taut.files("x"), contract=taut.Contract({"a": "int"}))'
    before = list(sys.path)

    first = load(tmp_path, source).manifest.datasets[0].name
    (tmp_path / "helper.py").write_text("NAME = 'second'")
    second = load(tmp_path, source).manifest.datasets[0].name

    assert (first, second) == ("first", "second")
    assert "helper" not in sys.modules
    assert sys.path == before


def test_contracts_in_files_enter_the_bundle(tmp_path: Path) -> None:
    (tmp_path / "contracts").mkdir()
    (tmp_path / "contracts/orders.yaml").write_text(
        "apiVersion: v3.0.2\nkind: DataContract\nid: orders\nversion: 1.0.0\nstatus: active\n"
        "schema:\n  - name: orders\n    properties:\n      - name: id\n        logicalType: integer\n        required: true\n"
    )
    source = 'import taut\ntaut.Dataset("orders", source=taut.files("x"), contract=taut.Contract.from_odcs("contracts/orders.yaml"))'

    loaded = load(tmp_path, source)

    assert loaded.manifest.datasets[0].contract.columns[0].name == "id"
    assert "contracts/orders.yaml" in parse_bundle(loaded.bundle).files


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (('event_time="scheduled_at"', 'event_tme="scheduled_at"'), "Dataset has no argument 'event_tme': did you mean 'event_time'?"),
        (('minimum=0, maximum', 'minimun=0, maximum'), "column 'distance' has no argument 'minimun': did you mean 'minimum'?"),
        (('label="late"', 'lable="late"'), "model has no argument 'lable': did you mean 'label'?"),
        (("taut.Endpoint(", "taut.Endpiont("), "did you mean 'Endpoint'?"),
        (("model=train", "model=trian"), "name 'trian' is not defined: did you mean 'train'?"),
        (('"carrier", "origin", "distance"]', '"carier", "origin", "distance"]'), "request names a column 'carier': did you mean 'carrier'?"),
        (('on={"origin": "airport"}', 'on={"orgin": "airport"}'), "on maps 'orgin', which is no request column: did you mean 'origin'?"),
        (('on={"origin": "airport"}', 'on={"origin": "airprt"}'), "which keys none of its feature sets: did you mean 'airport'?"),
        (('label="late"', 'label="lat"'), "label names a column 'lat': did you mean 'late'?"),
        (('taut.no_regression("auc", tolerance=0.01)', 'taut.calibrated(), taut.calibrated(maximum=0.1)'), "gates have 'calibrated' more than once"),
        (('taut.no_regression("auc", tolerance=0.01)', 'taut.slices("origin", metric="f1", drop=0.1)'), "slices: metric is 'f1'"),
        (('"origin", "distance"]', '"origin", "late"]'), "request names 'late', which nobody knows before the answer"),
        (('label_at="arrived_at"', 'label_at="carrier"'), "label_at 'carrier' is of type string: it must be date or datetime"),
        (('personal=["name"]', 'personal=["nme"]'), "personal names a column 'nme': did you mean 'name'?"),
        (('"distance", "float"', '"distance", "flaot"'), "column 'distance': dtype is 'flaot': did you mean 'float'?"),
        (("dataset=flights", 'dataset="flights"'), "name the dataset as an object, dataset=flights"),
        (("features=[departure]", 'features=["departure"]'), "name functions that @taut.features decorates"),
        (("sources=[weather]", 'sources=["weather"]'), "name datasets as objects"),
        (("model=train", 'model="delay"'), "name the function that @taut.model decorates"),
        (('taut.files("data/weather.csv")', '"data/weather.csv"'), "write source=taut.files('data/weather.csv')"),
        (('"weather",\n', '"flights",\n'), "dataset 'flights' is declared twice, first in project.py, line 4"),
        (("def departure(weather):", "def departure(weather, planes):"), "must take one argument for each of its sources"),
        (('risk="medium"', 'risk="hihg"'), "risk is 'hihg': did you mean 'high'?"),
        (('test="30d"', 'test="30 day"'), "by_time: test: '30 day' is not understood"),
        (('memory="4GiB"', 'memory="4G"'), "Resources: memory: '4G' is not understood"),
        (("minimum=0.65", 'minimum="0.65"'), "metric 'auc': minimum is '0.65': write a number"),
        (("minimum=0.65", "minimum=float('nan')"), "metric 'auc': minimum is nan"),
        (('"0 3 * * *"', '"0 25 * * *"'), "cron: the hour '25'"),
        (('"0 3 * * *"', '"0/² 3 * * *"'), "cron: the minute '0/²'"),
        (('"0 3 * * *"', '"daily"'), "cron: 'daily' has 1 fields"),
        (("(0.01, 0.05, 0.25, 0.5)", "(0.05, 0.01)"), "write growing parts of the traffic"),
        (('params={"depth": 6}', 'params={"depth": [6]}'), "params['depth'] is [6]"),
        (('max_age="3h"', 'max_age="soon"'), "max_age: 'soon' is not understood"),
        (('format="csv"', 'format="cvs"'), "files: format is 'cvs': did you mean 'csv'?"),
        (('"delay", dataset', '"De lay", dataset'), "model 'De lay' is not allowed"),
        (("\nimport taut\n", "\nimport taut\nimport polras\n"), "line 3: No module named 'polras': did you mean 'polars'? Else install the package 'polras'"),
        (("\nimport taut\n", "\nimport taut\nimport nosuchmodule_\n"), "No module named 'nosuchmodule_': install the package 'nosuchmodule_'"),
        (('taut.metric("auc"', 'taut.metric("acu"'), "metric: name is 'acu': did you mean 'auc'?"),
        (('test="30d"', 'test="0d"'), "by_time: test is '0d': nothing would be held out"),
        (('test="30d"', f'test="{"9" * 400}d"'), "is longer than any duration can be"),
        (('memory="4GiB"', f'memory="{"9" * 400}GiB"'), "is larger than any size can be"),
        (("\nimport taut\n", "\nimport taut\n1 / 0\n"), "line 3: ZeroDivisionError: division by zero"),
        (("def departure(weather):", "def departure(weather:"), "project.py, line"),
        (('audit="crash-safe"', 'audit="off"'), 'audit="off" is for low risk only'),
        (("approval=taut.approval(1)", "approval=1"), "approval is 1: write taut.approval(1)"),
        (("minimum=0, maximum=5000", "minimum=10, maximum=5"), "column 'distance'"),
        (('subject="passenger_id", ', ""), "name"),
    ],
)  # fmt: skip
def test_what_is_wrong_is_named_with_its_place_and_the_nearest_word(
    tmp_path: Path, change: tuple[str, str], said: str
) -> None:
    message = refusal(tmp_path, change)

    assert said in message
    assert "project.py, line" in message


def test_every_problem_is_named_at_once(tmp_path: Path) -> None:
    message = refusal(
        tmp_path,
        ('label="late"', 'label="lat"'),
        ('entity="airport", event_time="hour"', 'entity="airprt", event_time="hour"'),
    )

    assert message.startswith("2 problems in the project:")
    assert "'lat'" in message
    assert "'airprt'" in message


def test_a_column_that_no_request_gives_cannot_key_a_feature_set(tmp_path: Path) -> None:
    message = refusal(tmp_path, (', on={"origin": "airport"}', ""))

    assert "keyed by 'airport', which no request column gives" in message


def test_things_from_elsewhere_cannot_be_part_of_a_project(tmp_path: Path) -> None:
    import taut

    sys.modules["elsewhere"] = module = type(sys)("elsewhere")
    module.shared = taut.Dataset("shared", source=taut.files("x"), contract=taut.Contract({"a": "int"}))  # type: ignore[attr-defined]
    source = (
        "import taut\nfrom elsewhere import shared\n"
        '@taut.features("f", entity="a", event_time="t", sources=[shared])\ndef f(shared): ...\n'
    )
    try:
        with pytest.raises(InvalidInput, match="declare it in the project's own files"):
            load(tmp_path, source)
    finally:
        del sys.modules["elsewhere"]


def test_an_empty_file_an_absent_one_and_two_of_them_are_told_apart(tmp_path: Path) -> None:
    with pytest.raises(InvalidInput, match="declares nothing"):
        load(tmp_path, "x = 1")
    with pytest.raises(NotFound, match="no project file"):
        load_project(tmp_path / "other.py")
    (tmp_path / "taut.py").touch()
    with pytest.raises(InvalidInput, match="keep one"):
        find_project_file(tmp_path)
    (tmp_path / "empty").mkdir()
    with pytest.raises(NotFound, match="taut init"):
        find_project_file(tmp_path / "empty")


@settings(max_examples=40, deadline=None)
@given(st.sampled_from(["event_time", "entity", "contract", "description", "personal", "subject"]), st.data())
def test_one_wrong_letter_is_always_mended(word: str, data: st.DataObject) -> None:
    at = data.draw(st.integers(0, len(word) - 1))
    wrong = word[:at] + data.draw(st.sampled_from("qxz")) + word[at + 1 :]

    assert nearest(wrong, ["event_time", "entity", "contract", "description", "personal", "subject"]) == (
        f": did you mean {word!r}?"
    )


@settings(max_examples=40, deadline=None)
@given(st.text(max_size=60))
def test_no_text_in_a_project_file_gives_anything_but_a_taut_error(
    tmp_path_factory: pytest.TempPathFactory, text: str
) -> None:
    folder = tmp_path_factory.mktemp("project")
    (folder / "project.py").write_text(
        f"import taut\ntaut.Project({text!r})\n", encoding="utf-8", errors="replace"
    )
    with contextlib.suppress(TautError):  # anything else fails the test
        assert load_project(folder / "project.py").manifest.project == text


@pytest.mark.parametrize("content", [b"\0", b"import taut\n\0", b"\xff\xfe\0x"])
def test_a_file_that_is_no_text_is_named_although_python_does_not_name_it(
    tmp_path: Path, content: bytes
) -> None:
    (tmp_path / "project.py").write_bytes(content)

    with pytest.raises(InvalidInput, match=r"^project\.py"):
        load_project(tmp_path / "project.py")
