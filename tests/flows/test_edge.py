"""A model that leaves the installation as one file: it proves itself, answers alone, asks when unsure, and reports once."""

from __future__ import annotations

import json
import signal
import subprocess
import time
from pathlib import Path
from typing import Any

import httpx
import pytest
from installation import ORDER, Installation, Json, until
from runner import ALONE, device_environ, document, run_alone, serving

from taut.bootstrap.platform import open_platform

OFFLINE = ("unshare", "--user", "--map-root-user", "--net")
"""A network of its own, with nothing in it."""
WHERE = """
import runpy, sys
sys.argv = [sys.argv[1], "verify"]
try:
    runpy.run_path(sys.argv[0], run_name="__main__")
except SystemExit as end:
    assert end.code == 0
import taut, taut.serving.edge.bundle
print(taut.__file__, taut.serving.edge.bundle.__file__)
"""


@pytest.fixture
def exported(released: Installation) -> tuple[Installation, Path, Json]:
    """An installation and the bundle of `late@1`, in a folder of its own."""
    device = released.folder.parent / "device"
    device.mkdir()
    told = released("model", "export", "late@1", "--edge", str(device / "late.pyz"), "--features-in-request")
    return released, device / "late.pyz", told


def device_key(shop: Installation, folder: Path, principal: str = "kiosk") -> Path:
    told = shop("key", "create", "--principal", principal, "--role", "device", "--enrol", "service")
    path = folder / f"{principal}.key"
    path.write_text(told["key"] + "\n")
    return path


def test_a_bundle_answers_alone_what_the_platform_answers(
    exported: tuple[Installation, Path, Json], tmp_path: Path
) -> None:
    shop, bundle, told = exported
    said = shop("predict", "late", "--data", json.dumps(ORDER))["predictions"]
    with open_platform(shop.home, environ=shop.whole_environ()) as platform:
        waiting = next(iter(platform.predictions.records())).features[0][0].values[0]
    trust = ("--fingerprint", told["fingerprints"][0])

    proved = document(run_alone(bundle, "verify", *trust, within=OFFLINE))
    answered = document(
        run_alone(
            bundle,
            "predict",
            *trust,
            "--data",
            "-",
            stdin=json.dumps({**ORDER, "waiting": waiting}),
            within=OFFLINE,
        )
    )
    imported = subprocess.run(
        [*ALONE, "-c", "import taut"], env=device_environ(), cwd=tmp_path, capture_output=True
    )
    where = subprocess.run(
        [*ALONE, "-c", WHERE, str(bundle)], env=device_environ(), cwd=tmp_path, capture_output=True, text=True
    )

    assert (proved["ok"], proved["trusted"], proved["version"]) == (True, "fingerprint", "late@1")
    assert [{name: row[name] for name in ("label", "probability")} for row in answered["predictions"]] == said
    assert (answered["answered_by"], answered["release"]) == ("edge", told["bundle"])
    assert imported.returncode == 1, "taut is not there without the bundle"
    assert where.stdout.splitlines()[-1].split() == [
        f"{bundle}/taut/__init__.py", f"{bundle}/taut/serving/edge/bundle.py",
    ]  # fmt: skip
    again = tmp_path / "again.pyz"
    shop("model", "export", "late@1", "--edge", str(again), "--features-in-request")
    assert again.read_bytes() == bundle.read_bytes()
    assert shop("model", "verify", "late@1", "--edge", str(bundle))["exported_here"] is True
    assert "vouches only for itself" in run_alone(bundle, "verify").stderr


def test_what_cannot_answer_at_the_edge_is_not_exported(released: Installation, tmp_path: Path) -> None:
    file = tmp_path / "late.pyz"

    said = released.refused(
        "model", "export", "late@1", "--edge", str(file), exit_code=2, code="invalid_input"
    )
    assert "waiting" in said
    assert "--features-in-request" in said
    words = ("model", "export", "late@1", "--edge", str(file), "--features-in-request")
    released.refused(*words, "--variant", "int8-static", exit_code=3, code="not_found")
    released.refused("model", "export", "late@1", exit_code=2, code="invalid_input")
    assert not file.exists()
    assert released(*words)["variant"] == "original"
    released.refused(*words, exit_code=5, code="conflict")


