"""What is wrong with an installation or its machine, and how to mend it."""

from __future__ import annotations

import importlib.util
import json
import os
import shutil
import socket
import stat
import subprocess
import sys
import time
from collections.abc import Callable, Mapping
from datetime import UTC, datetime
from pathlib import Path
from typing import Final

from taut.core.errors import Conflict, TautError, Unavailable
from taut.entrypoints.doctor_keys import ages
from taut.entrypoints.doctor_rest import at_rest
from taut.entrypoints.doctor_tls import certificate
from taut.entrypoints.findings import Finding

_MIN_FREE_BYTES: Final = 2 * 2**30
_BAD_FREE_BYTES: Final = 256 * 2**20
_NOT_BEFORE: Final = 1_767_225_600  # 2026-01-01: a clock before this release is wrong
_PORTS: Final = (8080, 8081, 8082)
_TRY_S: Final = 30.0
_ROWS: Final = 100_000  # of each feature set
_FROM_DATABASE: Final = ("key ages", "emergency")
_WANTED: Final = ("netns", "pidns", "landlock", "seccomp", "no-new-privs", "rlimits")


def examine(home: Path, environ: Mapping[str, str]) -> tuple[Finding, ...]:
    """Look at everything that can be looked at without changing anything."""
    checks: tuple[tuple[str, Callable[[], Finding]], ...] = (
        ("python", _python),
        ("clock", _clock),
        ("disk", lambda: _disk(home)),
        ("home", lambda: _home(home)),
        ("keys", lambda: _keys(home)),
        ("key ages", lambda: ages(home, environ)),
        ("at rest", lambda: at_rest(home, environ)),
        ("lock", lambda: _lock(home)),
        ("socket", lambda: _socket(home)),
        ("ports", lambda: _ports(home)),
        ("isolation", _isolation),
        ("workers", _workers),
        ("database", lambda: _database(home, environ)),
        ("emergency", lambda: _emergency(home, environ)),
        ("features", lambda: _features(home, environ)),
        ("certificate", lambda: certificate(home, environ)),
        ("project file", _shadow),
    )
    return tuple(_looked(name, look) for name, look in checks)


def _looked(name: str, look: Callable[[], Finding]) -> Finding:
    try:
        return look()
    except TautError as error:
        if (
            isinstance(error, Unavailable) and name in _FROM_DATABASE
        ):  # one cause, one bad finding: the database's
            return Finding(name=name, state="warn", said="not known while the database does not answer")
        return Finding(name=name, state="bad", said=f"{error.code}: {error}")
    except OSError as error:
        return Finding(name=name, state="bad", said=f"{error}", mend="mend the file or its permissions")


def _python() -> Finding:
    version = ".".join(str(part) for part in sys.version_info[:3])
    missing = [
        name
        for name in ("polars", "sqlalchemy", "onnxruntime", "cryptography")
        if not importlib.util.find_spec(name)
    ]
    if missing:
        return Finding(
            name="python",
            state="bad",
            said=f"{version}, without {', '.join(missing)}",
            mend="install taut again: make run",
        )
    return Finding(name="python", state="ok", said=f"{version} at {sys.executable}")


def _clock() -> Finding:
    now = time.time()
    said = time.strftime("%Y-%m-%d %H:%M:%S UTC", time.gmtime(now))
    if now < _NOT_BEFORE:
        return Finding(
            name="clock", state="bad", said=said, mend="set the clock: tokens and freshness depend on it"
        )
    return Finding(name="clock", state="ok", said=said)


def _disk(home: Path) -> Finding:
    there = next(path for path in (home, *home.parents) if path.exists())
    free = shutil.disk_usage(there).free
    said = f"{free / 2**30:.1f} GiB free below {there}"
    if free < _BAD_FREE_BYTES:
        return Finding(
            name="disk",
            state="bad",
            said=said,
            mend="free some space: writes are refused when the disk is full",
        )
    if free < _MIN_FREE_BYTES:
        return Finding(
            name="disk", state="warn", said=said, mend="free some space before you ingest or train"
        )
    return Finding(name="disk", state="ok", said=said)


