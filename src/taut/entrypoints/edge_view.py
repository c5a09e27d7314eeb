"""How bundles and devices at the edge look to people."""

from __future__ import annotations

from typing import Any

from taut.entrypoints import render
from taut.entrypoints.views import second

Json = dict[str, Any]


def bundle(result: Json) -> None:
    """What was written, and what its receiver must have by another way than the file."""
    shown = {name: result[name] for name in ("version", "variant", "file", "size_bytes", "bundle", "digest")}
    render.fields(shown)
    for fingerprint in result["fingerprints"]:
        render.line(f"verify it there with: --fingerprint {fingerprint}")
    if result["features_in_request"]:
        render.line(f"callers send these features: {', '.join(result['features_in_request'])}")
    if result["note"]:
        render.line(f"note: {result['note']}")


def devices(result: Json) -> None:
    rows = [
        (
            one["device"], one["principal"], one["version"] + ("" if one["current"] else " (before)"),
            second(one["last_seen"]), one["answers"], one["errors"], one["by_cloud"], one["latency_ms_p50"],
            one["latency_ms_p99"], one["drift"],
        )
        for one in result["devices"]
    ]  # fmt: skip
    columns = (
        "device",
        "principal",
        "version",
        "last seen",
        "answers",
        "errors",
        "rows by cloud",
        "p50 ms",
        "p99 ms",
        "drift",
    )
    render.table(columns, rows, empty="no device has reported yet")
