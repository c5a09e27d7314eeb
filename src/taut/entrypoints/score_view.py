"""The ML Test Score for people: the score, and what would raise it."""

from __future__ import annotations

from typing import Any

from taut.entrypoints import render

Json = dict[str, Any]


def score(result: Json) -> None:
    """Each section's tests, what they were given points for, and the least of the sums."""
    rows = [(one["section"], one["name"], one["points"], one["said"]) for one in result["items"]]
    render.table(("section", "test", "points", "evidence, or what is missing"), rows)
    sums = ", ".join(f"{name} {points:g}" for name, points in result["sections"].items())
    render.line(f"{result['version']}: {result['score']:g} of 7, the least of {sums}")
