"""The demo's steps. Each returns its claim with figures, or raises ClaimFailed with what was seen instead."""

from __future__ import annotations

import csv
import os
import shutil
import signal
import threading
import time
from collections.abc import Callable
from typing import Any, Final

import httpx
import msgspec
import polars as pl

from taut.core.errors import TautError
from taut.entrypoints.demo import data
from taut.entrypoints.demo.replay import REQUEST, auc, hours_of, one_feature_auc
from taut.entrypoints.demo.stage import Stage, claim

Figures = dict[str, Any]
Step = Callable[[Stage], tuple[str, Figures]]

_MONTHS: Final = range(1, 11)
_NEXT_MONTH: Final = 11
_REPLAYED_DAYS: Final = 3
_ROLLBACK_S: Final = 1.0


def prepare(stage: Stage) -> tuple[str, Figures]:
    stage.write_project()
    source = data.find_files()
    stage.flights = data.read_flights(source)
    data.write_reference(source, stage.data)
    for month in _MONTHS:
        data.write_month(stage.flights, month, stage.data)
    files = sorted(path.name for path in stage.data.iterdir())
    return "the real flights of 2013 lie as an airline's nightly export would leave them", {
        "flights": stage.flights.height, "files": len(files),
        "bytes": sum(path.stat().st_size for path in stage.data.iterdir()),
    }  # fmt: skip


def start(stage: Stage) -> tuple[str, Figures]:
    seconds = stage.start_platform()
    return "one command runs the platform: control and two gateways, supervised", {
        "seconds until ready": round(seconds, 2), "processes": len(stage.processes()),
    }  # fmt: skip


def apply(stage: Stage) -> tuple[str, Figures]:
    from taut.project.load import load_project

    loaded = load_project(stage.project / "taut.py")
    request = {
        "manifest": {**msgspec.to_builtins(loaded.manifest)},
        "bundle": msgspec.to_builtins(loaded.bundle),
    }
    result = stage.ask("plan.apply", request)
    claim(result["verdict"] == "admit", f"the plan gate said {result['verdict']}: {result['reasons']}")
    return "the project file was judged by the plan gate and applied, its code signed", {
        "things declared": len(result["changes"]), "plan": result["plan"],
    }  # fmt: skip


def ingest(stage: Stage) -> tuple[str, Figures]:
    figures: Figures = {}
    for name in ("weather", "planes", "flights"):
        result = stage.ask("data.ingest", {"dataset": name})
        claim(not result["rejected"], f"{name} was rejected: {result}")
        figures[f"{name}: rows, set aside"] = f"{result['rows']:,}, {result['quarantined']:,}"
    wind = stage.ask("data.quarantine", {"dataset": "weather", "limit": 10})["records"]
    speeds = [record["record"].get("wind_speed") for record in wind]
    claim(any(str(speed).startswith("1048") for speed in speeds), f"the famous gale was not found: {speeds}")
    late = stage.ask("data.quarantine", {"dataset": "flights", "limit": 1})["records"][0]
    figures["a flight set aside, and why"] = f"{late['source']} row {late['row']}: {', '.join(late['rules'])}"
    return "real dirt is set aside with its reason: a wind of 1,048 mph, flights that never arrived", figures


def again(stage: Stage) -> tuple[str, Figures]:
    before = stage.ask("data.show", {"dataset": "flights"})
    result = stage.ask("data.ingest", {"dataset": "flights"})
    after = stage.ask("data.show", {"dataset": "flights"})
    claim(bool(result["unchanged"]), f"the second time changed something: {result}")
    claim(before["snapshot"] == after["snapshot"], f"{before['snapshot']} became {after['snapshot']}")
    return "the same files a second time change nothing", {
        "files known by their digest": result["files_skipped"], "snapshot": after["snapshot"],
    }  # fmt: skip


