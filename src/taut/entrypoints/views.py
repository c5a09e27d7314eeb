"""How results look to people; machines get the documents themselves."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from taut.entrypoints import render

Json = dict[str, Any]

fields = render.fields
second = render.second


def document(result: Json) -> None:
    """A result that has no better form than its JSON."""
    import msgspec

    render.line(msgspec.json.format(msgspec.json.encode(result), indent=2).decode())


def users(result: Json) -> None:
    rows = [(u["id"], u["kind"], u["roles"], u["disabled"], u["display"] or None) for u in result["users"]]
    render.table(
        ("principal", "kind", "roles", "disabled", "name"), rows, empty="nobody but the owner of the files"
    )


def keys(result: Json) -> None:
    rows = [
        (
            k["id"],
            k["principal"],
            k["roles"],
            k["name"] or None,
            _cell("expires_at", k["expires_at"]),
            _cell("revoked_at", k["revoked_at"]),
        )
        for k in result["keys"]
    ]
    render.table(("key", "principal", "roles", "name", "expires", "revoked"), rows, empty="no API keys")


def sessions(result: Json) -> None:
    rows = [
        (
            s["id"],
            s["principal"],
            s["kind"],
            s["method"],
            _cell("expires_at", s["started_at"]),
            _cell("expires_at", s["seen_at"]),
        )
        for s in result["sessions"]
    ]
    render.table(("session", "principal", "kind", "by", "since", "seen"), rows, empty="nobody is signed in")


def account(result: Json) -> None:
    fields({"principal": result["principal"], **result["factors"]})
    rows = [(key["id"], key["name"], _cell("created_at", key["created_at"])) for key in result["passkeys"]]
    render.table(("passkey", "name", "since"), rows, empty="no passkeys")
    sessions(result)


def leaves(result: Json) -> None:
    rows = [
        (leaf["seq"], moment(leaf["at_us"]), leaf["kind"], leaf["subject"], leaf["actor"], _said(leaf))
        for leaf in result["leaves"]
    ]
    render.table(("seq", "time", "kind", "about", "by", "what"), rows, empty="no entries")


def _said(leaf: Json) -> str:
    body = {
        key: str(value) if isinstance(value, int) and not isinstance(value, bool) else value
        for key, value in leaf["body"].items()
        if key != "details" and value not in ("", False, None) and not str(value).startswith("sha256:")
    }
    said = render.text(body)
    return said if len(said) <= 80 else said[:77] + "..."


def ledger_report(result: Json) -> None:
    state = "proved" if result["ok"] else "NOT as it was signed"
    render.line(f"ledger {state}: {result['size']:,} entries, root {result['root'][:16]}…")
    for fault in result["faults"]:
        render.line(f"  fault {fault['kind']}: {fault['message']}")
    for warning in result.get("warnings", []):
        render.line(f"  note: {warning}")


def proof(result: Json) -> None:
    leaf = result["leaf"]
    render.line(
        f"entry {result['index']:,} of {result['size']:,}: {leaf['kind']} about {leaf['subject']} by {leaf['actor']}"
    )
    render.line(f"proved by {len(result['path'])} hashes against this signed checkpoint:")
    render.line(result["checkpoint"].rstrip("\n"))


def gate(result: Json) -> None:
    """A verdict with its reasons."""
    verdict = result.get("verdict")
    decision = verdict.get("decision") if isinstance(verdict, dict) else verdict
    reasons = verdict.get("reasons", []) if isinstance(verdict, dict) else result.get("reasons", [])
    if decision is not None:
        render.line(
            {
                "admit": "the gate admits",
                "hold": "the gate holds: a person must decide",
                "reject": "the gate REJECTS",
            }[decision]
        )
    for reason in reasons:
        render.line(f"  {reason}")


def releases(result: Json) -> None:
    rows = [
        (
            r["release"],
            r["version"],
            r["strategy"],
            r["state"],
            r["weight"],
            second(r["started_at"]),
            r["actor"],
            r["reason"] or None,
        )
        for r in result["releases"]
    ]
    render.table(
        ("release", "version", "strategy", "state", "weight", "started", "by", "reason"),
        rows,
        empty="no releases",
    )


_RELEASE = (
    "release", "endpoint", "version", "strategy", "state", "weight", "ready", "pairs", "dropped", "waits", "prospects", "calibration", "kept_until", "started_at", "actor", "reason",
)  # fmt: skip


def release(result: Json) -> None:
    """A release: what answers now, or why it was refused."""
    known = {key: result[key] for key in _RELEASE if result.get(key) not in (None, "")}
    fields({key: _cell(key, value) for key, value in known.items()})
    gate(result)
    arms = [one for one in result.get("arms", ()) if isinstance(one, dict)]
    if arms:
        columns = ["version", "weight", "outcomes", "mean", "verdict", "says"]
        rows = [[_rounded(one[column]) for column in columns] for one in arms]
        render.table(columns, rows, empty="")
    judged = [one for one in result.get("guardrails", ()) if isinstance(one, dict)]
    if judged:
        rows = [
            [one["guardrail"], one["decision"], f"{one['evidence']:.3g}", f"{one['bar']:g}", one["says"]]
            for one in judged
        ]
        render.table(["guardrail", "says", "evidence", "acts at", "because"], rows, empty="")
    if "gateways" in result and result.get("state") == "live":
        told = result["gateways"]
        render.line(
            f"{told} gateways answer with it"
            if told
            else "no platform runs here: the first `taut up` answers with it"
        )


def _rounded(value: Any) -> Any:
    return f"{value:.4g}" if isinstance(value, float) else value


def listed(key: str, columns: Sequence[str], *, empty: str) -> Any:
    """A view of the list `key`: one row an item, one column a field."""

    def view(result: Json) -> None:
        rows = [[_cell(column, item.get(column)) for column in columns] for item in result[key]]
        render.table([column.replace("_", " ") for column in columns], rows, empty=empty)

    return view


def _cell(column: str, value: Any) -> Any:
    """Times to the second, metrics that decide; the whole of both is in the JSON."""
    if column.endswith("_at") and isinstance(value, str):
        return second(value)
    if column == "metrics" and isinstance(value, dict):
        return ", ".join(f"{name} {render.text(value[name])}" for name in _telling(value)) or None
    return value


_TELLING = ("auc", "rmse", "mae", "r2", "accuracy", "logloss")


def _telling(metrics: Json) -> list[str]:
    return ([name for name in _TELLING if name in metrics] or sorted(metrics))[:3]


def moment(at_us: int) -> str:
    from taut.core.times import from_us

    return from_us(at_us).strftime("%Y-%m-%d %H:%M:%S")


def ingested(result: Json) -> None:
    """What a batch became."""
    if result.get("unchanged"):
        render.line("nothing new: these files were read before")
    fields({key: result[key] for key in ("dataset", "snapshot", "rows", "quarantined") if key in result})
    broken = {rule: count for rule, count in (result.get("rules") or {}).items() if count}
    for rule, count in broken.items():
        render.line(f"  {count:,} broke {_rule(rule)}")
    if result.get("rejected"):
        render.line("the batch was REJECTED whole; the snapshot is as it was:")
    for reason in result.get("reasons", []):
        render.line(f"  {reason}")


def _rule(name: str) -> str:
    """Rules of whole rows by the name that they were given."""
    return name.removeprefix("_row:")


def snapshot(result: Json) -> None:
    """A snapshot with its columns and what is known of them."""
    fields(
        {
            key: _cell(key, value)
            for key, value in result.items()
            if key not in ("schema", "statistics", "columns") and not isinstance(value, dict | list)
        }
    )
    columns = [(c["name"], c["dtype"], c.get("nullable", False)) for c in result.get("schema", [])]
    if columns:
        render.table(("column", "type", "nullable"), columns)


def quarantine(result: Json) -> None:
    rows = [
        (r["id"], r["source"], r["row"], [_rule(rule) for rule in r["rules"]], r["record"])
        for r in result["records"]
    ]
    render.table(("record", "file", "row", "broke", "values"), rows, empty="nothing is in quarantine")


def trained(result: Json) -> None:
    """What a training run came to."""
    fields({key: result[key] for key in ("run", "version", "metrics", "baseline") if result.get(key)})
    gate(result)


def optimised(result: Json) -> None:
    """What became of each variant of a version, its figures beside the original's."""
    rows = [("original", *_figures(result["original"]), result["version"])]
    for tried in result["variants"]:
        said = tried["version"] + ": " if tried["version"] else ""
        rows.append((tried["name"], *_figures(tried["figures"]), f"{said}{tried['outcome']}"))
    sizes = list(result["original"]["latency_us"])
    timed = [f"{size} row{'s' if size != '1' else ''}" for size in sizes]
    render.table(("variant", "bytes", *timed, "metrics", "outcome"), rows)
    for tried in result["variants"]:
        for reason in tried["reasons"]:
            render.line(f"{tried['name']}: {reason}")
    kept = ", ".join(result["kept"])
    render.line(f"kept: {kept}" if kept else "nothing is kept: no variant both gains and passes the gate")


