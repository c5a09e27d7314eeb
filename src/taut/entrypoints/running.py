"""Running the platform in the foreground, and saying to people what happens."""

from __future__ import annotations

import json as json_
import sys
from contextlib import suppress
from pathlib import Path
from typing import Any, Final

from taut.entrypoints.listening import Address, TlsPaths
from taut.entrypoints.logs import Journal, Log
from taut.entrypoints.planes import Joining
from taut.entrypoints.supervisor import supervise


def run_platform(
    home: Path,
    *,
    host: str,
    port: int,
    gateways: int,
    json: bool,
    tls: TlsPaths | None = None,
    joining: Joining | None = None,
    control: str | None = None,
) -> None:
    """Run the platform of `home` in this process until SIGINT or SIGTERM, the drain included.

    json: print one document on standard output as soon as everything is ready. Events go to standard error in words,
    and as lines of JSON to `log/supervisor.log`.
    tls: files with which every plane speaks TLS. joining, control: of a further machine, and the URL of the control that it
    follows. Raises Conflict when the home or the port is taken, and what is wrong
    with those files.
    """
    teller = _Teller(home, json=json, tls=tls is not None, control=control)
    log = Log("supervisor", Journal(home / "log" / "supervisor.log"))

    def on_event(event: str, fields: dict[str, Any]) -> None:
        log.info(event, **fields)
        teller(event, fields)

    supervise(home, Address(host, port), gateways=gateways, on_event=on_event, tls=tls, joining=joining)


class _Teller:
    """Says what happens to the platform."""

    def __init__(self, home: Path, *, json: bool, tls: bool, control: str | None = None) -> None:
        self._control: Final = control
        self._home: Final = home
        self._scheme: Final = "https" if tls else "http"
        self._json: Final = json
        self._host, self._port = "", 0
        self._told = False

    def __call__(self, event: str, fields: dict[str, Any]) -> None:
        if event == "listening":
            self._host, self._port = fields["host"], fields["port"]
        with suppress(OSError):  # a full disk, or nobody listens any more: no reason to stop serving
            if event == "all-ready" and not self._told:
                self._told = True
                self._ready(float(fields.get("seconds", 0.0)))
            said = self._line(event, fields)
            if said:
                sys.stderr.write(said + "\n")
                sys.stderr.flush()

    def _ready(self, seconds: float) -> None:
        host = f"[{self._host}]" if ":" in self._host else self._host
        data, own = (f"{self._scheme}://{host}:{self._port + further}" for further in (0, 1))
        control = self._control or own
        rpc = f"{host}:{self._port + 2}"
        if self._json:
            document = {
                "ready": True, "seconds": seconds, "data_plane": data, "control_plane": control, "grpc": rpc,
                "home": str(self._home),
            }  # fmt: skip
            sys.stdout.write(json_.dumps(document) + "\n")
        else:
            sys.stdout.write(
                f"ready in {seconds:.1f} s\n"
                f"  data plane  {data}   POST /v1/predict/ENDPOINT, /v2/models/ENDPOINT/infer\n"
                f"  gRPC        {rpc}          inference.GRPCInferenceService\n"
                f"  control     {control}   /api/v1, /openapi.json\n"
                "  Ctrl-C drains and stops\n"
            )
        sys.stdout.flush()

    def _line(self, event: str, fields: dict[str, Any]) -> str:
        name = fields.get("name", "")
        match event:
            case "exited":
                again = "again_s" in fields  # else it was told to end
                why = (
                    f": {self._home / 'log' / name}.log says why" if again and "exit" in fields["how"] else ""
                )
                return f"{name} ended ({fields['how']}){', it is started again' if again else ''}{why}"
            case "adopted":
                return f"{name} was still serving: adopted"
            case "rescaled":
                return f"{fields['gateways']} gateways from now on, as control was asked"
            case "renewing":
                return "certificates are read again"
            case "unwritten":
                return f"{fields['path']} cannot be written ({fields['how']}): what runs goes on; free some space"
            case "draining":
                return "draining: no new connections, finishing what is under way"
            case "stopped":
                return "stopped"
        return ""