def _home(home: Path) -> Finding:
    if not home.exists():
        return Finding(name="home", state="ok", said=f"{home} is not there yet; the first command makes it")
    status = home.stat()
    if status.st_uid != os.getuid():
        return Finding(
            name="home",
            state="bad",
            said=f"{home} belongs to uid {status.st_uid}",
            mend="work as its owner, or name another --home",
        )
    if not os.access(home, os.W_OK | os.X_OK):
        return Finding(name="home", state="bad", said=f"{home} cannot be written", mend=f"chmod u+rwx {home}")
    if stat.S_IMODE(status.st_mode) & 0o077:
        return Finding(name="home", state="warn", said=f"{home} is open to others", mend=f"chmod 700 {home}")
    return Finding(name="home", state="ok", said=str(home))


def _keys(home: Path) -> Finding:
    open_ones = [
        path
        for folder in ("keys", "secrets")
        for path in ([home / folder, *(home / folder).rglob("*")] if (home / folder).exists() else [])
        if stat.S_IMODE(path.lstat().st_mode) & 0o077
    ]
    if open_ones:
        mend = f"chmod -R go-rwx {home / 'keys'} {home / 'secrets'}, then rotate what others may have read"
        return Finding(name="keys", state="bad", said=f"{open_ones[0]} can be read by others", mend=mend)
    if not (home / "keys").exists():
        return Finding(name="keys", state="ok", said="none yet")
    return Finding(name="keys", state="ok", said="only their owner can read them")


def _lock(home: Path) -> Finding:
    from taut.entrypoints.client import LOCK, home_lock

    if not (home / LOCK).exists():
        return Finding(name="lock", state="ok", said="nobody works in this home")
    try:
        with home_lock(home):
            return Finding(name="lock", state="ok", said="free")
    except Conflict as error:
        return Finding(name="lock", state="ok", said=error.message.partition(":")[0])


def _socket(home: Path) -> Finding:
    from taut.entrypoints.client import SOCKET, answers

    path = home / SOCKET
    if answers(path):
        return Finding(name="socket", state="ok", said="the platform answers")
    if path.exists():
        return Finding(
            name="socket",
            state="warn",
            said=f"{path} is left over from a platform that died",
            mend="nothing to do: the next `taut up` replaces it",
        )
    return Finding(name="socket", state="ok", said="no platform runs in this home")


def _ports(home: Path) -> Finding:
    from taut.entrypoints.client import SOCKET, answers

    if answers(home / SOCKET):
        return Finding(name="ports", state="ok", said="in use by the platform of this home")
    taken = [port for port in _PORTS if not _free(port)]
    if taken:
        said = f"{', '.join(map(str, taken))} on 127.0.0.1 in use by another program"
        return Finding(name="ports", state="warn", said=said, mend="taut up --port with another number")
    return Finding(name="ports", state="ok", said=f"{', '.join(map(str, _PORTS))} are free")


def _free(port: int) -> bool:
    with socket.socket(socket.AF_INET, socket.SOCK_STREAM) as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind(("127.0.0.1", port))
        except OSError:
            return False
    return True


def _workers() -> Finding:
    """What bounds model workers on this machine, beside what isolates them as it does jobs."""
    from taut.serving.workers.share import processor_seconds

    if processor_seconds(os.getpid()) is None:
        said = "this system tells no process's processor time: a model's threads take what they get"
        mend = "serve only models' code that you trust on this machine"
        return Finding(name="workers", state="warn", said=said, mend=mend)
    said = (
        "processor time is held by their gateway, four times a second; memory by the kernel and their gateway"
    )
    return Finding(name="workers", state="ok", said=said)


