"""Request ids: `req_`, 48 bits of milliseconds and 80 random bits, as `Ids` writes them, made in bulk."""

from __future__ import annotations

from typing import Final

from taut.ports.world import Random

_DIGITS: Final = "0123456789abcdefghjkmnpqrstvwxyz"
_TABLE: Final = (_DIGITS * 8).encode()  # each byte to one of 32 digits, all equally often
_BATCH: Final = 256
_RANDOM_CHARS: Final = 16


class RequestIds:
    """Makes ids in well under a microsecond; one event loop owns it.

    Randomness is drawn 256 ids at a time, and of the time but the two last digits are written anew for each, which is what
    makes it cheap at any rate of requests.
    """

    def __init__(self, random: Random) -> None:
        self._random: Final = random
        self._pool: list[str] = []
        self._second = -1  # of 1024 ms
        self._prefix = ""

    def next(self, now_us: int) -> str:
        millisecond = now_us // 1000
        if millisecond >> 10 != self._second:
            self._second = millisecond >> 10
            self._prefix = "req_" + "".join(
                _DIGITS[(millisecond >> shift) & 31] for shift in range(45, 9, -5)
            )
        if not self._pool:
            text = self._random.bytes(_RANDOM_CHARS * _BATCH).translate(_TABLE).decode("ascii")
            self._pool = [text[at : at + _RANDOM_CHARS] for at in range(0, len(text), _RANDOM_CHARS)]
        return (
            f"{self._prefix}{_DIGITS[(millisecond >> 5) & 31]}{_DIGITS[millisecond & 31]}{self._pool.pop()}"
        )
