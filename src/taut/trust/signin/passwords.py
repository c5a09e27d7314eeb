"""Passwords: argon2id, with the same work whether an account exists or not."""

from __future__ import annotations

import threading
import unicodedata
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Final

import msgspec

from taut.core.errors import InvalidInput, Unavailable
from taut.ports.world import Random

if TYPE_CHECKING:
    from argon2 import PasswordHasher

MIN_LENGTH: Final = 12
MAX_LENGTH: Final = 256
_PATIENCE_S: Final = 5.0


class Cost(msgspec.Struct, frozen=True, kw_only=True):
    """What one guess costs. The defaults are the second choice of RFC 9106, section 4."""

    time: int = 3
    memory_kib: int = 64 * 1024
    lanes: int = 4


class Passwords:
    """Hashes and compares passwords, a few at once, since each takes 64 MiB for a moment.

    at_once: bound on comparisons under way; whoever waits longer than 5 s gets Unavailable.
    """

    def __init__(self, random: Random, *, cost: Cost = Cost(), at_once: int = 2) -> None:  # noqa: B008 - frozen
        self._random: Final = random
        self._cost: Final = cost
        self._places: Final = threading.BoundedSemaphore(at_once)
        self._lock: Final = threading.Lock()
        self._decoy: str | None = None

    def hash(self, password: str) -> str:
        with self._place():
            return self._hash(password)

    def verify(self, stored: str | None, password: str) -> bool:
        """Whether a password is the one that `stored` was made of. None, for no account, takes as long and is False."""
        from argon2.exceptions import InvalidHashError, VerificationError

        with self._place():
            decoy = self._unknown()
            try:
                self._hasher().verify(decoy if stored is None else stored, _normal(password))
            except (VerificationError, InvalidHashError):
                return False
        return stored is not None

    def is_outdated(self, stored: str) -> bool:
        """Whether a hash was made at another cost than today's: make it anew while the password is at hand."""
        return self._hasher().check_needs_rehash(stored)

    def _hash(self, password: str) -> str:
        return self._hasher().hash(_normal(password), salt=self._random.bytes(16))

    def _unknown(self) -> str:
        """A hash of what nobody knows, made at the first comparison of any kind, so that it tells nothing."""
        with self._lock:
            if self._decoy is None:
                self._decoy = self._hash(self._random.bytes(32).hex())
            return self._decoy

    def _hasher(self) -> PasswordHasher:
        from argon2 import PasswordHasher

        cost = self._cost
        return PasswordHasher(time_cost=cost.time, memory_cost=cost.memory_kib, parallelism=cost.lanes)

    @contextmanager
    def _place(self) -> Iterator[None]:
        if not self._places.acquire(timeout=_PATIENCE_S):
            raise Unavailable("many people sign in at this moment: try again", retry_after_s=2.0)
        try:
            yield
        finally:
            self._places.release()


def check_password(password: str, *, principal: str) -> str:
    """Return a password that may be set. Length is what counts, so that is what is asked for (NIST SP 800-63B)."""
    if not MIN_LENGTH <= len(password) <= MAX_LENGTH:
        raise InvalidInput(f"a password has {MIN_LENGTH} to {MAX_LENGTH} characters: choose several words")
    if principal in password.lower() or len(set(password)) < 5:
        raise InvalidInput(
            "the password holds the account's name, or hardly any different characters: choose another"
        )
    return password


def _normal(password: str) -> bytes:
    """The same characters typed on two keyboards are the same bytes (RFC 8265, OpaqueString)."""
    return unicodedata.normalize("NFC", password).encode("utf-8", "surrogatepass")
