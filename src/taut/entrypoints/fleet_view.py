"""How the fleet looks to people."""

from __future__ import annotations

import sys
from datetime import UTC, datetime
from typing import Any

from taut.entrypoints import render


def replicas(result: dict[str, Any]) -> None:
    rows = []
    for one in result["replicas"]:
        epochs = ", ".join(map(str, one["epochs"]))
        rows.append((one["replica"], one["incarnation"], one["stage"], epochs, one["reason"]))
        rows += [
            (f"  {it['worker']}", it["incarnation"], it["stage"], "", it["reason"]) for it in one["workers"]
        ]
    render.table(("replica", "incarnation", "stage", "epochs", "why"), rows, empty="no replicas yet")
    for pool in result["scaling"]:
        bounds = f" of {pool['minimum']} to {pool['maximum']}" if pool["automatic"] else ""
        render.line(f"pool {pool['pool']}: {pool['ready']} serve, {pool['n']} wanted{bounds}: {pool['why']}")


def scale_log(result: dict[str, Any]) -> None:
    rows = [
        (one["seq"], datetime.fromtimestamp(one["at_us"] / 1e6, tz=UTC).isoformat(), one["pool"], one["n"], one["reason"])
        for one in result["events"]
    ]  # fmt: skip
    render.table(("place", "at", "pool", "n", "why"), rows, empty="nothing was asked for yet")


def machines(result: dict[str, Any]) -> None:
    rows = [
        (one["machine"], one["state"], one["since"], one["until"], one["id"], one["serial"][:12])
        for one in result["machines"]
    ]
    render.table(
        ("machine", "state", "since", "until", "identity", "serial"),
        rows,
        empty="no further machine was invited",
    )


def judged(result: dict[str, Any]) -> None:
    rows = [
        ("guarded", result["guarded"]),
        ("by grace alone", result["by_grace"]),
        ("unguarded", result["unguarded"]),
        ("longest under a policy that was over", f"{result['last_old_s']:.2f} s"),
        ("longest by a replica that had ended", f"{result['last_ended_s']:.2f} s"),
    ]
    render.table(("answers", ""), rows, empty="")
    for fault in result["faults"]:
        sys.stdout.write(f"  {fault}\n")
