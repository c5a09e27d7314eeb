from __future__ import annotations

from pathlib import Path

from taut.adapters.keys.file import FileKeys
from taut.adapters.world import SystemRandom
from taut.ports.keys import Keys
from taut.testing.conformance.keys import KeysSuite

CHEAP = 2**10  # a cost of scrypt that tests can afford


class TestFileKeys(KeysSuite):
    def open(self, folder: Path) -> Keys:
        return FileKeys(folder / "keys", random=SystemRandom())


class TestFileKeysUnderPassphrase(KeysSuite):
    def open(self, folder: Path) -> Keys:
        return FileKeys(folder / "keys", random=SystemRandom(), passphrase="open sesame", scrypt_cost=CHEAP)
