"""An installation whose keys another holds, chosen by `TAUT_KEYS`."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from datetime import timedelta
from pathlib import Path

import pytest

from holders import Bao, Hsm
from taut.adapters.keys.pkcs11 import Pkcs11Holder
from taut.adapters.world import SystemRandom
from taut.bootstrap.config import Config
from taut.bootstrap.keys import open_keys
from taut.bootstrap.platform import Platform, open_platform
from taut.core.errors import Conflict, Denied, InvalidInput, Unavailable
from taut.testing.world import ManualClock, SeededRandom


@contextmanager
def installation(home: Path, keys: str, opens: str) -> Iterator[Platform]:
    with open_platform(home, environ={"TAUT_KEYS": keys, "TAUT_KEYS_PASSPHRASE": opens}) as platform:
        yield platform


def works(home: Path, keys: str, opens: str) -> None:
    """Secrets and tokens of one opening are good in the next."""
    with installation(home, keys, opens) as platform:
        platform.own_database()
        platform.secrets.put("db", "s3cret-value")
        platform.identity.create_principal("ada", kind="human", roles=("admin",), actor="test")
        token, _ = platform.identity.create_token("ada", ("admin",), timedelta(minutes=5), actor="test")
        platform.identity.rotate_token_key(actor="test")
    with installation(home, keys, opens) as platform:
        platform.own_database()
        assert platform.secrets.get("db") == "s3cret-value"
        assert platform.identity.authenticate(token).id == "ada"
    assert not list((home / "keys").glob("*.key"))


@pytest.mark.xdist_group("vault")
def test_an_installation_lives_on_a_vault(bao: Bao, tmp_path: Path) -> None:
    engine = f"vault+{bao.url}/transit"
    works(tmp_path / "home", f"{engine}/one", bao.token)
    with (
        installation(tmp_path / "home", f"{engine}/two", bao.token) as platform,
        pytest.raises(Conflict, match="another installation"),
    ):
        platform.own_database()
    with installation(tmp_path / "home", f"{engine}/one", "no-token") as platform, pytest.raises(Denied):
        platform.own_database()
    with (
        installation(tmp_path / "home", f"vault+{bao.url}/nowhere/one", bao.token) as platform,
        pytest.raises(InvalidInput, match="no transit engine"),
    ):
        platform.own_database()


@pytest.mark.xdist_group("hsm")
def test_an_installation_lives_on_an_hsm(hsm: Hsm, tmp_path: Path) -> None:
    keys = f"pkcs11:token={hsm.token};object=one?module-path={hsm.module}"
    works(tmp_path / "home", keys, hsm.pin)
    with installation(tmp_path / "home", keys, "wrong") as platform, pytest.raises(Denied, match="PIN"):
        platform.own_database()


@pytest.mark.xdist_group("hsm")
def test_a_token_that_forgot_its_sessions_is_opened_again(hsm: Hsm, tmp_path: Path) -> None:
    import pkcs11

    holder = Pkcs11Holder(
        hsm.module, token=hsm.token, pin=hsm.pin, lock=tmp_path / "lock", random=SystemRandom()
    )
    holder.add("again-data", 1)
    sealed = holder.encrypt("again-data", 1, b"key", aad=b"")
    pkcs11.lib(str(hsm.module)).reinitialize()  # what a reset does to every session and handle
    assert holder.decrypt("again-data", 1, sealed, aad=b"") == b"key"
    holder.close()
    absent = Pkcs11Holder(
        hsm.module, token="nobody", pin=hsm.pin, lock=tmp_path / "lock", random=SystemRandom()
    )
    with pytest.raises(Unavailable, match="no token"):
        absent.newest("again-data")


@pytest.mark.parametrize(
    ("keys", "opens"),
    [
        ("ldap://somewhere", ""), ("kms://eu-west-1/taut", "not-a-pair"), ("kms://eu-west-1", "id:secret"),
        ("kms://evil.example/taut", "id:secret"), ("kms://eu-west-1/taut?endpoint=http://far.example", "id:secret"),
        ("kms://eu-west-1/taut?endpont=http://127.0.0.1", "id:secret"), ("vault+http://far.example/transit/taut", "t"),
        ("vault+https://vault/transit/taut", ""), ("vault+https://vault/transit/Taut!", "t"),
        ("vault+https://vault/transit/taut?a=b", "t"), ("vault+https://vault/transit/taut?ca=/no/such.pem", "t"), ("pkcs11:token=t;object=taut", "1"),
        ("pkcs11:object=taut?module-path=/x.so", "1"), ("pkcs11:token=t;object=taut?module-path=/no/such.so", "1"),
    ],
)  # fmt: skip
def test_an_address_that_is_not_understood_is_refused(tmp_path: Path, keys: str, opens: str) -> None:
    config = Config(home=tmp_path, keys=keys, keys_passphrase=opens)
    with ExitStack() as stack, pytest.raises(InvalidInput):
        open_keys(config, clock=ManualClock(), random=SeededRandom(), stack=stack)
