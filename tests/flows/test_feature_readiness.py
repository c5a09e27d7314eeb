"""Readiness that means it: endpoints whose features are gone, damaged or old are not ready, say why, and heal."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest
from installation import Installation, Up, until

from taut.adapters.keys.file import FileKeys
from taut.adapters.online import open_online_writer
from taut.adapters.world import SystemRandom
from taut.core.schema import Column, DType, FeatureLookup, ModelInput, ModelSignature
from taut.ports.online import OnlineRow
from taut.serving.snapshot import EndpointConfig
from taut.testing.serving import DataPlane, GatewayProcess, matrix_model, now_us

pytestmark = pytest.mark.xdist_group("feature-readiness")

HEADERS = {"authorization": "Bearer taut_k1_s3cret"}


class Endpoint:
    """One endpoint of a running gateway as its readiness has it."""

    def __init__(self, url: str, headers: dict[str, str]) -> None:
        self._url, self._headers = url, headers

    def ready(self) -> tuple[bool, str]:
        answer = httpx.get(f"{self._url}/ready", headers=self._headers, timeout=60.0)
        document = answer.json()
        assert (answer.status_code == 200) == document["ready"], document
        return document["ready"], "; ".join(document["reasons"])

    def becomes(self, ready: bool, said: str = "") -> str:
        until(lambda: self.ready()[0] == ready and said in self.ready()[1], said=lambda: str(self.ready()))
        return self.ready()[1]


@pytest.fixture(scope="module")
def up(released_template: Installation, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Up]:
    shop = released_template.copy_to(tmp_path_factory.mktemp("features") / "shop")
    with shop.up() as running:
        yield running


@pytest.fixture
def late(up: Up) -> Endpoint:
    return Endpoint(f"{up.data}/v2/models/late", {"authorization": f"Bearer {up.token()}"})


def told(up: Up) -> str:
    """What `taut status` says of readiness, in people's words."""
    shop = up.installation
    shown: list[Any] = shop("status")["not_ready"]
    return "; ".join(reason for one in shown for reason in one["reasons"] if one["endpoint"] == "late")


def test_an_installation_whose_online_store_is_lost_says_so_until_it_is_materialised_again(
    up: Up, late: Endpoint
) -> None:
    bearer = up.token()
    late.becomes(True)
    assert up.ask(bearer).status_code == 200
    assert told(up) == ""

    for path in up.installation.home.glob("online.db*"):
        path.unlink()

    late.becomes(False, "does not answer")
    until(lambda: "does not answer" in told(up))
    assert up.ask(bearer).status_code == 503
    doctor = {one["name"]: one for one in up.installation.told("doctor").document["findings"]}["features"]
    assert doctor["state"] == "bad"
    assert "does not answer" in doctor["said"]
    assert "materialize" in doctor["mend"]

    up.installation("features", "materialize", "load")

    late.becomes(True)
    until(lambda: told(up) == "")
    until(lambda: up.ask(bearer).status_code == 200)


def test_features_of_another_definition_than_the_models_are_said_until_the_former_is_back(
    up: Up, late: Endpoint
) -> None:
    shop = up.installation
    project = (shop.folder / "project.py").read_text()

    def redefine(text: str) -> None:
        shop.write("project.py", text)
        shop("apply")
        shop("features", "build", "load")
        shop("features", "materialize", "load")

    late.becomes(True)
    redefine(project.replace("waiting=pl.col", "waiting=2.0 * pl.col"))
    said = late.becomes(False, "another definition than late@1 was trained with")
    assert "load@2 was made by" in said

    redefine(f"# only a comment is new\n{project}")

    late.becomes(True)
    assert up.ask(up.token()).status_code == 200


def test_bytes_that_changed_in_the_store_are_found_before_anybody_asks(up: Up, late: Endpoint) -> None:
    late.becomes(True)
    store = up.installation.home / "online.db"
    with open_online_writer(store) as writer:
        writer._connection.execute("PRAGMA wal_checkpoint(TRUNCATE)")
        [key] = writer._connection.execute("SELECT max(row) FROM online_rows").fetchone()
    whole = store.read_bytes()
    at = whole.index(key) + 8
    with store.open("r+b") as file:
        file.seek(at)
        file.write(bytes([whole[at] ^ 0xFF]))

    late.becomes(False, "is not what was written")

    with store.open("r+b") as file:
        file.write(whole)
    late.becomes(True)


def test_a_store_that_was_replaced_by_rubbish_and_then_by_a_copy_is_followed(
    up: Up, late: Endpoint, tmp_path: Path
) -> None:
    bearer = up.token()
    late.becomes(True)
    store = up.installation.home / "online.db"
    with open_online_writer(store) as writer:
        writer._connection.execute("PRAGMA wal_checkpoint(TRUNCATE)")
    kept = shutil.copy(store, tmp_path / "kept.db")
    for path in up.installation.home.glob("online.db*"):
        path.unlink()
    store.write_bytes(b"rubbish" * 4096)

    late.becomes(False, "is damaged")
    assert up.ask(bearer).status_code == 503

    store.unlink()
    shutil.copy(kept, store)
    late.becomes(True)
    until(lambda: up.ask(bearer).status_code == 200)


# a gateway alone, whose features can be of any age and form


def endpoint_of(plane: DataPlane, *, max_age_s: float) -> EndpointConfig:
    columns = tuple(Column(name, DType.FLOAT) for name in ("x0", "x1"))
    signature = ModelSignature(
        request=(Column("warehouse", DType.STRING),),
        inputs=tuple(ModelInput(column=column, feature_set="load") for column in columns),
        lookups=(
            FeatureLookup(
                feature_set="load", entity=("warehouse",), keys=("warehouse",), max_age_s=max_age_s
            ),
        ),
        output="probability",
        classes=(0, 1),
    )
    served = plane.served(matrix_model(2), signature, feature_columns={"load": {"load@1": ("x0", "x1")}})
    return EndpointConfig(name="delay", live=served)


def test_a_gateway_finds_old_empty_and_foreign_features_and_serves_when_they_are_mended(
    tmp_path: Path,
) -> None:
    plane = DataPlane(tmp_path, FileKeys(tmp_path / "keys", random=SystemRandom()))
    plane.issue(endpoint_of(plane, max_age_s=2.0))

    def put(*, source: str = "load@1") -> None:
        writer.put("load", [(("north",), OnlineRow(now_us(), (0.5, 1.0), source))])

    with open_online_writer(tmp_path / "online.db") as writer, GatewayProcess(tmp_path) as gateway:
        gateway.start()
        base = f"http://127.0.0.1:{gateway.port}"
        delay = Endpoint(f"{base}/v2/models/delay", HEADERS)

        def ask() -> httpx.Response:
            body = {"instances": [{"warehouse": "north"}]}
            return httpx.post(f"{base}/v1/predict/delay", json=body, headers=HEADERS, timeout=60.0)

        def answered() -> bool:
            """Written anew each time: a row may be old sooner than a busy machine asks."""
            put()
            return delay.ready()[0] and ask().status_code == 200

        assert "'load' is empty" in delay.becomes(False)
        until(answered)

        delay.becomes(False, "'load' is stale")  # nobody wrote for as long as a row may be old
        assert ask().status_code == 422
        assert httpx.get(f"{base}/v2/health/ready", timeout=60.0).status_code == 200, (
            "other endpoints are served"
        )

        def unknown() -> bool:
            put(source="load@7")
            return "which this snapshot does not know" in delay.ready()[1] and ask().status_code == 503

        until(unknown)
        until(answered)
