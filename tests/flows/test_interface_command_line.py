"""What INTERFACE promises of the command line: names, flags, exit codes, documents, without a platform running."""

from __future__ import annotations

import json
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import typer
from installation import ORDER, Installation, assert_clear, until

from taut.entrypoints.cli.app import build

pytestmark = pytest.mark.xdist_group("interface-cli")

DATA = json.dumps(ORDER)

COMMANDS = {
    "demo": (), "init": (), "up": (), "plan": (), "apply": (), "train": (), "rollback": (), "predict": (), "why": (),
    "status": (), "doctor": (),
    "data": ("ingest", "list", "show", "diff", "rollback", "quarantine"),
    "features": ("build", "materialize", "show"),
    "run": ("list", "show", "compare", "reproduce"),
    "model": ("list", "show", "approve", "reject", "verify", "export"),
    "release": ("start", "status", "history"),
    "ledger": ("verify", "show", "checkpoint", "prove"),
    "user": ("add", "list"), "key": ("create", "list", "revoke"), "token": ("create", "revoke"),
    "policy": ("show",), "secret": ("put", "list"),
}  # fmt: skip

FLAGS = {
    "demo": ("--exit",),
    "up": ("--project", "--host", "--port", "--gateways"),
    "data ingest": ("--from",),
    "release start": ("--strategy",),
    "rollback": ("--to",),
    "predict": ("--data",),
    "token create": ("--principal", "--role", "--ttl"),
}


@pytest.fixture(scope="module")
def shop(released_template: Installation, tmp_path_factory: pytest.TempPathFactory) -> Installation:
    """One installation for this file; tests only add to it."""
    return released_template.copy_to(tmp_path_factory.mktemp("interface") / "shop")


def _commands() -> dict[str, Any]:
    root: Any = typer.main.get_command(build())
    found = dict(root.commands)
    for noun, command in root.commands.items():
        found |= {f"{noun} {verb}": below for verb, below in getattr(command, "commands", {}).items()}
    return found


def test_every_command_that_is_promised_is_there_by_its_name() -> None:
    found = _commands()
    wanted = {f"{noun} {verb}" for noun, verbs in COMMANDS.items() for verb in verbs} | set(COMMANDS)

    assert wanted - set(found) == set()
    for name, flags in FLAGS.items():
        has = {option for parameter in found[name].params for option in parameter.opts}
        assert set(flags) <= has, name


def test_global_options_are_taken_before_and_after_the_noun(shop: Installation) -> None:
    before = shop.process("--home", ".taut", "data", "list")
    after = shop.process("data", "list", "--home", str(shop.home))

    assert before.document == after.document


def test_standard_output_is_one_document_and_progress_goes_beside_it(shop: Installation) -> None:
    told = shop.process("data", "ingest", "backlog", "--from", "data/backlog.csv")

    assert told.code == 0
    assert told.document["dataset"] == "backlog"
    assert told.err
    assert "{" not in told.err


def test_documents_have_the_fields_that_others_build_on(shop: Installation) -> None:
    ingest = shop("data", "ingest", "orders")
    assert {"dataset", "snapshot", "rows", "quarantined", "rejected", "rules"} <= set(ingest)
    shown = shop("data", "show", "orders")
    assert {"dataset", "snapshot", "rows", "schema"} <= set(shown)
    assert (shown["snapshot"], shown["rows"]) == ("orders@1", 5981)
    assert shop("data", "show", "orders", "--version", "1") == shown
    status = shop("release", "status", "late")
    assert {"release", "endpoint", "version", "strategy", "step", "weight", "verdict", "guardrails"} <= set(
        status
    )
    assert (status["version"], status["strategy"], status["guardrails"]) == ("late@1", "direct", [])
    assert set(shop("ledger", "verify")) >= {"ok", "size", "root", "faults"}
    run = shop("run", "list")["runs"][0]["run"]
    assert shop("run", "show", run)["run"] == run
    assert shop("run", "compare", run, run)["differences"] == []
    assert shop("model", "show", "late@1")["version"] == "late@1"


def test_a_token_is_created_as_it_is_written_for_someone_nobody_knew(shop: Installation) -> None:
    made = shop("token", "create", "--principal", "fresh", "--role", "predictor", "--ttl", "15m")

    assert {"token", "expires_at"} <= set(made)
    assert made["enrolled"] == "service"
    assert shop("user", "show", "fresh")["kind"] == "service"
    more = shop.refused(
        "token", "create", "--principal", "fresh", "--role", "admin", exit_code=4, code="denied"
    )
    assert "admin" in more
    again = shop("token", "create", "--principal", "fresh", "--role", "predictor")
    assert again["enrolled"] is None


def test_only_an_administrator_adds_someone_by_asking_for_a_token(shop: Installation) -> None:
    operator = shop("token", "create", "--principal", "ops", "--role", "operator")["token"]

    told = shop.told("token", "create", "--principal", "nobody", "--role", "predictor", "--token", operator)

    assert told.code in (3, 4)
    assert shop.told("user", "show", "nobody").code == 3