def broken(stage: Stage) -> tuple[str, Figures]:
    path = data.write_broken_month(stage.flights, stage.data)
    before = stage.ask("data.show", {"dataset": "flights"})
    result = stage.ask("data.ingest", {"dataset": "flights"})
    after = stage.ask("data.show", {"dataset": "flights"})
    path.unlink()
    claim(bool(result["rejected"]), f"the broken batch was not rejected: {result}")
    claim(before["snapshot"] == after["snapshot"] and before["rows"] == after["rows"], "the snapshot changed")
    return "a broken batch is rejected whole, and the snapshot is as it was", {
        "reasons": "; ".join(result["reasons"][:3]), "snapshot": after["snapshot"],
    }  # fmt: skip


def train(stage: Stage) -> tuple[str, Figures]:
    result = stage.ask("run.start", {"model": "delay"})
    claim(result["verdict"] == "admit", f"the model gate said {result['verdict']}: {result['reasons']}")
    stage.versions["good"], stage.runs["good"] = result["version"], result["run"]
    run = stage.ask("run.show", {"run": result["run"]})
    baselines = result["baselines"]
    return "a model was trained in a sandbox on pinned data, and the gate measured it again", {
        "version": result["version"],
        "AUC, last 30 days": result["metrics"]["auc"],
        "AUC of a constant": baselines["constant"]["auc"],
        "AUC of the best single input": f"{baselines['one_input']['auc']:.4f} ({baselines['one_input']['input']})",
        "the sandbox held": ", ".join(run["isolation"]),
    }  # fmt: skip


def release(stage: Stage) -> tuple[str, Figures]:
    version = stage.versions["good"]
    early = stage.ask("release.start", {"endpoint": "delay", "version": version})
    claim(early["verdict"] == "reject", f"an unapproved version was released: {early}")
    approved = stage.ask("model.approve", {"version": version, "reason": "better than the best single input"})
    claim(approved["state"] == "approved", f"after its approval the version is {approved['state']}")
    result = stage.ask("release.start", {"endpoint": "delay", "version": version, "reason": "first model"})
    claim(result["verdict"] == "admit" and result["state"] == "live", f"the release is {result}")
    leaf = stage.ask("ledger.show", {"kind": "model.approved", "limit": 1})["leaves"][0]
    return "nothing carries traffic until it is approved: refused before, live after", {
        "refused because": "; ".join(early["reasons"]), "release": result["release"],
        "gateways that serve it": result["gateways"], "the ledger says": leaf["body"].get("note", "approved"),
    }  # fmt: skip


def worse(stage: Stage) -> tuple[str, Figures]:
    result = stage.ask("run.start", {"model": "delay", "params": {"trees": 2, "leaves": 4}})
    claim(result["verdict"] == "reject", f"a worse model passed: {result}")
    try:
        stage.ask("model.approve", {"version": result["version"], "reason": "please"})
    except TautError as error:
        refused = error.message
    else:
        claim(False, "a rejected version could be approved")
    return "a worse model is refused by the gate, and nobody can approve it", {
        "version": result["version"], "reasons": "; ".join(result["reasons"]), "approving it": refused,
    }  # fmt: skip


def replay(stage: Stage) -> tuple[str, Figures]:
    """The following month, hour by hour over HTTP, with the features that were known at each hour."""
    data.write_month(stage.flights, _NEXT_MONTH, stage.data)
    taken = stage.ask("data.ingest", {"dataset": "flights"})
    for name in ("sky", "congestion"):
        stage.ask("features.build", {"features": name})
    scores: list[float] = []
    truth: list[int] = []
    inputs: list[dict[str, Any]] = []
    for hour, flights in hours_of(stage.flights, _NEXT_MONTH, days=_REPLAYED_DAYS):
        for name in ("sky", "congestion"):
            stage.ask("features.materialize", {"features": name, "until": hour.isoformat()})
        rows = flights.select(*REQUEST, hour_at=pl.lit(hour.isoformat())).to_dicts()
        answer = stage.predict(rows)
        claim(answer.status_code == 200, f"{hour}: {answer.status_code} {answer.text[:300]}")
        found = answer.json()
        stage.request_id, stage.example = found["request_id"], msgspec.json.encode(rows[0]).decode()
        scores += [row["probability"] for row in found["predictions"]]
        truth += flights["late"].to_list()
        inputs += rows
    found_auc, alone = auc(truth, scores), one_feature_auc(truth, inputs)
    claim(found_auc > alone > 0.5, f"AUC {found_auc:.3f} is not above one feature's {alone:.3f}")
    return "flights of the following month are predicted over HTTP from what was known at their hour", {
        "new file read, known files skipped": f"{len(taken['files'])}, {taken['files_skipped']}",
        "flights asked": len(scores), "AUC": found_auc, "AUC of a constant": 0.5,
        "AUC of the scheduled minute alone": alone,
    }  # fmt: skip