def test_a_device_asks_the_cloud_when_unsure_answers_alone_when_it_is_gone_and_reports_once(
    exported: tuple[Installation, Path, Json],
) -> None:
    shop, bundle, told = exported
    state = bundle.parent / "state"
    row = {**ORDER, "waiting": 40}

    def counted() -> list[Json]:
        time.sleep(0.1)
        found: list[Json] = shop("model", "edge", "late@1")["devices"]
        return found

    def words(up: Any, key: Path) -> tuple[str, ...]:
        return (
            "--fingerprint", told["fingerprints"][0], "--state", str(state), "--token-file", str(key),
            "--report-to", up.control, "--report-every", "0.5",
            "--cloud", f"{up.data}/v1/predict/late", "--confidence", "0.999", "--cloud-timeout-ms", "30000",
        )  # fmt: skip

    with shop.up() as up:
        key = device_key(shop, bundle.parent)
        settings = words(up, key)
        with serving(bundle, *settings) as runner:
            asked = runner.ask(row)
            platform = up.ask(up.token())
            assert asked.headers["taut-answered-by"] == "cloud", (asked.text, runner.said())
            own = {name: asked.json()["predictions"][0][name] for name in ("label", "probability")}
            assert own["label"] == platform.json()["predictions"][0]["label"]
            assert abs(own["probability"] - platform.json()["predictions"][0]["probability"]) < 1e-6
            assert asked.json()["cloud"]["model_version"] == "late@1"
            assert shop("why", asked.json()["cloud"]["request_id"])
            up.close()

            alone = [runner.ask(row) for _ in range(6)]
            assert {answer.status_code for answer in alone} == {200}
            assert {answer.headers["taut-answered-by"] for answer in alone} == {"edge"}
            assert {answer.headers["taut-fallback"] for answer in alone} == {"edge"}
            assert httpx.get(f"{runner.url}/v2/health/ready", timeout=60.0).json()["degraded"]
            assert runner.ask({"warehouse": 3}).status_code == 422
            runner.kill()  # with everything since the last report untold
    with shop.up(port=up.port), serving(bundle, *settings) as runner:
        runner.ask(row)
        assert (runner.ask({**row, "distance_km": 1e7})).status_code == 200
        until(lambda: sum(one["answers"] for one in counted()) == 9, within_s=90, said=runner.said)
        time.sleep(1.2)  # as long as two further reports take
        (device,) = counted()
    assert device["answers"] == 9
    assert (device["by_cloud"] + device["by_edge"], device["errors_by_code"]) == (9, {"invalid_input": 1})
    assert device["cloud_silent"] >= 6
    assert (device["principal"], device["missed"], device["dropped"]) == ("kiosk", 0, 0)
    assert device["out_of_range"] == {"distance_km": 1}
    assert sum(device["labels"].values()) == 9
    assert device["latency_ms_p99"] > 0
    assert shop("ledger", "verify")["ok"]
    assert not (state / "inputs.jsonl").exists()


def test_a_runner_that_is_stopped_answers_what_is_under_way_and_ends_well(
    exported: tuple[Installation, Path, Json],
) -> None:
    _, bundle, _ = exported

    with serving(bundle, "--state", str(bundle.parent / "state"), "--keep-inputs") as runner:
        assert runner.ask({**ORDER, "waiting": 40}).status_code == 200
        tensor = {"name": "items", "shape": [1], "datatype": "INT64", "data": [3]}
        refused = httpx.post(f"{runner.url}/v2/models/late/infer", json={"inputs": [tensor]}, timeout=60.0)
        assert (refused.status_code, refused.json()["error"]["code"]) == (422, "invalid_input")
        runner.process.send_signal(signal.SIGTERM)
        assert runner.process.wait(timeout=90) == 0
    kept = (bundle.parent / "state" / "inputs.jsonl").read_text()
    assert json.loads(kept)["instances"][0]["distance_km"] == 12.5
