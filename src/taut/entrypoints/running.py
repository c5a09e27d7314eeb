"""Running the platform in the foreground, and saying to people what happens."""

from __future__ import annotations

import json as json_
import os
import sys
from pathlib import Path
from typing import Any

from taut.entrypoints.listening import Address
from taut.entrypoints.supervisor import supervise


def run_platform(home: Path, *, host: str, port: int, gateways: int, json: bool) -> None:
    """Run the platform of `home` in this process until SIGINT or SIGTERM, the drain included.

    json: print one document on standard output as soon as everything is ready, and events on standard error.
    Raises Conflict when the home or the port is taken.
    """
    # The children are started with `python -m`, which would put this folder first on their path: a project file
    # called taut.py in it would hide the package from them.
    os.environ["PYTHONSAFEPATH"] = "1"
    where: dict[str, Any] = {}
    told = False

    def on_event(event: str, fields: dict[str, Any]) -> None:
        nonlocal told
        if event == "listening":
            where.update(fields)
        if event == "all-ready" and not told:
            told = True
            _ready(where, home, json=json)
        elif not json and event in ("exited", "draining", "stopped", "adopted"):
            said = " ".join(f"{name}={value}" for name, value in fields.items())
            sys.stderr.write(f"{event} {said}\n")

    supervise(home, Address(host, port), gateways=gateways, on_event=on_event)


def _ready(where: dict[str, Any], home: Path, *, json: bool) -> None:
    data = f"http://{where['host']}:{where['port']}"
    control = f"http://{where['host']}:{where['port'] + 1}"
    if json:
        document = {"ready": True, "data_plane": data, "control_plane": control, "home": str(home)}
        sys.stdout.write(json_.dumps(document) + "\n")
    else:
        sys.stdout.write(f"ready: data plane {data}, control plane {control}; stop with Ctrl-C\n")
    sys.stdout.flush()
