"""What `taut doctor` says of the installation's keys: whether their holder answers, how old they are, what waits."""

from __future__ import annotations

from collections.abc import Mapping
from contextlib import ExitStack
from pathlib import Path
from typing import Final

from taut.entrypoints.findings import Finding

_OLD_DAYS: Final = 365


def ages(home: Path, environ: Mapping[str, str]) -> Finding:
    """Ask the holder of keys for each, and the ledger for their ages; makes nothing where nothing is yet."""
    from taut.bootstrap.config import Config
    from taut.bootstrap.platform import Platform
    from taut.workflows.rotation import states

    config = Config.load(home, environ)
    files = config.keys == "file:"
    if (config.records == "sqlite:" and not (home / "taut.db").exists()) or (
        files and not (home / "keys" / "root.json").exists()
    ):
        return Finding(name="key ages", state="ok", said="no keys yet")
    with ExitStack() as stack:
        platform = Platform(config, stack)
        found, now = states(platform), platform.clock.now()
    waiting = [state.key for state in found if not state.whole]
    if waiting:
        return Finding(
            name="key ages",
            state="warn",
            said=f"a rotation of {', '.join(waiting)} was cut off",
            mend=f"taut up carries it on within a minute; or rotate again: taut keys rotate {waiting[0]}",
        )
    days = {state.key: 0 if state.since is None else (now - state.since).days for state in found}
    oldest = max(days, key=lambda key: days[key])
    said = f"the oldest is {oldest}, {max(0, days[oldest])} days"
    if days[oldest] > _OLD_DAYS:
        return Finding(name="key ages", state="warn", said=said, mend=f"taut keys rotate {oldest}")
    return Finding(name="key ages", state="ok", said=said)
