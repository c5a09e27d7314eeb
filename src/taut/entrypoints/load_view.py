"""A load run for people: the figures that matter, and the shape of the tail."""

from __future__ import annotations

from typing import Any, Final

from taut.entrypoints import render

Json = dict[str, Any]

_BAR: Final = 50
_EIGHTHS: Final = " ▏▎▍▌▋▊▉"


def load(result: Json) -> None:
    """Show what a run came to."""
    render.fields(
        {
            "endpoint": result["endpoint"],
            "offered": f"{result['offered']:,} requests, {result['rate_offered']:,.1f}/s",
            "answered": f"{result['answered']:,} requests, {result['rate_achieved']:,.1f}/s",
            "errors": result["errors"] or None,
        }
    )
    columns = ("p50", "p90", "p99", "p99_9", "max")
    rows: list[tuple[object, ...]] = [
        ("all", result["answered"], *(_ms(result["latency_ms"][name]) for name in columns))
    ]
    for status, found in result["answers"].items():
        rows.append((status, found["count"], *(_ms(found[name]) for name in columns)))
    render.table(("answer", "count", *(name.replace("_", ".") for name in columns)), rows)
    for status, found in result["answers"].items():
        if found.get("said"):
            render.line(f"{status}, the first: {found['said']}")
    render.line("latency from the moment at which a request was due:")
    for line in bars(result["histogram"]):
        render.line(line)
    generator = result["generator"]
    late = generator["lateness_ms"]
    render.line(
        f"the generator used {generator['cpu_cores']:.2f} cores and was late by {late['p50']:.3f} ms (p50), "
        f"{late['p99']:.3f} ms (p99)"
    )
    if not generator["ok"]:
        render.line(f"the generator did NOT keep up: {generator['said']}; do not blame the endpoint alone")


def bars(histogram: list[Json]) -> list[str]:
    """Return a text histogram, one line a step."""
    most = max((step["count"] for step in histogram), default=0)
    width = max((len(_ms(step["up_to_ms"])) for step in histogram), default=0)
    return [
        f"  ≤ {_ms(step['up_to_ms']).rjust(width)}  {_bar(step['count'] / most).ljust(_BAR)} {step['count']:,}".rstrip()
        for step in histogram
    ]


def _bar(share: float) -> str:
    whole, rest = divmod(round(share * _BAR * 8), 8)
    if share > 0 and whole == rest == 0:
        rest = 1  # what was counted is seen
    return "█" * whole + _EIGHTHS[rest].strip()


def _ms(value: float) -> str:
    return f"{value:.3g} ms" if value < 100 else f"{value:,.0f} ms"