def kill(stage: Stage) -> tuple[str, Figures]:
    """kill -9 of a gateway and of control while a client asks on."""
    row = msgspec.json.decode(stage.example)
    ids: list[str] = []
    failed: list[str] = []
    stop = threading.Event()

    def ask() -> None:
        while not stop.is_set():
            try:
                answer = stage.predict([row])
            except httpx.TransportError as error:
                failed.append(type(error).__name__)
                continue
            if answer.status_code == 200:
                ids.append(answer.json()["request_id"])
            else:
                failed.append(str(answer.status_code))

    stage.token()
    asker = threading.Thread(target=ask)
    asker.start()
    killed = stage.processes()
    time.sleep(0.5)
    for name in ("gateway-0", "control"):
        os.kill(killed[name], signal.SIGKILL)
        time.sleep(0.5)
    while_dead = len(ids)
    back = _wait_for_new(stage, killed)
    time.sleep(0.3)
    stop.set()
    asker.join()
    lost = _missing_from_log(stage, ids)
    claim(not lost, f"{len(lost)} acknowledged answers are not in the prediction log: {lost[:3]}")
    claim(while_dead > 0 and len(ids) > while_dead, "nothing was answered while processes were dead")
    return "kill -9 of a gateway and of control loses no acknowledged answer", {
        "answers acknowledged": len(ids), "of them in the prediction log": len(ids),
        "requests that failed on the killed gateway": len(failed), "seconds until all ran again": back,
    }  # fmt: skip


def _wait_for_new(stage: Stage, killed: dict[str, int]) -> float:
    began = time.monotonic()
    while time.monotonic() - began < 30:
        now = stage.processes()
        if all(
            now.get(name) not in (None, pid)
            for name, pid in killed.items()
            if name in ("gateway-0", "control")
        ):
            with stage.connect():
                return round(time.monotonic() - began + 0.5, 2)
        time.sleep(0.05)
    claim(False, "the killed processes did not come back within 30 s")
    return 0.0


def _missing_from_log(stage: Stage, ids: list[str]) -> list[str]:
    from taut.serving.predictions import PredictionReader

    logged = set(PredictionReader(stage.home / "log" / "predictions").ids())
    return [request_id for request_id in ids if request_id not in logged]


def why(stage: Stage) -> tuple[str, Figures]:
    found = stage.ask("why.show", {"id": stage.request_id})
    kinds: set[str] = set()
    rows: list[dict[str, Any]] = []
    _walk(found["tree"], kinds, rows)
    wanted = {"request", "release", "model", "run", "snapshot", "batch", "source", "features", "approval"}
    claim(wanted <= kinds, f"the tree lacks {', '.join(sorted(wanted - kinds))}")
    weather = next((row for row in rows if "weather" in str(row["file"])), None)
    claim(weather is not None, "no row of the weather file was named")
    assert weather is not None
    with (stage.project / str(weather["file"])).open(newline="") as file:
        line = next(row for number, row in enumerate(csv.DictReader(file), 1) if number == weather["row"])
    asked = found["request"]["instances"][0]
    claim(
        line["origin"] == asked["origin"],
        f"row {weather['row']} is of {line['origin']}, not {asked['origin']}",
    )
    return "one answer is walked back to the rows of the files that it rests on", {
        "request": stage.request_id, "kinds of things on the way": ", ".join(sorted(kinds)),
        "the weather it used": f"{weather['file']} row {weather['row']}: {line['origin']} {line['time_hour']}",
    }  # fmt: skip


