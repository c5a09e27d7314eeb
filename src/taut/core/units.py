"""Durations and sizes as people write them."""

from __future__ import annotations

import re
from datetime import timedelta
from typing import Final

from taut.core.errors import InvalidInput

_SECONDS: Final = {"ms": 0.001, "s": 1, "m": 60, "h": 3600, "d": 86_400, "w": 604_800}
_BYTES: Final = {
    "B": 1, "KB": 10**3, "MB": 10**6, "GB": 10**9, "TB": 10**12,
    "KiB": 2**10, "MiB": 2**20, "GiB": 2**30, "TiB": 2**40,
}  # fmt: skip
_QUANTITY: Final = re.compile(r"\s*(\d+(?:\.\d+)?)\s*([A-Za-z]+)\s*")


def parse_duration(text: str) -> timedelta:
    """Parse a duration such as `15m`, `3h`, `30d`, `1.5s`.

    Raises InvalidInput on anything else, negative durations included.
    """
    value, unit = _split(text, units=_SECONDS, example="30m")
    try:
        return timedelta(seconds=value * _SECONDS[unit])
    except OverflowError as error:
        raise InvalidInput(
            f"{text[:60]!r} is longer than any duration can be: write for example 30m"
        ) from error


def parse_size(text: str) -> int:
    """Parse a size such as `512MiB` or `2GB` into bytes. Raises InvalidInput on anything else."""
    value, unit = _split(text, units=_BYTES, example="4GiB")
    size = value * _BYTES[unit]
    if size >= 2**63:
        raise InvalidInput(f"{text[:60]!r} is larger than any size can be: write for example 4GiB")
    return int(size)


def _split(text: str, *, units: dict[str, float] | dict[str, int], example: str) -> tuple[float, str]:
    match = _QUANTITY.fullmatch(text)
    if match is None or match[2] not in units:
        raise InvalidInput(
            f"{text[:60]!r} is not understood: write a number and one of {', '.join(units)}, for example {example}"
        )
    return float(match[1]), match[2]
