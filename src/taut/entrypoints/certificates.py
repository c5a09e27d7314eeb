"""TLS in a process of the platform: its arguments, its files kept fresh, and what it says about them."""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import json
import os
import signal
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Final

from taut.entrypoints.children import alive
from taut.entrypoints.listening import TlsPaths
from taut.entrypoints.logs import Log
from taut.serving.tasks import end_task
from taut.trust.svid.here import PartsHere
from taut.trust.tls import WARN_DAYS, LiveTls, TlsFiles, read_material

LOOK_S: Final = 1.0
_WARN_AGAIN_S: Final = 86_400.0
_SAID: Final = "*.tls.json"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the arguments of TLS to a process's own."""
    parser.add_argument("--tls-cert", default="", help="PEM file of the certificate and its issuers")
    parser.add_argument("--tls-key", default="", help="PEM file of its private key")
    parser.add_argument("--tls-client-ca", default="", help="PEM file of the authorities of clients")


def paths_of(arguments: argparse.Namespace) -> TlsPaths | None:
    """Return the paths that were given; None where none was. Raises InvalidInput for one without the other."""
    return TlsPaths.of(arguments.tls_cert, arguments.tls_key, arguments.tls_client_ca)


def files_of(paths: TlsPaths) -> TlsFiles:
    client_ca = Path(paths.client_ca) if paths.client_ca else None
    return TlsFiles(cert=Path(paths.cert), key=Path(paths.key), client_ca=client_ca)


def check(paths: TlsPaths) -> None:
    """Raise what is wrong with the files, before any process is started that would end of it again and again."""
    read_material(files_of(paths), now=_now())


def open_tls(paths: TlsPaths | None, parts: PartsHere | None = None) -> LiveTls | None:
    """Read the files for a server. parts: that are served there, too. Raises NotFound, Denied, InvalidInput."""
    return None if paths is None else LiveTls(files_of(paths), now=_now, parts=parts)


@asynccontextmanager
async def kept_fresh(
    live: LiveTls | None, *, home: Path, name: str, log: Log, on_renewed: Callable[[], None]
) -> AsyncIterator[None]:
    """Keep looking at the files until the block ends: each second, and at once on SIGHUP. Nothing without TLS.

    name: of the process. on_renewed: called in the loop after a new state is served.
    """
    if live is None:
        yield
        return
    keeper = _Keeper(live, home / "run" / f"{name}.tls.json", name, log, on_renewed)
    loop = asyncio.get_running_loop()
    loop.add_signal_handler(signal.SIGHUP, keeper.hurry)
    task = asyncio.create_task(keeper.run())
    try:
        yield
    finally:
        await end_task(task)
        keeper.close()


class _Keeper:
    """Looks, swaps, and says what came of it: in the log, and in a file for `taut doctor` and `/metrics`."""

    def __init__(
        self, live: LiveTls, path: Path, name: str, log: Log, on_renewed: Callable[[], None]
    ) -> None:
        self._live: Final = live
        self._path: Final = path
        self._name: Final = name
        self._log: Final = log
        self._on_renewed: Final = on_renewed
        self._wake: Final = asyncio.Event()
        self._warned_s = 0.0
        self._unwritten = False
        self._trouble = ""
        self._started: Final = alive(os.getpid())

    def hurry(self) -> None:
        self._wake.set()

    async def run(self) -> None:
        self._write()
        while True:
            self._warn()
            await self._look_at_parts()
            hurried = False
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(self._wake.wait(), LOOK_S)
                hurried = True
            self._wake.clear()
            try:
                await self._look(at_once=hurried)
            except Exception as error:  # noqa: BLE001 - whatever it is: the next look must come all the same
                self._log.failure("certificates could not be looked at", error)

    async def _look(self, *, at_once: bool) -> None:
        live = self._live
        seen = await asyncio.to_thread(live.look, at_once=at_once)
        if seen == "same" and not self._unwritten:
            return
        facts = live.material.facts
        if seen == "renewed":
            self._on_renewed()
            self._warned_s = 0.0
            self._log.info(
                "certificate renewed", serial=facts.serial, names=list(facts.names),
                not_after=facts.not_after.isoformat(),
            )  # fmt: skip
        elif seen == "refused":
            self._log.error("certificate refused, the former one is served on", why=live.refusal)
        elif seen == "mended":
            self._log.info("certificate files are sound again", serial=facts.serial)
        self._write()

    async def _look_at_parts(self) -> None:
        """Have connections between parts judged as identities change; what keeps it is said once."""
        parts = self._live.parts
        if parts is None:
            return
        if await asyncio.to_thread(parts.look):
            self._on_renewed()
        if parts.trouble and parts.trouble != self._trouble:
            self._log.warning("the former identity is shown to other machines", why=parts.trouble)
        self._trouble = parts.trouble

    def _warn(self) -> None:
        facts = self._live.material.facts
        now = _now()
        days = facts.days_left(now)
        if days < WARN_DAYS and now.timestamp() - self._warned_s > _WARN_AGAIN_S:
            self._warned_s = now.timestamp()
            say = self._log.warning if days > 0 else self._log.error
            say(
                "certificate expires soon" if days > 0 else "certificate has expired",
                serial=facts.serial, days_left=round(days, 1), not_after=facts.not_after.isoformat(),
            )  # fmt: skip

    def _write(self) -> None:
        live = self._live
        facts = live.material.facts
        document = {
            "process": self._name, "pid": os.getpid(), "started": self._started, "serial": facts.serial,
            "names": list(facts.names), "issuer": facts.issuer, "not_after": facts.not_after.timestamp(),
            "renewals": live.generation - 1, "refused": live.refusal, "mutual": live.mutual,
        }  # fmt: skip
        temporary = self._path.with_suffix(".tmp")
        try:
            flags = os.O_CREAT | os.O_TRUNC | os.O_WRONLY | os.O_CLOEXEC
            with open(os.open(temporary, flags, 0o600), "w") as file:
                file.write(json.dumps(document))
            temporary.replace(self._path)
        except OSError as error:  # a full disk: certificates are swapped all the same, and told of later
            if not self._unwritten:
                self._log.failure("the state of the certificates could not be written", error)
            self._unwritten = True
        else:
            self._unwritten = False

    def close(self) -> None:
        with contextlib.suppress(OSError):
            self._path.unlink(missing_ok=True)


def told(home: Path) -> list[dict[str, Any]]:
    """Return what the living processes of a home say about their certificates, by name; empty without TLS."""
    found = []
    for path in sorted((home / "run").glob(_SAID)):
        try:
            document = json.loads(path.read_text())
            if alive(int(document["pid"])) == document["started"]:
                found.append(document)
        except (OSError, ValueError, KeyError, TypeError):
            continue  # being replaced, or left by a process that died
    return found


def _now() -> datetime:
    return datetime.now(UTC)