def _figures(found: Json | None) -> tuple[object, ...]:
    if found is None:
        return (None, None, None, None)
    times = (f"{value:,.1f} us" for value in found["latency_us"].values())
    return (found["size_bytes"], *times, _cell("metrics", found["metrics"]))


def run(result: Json) -> None:
    """A run as people read it; its signed statement and its log are in the JSON."""
    shown = {key: value for key, value in result.items() if value not in (None, "", [], {})}
    code = {key: value for key, value in shown.get("code", {}).items() if key != "statement"}
    checks = shown.pop("checks", [])
    for hidden in ("spec", "log"):
        shown.pop(hidden, None)
    fields(
        {
            key: code if key == "code" else _cell(key, value)
            for key, value in shown.items()
            if key != "metrics"
        }
    )
    fields({"metrics": result.get("metrics") or None})
    for check in checks:
        render.line(f"check {check['name']} {check['outcome']}: {check['message']}")


def diff(result: Json) -> None:
    """What differs between two snapshots, column by column."""
    fields({key: value for key, value in result.items() if key != "statistics"})
    rows = [
        (column, name, before.get(name), after.get(name))
        for column, (before, after) in result.get("statistics", {}).items()
        for name in sorted({*before, *after})
        if before.get(name) != after.get(name)
    ]
    if rows:
        render.table(("column", "statistic", "before", "after"), rows)


