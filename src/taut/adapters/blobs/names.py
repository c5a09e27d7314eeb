"""The names that `put_named` takes, checked so that they can be paths and object keys."""

from __future__ import annotations

import re
from typing import Final

from taut.core.errors import InvalidInput

NAME_LENGTH_MAX: Final = 512
_SEGMENT: Final = re.compile(r"[a-z0-9._-]{1,128}")


def check_blob_name(name: str) -> str:
    """Return `name` when it is segments of a-z, 0-9, `.`, `-`, `_`, parted by `/`, none of them `.` or `..`."""
    segments = name.split("/")
    allowed = all(_SEGMENT.fullmatch(segment) and segment not in (".", "..") for segment in segments)
    if not allowed or len(name) > NAME_LENGTH_MAX:
        raise InvalidInput(
            f"blob name {name[:80]!r} is not allowed: use up to {NAME_LENGTH_MAX} of a-z, 0-9, '.', '-', '_' in "
            "segments of at most 128 parted by '/', none of them empty, '.' or '..'"
        )
    return name