def _walk(node: dict[str, Any], kinds: set[str], rows: list[dict[str, Any]]) -> None:
    kinds.add(str(node["ref"]).partition(":")[0])
    if "row" in node.get("facts", {}):
        rows.append(node["facts"])
    for step in node.get("made_by", []):
        for above in step.get("inputs", []):
            _walk(above, kinds, rows)


def reproduce(stage: Stage) -> tuple[str, Figures]:
    result = stage.ask("run.reproduce", {"run": stage.runs["good"]})
    claim(bool(result["same"]), f"another model came out: {result['differences']}")
    return "the training run gives the same model again, bit by bit", {"digest": result["digest"]}


def roll_back(stage: Stage) -> tuple[str, Figures]:
    result = stage.ask("run.start", {"model": "delay", "params": {"leaves": 15}})
    claim(result["verdict"] == "admit", f"the second model was refused: {result['reasons']}")
    second = result["version"]
    stage.ask("model.approve", {"version": second, "reason": "simpler, and as good"})
    live = stage.ask("release.start", {"endpoint": "delay", "version": second})
    claim(live["state"] == "live", f"the second release is {live['state']}")
    row = [msgspec.json.decode(stage.example)]
    claim(stage.predict(row).headers["taut-model-version"] == second, "the new version does not answer")
    with stage.connect() as client:
        began = time.monotonic()
        client.call("release.rollback", {"endpoint": "delay", "reason": "the demo says so"})
        while stage.predict(row).headers["taut-model-version"] != stage.versions["good"]:
            claim(time.monotonic() - began < 10, "the old version does not answer again")
        seconds = time.monotonic() - began
    claim(seconds <= _ROLLBACK_S, f"the rollback took {seconds:.2f} s")
    return "one command rolls back, and every gateway answers with the old version", {
        "from, to": f"{second}, {stage.versions['good']}", "seconds until the old version answers": round(seconds, 3),
    }  # fmt: skip


def prove(stage: Stage) -> tuple[str, Figures]:
    report = stage.ask("ledger.verify")
    claim(bool(report["ok"]), f"the ledger has faults: {report['faults']}")
    proof = stage.ask("ledger.prove", {"what": f"model:{stage.versions['good']}"})
    found = _tamper_with_copy(stage)
    claim(found != "", "a changed leaf in a copy of the ledger was not found")
    return "the ledger of all this is proved, and a changed entry in a copy of it is found and named", {
        "leaves": report["size"], "root": report["root"],
        "proof that the approval is in it": f"{len(proof['path'])} hashes",
        "the changed copy": found,
    }  # fmt: skip


def _tamper_with_copy(stage: Stage) -> str:
    """Change one leaf in a copy of the database and return what verification says about the copy."""
    from sqlalchemy import func, select, update

    from taut.bootstrap.platform import open_platform
    from taut.trust.ledger.tables import leaves

    copy = stage.folder / "tampered"
    copy.mkdir()
    for path in stage.home.glob("taut.db*"):  # nothing is written at this moment
        shutil.copy(path, copy)
    shutil.copytree(stage.home / "keys", copy / "keys")
    with open_platform(copy, environ={}) as platform:
        untouched = platform.ledger.verify()
        claim(untouched.ok, f"the copy itself has faults: {untouched.faults}")
        with platform.records.begin() as tx:
            one = select(func.min(leaves.c.first_seq)).where(leaves.c.first_seq >= 3).scalar_subquery()
            tx.execute(update(leaves).where(leaves.c.first_seq == one).values(actor="mallory"))
        report = platform.ledger.verify()
    return "" if report.ok else str(report.faults[0].message)


STEPS: Final[tuple[tuple[str, Step], ...]] = (
    ("Take the real data", prepare),
    ("Start the platform", start),
    ("Apply the project", apply),
    ("Ingest under contract", ingest),
    ("Ingest the same again", again),
    ("Refuse a broken batch", broken),
    ("Train and judge a model", train),
    ("Approve and release it", release),
    ("Refuse a worse model", worse),
    ("Predict the following month", replay),
    ("Kill processes meanwhile", kill),
    ("Explain one answer", why),
    ("Reproduce the training", reproduce),
    ("Roll back", roll_back),
    ("Prove the ledger", prove),
)
