"""A full disk is named, whichever library met it; other errors stay what they are."""

from __future__ import annotations

import errno

import pytest

from taut.core.errors import InvalidInput, TautError, Unavailable
from taut.core.room import is_full, room_for


@pytest.mark.parametrize(
    "error",
    [
        OSError(errno.ENOSPC, "No space left on device"),
        OSError(errno.EDQUOT, "Disk quota exceeded"),
        OSError(errno.EFBIG, "File too large"),
        RuntimeError("parquet: underlying IO error: No space left on device (os error 28)"),
    ],
)
def test_a_full_disk_is_unavailable_and_says_what_there_was_no_room_for(error: Exception) -> None:
    with (
        pytest.raises(Unavailable, match="no room left on the disk for the model: free some space") as told,
        room_for("the model"),
    ):
        raise error

    assert told.value.__cause__ is error


@pytest.mark.parametrize(
    "error",
    [
        OSError(errno.EIO, "Input/output error"),
        ValueError("x"),
        InvalidInput("no space left on device is no name"),
    ],
)
def test_other_errors_pass_as_they_are(error: Exception) -> None:
    with pytest.raises(type(error)) as told, room_for("the model"):
        raise error

    assert told.value is error
    assert isinstance(error, TautError) or not is_full(error)
