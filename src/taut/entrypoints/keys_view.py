"""How the installation's own keys look to people."""

from __future__ import annotations

from typing import Any

from taut.entrypoints import render


def own_keys(result: dict[str, Any]) -> None:
    rows = [
        (
            k["key"],
            k["versions"],
            k["current"],
            None if k["age_days"] is None else f"{k['age_days']} d",
            None if k["whole"] else f"being wrapped anew, {k['behind']} persons to go",
        )
        for k in result["keys"]
    ]
    render.table(("key", "versions", "current", "age", "waits"), rows, empty="no keys yet")