@pytest.mark.parametrize("role", ["admin", "operator", "builder", "approver", "predictor", "auditor"])
def test_the_built_in_roles_are_known(shop: Installation, role: str) -> None:
    assert shop("token", "create", "--principal", f"one-{role}", "--role", role)["token"]


def test_a_credential_alone_is_on_standard_output(shop: Installation) -> None:
    command = [
        sys.executable, "-P", "-m", "taut.entrypoints.cli", "key", "create", "--principal", "app", "--role", "predictor",
    ]  # fmt: skip
    told = subprocess.run(command, cwd=shop.folder, capture_output=True, text=True, check=True)

    assert told.stdout.count("\n") == 1
    assert told.stdout.startswith("taut_")
    assert "shown only now" in told.stderr
    assert told.stdout.strip() not in str(shop("key", "list"))


def test_predict_takes_json_a_file_and_standard_input(shop: Installation) -> None:
    shop.write("order.json", DATA)
    command = [sys.executable, "-P", "-m", "taut.entrypoints.cli", "--json", "predict", "late", "--data", "-"]
    piped = subprocess.run(
        command, cwd=shop.folder, input=f"[{DATA}, {DATA}]", capture_output=True, text=True, check=True
    )
    written, filed = (
        shop("predict", "late", "--data", DATA),
        shop("predict", "late", "--data", "@order.json"),
    )

    assert set(written) == {"predictions", "request_id", "model_version", "release"}
    assert set(written["predictions"][0]) == {"label", "probability"}
    assert filed["predictions"] == written["predictions"]
    assert json.loads(piped.stdout)["predictions"] == written["predictions"] * 2


def test_why_goes_back_from_every_kind_of_thing_to_the_rows(shop: Installation) -> None:
    asked = shop("predict", "late", "--data", DATA)
    run = shop("run", "list")["runs"][0]["run"]

    for thing in (asked["request_id"], asked["release"], "late@1", run, "orders@1"):
        told = shop("why", thing)
        assert "data/orders-1.csv" in str(told["tree"]), thing
        assert {"eventType", "run", "job", "inputs", "outputs"} <= set(told["events"][-1]), thing
    source = next(ref for ref in _refs(shop("why", "orders@1")["tree"]) if ref.startswith("source:"))
    for name in (source, "data/orders-1.csv"):
        told = shop("why", name)
        assert told["tree"]["ref"] == source
        assert {"snapshot:orders@1", f"run:{run}", "model:late@1"} <= set(told["made_from_it"])
    shop.refused("why", "data/orders-9.csv", exit_code=3, code="not_found")


def test_why_says_what_moved_an_answer_and_that_it_adds_up(shop: Installation) -> None:
    asked = shop("predict", "late", "--data", DATA)

    moved = shop("why", asked["request_id"], "--moved")["moved"]

    assert moved["why_not"] == ""
    assert moved["base"] + sum(share["moved"] for share in moved["shares"]) == pytest.approx(moved["answer"])
    assert moved["apart"] < 1e-4
    assert {share["name"] for share in moved["shares"]} == {
        "warehouse",
        "carrier",
        "items",
        "distance_km",
        "waiting",
    }
    shop.refused("why", "late@1", "--moved", exit_code=2, code="invalid_input")


def test_the_ml_test_score_says_what_there_is_evidence_of(shop: Installation) -> None:
    card = shop("model", "score", "late@1")

    found = {item["name"]: item["points"] for item in card["items"]}
    assert card["score"] == min(card["sections"].values())
    assert found["expectations are in a schema"] == found["input feature code is tested"] == 1.0
    assert found["quality on slices"] == found["inclusion"] == 0.0


def _refs(node: dict[str, Any]) -> Iterator[str]:
    yield node["ref"]
    for step in node.get("made_by", []):
        for above in step.get("inputs", []):
            yield from _refs(above)


def test_exit_codes_say_how_a_command_ended(shop: Installation) -> None:
    shop.refused("predict", "late", "--data", "{warehouse: north}", exit_code=2, code="invalid_input")
    shop.refused("release", "start", exit_code=2, code="invalid_input")
    shop.refused("model", "show", "late@9", exit_code=3, code="not_found")
    predictor = shop("token", "create", "--principal", "asker", "--role", "predictor")["token"]
    shop.refused("data", "list", "--token", predictor, exit_code=4, code="denied")
    shop.refused("data", "list", "--token", "nonsense", exit_code=4, code="unauthenticated")
    shop.refused("init", ".", exit_code=5, code="conflict")
    shop.refused(
        "data", "list", "--url", "http://127.0.0.1:9", "--token", "t", exit_code=7, code="unavailable"
    )
    assert shop.told("doctor").code in (0, 7)


def test_a_gate_that_rejects_ends_with_10(shop: Installation) -> None:
    good = (shop.folder / "data/orders-2.csv").read_text().splitlines()
    shop.write(
        "broken.csv", "\n".join([good[0], *(line.replace("-", "+") + "x" for line in good[1:50])]) + "\n"
    )

    rejected = shop("data", "ingest", "orders", "--from", "broken.csv", expect=10)

    assert rejected["rejected"] is True
    assert (rejected["snapshot"], shop("data", "show", "orders")["rows"]) == ("orders@1", 5981)


