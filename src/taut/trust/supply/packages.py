"""Python packages: which a lock allows, which are installed, what those say of their licence and of what they need."""

from __future__ import annotations

import importlib.metadata
import re
from collections.abc import Iterable, Mapping
from typing import Final

import msgspec
from packaging.requirements import InvalidRequirement, Requirement
from packaging.utils import canonicalize_name

from taut.core.errors import InvalidInput

_PIN: Final = re.compile(r"([A-Za-z0-9][A-Za-z0-9._-]*)(?:\[[^\]]*\])?==([A-Za-z0-9.!+_-]+)")
_HASH: Final = re.compile(r"--hash=(sha256):([0-9a-f]{64})")
_LICENCE_TEXT_MAX: Final = 64
_CLASSIFIER: Final = "License :: OSI Approved :: "


class Locked(msgspec.Struct, frozen=True, kw_only=True):
    """One pin of a lock. hashes: sha256 of each file that may be installed, hexadecimal."""

    name: str
    version: str
    hashes: tuple[str, ...]


class Package(msgspec.Struct, frozen=True, kw_only=True):
    """A package at a version.

    licence: as its metadata says it, an SPDX expression where `spdx`; empty where nobody said. needs: names of those
    packages among the others that it asks for here. hashes: of the files that a lock allows.
    """

    name: str
    version: str
    licence: str = ""
    spdx: bool = False
    needs: tuple[str, ...] = ()
    hashes: tuple[str, ...] = ()


def normal_name(name: str) -> str:
    """Return a package's name in the one form in which names are compared (PEP 503)."""
    return str(canonicalize_name(name))


def purl(name: str, version: str) -> str:
    """Return the package URL of a Python package (purl-spec, type `pypi`)."""
    return f"pkg:pypi/{normal_name(name)}@{version.replace('+', '%2B')}"


def read_lock(text: str) -> tuple[Locked, ...]:
    """Return the pins of a requirements file with hashes, in its order; a package may be there for several platforms.

    Raises InvalidInput for a line that is no pin, or a pin without a hash: nothing could be said of what it installs.
    """
    found = []
    logical = text.replace("\\\n", " ").splitlines()
    for line in (line.split(" #")[0].strip() for line in logical):
        if not line or line.startswith("#"):
            continue
        pin = _PIN.match(line)
        hashes = tuple(digest for _, digest in _HASH.findall(line))
        if pin is None or not hashes:
            raise InvalidInput(f"{line[:80]!r} is no pin with a hash: write the lock anew with `make lock`")
        found.append(Locked(name=normal_name(pin[1]), version=pin[2], hashes=hashes))
    return tuple(found)


def installed() -> dict[str, str]:
    """Return every installed distribution by its normal name, with its version."""
    return {
        normal_name(item.metadata["Name"]): item.version
        for item in importlib.metadata.distributions()
        if item.metadata["Name"]
    }


def packages_of(
    versions: Mapping[str, str], hashes: Mapping[tuple[str, str], tuple[str, ...]] | None = None
) -> tuple[Package, ...]:
    """Describe packages by name, sorted.

    versions: name -> version. What is installed here in that very version says its licence and needs; of others only
    name and version are known. Requirements are those that hold on this machine, without extras.
    """
    wanted = {normal_name(name): version for name, version in versions.items()}
    found = []
    for name, version in sorted(wanted.items()):
        allowed = (hashes or {}).get((name, version), ())
        try:
            meta = importlib.metadata.distribution(name)
        except importlib.metadata.PackageNotFoundError:
            meta = None
        if meta is None or meta.version != version:
            found.append(Package(name=name, version=version, hashes=allowed))
            continue
        licence, spdx = _licence(meta)
        needs = tuple(sorted(_needs(meta.requires or ()) & set(wanted) - {name}))
        found.append(
            Package(name=name, version=version, licence=licence, spdx=spdx, needs=needs, hashes=allowed)
        )
    return tuple(found)


def _needs(requirements: Iterable[str]) -> set[str]:
    names = set()
    for text in requirements:
        try:
            requirement = Requirement(text)
        except InvalidRequirement as error:
            raise InvalidInput(f"an installed package asks for {text[:80]!r}: {error}") from error
        if requirement.marker is None or requirement.marker.evaluate({"extra": ""}):
            names.add(normal_name(requirement.name))
    return names


def _licence(meta: importlib.metadata.Distribution) -> tuple[str, bool]:
    """Return what a distribution says of its licence, and whether that is an SPDX expression (PEP 639)."""
    said = meta.metadata
    for expression in said.get_all("License-Expression") or ():
        return str(expression), True
    classified = [
        value.removeprefix(_CLASSIFIER)
        for value in said.get_all("Classifier") or ()
        if value.startswith(_CLASSIFIER)
    ]
    if classified:
        return " / ".join(sorted(classified)), False
    free = "".join(said.get_all("License") or ()).strip()
    return (free, False) if free and len(free) <= _LICENCE_TEXT_MAX and "\n" not in free else ("", False)
