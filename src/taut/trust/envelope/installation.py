"""Data keys of the installation, by name and version: for what is written, of no person."""

from __future__ import annotations

from typing import Final

from taut.ports.records import Records, Tx, transact
from taut.trust.envelope.keyring import KEY_BYTES, Keyring


class InstallationKeys:
    """Keys of 32 bytes, wrapped by the root key `data`. An old version stays, for what was written under it."""

    def __init__(self, records: Records, keyring: Keyring) -> None:
        self._records: Final = records
        self._keyring: Final = keyring

    def versions(self, name: str) -> tuple[bytes, ...]:
        """Return every version, the newest first; the first one is made on first use."""
        with self._records.read() as tx:
            if (count := self.count(tx, name)) > 0:
                return self._opened(tx, name, count)
        return transact(self._records, lambda tx: self._opened(tx, name, max(1, self.count(tx, name))))

    def renew(self, tx: Tx, name: str) -> int:
        """Make a new version and return its number: from now on it is the newest."""
        number = self.count(tx, name) + 1
        self._opened(tx, name, number)
        return number

    def count(self, tx: Tx, name: str) -> int:
        """Return how many versions there are."""
        first = _stored(name, 1)
        names = self._keyring.tenant.names(tx, purpose="data")
        return sum(one == first or one.startswith(f"{first}/") for one in names)

    def _opened(self, tx: Tx, name: str, count: int) -> tuple[bytes, ...]:
        found = []
        for number in range(count, 0, -1):
            key = self._keyring.data_key(
                tx, _stored(name, number), size=KEY_BYTES, purpose="data", create=True
            )
            assert key is not None, "made on first use"
            found.append(key)
        return tuple(found)


def _stored(name: str, number: int) -> str:
    return f"installation/{name}" if number == 1 else f"installation/{name}/{number}"
