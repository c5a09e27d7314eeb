from __future__ import annotations

from pathlib import Path

from storage_faults import flip_a_bit
from taut.adapters.keys.file import FileKeys
from taut.adapters.secrets.file import FileSecrets
from taut.adapters.world import SystemRandom
from taut.ports.secrets import Secrets
from taut.testing.conformance.secrets import SecretsSuite


class TestFileSecrets(SecretsSuite):
    def open(self, folder: Path) -> Secrets:
        random = SystemRandom()
        return FileSecrets(folder / "secrets", keys=FileKeys(folder / "keys", random=random), random=random)

    def raw(self, folder: Path) -> bytes:
        return b"".join(path.read_bytes() for path in folder.rglob("*") if path.is_file())

    def damage(self, folder: Path, name: str, *, instead: str | None = None) -> None:
        path = folder / "secrets" / f"{name}.secret"
        if instead is not None:
            path.write_bytes((folder / "secrets" / f"{instead}.secret").read_bytes())
        else:
            flip_a_bit(path, at=0.99)
