"""The doctor's look at certificates: those that are served, and those that the environment names for the next start."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Final

from taut.core.errors import TautError
from taut.entrypoints.findings import Finding

_NAME: Final = "certificate"
_RENEW: Final = "put a new certificate and its key where the old ones are: it is taken over within seconds"


def certificate(home: Path, environ: Mapping[str, str]) -> Finding:
    """Say how the certificates of the platform that runs are, else those that `taut up` would take."""
    from taut.entrypoints.certificates import told

    now = datetime.now(UTC)
    said = told(home)
    return _served(said, now) if said else _configured(home, environ, now)


def _served(said: list[dict[str, Any]], now: datetime) -> Finding:
    refused = next((found for found in said if found["refused"]), None)
    if refused is not None:
        why = f"{refused['process']} refuses the files that lie there and serves the former certificate: {refused['refused']}"
        return Finding(
            name=_NAME, state="bad", said=why, mend="mend the files: they are looked at each second"
        )
    worst = min(said, key=lambda found: float(found["not_after"]))
    serials = {found["serial"] for found in said}
    if len(serials) > 1:
        apart = ", ".join(f"{found['process']} {found['serial'][:12]}" for found in said)
        mend = "look again in a few seconds; if they stay apart, look into the logs"
        return Finding(name=_NAME, state="warn", said=f"processes serve different ones: {apart}", mend=mend)
    names = ", ".join(worst["names"]) or "no name"
    return _dated(f"{names}, served by {len(said)} processes", float(worst["not_after"]), now)


def _configured(home: Path, environ: Mapping[str, str], now: datetime) -> Finding:
    from taut.bootstrap.config import Config
    from taut.entrypoints.certificates import files_of
    from taut.entrypoints.listening import TlsPaths

    config = Config.load(home, environ)
    try:
        paths = TlsPaths.of(config.tls_cert, config.tls_key, config.tls_client_ca)
        if paths is None:
            return Finding(name=_NAME, state="ok", said="none: the planes listen on loopback only")
        from taut.trust.tls import read_material

        facts = read_material(files_of(paths), now=now).facts
    except TautError as error:
        mend = "mend it, or unset TAUT_TLS_CERT, TAUT_TLS_KEY, TAUT_TLS_CLIENT_CA"
        return Finding(name=_NAME, state="bad", said=error.message, mend=mend)
    return _dated(", ".join(facts.names) or "no name", facts.not_after.timestamp(), now)


def _dated(what: str, not_after: float, now: datetime) -> Finding:
    from taut.trust.tls import WARN_DAYS

    days = (not_after - now.timestamp()) / 86_400
    until = datetime.fromtimestamp(not_after, UTC)
    if days <= 0:
        return Finding(name=_NAME, state="bad", said=f"{what}: expired on {until:%Y-%m-%d}", mend=_RENEW)
    said = f"{what}: valid until {until:%Y-%m-%d}, {days:.0f} days"
    if days < WARN_DAYS:
        return Finding(name=_NAME, state="warn", said=said, mend=_RENEW)
    return Finding(name=_NAME, state="ok", said=said)
