"""How the security report looks to people."""

from __future__ import annotations

from typing import Any

from taut.entrypoints import render

Json = dict[str, Any]


def report(result: Json) -> None:
    notices = result["notices"]
    ledger = result["ledger"]
    cut = "" if ledger["whole"] else ", the newest only: older ones were not read"
    render.line(
        f"Since {render.second(result['since'])}: {len(notices)} notices in {ledger['leaves']:,} leaves{cut}"
    )
    rows = [(one["severity"], one["rule"], render.second(one["at"]), one["said"]) for one in notices]
    render.table(("severity", "rule", "at", "what"), rows, empty="no notice")
    render.line("")
    found = [(one["kind"], one["principal"] or one["group"], one["resource"], f"{one['score']:.3g}", render.second(one["since"])) for one in result["findings"]]  # fmt: skip
    render.table(("finding", "of", "at", "score", "since"), found, empty="no open finding")
    render.line("")
    _figures(result)
    render.line("")
    old = [one for one in result["ages"] if one["old"]]
    aged = [(one["what"], one["name"], _day(one["since"]), _day(one["until"])) for one in old]
    render.table(
        ("old", "name", "since", "until"),
        aged,
        empty=f"none of {len(result['ages'])} keys, secrets and certificates is old",
    )


def threat_model(result: Json) -> None:
    render.page(result["page"])
    model_state(result)


def model_state(result: Json) -> None:
    """Whether the model is the stored one, and who looked at it."""
    render.line(f"map {result['digest']}: {len(result['threats'])} threats, {result['open']} open")
    if not result["stored"]:
        render.line(
            "It is another than the stored one: a setting changed, or a plan's renewal was cut off; the next plan stores it"
        )
    if result["reviewed_by"]:
        render.line(f"reviewed by {result['reviewed_by']}, {render.second(result['reviewed_at'])}")
    else:
        render.line("not reviewed yet: taut security review DIGEST --reason ...")


def _figures(result: Json) -> None:
    provisioning, guard, linear, coverage = (
        result[name] for name in ("provisioning", "guard", "linearity", "coverage")
    )
    rows = [
        (
            "replica to guarded",
            provisioning["said"]
            or f"p50 {provisioning['p50_s']} s, p99 {provisioning['p99_s']} s, worst {provisioning['worst_s']} s "
            f"({provisioning['worst']}), {provisioning['replicas']} replicas",
        ),
        (
            "guard",
            guard["said"]
            or f"{guard['mean_us']} µs, {100 * guard['share']:.2f} % of {guard['requests']:,} requests' time",
        ),
        (
            "guard under load",
            linear["said"]
            or f"{linear['quiet_us']:g} µs in quiet minutes, {linear['busy_us']:g} in busy ones: "
            f"{'flat' if linear['flat'] else 'it grows'}",
        ),
        (
            "coverage",
            f"{coverage['decided']} of {coverage['operations']} operations decided by policy, {len(coverage['open'])} open by design",
        ),
    ]
    model = result["threat_model"]
    if model is not None:
        seen = f"reviewed by {model['reviewed_by']}" if model["reviewed_by"] else "not reviewed"
        rows.append(("threat model", f"{model['open']} open threats, {seen}{'' if model['stored'] else ', changed since it was stored'}"))  # fmt: skip
    render.table(("figure", "what"), rows)


def _day(time: str | None) -> str | None:
    return None if time is None else time[:10]


def audit(result: Json) -> None:
    render.line(
        f"{result['packages']} packages {result['of']} against {result['advisories']:,} advisories, the newest of "
        f"{_day(result['newest'])}"
    )
    rows = [
        (one["package"], one["version"], one["id"], ", ".join(one["fixed_in"]) or None, one["summary"])
        for one in result["found"]
    ]
    render.table(
        ("package", "version", "advisory", "mended in", "what"), rows, empty="no known vulnerability"
    )