def differences(result: Json) -> None:
    rows = [(d["what"], d["one"], d["other"]) for d in result["differences"]]
    render.table(("what", "one", "other"), rows, empty="the runs do not differ")


def reproduction(result: Json) -> None:
    render.line("reproduced: the same digest" if result["same"] else "NOT reproduced; what differs:")
    if result["differences"]:
        differences(result)


def model(result: Json) -> None:
    """A version's card, and who said what about it."""
    render.page(result["card_markdown"].rstrip())
    render.line("")
    fields({key: result[key] for key in ("state", "approvals", "approvals_needed", "aliases") if result[key]})
    gate(result)


def decided(result: Json) -> None:
    """A version after somebody decided about it."""
    shown = {key: value for key, value in result.items() if key not in ("reasons", "approvals", "needed")}
    fields({key: _cell(key, value) for key, value in shown.items()})
    for said in result.get("approvals", []):
        render.line(_approval(said) if isinstance(said, dict) else f"approved by {said}")
    missing = result.get("needed", 0) - sum(
        isinstance(said, dict) and said["approved"] for said in result.get("approvals", [])
    )
    if missing > 0 and result.get("state") in ("candidate", "held"):
        render.line(f"{missing} more to approve it")


def _approval(said: Json) -> str:
    what = "approved" if said["approved"] else "rejected"
    own = " (self-approved, single user)" if said["self_approved"] else ""
    reason = f": {said['reason']}" if said["reason"] else ""
    return f"{what} by {said['principal']} on {second(said['at'])}{own}{reason}"


