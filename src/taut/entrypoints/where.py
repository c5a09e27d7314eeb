"""Where the data plane of an installation listens: `taut up` says so in a file, commands read it."""

from __future__ import annotations

from pathlib import Path
from typing import Final

FILE: Final = "run/data_plane"


def announce(home: Path, url: str) -> None:
    """Say where the data plane listens, for example `http://127.0.0.1:8080`; whole or not at all."""
    path = home / FILE
    path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
    partial = path.with_suffix(".new")
    partial.write_text(url + "\n")
    partial.replace(path)


def withdraw(home: Path) -> None:
    """Say that it listens no more."""
    (home / FILE).unlink(missing_ok=True)


def data_plane(home: Path) -> str | None:
    """Return the data plane's URL, or None where none was announced."""
    try:
        return (home / FILE).read_text().strip() or None
    except FileNotFoundError:
        return None
