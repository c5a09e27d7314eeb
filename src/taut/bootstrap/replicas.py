"""What a replica and its admission must agree on: what it runs, and as whom it is probed."""

from __future__ import annotations

from pathlib import Path
from typing import Final

from taut.serving.snapshot.store import write_atomically
from taut.trust.identity.principals import Principal

PROBING: Final = {
    "insider": Principal(id="probe-insider", kind="service", roles=("predictor",)),
    "stranger": Principal(id="probe-stranger", kind="service", roles=()),
}
"""Who a replica is probed as."""


class FloorFile:
    """The highest epoch that earlier incarnations of a replica heard committed."""

    def __init__(self, path: Path) -> None:
        self._path: Final = path

    def read(self) -> int:
        """Return it; 0 where there is none, or none that can be read: whoever can write here could also remove it."""
        try:
            return int(self._path.read_bytes())
        except (FileNotFoundError, ValueError):
            return 0

    def keep(self, floor: int) -> None:
        write_atomically(self._path, b"%d" % floor)


def highest_floor(folder: Path) -> int:
    """Return the highest epoch that any replica of this home heard committed; 0 for none."""
    return max((FloorFile(path).read() for path in folder.glob("*.floor")), default=0)