def predictions(result: Json) -> None:
    """Answers, one a row, and where they came from."""
    answers = result["predictions"]
    columns = list(answers[0]) if answers else []
    render.table(columns, [[_raw(answer.get(column)) for column in columns] for answer in answers])
    render.line(f"request {result['request_id']}, {result['model_version']}, release {result['release']}")


def _raw(value: object) -> object:
    """A label as the model says it: `false` is a label, not a no."""
    return str(value).lower() if isinstance(value, bool) else value


def status(result: Json) -> None:
    """Everything at a glance."""
    if result.get("emergency"):
        from taut.entrypoints.policy_view import emergency

        emergency(result["emergency"])
    fields({
        "home": result["home"], "project": result["project"], "environment": result["environment"], "plan": result["plan"],
        "database": result["database"], "ledger entries": result["ledger"]["size"], "serving epoch": result["epoch"],
        "data plane": result["data_plane"] or "not running",
    })  # fmt: skip
    render.line("")
    listed("datasets", ("dataset", "snapshot", "rows", "quarantined"), empty="no data was ingested yet")(
        result
    )
    render.line("")
    listed("live", ("endpoint", "version", "release"), empty="nothing is released yet")(result)
    if result.get("machines"):
        render.line("")
        listed("machines", ("machine", "data_plane", "gateways", "ready", "silent_s"), empty="")(result)
    for one in result.get("not_ready", []):
        what = one["gateway"] if one["endpoint"] is None else f"{one['endpoint']} on {one['gateway']}"
        render.line(f"{what} is not ready: {'; '.join(one['reasons'])}")


_MARKS = {"ok": "ok  ", "warn": "note", "bad": "BAD "}


def doctor(result: Json) -> None:
    """Findings, each with how to mend it."""
    for found in result["findings"]:
        render.line(f"{_MARKS[found['state']]}  {found['name']}: {found['said']}")
        if found["mend"]:
            render.line(f"      mend: {found['mend']}")


_BATCH = (
    "result", "version", "snapshot", "features", "rows", "rejected_rows", "as_of", "max_age_s", "fresh", "created_at",
)  # fmt: skip


def batch_scored(result: Json) -> None:
    """What became of a batch."""
    if result.get("unchanged"):
        render.line("nothing new: this version scored this snapshot before")
    batch_result(result)
    gate({"verdict": result["verdict"], "reasons": result["reasons"]})


def batch_result(result: Json) -> None:
    """A result, and why rows are missing from it."""
    fields({key: _cell(key, result[key]) for key in _BATCH if result.get(key) not in (None, {})})
    for reason, count in (result.get("reasons_rejected") or {}).items():
        render.line(f"  {count:,} rows were not scored: {reason}")
    if result.get("rejects_shown"):
        _rows(result["rejects_shown"])


def batch_found(result: Json) -> None:
    """What a result says about a key."""
    if not result["rows"] and not result["rejects"]:
        render.line(f"{result['result']} says nothing about this key")
    for rows in (result["rows"], result["rejects"]):
        if rows:
            _rows(rows)
    late = "" if result["fresh"] else " (NOT fresh any more)"
    render.line(f"{result['result']} by {result['version']}, data as of {second(result['as_of'])}{late}")


def _rows(rows: list[Json]) -> None:
    columns = list(rows[0])
    render.table(columns, [[_raw(row.get(column)) for column in columns] for row in rows])