def _isolation() -> Finding:
    """Only trying tells: a process is confined as a job would be, and says what held."""
    command = [sys.executable, "-P", "-m", "taut.entrypoints.isolation_main"]
    try:
        done = subprocess.run(command, capture_output=True, timeout=_TRY_S, check=True)
        held = [str(name) for name in json.loads(done.stdout)]
    except (subprocess.SubprocessError, ValueError) as error:
        return Finding(
            name="isolation",
            state="bad",
            said=f"a confined process could not be started: {error}",
            mend="see the log of a failed run: taut run show RUN",
        )
    missing = [wanted for wanted in _WANTED if not any(name.startswith(wanted) for name in held)]
    said = ", ".join(held)
    if missing:
        mend = (
            f"this kernel does not offer {', '.join(missing)}: run only code that you trust on this machine"
        )
        return Finding(name="isolation", state="warn", said=said, mend=mend)
    return Finding(name="isolation", state="ok", said=said)


def _database(home: Path, environ: Mapping[str, str]) -> Finding:
    from taut.bootstrap.adapters import open_records
    from taut.bootstrap.config import Config

    config = Config.load(home, environ)
    if config.records.startswith("sqlite") and not (home / "taut.db").exists():
        return Finding(name="database", state="ok", said="none yet")
    records = open_records(config)
    try:
        records.check()
    except TautError as error:
        return Finding(
            name="database",
            state="bad",
            said=f"{error.code}: {error}",
            mend="restore it from a backup, or make it reachable",
        )
    finally:
        records.close()
    return Finding(name="database", state="ok", said=f"{records.dialect} answers, its schema fits")


def _emergency(home: Path, environ: Mapping[str, str]) -> Finding:
    """Say as long as an emergency holds that it does."""
    from taut.bootstrap.adapters import open_records
    from taut.bootstrap.config import Config
    from taut.trust.breakglass import holding

    config = Config.load(home, environ)
    if config.records.startswith("sqlite") and not (home / "taut.db").exists():
        return Finding(name="emergency", state="ok", said="none")
    records = open_records(config)
    try:
        records.check()  # in words, where it is away or of another version
        with records.read() as tx:
            found = holding(tx, datetime.now(UTC))
    finally:
        records.close()
    if found is None:
        return Finding(name="emergency", state="ok", said="none")
    said = (
        f"since {found.begun_at:%Y-%m-%d %H:%M} UTC, until {found.until:%H:%M} at the latest: {found.reason}"
    )
    mend = "taut break-glass end, as soon as it is over; `taut ledger show --kind break_glass.` lists what was done"
    return Finding(name="emergency", state="warn", said=said, mend=mend)


def _features(home: Path, environ: Mapping[str, str]) -> Finding:
    """Look at what endpoints look up, as gateways do, but at more of it at once."""
    from taut.bootstrap.config import Config
    from taut.bootstrap.gateway import open_online_reader
    from taut.serving.gateway.feature_probe import FeatureProbe
    from taut.serving.snapshot import SnapshotStore, TrustFile, open_snapshot

    trust = TrustFile(home / "serving" / "trust.json")
    served = SnapshotStore(home / "serving", trust).newest() if (home / "serving").exists() else None
    if served is None:
        return Finding(name="features", state="ok", said="nothing is served yet")
    endpoints = [one for one in open_snapshot(served, trust.read()).endpoints if one.live.signature.lookups]
    with open_online_reader(Config.load(home, environ)) as online:
        wrong = FeatureProbe(online, rows=_ROWS).look(endpoints, time.time_ns() // 1000)
    if not wrong:
        return Finding(
            name="features", state="ok", said=f"{len(endpoints)} endpoints look some up, and find them"
        )
    said = "; ".join(f"endpoint {name!r}: {', '.join(why)}" for name, why in sorted(wrong.items()))
    return Finding(
        name="features",
        state="bad",
        said=said,
        mend="taut features materialize SET; a damaged online.db is moved away first",
    )


def _shadow() -> Finding:
    if Path("taut.py").exists():
        mend = "call it project.py where you also work in notebooks: there, `import taut` would find the file instead"
        return Finding(
            name="project file", state="warn", said="it is called taut.py, which hides the package", mend=mend
        )
    return Finding(name="project file", state="ok", said="hides nothing")
