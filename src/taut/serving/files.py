"""Writing a file whole, for its owner alone."""

from __future__ import annotations

import os
from pathlib import Path


def replace_file(path: Path, data: bytes, *, temporary: Path) -> None:
    """Write so that a reader, and a restart after a power failure, finds the old file or the new one, whole.

    The file is its owner's alone (0600); its folder must be there. temporary: beside it, and of no other writer's; a
    process that is killed leaves it. Raises OSError; the old file is then as it was.
    """
    try:
        with open(temporary, "wb", opener=_private) as file:
            os.fchmod(file.fileno(), 0o600)  # one that was left may be anybody's
            file.write(data)
            file.flush()
            os.fsync(file.fileno())
        temporary.replace(path)
        folder = os.open(path.parent, os.O_RDONLY)
        try:
            os.fsync(folder)
        finally:
            os.close(folder)
    except OSError:
        temporary.unlink(missing_ok=True)
        raise


def _private(path: str, flags: int) -> int:
    return os.open(path, flags, 0o600)
