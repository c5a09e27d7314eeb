"""Handing a machine's closed segments over to control, which seals them into the ledger."""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from pathlib import Path
from typing import Final

from taut.core.errors import Corrupt, TautError, Unavailable
from taut.serving.predictions import PredictionReader
from taut.serving.predictions.log import close_orphans

PART_BYTES: Final = 4 * 2**20
_ANEW: Final = 3


Send = Callable[[str, int, str, int, bytes], int]
"""Sends a part (segment, size of the whole, its sha256, offset, bytes); returns how many bytes control has."""


def hand_over(folder: Path, send: Send) -> int:
    """Send every closed segment, oldest first, and remove what was acknowledged; return how many were.

    Guarantees: a segment leaves this machine only after control said that it has all of it, durably; being killed at any
    moment sends it again, which changes nothing there. Records of gateways that died are among them.
    Raises, after all others were sent, what kept a single one; at once what says that control cannot be reached.
    """
    close_orphans(folder)
    reader = PredictionReader(folder)
    count, kept = 0, list[str]()
    for segment in reader.segments():
        if segment.state != "closed":
            continue
        try:
            if not reader.ids_of(segment):
                segment.path.unlink(missing_ok=True)
                continue
            _hand_over(segment.path, send)
        except Unavailable:
            raise
        except TautError as error:
            kept.append(f"{segment.path.name}: {error.message}")
            continue
        segment.path.unlink()
        count += 1
    if kept:
        raise Corrupt(f"{len(kept)} segments could not be handed over: {'; '.join(kept[:5])}")
    return count


def _hand_over(path: Path, send: Send) -> None:
    data = path.read_bytes()
    sha256 = hashlib.sha256(data).hexdigest()
    at = anew = 0
    while True:
        here = send(path.stem, len(data), sha256, at, data[at : at + PART_BYTES])
        if here == len(data):
            return
        if here <= at:  # control lost what it had, or had more than it kept: it says where to go on
            anew += 1
            if anew > _ANEW:
                raise Unavailable(f"control does not get on with segment {path.stem}: it is sent again later")
        at = here
