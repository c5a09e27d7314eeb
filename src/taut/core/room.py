"""Naming a full disk, whichever library met it."""

from __future__ import annotations

import errno
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Final

from taut.core.errors import TautError, Unavailable

_FULL: Final = frozenset({errno.ENOSPC, errno.EDQUOT, errno.EFBIG})
_SAID: Final = (
    *(f"os error {number})" for number in _FULL),
    "No space left on device",
    "Disk quota exceeded",
    "File too large",
)


def is_full(error: BaseException) -> bool:
    """Whether an error means that a disk, a quota or a limit on files has no room left. Libraries in Rust say it in their text only."""
    if isinstance(error, OSError) and error.errno is not None:
        return error.errno in _FULL
    return any(said in str(error) for said in _SAID)


@contextmanager
def room_for(what: str) -> Iterator[None]:
    """Turn a full disk into Unavailable that says what there was no room for; other errors pass as they are."""
    try:
        yield
    except TautError:
        raise
    except Exception as error:
        if is_full(error):
            raise Unavailable(
                f"there is no room left on the disk for {what}: free some space and try again"
            ) from error
        raise
