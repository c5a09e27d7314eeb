"""What a replica and its admission must agree on: what it runs, and as whom it is probed."""

from __future__ import annotations

import hashlib
from pathlib import Path
from typing import Final

import taut
from taut.serving.snapshot.store import write_atomically
from taut.trust.identity.principals import Principal

PROBING: Final = {
    "insider": Principal(id="probe-insider", kind="service", roles=("predictor",)),
    "stranger": Principal(id="probe-stranger", kind="service", roles=()),
}
"""Who a replica is probed as."""
_PARTS: Final = ("core", "ports", "project", "trust", "fleet", "serving")


def artifacts_digest() -> str:
    """Return the digest of the source that a replica runs: every file of the floors that serve."""
    root, digest = Path(taut.__file__).parent, hashlib.sha256()
    for part in _PARTS:
        for path in sorted((root / part).rglob("*.py")):
            data = path.read_bytes()
            digest.update(f"{path.relative_to(root).as_posix()} {len(data)}\n".encode() + data)
    return "sha256:" + digest.hexdigest()


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
