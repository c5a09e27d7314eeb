"""What a run came to, as one document, and what it says about the generator itself."""

from __future__ import annotations

from typing import Any, Final

import msgspec

from taut.entrypoints.load.driver import Measured
from taut.entrypoints.load.histogram import Histogram

Json = dict[str, Any]

_PERCENTILES: Final = (("p50", 50.0), ("p90", 90.0), ("p99", 99.0), ("p99_9", 99.9))
_CPU_MAX: Final = 0.85
_LATE_SHARE: Final = 0.1
_LATE_MS: Final = 1.0


def report(measured: Measured, *, endpoint: str, url: str, schedule: Json, schedule_s: float) -> Json:
    """Return the run's document. schedule: what was asked for, in words of the command. schedule_s: how long it was."""
    seconds = max(measured.seconds, 1e-9)
    errors = dict(sorted(measured.errors.items()))
    return {
        "endpoint": endpoint,
        "url": url,
        "schedule": schedule,
        "seconds": round(seconds, 3),
        "offered": measured.offered,
        "answered": measured.answered,
        "rate_offered": round(measured.offered / max(schedule_s, 1e-9), 2),
        "rate_achieved": round(measured.answered / max(seconds, schedule_s), 2),
        "latency_ms": latency(measured.latency),
        "answers": {
            str(status): {"count": found.count, **latency(found), **_refusal(measured.refusals.get(status))}
            for status, found in sorted(measured.by_status.items())
        },
        "errors": errors,
        "generator": _generator(measured, seconds),
        "histogram": [
            {"up_to_ms": round(up_to / 1000, 3), "count": count} for up_to, count in measured.latency.bars(per_doubling=2)
        ],
    }  # fmt: skip


def _refusal(body: bytes | None) -> Json:
    """What the first refusal of a status said: why a run was refused is seen without another."""
    if body is None:
        return {}
    try:
        return {"said": str(msgspec.json.decode(body)["error"]["message"])}
    except (msgspec.DecodeError, KeyError, TypeError, UnicodeDecodeError):
        return {"said": body.decode("utf-8", "replace")[:200]}


def latency(found: Histogram) -> Json:
    """Return a histogram's percentiles in milliseconds."""
    shown: Json = {name: round(found.percentile(percent) / 1000, 3) for name, percent in _PERCENTILES}
    return {**shown, "max": round(found.max / 1000, 3), "mean": round(found.mean / 1000, 3)}


def _generator(measured: Measured, seconds: float) -> Json:
    cpu = measured.cpu_s / seconds
    late = latency(measured.lateness)
    faults = []
    if cpu > _CPU_MAX:
        faults.append(f"it used {cpu:.0%} of a core, so that it may have been the limit")
    if late["p99"] > max(_LATE_MS, _LATE_SHARE * measured.latency.percentile(99) / 1000):
        faults.append(f"it sent 1% of the requests {late['p99']:.1f} ms or more after their time")
    if measured.held_back:
        faults.append(
            f"{measured.held_back:,} requests waited for a free connection: allow more with --connections"
        )
    return {
        "ok": not faults,
        "said": "; ".join(faults),
        "cpu_cores": round(cpu, 3),
        "lateness_ms": late,
        "held_back": measured.held_back,
        "connections": measured.connections,
        "in_flight_max": measured.in_flight_max,
    }
