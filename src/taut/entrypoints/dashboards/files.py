"""The files, by their names."""

from __future__ import annotations

import msgspec

from taut.entrypoints.dashboards.grafana import platform_dashboard, service_dashboard
from taut.entrypoints.dashboards.rules import Json, platform_groups, service_group
from taut.project.manifest import Manifest
from taut.project.yaml_files import dump


def dashboard_files(manifest: Manifest) -> dict[str, str]:
    """Return the text of each file by its name; the same project gives the same files."""
    found = {
        "taut.rules.yaml": dump({"groups": platform_groups()}),
        "taut.dashboard.json": _json(platform_dashboard()),
    }
    for endpoint in manifest.endpoints:
        found[f"{endpoint.name}.rules.yaml"] = dump({"groups": [service_group(endpoint)]})
        found[f"{endpoint.name}.dashboard.json"] = _json(service_dashboard(endpoint))
    return found


def _json(document: Json) -> str:
    return msgspec.json.format(msgspec.json.encode(document), indent=2).decode() + "\n"
