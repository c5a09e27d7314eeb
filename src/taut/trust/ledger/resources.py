"""The ledger as static resources of C2SP tlog-tiles, for any client or monitor that knows that layout."""

from __future__ import annotations

import re
from typing import Final

from sqlalchemy import select

from taut.core.errors import NotFound
from taut.ports.records import Tx
from taut.trust.ledger import tables as t
from taut.trust.ledger.leaf import row_bytes
from taut.trust.ledger.store import select_range, tile_bytes
from taut.trust.ledger.tiles import TILE_WIDTH

_PATH: Final = re.compile(
    r"tile/(?P<level>entries|0|[1-5][0-9]?|6[0-3]?|[7-9])/(?P<index>(?:x[0-9]{3}/)*[0-9]{3})"
    r"(?:\.p/(?P<width>[1-9][0-9]?|1[0-9]{2}|2[0-4][0-9]|25[0-5]))?"
)


def tile_path(level: int | str, index: int, *, width: int = TILE_WIDTH) -> str:
    """Return the path of a tile, or of an entry bundle where `level` is `entries`.

    >>> tile_path(0, 1234067)
    'tile/0/x001/x234/067'
    >>> tile_path("entries", 3, width=7)
    'tile/entries/003.p/7'
    """
    groups = [f"{index % 1000:03d}"]
    while index >= 1000:
        index //= 1000
        groups.insert(0, f"x{index % 1000:03d}")
    partial = "" if width == TILE_WIDTH else f".p/{width}"
    return f"tile/{level}/{'/'.join(groups)}{partial}"


def resource(tx: Tx, path: str) -> bytes:
    """Return the bytes of `checkpoint`, `tile/<L>/<N>[.p/<W>]` or `tile/entries/<N>[.p/<W>]`.

    Partial tiles of former sizes are served too, being beginnings of the present ones.
    Raises NotFound for any other path and for what the log does not reach yet.
    """
    if path == "checkpoint":
        newest = select(t.checkpoints.c.note).order_by(t.checkpoints.c.size.desc()).limit(1)
        note: str | None = tx.execute(newest).scalar_one_or_none()
        if note is None:
            raise NotFound("no checkpoint was signed yet: run `taut ledger checkpoint`")
        return note.encode()
    match = _PATH.fullmatch(path)
    if match is None:
        raise NotFound(f"{path[:120]!r} is no resource of the ledger: ask for checkpoint or tile/LEVEL/INDEX")
    width = int(match["width"] or TILE_WIDTH)
    index = int(match["index"].replace("x", "").replace("/", ""))
    found = (
        _entries(tx, index, width)
        if match["level"] == "entries"
        else tile_bytes(tx, level=int(match["level"]), index=index, width=width)
    )
    if found is None or tile_path(match["level"], index, width=width) != path:
        raise NotFound(
            f"{path[:120]!r} lies beyond the end of the ledger, or is not written in the shortest way"
        )
    return found


def _entries(tx: Tx, index: int, width: int) -> bytes | None:
    start = index * TILE_WIDTH
    rows = tx.execute(select_range(start, start + width)).all()
    if len(rows) != width:
        return None
    entries = [row_bytes(row) for row in rows]
    return b"".join(len(entry).to_bytes(2, "big") + entry for entry in entries)
