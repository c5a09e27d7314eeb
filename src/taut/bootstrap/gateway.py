"""What a gateway opens: few things, chosen without loading what only control needs."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from taut.ports.online import OnlineReader
from taut.ports.world import Random


@contextmanager
def open_online_reader(home: Path) -> Iterator[OnlineReader]:
    """Yield a reader of the installation's online features; nothing is opened before the first read."""
    from taut.adapters.online.sqlite import SqliteOnlineReader

    reader = SqliteOnlineReader(home / "online.db")
    try:
        yield reader
    finally:
        reader.close()


def system_random() -> Random:
    from taut.adapters.world import SystemRandom

    return SystemRandom()
