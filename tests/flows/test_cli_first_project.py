"""The tutorial's project from nothing to an explained answer, through the command line alone."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
from installation import free_ports

from taut.entrypoints.cli import run

ORDER = '{"warehouse": "north", "carrier": "bike", "items": 3, "distance_km": 12.5}'

pytestmark = pytest.mark.xdist_group("cli-flow")


class Shop:
    """A project folder and its command line, one command at a time in this process."""

    def __init__(self, capsys: pytest.CaptureFixture[str], folder: Path) -> None:
        self._capsys = capsys
        self.folder = folder

    def __call__(self, *words: str, expect: int = 0) -> dict[str, Any]:
        self._capsys.readouterr()
        code = run(["--json", *words])
        told = self._capsys.readouterr()
        assert code == expect, (words, code, told.out, told.err)
        document: dict[str, Any] = json.loads(told.out)
        return document


@pytest.fixture
def shop(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Shop:
    monkeypatch.chdir(tmp_path)
    made = Shop(capsys, tmp_path / "shop")
    made("init", "shop")
    monkeypatch.chdir(tmp_path / "shop")
    return made


@contextmanager
def platform(folder: Path, port: int) -> Iterator[dict[str, Any]]:
    """`taut up` in a process of its own, until the block ends."""
    command = [sys.executable, "-P", "-m", "taut.entrypoints.cli", "--json", "up", "--port", str(port)]
    environ = {**os.environ, "PYTHONSAFEPATH": "1"}
    with subprocess.Popen(
        command, cwd=folder, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True, env=environ
    ) as up:
        assert up.stdout is not None
        try:
            ready: dict[str, Any] = json.loads(up.stdout.readline())
            yield ready
        finally:
            up.send_signal(signal.SIGTERM)
            up.wait(timeout=90)


def test_from_nothing_to_an_explained_answer(shop: Shop) -> None:
    plan = shop("plan")
    assert (plan["verdict"], plan["base"]) == ("admit", "")
    applied = shop("apply")
    assert applied["plan"].startswith("plan_")

    orders = shop("data", "ingest", "orders")
    assert (orders["snapshot"], orders["rows"], orders["quarantined"], orders["rejected"]) == (
        "orders@1",
        5981,
        19,
        False,
    )
    assert set(orders["rules"]) == {"carrier:allowed", "items:minimum", "_row:arrives after it was placed"}
    assert shop("data", "ingest", "orders")["unchanged"]
    shop("data", "ingest", "backlog")
    assert len(shop("data", "quarantine", "orders")["records"]) == 19

    trained = shop("train", "late")
    assert (trained["version"], trained["verdict"]) == ("late@1", "admit")
    assert trained["metrics"]["auc"] > 0.75
    assert shop("run", "show", trained["run"])["isolation"]

    refused = shop("release", "start", "late", "1", expect=10)
    assert "approved" in str(refused["reasons"])
    shop("model", "approve", "late@1", "--reason", "looked at the card")
    released = shop("release", "start", "late", "late@1")
    assert (released["verdict"], released["state"]) == ("admit", "live")

    answer = shop("predict", "late", "--data", ORDER)
    assert answer["model_version"] == "late@1"
    assert 0 <= answer["predictions"][0]["probability"] <= 1
    why = shop("why", answer["request_id"])
    assert "data/orders-1.csv" in str(why["tree"])
    assert why["tree"]["made_by"][0]["activity"] == "predict"

    assert shop("model", "verify", "late@1")["ok"]
    assert shop("ledger", "verify")["ok"]
    assert shop("ledger", "prove", "model:late@1")["leaf"]["subject"] == "model:late@1"
    assert shop("rollback", "late", expect=3)["error"]["code"] == "not_found"
    assert shop("predict", "lat", "--data", "{}", expect=3)["error"]["message"]
    assert shop("predict", "late", "--data", '{"warehouse": 3}', expect=2)["error"]["code"] in (
        "invalid_input",
        "malformed",
    )

    port = free_ports()
    with platform(shop.folder, port) as ready:
        assert ready["data_plane"] == f"http://127.0.0.1:{port}"
        over_http = shop("predict", "late", "--data", ORDER)
        assert over_http["predictions"] == answer["predictions"]
        status = shop("status")
        assert status["data_plane"] == ready["data_plane"]
        assert {process["state"] for process in status["processes"]} == {"ready"}
        taken = run(["--json", "up", "--port", str(port)])
        assert taken == 5


def test_a_plan_that_is_rejected_changes_nothing_and_exits_with_10(shop: Shop) -> None:
    shop("apply")
    project = shop.folder / "project.py"
    source = project.read_text() + 'taut.Project("shop", environment="production")\n'
    project.write_text(source.replace("approval=taut.approval(1),", ""))

    rejected = shop("apply", expect=10)

    assert rejected["plan"] is None
    assert "taut.approval(1)" in str(rejected["reasons"])
    assert shop("plan", "show")["manifest"]["environment"] == "development"


def test_a_typo_in_the_project_is_named_before_anything_is_touched(shop: Shop) -> None:
    project = shop.folder / "project.py"
    project.write_text(project.read_text().replace('label="late"', 'label="latr"'))

    told = shop("apply", expect=2)["error"]["message"]

    assert "did you mean 'late'" in told
    assert "project.py, line" in told
    assert not (shop.folder / ".taut").exists()


def test_a_batch_beyond_its_threshold_is_rejected_whole(shop: Shop) -> None:
    shop("apply")
    shop("data", "ingest", "orders")
    good = (shop.folder / "data/orders-2.csv").read_text().splitlines()
    bad = [line.replace(",post,", ",pigeon,").replace("50", "51", 1) for line in good[1:200]]
    (shop.folder / "data/orders-3.csv").write_text("\n".join([good[0], *bad]) + "\n")

    rejected = shop("data", "ingest", "orders", expect=10)

    assert rejected["rejected"]
    assert rejected["snapshot"] == "orders@1"
    assert shop("data", "show", "orders")["rows"] == 5981


def test_a_second_person_ends_the_owners_privilege_and_tokens_begin(shop: Shop) -> None:
    shop("apply")
    shop("user", "add", "ada", "--role", "admin")
    token = shop("token", "create", "--principal", "ada", "--role", "admin")["token"]
    shop("user", "add", "bob", "--role", "builder")

    assert shop("data", "list", expect=4)["error"]["code"] == "unauthenticated"
    assert shop("data", "list", "--token", token)["datasets"] == []
    assert shop("user", "list", "--break-glass", "lost the token")["users"]
    kinds = [leaf["kind"] for leaf in shop("ledger", "show", "--token", token)["leaves"]]
    assert "identity.break_glass" in kinds
