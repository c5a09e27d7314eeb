"""What `taut doctor` says of what lies in the clear on a disk: where it lies, and whether that volume is encrypted."""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Final, Literal

from taut.bootstrap.config import Config
from taut.entrypoints.findings import Finding

_MOUNTS: Final = Path("/proc/self/mountinfo")
_BLOCK: Final = Path("/sys/dev/block")
_IN_MEMORY: Final = ("tmpfs", "ramfs")
_CRYPT: Final = "CRYPT-"  # how dm-crypt's devices are named, LUKS among them
_DEPTH_MAX: Final = 8

Volume = Literal["memory", "encrypted", "unknown"]


def at_rest(
    home: Path, environ: Mapping[str, str], *, mounts: Path = _MOUNTS, block: Path = _BLOCK
) -> Finding:
    """Name what taut does not seal itself and lies on a volume of which nobody knows that it is encrypted.

    Not seen: fscrypt, ZFS's own encryption, a cloud's volumes, the disks of PostgreSQL and of an object store.
    """
    config = Config.load(home, environ)
    open_ones = {"models and online features of gateways": home, "rows while they are worked on": config.work}
    if config.records.startswith("sqlite"):
        open_ones["the database"] = home
    if config.blobs.startswith("file:") and not config.seals_blobs:
        open_ones["blobs"] = home
    doubtful: dict[Path, list[str]] = {}
    for what, where in open_ones.items():
        if volume_of(where, mounts=mounts, block=block) == "unknown":
            doubtful.setdefault(where, []).append(what)
    if not doubtful:
        return Finding(
            name="at rest", state="ok", said="what is not sealed lies in memory or on an encrypted volume"
        )
    said = "; ".join(f"{', '.join(what)} in {where}" for where, what in doubtful.items())
    return Finding(
        name="at rest", state="warn", said=f"in the clear, on a volume that is not known to be encrypted: {said}",
        mend="put the home on an encrypted volume (LUKS, fscrypt, a cloud's), and name a tmpfs by TAUT_SCRATCH",
    )  # fmt: skip


def volume_of(path: Path, *, mounts: Path = _MOUNTS, block: Path = _BLOCK) -> Volume:
    """Say what holds a path, by the kernel's tables; `unknown` where they do not tell, as in most containers."""
    found = max(_mounted(mounts, path.resolve()), default=None)
    if found is None:
        return "unknown"
    _, device, kind = found
    if kind in _IN_MEMORY:
        return "memory"
    return "encrypted" if kind == "ecryptfs" or _is_crypt(block / device, 0) else "unknown"


def _mounted(mounts: Path, path: Path) -> Iterator[tuple[int, str, str]]:
    """Yield (length of the mount point, device, file system) of each mount that `path` may lie on."""
    try:
        lines = mounts.read_text().splitlines()
    except OSError:  # not Linux
        return
    for line in lines:
        before, _, after = line.partition(" - ")
        words = before.split()
        point = words[4].replace("\\040", " ")
        if path.is_relative_to(point):
            yield len(point), words[2], after.split()[0]


def _is_crypt(device: Path, depth: int) -> bool:
    """Whether a block device is encrypted, itself or all below it: a volume group may lie on LUKS."""
    try:
        uuid = (device / "dm" / "uuid").read_text()
    except OSError:
        uuid = ""
    if uuid.startswith(_CRYPT):
        return True
    try:
        below = [device / "slaves" / name for name in os.listdir(device / "slaves")]
    except OSError:
        return False
    return bool(below) and depth < _DEPTH_MAX and all(_is_crypt(one, depth + 1) for one in below)
