from __future__ import annotations

import hashlib
from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest

from holders import Bao, Hsm
from taut.adapters.keys.file import FileKeys
from taut.adapters.keys.held import HeldKeys, Holder
from taut.adapters.keys.kms import KmsHolder
from taut.adapters.keys.pkcs11 import Pkcs11Holder
from taut.adapters.keys.sigv4 import Credentials
from taut.adapters.keys.vault import VaultHolder
from taut.adapters.world import SystemClock, SystemRandom
from taut.ports.keys import Keys
from taut.testing.conformance.keys import KeysSuite

CHEAP = 2**10  # a cost of scrypt that tests can afford


class TestFileKeys(KeysSuite):
    def open(self, folder: Path) -> Keys:
        return FileKeys(folder / "keys", random=SystemRandom())


class TestFileKeysUnderPassphrase(KeysSuite):
    def open(self, folder: Path) -> Keys:
        return FileKeys(folder / "keys", random=SystemRandom(), passphrase="open sesame", scrypt_cost=CHEAP)


class Held(KeysSuite):
    """Installations that share one holder, each with keys under a prefix of its own."""

    holder: Holder
    turns = 6

    def open(self, folder: Path) -> Keys:
        prefix = "t" + hashlib.sha256(str(folder).encode()).hexdigest()[:12]
        return HeldKeys(self.holder, prefix=prefix, kind="holder")


@pytest.fixture(scope="module")
def hsm_holder(hsm: Hsm, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Holder]:
    lock = tmp_path_factory.mktemp("lock") / "lock"
    holder = Pkcs11Holder(hsm.module, token=hsm.token, pin=hsm.pin, lock=lock, random=SystemRandom())
    yield holder
    holder.close()


@pytest.mark.xdist_group("hsm")
class TestPkcs11Keys(Held):
    @pytest.fixture(autouse=True)
    def _holder(self, hsm_holder: Holder) -> None:
        self.holder = hsm_holder


@pytest.fixture(scope="module")
def vault_holder(bao: Bao) -> Iterator[Holder]:
    holder = VaultHolder(f"{bao.url}/transit", token=bao.token, clock=SystemClock(), random=SystemRandom())
    yield holder
    holder.close()


@pytest.mark.xdist_group("vault")
class TestVaultKeys(Held):
    @pytest.fixture(autouse=True)
    def _holder(self, vault_holder: Holder) -> None:
        self.holder = vault_holder


@pytest.fixture(scope="module")
def kms_holder() -> Iterator[Holder]:
    """On moto, in this process."""
    from moto.server import create_backend_app

    holder = KmsHolder(
        "http://127.0.0.1:1", region="eu-west-1", credentials=Credentials("id", "secret"), clock=SystemClock(),
        random=SystemRandom(), transport=httpx.WSGITransport(create_backend_app("kms")),
    )  # fmt: skip
    yield holder
    holder.close()


class TestKmsKeys(Held):
    @pytest.fixture(autouse=True)
    def _holder(self, kms_holder: Holder) -> None:
        self.holder = kms_holder
