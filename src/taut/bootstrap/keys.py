"""Who holds the installation's keys, by URL: files, an HSM, a Vault, AWS KMS."""

from __future__ import annotations

import re
from collections.abc import Callable
from contextlib import ExitStack
from pathlib import Path
from typing import Final
from urllib.parse import SplitResult, parse_qsl, unquote, urlsplit, urlunsplit

from taut.bootstrap.adapters import choose, installed
from taut.bootstrap.config import Config
from taut.core.errors import InvalidInput
from taut.ports.keys import Keys
from taut.ports.world import Clock, Random

_PREFIX: Final = re.compile(r"[a-z][a-z0-9_-]{0,39}")
_REGION: Final = re.compile(r"[a-z]{2}(-[a-z]+)+-[0-9]")


def open_keys(config: Config, *, clock: Clock, random: Random, stack: ExitStack) -> Keys:
    """Open the holder of keys that the configuration names; what it needs is closed with `stack`."""
    return choose(config.keys, _KEYS, "keys")(config, clock, random, stack)


def _file(config: Config, _clock: Clock, random: Random, _stack: ExitStack) -> Keys:
    from taut.adapters.keys.file import FileKeys

    path = urlsplit(config.keys).path
    folder = Path(path) if path else config.home / "keys"
    return FileKeys(folder, random=random, passphrase=config.keys_passphrase or None)


def _pkcs11(config: Config, _clock: Clock, random: Random, stack: ExitStack) -> Keys:
    """The address is that of RFC 7512; `object` names the prefix of the keys."""
    installed("pkcs11", "hsm")
    from taut.adapters.keys.held import HeldKeys
    from taut.adapters.keys.pkcs11 import Pkcs11Holder

    parts = urlsplit(config.keys)
    path = dict(pair.partition("=")[::2] for pair in unquote(parts.path).split(";"))
    module = _options(parts, "module-path").get("module-path", "")
    if not path.get("token") or not module:
        raise InvalidInput(
            "TAUT_KEYS names no token or no module: write pkcs11:token=NAME;object=PREFIX?module-path=/path/to/driver.so"
        )
    holder = Pkcs11Holder(
        Path(module), token=path["token"], pin=config.keys_passphrase, lock=config.home / "keys" / "lock", random=random
    )  # fmt: skip
    stack.callback(holder.close)
    return HeldKeys(holder, prefix=_prefix(path.get("object", "")), kind="HSM")


def _vault(config: Config, clock: Clock, random: Random, stack: ExitStack) -> Keys:
    from taut.adapters.keys.held import HeldKeys
    from taut.adapters.keys.vault import VaultHolder

    parts = urlsplit(config.keys.removeprefix("vault+"))
    ca = _options(parts, "ca").get("ca", "")
    engine, _, prefix = urlunsplit(parts._replace(query="")).rstrip("/").rpartition("/")
    holder = VaultHolder(engine, token=config.keys_passphrase, clock=clock, random=random, ca=ca)
    stack.callback(holder.close)
    return HeldKeys(holder, prefix=_prefix(prefix), kind="Vault")


def _kms(config: Config, clock: Clock, random: Random, stack: ExitStack) -> Keys:
    from taut.adapters.keys.held import HeldKeys
    from taut.adapters.keys.kms import KmsHolder
    from taut.adapters.keys.sigv4 import Credentials

    parts = urlsplit(config.keys)
    region = parts.netloc
    if not _REGION.fullmatch(region):
        raise InvalidInput("TAUT_KEYS names no region of AWS: write for example kms://eu-west-1/PREFIX")
    endpoint = _options(parts, "endpoint").get("endpoint", f"https://kms.{region}.amazonaws.com")
    holder = KmsHolder(
        endpoint,
        region=region,
        credentials=Credentials.parse(config.keys_passphrase),
        clock=clock,
        random=random,
    )
    stack.callback(holder.close)
    return HeldKeys(holder, prefix=_prefix(parts.path.strip("/")), kind="KMS")


def _prefix(text: str) -> str:
    """Two installations with one prefix would be one: so it is asked for, and never guessed."""
    if not _PREFIX.fullmatch(text):
        raise InvalidInput(
            f"TAUT_KEYS calls this installation's keys {text[:50]!r}: give a prefix of a-z, 0-9, '-' and '_' that no "
            "other installation has"
        )
    return text


def _options(parts: SplitResult, *known: str) -> dict[str, str]:
    found = dict(parse_qsl(parts.query, keep_blank_values=True))
    unknown = sorted(set(found) - set(known))
    if unknown:
        raise InvalidInput(
            f"keys at {parts.scheme}: have no option {unknown[0]!r}: leave it out of TAUT_KEYS"
        )
    return found


_Open = Callable[[Config, Clock, Random, ExitStack], Keys]
_KEYS: Final[dict[str, _Open]] = {"file": _file, "pkcs11": _pkcs11, "vault": _vault, "kms": _kms}
