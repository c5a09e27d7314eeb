"""Secrets: values that a project needs and must never hold, such as a database's password."""

from __future__ import annotations

from typing import Protocol


class Secrets(Protocol):
    """An encrypted store of small named values.

    Guarantees: values are encrypted at rest, authenticated together with their name (one cannot be swapped for
    another), and never appear in errors or listings. A `put` that returned is durable.

    Errors: NotFound for an unknown name; Corrupt when the stored form was changed; InvalidInput for a bad name
    (a-z, 0-9, `-`, `_`, `/`) or a value above 64 KiB.
    """

    def put(self, name: str, value: str) -> None: ...

    def get(self, name: str) -> str: ...

    def delete(self, name: str) -> None: ...

    def rewrap(self) -> int:
        """Wrap every value's key anew under the current key of the holder; return how many. Loses no concurrent `put`."""
        ...

    def names(self) -> tuple[str, ...]: ...