def test_a_changed_ledger_ends_with_8(released: Installation) -> None:
    import sqlite3

    with sqlite3.connect(released.home / "taut.db") as database:
        database.execute("UPDATE ledger_leaves SET actor = 'mallory' WHERE first_seq = 3")
    database.close()

    told = released("ledger", "verify", expect=8)

    assert not told["ok"]
    assert told["faults"][0]["message"]


def test_what_commands_did_is_in_the_signed_ledger_without_a_platform(released: Installation) -> None:
    before = released("ledger", "verify")["size"]
    released("user", "add", "nightly", "--kind", "service", "--role", "builder")
    after = released("ledger", "verify")

    assert before > 10
    assert after["size"] == before + 1
    assert after["warnings"] == []
    assert released("ledger", "prove", "principal:nightly")["index"] == before


def test_people_read_errors_with_their_code_and_no_traceback(shop: Installation) -> None:
    command = [sys.executable, "-P", "-m", "taut.entrypoints.cli", "predict", "lat", "--data", "{}"]
    told = subprocess.run(command, cwd=shop.folder, capture_output=True, text=True, check=False)

    assert told.returncode == 3
    assert told.stdout == ""
    assert told.stderr.startswith("not_found: ")
    assert_clear(told.stderr)


def test_a_version_is_exported_and_verified(shop: Installation, tmp_path: Path) -> None:
    made = shop("model", "export", "late@1", "--to", str(tmp_path / "out"))

    assert {"manifest.json", "model.onnx"} <= {path.name for path in (tmp_path / "out").iterdir()}
    assert made["version"] == "late@1"
    assert shop("model", "verify", "late@1")["ok"]


def test_up_refuses_other_hosts_than_loopback(shop: Installation) -> None:
    for host in ("0.0.0.0", "192.0.2.1", "example.org"):
        told = shop.refused("up", "--host", host, "--port", "0", exit_code=2, code="invalid_input")
        assert "127.0.0.1" in told


def test_the_demo_serves_on_until_ctrl_c_also_after_polars_hooked_the_signal(tmp_path: Path) -> None:
    program = (
        "import subprocess, sys, polars\n"
        "from pathlib import Path\n"
        "from taut.entrypoints.demo.stage import Stage\n"
        "stage = Stage(Path(sys.argv[1]), port=0)\n"
        "stage._platform = subprocess.Popen([sys.executable, '-c', 'import time; time.sleep(60)'],\n"
        "    stdout=subprocess.PIPE, text=True, start_new_session=True)\n"
        "with stage:\n"
        "    print('serving', flush=True)\n"
        "    stage.wait()\n"
        "print('ended', stage._platform.returncode)\n"
    )
    with subprocess.Popen(
        [sys.executable, "-c", program, str(tmp_path)], stdout=subprocess.PIPE, text=True
    ) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == "serving\n"
        until(lambda: "State:\tS" in Path(f"/proc/{process.pid}/status").read_text())
        time.sleep(0.3)  # now it waits, and for nothing else
        process.send_signal(signal.SIGINT)
        said, _ = process.communicate(timeout=90)

    assert said == f"ended {-signal.SIGTERM}\n"
    assert process.returncode == 0


def test_a_wrong_folder_is_named_and_left_as_it_was(tmp_path: Path) -> None:
    elsewhere = Installation(tmp_path)

    for words in (
        ("status",),
        ("data", "ingest", "orders"),
        ("predict", "late", "--data", DATA),
        ("why", "late@1"),
    ):
        told = elsewhere.refused(*words, exit_code=3, code="not_found")
        assert str(tmp_path) in told
        assert "--home" in told
    assert list(tmp_path.iterdir()) == []
    assert "taut init" in elsewhere.refused("plan", exit_code=3, code="not_found")


def test_a_beginners_slips_are_answered_with_the_next_step(shop: Installation, tmp_path: Path) -> None:
    Installation(tmp_path)("init", "new")
    new = Installation(tmp_path / "new")
    new("apply")

    assert "taut data ingest backlog" in new.refused("train", "late", exit_code=3, code="not_found")
    assert "taut data ingest orders" in new.refused("data", "show", "orders", exit_code=3, code="not_found")
    assert "taut release start" in new.refused(
        "predict", "late", "--data", DATA, exit_code=3, code="not_found"
    )
    assert "'orders'" in shop.refused("data", "ingest", "order", exit_code=3, code="not_found")
    assert "'late'" in shop.refused("train", "lat", exit_code=3, code="not_found")
    assert "taut model list" in shop.refused("model", "show", "late@9", exit_code=3, code="not_found")
    assert "'data'" in shop.refused("dta", "list", exit_code=2, code="invalid_input")
    alone = shop.told("data")
    assert (alone.code, alone.out) == (2, "")
    assert alone.err.startswith("Usage: taut data")
