"""Why the control of a platform that runs does not answer: it is being started, or it cannot start now."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any, Final

from taut.entrypoints.children import alive
from taut.entrypoints.listening import read_state

_LOG: Final = "log/control.log"
_TAIL_BYTES: Final = 16_384


def absent_control(home: Path) -> str:
    """Return what to tell whoever needs control, empty when no supervisor keeps one in `home`.

    A supervisor starts control again until it stays, so that asking again later is the right thing to do.
    """
    state = read_state(home)
    pid = state.get("pid")
    if not isinstance(pid, int) or alive(pid) != state.get("started"):
        return ""
    control = next((child for child in state.get("children", []) if child.get("name") == "control"), None)
    if control is None:
        return ""
    why = last_words(home / _LOG, with_code=True) or f"{home / _LOG} says more"
    how = f"ended ({control['last_exit']}: {why})" if control.get("last_exit") else "is not ready yet"
    return (
        f"the platform runs (process {pid}), but its control {how}; it is started again by itself and gateways answer "
        "meanwhile: retry"
    )


def last_words(log: Path, *, with_code: bool = False) -> str:
    """Return what a process said at its end, which is the last line of its log; empty when it was killed."""
    try:
        with log.open("rb") as file:
            file.seek(max(0, log.stat().st_size - _TAIL_BYTES))
            said: Any = json.loads(file.read().splitlines()[-1])
        return f"{said['code']}: {said['message']}" if with_code else str(said["message"])
    except (OSError, ValueError, LookupError, TypeError):
        return ""
